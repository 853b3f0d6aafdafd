"""Which images of a folder to label next, and the table to do it in, which the folder takes for its labels.csv."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_gen.core import bounds, outputs
from ssl_gen.core.cells import to_cell
from ssl_gen.datasets import folders, layout, suggesting
from ssl_gen.datasets.dataset import DEFAULT_SIDE, check_sides
from ssl_gen.datasets.reading import Reading
from ssl_gen.datasets.store import scaled
from ssl_gen.evaluation.features import find_encoder
from ssl_gen.evaluation.inference import everywhere, mapped
from ssl_gen.runs.load import Run, load
from ssl_gen.runs.predictions import relative
from ssl_gen.types import ImageSpec, UserError

COLUMNS = ("file", "label", "guess", "probability")


class Suggestions(NamedTuple):
    """What to label next, the first first, and what is labelled already; files as labels.csv names them."""

    files: list[str]
    guesses: list[tuple[str, float]]  # a run's favourite class of each and its probability; none without a run
    labelled: dict[str, str]
    reading: Reading

    def save(self, out: str | Path, overwrite: bool = False) -> Path:
        """Write the table to label them in; raises UserError where a file is there and is not ours."""
        outputs.check_free([Path(out)], overwrite)
        with outputs.replacing(Path(out)) as target:
            write_table(target, self)
        return Path(out)


def suggest(
    path: str | Path,
    count: int,
    run: str | Path | None = None,
    features: str | None = None,
    seed: int = 0,
    size: int | None = None,
    skip_unreadable: bool = False,
) -> Suggestions:
    """The `count` images of a folder to label next: the most typical, or with a run the least certain and diverse.

    The folder is one that `folder:` takes, or one of loose images with no label yet; of its test/ none is suggested.
    `features` see the images: a name that --encoder takes (pixels, random, a weights file); by default the latents of a
    run whose method has some, else pixels. Names are relative to the folder, or to its train/ where it has train/ and
    test/: a table that is saved there is read with the images. Images become `size` x `size`, by default as the run has
    them or 32 x 32.
    Raises UserError for a folder without images or with fewer that have no label, and for features that do not fit.
    """
    bounds.check_value("count", "count", count)
    bounds.check_value("seed", "seed", seed)
    if size is not None:
        check_sides(size, size, "--size")
    path, found = Path(path), None if run is None else load(run)
    if not path.is_dir():
        raise UserError(f"{path} is no folder: give the folder that holds the images")
    if found and size is not None:
        raise UserError("images are seen as the run sees them: leave out the size")
    shape = found.record.data.spec.shape if found else (size or DEFAULT_SIDE, size or DEFAULT_SIDE, 3)
    places = layout.places(path, skip_unreadable)
    names, images, labels, taken, reading = look(path, places, shape, skip_unreadable)
    if any(file.test for file in places.files):  # then the table belongs into train/
        names = [within_train(name) for name in names]
    suggesting.check_enough(taken, count)
    seen = features_of(features, found, images)
    guesses: list[tuple[str, float]] = []
    if found:
        probabilities, classes = found.classify(images), found.record.data.class_names
        rows = suggesting.uncertain_rows(probabilities, seen, taken, count, seed)
        guesses = [(classes[p.argmax()], float(p.max())) for p in probabilities[rows]]
    else:
        rows = suggesting.typical_rows(seen, taken, count, seed)
    labelled = {name: label for name, label in zip(names, labels, strict=True) if name and label is not None}
    return Suggestions([names[row] for row in rows], guesses, labelled, reading)


def within_train(name: str) -> str:
    """The name of a file of train/ as a table in there has it; "" of one of test/, which none names."""
    folder, _, below = name.partition("/")
    return below if folder.casefold() == layout.TRAIN else ""


class Looked(NamedTuple):
    """The images of a folder, and what is known of them."""

    names: list[str]  # as labels.csv has them
    images: np.ndarray  # (N, H, W, C)
    labels: list[str | None]
    taken: np.ndarray  # (N,) bool: labelled already, or of test/
    reading: Reading


def look(
    path: Path,
    places: layout.Places,
    shape: tuple[int, int, int],
    skip_unreadable: bool,
    see: Callable[[np.ndarray], None] = lambda pixels: None,
) -> Looked:
    """A folder and its places as images of `shape`; raises UserError as the readers do.

    `see` is shown each image as its file has it.
    """
    files, images, reading = folders.read_to_fit(path, shape, skip_unreadable, see, places.found)
    known = {file.path: file for file in places.files}
    labels = [known[file].label if file in known else None for file in files]
    taken = np.array([file in known and (known[file].label is not None or known[file].test) for file in files])
    return Looked(relative(files, path), images, labels, taken, reading)


def features_of(asked: str | None, run: Run | None, images: np.ndarray, replica: int | None = None) -> np.ndarray:
    """What sees images (N, H, W, C) -> (N, F) float32; of a run's replicas by default the first that did not stop."""
    return np.asarray(_seen(asked, run, images, replica), np.float32).reshape(len(images), -1)


def _seen(asked: str | None, run: Run | None, images: np.ndarray, replica: int | None) -> np.ndarray:
    """images (N, H, W, C) -> (N, ...)."""
    encode = run.compiled.method.encode if run else None
    if asked is None and run and encode:
        state = everywhere(run.states[run.trained_replica(replica)])
        return mapped(functools.partial(lambda state, images: encode(state, scaled(images)), state), images)
    height, width, channels = images.shape[1:]
    extractor = find_encoder(asked or "pixels", ImageSpec(height, width, channels, 1), "these images", "")
    return mapped(extractor.features, images)


def write_table(target: Path, found: Suggestions) -> None:
    """To label in any spreadsheet: what to label comes first, its label blank, then what has one."""
    guesses: Sequence[tuple[str, float] | None] = found.guesses or [None] * len(found.files)
    with open(target, "w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(COLUMNS)
        for file, guess in zip(found.files, guesses, strict=True):
            table.writerow([to_cell(file), "", *((to_cell(guess[0]), f"{guess[1]:.4f}") if guess else ("", ""))])
        for file, label in found.labelled.items():
            table.writerow([to_cell(file), to_cell(label), "", ""])
