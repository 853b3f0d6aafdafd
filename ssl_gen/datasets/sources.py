"""Every data set by its name: `load("mnist")`, `load("folder:PATH")`, and the list of what there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssl_gen.datasets import folders, idx, npz, prepared, shapes, stratify
from ssl_gen.datasets.dataset import Dataset, check_sides, resize
from ssl_gen.types import UserError

DATASETS = {  # name -> what it is
    "digits": "UCI handwritten digits, 1,297 + 500 images 8x8x1, 10 classes; bundled with scikit-learn, no download",
    "mnist": "handwritten digits, 60,000 + 10,000 images 28x28x1, 10 classes; IDX files or tensorflow-datasets",
    "fashion_mnist": "clothes, 60,000 + 10,000 images 28x28x1, 10 classes; IDX files or tensorflow-datasets",
    "svhn_cropped": "street view house numbers, 73,257 + 26,032 images 32x32x3, 10 classes; tensorflow-datasets",
    "cifar10": "small photographs, 50,000 + 10,000 images 32x32x3, 10 classes; tensorflow-datasets",
    "cifar100": "small photographs, 50,000 + 10,000 images 32x32x3, 100 classes; tensorflow-datasets",
    "stl10": "photographs, 5,000 + 8,000 images 96x96x3, 10 classes, and 100,000 unlabelled; tensorflow-datasets",
    "imagenet_resized/64x64": "ImageNet at 64x64x3, 1,281,167 + 50,000 images, 1,000 classes; tensorflow-datasets",
    "shapes": "ten coloured shapes drawn by formula: shapes, shapes:64, shapes:64x64x1, shapes:32x32x3:5000",
    "folder:PATH": "your own pictures: one folder a class and unlabelled/, or a flat folder with labels.csv",
    "npz:PATH": "your own arrays: train_images, train_labels, test_images, test_labels and unlabelled_images in a .npz",
}
DIGITS_TEST = 500  # images held out for testing; ours


def load(
    name: str, data_dir: str | Path | None = None, size: int | None = None, skip_unreadable: bool = False
) -> Dataset:
    """The data set `name`: one of `DATASETS`, or any image-classification set of tensorflow-datasets.

    `data_dir` (or None) is where raw IDX files, prepared sets and relative paths of folder:PATH and npz:PATH lie;
    `size`, 8..128 pixels, brings all images to size x size; `skip_unreadable` leaves unreadable files of a folder out
    instead of failing. mnist and fashion_mnist are read from the four IDX files in `data_dir` (or `data_dir/name`)
    where they are there, else through tensorflow-datasets, whose order of images is another. Raises UserError for all
    that cannot be loaded.
    """
    if size is not None:
        check_sides(size, size, "The size asked for")
    if data_dir is not None and not Path(data_dir).is_dir():
        raise UserError(f"There is no folder {data_dir} to look for data in: make it, or give another --data-dir.")
    dataset = _read(name, data_dir, size, skip_unreadable)
    if size is not None:
        dataset = resize(dataset, size)
    check_sides(dataset.spec.height, dataset.spec.width, f"An image of {name}")
    if not len(dataset.train_labels) or not len(dataset.test_labels):
        raise UserError(f"{name} has {len(dataset.train_labels)} training and {len(dataset.test_labels)} test images.")
    return dataset


def _read(name: str, data_dir: str | Path | None, size: int | None, skip_unreadable: bool) -> Dataset:
    kind, colon, path = name.partition(":")
    path = path and str(Path(data_dir or "", Path(path).expanduser()))
    if name == "digits":
        return digits()
    if kind == "shapes":
        return shapes.read(name, size)
    if kind == "folder" and colon:
        return folders.read(name, path, size, skip_unreadable)
    if kind == "npz" and colon:
        return npz.read(name, path)
    files = idx.find(name, data_dir) if name in idx.CLASS_NAMES and data_dir is not None else None
    if files is not None:
        return idx.read(name, files)
    try:
        return prepared.read(name, data_dir, size, tuple(DATASETS))
    except UserError as error:
        if name not in idx.CLASS_NAMES:
            raise
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
    rows = stratify.draw(labels, shares, stratify.generator(0))
    train = np.delete(np.arange(len(labels)), rows)
    return Dataset("digits", images[train], labels[train], images[rows], labels[rows], tuple("0123456789"))
