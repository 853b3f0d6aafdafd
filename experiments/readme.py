"""The tables of README, from the tracked records: python -m experiments.readme writes them between their markers."""

from __future__ import annotations

import json
import re
from pathlib import Path

from experiments.table import HERE, layout
from ssl_gen.reports import tables

README = HERE.parent / "README.md"
BLOCK = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def block(name: str) -> str:
    """The markdown of one record: its table, and where and how it was made."""
    tracked = json.loads((HERE / f"{name}.json").read_text())
    finals = tracked["rows"]
    first = next(iter(finals.values()))
    headers, rows = layout(finals, tracked["baseline"], tracked["metrics"], report=False)
    made = f"{len(first['seeds'])} seeds, {first['device']}, commit {first['commit']}; `experiments/{name}.json`"
    return f"{tables.markdown_table(headers, rows)}\n\n{made}\n"


def filled(text: str) -> str:
    """README with every block made anew."""
    return BLOCK.sub(lambda match: match[1] + block(match[2]) + match[3], text)


def main(path: Path = README) -> None:
    """Write the tables into README."""
    path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
