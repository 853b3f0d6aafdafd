"""Headers and rows that put finished runs side by side."""

from __future__ import annotations

from collections.abc import Sequence

from ssl_gen.reports import tables
from ssl_gen.reports.compare.entries import Entry, mixed
from ssl_gen.reports.compare.pairs import difference


def table(entries: Sequence[Entry], metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: what each run reached, by the metrics' full names."""
    # The numbers come early: on a narrow page they are seen first, beside the name.
    several = mixed(entries)
    headers = ["run", "labels", *map(tables.headed, metrics), "method", *(["dataset"] if several else [])]
    rows = []
    for entry in entries:
        final = entry.final
        values = [tables.measured(name, final.metrics.get(name)) for name in metrics]
        rows.append([entry.name, str(final.labels), *values, final.method, *([final.dataset] if several else [])])
    return headers, rows


def comparison(
    entries: Sequence[Entry], baseline: int | None = None, metrics: Sequence[str] = ()
) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of an experiment: method, labels, error, difference, other metrics, PFLOP, time, report.

    With `baseline`, a row number, every row shows its paired difference in error to that row, with the 95 % t interval
    over the masks they share. PFLOP, of one seed, is there where a record says it. Raises ValueError where the masks'
    hashes differ though the number of labels does not.
    """
    several = mixed(entries)
    headers = ["method", *(["dataset"] if several else []), "labels", tables.headed("error")]
    if baseline is not None:
        headers.append(f"error - {entries[baseline].final.method} [95 %]")
    told = any(entry.final.pflop is not None for entry in entries)
    headers += [*metrics, *(["PFLOP"] if told else []), "time", "report"]
    rows = []
    for entry in entries:
        final = entry.final
        row = [final.method, *([final.dataset] if several else []), str(final.labels)]
        row.append(tables.measured("error", final.metrics.get("error")))
        if baseline is not None:
            row.append(difference(entry, entries[baseline]))
        row += [tables.measured(name, final.metrics.get(name)) for name in metrics]
        row += [tables.operations(final.pflop)] if told else []
        row.append(tables.duration(final.seconds))
        row.append(tables.MISSING if entry.report is None else str(entry.report))
        rows.append(row)
    return headers, rows
