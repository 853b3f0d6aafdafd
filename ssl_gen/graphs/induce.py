"""New images on a graph of others: the weighted mean of what their nearest nodes have.

F(x) = sum_j w(x, x_j) F_j / sum_j w(x, x_j)        Delalleau, Bengio and Le Roux 2005, AISTATS
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_gen.graphs.build import Kernel, similarities
from ssl_gen.losses.classification import log_shares
from ssl_gen.types import Array

BLOCK = 4_096  # nodes compared with a batch at a time, 8 MiB for 500 images; ours


class Nodes(NamedTuple):
    """What an inductive classifier keeps of its graph: enough to place a new image."""

    features: np.ndarray  # (N, F) float32, or uint8 where they are pixels u / 127.5 - 1
    shares: np.ndarray  # (N, K) distribution over classes


def remember(features: np.ndarray, distributions: Array) -> Nodes:
    """The nodes of a graph by features (N, F) and distributions (N, K); pixels of 8 bits are kept as such."""
    levels = np.rint((features + 1) * 127.5)
    exact = np.abs(levels / np.float32(127.5) - 1 - features).max() < 1e-5 and 0 <= levels.min() <= levels.max() <= 255
    return Nodes(levels.astype(np.uint8) if exact else features.astype(np.float32), np.asarray(distributions))


def real(features: Array) -> Array:
    """Features of `Nodes` as float32."""
    return features.astype(jnp.float32) / 127.5 - 1 if features.dtype == jnp.uint8 else features


def nearest_nodes(nodes: Nodes, queries: Array, k: int) -> tuple[Array, Array]:
    """queries (B, F) -> indices (B, k) of the nearest nodes and distances (B, k), nearest first.

    A block of nodes at a time, so that no more than B x BLOCK distances are held. Which are nearest comes from a
    product of matrices in float32, their distances from differences: an image that is a node is exactly 0 from it.
    """
    count, block = len(nodes.features), min(BLOCK, len(nodes.features))

    def compare(best: tuple[Array, Array], start: Array) -> tuple[tuple[Array, Array], None]:
        first = jnp.minimum(start, count - block)  # the last block begins within the one before
        rows = real(jax.lax.dynamic_slice_in_dim(nodes.features, first, block))
        scores = 2 * queries @ rows.T - jnp.square(rows).sum(-1)  # |x|^2 - d^2
        numbers = first + jnp.arange(block)
        scores = jnp.where(numbers >= start, scores, -jnp.inf)
        found, order = jax.lax.top_k(scores, min(k, block))
        scores, order = jnp.concatenate([best[0], found], 1), jnp.concatenate([best[1], numbers[order]], 1)
        scores, places = jax.lax.top_k(scores, k)
        return (scores, jnp.take_along_axis(order, places, 1)), None

    none = jnp.full((len(queries), k), -jnp.inf), jnp.zeros((len(queries), k), jnp.int32)
    (_, indices), _ = jax.lax.scan(compare, none, jnp.arange(0, count, block))
    distances = jnp.sqrt(jnp.square(real(nodes.features[indices]) - queries[:, None]).sum(-1))
    order = jnp.argsort(distances, 1)
    return jnp.take_along_axis(indices, order, 1), jnp.take_along_axis(distances, order, 1)


def induce(nodes: Nodes, queries: Array, k: int, kernel: Kernel) -> Array:
    """Log-probabilities (B, K) of new images by features (B, F): the mean of their k nearest nodes, weighted as there.

    Source: Delalleau, Bengio and Le Roux 2005, "Efficient Non-Parametric Function Induction", AISTATS.
    """
    indices, distances = nearest_nodes(nodes, queries, k)
    weights = similarities(distances, kernel)
    mean = jnp.einsum("bn,bnk->bk", weights, nodes.shares[indices]) / weights.sum(-1, keepdims=True)
    return log_shares(mean)
