"""Do generated images look real, and are all real ones generated? Shares of images within each other's neighbourhoods.

Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models", arXiv:1904.06991;
Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models", arXiv:2002.09797.

With B(x) the ball around x of a radius r(x), the distance to the k-th nearest other of its own side, real x_1..x_N and
generated y_1..y_M:

    precision = 1 / M     sum_j [y_j in some B(x_i)]        recall   = 1 / N sum_i [x_i in some B(y_j)]
    density   = 1 / (k M) sum_j sum_i [y_j in B(x_i)]       coverage = 1 / N sum_i [some y_j in B(x_i)]
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssl_gen.metrics.checks import check_features, check_real
from ssl_gen.metrics.metric import Evaluated, Metric, Number
from ssl_gen.metrics.neighbours import kth_distance, squared_distances
from ssl_gen.types import UserError

NEIGHBOURS = 5  # k; Naeem et al. 2020
TIE = 1e-9  # a part of a squared radius beyond what rounding moves, so that a tie is one in any order of rows; ours


class Manifold(NamedTuple):
    """How two sets of images overlap; fractions in [0, 1] but for density, which may exceed 1."""

    precision: float  # of the generated: those within a real neighbourhood
    recall: float  # of the real: those within a generated neighbourhood
    density: float  # real neighbourhoods a generated image lies in, over k; 1 where both sides are alike
    coverage: float  # of the real: those with a generated image in their neighbourhood


def prdc(real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS) -> Manifold:
    """Precision, recall, density and coverage of generated images, from features real (N, F) and fake (M, F).

    Balls are open, as in the package `prdc` of Naeem et al., whose k is 5; those of Kynkäänniemi et al. are closed, and
    their k is 3. Raises UserError for k below 1, fewer than k + 1
    samples on a side, and features that are not finite or not equally wide.
    """
    if k < 1:
        raise UserError(f"k is {k}: a neighbourhood needs at least 1 neighbour")
    check_features(k + 1, real, fake)
    real_limits, fake_limits = ((1 - TIE) * kth_distance(side, k) ** 2 for side in (real, fake))
    pairs, recalled, covered, precise = 0, 0, 0, np.zeros(len(fake), bool)
    for rows, squares in squared_distances(real, fake):
        recalled += (squares < fake_limits).any(1).sum()
        inside = squares < real_limits[rows, None]
        pairs += inside.sum()
        covered += inside.any(1).sum()
        precise |= inside.any(0)
    of_real, of_fake = len(real), len(fake)
    shares = precise.mean(), recalled / of_real, pairs / (k * of_fake), covered / of_real
    return Manifold(*map(float, shares))


def measure(replica: Evaluated) -> dict[str, float]:
    """Precision, recall, density, coverage."""
    check_real(replica, NEIGHBOURS + 1)
    found = prdc(replica.reference_features, replica.features, NEIGHBOURS)
    return {replica.on_features(name): value for name, value in found._asdict().items()}


PRDC = Metric(
    "precision, recall, density and coverage of samples, 5 nearest neighbours (0 to 1)",
    ("sample",),
    measure,
    {
        "precision": Number(better="higher", short="precision"),
        "recall": Number(better="higher", short="recall"),
        "density": Number(better="higher", short="density"),
        "coverage": Number(better="higher", short="coverage", column=7),
    },
)
