"""A data set as arrays, and what is done to a whole one: resizing, adding images of no class, holding some out."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from ssl_gen.datasets import stratify
from ssl_gen.datasets.disk import ROWS, Empty, beside, chosen, in_memory, joined, unfilled
from ssl_gen.types import ImageSpec, UserError

if TYPE_CHECKING:
    from ssl_gen.datasets.reading import Reading

HIDDEN = -1  # label of an image whose class is not known
OUT_OF_DISTRIBUTION = -2  # label of an image that belongs to no class
SMALLEST, LARGEST = 8, 128  # pixels; the sides the networks are built for
DEFAULT_SIDE = 32  # pixels; for mixed sizes when none is asked for; ours


class Known(NamedTuple):
    """What was computed over a whole data set."""

    sha256: str
    of: tuple[Any, ...]  # class names and arrays: another set that was made of this one has others


class Dataset(NamedTuple):
    """Images and their true classes; uint8, NHWC, 1 (grey) or 3 (RGB) channels."""

    name: str
    train_images: np.ndarray  # (N, H, W, C) uint8
    train_labels: np.ndarray  # (N,) int32: 0..K-1, HIDDEN or OUT_OF_DISTRIBUTION
    test_images: np.ndarray  # (T, H, W, C) uint8
    test_labels: np.ndarray  # (T,) int32, 0..K-1
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()  # files left out because they could not be read
    reading: Reading | None = None  # what its reader met on the way, where it kept an account
    known: Known | None = None

    @property
    def spec(self) -> ImageSpec:
        height, width, channels = self.train_images.shape[1:]
        return ImageSpec(height, width, channels, len(self.class_names))

    @property
    def hashed(self) -> tuple[Any, ...]:
        """What `sha256` is over: not `name`, so that a folder may be moved."""
        return self.class_names, self.train_images, self.train_labels, self.test_images, self.test_labels

    @property
    def sha256(self) -> str:
        """Hex digest over class names, images and labels; computed once where the set says that it is known."""
        if self.known is not None and all(a is b for a, b in zip(self.known.of, self.hashed, strict=True)):
            return self.known.sha256
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        for array in self.hashed[1:]:
            kind = "u1" if array.dtype == np.uint8 else "<i4"  # the same bytes on every machine
            digest.update(f"{array.shape}{kind}".encode())
            digest.update(np.ascontiguousarray(array, kind).data)
        return digest.hexdigest()

    def hash_known(self) -> Dataset:
        """The same, whose `sha256` is not computed again."""
        return self._replace(known=Known(self.sha256, self.hashed))


def check_sides(height: int, width: int, what: str) -> None:
    """Raises UserError, naming `what`, where a side is outside 8..128 pixels."""
    if not (SMALLEST <= height <= LARGEST and SMALLEST <= width <= LARGEST):
        raise UserError(
            f"{what} is {height}x{width} pixels: sides must be {SMALLEST} to {LARGEST}; give a size in that range."
        )


def resize_one(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """image (h, w) or (h, w, C) uint8 -> the same at `height` x `width`, antialiased (bicubic)."""
    grey = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    if image.shape[:2] == (height, width):
        return image
    resized = np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC))
    return resized.reshape(height, width, *image.shape[2:])


def recolour_one(image: np.ndarray, channels: int) -> np.ndarray:
    """image (h, w) or (h, w, 1 or 3) uint8 -> (h, w, channels): grey is repeated, RGB becomes luma (ITU-R 601-2)."""
    image = image if image.ndim == 3 else image[..., None]
    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=-1)
    return np.asarray(Image.fromarray(image).convert("L"))[..., None]


def conform(images: np.ndarray, height: int, width: int, channels: int, empty: Empty = in_memory) -> np.ndarray:
    """images (N, h, w, c) uint8 -> (N, height, width, channels); returned as they are where they fit already."""
    if images.shape[1:] == (height, width, channels):
        return images
    fitted = empty((len(images), height, width, channels))
    for rows in unfilled(f"resizing to {width} x {height}", ROWS, fitted):
        for row in range(rows.start, rows.stop):
            fitted[row] = resize_one(recolour_one(images[row], channels), height, width)
    return fitted


def resize(dataset: Dataset, size: int, empty: Empty = in_memory) -> Dataset:
    """The data set with every image at `size` x `size`, antialiased."""
    channels = dataset.spec.channels
    if dataset.reading is not None and dataset.train_images.shape[1:3] != (size, size):
        count = len(dataset.train_labels) + len(dataset.test_labels)
        dataset.reading.changes[f"resized to {size} x {size}"] += count
    return dataset._replace(
        train_images=conform(dataset.train_images, size, size, channels, empty),
        test_images=conform(dataset.test_images, size, size, channels, empty),
    )


def with_out_of_distribution(dataset: Dataset, other: Dataset) -> Dataset:
    """The data set and, labelled OUT_OF_DISTRIBUTION, the other's training images, resized and recoloured to fit.

    A mask takes them into the unlabelled pool only as its scheme asks (`masking.Scheme.out_of_distribution`).
    """
    spec = dataset.spec
    images = conform(other.train_images, *spec.shape, beside(other.train_images))
    return dataset._replace(
        name=f"{dataset.name}+{other.name}",
        train_images=joined([dataset.train_images, images], beside(dataset.train_images)),
        train_labels=np.concatenate([dataset.train_labels, np.full(len(images), OUT_OF_DISTRIBUTION, np.int32)]),
        skipped=dataset.skipped + other.skipped,
    )


def with_missing_pixels(
    dataset: Dataset, share: float, held_out: np.ndarray | None = None, seed: int = 0
) -> tuple[Dataset, np.ndarray]:
    """The data set and `held_out` (V, H, W, C) after every image lost each pixel (all channels) with chance `share`.

    In its place stands the mean of that pixel over the training images that kept it (mean imputation: Little and Rubin
    2002, "Statistical Analysis with Missing Data", ch. 4). Raises UserError where share is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise UserError(f"--missing-pixels is a share of 0 up to, not including, 1, not {share:g}")

    def lost(images: np.ndarray, stream: int) -> np.ndarray:
        return stratify.generator(seed, stream).random(images.shape[:3], np.float32) < share

    held_out = dataset.train_images[:0] if held_out is None else held_out
    train_lost, test_lost = lost(dataset.train_images, 0), lost(dataset.test_images, 1)
    kept = np.maximum((~train_lost).sum(0), 1)[..., None]
    kept_sum = np.where(train_lost[..., None], 0, dataset.train_images).sum(0, dtype=np.int64)
    mean = np.round(kept_sum / kept).astype(np.uint8)
    damaged = dataset._replace(
        train_images=np.where(train_lost[..., None], mean, dataset.train_images),
        test_images=np.where(test_lost[..., None], mean, dataset.test_images),
    )
    return damaged, np.where(lost(held_out, 2)[..., None], mean, held_out)


def hold_out(dataset: Dataset, count: int, seed: int = 0) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """Cuts a validation split of `count` labelled images out of training: (the rest, images (V, H, W, C), labels (V,)).

    Stratified in proportion to what each class can spare: every class keeps at least one labelled image. Which images
    go depends on (labels, count, seed) alone. Raises UserError where `count` is below 1 or more than can be spared.
    """
    spare = np.maximum(stratify.sizes(dataset.train_labels, len(dataset.class_names)) - 1, 0)
    if not 0 < count <= spare.sum():
        raise UserError(
            f"{count} validation images cannot be held out of {dataset.name}: "
            f"give a number from 1 to {spare.sum()} (every class keeps one labelled image)."
        )
    shares = stratify.apportion(spare, count)
    rows = stratify.draw_rows(dataset.train_labels, shares, stratify.generator(seed))
    rest = np.ones(len(dataset.train_labels), bool)
    rest[rows] = False
    left = dataset._replace(train_images=chosen(dataset.train_images, rest), train_labels=dataset.train_labels[rest])
    return left, dataset.train_images[rows], dataset.train_labels[rows]
