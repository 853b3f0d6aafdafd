"""What travels along a graph of near images: labels, real values, the potential of sources.

W are the graph's weights, d_i = sum_j w_ij, D = diag(d), L = D - W.

    spreading      F = alpha S F + (1 - alpha) Y,  S = D^-1/2 W D^-1/2         Zhou et al. 2004, NIPS 16
    propagation    F = D^-1 W F with F = Y on labelled nodes                   Zhu and Ghahramani 2002, CMU-CALD-02-107
    regression     the same with real values; or (M + lambda L) u = M y        Belkin, Matveeva and Niyogi 2004, COLT
    Poisson        L u = sum_j (y_j - mean y) delta_j,  sum_i d_i u_i = 0      Calder et al. 2020, arXiv:2006.11184
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ssl_gen.graphs.build import Graph
from ssl_gen.types import Array

TOLERANCE = 1e-8  # of a residual, as a part of the right side; ours: systems may amplify it by 10,000 and more
LONGEST = 2_000  # iterations of a solver at most; ours: graphs of 70,000 images need some hundreds
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


def shares(values: Array, otherwise: Array) -> Array:
    """The positive part of values (N, K), each row divided by its sum; rows without one are `otherwise` (K,)."""
    values = jnp.maximum(values, 0.0)
    total = values.sum(-1, keepdims=True)
    return jnp.where(total > 0, values / positive(total), otherwise)
