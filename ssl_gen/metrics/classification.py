"""How well a classifier does on images of known class: log-probabilities (B, K) and labels (B,) in, numbers out."""

from __future__ import annotations

import numpy as np


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
