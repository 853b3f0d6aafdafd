"""Does an independent classifier see the class that was asked of the generator?

The judge is a support vector machine with a Gaussian kernel on pixels (Boser, Guyon and Vapnik 1992), trained on all
labels of the training images: it knows what the methods must not, so it measures and never selects or trains.
"""

from __future__ import annotations

import numpy as np
from sklearn.svm import SVC

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
