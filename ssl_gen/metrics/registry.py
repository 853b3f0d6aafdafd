"""All metrics by name, and what each number is.

A metric that compares features carries in its full name the extractor, the real images and the number of samples,
`fid_mnist-convnet-3f9a81c0_ref=test_n=10000`: numbers with different names are not comparable.
"""

from __future__ import annotations

from collections.abc import Mapping

from ssl_gen.metrics.accuracy_score import CAS
from ssl_gen.metrics.agreement import AGREEMENT, AGREEMENT_SVC, JUDGE_ACCURACY, JUDGE_ACCURACY_SVC
from ssl_gen.metrics.classification import (
    AUROC,
    BALANCED_ERROR,
    CALIBRATION_ERROR,
    ERROR,
    FIRST_ERROR,
    NLL,
    WORST_CLASS_ERROR,
)
from ssl_gen.metrics.diversity import DEVIATION_RATIO
from ssl_gen.metrics.frechet import FID, FID_INFINITY, INTRA_FID
from ssl_gen.metrics.imputation import IMPUTATION
from ssl_gen.metrics.inception_score import INCEPTION_SCORE
from ssl_gen.metrics.kernel import KID
from ssl_gen.metrics.likelihood import ELBO, IWAE
from ssl_gen.metrics.manifold import PRDC
from ssl_gen.metrics.memorisation import COPYING
from ssl_gen.metrics.metric import Metric, Number
from ssl_gen.metrics.reconstruction import RECONSTRUCTION
from ssl_gen.types import UserError

METRICS: dict[str, Metric] = {
    "error": ERROR,
    "first_error": FIRST_ERROR,
    "balanced_error": BALANCED_ERROR,
    "worst_class_error": WORST_CLASS_ERROR,
    "nll": NLL,
    "calibration_error": CALIBRATION_ERROR,
    "auroc": AUROC,
    "agreement_svc": AGREEMENT_SVC,
    "judge_accuracy_svc": JUDGE_ACCURACY_SVC,
    "deviation_ratio": DEVIATION_RATIO,
    "agreement": AGREEMENT,
    "judge_accuracy": JUDGE_ACCURACY,
    "fid": FID,
    "fid_infinity": FID_INFINITY,
    "intra_fid": INTRA_FID,
    "kid": KID,
    "prdc": PRDC,
    "inception_score": INCEPTION_SCORE,
    "copying": COPYING,
    "cas": CAS,
    "elbo": ELBO,
    "iwae": IWAE,
    "reconstruction": RECONSTRUCTION,
    "imputation": IMPUTATION,
}
NUMBERS: dict[str, Number] = {name: number for metric in METRICS.values() for name, number in metric.numbers.items()}


def applicable(able: Mapping[str, bool], names: tuple[str, ...] = (), costly: tuple[str, ...] = ()) -> list[str]:
    """The metrics that can be made: the usual ones, or those named. Raises UserError for one that cannot.

    able: what metrics may need, and whether the method and what it is measured against have it; costly: what of these
    takes so long that it is no usual metric which needs it.
    """
    possible = [name for name, metric in METRICS.items() if all(able[need] for need in metric.needs)]
    for name in names:
        if name not in METRICS:
            raise UserError(f"there is no metric {name}; these apply: {', '.join(possible)}")
        lacking = [need for need in METRICS[name].needs if not able[need]]
        if lacking:
            raise UserError(f"metric {name} does not apply, for want of {lacking[0]}; these do: {', '.join(possible)}")
    usual = [name for name in possible if METRICS[name].usual and not set(METRICS[name].needs) & set(costly)]
    return list(names) or usual


def number_name(full_name: str) -> str:
    """The number that a full name is of: the longest known name that it begins with, else all of it."""
    known = [name for name in NUMBERS if full_name == name or full_name.startswith(f"{name}_")]
    return max(known, key=len) if known else full_name


def number_of(full_name: str) -> Number:
    """What is known of a number by its full name; nothing of one that no metric makes."""
    name = number_name(full_name)
    return NUMBERS[name] if name in NUMBERS else Number()
