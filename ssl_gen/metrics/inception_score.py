"""The inception score's form on any classifier's posteriors: sure of each sample, unsure of them all.

Salimans et al. 2016, "Improved Techniques for Training GANs", arXiv:1606.03498, sec. 4:

    IS = exp E_x KL(p(y | x) || E_x p(y | x))      from 1 to K

It sees no real image, rewards one sample a class, grows with the number of samples, and means little off the data that
its classifier was trained on (Barratt and Sharma 2018, arXiv:1801.01973): read it beside the others.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp, xlogy

from ssl_gen.metrics.metric import Evaluated, Metric, Number
from ssl_gen.types import UserError

TOLERANCE = 1e-3  # of the log of a row's sum; ours: rounding in float32 passes, logits do not


def inception_score(log_probabilities: np.ndarray, splits: int = 1) -> tuple[float, float]:
    """log_probabilities (N, K) nats -> mean and standard deviation (ddof 0) of the score over splits in order.

    Splits are of equal size, or differ by one sample. Raises UserError for rows that are no probabilities, for fewer
    samples than splits and for no split. Source: Salimans et al. 2016, arXiv:1606.03498, sec. 4.
    """
    if log_probabilities.ndim != 2:
        raise UserError(f"log-probabilities must be (samples, classes), not of shape {log_probabilities.shape}")
    if not 1 <= splits <= len(log_probabilities):
        raise UserError(f"{len(log_probabilities)} samples cannot make {splits} splits: give each at least one")
    log_probabilities = np.asarray(log_probabilities, np.float64)
    broken = ~(np.abs(logsumexp(log_probabilities, 1)) <= TOLERANCE)  # NaN is broken too
    if broken.any():
        rows = f"{int(broken.sum())} of {len(broken)} rows"
        raise UserError(f"{rows} of probabilities do not sum to 1: give log-probabilities, not logits")
    scores = []
    for part in np.array_split(np.exp(log_probabilities), splits):
        scores.append(np.exp((xlogy(part, part) - xlogy(part, part.mean(0))).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def measure(replica: Evaluated) -> dict[str, float]:
    """On the extractor's own posteriors."""
    value, _ = inception_score(replica.extractor_log_probabilities)
    return {replica.on_features("inception_score", compared=False): value}


INCEPTION_SCORE = Metric(
    "inception score's form on the trained extractor's posteriors (1 to K)",
    ("sample", "classes"),
    measure,
    {"inception_score": Number(better="higher")},
)
