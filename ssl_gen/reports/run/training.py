"""Curves of a run: what was measured during training, and every number that training itself logged."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence

from ssl_gen.reports import tables
from ssl_gen.reports.charts import curves
from ssl_gen.reports.run_folder import Run, curve, names

# where a measurement was made -> class of its curve; samples have no second split to be told from
SPLITS = {"test": "first", "validation": "second", "samples": "first"}


def _boundaries(run: Run) -> list[int]:
    """The steps at which one phase of training ends and the next begins."""
    return list(itertools.accumulate(phase.steps for phase in run.record.phases))[:-1]


def _legend(run: Run, lines: Sequence[curves.Line]) -> str:
    """What line, band and rules are, in words; each only where there is one."""
    parts = ["One seed, so no band."]
    if any((each.low != each.high).any() for each in lines):
        parts = ["Line: mean over seeds. Band: lowest to highest seed, each step over the seeds that reached it."]
    phases = itertools.pairwise(phase.name for phase in run.record.phases)
    for step, (before, after) in zip(_boundaries(run), phases, strict=True):
        parts.append(f"Dashed rule at step {step:,}: {before} ends, {after} begins.")
    return html.escape(" ".join(parts))


def evaluations(run: Run) -> str:
    """Curves of whatever was measured during training: the error large, other numbers beside each other."""
    found: dict[str, list[curves.Line]] = {}
    for name in names(run.lines):
        split, _, metric = name.partition("/")
        if split in SPLITS and metric:
            line = curves.line(split, SPLITS[split], *curve(run.lines, name))
            found.setdefault(metric, []).extend([] if line is None else [line])
    found = {metric: lines for metric, lines in found.items() if lines}
    if not found:
        return ""
    parts = ["<h2>During training</h2>"]
    if "error" in found:
        lines = found.pop("error")
        keys = "".join(_key(line) for line in lines)
        picture = curves.chart(lines, "error in percent over training steps", 280, _boundaries(run), from_zero=True)
        parts.append(f"<figure><figcaption>Error (%) over training steps</figcaption><div>{keys}</div>{picture}")
        parts.append(f"<figcaption>{_legend(run, lines)}</figcaption></figure>")
    multiples = []
    for metric, lines in found.items():
        keys = "".join(_key(line) for line in lines)
        picture = curves.chart(lines, f"{metric} over training steps", 130, _boundaries(run))
        caption = f"<figcaption><b>{html.escape(tables.headed(metric))}</b><span>{keys}</span></figcaption>"
        multiples.append(f"<figure>{caption}{picture}</figure>")
    return "".join(parts) + (f'<div class="multiples">{"".join(multiples)}</div>' if multiples else "")


def _key(line: curves.Line) -> str:
    """One entry of a legend: a piece of the line and its name."""
    swatch = f'<svg aria-hidden="true"><line class="line {line.css}" x1="1" x2="33" y1="5" y2="5"/></svg>'
    return f'<span class="key">{swatch}{html.escape(line.name)}</span>'


def losses(run: Run) -> str:
    """Small curves of every number that training logged, by player."""
    players: dict[str, list[str]] = {}
    lines: list[curves.Line] = []
    for name in names(run.lines):
        player, _, term = name.rpartition("/")
        if name.partition("/")[0] in SPLITS:
            continue
        line = curves.line(name, "first", *curve(run.lines, name), points=120)
        if line is None:
            continue
        lines.append(line)
        picture = curves.chart([line], f"{name} over training steps", 120, _boundaries(run))
        caption = f"<b>{html.escape(term)}</b><span>last {curves.short(float(line.mean[-1]))}</span>"
        players.setdefault(player, []).append(f"<figure><figcaption>{caption}</figcaption>{picture}</figure>")
    if not players:
        return ""
    parts = [
        "<h2>Losses</h2>",
        f'<p class="soft">{_legend(run, lines)} An axis that counts in powers of ten is logarithmic.</p>',
    ]
    for player, figures in players.items():
        parts.append(f'<h3>{html.escape(player or "step")}</h3><div class="multiples">{"".join(figures)}</div>')
    return "".join(parts)
