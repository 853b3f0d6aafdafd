"""The original files of MNIST (LeCun, Cortes, Burges 1998) and Fashion-MNIST (Xiao et al. 2017): IDX, plain or .gz."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from ssl_gen.datasets.dataset import Dataset
from ssl_gen.types import UserError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CLASS_NAMES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}
FIRST_LABELS = {  # of the training files, whose names are the same for both sets
    "mnist": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    "fashion_mnist": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
}
SIDE = 28  # pixels


def find(name: str, data_dir: str | Path) -> tuple[Path, ...] | None:
    """The four files of `name` in data_dir/name or data_dir itself, plain or .gz; None where there is none of them.

    Raises UserError, naming the first one missing, where a folder has some of the four.
    """
    for folder in (Path(data_dir) / name, Path(data_dir)):
        places = {file: [p for p in (folder / file, folder / f"{file}.gz") if p.is_file()] for file in FILES}
        if all(places.values()):
            return tuple(each[0] for each in places.values())
        if any(places.values()):
            missing = next(file for file in FILES if not places[file])
            raise UserError(f"{folder} has some of the four {name} files but not {missing}(.gz): add it.")
    return None


def read_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """One IDX file of unsigned bytes, (N, *shape) uint8; raises UserError, naming it, where it is not that."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}): download it again.") from error
    dimensions = len(shape) + 1
    header = 4 + 4 * dimensions
    # The magic number is two zero bytes, the type (8: unsigned byte) and the number of dimensions.
    if data[:4] != bytes([0, 0, 8, dimensions]):
        raise UserError(f"{path} is no IDX file of {dimensions}-dimensional bytes (magic number {data[:4].hex()}).")
    if len(data) < header:
        raise UserError(f"{path} is truncated inside its header: download it again.")
    count, *found = struct.unpack(f">{dimensions}I", data[4:header])
    if tuple(found) != shape:
        raise UserError(f"{path} holds items of shape {tuple(found)} where {shape} is expected: is it the right file?")
    expected = count * math.prod(shape)
    if len(data) - header != expected:
        state = "truncated" if len(data) - header < expected else "too long"
        raise UserError(f"{path} is {state}: {len(data) - header} of {expected} bytes of data; download it again.")
    return np.frombuffer(data, np.uint8, offset=header).reshape(count, *shape).copy()


def read_pair(name: str, image_file: Path, label_file: Path) -> tuple[np.ndarray, np.ndarray]:
    """(images (N, 28, 28, 1) uint8, labels (N,) int32); raises UserError where the two files do not belong together."""
    images = read_array(image_file, (SIDE, SIDE))[..., None]
    labels = read_array(label_file, ()).astype(np.int32)
    if len(images) != len(labels):
        raise UserError(
            f"{image_file} has {len(images)} images, {label_file} {len(labels)} labels: download them again."
        )
    if len(labels) and labels.max() >= len(CLASS_NAMES[name]):
        raise UserError(f"{label_file} has a label {labels.max()}, and {name} only 0 to {len(CLASS_NAMES[name]) - 1}.")
    return images, labels


def load_idx(name: str, files: tuple[Path, ...]) -> Dataset:
    """The data set of the four files that `find` returned, in their original order.

    Raises UserError, naming the file, for a wrong magic number, wrong dimensions, a wrong count, a truncated file, and
    where the files are those of the other set that uses the same names.
    """
    train_images, train_labels = read_pair(name, files[0], files[1])
    test_images, test_labels = read_pair(name, files[2], files[3])
    for other, first in FIRST_LABELS.items():
        if other != name and tuple(train_labels[: len(first)]) == first:
            raise UserError(f"The files in {files[0].parent} are those of {other}: put those of {name} in {name}/.")
    return Dataset(name, train_images, train_labels, test_images, test_labels, CLASS_NAMES[name])
