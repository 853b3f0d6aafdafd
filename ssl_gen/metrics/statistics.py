"""Error bars: numbers of several seeds -> mean, standard deviation and 95 % interval, alone or in pairs.

All intervals are Student's t over seeds (Student 1908, "The probable error of a mean"): seeds are taken as independent
and their values as roughly normal. With five seeds it is 2.78 standard errors to each side, not 1.96.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from scipy.special import stdtrit  # the quantile of Student's t; importing scipy.stats takes ten times as long


class Summary(TypedDict):
    """A number of several seeds."""

    per_seed: list[float | None]  # None for a seed without a value
    mean: float | None
    std: float | None  # divides by n - 1; None where n < 2
    ci95: list[float] | None  # t interval of the mean; None where n < 2


class Paired(TypedDict):
    """A difference between two numbers over the same masks."""

    difference: float | None
    std: float | None
    ci95: list[float] | None
    n: int  # pairs


def _checked(values: Sequence[float | None]) -> list[float | None]:
    """values (S,) -> floats, None where a seed has no value; raises ValueError for NaN and infinities."""
    floats = [None if value is None else float(value) for value in values]
    for seed, value in enumerate(floats):
        if value is not None and not np.isfinite(value):
            raise ValueError(f"value {seed} is {value}: give None for a seed without a value")
    return floats


def _moments(values: Sequence[float]) -> tuple[float | None, float | None, list[float] | None]:
    """values (n,) -> mean, standard deviation (ddof 1), t interval; None for what n is too small for."""
    n = len(values)
    if n == 0:
        return None, None, None
    mean = float(np.mean(values))
    if n == 1:
        return mean, None, None
    std = float(np.std(values, ddof=1))
    half = float(stdtrit(n - 1, 0.975)) * std / n**0.5
    return mean, std, [mean - half, mean + half]


def alike(pairs: Paired) -> bool:
    """Do all of several pairs differ by the same, up to rounding?"""
    difference, std = pairs["difference"], pairs["std"]
    return difference is not None and std is not None and std <= 1e-9 * abs(difference)


def excludes_zero(pairs: Paired, comparisons: int = 1) -> bool:
    """Does the t interval of a difference exclude 0, at a level at which all of so many intervals hold at once?

    Each is then a 1 - 0.05 / comparisons interval, after Bonferroni; Dunn 1961, "Multiple comparisons among means".
    Where all pairs differ alike, as of few test images or of methods that seeds do not change, nothing tells.
    """
    if pairs["difference"] is None or pairs["std"] is None or alike(pairs):
        return False
    half = float(stdtrit(pairs["n"] - 1, 1 - 0.025 / comparisons)) * pairs["std"] / pairs["n"] ** 0.5
    return abs(pairs["difference"]) > half


def summary(values: Sequence[float | None]) -> Summary:
    """values (S,), None for a seed without one -> {"per_seed", "mean", "std", "ci95"}, ready for json.

    `std` divides by n - 1 and `ci95` is the t interval [low, high] of the mean, over the n seeds that have a value;
    both are None when n < 2, and so is the mean when n = 0. Raises ValueError for NaN and infinities.
    """
    per_seed = _checked(values)
    mean, std, ci95 = _moments([value for value in per_seed if value is not None])
    return {"per_seed": per_seed, "mean": mean, "std": std, "ci95": ci95}


def paired(a: Sequence[float | None], b: Sequence[float | None]) -> Paired:
    """a (S,) and b (S,) over the same masks -> {"difference", "std", "ci95", "n"} of a - b, ready for json.

    A pair with None on either side is left out, and n counts the others; `ci95` is the t interval of the mean
    difference (that of the paired t test), None like `std` when n < 2. Raises ValueError if the lengths differ, and for
    NaN and infinities.
    """
    if len(a) != len(b):
        raise ValueError(f"paired values must share their masks: {len(a)} against {len(b)} values")
    pairs = zip(_checked(a), _checked(b), strict=True)
    differences = [x - y for x, y in pairs if x is not None and y is not None]
    difference, std, ci95 = _moments(differences)
    return {"difference": difference, "std": std, "ci95": ci95, "n": len(differences)}
