"""What a run is trained on fits together, or is refused; and what each step sees of it."""

import numpy as np
import pytest

from ssl_gen.datasets.batches import rows
from ssl_gen.datasets.masking import Scheme
from ssl_gen.methods.adversarial import feature_matching
from ssl_gen.methods.classical import supervised
from ssl_gen.methods.self_training import ada_match, fixmatch, gan_self_training, soft_match
from ssl_gen.runs import train
from ssl_gen.runs.data import check_alignment, check_pool, feed, initial_rows, load_data
from ssl_gen.runs.options import Options, budget
from ssl_gen.training.segments import Segment
from ssl_gen.types import Phase, UserError


def test_a_method_that_needs_unlabelled_images_is_refused_a_mask_that_leaves_none(tmp_path):
    options = Options(labels="all", mask=Scheme(disjoint=True), out=tmp_path / "run")
    with pytest.raises(UserError, match="no image is left unlabelled"):
        train.train("feature_matching", feature_matching.Config(steps=1), options)


def test_a_method_of_labels_alone_may_have_them_all():
    data = load_data(Options(labels="all", mask=Scheme(disjoint=True)))
    check_pool(data, supervised.make(supervised.Config(), data.dataset.spec).phases)
    assert initial_rows(data).unlabelled.shape == (1, 500)


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(missing=(3,)),
        Scheme(pool_imbalance=10.0),
        Scheme(kind="long_tailed", imbalance=10.0),
        Scheme(out_of_distribution=0.5),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "module", [fixmatch, soft_match, ada_match, gan_self_training], ids=lambda module: module.__name__.split(".")[-1]
)
def test_alignment_is_refused_where_the_pool_is_known_to_have_other_classes_than_the_labels(module, scheme):
    with pytest.raises(UserError, match=r"add --config.no-alignment"):
        check_alignment(module.Config(), scheme)
    check_alignment(module.Config(alignment=False), scheme)
    check_alignment(module.Config(), Scheme(kind="uniform", noise=0.2, disjoint=True))
    check_alignment(supervised.Config(), scheme)


def test_a_run_is_refused_before_it_starts_where_alignment_would_mislead(tmp_path):
    options = Options(labels="100", mask=Scheme(missing=(3,)), out=tmp_path / "run")
    with pytest.raises(UserError, match=r"add --config.no-alignment"):
        train.train("fixmatch", fixmatch.Config(steps=1), options)
    assert not (tmp_path / "run").exists()


def test_out_of_distribution_images_need_a_source():
    with pytest.raises(UserError, match="--out-of-distribution-dataset"):
        load_data(Options(mask=Scheme(out_of_distribution=0.5)))


def test_out_of_distribution_images_join_the_pool_and_nothing_else():
    options = Options(mask=Scheme(out_of_distribution=0.5), out_of_distribution_dataset="shapes:16:2000", size=16)
    data = load_data(options)
    own = len(load_data(Options()).dataset.train_labels)
    pool = data.masks[0].pool
    assert (pool >= own).mean() == pytest.approx(0.5, abs=1e-3)
    assert (data.masks[0].labels[own:] < 0).all()


def test_the_rows_of_a_segment_are_those_of_each_seed_counted_from_where_its_phase_began():
    data = load_data(Options(labels="30", seeds=2))
    phases = Phase("first", 4, 3, 0, None), Phase("second", 10, 5, 7, None)
    found = feed(data, phases)(Segment(phase=1, begin=4, start=6, stop=9))
    for seed, mask in enumerate(data.masks):
        expected = rows(mask.labels, mask.pool, (5, 7), seed, 1, 2, 3)
        for part, same in zip(found, expected, strict=True):
            np.testing.assert_array_equal(part[:, seed], same)


def test_a_seed_alone_has_the_mask_and_the_batches_that_it_has_among_others():
    alone, several = (load_data(Options(labels="30", **which)) for which in ({"first_seed": 2}, {"seeds": 3}))
    assert alone.seeds == [2] and [mask.name for mask in alone.masks] == ["digits@30-s2"]
    assert alone.masks[0].sha256 == several.masks[2].sha256
    phases, segment = (Phase("only", 4, 3, 5, None),), Segment(phase=0, begin=0, start=0, stop=4)
    for part, among in zip(feed(alone, phases)(segment), feed(several, phases)(segment), strict=True):
        np.testing.assert_array_equal(part[:, 0], among[:, 2])
    for part, among in zip(initial_rows(alone), initial_rows(several), strict=True):
        np.testing.assert_array_equal(part[0], among[2])


def test_several_seeds_of_one_mask_differ_in_their_batches_alone():
    data = load_data(Options(labels="30", seeds=3, mask=Scheme(seed=6)))
    own = load_data(Options(labels="30", first_seed=6)).masks[0]
    assert data.seeds == [0, 1, 2] and {mask.name for mask in data.masks} == {"digits@30-s6"}
    assert {mask.sha256 for mask in data.masks} == {own.sha256} and len(data.masks) == 3
    batches = feed(data, (Phase("only", 4, 3, 5, None),))(Segment(phase=0, begin=0, start=0, stop=4))
    assert set(batches.labelled.ravel()) <= set(np.flatnonzero(own.labels >= 0))
    assert not np.array_equal(batches.labelled[:, 0], batches.labelled[:, 1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seeds": 0}, "--seeds is at least 1, not 0"),
        ({"first_seed": -1}, "--first-seed -1: seeds are 0 to 2147483647"),
        ({"first_seed": 2**31 - 1, "seeds": 2}, "--first-seed 2147483647: seeds are 0 to 2147483647"),
        ({"labels": "few"}, "--labels is a number of visible labels or \"all\", not 'few'"),
        ({"dataset": "digit"}, "digits"),
        ({"validation": 2000}, "give a number from 1 to"),
    ],
)
def test_what_does_not_fit_together_is_one_line(options, said):
    with pytest.raises(UserError) as refused:
        load_data(Options(**options))
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_budget_is_a_number_or_all():
    assert budget("all") is None and budget("100") == 100
