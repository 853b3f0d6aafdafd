"""Records -> tables: aligned text for a terminal, markdown for a README, HTML for the report.

What is missing is a dash, never a zero.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ssl_gen.metrics.registry import NUMBERS, number_name, number_of
from ssl_gen.metrics.statistics import Summary

MISSING = "-"
MADE = re.compile(r"((.*_)?n=)?\d+")  # how a number was made: with which features, of how many samples
# A cell that is one, with its spread, interval, count or unit; no hash, no version, no "2 cores".
NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?( ([±\[(]|to |s$|min |h ).*)?")
LONG = 24  # letters; on a page a longer name may go on in a next line after each _; ours


def decimals(name: str, value: float) -> int:
    """Decimal places for a number: its own, else what 3 significant digits of `value` need (0 to 4)."""
    own = number_of(name).decimals
    if own is not None:
        return own
    if value == 0 or not math.isfinite(value):
        return 2
    return min(4, max(0, 2 - math.floor(math.log10(abs(value)))))


def number(value: float | None, places: int) -> str:
    """A number with so many decimals, in powers of ten where they would show none of it; None is a dash."""
    if value is None:
        return MISSING
    if value != 0 and abs(value) < 0.5 * 10**-places:
        return f"{value:.2g}"
    return f"{value:.{places}f}"


def measured(name: str, metric: Summary | None) -> str:
    """A metric of final.json as "mean ± std (n)": n seeds have a value; no spread for one seed, a dash for none."""
    if metric is None or metric["mean"] is None:
        return MISSING
    n = sum(value is not None for value in metric["per_seed"])
    places = decimals(name, metric["mean"])
    spread = "" if metric["std"] is None else f" ± {number(metric['std'], places)}"
    return f"{number(metric['mean'], places)}{spread} ({n})"


def headed(name: str) -> str:
    """A number's full name with its unit, as it stands over a column or a curve."""
    unit = number_of(name).unit
    return f"{name} ({unit})" if unit else name


class Name(NamedTuple):
    """The parts of a full name, fid_net-3f_ref=test_n=100_temperature=0.5."""

    number: str  # fid
    made: str  # net-3f_ref=test_n=100
    settings: str  # of the sampler, where they are not the default: temperature=0.5


def parsed(full_name: str) -> Name:
    """A full name in its parts; what begins with no known number is all `number`."""
    number = number_name(full_name)
    rest = full_name[len(number) + 1 :]
    if counted := re.fullmatch(r"((?:.*?_)?n=\d+)_(.+)", rest):
        return Name(number, counted[1], counted[2])
    if "=" in rest and not re.search(r"(^|_)(ref|n)=", rest):
        return Name(number, "", rest)
    return Name(number, rest, "")


def matching(metric: str, names: Iterable[str]) -> list[str]:
    """The full names of a metric: its own, or those that go on with the features and numbers it was made with.

    Settings of the sampler make another metric, which is asked for with them: fid_temperature=0.5. A word that is no
    number's name is the beginning of some: copying is copying_labelled and copying_unlabelled.
    """
    wanted = parsed(metric)
    known = wanted.number in NUMBERS and not wanted.made

    def asked(name: str) -> bool:
        found = parsed(name)
        if known:
            return found._replace(made="") == wanted and MADE.fullmatch(found.made) is not None
        return name.startswith(f"{metric}_") and MADE.fullmatch(name[len(metric) + 1 :]) is not None

    return [name for name in names if name == metric or asked(name)]


def undone(name: str, reason: str) -> str:
    """Why a metric, or a picture, of a finished run is missing."""
    return f"{name} could not be {'drawn' if name.endswith('.png') else 'measured'}: {reason}"


def operations(pflop: float | None) -> str:
    """10^15 operations in 3 digits: '0.302', '12.5', '4.1e-06'; None is a dash."""
    return MISSING if pflop is None else f"{pflop:.3g}"


def duration(seconds: float) -> str:
    """seconds -> '0.4 s', '21 s', '3 min 20 s', '2 h 05 min'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _cells(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[list[list[str]], list[bool]]:
    """All lines as text without line breaks, and which columns hold numbers; raises ValueError for ragged rows."""
    lines = [[MISSING if cell is None else " ".join(str(cell).split()) for cell in row] for row in (headers, *rows)]
    if any(len(line) != len(headers) for line in lines):
        raise ValueError("every row of a table needs one cell a header")
    numeric = [
        all(cell == MISSING or NUMBER.fullmatch(cell) for cell in column) for column in zip(*lines[1:], strict=True)
    ]
    return lines, numeric if rows else [False] * len(headers)


def text_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned plain text, numbers to the right, ending without a newline; raises ValueError for ragged rows."""
    lines, numeric = _cells(headers, rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    aligned = (
        [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ]
        for line in lines
    )
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A markdown table, numbers to the right, ending without a newline; raises ValueError for ragged rows."""
    lines, numeric = _cells(headers, rows)
    lines = [[cell.replace("\\", "\\\\").replace("|", "\\|") for cell in line] for line in lines]
    lines.insert(1, ["---:" if right else "---" for right in numeric])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def html_table(headers: Sequence[str], rows: Sequence[Sequence[Any]], css: str = "") -> str:
    """An HTML table in a box of its own that scrolls, text escaped; raises ValueError for ragged rows."""
    lines, numeric = _cells(headers, rows)

    def shown(tag: str, cell: str, right: bool) -> str:
        long = len(cell) > LONG and "_" in cell and not (right and tag == "td")
        css = " ".join(["n"] * right + ["long"] * long)
        text = html.escape(cell).replace("_", "_<wbr>") if long else html.escape(cell)
        return f'<{tag} class="{css}">{text}</{tag}>' if css else f"<{tag}>{text}</{tag}>"

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(shown(tag, cell, right) for cell, right in zip(cells, numeric, strict=True))

    body = "".join(f"<tr>{line('td', cells)}</tr>" for cells in lines[1:])
    head = f"<thead><tr>{line('th', lines[0])}</tr></thead>"
    return f'<div class="scroll"><table class="{css}">{head}<tbody>{body}</tbody></table></div>'
