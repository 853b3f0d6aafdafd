"""Cells of a CSV table that a spreadsheet would take for a formula carry an apostrophe, and lose it when read back.

A spreadsheet computes what begins with = + - @ or a tab, whoever named the file so (OWASP, "CSV Injection").
"""

from __future__ import annotations

import re

FORMULA = re.compile(r"'*[=+\-@\t\r]")


def to_cell(text: str) -> str:
    """Text as a cell; `from_cell` undoes it, for every text."""
    return f"'{text}" if FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """The text of a cell that `to_cell` wrote; one that was written by hand, without an apostrophe, stays."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
