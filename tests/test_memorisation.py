"""The test for copies: against scipy's Mann-Whitney U, and on generators that copy, invent or blur."""

import itertools
import types

import numpy as np
import pytest
import scipy.stats
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans

from ssl_gen.metrics.memorisation import copying, measure, nearest_ratio, z_score
from ssl_gen.types import UserError

RANDOM = np.random.default_rng(0)


def blobs(count, centres=(0,)):
    """count rows around each centre."""
    return np.concatenate([RANDOM.normal(size=(count, 5)) + centre for centre in centres])


def copies(rows, noise=1e-3):
    return rows + noise * RANDOM.normal(size=rows.shape)


TRAIN, HELD_OUT, NEW = blobs(300), blobs(120), blobs(150)
MODES = (0, 30, 60, 90)
MANY_TRAIN, MANY_HELD_OUT = blobs(100, MODES), blobs(50, MODES)


def z_of_scipy(samples, held_out):
    """Its z from the two-sided p-value, with the sign of U."""
    test = scipy.stats.mannwhitneyu(samples, held_out, method="asymptotic", use_continuity=False)
    sign = np.sign(test.statistic - len(samples) * len(held_out) / 2)
    return sign * scipy.stats.norm.isf(test.pvalue / 2)


def test_z_counts_pairs_and_half_of_ties():
    samples, held_out = [1.0, 2, 2, 5], [2.0, 3, 4]
    u = sum((s > h) + (s == h) / 2 for s, h in itertools.product(samples, held_out))
    spread = 4 * 3 / 12 * (7 + 1 - (3**3 - 3) / (7 * 6))  # 2 occurs three times
    assert z_score(np.array(samples), np.array(held_out)) == pytest.approx((u - 6) / np.sqrt(spread))


def test_z_without_ties_has_the_deviation_of_the_paper():
    samples, held_out = RANDOM.normal(size=30) - 0.3, RANDOM.normal(size=20)
    u = (samples[:, None] > held_out).sum()
    assert z_score(samples, held_out) == pytest.approx((u - 300) / np.sqrt(30 * 20 * 51 / 12))


@pytest.mark.parametrize("ties", [False, True])
def test_z_is_that_of_scipy(ties):
    samples, held_out = RANDOM.normal(size=40), RANDOM.normal(size=25) + 0.4
    if ties:
        samples, held_out = samples.round(), held_out.round()
    assert z_score(samples, held_out) == pytest.approx(z_of_scipy(samples, held_out), rel=1e-9)


def test_equal_numbers_are_no_evidence():
    assert z_score(np.full(30, 2.0), np.full(20, 2.0)) == 0


def test_one_cell_is_scipys_test_of_nearest_distances():
    samples = 0.9 * NEW
    distances = cdist(samples, TRAIN).min(1), cdist(HELD_OUT, TRAIN).min(1)
    assert copying(TRAIN, HELD_OUT, samples) == pytest.approx(z_of_scipy(*distances), rel=1e-9)


def test_cells_are_averaged_by_their_share_of_held_out_rows():
    held_out = np.concatenate([MANY_HELD_OUT, blobs(40, MODES[:2])])  # 90, 90, 50, 50
    samples = np.concatenate([blobs(60, MODES), 1.2 * blobs(30)])
    labels = [KMeans(4, random_state=0).fit(MANY_TRAIN).predict(rows) for rows in (MANY_TRAIN, held_out, samples)]
    total = 0
    for cell in range(4):
        t, h, s = (rows[of == cell] for rows, of in zip((MANY_TRAIN, held_out, samples), labels, strict=True))
        total += len(h) / len(held_out) * z_of_scipy(cdist(s, t).min(1), cdist(h, t).min(1))
    assert copying(MANY_TRAIN, held_out, samples, cells=4) == pytest.approx(total, rel=1e-9)


def test_new_images_are_no_copies():
    assert abs(copying(TRAIN, HELD_OUT, NEW)) < 3
    assert abs(copying(MANY_TRAIN, MANY_HELD_OUT, blobs(50, MODES), cells=4)) < 3


def test_the_held_out_images_themselves_are_no_evidence():
    assert copying(TRAIN, HELD_OUT, HELD_OUT[::-1]) == pytest.approx(0)


@pytest.mark.parametrize("noise", [0, 1e-9, 1e-2])
def test_copies_of_training_images_are_found(noise):
    assert copying(TRAIN, HELD_OUT, copies(TRAIN[:150], noise)) < -3


def test_noise_is_found_to_miss_the_data():
    assert copying(TRAIN, HELD_OUT, RANDOM.uniform(-20, 20, (150, 5))) > 3


def test_copies_in_one_cell_are_found_by_cells_alone():
    # poor copies: nearer to training rows than new images of their wide cell are, farther than those of the narrow one
    train, held_out = (np.concatenate([20 * blobs(count) + 500, 0.1 * blobs(count)]) for count in (200, 60))
    samples = np.concatenate([copies(train[:100], 2), 0.1 * blobs(30)])
    assert copying(train, held_out, samples) > -3
    assert copying(train, held_out, samples, cells=2) < -3


def test_a_cell_of_few_samples_is_left_out():
    few, enough = copies(MANY_TRAIN[:19]), copies(MANY_TRAIN[:20])
    rest = blobs(50, MODES[1:])
    without = copying(MANY_TRAIN, MANY_HELD_OUT, rest, cells=4)
    assert copying(MANY_TRAIN, MANY_HELD_OUT, np.concatenate([few, rest]), cells=4) == without
    assert copying(MANY_TRAIN, MANY_HELD_OUT, np.concatenate([enough, rest]), cells=4) < without


def test_a_cell_without_held_out_images_is_left_out():
    held_out, samples = MANY_HELD_OUT[50:], blobs(50, MODES)
    others = samples[50:]
    assert copying(MANY_TRAIN, held_out, samples, cells=4) == copying(MANY_TRAIN, held_out, others, cells=4)


def test_where_no_cell_counts_the_user_is_told():
    with pytest.raises(UserError, match="none of 4 cells has 20 of 40 samples"):
        copying(MANY_TRAIN, MANY_HELD_OUT, blobs(10, MODES), cells=4)


def test_the_seed_decides_the_cells():
    first, again = (copying(TRAIN, HELD_OUT, NEW, cells=5, seed=3) for _ in range(2))
    assert first == again
    assert len({copying(TRAIN, HELD_OUT, NEW, cells=5, seed=seed) for seed in range(4)}) > 1


def test_narrow_floats_give_nearly_the_same():
    narrow = [rows.astype(np.float32) for rows in (MANY_TRAIN, MANY_HELD_OUT, blobs(50, MODES))]
    assert copying(*narrow, cells=4) == copying(*(rows.astype(np.float64) for rows in narrow), cells=4)


@pytest.mark.parametrize("cells", [0, 301])
def test_impossible_numbers_of_cells_are_refused(cells):
    with pytest.raises(UserError, match=f"cells is {cells}: choose from 1 to 300"):
        copying(TRAIN, HELD_OUT, NEW, cells=cells)


@pytest.mark.parametrize("metric", [copying, nearest_ratio])
def test_unfit_features_are_refused(metric):
    broken = NEW.copy()
    broken[7] = np.nan
    with pytest.raises(UserError, match="1 of 150 samples"):
        metric(TRAIN, HELD_OUT, broken)
    with pytest.raises(UserError, match=r"\[4, 5\]"):
        metric(TRAIN, HELD_OUT[:, :4], NEW)
    with pytest.raises(UserError, match="0 samples are too few"):
        metric(TRAIN, HELD_OUT[:0], NEW)


def test_the_ratio_is_of_median_nearest_distances():
    expected = np.median(cdist(NEW, TRAIN).min(1)) / np.median(cdist(HELD_OUT, TRAIN).min(1))
    assert nearest_ratio(TRAIN, HELD_OUT, NEW) == pytest.approx(expected, rel=1e-12)


def test_the_ratio_is_near_1_for_new_images_and_0_for_copies():
    assert nearest_ratio(TRAIN, HELD_OUT, NEW) == pytest.approx(1, abs=0.2)
    assert nearest_ratio(TRAIN, HELD_OUT, TRAIN[:150]) == 0


def test_held_out_images_that_were_trained_on_are_refused():
    with pytest.raises(UserError, match="half of the held-out images are training images"):
        nearest_ratio(TRAIN, TRAIN[:50], NEW)


def test_an_image_that_is_neither_labelled_nor_in_the_pool_counts_as_none():
    """Of 90 training images 30 have labels, 60 are in the pool (10 of them with labels), and 10 were left out."""
    visible = np.where(np.arange(90) < 30, 1, -1)
    replica = types.SimpleNamespace(
        visible=visible,
        pool=np.arange(20, 80),
        train_features=TRAIN[:90],
        split="test",
        reference_features=HELD_OUT,
        features=NEW,
        on_features=lambda name: name,
    )
    found = measure(replica)
    assert found["copying_labelled"] == copying(TRAIN[:30], HELD_OUT, NEW)
    assert found["nearest_ratio_unlabelled"] == nearest_ratio(TRAIN[30:80], HELD_OUT, NEW)
    assert found["copying_unlabelled"] == copying(TRAIN[30:80], HELD_OUT, NEW)
    assert found["copying_unlabelled"] != copying(TRAIN[30:90], HELD_OUT, NEW)  # with those left out
    replica.pool = np.arange(30)
    assert set(measure(replica)) == {"copying_labelled", "nearest_ratio_labelled"}


def test_of_five_hundred_training_images_on_there_are_five_cells_and_of_fewer_one():
    """500 have labels, the 499 others of the pool have none; the five modes differ in what one cell would even out."""
    train = np.concatenate([(1 + k) * RANDOM.normal(size=(200, 5)) + 40 * k for k in range(5)])[:999]
    rows = RANDOM.permutation(999)
    held_out = np.concatenate([(1 + k) * RANDOM.normal(size=(30, 5)) + 40 * k for k in range(5)])
    samples = np.concatenate([train[::8], held_out + RANDOM.normal(size=held_out.shape)])
    replica = types.SimpleNamespace(
        visible=np.where(np.isin(np.arange(999), rows[:500]), 1, -1),
        pool=np.arange(999),
        train_features=train,
        split="test",
        reference_features=held_out,
        features=samples,
        on_features=lambda name: name,
    )
    found = measure(replica)
    labelled, unlabelled = (train[np.sort(each)] for each in (rows[:500], rows[500:]))
    one, five = ([copying(each, held_out, samples, cells) for each in (labelled, unlabelled)] for cells in (1, 5))
    assert all(abs(a - b) > 0.1 for a, b in zip(one, five, strict=True))  # so that this test can tell
    assert (found["copying_labelled"], found["copying_unlabelled"]) == (five[0], one[1])
    for name, each in (("labelled", labelled), ("unlabelled", unlabelled)):
        assert found[f"nearest_ratio_{name}"] == nearest_ratio(each, held_out, samples)


def test_without_a_test_split_new_images_are_the_training_images_that_are_not_in_question():
    """Of 90 images 30 have labels, 40 more are in the pool; with all 90 as new ones, copies would hide behind them."""
    replica = types.SimpleNamespace(
        visible=np.where(np.arange(90) < 30, 1, -1),
        pool=np.arange(70),
        split="train",
        train_features=TRAIN[:90],
        reference_features=TRAIN[:90],
        features=np.concatenate([TRAIN[:30], NEW]),
        on_features=lambda name: name,
    )
    found = measure(replica)
    assert found["copying_labelled"] == copying(TRAIN[:30], TRAIN[30:90], replica.features)
    held_out = np.concatenate([TRAIN[:30], TRAIN[70:90]])
    assert found["copying_unlabelled"] == copying(TRAIN[30:70], held_out, replica.features)
    replica.visible, replica.pool = np.ones(90, int), np.arange(90)
    assert measure(replica) == {}  # every image is labelled: none is new
