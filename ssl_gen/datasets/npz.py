"""Arrays in a .npz file, read without ever unpickling."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from ssl_gen.datasets.dataset import HIDDEN, Dataset
from ssl_gen.types import UserError

KEYS = ("train_images", "train_labels", "test_images", "test_labels")
KERAS_KEYS = ("x_train", "y_train", "x_test", "y_test")
UNLABELLED = "unlabelled_images"


def load_npz(name: str, path: str) -> Dataset:
    """Keys train_images, train_labels, test_images, test_labels (or x_train, y_train, x_test, y_test), and optionally
    unlabelled_images, which join the training images with HIDDEN labels.

    Images (N, H, W) or (N, H, W, C) uint8, C 1 or 3; labels (N,) whole numbers 0..K-1, in training also -1 (HIDDEN);
    the classes are named by their numbers. Raises UserError where the file is missing or is not that; object arrays are
    refused, never unpickled.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"There is no file {path!r}: give the path of a .npz file as npz:PATH.")
    arrays = _arrays(file)
    keys = KERAS_KEYS if KERAS_KEYS[0] in arrays else KEYS
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise UserError(f"{file} has no array {missing[0]}: it needs {', '.join(KEYS)} or {', '.join(KERAS_KEYS)}.")
    train_images, test_images = _images(file, keys[0], arrays), _images(file, keys[2], arrays)
    train_labels = _labels(file, keys[1], arrays, len(train_images), lowest=HIDDEN)
    test_labels = _labels(file, keys[3], arrays, len(test_images), lowest=0)
    known = np.unique(train_labels[train_labels != HIDDEN])
    classes = len(known)
    if not np.array_equal(known, np.arange(classes)):
        absent = np.flatnonzero(known != np.arange(classes))[0]
        raise UserError(
            f"{file}: no image of {keys[1]} has the class {absent}, yet one has {known[-1]}: number them 0..K-1."
        )
    if test_labels.max(initial=HIDDEN) >= classes:
        raise UserError(f"{file}: {keys[3]} has a class {test_labels.max()} that {keys[1]} does not have.")
    if UNLABELLED in arrays:
        unlabelled = _images(file, UNLABELLED, arrays)
        _same_shape(file, train_images, unlabelled, UNLABELLED)
        train_images = np.concatenate([train_images, unlabelled])
        train_labels = np.concatenate([train_labels, np.full(len(unlabelled), HIDDEN, np.int32)])
    _same_shape(file, train_images, test_images, keys[2])
    return Dataset(name, train_images, train_labels, test_images, test_labels, tuple(map(str, range(classes))))


def _arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UserError(f"{file} holds a single array: save the four named arrays with numpy.savez.")
        with archive:
            return {key: archive[key] for key in (*KEYS, *KERAS_KEYS, UNLABELLED) if key in archive}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = (
            "it holds Python objects, which are never unpickled" if "allow_pickle" in str(error) else "it is damaged"
        )
        raise UserError(f"{file} cannot be read as .npz ({reason}): save plain arrays with numpy.savez.") from error


def _images(file: Path, key: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    images = arrays[key]
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"{file}: {key} is {arrays[key].dtype} {arrays[key].shape}; "
            "it must be uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3)."
        )
    return images


def _labels(file: Path, key: str, arrays: dict[str, np.ndarray], count: int, lowest: int) -> np.ndarray:
    labels = arrays[key]
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{file}: {key} is {labels.dtype} {labels.shape}; it must be {count} whole numbers, one an image."
        )
    if count and int(labels.min()) < lowest:
        raise UserError(f"{file}: {key} has a label {labels.min()}; the lowest allowed is {lowest}.")
    return labels.astype(np.int32)


def _same_shape(file: Path, images: np.ndarray, others: np.ndarray, key: str) -> None:
    if images.shape[1:] != others.shape[1:]:
        raise UserError(
            f"{file}: {key} are {others.shape[1:]}, the training images {images.shape[1:]}: make them equal."
        )
