"""A folder of pictures as a data set, and pictures brought to the shape of one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ssl_gen.core.files import say
from ssl_gen.datasets import copies, decoded, stratify
from ssl_gen.datasets.dataset import DEFAULT_SIDE, HIDDEN, LARGEST, SMALLEST, Dataset, recolour_one, resize_one
from ssl_gen.datasets.decoded import Decoded
from ssl_gen.datasets.disk import Growing, chosen
from ssl_gen.datasets.image_files import Picture, read_picture
from ssl_gen.datasets.layout import File, lay_out
from ssl_gen.datasets.names import readable
from ssl_gen.datasets.reading import Reading
from ssl_gen.datasets.walk import ALWAYS, IN_HIDDEN, NO_IMAGE, SUFFIXES, SYSTEM_FILE, UNREADABLE, Walk, is_image, walk
from ssl_gen.types import UserError

HELD_OUT = 5  # one labelled image in five becomes a test image where there is no test folder; ours


def load_folder(
    name: str, path: str, size: int | None, skip_unreadable: bool = False, keep_copies: bool = False
) -> Dataset:
    """`class_name/*` and `unlabelled/*`, or images and a labels.csv (columns file, label; not listed or no label:
    unlabelled); optionally inside `train/` and `test/`. What is passed over, `walk` says; order is that of the paths.

    Where there is no test/, a fixed stratified fifth of the labelled images is the test set: of a class with n images
    max(1, n // 5), drawn with seed 0; a class's only image is trained on. Images become `size` x `size`; without a size
    they stay as they are if all are equal with sides in 8..128, else they become 32 x 32. All grey: 1 channel, else 3.
    Transparent parts become white; of an animation the first frame counts. Training images that copy a test image are
    left out unless `keep_copies`. Raises UserError for everything that is not so; with `skip_unreadable`, files that
    are no readable images are left out and listed in `skipped`.
    """
    root = Path(path)
    if root.is_file():
        raise UserError(f"{readable(path)} is a file: give a folder as folder:PATH, or arrays in a .npz as npz:PATH.")
    if not path or not root.is_dir():
        raise UserError(f"There is no folder {readable(path)!r}: give the path of a folder of images as folder:PATH.")
    layout, reading = lay_out(root, walk(root, skip_unreadable)), Reading()
    for why in (SYSTEM_FILE, IN_HIDDEN):
        reading.leave_out(why, [entry.relative_to(root) for entry in layout.passed.get(why, [])])
    unasked = {why: paths for why, paths in layout.passed.items() if why not in ALWAYS}
    if unasked and not skip_unreadable:
        _refuse_strays(unasked)
    images, kept, unread = _read_images(layout.files, size, skip_unreadable, reading)
    unasked |= {UNREADABLE: unread} if unread else {}
    for why, paths in unasked.items():
        reading.leave_out(why, [entry.relative_to(root) for entry in paths])
    names = layout.class_names
    labels = np.array([HIDDEN if file.label is None else names.index(file.label) for file in kept], np.int32)
    test = np.array([file.test for file in kept], bool)
    for k, class_name in enumerate(names):
        if not np.any((labels == k) & ~test):
            raise UserError(
                f"Class {class_name!r} in {readable(root)} has no images for training: add some or remove its folder."
            )
    if not layout.split:
        test = _fifth(labels, len(names), root)
    reading.warn_of_names(names)
    dataset = Dataset(
        name,
        chosen(images, ~test),
        labels[~test],
        chosen(images, test),
        labels[test],
        names,
        tuple(sorted(readable(entry.relative_to(root)) for paths in unasked.values() for entry in paths)),
        reading,
    )
    files = [readable(file.path.relative_to(root)) for file, held in zip(kept, test, strict=True) if not held]
    return dataset if keep_copies else copies.without_copies(dataset, files)


def _refuse_strays(unasked: dict[str, list[Path]]) -> None:
    """Raises UserError for files that training does not take and was not told to leave out."""
    why, paths = next(iter(unasked.items()))
    count = sum(map(len, unasked.values()))
    reason = " ".join(SUFFIXES) if why == NO_IMAGE else f"it is {why}"
    if count == 1:
        raise UserError(
            f"{readable(paths[0])} is no image ({reason}): remove it, or leave it out with --skip-unreadable."
        )
    raise UserError(
        f"{readable(paths[0])} is no image ({reason}), nor are {count - 1:,} more: remove them, or leave them out with "
        "--skip-unreadable."
    )


def read_to_fit(
    path: Path,
    shape: tuple[int, int, int],
    skip_unreadable: bool,
    see: Callable[[np.ndarray], None] = lambda pixels: None,
    found: Walk | None = None,
) -> tuple[list[Path], np.ndarray, Reading]:
    """One image, or all below a folder, brought to shape (H, W, C): paths, images (N, H, W, C), what was left out.

    `see` is shown each as its file has it, (h, w) or (h, w, 3); `found`: what lies below a folder, where it was walked
    already. What is no image is passed over. Raises UserError where the path does not exist, where there is no image,
    for a folder that cannot be opened and an unreadable image, naming it, unless `skip_unreadable`.
    """
    if not path.is_dir() and not path.is_file():
        what = "is no regular file" if path.exists() else "is not there"
        raise UserError(f"{readable(path)} {what}: give an image or a folder of images.")
    reading = Reading()
    candidates = [path]
    if path.is_dir():
        found = found or walk(path, skip_unreadable)
        candidates = found.images
        for why, paths in found.passed.items():
            reading.leave_out(why, [entry.relative_to(path) for entry in paths])
    elif not is_image(path):
        raise UserError(f"{readable(path)} is no image ({' '.join(SUFFIXES)}): give one, or a folder of images.")
    files, images = [], []
    for file in candidates:
        picture = _read_or_skip(file, skip_unreadable)
        if picture is None:
            reading.leave_out(UNREADABLE, [file.relative_to(path) if file != path else file])
            continue
        reading.take(picture)
        see(picture.pixels)
        files.append(file)
        images.append(resize_one(recolour_one(picture.pixels, shape[2]), *shape[:2]))
    if not images:
        raise UserError(
            f"{readable(path)} holds no readable image ({' '.join(SUFFIXES)}): give an image or a folder of images."
        )
    reading.warn_of_dark()
    return files, np.stack(images), reading


def _read_or_skip(path: Path, skip_unreadable: bool) -> Picture | None:
    try:
        return read_picture(path)
    except UserError:
        if not skip_unreadable:
            raise
        return None


def _read_images(
    files: Sequence[File], size: int | None, skip_unreadable: bool, reading: Reading
) -> tuple[np.ndarray, list[File], list[Path]]:
    """(images (N, H, W, C) uint8, the N files they came from, those that could not be read).

    Of a large folder they are kept on disk, decoded.
    """
    key = decoded.key_of([file.path for file in files], f"{size} {skip_unreadable}")
    found = decoded.read(key) if key else None
    if found is None:
        with decoded.growing(key, len(files)) as grown:
            found = _decode(files, size, skip_unreadable, grown)
            if key:
                found = decoded.keep(key, found, grown)
    reading.add(found.reading)
    return found.images, [files[i] for i in found.kept], [files[i].path for i in found.unread]


def _decode(files: Sequence[File], size: int | None, skip_unreadable: bool, grown: Growing) -> Decoded:
    """All files into `grown`, large ones shrunk as they come, from the first that an earlier process did not decode."""
    before = grown.before
    first, side, grey = before.get("files", 0), before.get("side", size), before.get("grey", 0)
    unread: list[int] = before.get("unread", [])
    kept = sorted(set(range(first)) - set(unread))
    reading = Reading.of_plain(before["reading"]) if before else Reading()
    if first:
        say(f"decoding: {first:,} of {len(files):,} files are there already")
    few = True if len(files) < decoded.FEWEST else None  # which take a second or two: no bar
    for number in tqdm(range(first, len(files)), "decoding", len(files), initial=first, unit=" files", disable=few):
        picture = _read_or_skip(files[number].path, skip_unreadable)
        if picture is None:
            unread.append(number)
            continue
        reading.take(picture)
        image = picture.pixels
        sides = image.shape[:2]
        equal = not kept or grown.shape[:2] == sides
        if side is None and not (equal and min(sides) >= SMALLEST and max(sides) <= LARGEST):
            side = DEFAULT_SIDE
            grown.change(lambda earlier: resize_one(earlier, DEFAULT_SIDE, DEFAULT_SIDE))
        grown.append(image if side is None else resize_one(image, side, side))
        grey += image.ndim == 2
        kept.append(number)
        grown.note(
            functools.partial(_said, reading, {"files": number + 1, "side": side, "grey": grey, "unread": unread})
        )
    if not kept:
        raise UserError(f"None of the {len(files)} files is a readable image: look at them, or give another folder.")
    images = grown.whole()
    reading.conclude(images, grey)
    return Decoded(images, kept, unread, reading)


def _said(reading: Reading, known: dict[str, Any]) -> dict[str, Any]:
    return known | {"reading": reading.plain()}


def _fifth(labels: np.ndarray, classes: int, root: Path) -> np.ndarray:
    """labels (N,), of every class at least one -> (N,) bool, the images held out for the test set."""
    sizes = stratify.sizes(labels, classes)
    if sizes.max() < 2:
        raise UserError(
            f"No class in {readable(root)} has two labelled images, and testing takes one: label more, or add a test/."
        )
    counts = np.minimum(np.maximum(1, sizes // HELD_OUT), sizes - 1)  # every class keeps one to learn from
    test = np.zeros(len(labels), bool)
    test[stratify.draw_rows(labels, counts, stratify.generator(0))] = True
    return test
