"""Arrays in a .npz file, read without ever unpickling, images a block at a time.

Of a large file the images go onto the disk (`datasets/kept.py`), also where they are not compressed: a file of the
user's that is written anew while a run has it mapped would end the run.
"""

from __future__ import annotations

import lzma
import math
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ssl_gen.datasets import copies
from ssl_gen.datasets.dataset import HIDDEN, Dataset
from ssl_gen.datasets.disk import Empty, blocks, in_memory, joined
from ssl_gen.datasets.names import readable
from ssl_gen.datasets.reading import Reading
from ssl_gen.types import UserError

KEYS = ("train_images", "train_labels", "test_images", "test_labels")
KERAS_KEYS = ("x_train", "y_train", "x_test", "y_test")
UNLABELLED = re.compile(r"(x_|images_)?unlab(elled|eled)?(_images|_x)?")  # any letters; names.NO_LABEL has the words
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# What zipfile, numpy and the decoders under them raise for a file that is damaged, encrypted or lies about its size.
DAMAGE = (
    *(OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, MemoryError, OverflowError),
    *(SyntaxError, TypeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)


def load_npz(name: str, path: str, keep_copies: bool = False, empty: Empty = in_memory) -> Dataset:
    """Keys train_images, train_labels, test_images, test_labels (or x_train, y_train, x_test, y_test), and optionally
    unlabelled_images (also unlabeled_images, x_unlabelled ...), which join the training images with HIDDEN labels.

    Images (N, H, W) or (N, H, W, C) uint8, C 1 or 3; labels (N,) whole numbers 0..K-1, in training also -1 (HIDDEN);
    the classes are named by their numbers. Training images that copy a test image are left out unless `keep_copies`.
    Raises UserError where the file is missing or is not that, and for a key that is none of these; object arrays are
    refused, never unpickled.
    """
    file = Path(path)
    if file.is_dir():
        raise UserError(f"{readable(path)} is a folder: give it as folder:PATH.")
    if not file.is_file():
        raise UserError(f"There is no file {readable(path)!r}: give the path of a .npz file as npz:PATH.")
    shown = readable(path)
    arrays, keys = _arrays(file, shown, empty)
    train_images, test_images = _images(shown, keys[0], arrays), _images(shown, keys[2], arrays)
    train_labels = _labels(shown, keys[1], arrays, len(train_images), lowest=HIDDEN)
    test_labels = _labels(shown, keys[3], arrays, len(test_images), lowest=0)
    known = np.unique(train_labels[train_labels != HIDDEN])
    classes = len(known)
    if not np.array_equal(known, np.arange(classes)):
        absent = np.flatnonzero(known != np.arange(classes))[0]
        raise UserError(
            f"{shown}: no image of {keys[1]} has the class {absent}, yet one has {known[-1]}: number them 0..K-1."
        )
    if test_labels.max(initial=HIDDEN) >= classes:
        raise UserError(f"{shown}: {keys[3]} has a class {test_labels.max()} that {keys[1]} does not have.")
    rows = [f"{keys[0]}[{row}]" for row in range(len(train_images))]
    for key in arrays.keys() - set(keys):
        unlabelled = _images(shown, key, arrays)
        _same_shape(shown, train_images, unlabelled, key)
        train_images = joined([train_images, unlabelled], empty)
        train_labels = np.concatenate([train_labels, np.full(len(unlabelled), HIDDEN, np.int32)])
        rows += [f"{key}[{row}]" for row in range(len(unlabelled))]
    _same_shape(shown, train_images, test_images, keys[2])
    reading = Reading()
    reading.warn_of_constant(train_images, test_images)
    names = tuple(map(str, range(classes)))
    dataset = Dataset(name, train_images, train_labels, test_images, test_labels, names, reading=reading)
    fits = len(train_images) and len(test_images) and min(train_images.shape[1:]) > 0
    return copies.without_copies(dataset, rows) if fits and not keep_copies else dataset


def size_of(path: str) -> int:
    """Bytes of the arrays of a file, unpacked; 0 of one that is no archive, which `load_npz` will say."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())
    except DAMAGE:
        return 0


def _arrays(file: Path, shown: str, empty: Empty) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The arrays, and the four keys that they go by: ours or those of Keras."""
    try:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UserError(f"{shown} holds a single array: save the four named arrays with numpy.savez.")
        with archive:
            keys = _check_keys(archive.files, shown)
            with zipfile.ZipFile(file) as members:
                return {key: _array(archive, members, key, empty) for key in archive.files}, keys
    except DAMAGE as error:
        reason = (
            "it holds Python objects, which are never unpickled" if "allow_pickle" in str(error) else "it is damaged"
        )
        raise UserError(f"{shown} cannot be read as .npz ({reason}): save plain arrays with numpy.savez.") from error


def _array(archive: np.lib.npyio.NpzFile, members: zipfile.ZipFile, key: str, empty: Empty) -> np.ndarray:
    """One array of an archive of members. Raises some of DAMAGE."""
    name = f"{key}.npy"
    if name not in members.namelist():
        return np.asarray(archive[key])
    with members.open(name) as member:
        version = np.lib.format.read_magic(member)
        if version not in HEADERS:
            return np.asarray(archive[key])
        shape, by_column, kind = HEADERS[version](member)
        if kind != np.uint8 or len(shape) < 3 or by_column or not all(shape):  # no images, or none
            return np.asarray(archive[key])
        if math.prod(shape) > members.getinfo(name).file_size:
            raise ValueError("it is shorter than it says")
        array = empty(shape)
        for block in blocks(array):
            block[...] = np.frombuffer(member.read(block.nbytes), np.uint8).reshape(block.shape)
        member.read(1)  # behind the last byte the archive's checksum is compared
    return array


def _check_keys(found: list[str], shown: str) -> tuple[str, ...]:
    """The four keys that an archive goes by. Raises UserError for one that is missing, unknown or there twice."""
    keys = KERAS_KEYS if KERAS_KEYS[0] in found else KEYS
    wanted = f"{', '.join(KEYS)} or {', '.join(KERAS_KEYS)}, and unlabelled_images where there are some"
    extra = [key for key in found if UNLABELLED.fullmatch(key.lower())]
    unknown = [key for key in found if key not in keys and key not in extra]
    if unknown:
        raise UserError(
            f"{shown} has an array {readable(unknown[0])} that is not known: leave it out, or name it {wanted}."
        )
    missing = [key for key in keys if key not in found]
    if missing:
        raise UserError(f"{shown} has no array {missing[0]}: it needs {wanted}.")
    if len(extra) > 1 or len(set(found)) < len(found):
        twice = " and ".join(extra if len(extra) > 1 else [key for key in set(found) if found.count(key) > 1])
        raise UserError(f"{shown} has {twice} more than once: keep one of them.")
    return keys


def _images(file: str, key: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    images = arrays[key]
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"{file}: {key} is {arrays[key].dtype} {arrays[key].shape}; "
            "it must be uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3)."
        )
    return images


def _labels(file: str, key: str, arrays: dict[str, np.ndarray], count: int, lowest: int) -> np.ndarray:
    labels = arrays[key]
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{file}: {key} is {labels.dtype} {labels.shape}; it must be {count} whole numbers, one an image."
        )
    if count and int(labels.min()) < lowest:
        raise UserError(f"{file}: {key} has a label {labels.min()}; the lowest allowed is {lowest}.")
    if count and int(labels.max()) > np.iinfo(np.int32).max:
        raise UserError(f"{file}: {key} has a label {labels.max()}, beyond int32: number the classes 0..K-1.")
    return labels.astype(np.int32)


def _same_shape(file: str, images: np.ndarray, others: np.ndarray, key: str) -> None:
    if images.shape[1:] != others.shape[1:]:
        raise UserError(
            f"{file}: {key} are {others.shape[1:]}, the training images {images.shape[1:]}: make them equal."
        )
