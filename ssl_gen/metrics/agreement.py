"""Does an independent classifier see the class that was asked of the generator?

One is the trained extractor. The other, the judge, is a support vector machine with a Gaussian kernel on pixels (Boser,
Guyon and Vapnik 1992). Both were trained on all labels of the training images: they know what the methods must not, so
they measure and never select or train. They err themselves, and of samples unlike any image they were trained on two
judges may differ by several points (10 were seen): the accuracy of each on test images stands beside its agreement, and
says nothing of such samples.
"""

from __future__ import annotations

import numpy as np
from sklearn.svm import SVC

from ssl_gen.metrics.metric import Evaluated, Metric, Number

LARGEST = 10_000  # training images of the judge at most, so that it is trained in seconds; ours


def pixels(images: np.ndarray) -> np.ndarray:
    """images (B, H, W, C) uint8 -> (B, H W C) in [0, 1]."""
    return images.reshape(len(images), -1) / np.float32(255)


def judge(images: np.ndarray, labels: np.ndarray) -> SVC:
    """The classifier fitted to images (N, H, W, C) uint8 and labels (N,); negative labels (unknown) are left out.

    Of more than 10,000 images a fixed random 10,000 are used.
    """
    known = np.flatnonzero(labels >= 0)
    known = np.random.default_rng(0).permutation(known)[:LARGEST]
    return SVC(C=10.0, gamma="scale").fit(pixels(images[known]), labels[known])


def agreement(judge: SVC, images: np.ndarray, labels: np.ndarray) -> float:
    """Percent of images (B, H, W, C) uint8 in which the judge sees labels (B,), the classes asked for."""
    return float(100 * (judge.predict(pixels(images)) == labels).mean())


def of_judge(replica: Evaluated) -> dict[str, float]:
    """In a hundred samples a class."""
    return {"agreement_svc": agreement(replica.judge, replica.few, replica.few_labels)}


def of_extractor(replica: Evaluated) -> dict[str, float]:
    """In the samples whose features are compared."""
    share = (replica.extractor_log_probabilities.argmax(-1) == replica.many_labels).mean()
    return {replica.on_features("agreement", compared=False): float(100 * share)}


def accuracy_of_judge(replica: Evaluated) -> dict[str, float]:
    """On the test images; {} without any."""
    return {} if replica.judge_accuracy is None else {"judge_accuracy_svc": replica.judge_accuracy}


def accuracy_of_extractor(replica: Evaluated) -> dict[str, float]:
    """On the test images; {} without any."""
    found, count = replica.extractor_accuracy, len(replica.test_labels)
    return {} if found is None else {replica.on_features("judge_accuracy", compared=False, count=count): found}


AGREEMENT_SVC = Metric(
    "percent of 100 samples a class in which an SVC trained on all labels sees the class asked for",
    ("sample", "conditional"),
    of_judge,
    {"agreement_svc": Number("%", "higher", column=3)},
)
AGREEMENT = Metric(
    "percent of samples in which the trained extractor sees the class asked for",
    ("sample", "conditional", "classes"),
    of_extractor,
    {"agreement": Number("%", "higher", "agreement", column=1)},
)
# They need no samples, which no setting of a sampler changes
JUDGE_ACCURACY_SVC = Metric(
    "percent of test images in which the SVC behind agreement_svc sees the true class",
    ("conditional",),
    accuracy_of_judge,
    {"judge_accuracy_svc": Number("%", "higher", column=4)},
)
JUDGE_ACCURACY = Metric(
    "percent of test images in which the trained extractor behind agreement sees the true class",
    ("conditional", "classes"),
    accuracy_of_extractor,
    {"judge_accuracy": Number("%", "higher", column=2)},
)
