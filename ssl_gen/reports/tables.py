"""Records -> tables: aligned text for a terminal, markdown for a README, HTML for the report.

What is missing is a dash, never a zero.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssl_gen.metrics import statistics

MISSING = "-"
LONGER = ("infinity", "standard_error", "and_labelled")  # a metric's name goes on so in the name of another metric
# A cell that is one, with its spread, interval, count or unit; no hash, no version, no "2 cores".
NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?( ([±\[(]|to |s$|min |h ).*)?")
LONG = 24  # letters; on a page a longer name may go on in a next line after each _; ours


def decimals(name: str, value: float) -> int:
    """Decimal places for a metric: 2 for errors in percent, else what 3 significant digits of `value` need (0 to 4)."""
    if name == "error" or name.startswith("error_"):
        return 2
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


def measured(name: str, metric: Mapping[str, Any] | None) -> str:
    """A metric of final.json as "mean ± std (n)": n seeds have a value; no spread for one seed, a dash for none."""
    if metric is None or metric["mean"] is None:
        return MISSING
    n = sum(value is not None for value in metric["per_seed"])
    places = decimals(name, metric["mean"])
    spread = "" if metric["std"] is None else f" ± {number(metric['std'], places)}"
    return f"{number(metric['mean'], places)}{spread} ({n})"


def matching(metric: str, names: Iterable[str]) -> list[str]:
    """The full names of a metric: its own, or those that go on with the features and numbers it was made with."""
    pattern = re.compile(rf"{re.escape(metric)}_(?!(?:{'|'.join(LONGER)})_)(.*n=)?\d+")
    return [name for name in names if name == metric or pattern.fullmatch(name)]


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


def difference(run: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    """The paired difference in error, "-1.20 [-2.31, -0.09]" in points; raises ValueError for other masks.

    A run with another number of labels (a ceiling) has no pair: its cell is empty.
    """
    if run["labels"] != baseline["labels"]:
        return MISSING
    if run["masks"] != baseline["masks"]:
        raise ValueError(
            f"{run['method']} and {baseline['method']} were not trained on the same label masks (their hashes differ): "
            "a paired difference needs the same data, labels and seeds; compare them without a baseline"
        )
    if run is baseline or "error" not in run["metrics"] or "error" not in baseline["metrics"]:
        return MISSING
    result = statistics.paired(run["metrics"]["error"]["per_seed"], baseline["metrics"]["error"]["per_seed"])
    if result["difference"] is None:
        return MISSING
    interval = "" if result["ci95"] is None else " [{:+.2f}, {:+.2f}]".format(*result["ci95"])
    return f"{result['difference']:+.2f}{interval}"


def comparison(
    runs: Sequence[Mapping[str, Any]], baseline: int | None = None, metrics: Sequence[str] = ()
) -> tuple[list[str], list[list[str]]]:
    """Headers and rows that compare finished runs: method, labels, error, difference, other metrics, time, report.

    `runs` are objects of final.json (`records.finished`), which may carry `report`, the path of their page. With
    `baseline`, a row number, every row shows its paired difference in error to that row, with the 95 % t interval over
    the masks they share. Raises ValueError where the masks' hashes differ though the number of labels does not.
    """
    mixed = len({run["dataset"] for run in runs}) > 1
    headers = ["method", *(["dataset"] if mixed else []), "labels", "error (%)"]
    if baseline is not None:
        headers.append(f"error - {runs[baseline]['method']} [95 %]")
    headers += [*metrics, "time", "report"]
    rows = []
    for run in runs:
        row = [run["method"], *([run["dataset"]] if mixed else []), str(run["labels"])]
        found = run["metrics"]
        row.append(measured("error", found.get("error")))
        if baseline is not None:
            row.append(difference(run, runs[baseline]))
        row += [measured(name, found.get(name)) for name in metrics]
        row.append(duration(run["seconds"]))
        row.append(str(run.get("report") or MISSING))
        rows.append(row)
    return headers, rows


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
