"""What experiments/NAME.json holds, and the tables that are made of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ssl_gen.core.files import write_whole
from ssl_gen.core.plain import from_plain, to_plain
from ssl_gen.metrics.statistics import Summary
from ssl_gen.reports import tables
from ssl_gen.reports.compare.columns import comparison
from ssl_gen.reports.compare.entries import Entry
from ssl_gen.reports.compare.pairs import difference, error_difference, together
from ssl_gen.reports.records import FinalRecord, PublishedNumber
from ssl_gen.reports.tables import matching


@dataclasses.dataclass(frozen=True)
class Tracked:
    """experiments/NAME.json: the record of a table made of runs."""

    baseline: str | None
    metrics: list[str]
    rows: dict[str, FinalRecord]


@dataclasses.dataclass(frozen=True)
class Numbers:
    """experiments/NAME.json of an experiment that trains no method: {column: {row: number}}."""

    dataset: str
    images: int
    labels: int
    seeds: list[int]
    unit: str
    device: str
    commit: str | None
    metrics: dict[str, dict[str, Summary]]
    published: dict[str, dict[str, PublishedNumber]] | None = None  # {column: {row: number}}


def save(path: Path, numbers: Numbers) -> None:
    """Write such a record, whole or not at all."""
    write_whole(path, (json.dumps(to_plain(numbers), indent=1) + "\n").encode())


def load(path: Path) -> Tracked | Numbers | None:
    """A record in experiments/; None where it is of neither kind."""
    content = json.loads(path.read_text())
    if "rows" in content:
        return from_plain(Tracked, content)
    return from_plain(Numbers, content) if "unit" in content else None


def joined(said: Iterable[str | None]) -> str:
    """Devices, or commits, each once: of records that may name several themselves, "; " between."""
    return "; ".join(dict.fromkeys("; ".join(map(str, said)).split("; ")))


def layout(
    entries: Sequence[Entry], baseline: str | None, metrics: Sequence[str], report: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: the name, then what `comparison` says, with or without the path of the report.

    baseline: the row that the others, on the same masks, are paired with, or the METHOD of rows METHOD@LABELS, each
    paired with those of as many labels; None where the masks differ.
    """
    named = {entry.name: entry for entry in entries}
    number = list(named).index(baseline) if baseline in named else None
    measured = dict.fromkeys(name for entry in entries for name in entry.final.metrics)
    full = [name for metric in metrics for name in matching(metric, measured) or [metric]]
    headers, rows = comparison(entries, number, full)
    paired = f"paired to {baseline} [95 %]"
    headers = [paired if header.startswith("error - ") else header for header in headers]
    if baseline is not None and number is None:
        if not any(name.startswith(f"{baseline}@") for name in named):
            raise ValueError(f"the baseline {baseline} is no row: there are {', '.join(named)}")
        place = headers.index(tables.headed("error")) + 1
        headers.insert(place, paired)
        for entry, row in zip(entries, rows, strict=True):
            other = f"{baseline}@{entry.final.labels}"
            row.insert(place, difference(entry, named[other]) if other in named else tables.MISSING)
    if any(entry.final.published for entry in entries):
        place = headers.index("time")
        headers.insert(place, "published")
        for entry, row in zip(entries, rows, strict=True):
            row.insert(place, printed(entry.final.published) if entry.final.published else tables.MISSING)
    keep = [i for i, header in enumerate(headers) if header != "method" and (report or header != "report")]
    return ["run", *(headers[i] for i in keep)], [
        [f"{entry.name} †" if entry.final.stale else entry.name, *(row[i] for i in keep)]
        for entry, row in zip(entries, rows, strict=True)
    ]


def comparisons(entries: Sequence[Entry], baseline: str | None) -> str:
    """What the paired column of `layout` says when it is taken as a whole; "" without one."""
    named = {entry.name: entry for entry in entries}
    found = []
    for entry in entries:
        other = named.get(baseline or "") or named.get(f"{baseline}@{entry.final.labels}")
        result = None if other is None else error_difference(entry, other)
        found += [] if result is None else [result]
    return together(found)


def staleness(rows: Mapping[str, FinalRecord]) -> str:
    """A line for each reason why rows that are marked are to be run again; "" where none is."""
    reasons: dict[str, list[str]] = {}
    for name, final in rows.items():
        if final.stale:
            reasons.setdefault(final.stale, []).append(name)
    return "\n".join(f"† to be run again, made {reason}: {', '.join(names)}" for reason, names in reasons.items())


def printed(numbers: Sequence[PublishedNumber]) -> str:
    """Published numbers in a cell of a table; those from memory are marked."""
    return "; ".join(f"{each.value}{'' if each.verified else ' (unverified)'}" for each in numbers)
