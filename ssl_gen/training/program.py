"""What every placement is made of: the step that gathers its batch and adds up its metrics, and its fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from ssl_gen.datasets.batches import Rows
from ssl_gen.types import Array, Batch, Method, Metrics, Phase, State, Tree


class Program(NamedTuple):
    """S replicas of a method in one placement. `states` is the placement's own form; `stacked` has a leading axis S."""

    mode: str
    init: Callable[[Sequence[int], Rows], Tree]  # (seeds, rows (S, ...)) -> states
    advance: Callable[[Tree, int, Rows, int, Sequence[bool]], tuple[Tree, dict[str, np.ndarray]]]
    # (states, phase, rows (steps, S, ...), steps, active (S,)) -> states, mean metrics (S,); states are given away
    stack: Callable[[Tree], Tree]  # states -> a stacked copy; of several processes, whole on each
    place: Callable[[Tree], Tree]  # stacked -> states
    replica: Callable[[Tree, int], State]  # states -> the state of one replica, on this process's devices
    step: Callable[[int], Callable]  # phase -> the jitted step
    lower: Callable[[Tree, int, Rows], jax.stages.Lowered]  # (states, phase, rows of one step (S, ...)) -> for a look


def gather(images: Array, rows: Rows) -> Batch:
    """Training images (N, H, W, C) uint8 on the device and one step's rows -> Batch, scaled to [-1, 1]."""

    def take(index: Array) -> Array:
        return images[index].astype(jnp.float32) / 127.5 - 1

    batch = Batch(take(rows.labelled), rows.labels, take(rows.unlabelled))
    if "data" in jax.sharding.get_abstract_mesh().axis_names:
        batch = jax.lax.with_sharding_constraint(batch, P("data"))
    return batch


def accumulating(phase: Phase) -> Callable:
    """(state, totals), images, rows of one step -> (state, totals + metrics)."""

    def step(carry: tuple[State, Metrics], images: Array, rows: Rows) -> tuple[State, Metrics]:
        state, totals = carry
        state, metrics = phase.step(state, gather(images, rows))
        return state, {name: totals[name] + value for name, value in metrics.items()}

    return step


def folded(step: Callable) -> Callable:
    """`step` over the first `count` of the given rows, in one call; any `count` is the same program."""

    def fold(carry: tuple[State, Metrics], images: Array, rows: Rows, count: Array) -> tuple[State, Metrics]:
        def body(i: Array, carry: tuple[State, Metrics]) -> tuple[State, Metrics]:
            return step(carry, images, Rows(*(part[i] for part in rows)))

        return jax.lax.fori_loop(0, count, body, carry)

    return fold


def zeros(method: Method, phase: Phase, spec: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The metrics of a phase at 0, () each; `spec` is the shape (H, W, C) of an image."""

    def batch(labelled: int, unlabelled: int) -> Batch:
        image = jax.ShapeDtypeStruct
        return Batch(
            image((labelled, *spec), jnp.float32),
            image((labelled,), jnp.int32),
            image((unlabelled, *spec), jnp.float32),
        )

    first = batch(max(phase.labelled, 1), max(phase.unlabelled, 1))
    state = jax.eval_shape(method.init, jax.eval_shape(jax.random.key, 0), first)
    _, metrics = jax.eval_shape(phase.step, state, batch(phase.labelled, phase.unlabelled))
    return {name: np.zeros(value.shape, value.dtype) for name, value in metrics.items()}


def padded(rows: Rows, longest: int) -> Rows:
    """Rows of some steps, filled up with zeros to `longest` steps, so that every stretch has one shape."""
    return Rows(
        *(np.concatenate([part, np.zeros((longest - len(part), *part.shape[1:]), part.dtype)]) for part in rows)
    )
