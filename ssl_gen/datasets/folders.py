"""A folder of pictures: one sub-folder a class, or a flat folder with labels.csv; some of them unlabelled."""

from __future__ import annotations

import csv
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from ssl_gen.datasets import stratify
from ssl_gen.datasets.dataset import DEFAULT_SIDE, HIDDEN, LARGEST, SMALLEST, Dataset, recolour_one, resize_one
from ssl_gen.types import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")  # Pillow's names: no other decoder is ever run on a user's file
UNLABELLED = ("unlabelled", "unlabeled")
TABLE = "labels.csv"
HELD_OUT = 5  # one labelled image in five becomes a test image where there is no test folder; ours
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


class File(NamedTuple):
    """One file that should be an image."""

    path: Path
    label: str | None  # class name; None where it is not known
    test: bool


def load_folder(name: str, path: str, size: int | None, skip_unreadable: bool) -> Dataset:
    """`class_name/*` and `unlabelled/*`, or images beside a labels.csv (columns file, label; not listed or blank:
    unlabelled); optionally inside `train/` and `test/`. Names that begin with a dot are ignored; order is sorted paths.

    Where there is no test/, a fixed stratified fifth of the labelled images is the test set: of a class with n images
    max(1, n // 5), drawn with seed 0. Images become `size` x `size`; without a size they stay as they are if all are
    equal with sides in 8..128, else they become 32 x 32. All grey (red, green and blue equal
    in every pixel, however the files hold it): 1 channel, else 3. Transparent parts become white; of an animation the
    first frame counts. Raises UserError for everything that is not so; with `skip_unreadable`, files that are no
    readable images are left out and listed in `skipped`.
    """
    root = Path(path)
    if not path or not root.is_dir():
        raise UserError(f"There is no folder {path!r}: give the path of a folder of images as folder:PATH.")
    files, class_names = _list_all(root)
    images, kept = _read_images(files, size, skip_unreadable)
    skipped = tuple(file.path.relative_to(root).as_posix() for file in sorted(set(files) - set(kept)))
    labels = np.array([HIDDEN if file.label is None else class_names.index(file.label) for file in kept], np.int32)
    test = np.array([file.test for file in kept], bool)
    for k, class_name in enumerate(class_names):
        if not np.any((labels == k) & ~test):
            raise UserError(
                f"Class {class_name!r} in {root} has no images for training: add some or remove its folder."
            )
    if not _has_splits(root):
        test = _fifth(labels, class_names, root)
    return Dataset(name, images[~test], labels[~test], images[test], labels[test], class_names, skipped)


def _has_splits(root: Path) -> bool:
    """Does `root` hold train/ as a split? A class that happens to be called train holds images, not folders."""
    train = root / "train"
    return train.is_dir() and ((train / TABLE).is_file() or any(entry.is_dir() for entry in _entries(train)))


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _list_all(root: Path) -> tuple[list[File], tuple[str, ...]]:
    """Every file of training and test, and the class names of training, sorted."""
    if not _has_splits(root):
        return _list(root, test=False)
    stray = [entry for entry in _entries(root) if entry.name not in ("train", "test")]
    if stray:
        raise UserError(f"{stray[0]} lies beside train/: move it into train/ or test/, or out of the way.")
    files, class_names = _list(root / "train", test=False)
    if not (root / "test").is_dir():
        raise UserError(f"{root} has train/ but no test/: add test/, or move what is in train/ one folder up.")
    test_files, test_names = _list(root / "test", test=True)
    unknown = sorted(set(test_names) - set(class_names))
    if unknown:
        raise UserError(f"Class {unknown[0]!r} is in {root / 'test'} but not in train/: add it there or remove it.")
    unlabelled = [file for file in test_files if file.label is None and file.path.suffix.lower() in SUFFIXES]
    if unlabelled:
        raise UserError(f"{unlabelled[0].path} is a test image without a label: label it or move it into train/.")
    return files + test_files, class_names


def _list(folder: Path, test: bool) -> tuple[list[File], tuple[str, ...]]:
    entries = _entries(folder)
    if not entries:
        raise UserError(f"{folder} is empty: put one folder of images a class into it, or images and a {TABLE}.")
    if (folder / TABLE).is_file():
        return _list_flat(folder, entries, test)
    files = [File(entry, None, test) for entry in entries if not entry.is_dir()]
    if any(file.path.suffix.lower() in SUFFIXES for file in files):
        raise UserError(f"{folder} has images outside a class folder: move them into unlabelled/ or write {TABLE}.")
    folders = [entry for entry in entries if entry.is_dir()]
    for inner in folders:
        label = None if inner.name in UNLABELLED else inner.name
        contents = _entries(inner)
        nested = [entry for entry in contents if entry.is_dir()]
        if nested:
            raise UserError(f"{nested[0]} is a folder inside a class folder: move its images up into {inner.name}/.")
        if label is not None and not contents:
            raise UserError(f"Class folder {inner} has no images: add some or remove it.")
        files += [File(entry, label, test) for entry in contents]
    class_names = tuple(inner.name for inner in folders if inner.name not in UNLABELLED)
    if not class_names:
        raise UserError(
            f"{folder} has no class folders: put labelled images into one folder a class, or write {TABLE}."
        )
    return sorted(files), class_names


def _list_flat(folder: Path, entries: list[Path], test: bool) -> tuple[list[File], tuple[str, ...]]:
    labels = _read_table(folder / TABLE)
    nested = [entry for entry in entries if entry.is_dir()]
    if nested:
        raise UserError(f"{nested[0]} is a folder beside {TABLE}: move its images up, or remove {TABLE}.")
    absent = sorted(set(labels) - {entry.name for entry in entries})
    if absent:
        raise UserError(
            f"{folder / TABLE} names {absent[0]!r}, which is not in {folder}: add the file or remove the line."
        )
    files = [File(entry, labels.get(entry.name), test) for entry in entries if entry.name != TABLE]
    return files, tuple(sorted({label for label in labels.values() if label is not None}))


def _read_table(path: Path) -> dict[str, str | None]:
    """labels.csv -> {file name: class name, None where blank}; further columns are allowed."""
    labels: dict[str, str | None] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            if not {"file", "label"} <= set(table.fieldnames or ()):
                raise UserError(f"{path} must begin with a line naming the columns: file,label.")
            for row in table:
                if not row["file"] or row["label"] is None:
                    raise UserError(f"{path}, line {table.line_num}: a file name and a label are needed.")
                if row["file"] in labels:
                    raise UserError(f"{path}, line {table.line_num}: {row['file']!r} is listed twice.")
                labels[row["file"]] = row["label"].strip() or None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table in UTF-8 ({error}).") from error
    if not any(labels.values()):
        raise UserError(f"{path} gives no file a label: without labelled images there are no classes.")
    return labels


def read_image(path: Path) -> np.ndarray:
    """One picture, upright: grey (h, w) or RGB (h, w, 3) uint8; raises UserError, naming it, where it is unreadable."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{path} is no image ({' '.join(SUFFIXES)}): remove it, or leave it out with --skip-unreadable."
        )
    try:
        with Image.open(path, formats=FORMATS) as opened:
            opened.load()
            image: Image.Image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip at 255
                wide = np.asarray(image)
                return np.where(wide == image.info.get("transparency"), 255, wide >> 8).astype(np.uint8)
            if image.has_transparency_data:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA"))
            return without_colour(np.asarray(image.convert("L" if image.mode in ("L", "1") else "RGB")))
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        message = (
            f"{path} cannot be read as an image ({reason}): mend or remove it, or leave it out with --skip-unreadable."
        )
        raise UserError(message) from error


def without_colour(image: np.ndarray) -> np.ndarray:
    """(h, w) or (h, w, 3) -> (h, w) where the channels are equal: palettes, GIF, WebP and RGB hold grey so, too."""
    if image.ndim == 3 and (image == image[..., :1]).all():
        return image[..., 0]
    return image


def read_to_fit(path: Path, shape: tuple[int, int, int], skip_unreadable: bool) -> tuple[list[Path], np.ndarray, int]:
    """One image, or all below a folder, brought to shape (H, W, C): paths, images (N, H, W, C), how many were left out.

    Files that are no images by their name are passed over. Raises UserError where the path does not exist, where there
    is no image, and for an unreadable one, naming it, unless `skip_unreadable`.
    """
    if not path.exists():
        raise UserError(f"There is no file or folder {path}: give an image or a folder of images.")
    candidates = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    files, images, skipped = [], [], 0
    for file in [file for file in candidates if file.suffix.lower() in SUFFIXES or not path.is_dir()]:
        try:
            image = read_image(file)
        except UserError:
            if not skip_unreadable:
                raise
            skipped += 1
            continue
        files.append(file)
        images.append(resize_one(recolour_one(image, shape[2]), *shape[:2]))
    if not images:
        raise UserError(f"{path} holds no readable image ({' '.join(SUFFIXES)}): give an image or a folder of images.")
    return files, np.stack(images), skipped


def _read_images(files: list[File], size: int | None, skip_unreadable: bool) -> tuple[np.ndarray, list[File]]:
    """(images (N, H, W, C) uint8, the N files they came from); large ones are shrunk as they come, to bound memory."""
    images: list[np.ndarray] = []
    kept: list[File] = []
    side = size
    for file in files:
        try:
            image = read_image(file.path)
        except UserError:
            if not skip_unreadable:
                raise
            continue
        sides = image.shape[:2]
        equal = not images or images[0].shape[:2] == sides
        if side is None and not (equal and min(sides) >= SMALLEST and max(sides) <= LARGEST):
            side = DEFAULT_SIDE
            images = [resize_one(earlier, side, side) for earlier in images]
        images.append(image if side is None else resize_one(image, side, side))
        kept.append(file)
    if not images:
        raise UserError(f"None of the {len(files)} files is a readable image: look at them, or give another folder.")
    channels = 3 if any(image.ndim == 3 for image in images) else 1
    return np.stack([recolour_one(image, channels) for image in images]), kept


def _fifth(labels: np.ndarray, class_names: tuple[str, ...], root: Path) -> np.ndarray:
    """labels (N,) -> (N,) bool, the images held out for the test set."""
    sizes = stratify.sizes(labels, len(class_names))
    if sizes.min() < 2:
        lonely = class_names[int(sizes.argmin())]
        raise UserError(
            f"Class {lonely!r} in {root} has one labelled image, and testing needs one more: add it, or a test/."
        )
    test = np.zeros(len(labels), bool)
    test[stratify.draw_rows(labels, np.maximum(1, sizes // HELD_OUT), stratify.generator(0))] = True
    return test
