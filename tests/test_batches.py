"""Which images a step sees: a function of the seed and the step, and of no label that is hidden."""

import numpy as np
import pytest

from ssl_gen.datasets.batches import UNTOLD, Rows, rows

LABELS = np.arange(20, dtype=np.int32) % 4
VISIBLE = np.where(np.isin(np.arange(20), [1, 2, 4, 7, 11, 16]), LABELS, -1).astype(np.int32)
SHOWN = np.flatnonzero(VISIBLE >= 0)
POOL = np.array([0, 3, 4, 5, 8, 9, 12, 13, 17, 19], np.int32)


def draw(start, steps, sizes=(3, 4), seed=0, phase=0, visible=VISIBLE, told=None):
    return rows(visible, POOL, sizes, seed, phase, start, steps, told)


def assert_equal(a, b):
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("sizes", [(3, 4), (4, 3), (13, 27)])
def test_steps_asked_for_at_once_are_those_asked_for_one_by_one(sizes):
    single = [draw(step, 1, sizes) for step in range(3, 8)]
    assert_equal(draw(3, 5, sizes), Rows(*(np.concatenate(part) for part in zip(*single, strict=True))))


def test_the_same_step_of_the_same_seed_is_the_same_whatever_was_asked_before():
    before = draw(5, 2)
    draw(0, 40, seed=1)
    draw(9, 1, phase=1)
    assert_equal(draw(5, 2), before)


def test_rows_are_laid_out_by_step_as_int32():
    drawn = draw(0, 5)
    assert [part.shape for part in drawn] == [(5, 3), (5, 3), (5, 4), (5, 4)]
    assert {part.dtype for part in drawn} == {np.dtype(np.int32)}


def test_every_visible_image_comes_once_an_epoch():
    for epoch in range(3):  # 6 visible images are two steps of 3
        np.testing.assert_array_equal(np.sort(draw(2 * epoch, 2).labelled.ravel()), SHOWN)


def test_every_image_of_the_pool_comes_once_an_epoch():
    for epoch in range(3):  # 10 images are two steps of 5
        np.testing.assert_array_equal(np.sort(draw(2 * epoch, 2, (3, 5)).unlabelled.ravel()), POOL)


def test_an_epoch_that_ends_within_a_batch_is_whole_all_the_same():
    order = draw(0, 5).unlabelled.ravel()  # 5 steps of 4 are two epochs of 10
    np.testing.assert_array_equal(np.sort(order[:10]), POOL)
    np.testing.assert_array_equal(np.sort(order[10:]), POOL)


def test_epochs_have_different_orders():
    order = draw(0, 4, (6, 10))
    assert len({tuple(epoch) for epoch in order.unlabelled}) == 4
    assert len({tuple(epoch) for epoch in order.labelled}) == 4


def test_labels_belong_to_their_rows():
    drawn = draw(0, 30)
    np.testing.assert_array_equal(drawn.labels, LABELS[drawn.labelled])


def test_no_hidden_label_is_ever_drawn():
    foreign = np.where(VISIBLE == -1, -np.arange(20) - 1, VISIBLE).astype(np.int32)  # any negative number hides
    drawn = draw(0, 30, visible=foreign)
    assert drawn.labels.min() >= 0
    assert set(drawn.labelled.ravel()) == set(SHOWN)
    assert_equal(drawn, draw(0, 30))


def test_seeds_draw_different_orders():
    one, other = draw(0, 1, (6, 10), seed=0), draw(0, 1, (6, 10), seed=1)
    assert not np.array_equal(one.labelled, other.labelled)
    assert not np.array_equal(one.unlabelled, other.unlabelled)


def test_phases_draw_different_orders():
    one, other = draw(0, 1, (6, 10), phase=0), draw(0, 1, (6, 10), phase=1)
    assert not np.array_equal(one.labelled, other.labelled)
    assert not np.array_equal(one.unlabelled, other.unlabelled)


def test_labelled_and_unlabelled_images_have_orders_of_their_own():
    everything = np.arange(20, dtype=np.int32)
    drawn = rows(LABELS, everything, (20, 20), 0, 0, 0, 1)
    assert not np.array_equal(drawn.labelled, drawn.unlabelled)


def test_a_labelled_set_smaller_than_a_batch_is_repeated_evenly():
    few = np.where(np.isin(np.arange(20), [2, 5, 9]), LABELS, -1).astype(np.int32)
    batches = draw(0, 3, (8, 4), visible=few).labelled
    assert sorted(np.unique(batches[0], return_counts=True)[1]) == [2, 3, 3]  # 8 draws of 3 images
    np.testing.assert_array_equal(np.unique(batches, return_counts=True), [[2, 5, 9], [8, 8, 8]])


def test_a_phase_without_labelled_images_gets_empty_rows():
    drawn = draw(2, 3, (0, 4))
    assert [part.shape for part in drawn] == [(3, 0), (3, 0), (3, 4), (3, 4)]
    assert {part.dtype for part in drawn} == {np.dtype(np.int32)}
    np.testing.assert_array_equal(drawn.unlabelled, draw(2, 3).unlabelled)


def test_a_phase_without_unlabelled_images_gets_empty_rows():
    drawn = draw(2, 3, (3, 0))
    assert drawn.unlabelled.shape == (3, 0) and drawn.unlabelled.dtype == np.int32
    assert_equal(drawn[:2], draw(2, 3)[:2])


def test_nothing_is_said_of_unlabelled_images_where_nothing_is_told():
    assert (draw(0, 30).guesses == UNTOLD).all()


def test_what_is_told_of_an_image_goes_with_it_and_changes_no_row():
    told = np.where(np.arange(20) % 3 == 0, UNTOLD, LABELS).astype(np.int32)
    drawn = draw(0, 30, told=told)
    np.testing.assert_array_equal(drawn.guesses, told[drawn.unlabelled])
    assert_equal(drawn[:3], draw(0, 30)[:3])


def test_labels_drawn_from_probabilities_are_as_frequent_and_a_function_of_the_step():
    told = np.zeros((20, 3), np.float32)
    told[:10], told[10:19] = [0.5, 0.0, 0.5], [0.0, 0.25, 0.75]  # of row 19 nothing is known
    drawn = draw(0, 2_000, (0, 10), told=told)
    counts = [[(drawn.guesses[drawn.unlabelled == row] == k).mean() for k in range(3)] for row in (0, 3, 12, 17)]
    expected = [told[0], told[3], told[12], told[17]]
    np.testing.assert_allclose(counts, expected, atol=5 * np.sqrt(0.25 / 2_000))
    assert np.min(counts) == 0 and (drawn.guesses[drawn.unlabelled == 19] == UNTOLD).all()
    assert_equal(draw(7, 2, (0, 10), told=told), Rows(*(part[7:9] for part in drawn)))
    assert not np.array_equal(draw(0, 9, (0, 10), seed=1, told=told).guesses, drawn.guesses[:9])
