"""What travels along a graph of near images: labels, real values, the potential of sources.

W are the graph's weights, d_i = sum_j w_ij, D = diag(d), L = D - W.

    spreading      F = alpha S F + (1 - alpha) Y,  S = D^-1/2 W D^-1/2         Zhou et al. 2004, NIPS 16
    propagation    F = D^-1 W F with F = Y on labelled nodes                   Zhu and Ghahramani 2002, CMU-CALD-02-107
    regression     the same with real values; or (M + lambda L) u = M y        Belkin, Matveeva and Niyogi 2004, COLT
    Poisson        L u = sum_j (y_j - mean y) delta_j,  sum_i d_i u_i = 0      Calder et al. 2020, arXiv:2006.11184
    Poisson MBO    heat with those sources, cut to classes of given sizes      the same, algorithm 2
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_gen.graphs.build import Graph
from ssl_gen.types import Array, UserError

TOLERANCE = 1e-8  # of a residual, as a part of the right side; ours: systems may amplify it by 10,000 and more
LONGEST = 2_000  # iterations of a solver at most; ours: graphs of 70,000 images need some hundreds
VOLUME_STEPS, VOLUME_RATE = 100, 10.0  # towards given sizes of classes; the authors' code of Poisson MBO
LEAST, MOST = 0.5, 2.0  # that a class is weighted by on the way; the same
REACH = 1_000.0  # steps of the Poisson iteration after which a part of the graph is judged; the authors' code's limit


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

    def unfinished(carry: tuple[Any, ...]) -> Array:
        *_, size, iteration = carry
        return (size > TOLERANCE**2 * first).any() & (iteration < LONGEST)

    def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
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
def spread_labels(graph: Graph, targets: Array, alpha: float | Array, tolerance: float | Array = 1e-4) -> Array:
    """F = alpha S F + (1 - alpha) Y: targets Y (N, K), rows of 0 where unlabelled -> F (N, K) >= 0.

    The paper's iteration: sums of what is not negative, so that nodes far from all labels, where F is tiny, keep their
    digits. Ends where all F_ik / sum_k F_ik are about within `tolerance` of their limits.
    Source: Zhou, Bousquet, Lal, Weston and Schoelkopf 2004, "Learning with Local and Global Consistency", NIPS 16.
    """
    root = jnp.sqrt(graph.degrees)[:, None]

    def unfinished(carry: tuple[Any, ...]) -> Array:
        _, change, iteration = carry
        return (change * alpha > tolerance * (1 - alpha)) & (iteration < LONGEST)

    def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
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


def correct(potential: Array, frequencies: Array, prior: Array) -> Array:
    """u (N, K), label frequencies ybar (K,), prior b (K,) -> (b / ybar) u; a class without labels gets 0.

    Source: Calder et al. 2020, arXiv:2006.11184, algorithm 1.
    """
    return potential * jnp.where(frequencies > 0, prior / positive(frequencies), 0.0)


def check_prior(prior: Sequence[float], classes: int) -> None:
    """Raise UserError where it is neither empty nor a number above 0 for each class."""
    if prior and (len(prior) != classes or min(prior) <= 0):
        raise UserError(f"prior is {prior}: give {classes} numbers above 0, one for each class, or none")


def prior_or(prior: Sequence[float], frequencies: Array) -> Array:
    """The prior (K,), divided by its sum, or, where it is empty, the frequencies (K,) of the labels."""
    return jnp.asarray(np.divide(prior, sum(prior)), jnp.float32) if prior else frequencies


def of_sizes(values: Array, sizes: Array, counted: Array) -> Array:
    """Values (N, K) times weights of the classes, so that of `counted` (N,) nodes each class is largest in its share.

    sizes (K,) sum to 1. Weights rise and fall by VOLUME_RATE / step times what is missing, between LEAST and MOST, and
    those that came nearest are taken; the paper's steps are all as long, may swing for ever, and the last one counts.
    Shares are met about, not exactly. Source: Calder et al. 2020, arXiv:2006.11184, algorithm 2.
    """

    def advance(step: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        weights, nearest, least = carry
        found = counted @ jax.nn.one_hot((values * weights).argmax(-1), len(sizes), dtype=values.dtype)
        missing = sizes - found / counted.sum()
        off = jnp.abs(missing).max()
        nearest = jnp.where(off < least, weights, nearest)
        return jnp.clip(weights + VOLUME_RATE / (step + 1) * missing, LEAST, MOST), nearest, jnp.minimum(off, least)

    ones = jnp.ones_like(sizes)
    return values * jax.lax.fori_loop(0, VOLUME_STEPS, advance, (ones, ones, jnp.asarray(jnp.inf, sizes.dtype)))[1]


@in_float64
@jax.jit
def poisson_mbo(
    graph: Graph,
    potential: Array,
    targets: Array,
    where: Array,
    sizes: Array,
    fidelity: float = 1.0,
    inner: int = 40,
    outer: int = 20,
) -> Array:
    """Classes of given sizes along short cuts: potential (N, K), targets (N, K) `where` (N,), sizes (K,) -> u (N, K).

    From u = mu potential, `outer` times: `inner` steps u <- u - dt (L u - mu sources) of heat, dt = 1 / max d, sources
    y_j - mean y as of `poisson`; then every node is cut to its largest class (Merriman, Bence and Osher), classes
    weighted for their `sizes`. What comes back is u, weighted, before the last cut; it is 0 in parts of the graph
    without labels, which are not counted.
    Source: Calder et al. 2020, arXiv:2006.11184, algorithm 2.
    """
    known, degrees = jnp.asarray(where)[:, None].astype(targets.dtype), graph.degrees[:, None]
    sources = known * (targets - (known * targets).sum(0) / known.sum())
    labels = jax.ops.segment_sum(known[:, 0], graph.parts, len(graph.degrees))
    reached = (labels > 0).astype(targets.dtype)[graph.parts]
    step = 1 / degrees.max()

    def heat(_: int, u: Array) -> Array:
        return u - step * (degrees * u - product(graph, u) - fidelity * sources)

    def advance(_: int, scores: Array) -> Array:
        classes = jax.nn.one_hot(scores.argmax(-1), len(sizes), dtype=scores.dtype) * reached[:, None]
        return of_sizes(jax.lax.fori_loop(0, inner, heat, classes), sizes, reached)

    begun = jax.lax.fori_loop(0, inner, heat, fidelity * potential)
    return jax.lax.fori_loop(1, outer, advance, of_sizes(begun, sizes, reached)) * reached[:, None]


def shifted(values: Array) -> Array:
    """F (N, K) less its mean over the nodes: the constant that F nearly is where labels are few.

    Source: the authors' code of Calder et al. 2020, arXiv:2006.11184 (graphlearning, laplace with mean_shift).
    """
    return values - values.mean(0)


def normalized_mass(values: Array, where: Array, prior: Array) -> Array:
    """F (N, K) >= 0 with each class scaled so that its sum over nodes not in `where` (N,) bool is its prior, of (K,).

    Class mass normalisation: Zhu, Ghahramani and Lafferty 2003, "Semi-Supervised Learning Using Gaussian Fields and
    Harmonic Functions", ICML, sec. 4.
    """
    mass = jnp.where(jnp.asarray(where)[:, None], 0.0, values).sum(0)
    return values * prior / positive(mass)


def shares(values: Array, otherwise: Array) -> Array:
    """The positive part of values (N, K), each row divided by its sum; rows without one are `otherwise` (K,)."""
    values = jnp.maximum(values, 0.0)
    total = values.sum(-1, keepdims=True)
    return jnp.where(total > 0, values / positive(total), otherwise)
