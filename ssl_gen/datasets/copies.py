"""Training images that are copies of test images, which would let the test set into training.

Exact copies are equal in every level after decoding. Near copies (saved again as JPEG, a little brighter) are found by
thumbnails and checked pixel by pixel; another test image must be much farther away, so that two like digits are not
taken for one: one that is no near copy of the first itself, for a test set may hold a picture several times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssl_gen.datasets.dataset import Dataset, conform, recolour_one
from ssl_gen.datasets.disk import blocks, chosen
from ssl_gen.datasets.reading import Reading

SIDE = 8  # pixels of a thumbnail, grey, less its mean: a small perceptual hash; ours
NEAR = 0.1  # of the test image's contrast (standard deviation) that a near copy's thumbnail may be away; ours
NEAR_PIXELS = 0.4  # the same of the image itself, in grey, whose pixels JPEG changes more; ours
RATIO = 0.3  # of its distance to the next test image of something else; Lowe 2004, "Distinctive Image Features", 7.1
FLAT = 1.0  # levels of contrast below which an image shows too little to tell a near copy by; ours
# With these, of 15,000 MNIST training images at most 1 was taken for a near copy of 20, 500 or 5,000 test images (with
# 0.2, 0.5, 0.5 up to 40), and of photographs saved as JPEG (quality 75) 22 of 24 were found.
BLOCK = 1_000  # training images that are compared at a time with all test images; ours
MOST = 10_000_000  # distances at a time; ours


class Copies(NamedTuple):
    """Which training images copy a test image."""

    exact: np.ndarray  # (N,) bool
    near: np.ndarray  # (N,) bool, the exact ones not among them


def find_exact(images: np.ndarray, tests: np.ndarray) -> np.ndarray:
    """images (N, H, W, C), tests (T, H, W, C) uint8 -> (N,) bool: which images equal a test image."""
    known = set(_digests(tests))
    return np.array([digest in known for digest in _digests(images)], bool)


def find_copies(images: np.ndarray, tests: np.ndarray, nearly: bool = True) -> Copies:
    """images (N, H, W, C), tests (T, H, W, C) uint8 of one shape -> those that copy a test image, or nearly do."""
    exact = find_exact(images, tests)
    near = np.zeros(len(images), bool)
    if not nearly:
        return Copies(exact, near)
    rows = np.array(list({digest: row for row, digest in enumerate(_digests(tests))}.values()))  # each once
    known = np.concatenate([_thumbnails(block) for block in blocks(tests, rows)])
    contrast = known.std(axis=1)
    count = min(BLOCK, max(1, MOST // len(known)))
    for start in range(0, len(images), count):
        block = _thumbnails(images[start : start + count])
        square = (block**2).sum(1)[:, None] + (known**2).sum(1) - 2 * block @ known.T
        distances = np.sqrt(np.maximum(square, 0) / SIDE**2)
        best = distances.argmin(axis=1)
        nearest = distances.min(axis=1)
        close = (nearest <= NEAR * contrast[best]) & (contrast[best] >= FLAT)
        for row in np.flatnonzero(close & ~exact[start : start + count]):
            test, others = best[row], distances[row]
            others[test] = np.inf
            if _like(images[start + row], tests[rows[test]]):
                while nearest[row] > RATIO * others.min():
                    second = others.argmin()
                    apart = np.sqrt(np.square(known[test] - known[second]).mean())
                    if apart > NEAR * contrast[test] or not _like(tests[rows[second]], tests[rows[test]]):
                        break
                    others[second] = np.inf
                near[start + row] = nearest[row] <= RATIO * others.min()
    return Copies(exact, near)


def _like(image: np.ndarray, test: np.ndarray) -> bool:
    """Are two images (H, W, C) uint8 nearly equal, pixel by pixel?"""
    image, test = _grey(image), _grey(test)
    return bool((image - test).std() <= NEAR_PIXELS * test.std())


def _digests(images: np.ndarray) -> Iterator[bytes]:
    """Of each image, in order."""
    for block in blocks(images):
        for image in np.ascontiguousarray(block):
            yield hashlib.blake2b(image.data, digest_size=16).digest()


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """(N, H, W, C) uint8 -> (N, 64) float32, grey, less the mean."""
    small = conform(images, SIDE, SIDE, 1).reshape(len(images), -1).astype(np.float32)
    return small - small.mean(axis=1, keepdims=True)


def _grey(image: np.ndarray) -> np.ndarray:
    """(H, W, C) uint8 -> (H, W) float32: JPEG keeps colours less well than light."""
    return recolour_one(image, 1)[..., 0].astype(np.float32)


def account(dataset: Dataset) -> Reading:
    """The reading of a published data set, which keeps the images that it is known with: a warning of exact copies."""
    reading = dataset.reading or Reading()
    count = int(find_exact(dataset.train_images, dataset.test_images).sum())
    if count:
        reading.warnings.append(f"{count:,} training images equal a test image, and are kept, as published")
    return reading


def without_copies(
    dataset: Dataset, names: Sequence[str], held_out: np.ndarray | None = None, split: str = "test"
) -> Dataset:
    """The data set less the training images that copy a test image, which its reading then names.

    names (N,): of the training images; held_out (T, H, W, C) uint8: the images of another split. The labelled images of
    a class of which nothing else would be left stay, and the reading warns of them.
    """
    reading = dataset.reading or Reading()
    found = find_copies(dataset.train_images, dataset.test_images if held_out is None else held_out)
    out = found.exact | found.near
    for k, name in enumerate(dataset.class_names):
        own = dataset.train_labels == k
        if own.any() and out[own].all():
            out[own] = False
            reading.warnings.append(
                f"all {own.sum():,} training images of class {name!r} are copies of {split} images, and are "
                f"kept: its {split} images measure nothing"
            )
    _leave_out(reading, found, out, names, split)
    return dataset._replace(
        train_images=chosen(dataset.train_images, ~out), train_labels=dataset.train_labels[~out], reading=reading
    )


def without_held_out(other: Dataset, held_out: Mapping[str, np.ndarray], near: bool) -> tuple[Dataset, Reading]:
    """Another data set less its training images that copy one that is held out, and what was left out.

    held_out: (T, H, W, C) uint8 by split, of the other's shape; near: are near copies, too?
    """
    out, reading = np.zeros(len(other.train_images), bool), Reading()
    names = [f"image {row} of {other.name}" for row in range(len(out))]
    for split, images in held_out.items():
        if len(images):
            found = find_copies(other.train_images, images, near)
            _leave_out(reading, found, ~out, names, split, "of no class, and ")
            out |= found.exact | found.near
    left = other._replace(train_images=chosen(other.train_images, ~out), train_labels=other.train_labels[~out])
    return left, reading


def _leave_out(
    reading: Reading, found: Copies, among: np.ndarray, names: Sequence[str], split: str, what: str = ""
) -> None:
    """Note the copies among some images, (N,) bool, by their names (N,)."""
    for how, rows in (("equal", found.exact), ("nearly equal", found.near)):
        gone = [names[row] for row in np.flatnonzero(rows & among).tolist()]
        reading.leave_out(f"{what}{how} to a {split} image", gone)
