"""How much the images of one class differ from each other: a generator that draws one good digit ten times has none."""

from __future__ import annotations

import numpy as np

from ssl_gen.metrics.metric import Evaluated, Metric, Number


def within_class_deviation(images: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """The standard deviation of each pixel over a class's images, mean over pixels and classes.

    images (B, H, W, C) uint8, labels (B,) -> deviation with pixels in [0, 1]. Classes without an image are left out;
    images of no class (negative labels) do not count.
    """
    present = [k for k in range(classes) if (labels == k).any()]
    return float(np.mean([(images[labels == k] / np.float32(255)).std(0).mean() for k in present]))


def deviation_ratio(replica: Evaluated) -> dict[str, float]:
    """Within-class deviation of a hundred samples a class over that of the real training images."""
    real = within_class_deviation(replica.train_images, replica.train_labels, replica.classes)
    return {"deviation_ratio": within_class_deviation(replica.few, replica.few_labels, replica.classes) / real}


DEVIATION_RATIO = Metric(
    "within-class pixel deviation of 100 samples a class over that of real training images",
    ("sample", "conditional"),
    deviation_ratio,
    {"deviation_ratio": Number()},
)
