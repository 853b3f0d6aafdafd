"""Fréchet distances between Gaussians fitted to features: FID, its mean over classes, its limit for many samples.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
arXiv:1706.08500, eq. 6; with means mu and covariances A, B:

    FID = |mu_A - mu_B|^2 + tr A + tr B - 2 tr (A B)^(1/2)

With B = L L^T the last trace is the sum of the roots of the eigenvalues of L^T A L (Cholesky). A root doubles the
rounding of an eigenvalue near 0, so where a covariance is singular (fewer samples than features) it is instead the sum
of the singular values of M^T L, with A = M M^T and B = L L^T by Cholesky with pivots, which stops at the rank: as exact
as eigenvectors and several times faster. Equal sets are at distance 0 either way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy import linalg
from scipy.linalg import blas, lapack

from ssl_gen.metrics.checks import check_features, check_real
from ssl_gen.metrics.metric import Evaluated, Metric, Number
from ssl_gen.types import UserError

FEWEST = 10  # real images: the spread of fewer says nothing of the rest; ours
ROWS = 250  # of features taken at a time
REGULAR = 1e-10  # least ratio of the smallest to the largest pivot for which a covariance counts as regular; ours


class Gaussian(NamedTuple):
    """The moments of features, float64."""

    mean: np.ndarray  # (F,)
    covariance: np.ndarray  # (F, F), divided by count - 1
    samples: int


def gaussian(batches: Iterable[np.ndarray]) -> Gaussian:
    """The moments of features that come in batches (B, F), of which one at a time is held.

    Raises UserError for features that are NaN or infinite, for widths that differ and for fewer than 2 samples in all.
    """
    count = 0
    for state in _running(batches):
        count, mean, scatter = state
    if count < 2:
        raise UserError(f"{count} samples are too few: a covariance needs at least 2; draw more")
    scatter /= count - 1
    return Gaussian(mean, _mirrored(scatter), count)


def _running(batches: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """After each batch (B, F): samples so far, their mean (F,) and their scatter (F, F) about it.

    The scatter is an upper triangle, and the next batch overwrites it.
    """
    count, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
    for whole in batches:
        check_features(1, whole, *([mean[None]] if count else []))
        if not count:
            mean, scatter = np.zeros(whole.shape[1]), np.zeros((whole.shape[1], whole.shape[1]), order="F")
        for start in range(0, len(whole), ROWS):
            batch = whole[start : start + ROWS].astype(np.float64)
            new, total = len(batch), count + len(batch)
            shift = batch.mean(0) - mean
            batch -= mean + shift
            # Chan, Golub and LeVeque 1983: sums about each batch's own mean lose no digits.
            scatter = blas.dsyrk(1.0, batch.T, 1.0, scatter, overwrite_c=True)
            scatter = blas.dsyr(count * new / total, shift, a=scatter, overwrite_a=True)
            mean, count = mean + shift * (new / total), total
        yield count, mean, scatter


def _mirrored(matrix: np.ndarray) -> np.ndarray:
    """The symmetric matrix (F, F) of an upper triangle, in its place."""
    for column in range(len(matrix) - 1):
        matrix[column + 1 :, column] = matrix[column, column + 1 :]
    return matrix


def distance(a: Gaussian, b: Gaussian) -> float:
    """Between two Gaussians, squared units of the features, never below 0; raises UserError for widths that differ.

    It holds at most three matrices (F, F) beside its inputs.
    """
    check_features(1, a.mean[None], b.mean[None])
    return _distance(a._replace(covariance=np.array(a.covariance, order="F")), b.mean, _factor(b))


def _distance(a: Gaussian, mean: np.ndarray, factor: np.ndarray) -> float:
    """To a Gaussian given by its mean (F,) and the factor of its covariance; that of `a` is overwritten."""
    spread = float(np.trace(a.covariance)) + float(np.linalg.norm(factor)) ** 2
    if factor.shape[0] == factor.shape[1] < a.samples:
        product = blas.dtrmm(1.0, factor, a.covariance, side=1, lower=1, overwrite_b=True)
        product = blas.dtrmm(1.0, factor, product, side=0, lower=1, trans_a=1, overwrite_b=True)
        values = linalg.eigh(product, eigvals_only=True, driver="evr", overwrite_a=True, check_finite=False)
        root = np.sqrt(np.maximum(values, 0)).sum()
    else:
        product = (factor.T @ _pivoted(a.covariance, overwrite=True)).T  # Fortran order: LAPACK overwrites it
        root = linalg.svd(product, compute_uv=False, overwrite_a=True, check_finite=False).sum()
    return max(float(np.square(a.mean - mean).sum() + spread - 2 * root), 0.0)


def _factor(b: Gaussian) -> np.ndarray:
    """L with L L^T = the covariance: triangular (F, F) where that is regular, else (F, r) with r < F, its rank."""
    if b.samples > len(b.mean):
        try:
            factor = linalg.cholesky(b.covariance, lower=True, check_finite=False)
        except linalg.LinAlgError:
            return _pivoted(b.covariance)
        pivots = np.square(np.diag(factor))
        if pivots.min() > REGULAR * pivots.max():
            return factor
    return _pivoted(b.covariance)


def _pivoted(covariance: np.ndarray, overwrite: bool = False) -> np.ndarray:
    """L (F, r) with L L^T = covariance and r its rank, in a matrix (F, F) that may be the covariance's own.

    What is left of the diagonal when it falls to F epsilon of its maximum (LAPACK's default) is rounding, and dropped.
    """
    lower, pivots, rank, _ = lapack.dpstrf(covariance, lower=True, overwrite_a=overwrite)
    order = np.argsort(pivots)
    for column in range(rank):
        lower[:column, column] = 0  # LAPACK leaves the other triangle as it was
        lower[:, column] = lower[order, column]
    return lower[:, :rank]


def fid(a: np.ndarray, b: np.ndarray) -> float:
    """Of features a (N, F) and b (M, F), squared units of the features, never below 0.

    Raises UserError for features that are NaN or infinite, for widths that differ and for fewer than 2 samples.
    """
    check_features(2, a, b)
    second = gaussian([b])
    mean, factor = second.mean, _factor(second)
    del second  # or three matrices would be held while the other moments are taken
    return _distance(gaussian([a]), mean, factor)


def intra_fid(a: np.ndarray, a_labels: np.ndarray, b: np.ndarray, b_labels: np.ndarray, classes: int) -> float:
    """The mean over classes of each one's FID, of features a (N, F), b (M, F) and their labels (N,), (M,).

    Samples of no class in 0..classes - 1 take no part. Raises UserError where a class has fewer than 2 samples on
    either side, where labels are missing, and as `fid` does. Source: Miyato and Koyama 2018, arXiv:1802.05637, sec. 5.
    """
    for features, labels in ((a, a_labels), (b, b_labels)):
        if len(features) != len(labels):
            raise UserError(f"{len(features)} samples have {len(labels)} labels: give one label for each sample")
    rows = [(np.flatnonzero(a_labels == k), np.flatnonzero(b_labels == k)) for k in range(classes)]
    for k, (ours, theirs) in enumerate(rows):
        if min(len(ours), len(theirs)) < 2:
            counts = f"{len(ours)} and {len(theirs)} samples"
            raise UserError(f"class {k} has {counts}: FID by class needs at least 2 on each side; draw more")
    return float(np.mean([fid(a[ours], b[theirs]) for ours, theirs in rows]))


def fid_infinity(
    features: np.ndarray, reference: Gaussian, seed: int = 0, points: int = 15, least: int | None = None
) -> float:
    """FID of features (N, F) to a reference, extrapolated to infinitely many samples: it may fall below 0.

    A line over 1 / n is fitted to the FID of nested random subsets of n samples, n evenly spaced from `least` (N / 10,
    and 2 or more) to N. The reference stays as it is, with what its own number of samples does to the distance. Raises
    UserError for fewer than `least` + `points` - 1 samples, and as `fid` does. Source: Chong and Forsyth 2020,
    arXiv:1911.07023, sec. 4; its 15 points are from 5,000 to 50,000 samples.
    """
    least = max(len(features) // 10, 2) if least is None else least
    if min(points, least) < 2:
        raise UserError(f"{points} subsets of {least} samples and more give no line: both must be 2 or more")
    check_features(least + points - 1, features)
    check_features(1, features[:1], reference.mean[None])
    sizes = np.linspace(least, len(features), points).astype(int)
    order = np.random.default_rng(seed).permutation(len(features))
    factor = _factor(reference)
    distances = []
    for count, mean, scatter in _running(features[rows] for rows in np.split(order, sizes[:-1])):
        subset = Gaussian(mean, _mirrored(scatter / (count - 1)), count)
        distances.append(_distance(subset, reference.mean, factor))
    _, limit = np.polyfit(1 / sizes, distances, 1)
    return float(limit)


def measure_fid(replica: Evaluated) -> dict[str, float]:
    """Against the moments of the real images, which all replicas share."""
    check_real(replica, FEWEST)
    value = distance(gaussian([replica.features]), replica.reference_gaussian)
    return {replica.on_features("fid"): value}


def measure_fid_infinity(replica: Evaluated) -> dict[str, float]:
    """Against the same moments."""
    check_real(replica, FEWEST)
    value = fid_infinity(replica.features, replica.reference_gaussian, replica.seed)
    return {replica.on_features("fid_infinity"): value}


def measure_intra_fid(replica: Evaluated) -> dict[str, float]:
    """By the classes asked for and those of the real images."""
    real, labels = replica.reference_features, replica.reference_labels
    value = intra_fid(replica.features, replica.many_labels, real, labels, replica.classes)
    return {replica.on_features("intra_fid"): value}


FID = Metric(
    "Fréchet distance of samples to real images, on the features in its name; that of papers only on Inception's",
    ("sample",),
    measure_fid,
    {"fid": Number(better="lower", short="fid", column=5)},
)
FID_INFINITY = Metric(
    "FID extrapolated to infinitely many samples",
    ("sample",),
    measure_fid_infinity,
    {"fid_infinity": Number(better="lower")},
)
INTRA_FID = Metric(
    "mean over classes of each one's FID",
    ("sample", "conditional"),
    measure_intra_fid,
    {"intra_fid": Number(better="lower")},
    usual=False,
)
