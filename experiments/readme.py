"""The tables of README and docs/results.md, from the tracked records: python -m experiments.readme writes them between
their markers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from experiments.table import HERE, layout
from ssl_gen.reports import tables

PAGES = (HERE.parent / "README.md", HERE.parent / "docs" / "results.md")
BLOCK = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def of_runs(tracked: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The table of a record made of runs, and what says where and how each was made."""
    finals = tracked["rows"]
    headers, rows = layout(finals, tracked["baseline"], tracked["metrics"], report=False)
    return tables.markdown_table(headers, rows), list(finals.values())


def of_numbers(tracked: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The table of a record that holds {column: {row: summary}}."""
    columns = tracked["metrics"]
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [[name, *(tables.measured("", column.get(name)) for column in columns.values())] for name in names]
    return tables.markdown_table([tracked["unit"], *columns], rows), [tracked]


def block(name: str) -> str:
    """The markdown of one record: its table, and where and how it was made."""
    tracked = json.loads((HERE / f"{name}.json").read_text())
    drawn, made_by = of_runs(tracked) if "rows" in tracked else of_numbers(tracked)
    devices, commits = ("; ".join(dict.fromkeys(each[what] for each in made_by)) for what in ("device", "commit"))
    made = f"{len(made_by[0]['seeds'])} seeds, {devices}, commit {commits}; `experiments/{name}.json`"
    return f"{drawn}\n\n{made}\n"


def filled(text: str) -> str:
    """A page with every block made anew."""
    return BLOCK.sub(lambda match: match[1] + block(match[2]) + match[3], text)


def main(pages: tuple[Path, ...] = PAGES) -> None:
    """Write the tables into the pages."""
    for page in pages:
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
