"""Kernel distance between features: KID, an unbiased estimate, so equal distributions score 0 on average.

Binkowski et al. 2018, "Demystifying MMD GANs", arXiv:1801.01401, sec. 4, with k(x, y) = (x.y / F + 1)^3:

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)      over pairs of different samples
"""

from __future__ import annotations

import numpy as np

from ssl_gen.metrics.checks import check_features
from ssl_gen.metrics.metric import Evaluated, Metric, Number
from ssl_gen.types import UserError

ROWS = 1_000  # and columns of a kernel matrix held at a time: 8 MB of it


def _sum(a: np.ndarray, b: np.ndarray) -> float:
    """The sum of k over all pairs of rows (N, F) and (M, F)."""
    total = 0.0
    for i in range(0, len(a), ROWS):
        x = np.asarray(a[i : i + ROWS], np.float64)
        for j in range(0, len(b), ROWS):
            kernel = x @ np.asarray(b[j : j + ROWS], np.float64).T
            kernel /= a.shape[1]
            kernel += 1
            total += float(np.vdot(np.square(kernel), kernel))  # numpy's ** 3 calls pow, many times slower
    return total


def _own(a: np.ndarray) -> float:
    """The mean of k over pairs of different rows (N, F)."""
    total = 0.0
    for start in range(0, len(a), ROWS):
        block = np.asarray(a[start : start + ROWS], np.float64)
        diagonal = np.square(block).sum(1) / a.shape[1] + 1
        total += _sum(block, block) + 2 * _sum(block, a[start + ROWS :]) - float((diagonal**3).sum())
    return total / (len(a) * (len(a) - 1))


def _unbiased(a: np.ndarray, b: np.ndarray) -> float:
    """`mmd` of features that were checked."""
    return _own(a) + _own(b) - 2 * _sum(a, b) / (len(a) * len(b))


def mmd(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased estimate of MMD^2 from all of features a (N, F) and b (M, F), without unit; it may fall below 0.

    Raises UserError for features that are NaN or infinite, for widths that differ and for fewer than 2 samples.
    """
    check_features(2, a, b)
    return _unbiased(a, b)


def kid(a: np.ndarray, b: np.ndarray, subsets: int = 100, size: int = 1_000, seed: int = 0) -> tuple[float, float]:
    """The mean of `mmd` over random subsets of features a (N, F) and b (M, F), and the standard error of that mean.

    `size` samples a subset, or as many as the smaller side has: subsets that are most of a side are nearly the same,
    and their standard error says nothing of other samples. Raises UserError for fewer than 2 subsets or samples in one,
    and as `mmd` does.
    """
    if min(subsets, size) < 2:
        raise UserError(f"{subsets} subsets of {size} samples have no standard error: both must be 2 or more")
    check_features(2, a, b)
    random, size = np.random.default_rng(seed), min(size, len(a), len(b))
    values = []
    for _ in range(subsets):
        x, y = (each[random.permutation(len(each))[:size]].astype(np.float64) for each in (a, b))
        values.append(_unbiased(x, y))
    return float(np.mean(values)), float(np.std(values, ddof=1) / subsets**0.5)


def measure(replica: Evaluated) -> dict[str, float]:
    """KID with its standard error over subsets."""
    value, error = kid(replica.features, replica.reference_features, seed=replica.seed)
    return {replica.on_features("kid"): value, replica.on_features("kid_standard_error"): error}


KID = Metric(
    "squared kernel distance of samples to real images, and its standard error",
    ("sample",),
    measure,
    {"kid": Number(better="lower", short="kid"), "kid_standard_error": Number()},
)
