"""Finished runs to be compared: where they are read from, what they are called, which numbers they are compared by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ssl_gen.metrics.registry import NUMBERS
from ssl_gen.reports import run_folder, tables
from ssl_gen.reports.records import FinalRecord
from ssl_gen.types import UserError


class Entry(NamedTuple):
    """One finished run."""

    name: str  # METHOD@LABELS in label-efficiency experiments
    final: FinalRecord
    samples: Path | None = None  # samples.png
    data: str | None = None  # SHA-256 of the images, where it is known
    report: Path | None = None  # report.html

    @property
    def method(self) -> str:
        """What its curve is called: METHOD of a row METHOD@LABELS, of other names the method."""
        row, _, labels = self.name.rpartition("@")
        return row if row and labels == str(self.final.labels) else self.final.method


def read(folder: Path, name: str) -> Entry:
    """A finished run from its folder; raises UserError as `run_folder.finished`."""
    run, report = run_folder.read(folder), folder / "report.html"
    final, data = run_folder.finished(run), run.record.data.sha256
    return Entry(name, final, run.samples, data, report if report.is_file() else None)


def names_of(folders: Sequence[Path]) -> list[str]:
    """One name a folder: its own, with as many of those above it as make it different from all others."""
    parts = [folder.resolve().parts for folder in folders]
    depth = 1
    while len({each[-depth:] for each in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(each[-depth:]) for each in parts]


def usual() -> list[str]:
    """The numbers that have a column where none are asked for, in the order of their columns."""
    columns = {name: number.column for name, number in NUMBERS.items() if number.column is not None}
    return sorted(columns, key=columns.__getitem__)


def chosen(entries: Sequence[Entry], wanted: Sequence[str] = ()) -> list[str]:
    """The full names of the wanted metrics, or of the usual ones that there are; UserError for one that no run has."""
    measured = list(dict.fromkeys(name for entry in entries for name in entry.final.metrics))
    found = []
    for metric in wanted or usual():
        full = tables.matching(metric, measured)
        if wanted and not full:
            raise UserError(f"no run has {metric}: measure it with `ssl-gen evaluate RUN --metrics {metric}`")
        found += full
    return list(dict.fromkeys(found))


def mixed(entries: Sequence[Entry]) -> bool:
    """Are the runs of several data sets?"""
    return len({entry.final.dataset for entry in entries}) > 1
