"""Graphs of near images: neighbours, found on the host by scikit-learn, and their weights.

A graph has a node for each image and a symmetric weight w_ij >= 0 for each pair of neighbours; d_i = sum_j w_ij.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
import scipy.sparse

from ssl_gen.core.options import choose
from ssl_gen.types import Array, UserError

Kernel = Literal["gaussian", "connectivity"]


class Graph(NamedTuple):
    """A symmetric weight matrix by its entries, row after row, and what every solver needs of it."""

    rows: Array  # (E,) int32, rising
    columns: Array  # (E,) int32
    weights: Array  # (E,) float32
    degrees: Array  # (N,) float32, sums of weights, all > 0
    parts: Array  # (N,) int32, number of the connected part that a node belongs to


class Problem(NamedTuple):
    """A graph of images, the labelled ones first, and their labels."""

    features: np.ndarray  # (N, F)
    graph: Graph
    targets: Array  # (N, K) one-hot, rows of 0 where unlabelled
    where: Array  # (N,) bool, labelled
    frequencies: Array  # (K,) of the classes among the labels


def neighbours(features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """features (N, F) -> indices (N, k) and Euclidean distances (N, k) of the k nearest other rows, nearest first.

    Exact, by brute force on all cores. Raises UserError where there are no k others.
    """
    from sklearn.neighbors import NearestNeighbors

    if not 1 <= k < len(features):
        raise UserError(f"{k} neighbours among {len(features)} images: choose 1 to {len(features) - 1}")
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(np.asarray(features, np.float32))
    distances, indices = search.kneighbors()
    return indices.astype(np.int32), distances.astype(np.float32)


def check_kernel(kernel: str) -> None:
    """Raise UserError where it is none."""
    choose("kernel", kernel, get_args(Kernel))


def similarities(distances: Array, kernel: Kernel) -> Array:
    """Distances (N, k) of each row's neighbours, nearest first -> weights (N, k) in (0, 1].

    gaussian: exp(-4 d^2 / d_k^2), d_k that row's largest (Calder et al. 2020, experiments); connectivity: 1.
    Rows that are k times the same point are at weight 1.
    """
    if kernel == "connectivity":
        return jnp.ones_like(distances)
    furthest = distances[:, -1:]
    return jnp.exp(-4 * jnp.square(distances / jnp.where(furthest > 0, furthest, 1.0)))


def build(indices: np.ndarray, distances: np.ndarray, kernel: Kernel) -> Graph:
    """The graph of neighbours (N, k). With A their one-sided weights, gaussian (A + A^T) / 2, connectivity max(A, A^T).

    As the code of Calder et al. 2020 (graphlearning, weightmatrix.knn) has it; its name for connectivity is uniform.
    """
    nodes, k = indices.shape
    weights = np.asarray(similarities(jnp.asarray(distances), kernel))
    one_sided = scipy.sparse.csr_matrix(
        (weights.ravel(), indices.ravel(), np.arange(0, nodes * k + 1, k)), (nodes, nodes)
    )
    return from_matrix(one_sided.maximum(one_sided.T) if kernel == "connectivity" else (one_sided + one_sided.T) / 2)


def from_matrix(matrix: scipy.sparse.sparray | scipy.sparse.spmatrix) -> Graph:
    """The graph of a weight matrix (N, N) >= 0; methods here need it symmetric, and spreading alone does not.

    Degrees are sums of columns. Raises ValueError for a node without neighbours.
    """
    matrix = scipy.sparse.csr_matrix(matrix, dtype=np.float32)
    matrix.sum_duplicates()
    degrees = np.asarray(matrix.sum(0, dtype=np.float64)).ravel()
    if not (degrees > 0).all():
        raise ValueError(f"{int((degrees <= 0).sum())} nodes have no neighbour")
    entries = matrix.tocoo()
    _, parts = scipy.sparse.csgraph.connected_components(matrix, directed=False)
    rows, columns, parts = (jnp.asarray(x, jnp.int32) for x in (entries.row, entries.col, parts))
    return Graph(rows, columns, jnp.asarray(entries.data), jnp.asarray(degrees, jnp.float32), parts)


def pose(
    labelled: np.ndarray, labels: np.ndarray, unlabelled: np.ndarray, classes: int, k: int, kernel: Kernel
) -> Problem:
    """The graph of all images, flattened: labelled (L, ...), labels (L,) in 0..K-1, unlabelled (U, ...).

    An image is a node. Two images of equal pixels are two nodes, 0 from each other: a data set that holds an image
    twice says so of its density. Raises UserError where there are no k neighbours.
    """
    images = np.concatenate([labelled, unlabelled])
    features = images.reshape(len(images), -1).astype(np.float32, copy=False)
    graph = build(*neighbours(features, k), kernel)
    targets = np.zeros((len(features), classes), np.float32)
    targets[np.arange(len(labels)), labels] = 1
    where = np.arange(len(features)) < len(labels)
    return Problem(features, graph, *map(jnp.asarray, (targets, where, targets[where].mean(0))))
