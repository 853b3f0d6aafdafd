"""What a run guesses of a folder's images, on a page on which a person corrects it (`reports/review`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_gen.core import bounds, outputs
from ssl_gen.datasets import layout, suggesting
from ssl_gen.datasets.names import readable
from ssl_gen.datasets.reading import Reading
from ssl_gen.reports import sprites
from ssl_gen.reports.review import page
from ssl_gen.runs.load import Run, load
from ssl_gen.runs.predictions import relative
from ssl_gen.runs.suggestions import Looked, features_of, look
from ssl_gen.types import UserError


class Review(NamedTuple):
    """A page that was written, and what is on it."""

    page: Path
    images: int  # of the folder
    shown: int  # on the page
    labelled: int  # before, of the folder
    reading: Reading


def review(
    run: str | Path,
    path: str | Path,
    out: str | Path = "review.html",
    next: int = 50,
    most: int = 5_000,
    features: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    skip_unreadable: bool = False,
) -> Review:
    """Write a page on which to correct what a run guesses of a folder's images; it saves a labels.csv for the folder.

    On top stand `next` images to label next, chosen and compared by `features` as `suggest` does; then all others by
    guess, the least certain first. Of more than `most` images the page has those to label next and the least certain.
    Raises UserError for a folder without images, labels that are no class of the run's, a folder of train/ and test/,
    a run without a classifier, and a page that is there and is not ours, unless `overwrite`.
    """
    path, out = Path(path), Path(out)
    for name, value in {"next": next, "most": most, "seed": seed}.items():
        bounds.check_value(name, name, value)
    if not path.is_dir():
        raise UserError(f"{readable(path)} is no folder: give the folder that holds the images")
    outputs.check_free([out], overwrite)
    found = load(run)
    data = found.record.data
    places = layout.places(path, skip_unreadable)
    known = places.files
    _check_labels(known, data.class_names, path, found)
    thumbnails: list[np.ndarray] = []

    def see(pixels: np.ndarray) -> None:
        thumbnails.append(sprites.thumbnail(pixels))

    seen = look(path, places, data.spec.shape, skip_unreadable, see)
    probabilities = found.classify(seen.images)
    following = _following(seen, probabilities, found, min(next, most), features, seed)
    rows = page.order(probabilities, following)
    if len(rows) > most:
        sure = probabilities.max(1)
        sure[following] = -1
        rows = rows[np.isin(rows, np.argsort(sure, kind="stable")[:most])]
    shown = page.Guessed(
        [seen.names[row] for row in rows],
        [thumbnails[row] for row in rows],
        probabilities[rows],
        [_number(seen.labels[row], data.class_names) for row in rows],
        len(following),
    )
    labels = {name: file.label for name, file in zip(relative([f.path for f in known], path), known, strict=True)}
    there = set(shown.files)
    elsewhere = {name: label for name, label in labels.items() if label is not None and name not in there}
    named = readable(path.resolve().name)
    with outputs.replacing(out) as target:
        text = page.render(named, readable(found.folder), data.class_names, shown, elsewhere, found.calibrated)
        target.write_bytes(text.encode("utf-8", "backslashreplace"))
    labelled = sum(label is not None for label in labels.values())
    return Review(out, len(seen.names), len(rows), labelled, seen.reading)


def _check_labels(known: Sequence[layout.File], classes: Sequence[str], path: Path, run: Run) -> None:
    """Raise UserError for a folder whose table would not be read, and for a label that the run does not know."""
    if any(file.test for file in known):
        raise UserError(f"{readable(path)} has a test/, which is not to be reviewed: give its train/ alone")
    strange = next((file for file in known if file.label is not None and file.label not in classes), None)
    if strange is not None:
        few = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise UserError(
            f"{readable(strange.path)} is labelled {strange.label!r}, which is no class of {run.folder} ({few}): mend "
            "the label, or train again with it"
        )


def _following(
    seen: Looked, probabilities: np.ndarray, run: Run, count: int, features: str | None, seed: int
) -> np.ndarray:
    """The rows to label next, as many as `count` or as have no label."""
    count = min(count, int((~seen.taken).sum()))
    if count == 0:
        return np.zeros(0, int)
    seen_by = features_of(features, run, seen.images)
    return suggesting.uncertain_rows(probabilities, seen_by, seen.taken, count, seed)


def _number(label: str | None, classes: Sequence[str]) -> int:
    return page.NONE if label is None else list(classes).index(label)
