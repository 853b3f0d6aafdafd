"""A metric against the number of visible labels, or another number that runs differ by; one figure a metric.

A method is a curve with markers at the numbers of labels it was trained with, and a band from its lowest to its highest
mask. A run with all labels (a ceiling) is a horizontal rule from edge to edge. Colours are those of Okabe and Ito
(`scatter`); markers and dashes differ as well, so that no colour vision is needed. A method keeps its looks in all
figures of a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ImageFont

from ssl_gen.metrics.registry import number_of
from ssl_gen.metrics.statistics import Summary
from ssl_gen.reports import tables
from ssl_gen.reports.charts import curves, drawing, pictures, scatter
from ssl_gen.reports.charts.style import Colour

WIDTH, PLOT = 420, 260  # units, of the figure and of its plot's height; on a telephone it shrinks to some 350 pixels
SMALL, LARGE = 13, 15  # units, of text: with that it is 11 pixels or more on a telephone
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 34, 48  # units around the plot
ENTRY = 22  # units, height of a line of the legend
SAMPLE = 54  # units, what stands before a name in the legend
DASHES = ((), (8, 4), (2, 3), (10, 3, 2, 3))  # with seven colours and five shapes: no two of the first 140 are alike
RULES = ((6, 3), (2, 3), (12, 3, 2, 3, 2, 3), (1, 2))  # of all labels
MARKER = 4.5  # units, radius


class Point(NamedTuple):
    """One run in a figure."""

    name: str  # of its method: what its curve is called
    labels: float | str  # a number, of labels or what else it is drawn against; or "all"
    metrics: Mapping[str, Summary]  # by full name


class Looks(NamedTuple):
    """How a curve or a rule is drawn."""

    colour: Colour
    dashes: tuple[float, ...]
    corners: np.ndarray | None  # of the marker, around 0; None for a rule


class Figure(NamedTuple):
    """One metric: its curves, by number of labels, and its rules, which have one position each."""

    metric: str  # full name
    lines: list[curves.Line]  # steps are numbers of labels
    rules: list[curves.Line]
    shapes: list[drawing.Shape]
    size: tuple[int, int]
    against: str  # what lies along the axis

    @property
    def title(self) -> str:
        """What the figure shows, in words."""
        number = number_of(self.metric)
        unit = f" ({number.unit})" if number.from_zero else ""
        return f"{short(self.metric)}{unit} against {self.against}"


def short(metric: str) -> str:
    """A full name without features and counts, 'fid_net-3f_ref=test_n=100' -> 'fid', of a number that has a short one.

    Settings of the sampler stay: they make another metric.
    """
    name, settings = number_of(metric).short, tables.parsed(metric).settings
    return "_".join(filter(None, [name, settings])) if name else metric


def has_curves(points: Sequence[Point]) -> bool:
    """Was any method trained with two numbers of labels or more?"""
    counts: dict[str, set[float | str]] = {}
    for point in points:
        if point.labels != "all":
            counts.setdefault(point.name, set()).add(point.labels)
    return any(len(each) > 1 for each in counts.values())


def looks(points: Sequence[Point]) -> dict[tuple[str, bool], Looks]:
    """(name, is it a rule) -> how it is drawn, in the order of appearance."""
    found: dict[tuple[str, bool], Looks] = {}
    for point in points:
        key = point.name, point.labels == "all"
        if key not in found:
            number = sum(rule == key[1] for _, rule in found)
            if key[1]:
                found[key] = Looks(
                    scatter.SOFT if number // len(RULES) % 2 else scatter.INK, RULES[number % len(RULES)], None
                )
            else:
                colour, corners = scatter.symbol(number)
                found[key] = Looks(colour, DASHES[number % len(DASHES)], corners)
    return found


def _line(name: str, points: Sequence[Point], metric: str) -> curves.Line | None:
    """Mean, lowest and highest mask at each number of labels; None where there is no value."""
    values = {}
    for point in points:
        summary = point.metrics.get(metric)
        known = [value for value in summary["per_seed"] if value is not None] if summary is not None else []
        if known:
            values[point.labels] = (float(np.mean(known)), min(known), max(known))
    counts = sorted(values, key=_position)
    if not counts:
        return None
    positions = np.array([_position(labels) for labels in counts])
    return curves.Line(name, "", positions, *np.array([values[labels] for labels in counts]).T)


def _position(labels: float | str) -> float:
    """A number of labels on the axis of a line; a rule, which is of all labels, has no place on it."""
    return 0.0 if labels == "all" else float(labels)


def figure(
    points: Sequence[Point], metric: str, against: str = "visible labels", log_ratio: float = curves.LOG_RATIO
) -> Figure | None:
    """A metric of several runs, by its full name; None where no run with a number of labels has it.

    against: what the points' numbers are, in words; they are above 0. log_ratio: the largest value over the smallest,
    above which the metric's axis is logarithmic.
    """
    lines: list[curves.Line] = []
    rules: list[curves.Line] = []
    styles = looks(points)
    for name, of_all in styles:
        own = [point for point in points if point.name == name and (point.labels == "all") == of_all]
        found = _line(name, own, metric)
        if found is not None:
            (rules if of_all else lines).append(found)
    if not lines:
        return None
    vertical = curves.axis([*lines, *rules], from_zero=number_of(metric).from_zero, log_ratio=log_ratio)
    counts = sorted({float(count) for line in lines for count in line.steps})
    drawn = _frame(vertical, counts, metric, against)
    # Bands first, then rules, lines and markers: what is narrow stays on top.
    for line in lines:
        drawn += _band(line, vertical, counts, styles[line.name, False])
    for rule in rules:
        drawn += _rule(rule, vertical, styles[rule.name, True])
    for line in lines:
        drawn += _curve(line, vertical, counts, styles[line.name, False])
    named = {line.name for line in lines}
    entries = [(line.name, styles[line.name, False]) for line in lines]
    entries += [
        (f"{rule.name}{', all labels' if rule.name in named else ''}", styles[rule.name, True]) for rule in rules
    ]
    legend, height = _legend(entries)
    return Figure(metric, lines, rules, drawn + legend, (WIDTH, TOP + PLOT + BOTTOM + height), against)


def _across(labels: np.ndarray, counts: Sequence[float]) -> np.ndarray:
    """Numbers of labels -> x, on a logarithmic axis with a margin to each side."""
    low, high = np.log10(counts[0]), np.log10(counts[-1])
    inner = WIDTH - LEFT - RIGHT
    share = (np.log10(labels) - low) / (high - low) if high > low else np.full(np.shape(labels), 0.5)
    return LEFT + inner * (0.04 + 0.92 * share)


def _up(values: np.ndarray | float, vertical: curves.Axis) -> np.ndarray:
    """Values -> y."""
    return TOP + PLOT * (1 - vertical.place(values))


def _frame(vertical: curves.Axis, counts: Sequence[float], metric: str, against: str) -> list[drawing.Shape]:
    """Grid, ticks at the numbers of labels there are, and what the axes are."""
    right, foot = WIDTH - RIGHT, TOP + PLOT
    unit = number_of(metric).unit
    over = f"{short(metric)} ({unit})" if unit else short(metric)
    shapes: list[drawing.Shape] = [drawing.Text(LEFT, 18, over, scatter.INK, LARGE)]
    for value, text in vertical.ticks:
        y = float(_up(value, vertical))
        shapes.append(drawing.Stroke(np.array([[LEFT, y], [right, y]]), scatter.RULE, 1))
        shapes.append(drawing.Text(LEFT - 7, y + 4, text, scatter.SOFT, SMALL, "end"))
    shapes.append(drawing.Stroke(np.array([[LEFT, foot], [right, foot]]), scatter.SOFT, 1))
    last = -np.inf
    for count, x in zip(counts, _across(np.array(counts), counts), strict=True):
        shapes.append(drawing.Stroke(np.array([[x, foot], [x, foot + 4]]), scatter.SOFT, 1))
        if x - last >= 34:  # or the numbers would touch
            shapes.append(drawing.Text(float(x), foot + 18, curves.short(count), scatter.SOFT, SMALL, "middle"))
            last = x
    shapes.append(drawing.Text((LEFT + right) / 2, foot + 36, against, scatter.INK, LARGE, "middle"))
    return shapes


def _band(line: curves.Line, vertical: curves.Axis, counts: Sequence[float], style: Looks) -> list[drawing.Shape]:
    """From the lowest to the highest mask; a lone point has a bar instead."""
    x, low, high = _across(line.steps, counts), _up(line.low, vertical), _up(line.high, vertical)
    if len(x) == 1:
        return [drawing.Stroke(np.array([[x[0], low[0]], [x[0], high[0]]]), style.colour, 1)]
    outline = np.concatenate([np.stack([x, high], -1), np.stack([x, low], -1)[::-1]])
    return [drawing.Area(outline, style.colour, 0.14)]


def _curve(line: curves.Line, vertical: curves.Axis, counts: Sequence[float], style: Looks) -> list[drawing.Shape]:
    """The line of the means and a marker at each."""
    assert style.corners is not None  # a curve has markers
    places = np.stack([_across(line.steps, counts), _up(line.mean, vertical)], -1)
    shapes: list[drawing.Shape] = [drawing.Stroke(places, style.colour, 2, style.dashes)] if len(places) > 1 else []
    return shapes + [drawing.Area(place + MARKER * style.corners, style.colour) for place in places]


def _rule(rule: curves.Line, vertical: curves.Axis, style: Looks) -> list[drawing.Shape]:
    """A horizontal line at the mean, in a band from the lowest to the highest mask."""
    left, right = LEFT, WIDTH - RIGHT
    low, mean, high = (float(_up(each[0], vertical)) for each in (rule.low, rule.mean, rule.high))
    band = np.array([[left, low], [right, low], [right, high], [left, high]])
    line = np.array([[left, mean], [right, mean]])
    return [drawing.Area(band, style.colour, 0.08), drawing.Stroke(line, style.colour, 1.5, style.dashes)]


def _legend(entries: Sequence[tuple[str, Looks]]) -> tuple[list[drawing.Shape], int]:
    """Two columns below the plot, or one where a name is long, and their height."""
    shapes: list[drawing.Shape] = []
    # browsers' letters are up to a fifth wider than those measured
    longest = 1.2 * max(ImageFont.load_default(SMALL).getlength(name) for name, _ in entries)
    columns = 2 if longest <= (WIDTH - LEFT) // 2 - SAMPLE else 1
    column, rows = (WIDTH - LEFT) // columns, -(-len(entries) // columns)
    for number, (name, style) in enumerate(entries):
        x, y = LEFT + column * (number // rows), TOP + PLOT + BOTTOM + ENTRY * (number % rows) + 8
        shapes.append(drawing.Stroke(np.array([[x, y], [x + 40, y]]), style.colour, 2, style.dashes))
        if style.corners is not None:
            shapes.append(drawing.Area(np.array([x + 20, y]) + MARKER * style.corners, style.colour))
        text = pictures.cut(name, ImageFont.load_default(SMALL), (column - SAMPLE) / 1.2)
        shapes.append(drawing.Text(x + 48, y + 4, text, scatter.INK, SMALL))
    return shapes, ENTRY * rows + 6


def described(figure_: Figure) -> str:
    """The numbers of a figure in words, for who cannot see it."""
    said = []
    for line in (*figure_.lines, *figure_.rules):
        values = [
            f"{curves.short(mean)} at {'all' if count == 0 else f'{count:.10g}'}"
            for count, mean in zip(line.steps, line.mean, strict=True)
        ]
        said.append(f"{line.name}: {', '.join(values)}")
    return f"{figure_.title}. {'; '.join(said)}."


def save(figure_: Figure, path: Path) -> list[Path]:
    """Write PATH.svg and PATH.png, the former with its numbers in words, and return both."""
    return drawing.save(figure_.shapes, figure_.size, described(figure_), path)
