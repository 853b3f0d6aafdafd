"""How much the images of one class differ from each other: a generator that draws one good digit ten times has none."""

from __future__ import annotations

import numpy as np


def within_class_deviation(images: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """The standard deviation of each pixel over a class's images, mean over pixels and classes.

    images (B, H, W, C) uint8, labels (B,) -> deviation with pixels in [0, 1]. Classes without an image are left out;
    images of no class (negative labels) do not count.
    """
    present = [k for k in range(classes) if (labels == k).any()]
    return float(np.mean([(images[labels == k] / np.float32(255)).std(0).mean() for k in present]))
