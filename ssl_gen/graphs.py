"""Graphs of near images, and what travels along them: labels, real values, the potential of sources.

A graph has a node for each image and a symmetric weight w_ij >= 0 for each pair of neighbours; d_i = sum_j w_ij,
D = diag(d), L = D - W. Neighbours are found on the host by scikit-learn; everything after that is JAX.

    spreading      F = alpha S F + (1 - alpha) Y,  S = D^-1/2 W D^-1/2         Zhou et al. 2004, NIPS 16
    propagation    F = D^-1 W F with F = Y on labelled nodes                   Zhu and Ghahramani 2002, CMU-CALD-02-107
    regression     the same with real values; or (M + lambda L) u = M y        Belkin, Matveeva and Niyogi 2004, COLT
    Poisson        L u = sum_j (y_j - mean y) delta_j,  sum_i d_i u_i = 0      Calder et al. 2020, arXiv:2006.11184
    induction      F(x) = sum_j w(x, x_j) F_j / sum_j w(x, x_j)                Delalleau et al. 2005, AISTATS
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from ssl_gen import losses
from ssl_gen.networks.normalisation import choose
from ssl_gen.types import Array, UserError

Kernel = Literal["gaussian", "connectivity"]
TOLERANCE = 1e-8  # of a residual, as a part of the right side; ours: systems may amplify it by 10,000 and more
LONGEST = 2_000  # iterations of a solver at most; ours: graphs of 70,000 images need some hundreds
REACH = 1_000.0  # steps of the Poisson iteration after which a part of the graph is judged; the authors' code's limit
BLOCK = 4_096  # nodes compared with a batch at a time, 8 MiB for 500 images; ours


class Graph(NamedTuple):
    """A symmetric weight matrix by its entries, row after row, and what every solver needs of it."""

    rows: Array  # (E,) int32, rising
    columns: Array  # (E,) int32
    weights: Array  # (E,) float32
    degrees: Array  # (N,) float32, sums of weights, all > 0
    parts: Array  # (N,) int32, number of the connected part that a node belongs to


class Nodes(NamedTuple):
    """What an inductive classifier keeps of its graph: enough to place a new image."""

    features: Array  # (N, F) float32, or uint8 where they are pixels u / 127.5 - 1
    shares: Array  # (N, K) distribution over classes


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
    """The graph of neighbours (N, k): W = (A + A^T) / 2 with A their one-sided weights."""
    nodes, k = indices.shape
    weights = np.asarray(similarities(jnp.asarray(distances), kernel))
    one_sided = scipy.sparse.csr_matrix(
        (weights.ravel(), indices.ravel(), np.arange(0, nodes * k + 1, k)), (nodes, nodes)
    )
    return from_matrix((one_sided + one_sided.T) / 2)


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

    A labelled image that is among the unlabelled ones too is two nodes, 0 from each other. Raises UserError where there
    are no k neighbours.
    """
    images = np.concatenate([labelled, unlabelled])
    features = images.reshape(len(images), -1).astype(np.float32, copy=False)
    graph = build(*neighbours(features, k), kernel)
    targets = np.zeros((len(features), classes), np.float32)
    targets[np.arange(len(labels)), labels] = 1
    where = np.arange(len(features)) < len(labels)
    return Problem(features, graph, *map(jnp.asarray, (targets, where, targets[where].mean(0))))


def product(graph: Graph, values: Array) -> Array:
    """W values: (N, C) -> (N, C)."""
    flows = graph.weights[:, None] * values[graph.columns]
    return jax.ops.segment_sum(flows, graph.rows, len(graph.degrees), indices_are_sorted=True)


def in_float64(function: Callable[..., Array]) -> Callable[..., Array]:
    """function(graph, ...) -> values, computed with 64 bits and returned in 32, from any setting of JAX.

    Laplacians of graphs whose clusters hardly touch are too near to singular for conjugate gradients in 32 bits.
    """

    def widened(x: Any) -> Any:
        floating = jnp.issubdtype(jnp.result_type(x), jnp.floating)
        return jnp.asarray(x, jnp.float64) if floating else x

    @functools.wraps(function)
    def wide(graph: Graph, *arguments: Any) -> Array:
        with jax.enable_x64(True):
            graph, *arguments = jax.tree.map(widened, (graph, *arguments))
            exact = product(graph, jnp.ones((len(graph.degrees), 1)))[:, 0]  # sums of the weights as they are rounded
            return function(graph._replace(degrees=exact), *arguments).astype(jnp.float32)

    return wide


@jax.jit
def solve(graph: Graph, diagonal: Array, coupling: Array, free: Array, right: Array) -> Array:
    """u (N, C) with diagonal u - coupling free W free u = right: conjugate gradients for each column.

    diagonal (N,) > 0, coupling () >= 0, free (N,) 0 or 1: nodes that take part in W; right (N, C), in the range of the
    matrix where that is singular. Preconditioned by the diagonal.
    Source: Hestenes and Stiefel 1952, J. Res. Nat. Bur. Standards 49.
    """

    def apply(u: Array) -> Array:
        return diagonal[:, None] * u - coupling * free[:, None] * product(graph, free[:, None] * u)

    def unfinished(carry: tuple) -> Array:
        *_, size, iteration = carry
        return (size > TOLERANCE**2 * first).any() & (iteration < LONGEST)

    def advance(carry: tuple) -> tuple:
        u, residual, direction, size, iteration = carry
        image = apply(direction)
        curvature = (direction * image).sum(0)
        moving = (size > TOLERANCE**2 * first) & (curvature > 0)  # a column that is solved stays as it is
        length = jnp.where(moving, size / positive(curvature), 0.0)
        u, residual = u + length * direction, residual - length * image
        scaled = residual / diagonal[:, None]
        after = (residual * scaled).sum(0)
        return u, residual, scaled + after / positive(size) * direction, after, iteration + 1

    scaled = right / diagonal[:, None]
    first = (right * scaled).sum(0)
    return jax.lax.while_loop(unfinished, advance, (jnp.zeros_like(right), right, scaled, first, 0))[0]


def positive(x: Array) -> Array:
    """x, or 1 where it is not above 0: something to divide by where the quotient is not looked at or is 0."""
    return jnp.where(x > 0, x, 1.0)


@jax.jit
def spread_labels(graph: Graph, targets: Array, alpha: Array, tolerance: Array = 1e-4) -> Array:
    """F = alpha S F + (1 - alpha) Y: targets Y (N, K), rows of 0 where unlabelled -> F (N, K) >= 0.

    The paper's iteration: sums of what is not negative, so that nodes far from all labels, where F is tiny, keep their
    digits. Ends where all F_ik / sum_k F_ik are about within `tolerance` of their limits.
    Source: Zhou, Bousquet, Lal, Weston and Schoelkopf 2004, "Learning with Local and Global Consistency", NIPS 16.
    """
    root = jnp.sqrt(graph.degrees)[:, None]

    def unfinished(carry: tuple) -> Array:
        _, change, iteration = carry
        return (change * alpha > tolerance * (1 - alpha)) & (iteration < LONGEST)

    def advance(carry: tuple) -> tuple:
        before, _, iteration = carry
        after = alpha * product(graph, before / root) / root + targets
        change = jnp.abs(after - before).max(-1) / positive(after.sum(-1))
        return after, change.max(), iteration + 1

    return (1 - alpha) * jax.lax.while_loop(unfinished, advance, (targets, jnp.inf, 0))[0]


def propagate_labels(graph: Graph, targets: Array, where: Array) -> Array:
    """The limit of F <- D^-1 W F with F = Y put back where labelled: targets Y (N, K) -> F (N, K), rows sum to 1.

    `where` (N,) bool: labelled nodes. The limit is harmonic and is solved for, see `regress`; parts of the graph
    without labels get the mean label. Source: Zhu and Ghahramani 2002, CMU-CALD-02-107; Zhu et al. 2003, ICML.
    """
    values = regress(graph, targets, where)
    return shares(values, targets[where].mean(0))


@in_float64
def regress(graph: Graph, targets: Array, where: Array, strength: float = 0.0) -> Array:
    """Real values on some nodes -> on all: targets (N, C), of which rows `where` (N,) bool are looked at -> (N, C).

    strength 0: the harmonic extension, u = y where given and (L u)_i = 0 elsewhere (Zhu et al. 2003, ICML).
    strength lambda > 0: min_u sum_labelled |u - y|^2 + lambda u^T L u, for targets with noise (Belkin, Matveeva and
    Niyogi 2004, COLT). Parts of the graph without targets get the mean target. Raises ValueError where no node has one.
    """
    where = jnp.asarray(where)
    if not bool(where.any()):
        raise ValueError("no node has a target")
    mean = targets[where].mean(0)
    given = jnp.where(where[:, None], targets - mean, 0.0)
    known, unknown = where.astype(targets.dtype), 1.0 - where
    if strength > 0:
        return mean + solve(graph, known + strength * graph.degrees, strength, jnp.ones_like(known), given)
    inflow = unknown[:, None] * product(graph, given)
    return mean + given + solve(graph, graph.degrees, 1.0, unknown, inflow)


@in_float64
@jax.jit
def poisson(graph: Graph, targets: Array, where: Array) -> Array:
    """Potential u (N, K) of sources y_j - mean y at labelled nodes: targets (N, K) one-hot `where` (N,) bool.

    L u = sources with sum_i d_i u_i = 0. In a graph of several parts, where the sources of a part do not sum to 0 there
    is no solution: there u is that of the paper's iteration u <- u + D^-1 (sources - L u) after REACH steps, which by
    then is a solution for the rest of the sources plus REACH times (sum of the sources / sum of the degrees).
    Source: Calder, Cook, Thorpe and Slepcev 2020, arXiv:2006.11184, algorithm 1.
    """

    def total(values: Array) -> Array:
        return jax.ops.segment_sum(values, graph.parts, len(graph.degrees))

    known, degrees = jnp.asarray(where)[:, None].astype(targets.dtype), graph.degrees[:, None]
    sources = known * (targets - (known * targets).sum(0) / known.sum())
    volume = positive(total(degrees))
    level = (total(sources) / volume)[graph.parts]  # by which a whole part rises each step
    u = solve(graph, graph.degrees, 1.0, jnp.ones_like(graph.degrees), sources - degrees * level)
    return u - (total(degrees * u) / volume)[graph.parts] + REACH * level


def shares(values: Array, otherwise: Array) -> Array:
    """The positive part of values (N, K), each row divided by its sum; rows without one are `otherwise` (K,)."""
    values = jnp.maximum(values, 0.0)
    total = values.sum(-1, keepdims=True)
    return jnp.where(total > 0, values / positive(total), otherwise)


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
    return losses.log_shares(mean)
