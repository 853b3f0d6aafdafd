"""What the files of a folder are by their places: one sub-folder a class, or labels.csv; perhaps train/ and test/."""

from __future__ import annotations

import itertools
from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

from ssl_gen.datasets.label_table import TABLE, read_table
from ssl_gen.datasets.names import check_distinct, class_of, readable
from ssl_gen.datasets.walk import ALWAYS, Walk, is_image, walk
from ssl_gen.types import UserError

TRAIN, TEST = "train", "test"  # in any case
GLANCE = 200  # entries; ours


class File(NamedTuple):
    """One file that is an image by its name."""

    path: Path
    label: str | None  # class name; None where it is not known
    test: bool


class Layout(NamedTuple):
    """The files of a folder and what they are by their places."""

    files: list[File]
    class_names: tuple[str, ...]  # of training, sorted
    passed: dict[str, list[Path]]  # why -> what was not taken
    split: bool  # is there a test folder?


class Places(NamedTuple):
    """What was found in a folder, and its files by their places."""

    found: Walk
    files: list[File]


def lay_out(root: Path, found: Walk) -> Layout:
    """Every file of training and test, of what was found in a folder, by the places they lie in."""
    splits = {
        split: [entry for entry in found.folders if entry.parent == root and readable(entry.name).casefold() == split]
        for split in (TRAIN, TEST)
    }
    if not any(_is_split(found, entry) for entry in splits[TRAIN]):
        files, class_names, passed = _list(root, found, test=False)
        return Layout(files, class_names, passed, split=False)
    for split, entries in splits.items():
        if len(entries) > 1:
            raise UserError(
                f"{readable(root)} has {' and '.join(readable(e.name) for e in entries)}: keep one {split}/."
            )
    (train,) = splits[TRAIN]
    if not splits[TEST]:
        raise UserError(
            f"{readable(root)} has train/ but no test/: add test/, or move what is in train/ one folder up."
        )
    (test,) = splits[TEST]
    top = [e for e in (*found.folders, *found.images, *_unasked(found.passed)) if e.parent == root]
    stray = [entry for entry in top if entry not in (train, test)]
    if stray:
        raise UserError(f"{readable(stray[0])} lies beside train/: move it into train/ or test/, or out of the way.")
    files, class_names, passed = _list(train, _below(found, train), test=False)
    test_files, test_names, test_passed = _list(test, _below(found, test), test=True)
    unknown = sorted(set(test_names) - set(class_names))
    if unknown:
        raise UserError(f"Class {unknown[0]!r} is in {readable(test)} but not in train/: add it there or remove it.")
    unlabelled = [file for file in test_files if file.label is None]
    if unlabelled:
        raise UserError(
            f"{readable(unlabelled[0].path)} is a test image without a label: label it or move it into train/."
        )
    beside = {why: [entry for entry in paths if entry.parent == root] for why, paths in found.passed.items()}
    for each in (passed, test_passed):
        for why, paths in each.items():
            beside[why] = [*beside.get(why, []), *paths]
    return Layout(files + test_files, class_names, {why: paths for why, paths in beside.items() if paths}, split=True)


def first_look(root: Path) -> list[str]:
    """Names of the sub-folders, of `root` or its train/, that hold images; its table's, where one lies beside images.

    [] where these are not at least two classes. Of a folder no more than `GLANCE` entries are looked at, and none is
    opened: it may be anybody's home.
    """
    try:
        inside = glance(root)
        if any(entry.name.lower() == TABLE for entry in inside) and any(map(is_image, inside)):
            return [TABLE]
        folders = [entry for entry in inside if entry.is_dir() and not entry.name.startswith(".")]
        train = [entry for entry in folders if entry.name.casefold() == TRAIN]
        kinds = [readable(entry.name) for entry in folders if any(map(is_image, glance(entry)))]
    except OSError:
        return []
    kinds = [kind for kind in kinds if kind.casefold() != TEST]
    return sorted(kinds) if len(kinds) > 1 else first_look(train[0]) if train else []


def glance(folder: Path) -> list[Path]:
    """The first entries of a folder."""
    return list(itertools.islice(folder.iterdir(), GLANCE))


def places(root: Path, skip_unreadable: bool) -> Places:
    """Those of a folder in which labels may still be to come: loose images, or folders that mean no label."""
    found = walk(root, skip_unreadable)
    inner = [entry for entry in found.folders if entry.parent == root]
    begun = any(class_of(entry.name, f"The folder {readable(entry)}") is not None for entry in inner)
    tables = _tables(found, root)
    labelled = any(label for table in tables for label in read_table(table, blank=True).values())
    if begun or labelled or len(tables) > 1:
        return Places(found, lay_out(root, found).files)
    return Places(found, [File(image, None, test=False) for image in found.images])


def _is_split(found: Walk, train: Path) -> bool:
    """Is train/ a split? A class that happens to be called train holds images, not folders."""
    return bool(_tables(found, train)) or any(entry.parent == train for entry in found.folders)


def _unasked(passed: dict[str, list[Path]]) -> list[Path]:
    return [path for why, paths in passed.items() if why not in ALWAYS for path in paths]


def _below(found: Walk, folder: Path) -> Walk:
    """The part of a walk that lies in one folder."""

    def part(paths: list[Path]) -> list[Path]:
        return [path for path in paths if folder in path.parents]

    passed = {why: part(paths) for why, paths in found.passed.items()}
    return Walk(part(found.images), part(found.folders), {why: paths for why, paths in passed.items() if paths})


def _tables(found: Walk, folder: Path) -> list[Path]:
    """labels.csv of a folder, in whatever letters."""
    return [
        path
        for paths in found.passed.values()
        for path in paths
        if path.parent == folder and path.name.lower() == TABLE and path.is_file()
    ]


def _list(folder: Path, found: Walk, test: bool) -> tuple[list[File], tuple[str, ...], dict[str, list[Path]]]:
    """The files, class names and what was passed over, of a folder of classes or one with a table."""
    if not (found.images or found.folders or _unasked(found.passed)):
        raise UserError(
            f"{readable(folder)} is empty: put one folder of images a class into it, or images and a {TABLE}."
        )
    tables = _tables(found, folder)
    if len(tables) > 1:
        raise UserError(f"{readable(folder)} has {' and '.join(path.name for path in tables)}: keep one of them.")
    if tables:
        return _list_table(folder, tables[0], found, test)
    outside = [image for image in found.images if image.parent == folder]
    if outside:
        raise UserError(
            f"{readable(folder)} has images outside a class folder, {readable(outside[0].name)} for one: move them "
            f"into unlabelled/ or write {TABLE}."
        )
    inner = [entry for entry in found.folders if entry.parent == folder]
    nested = [entry for entry in found.folders if entry.parent != folder]
    if nested:
        raise UserError(
            f"{readable(nested[0])} is a folder inside a class folder: move its images up into "
            f"{readable(nested[0].parent.name)}/."
        )
    check_distinct([entry.name for entry in inner], readable(folder))
    labels = {entry: class_of(entry.name, f"The folder {readable(entry)}") for entry in inner}
    named = [label for label in labels.values() if label is not None]
    if len(set(named)) < len(named):
        twice = next(label for label in named if named.count(label) > 1)
        raise UserError(f"{readable(folder)} has two folders for the class {twice!r}: rename one of them.")
    for entry, label in labels.items():
        if label is not None and not any(path.parent == entry for path in (*found.images, *_unasked(found.passed))):
            raise UserError(f"Class folder {readable(entry)} has no images: add some or remove it.")
    if not named:
        raise UserError(
            f"{readable(folder)} has no class folders: put labelled images into one folder a class, or write {TABLE}."
        )
    files = [File(image, labels[image.parent], test) for image in found.images]
    return files, tuple(sorted(named)), found.passed


def _as_files_are_called(labels: dict[str, str | None], names: Container[str], table: Path) -> dict[str, str | None]:
    """The labels of a table by the files' own names: spaces around one, in it, are the file's or whoever typed it."""
    found: dict[str, str | None] = {}
    for written, label in labels.items():
        name = written if written in names else written.strip()
        if name in found:
            raise UserError(f"{readable(table)}: {name!r} is listed twice.")
        found[name] = label
    return found


def _list_table(
    folder: Path, table: Path, found: Walk, test: bool
) -> tuple[list[File], tuple[str, ...], dict[str, list[Path]]]:
    """The same of images and a labels.csv; those of sub-folders count where the table names files in some."""
    labels = read_table(table)
    if found.folders and not any("/" in name for name in labels):
        raise UserError(
            f"{readable(found.folders[0])} is a folder beside {TABLE}, which names no file in a folder: move its "
            f"images up, or remove {TABLE}."
        )
    everything = [*found.images, *(path for paths in found.passed.values() for path in paths if path != table)]
    by_name: dict[str, str] = {}
    for path in everything:
        raw = path.relative_to(folder).as_posix()
        if by_name.setdefault(readable(raw), raw) != raw and readable(raw) in labels:
            raise UserError(f"{readable(folder)} has two files that both read {readable(raw)!r}: rename one of them.")
    labels = _as_files_are_called(labels, by_name, table)
    absent = sorted(set(labels) - set(by_name))
    if absent:
        raise UserError(
            f"{readable(table)} names {absent[0]!r}, which is not in {readable(folder)}: add the file or remove the "
            "line."
        )
    files = [File(path, labels.get(readable(path.relative_to(folder).as_posix())), test) for path in found.images]
    hidden = {path for why in ALWAYS for path in found.passed.get(why, [])}
    listed = [path for path in hidden if labels.get(readable(path.relative_to(folder).as_posix()))]
    if listed:
        raise UserError(
            f"{readable(table)} gives {readable(listed[0].name)!r} a label, and hidden and system files are passed "
            "over: rename the file or remove the line."
        )
    passed = {why: [path for path in paths if path != table] for why, paths in found.passed.items()}
    class_names = tuple(sorted({label for label in labels.values() if label is not None}))
    return files, class_names, {why: paths for why, paths in passed.items() if paths}
