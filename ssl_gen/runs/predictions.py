"""The table that `ssl-gen predict` writes, which a folder of images takes for its labels.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ssl_gen.core.cells import to_cell
from ssl_gen.datasets.names import readable

COLUMNS = ("file", "label", "probability", "calibrated")


def relative(files: Sequence[Path], searched: Path) -> list[str]:
    """Names as labels.csv has them: from the folder that was searched, or that the one image lies in."""
    folder = searched if searched.is_dir() else searched.parent
    return [readable(PurePosixPath(file.relative_to(folder))) for file in files]


def write_table(
    target: Path,
    files: Sequence[str],
    classes: Sequence[str],
    probabilities: np.ndarray,
    calibrated: bool,
    confident: float = 0.0,
) -> int:
    """Write the favourite class of each of `files` by probabilities (N, K); return how many have a label.

    Where the probability is below `confident` the label is blank: such a file counts as unlabelled.
    """
    labelled = 0
    with open(target, "w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(COLUMNS)
        for file, row in zip(files, probabilities, strict=True):
            sure = row.max() >= confident
            labelled += bool(sure)
            label = to_cell(classes[row.argmax()]) if sure else ""
            table.writerow([to_cell(file), label, f"{row.max():.4f}", "yes" if calibrated else "no"])
    return labelled
