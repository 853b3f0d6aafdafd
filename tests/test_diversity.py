"""How much the images of a class differ, by hand-made images."""

import warnings

import numpy as np
import pytest

from ssl_gen.metrics.diversity import within_class_deviation

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (9, 4, 5, 3), np.uint8)
LABELS = np.array([0, 0, 1, 1, 1, 2, 2, 2, 2])


def test_equal_images_have_no_deviation():
    assert within_class_deviation(np.repeat(IMAGES[:1], 4, axis=0), np.array([0, 0, 1, 1]), 2) == 0


def test_classes_that_differ_only_from_each_other_have_none():
    images = np.array([0, 0, 255, 255], np.uint8)[:, None, None, None] * np.ones((1, 3, 3, 1), np.uint8)
    assert within_class_deviation(images, np.array([0, 0, 1, 1]), 2) == 0
    assert within_class_deviation(images, np.array([0, 1, 0, 1]), 2) == pytest.approx(0.5)


def test_black_and_white_images_deviate_by_a_half():
    images = np.array([0, 255], np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8)
    assert within_class_deviation(images, np.array([0, 0]), 1) == pytest.approx(0.5)


def test_the_deviation_is_the_mean_over_pixels_and_classes():
    by_class = []
    for start, stop in ((0, 2), (2, 5), (5, 9)):
        pixels = IMAGES[start:stop].astype(np.float64).reshape(stop - start, -1) / 255
        by_class.append(np.mean([np.sqrt(np.mean((column - column.mean()) ** 2)) for column in pixels.T]))
    assert within_class_deviation(IMAGES, LABELS, 3) == pytest.approx(np.mean(by_class), rel=1e-5)


def test_each_class_counts_the_same_however_many_images_it_has():
    few = within_class_deviation(IMAGES, LABELS, 3)
    more = within_class_deviation(
        np.concatenate([IMAGES, np.tile(IMAGES[:2], (5, 1, 1, 1))]), np.concatenate([LABELS, np.zeros(10, int)]), 3
    )
    assert more == pytest.approx(few, rel=1e-5)


def test_classes_without_an_image_are_left_out():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert within_class_deviation(IMAGES, LABELS, 7) == within_class_deviation(IMAGES, LABELS, 3)


def test_images_of_no_class_do_not_count():
    labels = np.concatenate([LABELS, [-1, -2]])
    images = np.concatenate([IMAGES, 255 - IMAGES[:2]])
    assert within_class_deviation(images, labels, 3) == within_class_deviation(IMAGES, LABELS, 3)
