"""The test images that a report shows, wrong or unsure: which they are (tested.json), how they look (tested.png)."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssl_gen.reports import records, sprites
from ssl_gen.reports.charts import pictures
from ssl_gen.types import UserError

RECORD, PICTURE = "tested.json", "tested.png"
MOST = 500  # images in all; ours: a few MB at most
A_CELL = 12  # images of a cell of the confusion matrix; ours
A_GALLERY = 24  # images, of the wrong and of the least certain; ours


@dataclasses.dataclass(frozen=True)
class TestedImage:
    """A test image and what was made of it."""

    row: int  # of the test set
    label: int  # the true class
    guesses: list[int]  # a class a seed that did not stop
    guess: int  # the favourite of their mean
    share: float  # its mean probability


@dataclasses.dataclass(frozen=True)
class TestedRecord:
    """tested.json: the images of tested.png, row by row."""

    side: int  # pixels of a cell of the picture
    columns: int
    images: list[TestedImage]


class Tested(NamedTuple):
    """What a run folder has of them."""

    images: list[TestedImage]
    sprite: sprites.Sprite  # in their order

    def cell(self, true: int, predicted: int) -> list[int]:
        """The images behind a cell of the confusion matrix: of most seeds first, then the surest, or the least.

        An image stands in the cell of every seed's guess.
        """
        found = [(i, each) for i, each in enumerate(self.images) if each.label == true and predicted in each.guesses]
        sign = 1 if true == predicted else -1
        found.sort(key=lambda pair: (-pair[1].guesses.count(predicted), sign * pair[1].share))
        return [i for i, _ in found[:A_CELL]]

    def wrong(self) -> list[int]:
        """Those that the mean of the seeds gets wrong, the surest first."""
        found = [i for i, each in enumerate(self.images) if each.guess != each.label]
        return sorted(found, key=lambda i: -self.images[i].share)[:A_GALLERY]

    def unsure(self) -> list[int]:
        """The least certain, right or wrong."""
        return sorted(range(len(self.images)), key=lambda i: self.images[i].share)[:A_GALLERY]


def choose(log_probabilities: Sequence[np.ndarray], labels: np.ndarray) -> list[TestedImage]:
    """log-probabilities (T, K) of each seed, labels (T,) -> at most MOST images to show.

    The surest of the wrong ones and the least certain come first, then the first of every cell of the confusion matrix,
    the second, and so on.
    """
    shares = np.mean([np.exp(each) for each in log_probabilities], axis=0)
    guesses = np.stack([each.argmax(1) for each in log_probabilities], 1)
    guess, share = shares.argmax(1), shares.max(1)
    wrong = np.flatnonzero(guess != labels)
    chosen = [*wrong[np.argsort(-share[wrong], kind="stable")][:A_GALLERY]]
    chosen += [*np.argsort(share, kind="stable")[:A_GALLERY]]
    cells: dict[tuple[int, int], list[tuple[int, float, int]]] = collections.defaultdict(list)
    for row, (label, seeds) in enumerate(zip(labels.tolist(), guesses.tolist(), strict=True)):
        for predicted, count in collections.Counter(seeds).items():
            surer = share[row] if predicted == label else -share[row]
            cells[label, predicted].append((-count, float(surer), row))
    ranked = [sorted(cell)[:A_CELL] for cell in cells.values()]
    chosen += [cell[rank][2] for rank in range(A_CELL) for cell in ranked if rank < len(cell)]
    rows = list(dict.fromkeys(int(row) for row in chosen))[:MOST]
    return [
        TestedImage(row, int(labels[row]), guesses[row].tolist(), int(guess[row]), round(float(share[row]), 4))
        for row in rows
    ]


def write(folder: Path, found: Sequence[TestedImage], images: np.ndarray) -> None:
    """Write the two files of a run folder; images (T, H, W, C) uint8 are the whole test set."""
    if not found:
        return
    sheet, side, columns = sprites.stacked([sprites.thumbnail(images[each.row]) for each in found])
    pictures.save(folder / PICTURE, Image.fromarray(sheet), {})
    records.write(folder / RECORD, TestedRecord(side, columns, list(found)))


def is_whole(folder: Path) -> bool:
    """Are the files of a run folder as they were written? Also where there are none."""
    try:
        read(folder)
    except UserError:
        return False
    return True


def read(folder: Path) -> Tested | None:
    """Those of a run folder, None where it has none; raises UserError where a file of them is damaged."""
    path = folder / RECORD
    if not path.is_file():
        return None
    record = records.load(path, TestedRecord)
    try:
        pictures.check(folder / PICTURE)
    except UserError as error:
        raise UserError(f"{folder / PICTURE} is missing or damaged: `ssl-gen evaluate` makes it again") from error
    with Image.open(folder / PICTURE) as picture:
        sheet = np.asarray(picture)
    side = record.side
    places = [divmod(number, record.columns) for number in range(len(record.images))]
    cells = [sheet[y * side : (y + 1) * side, x * side : (x + 1) * side] for y, x in places]
    return Tested(record.images, sprites.sprite(cells))
