"""The tables of README, docs/results.md and docs/own_images.md, from the tracked records: python -m experiments.readme
writes them between their markers."""

from __future__ import annotations

import argparse
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.table import HERE
from experiments.tracked import Numbers, Tracked, comparisons, joined, layout, load, printed, staleness
from ssl_gen.reports import tables
from ssl_gen.reports.compare.entries import Entry
from ssl_gen.reports.records import FinalRecord

PAGES = (HERE.parent / "README.md", *(HERE.parent / "docs" / f"{name}.md" for name in ("results", "own_images")))
BLOCK = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def of_runs(tracked: Tracked, letters: Mapping[str, str]) -> str:
    """The table of a record made of runs, with what its comparisons say together.

    letters: of its machines. Of several each row says which it was, for their times are not alike.
    """
    entries = [Entry(name, final) for name, final in tracked.rows.items()]
    headers, rows = layout(entries, tracked.baseline, tracked.metrics, report=False)
    if len(letters) > 1:
        headers = [*headers, "on"]
        rows = [[*row, letters[machine(entry.final)]] for entry, row in zip(entries, rows, strict=True)]
    return "\n\n".join(filter(None, (tables.markdown_table(headers, rows), comparisons(entries, tracked.baseline))))


def of_numbers(numbers: Numbers) -> str:
    """The table of a record of numbers that are no run's."""
    columns = numbers.metrics
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [[name, *(tables.measured("", column.get(name)) for column in columns.values())] for name in names]
    others = numbers.published or {}
    for name in dict.fromkeys(name for column in others.values() for name in column):
        rows.append([name, *(printed([others[column][name]]) for column in columns)])
    return tables.markdown_table([numbers.unit, *columns], rows)


def machine(made: FinalRecord | Numbers) -> str:
    """The device, and the precision of its products where the record says it."""
    precision = made.precision if isinstance(made, FinalRecord) else None
    return made.device if precision is None else f"{made.device}, precision {precision}"


def lettered(made_by: Sequence[FinalRecord | Numbers]) -> dict[str, str]:
    """The machines, each with a letter."""
    return dict(zip(dict.fromkeys(machine(each) for each in made_by), string.ascii_lowercase, strict=False))


def block(name: str) -> str:
    """The markdown of one record: its table, and where and how it was made."""
    record = load(HERE / f"{name}.json")
    if record is None:
        raise ValueError(f"experiments/{name}.json has no table")
    made_by = list(record.rows.values()) if isinstance(record, Tracked) else [record]
    letters = lettered(made_by)
    drawn = of_runs(record, letters) if isinstance(record, Tracked) else of_numbers(record)
    devices = "; ".join(f"{letter}: {each}" if len(letters) > 1 else each for each, letter in letters.items())
    commits = joined(each.commit for each in made_by)
    counts = " or ".join(str(each) for each in dict.fromkeys(len(each.seeds) for each in made_by))
    made = f"{counts} seed{'' if counts == '1' else 's'}, {devices}, commit {commits}; `experiments/{name}.json`"
    stale = staleness(record.rows) if isinstance(record, Tracked) else ""
    return "\n\n".join(filter(None, (drawn, stale.replace("\n", "  \n"), made))) + "\n"


def filled(text: str) -> str:
    """A page with every block made anew."""
    return BLOCK.sub(lambda match: match[1] + block(match[2]) + match[3], text)


def main(pages: tuple[Path, ...] = PAGES) -> None:
    """Write the tables into the pages."""
    for page in pages:
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m experiments.readme", description=__doc__).parse_args()
    main()
