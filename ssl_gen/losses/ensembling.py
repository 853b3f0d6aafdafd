"""What a network said of each image in earlier epochs, and how far it is from what it says now.

Laine and Aila 2017, "Temporal Ensembling for Semi-Supervised Learning", arXiv:1610.02242, sec. 2.2.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from ssl_gen.losses.classification import brier
from ssl_gen.types import Array


class Memory(NamedTuple):
    """Running means of the predictions of N images, as sums and the weights that these hold."""

    sums: Array  # (N, K), the paper's Z
    weights: Array  # (N,), 1 - decay^t of an image that was seen t times


def empty_memory(images: int, classes: int) -> Memory:
    """Of N images, none of which was seen."""
    return Memory(jnp.zeros((images, classes)), jnp.zeros(images))


def recall(memory: Memory, rows: Array) -> tuple[Array, Array]:
    """Targets (B, K), which sum to 1, of the images `rows` (B,), and which of them were seen before (B,) bool.

    The sums are divided by the weights they hold: the paper's correction for their start at 0. Unseen ones are 0.
    """
    weights = memory.weights[rows]
    return memory.sums[rows] / jnp.maximum(weights, jnp.finfo(weights.dtype).tiny)[:, None], weights > 0


def remember(memory: Memory, rows: Array, probabilities: Array, decay: float) -> Memory:
    """Z <- decay Z + (1 - decay) z for the images `rows` (B,) with predictions z (B, K).

    As a sum, which a batch that is divided over devices gives in parts. An image that stands in a batch twice, at the
    border of two epochs, is moved by both; its mean stays one.
    """
    sums = memory.sums.at[rows].add((1 - decay) * (probabilities - memory.sums[rows]))
    return Memory(sums, memory.weights.at[rows].add((1 - decay) * (1 - memory.weights[rows])))


def remembered_mse(logits: Array, targets: Array, seen: Array) -> Array:
    """E 1[seen] |p - target|^2 / K: logits (B, K), targets (B, K), seen (B,) bool -> (); the mean is over all B."""
    return jnp.where(seen, brier(logits, targets), 0.0).mean()
