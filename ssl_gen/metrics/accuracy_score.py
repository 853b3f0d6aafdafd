"""Classification accuracy score: is what a generator draws enough to learn the classes from?

Ravuri and Vinyals 2019, "Classification Accuracy Score for Conditional Generative Models", arXiv:1905.10887: the
test accuracy of a classifier that was trained on samples alone, with the classes asked for as labels. Beside it, one
that was trained on the samples and the labelled images.
"""

from __future__ import annotations

import numpy as np

from ssl_gen.metrics import classification
from ssl_gen.metrics.metric import Evaluated, Metric, Number


def measure(replica: Evaluated) -> dict[str, float]:
    """Of two classifiers: trained on samples, and on samples and the labelled images."""
    labelled = np.flatnonzero(replica.visible >= 0)
    both = (
        np.concatenate([replica.many, replica.train_images[labelled]]),
        np.concatenate([replica.many_labels, replica.visible[labelled]]),
    )
    found = {}
    for name, (images, labels) in {"cas": (replica.many, replica.many_labels), "cas_and_labelled": both}.items():
        outputs = replica.proxy_log_probabilities(images, labels)
        found[f"{name}_convnet_n={len(replica.many)}"] = 100 - classification.error(outputs, replica.test_labels)
    return found


CAS = Metric(
    "classification accuracy score: percent of test images right by a convnet trained on samples",
    ("sample", "conditional"),
    measure,
    {"cas": Number("%", "higher", "cas", column=6), "cas_and_labelled": Number("%", "higher")},
    usual=False,
)
