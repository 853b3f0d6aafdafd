"""Solving dx/dt = v(x, t) for many x at once, inside jit."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssl_gen.types import Array


class Churn(NamedTuple):
    """Noise that is added before each step, and where the step starts then."""

    times: Array  # (N,) where step i starts
    add: Callable[[Array, Array], Array]  # number of the step (), x -> x with noise


def integrate(
    velocity: Callable[[Array, Array], Array],
    x: Array,
    times: Array,
    solver: str,
    churn: Churn | None = None,
    correct_last: bool = True,
) -> Array:
    """dx/dt = velocity(x, t) solved from times[0] to times[-1] (N + 1,), `euler` or `heun`: x (B, ...) -> (B, ...).

    In Heun's method every other look at the field, at the end of a step, corrects the one before; the last one is left
    out where the field has no value there. The looks are one loop, so that the field is compiled once.
    """
    starts = times[:-1] if churn is None else churn.times

    def begun(i: Array, x: Array) -> Array:
        return x if churn is None else churn.add(i, x)

    def euler(i: Array, x: Array) -> Array:
        x = begun(i, x)
        return x + (times[i + 1] - starts[i]) * velocity(x, starts[i])

    def heun(look: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        start, x, first = carry
        i, corrects = look // 2, look % 2 == 1
        if churn is not None:
            x = jnp.where(corrects, x, begun(i, x))
            start = jnp.where(corrects, start, x)
        slope = velocity(x, jnp.where(corrects, times[i + 1], starts[i]))
        x = start + (times[i + 1] - starts[i]) * jnp.where(corrects, (first + slope) / 2, slope)
        return jnp.where(corrects, x, start), x, slope

    count = len(times) - 1
    if solver == "euler":
        return jax.lax.fori_loop(0, count, euler, x)
    return jax.lax.fori_loop(0, 2 * count - (not correct_last), heun, (x, x, jnp.zeros_like(x)))[1]
