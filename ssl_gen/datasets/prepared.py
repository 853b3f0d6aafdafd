"""Image-classification sets of tensorflow-datasets: read as array records without TensorFlow, prepared with it."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_gen.datasets.dataset import DEFAULT_SIDE, HIDDEN, Dataset, check_sides, recolour_one, resize_one
from ssl_gen.datasets.disk import ROWS, Empty, in_memory, unfilled
from ssl_gen.types import UserError

UNLABELLED = "unlabelled"  # the split STL-10 is known for


def load_prepared(
    name: str,
    data_dir: str | Path | None,
    size: int | None,
    known: tuple[str, ...] = (),
    empty: Empty = in_memory,
) -> Dataset:
    """The set `name` ("cifar10", "imagenet_resized/64x64"), prepared in `data_dir` (None: where tensorflow-datasets
    keeps its sets); if it is not, it is prepared first, out of raw files in `data_dir` or by download.

    Splits train and test; where there is no test, validation is the test set; a split named unlabelled joins the
    training images with HIDDEN labels. Images of varying size become `size` x `size` (32). Raises UserError for an
    unknown name (the nearest of `known` and of all builders are offered), a set without the features image and label,
    and one that is neither prepared nor can be.
    """
    builder = _builder(name, data_dir, known)
    features = _check_features(name, builder)
    if not builder.is_prepared():
        prepare(name, data_dir, data_dir)
        builder = _builder(name, data_dir, known)
    splits = list(builder.info.splits)
    test = next((split for split in ("test", "validation") if split in splits), None)
    if "train" not in splits or test is None:
        raise UserError(f"{name} has the splits {', '.join(splits)}: train and test (or validation) are needed.")
    shape = _target(name, features["image"].shape, size)
    classes = features["label"].num_classes
    own = ["train", *([UNLABELLED] if UNLABELLED in splits else [])]
    train_images, train_labels = _read_splits(name, builder, own, shape, classes, empty)
    train_labels[builder.info.splits["train"].num_examples :] = HIDDEN
    test_images, test_labels = _read_splits(name, builder, [test], shape, classes, empty)
    if np.any(test_labels == HIDDEN):
        raise UserError(f"The {test} split of {name} comes without labels, so nothing can be measured on it.")
    names = tuple(builder.info.features["label"].names or map(str, range(classes)))
    return Dataset(name, train_images, train_labels, test_images, test_labels, names)


def prepare(name: str, data_dir: str | Path | None, manual_dir: str | Path | None) -> None:
    """Turns the raw files of `name`, found in `manual_dir` or downloaded, into array records in `data_dir`.

    Files in `manual_dir` must carry their original names, and tensorflow-datasets checks their SHA-256. Imports
    TensorFlow. Raises UserError where that is not installed, a raw file can be had neither way, or one is damaged.
    """
    builder = _builder(name, data_dir, ())
    raw = ", ".join(sorted(info.filename for info in builder.url_infos.values() if info.filename)) or "its raw files"
    place = f"put {raw} into {manual_dir or '--data-dir'}"
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"{name} is not prepared in {builder.data_dir}, and preparing it needs TensorFlow: "
            f"pip install 'ssl-gen[prepare]', and without a network {place}."
        )
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import download_manager, extractor, util

    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    known_failures = (download_manager.NonMatchingChecksumError, extractor.ExtractError, util.DownloadError)
    try:
        builder.download_and_prepare(file_format="array_record", download_config=config)
    except (OSError, ImportError, AssertionError, ValueError, RuntimeError, *known_failures) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name} could not be prepared ({reason}): {place}, and run again.") from error


def _builder(name: str, data_dir: str | Path | None, known: tuple[str, ...]) -> Any:
    """The tensorflow-datasets builder of `name`; raises UserError with the nearest names where there is none."""
    import tensorflow_datasets as tfds

    builders = tfds.list_builders(with_community_datasets=False)
    base, _, config = name.partition("/")
    if base.partition(":")[0] not in builders:
        near = difflib.get_close_matches(name.lower(), dict.fromkeys([*known, *builders]), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "ssl-gen list datasets shows some."
        raise UserError(f"There is no data set {name!r}: {hint}")
    try:
        return tfds.builder(name, data_dir=data_dir)
    except ImportError as error:
        raise UserError(
            f"{name} cannot even be looked at without TensorFlow: pip install 'ssl-gen[prepare]'."
        ) from error
    except (ValueError, TypeError, AssertionError, RuntimeError) as error:
        configs = list(tfds.builder_cls(base.partition(":")[0]).builder_configs)
        near = difflib.get_close_matches(config, configs, n=3, cutoff=0.1) or configs[:3]
        hint = f"; did you mean {', '.join(f'{base}/{c}' for c in near)}?" if near else "."
        raise UserError(f"tensorflow-datasets cannot construct {name!r}{hint}") from error


def _check_features(name: str, builder: Any) -> Any:
    import tensorflow_datasets as tfds

    features = builder.info.features
    fits = (
        isinstance(features, tfds.features.FeaturesDict)
        and {"image", "label"} <= set(features)
        and isinstance(features["image"], tfds.features.Image)
        and isinstance(features["label"], tfds.features.ClassLabel)
        and features["image"].np_dtype == np.uint8
        and features["image"].shape[-1] in (1, 3)
    )
    if not fits:
        raise UserError(f"{name} is no set for image classification: it must have an 8-bit image and a label, a class.")
    return features


def _target(name: str, shape: tuple[int | None, int | None, int], size: int | None) -> tuple[int, int, int]:
    """The shape (H, W, C) all images of the set are brought to as they are read."""
    height, width, channels = shape
    if size is not None or height is None or width is None:
        height = width = size or DEFAULT_SIDE
    check_sides(height, width, f"An image of {name}")
    return height, width, channels


def _read_splits(
    name: str, builder: Any, splits: Sequence[str], shape: tuple[int, int, int], classes: int, empty: Empty
) -> tuple[np.ndarray, np.ndarray]:
    """(images (N, H, W, C) uint8, labels (N,) int32, HIDDEN where the record names no class), split after split."""
    try:
        sources = [builder.as_data_source(split) for split in splits]
    except NotImplementedError as error:
        raise UserError(
            f"{name} in {builder.data_dir} is prepared as {builder.info.file_format.value}, not as array_record: "
            "delete that folder to prepare it again, or give another --data-dir."
        ) from error
    count = sum(map(len, sources))
    images, labels = empty((count, *shape)), empty((count, 4)).view("<i4")[:, 0]
    places = [(source, i) for source in sources for i in range(len(source))]
    for rows in unfilled(f"reading {name}", ROWS, images, labels):
        for row in range(rows.start, rows.stop):
            source, i = places[row]
            record = source[i]
            images[row] = resize_one(recolour_one(record["image"], shape[-1]), *shape[:2])
            labels[row] = record["label"]
    return images, np.where((labels >= 0) & (labels < classes), labels, HIDDEN).astype(np.int32)
