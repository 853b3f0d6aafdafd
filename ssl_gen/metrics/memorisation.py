"""Are generated images copies of training images? Their distances to the nearest one, beside those of held-out images.

Meehan, Chaudhuri and Dasgupta 2020, "A Non-Parametric Test to Detect Data-Copying in Generative Models",
arXiv:2004.05675, sec. 4. A cell pi of the feature space has training rows T, P held-out rows and M samples;
d(x) is the distance to the nearest row of T in the same cell, and over all pairs within the cell

    U   = #[d(sample) > d(held-out)] + #[d(sample) = d(held-out)] / 2
    Z   = (U - M P / 2) / deviation of U where samples and held-out rows are alike
    C_T = sum_pi w(pi) Z(pi),   w: the share of held-out rows, renormalised over the cells that count

The cells are those of k-means on the training rows. A cell counts where it has at least 20 samples, the tau = 20 / M
of the authors' experiments, and a held-out row. Distances within a cell are those of the authors' code. Unlike there,
no continuity correction is made, and the deviation is the one corrected for ties:

    deviation^2 = M P / 12 (n + 1 - sum_t (t^3 - t) / (n (n - 1))),   n = M + P, t: how often each distance occurs
"""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans

from ssl_gen.metrics.checks import check_features
from ssl_gen.metrics.metric import Evaluated, Metric, Number
from ssl_gen.metrics.neighbours import nearest
from ssl_gen.types import UserError

CELLS = 5  # of the training images, for the C_T of a run; ours
FEWEST = 20  # samples of a cell that counts; Meehan et al. 2020, published experiments: tau = 20 / M


def z_score(samples: np.ndarray, held_out: np.ndarray) -> float:
    """The Mann-Whitney U of numbers samples (M,) over held_out (P,), in deviations from its mean under equality.

    Below 0 where samples are smaller; 0 where all numbers are equal. Source: Mann and Whitney 1947, with the correction
    for ties of Lehmann 1975, "Nonparametrics: Statistical Methods Based on Ranks", ch. 1.
    """
    ordered = np.sort(held_out)
    above = np.searchsorted(ordered, samples, "left").sum() + np.searchsorted(ordered, samples, "right").sum()
    times = np.unique(np.concatenate([samples, held_out]), return_counts=True)[1].astype(np.float64)
    n, pairs = len(samples) + len(held_out), len(samples) * len(held_out)
    if len(times) == 1:
        return 0.0
    variance = pairs / 12 * (n + 1 - (times**3 - times).sum() / (n * (n - 1)))
    return float((above - pairs) / 2 / np.sqrt(variance))


def copying(train: np.ndarray, held_out: np.ndarray, samples: np.ndarray, cells: int = 1, seed: int = 0) -> float:
    """C_T: how far samples lie from training rows beside held-out rows, in standard deviations, averaged over cells.

    Features train (N, F), held_out (P, F), samples (M, F); `cells` of k-means, which `seed` starts. Below about -3 the
    samples copy, above 3 they miss the data; more cells find copies of a part. Raises UserError for features that are
    not finite or not equally wide, for cells below 1 or above N, and where no cell counts.
    """
    check_features(1, train, held_out, samples)
    if not 1 <= cells <= len(train):
        raise UserError(f"cells is {cells}: choose from 1 to {len(train)}, the number of training images")
    sides = [np.asarray(side, np.float64) for side in (train, held_out, samples)]
    partition = KMeans(cells, random_state=seed).fit(sides[0])
    labels = [partition.predict(side) for side in sides]
    scores, weights = [], []
    for cell in range(cells):
        rows, expected, drawn = (side[label == cell] for side, label in zip(sides, labels, strict=True))
        if len(drawn) >= FEWEST and len(expected) and len(rows):
            scores.append(z_score(nearest(drawn, rows), nearest(expected, rows)))
            weights.append(len(expected))
    if not scores:
        what = f"none of {cells} cells has {FEWEST} of {len(samples)} samples and a held-out image"
        raise UserError(f"{what}: draw more samples or take fewer cells")
    return float(np.average(scores, weights=weights))


def nearest_ratio(train: np.ndarray, held_out: np.ndarray, samples: np.ndarray) -> float:
    """The median distance to the nearest training row, of samples over that of held-out rows.

    Features train (N, F), held_out (P, F), samples (M, F) -> 1 where samples are like new real images, 0 where most are
    copies. Raises UserError for features that are not finite or not equally wide, and where half of the held-out
    rows are training rows. Source: ours, after Meehan et al. 2020, arXiv:2004.05675.
    """
    check_features(1, train, held_out, samples)
    expected = np.median(nearest(held_out, train))
    if expected == 0:
        raise UserError("half of the held-out images are training images: hold out images that were not trained on")
    return float(np.median(nearest(samples, train)) / expected)


def measure(replica: Evaluated) -> dict[str, float]:
    """Are samples nearer to training images than new real images are? To the labelled ones, and to those of the pool.

    A labelled image that is in the pool as well counts as labelled alone; one that is neither is not counted. Without a
    test split new real images are the training images that are not among those in question, if there are any.
    """
    samples, found = replica.features, {}
    labelled = np.flatnonzero(replica.visible >= 0)
    for name, rows in (("labelled", labelled), ("unlabelled", np.setdiff1d(replica.pool, labelled))):
        tested = replica.split == "test"
        held_out = replica.reference_features if tested else np.delete(replica.train_features, rows, 0)
        if len(rows) and len(held_out):
            train = replica.train_features[rows]
            cells = CELLS if len(train) >= 100 * CELLS else 1
            found[replica.on_features(f"copying_{name}")] = copying(train, held_out, samples, cells)
            found[replica.on_features(f"nearest_ratio_{name}")] = nearest_ratio(train, held_out, samples)
    return found


COPYING = Metric(
    "C_T: below -3, samples are nearer to training images than new images are; and the ratio of median distances",
    ("sample",),
    measure,
    {
        "copying_labelled": Number(),
        "nearest_ratio_labelled": Number(),
        "copying_unlabelled": Number(),
        "nearest_ratio_unlabelled": Number(),
    },
)
