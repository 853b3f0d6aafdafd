"""How likely a latent-variable model finds images: bounds on log p(x) from importance weights.

For samples z ~ q(z | x), log w = log p(x, z) - log q(z | x) is a log importance weight, and

    ELBO = E log w <= E log (1/S sum_s w_s) <= log p(x),

where the second, the importance-weighted bound, comes closer with every sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ssl_gen.metrics.metric import Evaluated, Metric, Number
from ssl_gen.types import UserError

DRAWS = 10  # draws of latents for the ELBO; ours
LATENTS = 5_000  # draws of latents for the importance-weighted bound; Burda et al. 2016, table 1


class Bounds(NamedTuple):
    """Two lower bounds on the log-likelihood of each image, from the same samples."""

    elbo: np.ndarray  # (B,) nats
    importance_weighted: np.ndarray  # (B,) nats, never below the ELBO


def elbo(log_weights: np.ndarray) -> np.ndarray:
    """The evidence lower bound, the mean of log weights (S, B) over samples -> (B,) nats in float64.

    Raises UserError for NaN, infinities and no sample. Source: Kingma and Welling 2014, arXiv:1312.6114, eq. 2.
    """
    return accumulate([log_weights]).elbo


def importance_weighted(log_weights: np.ndarray) -> np.ndarray:
    """The importance-weighted bound log (1/S sum_s w_s) of log weights (S, B) -> (B,) nats in float64.

    Raises UserError for NaN, infinities and no sample.
    Source: Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, sec. 3.
    """
    return accumulate([log_weights]).importance_weighted


def accumulate(chunks: Iterable[np.ndarray]) -> Bounds:
    """Both bounds from log weights (s, B) that come in chunks of samples of the same B images, one held at a time.

    Raises UserError for NaN, infinities, no sample, and chunks of different numbers of images.
    Source: as `elbo` and `importance_weighted`.
    """
    count, total, largest, mass = 0, np.zeros(()), np.full((), -np.inf), np.zeros(())
    for chunk in chunks:
        check_weights(chunk)
        if count and chunk.shape[1] != len(total):
            raise UserError(f"chunks of log weights must be of the same images: {len(total)} and {chunk.shape[1]}")
        chunk = chunk.astype(np.float64)
        before, largest = largest, np.maximum(largest, chunk.max(0))
        mass = mass * np.exp(before - largest) + np.exp(chunk - largest).sum(0)  # sum of w / exp(largest): in [1, S]
        total = total + chunk.sum(0)
        count += len(chunk)
    if not count:
        raise UserError("a bound on the likelihood needs at least one sample of log weights")
    return Bounds(total / count, largest + np.log(mass / count))


def bits_per_dimension(nats: float, dimensions: int, scale: float = 1.0) -> float:
    """A log-likelihood in nats an image -> bits a dimension, the lower the better.

    dimensions: H W C of an image. scale: what pixels of 0..255 were divided by before the model saw them. Its density
    is then that of the divided pixels, and log2(scale) bits a dimension bring it back to theirs: 127.5 for pixels in
    [-1, 1], 255 for [0, 1], 1 where the model gives probabilities of whole pixel values.
    Raises UserError where nats is not finite, and unless dimensions and scale are positive.
    Source: Theis, van den Oord and Bethge 2016, arXiv:1511.01844, sec. 3.1; the change of variables.
    """
    if not np.isfinite(nats):
        raise UserError(f"a log-likelihood of {nats} nats has no bits per dimension: it must be finite")
    if dimensions < 1 or not 0 < scale < np.inf:
        raise UserError(f"dimensions and scale must be positive, not {dimensions} and {scale}")
    return float(-nats / (dimensions * np.log(2)) + np.log2(scale))


def check_weights(log_weights: np.ndarray) -> None:
    """Raise UserError unless log weights are (S, B), S and B at least 1, and finite."""
    if log_weights.ndim != 2 or not log_weights.size:
        raise UserError(f"log weights must be (samples, images), one of each at least, not {log_weights.shape}")
    broken = int((~np.isfinite(log_weights)).any(0).sum())
    if broken:
        raise UserError(f"{broken} of {log_weights.shape[1]} images have log weights that are NaN or infinite")


def of_test_images(replica: Evaluated, draws: int) -> tuple[float, float, int]:
    """Means of both bounds over the test images, nats; and the dimensions H W C of one."""
    bounds = accumulate(replica.log_weights(draws))
    return float(bounds.elbo.mean()), float(bounds.importance_weighted.mean()), int(replica.test_images[0].size)


def measure_elbo(replica: Evaluated) -> dict[str, float]:
    """In nats and bits per dimension."""
    nats, _, dimensions = of_test_images(replica, DRAWS)
    return {"elbo": nats, "elbo_bits_per_dimension": bits_per_dimension(nats, dimensions)}


def measure_importance_weighted(replica: Evaluated) -> dict[str, float]:
    """In nats and bits per dimension."""
    _, nats, dimensions = of_test_images(replica, LATENTS)
    name = f"iwae_{LATENTS}"
    return {name: nats, f"{name}_bits_per_dimension": bits_per_dimension(nats, dimensions)}


ELBO = Metric(
    "evidence lower bound of test images, nats and bits per dimension",
    ("log_weight",),
    measure_elbo,
    {"elbo": Number("nats", "higher"), "elbo_bits_per_dimension": Number("bits", "lower")},
)
IWAE = Metric(
    "importance-weighted bound of test images, 5,000 draws, nats and bits per dimension",
    ("log_weight",),
    measure_importance_weighted,
    {"iwae": Number("nats", "higher"), f"iwae_{LATENTS}_bits_per_dimension": Number("bits", "lower")},
    usual=False,
)
