"""Curves over training steps as inline SVG: a line for the mean over seeds, a band from their lowest to their highest.

The SVG has no fixed width: positions along x are percentages and text keeps its size, so that one picture serves a wide
page and a telephone. Colours are CSS classes (`style.py`), so that it also serves a dark page.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

POINTS = 240  # a curve with more points than this is thinned
LOG_RATIO = 100  # ours: positive values that span more than this are drawn on a logarithmic axis
WIDTH = 1000  # units across the inner SVG, stretched to whatever width there is


class Line(NamedTuple):
    """One curve with its band; all four arrays (T,)."""

    name: str
    css: str  # class of the stroke and the band
    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Axis(NamedTuple):
    """The vertical axis: its range, on a logarithmic scale or not, and its ticks."""

    low: float
    high: float
    log: bool
    ticks: list[tuple[float, str]]  # value, text

    def place(self, values: np.ndarray | float) -> np.ndarray:
        """values -> heights in 0 (bottom) .. 1 (top)."""
        if self.log:
            return (np.log10(values) - np.log10(self.low)) / (np.log10(self.high) - np.log10(self.low))
        return (np.asarray(values) - self.low) / (self.high - self.low)


def line(name: str, css: str, steps: np.ndarray, values: np.ndarray, points: int = POINTS) -> Line | None:
    """steps (T,), values (S, T) -> mean, minimum and maximum over the seeds that have a finite value at a step.

    More than `points` steps are put together in equal groups: the mean of the means at the last step of the group, and
    the extremes of the extremes, so that no spike is lost. None where no value is finite.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    some = ~np.isnan(values).all(axis=0)
    steps, values = steps[some], values[:, some]
    if not len(steps):
        return None
    mean, low, high = np.nanmean(values, axis=0), np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    if len(steps) > points:
        starts = np.arange(points) * len(steps) // points
        ends = np.append(starts[1:], len(steps))
        mean = np.add.reduceat(mean, starts) / (ends - starts)
        low, high, steps = np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts), steps[ends - 1]
    return Line(name, css, steps, mean, low, high)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) within [low, high], at most `about` + 1 of them."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    size = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9)
    return [float(f"{number * size:.10g}") for number in range(first, last + 1)]


def short(value: float) -> str:
    """A number for a tick: 20000 -> '20k', 1500000 -> '1.5M', 0.25 -> '0.25', 0.00001 -> '1e-5'."""
    for unit, size in (("M", 1e6), ("k", 1e4)):
        if abs(value) >= size and abs(value) < 1e9:
            return f"{value / (1e6 if unit == 'M' else 1e3):.4g}{unit}"
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e9):
        mantissa, exponent = f"{value:.3g}".split("e") if "e" in f"{value:.3g}" else f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


def axis(lines: Sequence[Line], from_zero: bool, log_ratio: float = LOG_RATIO) -> Axis:
    """The vertical axis of some curves: from zero where asked, logarithmic where positive values span widely."""
    low, high = min(float(each.low.min()) for each in lines), max(float(each.high.max()) for each in lines)
    if not from_zero and low > 0 and high / low > log_ratio:
        first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
        every = max(1, math.ceil((last - first + 1) / 5))
        values = [10.0**power for power in range(first, last + 1, every)]
        if len(values) < 3:
            between = (float(f"{m}e{power}") for power in range(first - 1, last + 1) for m in (1, 2, 5))
            values = [value for value in between if low <= value <= high]
        return Axis(low, high, True, [(value, short(value)) for value in values])
    low = min(low, 0.0) if from_zero else low
    pad = 0.05 * (high - low) if high > low else max(abs(high), 1.0) * 0.05
    low, high = (low if from_zero else low - pad), high + pad
    return Axis(low, high, False, [(value, short(value)) for value in ticks(low, high)])


def _points(x: np.ndarray, y: np.ndarray) -> str:
    """x (T,), y (T,) in units of the inner SVG -> 'x,y x,y ...'."""
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _drawn(each: Line, vertical: Axis, last_step: float, height: int) -> str:
    """A band and its line; a single point becomes a dot of the line's own width."""
    x = each.steps / last_step * WIDTH
    mean, low, high = (height * (1 - vertical.place(values)) for values in (each.mean, each.low, each.high))
    band = ""
    if not np.array_equal(each.low, each.high):
        outline = _points(np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]]))
        band = f'<polygon class="band {each.css}" points="{outline}"/>'
    if len(x) == 1:
        x, mean = np.repeat(x, 2), np.repeat(mean, 2)
    return f'{band}<polyline class="line {each.css}" points="{_points(x, mean)}"/>'


def _frame(vertical: Axis, last_step: float, height: int) -> str:
    """Grid lines and tick labels: x in percent, y in pixels."""
    parts = []
    for value, text in vertical.ticks:
        y = height * (1 - float(vertical.place(value)))
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="-8" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for step in ticks(0, last_step):
        parts.append(
            f'<text x="{100 * step / last_step:.2f}%" y="{height + 18}" text-anchor="middle">{short(step)}</text>'
        )
    return "".join(parts)


def _rules(boundaries: Sequence[int], last_step: float, height: int) -> str:
    """A dashed rule at each of these steps."""
    places = [f"{100 * step / last_step:.2f}%" for step in boundaries if step < last_step]
    return "".join(f'<line class="boundary" x1="{x}" x2="{x}" y1="0" y2="{height}"/>' for x in places)


def chart(
    lines: Sequence[Line], described: str, height: int, boundaries: Sequence[int] = (), from_zero: bool = False
) -> str:
    """Curves -> one SVG `height` pixels high, with a dashed rule at each step in `boundaries`.

    `described` is what a screen reader says of it; the vertical axis starts `from_zero` or where the curves do.
    """
    vertical = axis(lines, from_zero)
    last_step = float(max([each.steps.max() for each in lines] + [1]))
    drawn = "".join(_drawn(each, vertical, last_step, height) for each in lines)
    return (
        f'<div class="plot"><svg role="img" aria-label="{html.escape(described)}" width="100%" height="{height}">'
        f"{_frame(vertical, last_step, height)}{_rules(boundaries, last_step, height)}"
        f'<svg viewBox="0 0 {WIDTH} {height}" preserveAspectRatio="none" width="100%" height="{height}">{drawn}</svg>'
        f"</svg></div>"
    )
