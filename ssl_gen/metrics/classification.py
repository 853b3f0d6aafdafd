"""How well a classifier does on images of known class: log-probabilities (B, K) and labels (B,) in, numbers out.

Besides its error: the error by class, whether its probabilities can be believed, the temperature that mends them, and
whether its confidence tells images of known classes from out-of-distribution ones, of no class.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax, logsumexp, softmax

from ssl_gen.metrics.metric import Evaluated, Metric, Number
from ssl_gen.types import UserError

EXTREME = 1e6  # temperatures are sought from 1 / EXTREME to EXTREME; ours, far beyond those of trained networks
NORMALISED = 1e-2  # nats by which the probabilities of an image may miss a sum of 1; ours, what half precision needs


def error(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Percent of images whose most probable class is not theirs; (B, K) nats, (B,) -> percent."""
    return float(100 * (log_probabilities.argmax(-1) != labels).mean())


def negative_log_likelihood(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of - log p(label); (B, K) nats, (B,) -> nats."""
    return float(-np.take_along_axis(log_probabilities, labels[:, None], -1).mean())


def confusion(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts of images by true class (row) and most probable class (column); (B, K), (B,) -> (K, K) int."""
    classes = log_probabilities.shape[-1]
    flat = labels.astype(int) * classes + log_probabilities.argmax(-1)
    return np.bincount(flat, minlength=classes**2).reshape(classes, classes)


def per_class_error(log_probabilities: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Percent of each class's images whose most probable class is not theirs; (B, K) nats, (B,) -> {class: percent}.

    Classes without an image are left out. Raises UserError for wrong shapes, labels out of range, NaN and no image.
    """
    check_classified(log_probabilities, labels)
    wrong = log_probabilities.argmax(-1) != labels
    return {int(k): float(100 * wrong[labels == k].mean()) for k in np.unique(labels)}


def balanced_error(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean of the errors of the classes, each counting the same however few its images; (B, K), (B,) -> percent.

    Classes without an image are left out. Raises UserError as `per_class_error` does.
    Source: Brodersen et al. 2010, "The balanced accuracy and its posterior distribution"; this is 100 less that.
    """
    return float(np.mean(list(per_class_error(log_probabilities, labels).values())))


def worst_class_error(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The error of the class that has the largest, near 100 where one was lost; (B, K), (B,) -> percent.

    Classes without an image are left out. Raises UserError as `per_class_error` does.
    """
    return max(per_class_error(log_probabilities, labels).values())


def calibration_error(log_probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """The expected calibration error of the most probable class, in bins of equal counts; (B, K), (B,) -> percent.

    Images are sorted by confidence and cut into groups whose sizes differ by one at most; the result is the mean over
    images of their group's |accuracy - confidence|. Images of equal confidence share their accuracy, so that it does
    not matter which of them a cut separates. Chance alone gives a perfectly calibrated classifier up to about
    40 sqrt(bins / B) percent. Raises UserError for wrong shapes, labels out of range, rows that are no
    log-probabilities, and fewer images than bins.
    Source: Guo et al. 2017, arXiv:1706.04599, sec. 2, with their 15 bins, but of equal counts, not widths: Nguyen and
    O'Connor 2015, arXiv:1508.05154.
    """
    check_classified(log_probabilities, labels)
    if not 1 <= bins <= len(labels):
        raise UserError(
            f"{bins} calibration bins need at least one, and at least as many images: here are {len(labels)}"
        )
    log_probabilities = log_probabilities.astype(np.float64)
    missed = int((np.abs(logsumexp(log_probabilities, -1)) > NORMALISED).sum())
    if missed:
        raise UserError(f"{missed} of {len(labels)} rows are no log-probabilities: apply a log-softmax first")
    right = log_probabilities.argmax(-1) == labels
    highest = np.exp(log_probabilities.max(-1))
    confidence, which, counts = np.unique(highest, return_inverse=True, return_counts=True)
    accuracy = np.bincount(which, right) / counts
    gaps = np.repeat(accuracy - confidence, counts)  # of images in the order of their confidence
    return float(100 * sum(abs(group.sum()) for group in np.array_split(gaps, bins)) / len(gaps))


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T > 0 at which softmax(logits / T) is likeliest on a validation set; (B, K), (B,) -> T.

    Log-probabilities are logits too. It is where the derivative of the negative log-likelihood in 1 / T, which only
    rises, is zero. Raises UserError for wrong shapes, labels out of range, NaN and no image; and where no T is best:
    all images are classified right (T -> 0), or the labels are no likelier than chance (T -> infinity).
    Source: Guo et al. 2017, arXiv:1706.04599, sec. 4.2.
    """
    check_classified(logits, labels)
    below = logits.astype(np.float64) - logits.max(-1, keepdims=True)  # how far below the most probable class
    own = np.take_along_axis(below, labels[:, None].astype(int), -1)[:, 0]
    impossible = int(np.isinf(own).sum())
    if impossible:
        raise UserError(f"{impossible} of {len(labels)} labels have probability 0: no temperature can mend that")
    values = np.where(np.isinf(below), 0.0, below)  # a class of probability 0 adds nothing to the mean logit

    def slope(log_temperature: float) -> float:
        mean = (softmax(below / np.exp(log_temperature), -1) * values).sum(-1)
        return float((mean - own).mean())  # of the NLL in 1 / T

    low, high = -np.log(EXTREME), np.log(EXTREME)
    if slope(high) >= 0:
        raise UserError("no temperature is best where labels are no likelier than chance: train the classifier first")
    if slope(low) <= 0:
        raise UserError(f"no temperature is best where all {len(labels)} images are right or tied: validate on more")
    return float(np.exp(brentq(slope, low, high, xtol=1e-12)))


def scaled(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Log-probabilities (B, K) made softer (T > 1) or harder (T < 1): log softmax(log p / T), float64 nats.

    Raises UserError unless T is positive and finite. Source: Guo et al. 2017, arXiv:1706.04599, sec. 4.2.
    """
    if not 0 < temperature < np.inf:
        raise UserError(f"a temperature is a positive number, not {temperature}")
    return log_softmax(log_probabilities.astype(np.float64) / temperature, -1)


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """The area under the ROC curve of a score that is to be higher for known images (N,) than for images of none (M,).

    It is the probability, in [0, 1], that an image of the first kind scores higher than one of the second, ties
    counting a half.
    Raises UserError where a side is empty, holds NaN or is no vector.
    Source: Hanley and McNeil 1982, "The meaning and use of the area under a receiver operating characteristic (ROC)
    curve"; with the highest class probability as the score: Hendrycks and Gimpel 2017, arXiv:1610.02136.
    """
    for side, scores in (("known", inside), ("out-of-distribution", outside)):
        if scores.ndim != 1 or not len(scores):
            raise UserError(f"scores of {side} images must be (images,) and at least one, not of shape {scores.shape}")
        if np.isnan(scores).any():
            raise UserError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores of {side} images are NaN")
    ranked = np.sort(outside)
    lower = np.searchsorted(ranked, inside, "left").sum()
    not_higher = np.searchsorted(ranked, inside, "right").sum()
    return float((lower + not_higher) / (2 * len(inside) * len(outside)))


def check_classified(scores: np.ndarray, labels: np.ndarray) -> None:
    """Raise UserError unless scores (B, K) are free of NaN and + infinity and labels (B,) are integers in 0..K-1."""
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not scores.size:
        raise UserError(f"classes need scores (B, K) and labels (B,), B > 0: got {scores.shape} and {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels must be integers, not {labels.dtype}")
    outside = int(((labels < 0) | (labels >= scores.shape[1])).sum())
    if outside:
        raise UserError(
            f"{outside} of {len(labels)} labels are not in 0..{scores.shape[1] - 1}: leave those images out"
        )
    broken = int((~(scores < np.inf)).any(-1).sum() + (scores == -np.inf).all(-1).sum())
    if broken:
        raise UserError(f"{broken} of {len(scores)} images have class scores that are NaN or infinite")


def of_test_images(
    name: str, measure: Callable[[np.ndarray, np.ndarray], float]
) -> Callable[[Evaluated], dict[str, float]]:
    """A measure of (log-probabilities, labels), by name, of the test images."""
    return lambda replica: {name: measure(replica.log_probabilities, replica.test_labels)}


def in_15_bins(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The calibration error in 15 bins, or, of fewer images, a bin each."""
    return calibration_error(log_probabilities, labels, min(15, len(labels)))


def of_highest_probability(replica: Evaluated) -> dict[str, float]:
    """How well the highest class probability tells test images from out-of-distribution ones."""
    outside = replica.out_of_distribution_log_probabilities
    return {"auroc": auroc(replica.log_probabilities.max(-1), outside.max(-1))}


PERCENT = Number("%", "lower", decimals=2, from_zero=True)
ERROR = Metric(
    "test error, percent",
    ("classify",),
    of_test_images("error", error),
    {
        "error": PERCENT._replace(column=0),
        "error_median_last": PERCENT,  # from here on of evaluations during training: `runs.record`
        "error_validation": PERCENT,
        "error_best_validation": PERCENT,
        "error_best_test": PERCENT,
    },
)
FIRST_ERROR = Metric(
    "test error, percent, of the classifier as its first phase left it",
    ("classify_first",),
    lambda replica: {"first_error": error(replica.first_log_probabilities, replica.test_labels)},
    {"first_error": PERCENT},
)
BALANCED_ERROR = Metric(
    "test error, percent, mean over the classes that have test images",
    ("classify",),
    of_test_images("balanced_error", balanced_error),
    {"balanced_error": Number("%", "lower")},
)
WORST_CLASS_ERROR = Metric(
    "test error, percent, of the class that has the largest, of those with test images",
    ("classify",),
    of_test_images("worst_class_error", worst_class_error),
    {"worst_class_error": Number("%", "lower")},
)
NLL = Metric(
    "negative log-likelihood of the test labels, nats",
    ("classify",),
    of_test_images("nll", negative_log_likelihood),
    {"nll": Number("nats", "lower")},
)
CALIBRATION_ERROR = Metric(
    "expected calibration error of the most probable class, 15 bins of equal counts, percent",
    ("classify",),
    of_test_images("calibration_error", in_15_bins),
    {"calibration_error": Number("%", "lower")},
)
AUROC = Metric(
    "area under the ROC curve, test images against out-of-distribution ones by the highest probability (0 to 1)",
    ("classify", "out_of_distribution"),
    of_highest_probability,
    {"auroc": Number(better="higher")},
)
