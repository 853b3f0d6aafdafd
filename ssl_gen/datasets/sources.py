"""Every data set by its name: `load("mnist")`, `load("folder:PATH")`, and the list of what there is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from ssl_gen.core.wording import own_kind
from ssl_gen.datasets import copies, decoded, disk, folders, idx, kept, npz, prepared, shapes, stratify
from ssl_gen.datasets.dataset import Dataset, check_sides, resize
from ssl_gen.datasets.disk import Empty, in_memory
from ssl_gen.datasets.kept import Origin
from ssl_gen.datasets.walk import NO_IMAGE, walk
from ssl_gen.types import UserError

DIGITS_TEST = 500  # images held out for testing; ours


class Asked(NamedTuple):
    """A data set as it is asked for."""

    name: str  # as given: mnist, folder:PATH
    path: str  # what stands after the colon, from `data_dir` on; "" where there is none
    data_dir: str | Path | None
    size: int | None  # pixels
    skip_unreadable: bool
    keep_copies: bool
    empty: Empty = in_memory  # where the images that a reader makes go


class Source(NamedTuple):
    """A data set, or a kind of them."""

    meaning: str
    load: Callable[[Asked], Dataset]
    goes_on: bool = False  # may more stand after a colon?
    origin: Callable[[Asked], Origin | None] = lambda asked: None  # of one that is large enough to be kept


def load(
    name: str,
    data_dir: str | Path | None = None,
    size: int | None = None,
    skip_unreadable: bool = False,
    keep_copies: bool = False,
) -> Dataset:
    """The data set `name`: one of `DATASETS`, or any image-classification set of tensorflow-datasets.

    `data_dir` (or None) is where raw IDX files, prepared sets and relative paths of folder:PATH and npz:PATH lie;
    `size`, 8..128 pixels, brings all images to size x size; `skip_unreadable` leaves unreadable files of a folder out
    instead of failing; training images of a folder or npz that copy a test image are left out unless `keep_copies`
    (other sets stay as published, and their reading counts the exact copies). mnist and fashion_mnist are read from the
    four IDX files in `data_dir` (or `data_dir/name`) where they are there, else through tensorflow-datasets, whose
    order of images is another. Raises UserError for all that cannot be loaded.
    """
    asked = ask(name, data_dir, size, skip_unreadable, keep_copies)
    return kept.through(origin(asked), lambda empty: _read(asked._replace(empty=empty)))._replace(name=name)


def ask(name: str, data_dir: str | Path | None, size: int | None, skip_unreadable: bool, keep_copies: bool) -> Asked:
    """A data set as `load` is asked for it. Raises UserError for a size and a folder that cannot be."""
    if size is not None:
        check_sides(size, size, "The size asked for")
    if data_dir is not None and not Path(data_dir).is_dir():
        raise UserError(f"There is no folder {data_dir} to look for data in: make it, or give another --data-dir.")
    return Asked(name, _path(name, data_dir), data_dir, size, skip_unreadable, keep_copies)


def origin(asked: Asked) -> Origin | None:
    """Where a large set comes from, which is then kept on disk; None for the others."""
    source = _source(asked.name)
    found = prepared_origin(asked) if source is None else source.origin(asked)
    if found is None:
        return None
    flags = [flag for flag in ("skip_unreadable", "keep_copies") if getattr(asked, flag)]
    how = [] if asked.size is None else [f"at {asked.size} x {asked.size}"]
    return Origin(", ".join([found.place, *how, *flags]), f"{found.stamp} {PIL.__version__}")


def _read(asked: Asked) -> Dataset:
    """A set from its source."""
    name, size = asked.name, asked.size
    dataset = _load_by_name(asked)
    if size is not None:
        dataset = resize(dataset, size, asked.empty)
    check_sides(dataset.spec.height, dataset.spec.width, f"An image of {name}")
    if not len(dataset.train_labels) or not len(dataset.test_labels):
        raise UserError(f"{name} has {len(dataset.train_labels)} training and {len(dataset.test_labels)} test images.")
    return dataset if is_own(name) else dataset._replace(reading=copies.account(dataset))


def is_own(name: str) -> bool:
    """Does a name stand for a user's own images?"""
    return own_kind(name) != ""


def _path(name: str, data_dir: str | Path | None) -> str:
    """What stands after the colon, from `data_dir` on."""
    place = name.partition(":")[2]
    if not place:
        return ""
    path = Path(data_dir or "", Path(place).expanduser())
    moved = Path(data_dir or "", path.name)  # an absolute path of a run, whose images lie in `data_dir` now
    return str(moved if data_dir and moved.exists() and not path.exists() else path)


def _source(name: str) -> Source | None:
    """None for a set of tensorflow-datasets that is not listed."""
    kind, colon, _ = name.partition(":")
    for key, source in DATASETS.items():
        if key == name or (colon and source.goes_on and key.partition(":")[0] == kind):
            return source
    return None


def _load_by_name(asked: Asked) -> Dataset:
    source = _source(asked.name)
    if source is not None:
        return source.load(asked)
    try:
        return _prepared(asked)
    except UserError as error:
        there = Path(asked.data_dir or "", asked.name)
        if not there.exists():
            raise
        what, prefix = ("folder", "folder:") if there.is_dir() else ("file", "npz:")
        raise UserError(f"{error} A {what} of that name is there: did you mean {prefix}{asked.name}?") from error


def _prepared(asked: Asked) -> Dataset:
    """A set of tensorflow-datasets."""
    return prepared.load_prepared(asked.name, asked.data_dir, asked.size, tuple(DATASETS), asked.empty)


def _idx(asked: Asked) -> Dataset:
    """The original four files where they are there, else a set of tensorflow-datasets."""
    files = idx.find(asked.name, asked.data_dir) if asked.data_dir is not None else None
    if files is not None:
        return idx.load_idx(asked.name, files)
    try:
        return _prepared(asked)
    except UserError as error:
        raise UserError(f"{error} Or put the four original files into --data-dir: they need no TensorFlow.") from error


def digits() -> Dataset:
    """UCI optical digits (Alpaydin and Kaynak 1998), 8x8, as scikit-learn bundles them; 0..16 scaled to 0..255.

    500 test images are drawn with seed 0, in proportion to what each class can spare beyond one image.
    """
    from sklearn.datasets import load_digits

    bundle = load_digits()
    images = np.rint(bundle.images[..., None] * (255 / 16)).astype(np.uint8)
    labels = bundle.target.astype(np.int32)
    shares = stratify.apportion(stratify.sizes(labels, 10) - 1, DIGITS_TEST)
    rows = stratify.draw_rows(labels, shares, stratify.generator(0))
    train = np.delete(np.arange(len(labels)), rows)
    return Dataset("digits", images[train], labels[train], images[rows], labels[rows], tuple("0123456789"))


def shapes_origin(asked: Asked) -> Origin | None:
    """Of a large set of shapes, which no file holds."""
    large = shapes.size_of(asked.name, asked.size).nbytes >= disk.LARGE
    return Origin(asked.name) if large else None


def folder_origin(asked: Asked) -> Origin | None:
    """Of a folder of many files: their names, their sizes and when they were changed."""
    root = Path(asked.path)
    if not asked.path or not root.is_dir():
        return None  # which its reader will say
    found = walk(root, asked.skip_unreadable)
    if len(found.images) < decoded.FEWEST:
        return None
    tables = found.passed.get(NO_IMAGE, [])  # labels.csv is no image; of what else is passed over, names count
    names = [*found.folders, *(path for paths in found.passed.values() for path in paths)]
    stamp = kept.stamp_of(root, [*found.images, *tables], names)
    return Origin(f"folder:{root.resolve()}", stamp)


def npz_origin(asked: Asked) -> Origin | None:
    """Of a large file of arrays: its size, and when it was changed."""
    file = Path(asked.path)
    if not file.is_file() or npz.size_of(asked.path) < disk.LARGE:
        return None
    return Origin(f"npz:{file.resolve()}", kept.stamp_of(file.parent, [file]))


def prepared_origin(asked: Asked) -> Origin | None:
    """Of a large set of tensorflow-datasets: the files beside its account; None where it is not prepared yet."""
    home = os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets"
    root = Path(asked.data_dir or home, asked.name.partition(":")[0])
    accounts = [
        path for depth in ("*", "*/*") for path in root.glob(f"{depth}/dataset_info.json")
    ]  # a version, a config
    files = sorted(file for account in accounts for file in account.parent.iterdir())
    large = bool(files) and sum(file.stat().st_size for file in files) >= disk.LARGE // 4  # they are compressed
    return Origin(f"{asked.name} in {root.resolve()}", kept.stamp_of(root, files)) if large else None


DATASETS = {  # name -> what it is and how it is read; any other name is one of tensorflow-datasets
    "digits": Source(
        "UCI handwritten digits, 1,297 + 500 images 8x8x1, 10 classes; bundled with scikit-learn, no download",
        lambda asked: digits(),
    ),
    "mnist": Source(
        "handwritten digits, 60,000 + 10,000 images 28x28x1, 10 classes; IDX files or tensorflow-datasets", _idx
    ),
    "fashion_mnist": Source(
        "clothes, 60,000 + 10,000 images 28x28x1, 10 classes; IDX files or tensorflow-datasets", _idx
    ),
    "svhn_cropped": Source(
        "street view house numbers, 73,257 + 26,032 images 32x32x3, 10 classes; tensorflow-datasets",
        _prepared,
        origin=prepared_origin,
    ),
    "cifar10": Source(
        "small photographs, 50,000 + 10,000 images 32x32x3, 10 classes; tensorflow-datasets",
        _prepared,
        origin=prepared_origin,
    ),
    "cifar100": Source(
        "small photographs, 50,000 + 10,000 images 32x32x3, 100 classes; tensorflow-datasets",
        _prepared,
        origin=prepared_origin,
    ),
    "stl10": Source(
        "photographs, 5,000 + 8,000 images 96x96x3, 10 classes, and 100,000 unlabelled; tensorflow-datasets",
        _prepared,
        origin=prepared_origin,
    ),
    "imagenet_resized/64x64": Source(
        "ImageNet at 64x64x3, 1,281,167 + 50,000 images, 1,000 classes; tensorflow-datasets",
        _prepared,
        origin=prepared_origin,
    ),
    "shapes": Source(
        "ten coloured shapes drawn by formula: shapes, shapes:64, shapes:64x64x1, shapes:32x32x3:5000",
        lambda asked: shapes.make_dataset(asked.name, asked.size, asked.empty),
        goes_on=True,
        origin=shapes_origin,
    ),
    "folder:PATH": Source(
        "your own pictures: one folder a class and unlabelled/, or a flat folder with labels.csv",
        lambda asked: folders.load_folder(asked.name, asked.path, asked.size, asked.skip_unreadable, asked.keep_copies),
        goes_on=True,
        origin=folder_origin,
    ),
    "npz:PATH": Source(
        "your own arrays: train_images, train_labels, test_images, test_labels and unlabelled_images in a .npz",
        lambda asked: npz.load_npz(asked.name, asked.path, asked.keep_copies, asked.empty),
        goes_on=True,
        origin=npz_origin,
    ),
}
