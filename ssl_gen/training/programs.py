"""What every placement is made of: the step that fetches its batch and adds up its metrics, and its fold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType

from ssl_gen.core.keys import INIT
from ssl_gen.core.memory import Memory, saving
from ssl_gen.datasets.batches import Rows
from ssl_gen.datasets.store import Store
from ssl_gen.types import Array, Batch, Key, Method, Metrics, Phase, State, Tree, UserError, able

Sums = dict[str, np.ndarray]  # metrics (S,), added up over steps


class Advance(Protocol):
    """Some steps of all replicas, from rows (steps, S, ...); those that are not active (S,) need not move."""

    def __call__(
        self, states: Tree, phase: int, rows: Rows, steps: int, active: Sequence[bool], sums: Sums | None = None
    ) -> tuple[Tree, Sums]:
        """The states after them, and their metrics added to `sums`, step by step; None begins with 0."""


class Replicas(NamedTuple):
    """S replicas of a method in one placement. `states` is the placement's own form; `stacked` has a leading axis S."""

    mode: str
    init: Callable[[Sequence[int], Rows], Tree]  # (seeds, rows (S, ...)) -> states
    advance: Advance  # states are given away
    stack: Callable[[Tree], Tree]  # states -> a stacked copy; of several processes, whole on each
    place: Callable[[Tree], Tree]  # stacked -> states
    replica: Callable[[Tree, int], State]  # states -> the method's state of one replica, on this process's devices
    step: Callable[[int], Any]  # phase -> the jitted step
    lower: Callable[[Tree, int, Rows], jax.stages.Lowered]  # (states, phase, rows of one step (S, ...)) -> for a look
    devices: int  # that train


class Replica(NamedTuple):
    """One replica as training carries it and a checkpoint keeps it: it alone determines the future."""

    step: Array  # () int32, updates done
    key: Key  # jax.random.key(seed), never changes; a step's noise is of fold_in(key, step)
    state: State  # the method's own: what is learnt


def start(method: Method, store: Store) -> Callable[[Array, Any, Any], Replica]:
    """(seed, what is given for its rows, resident) -> a replica before its first update."""

    def begin(seed: Array, given: Any, resident: Any) -> Replica:
        key, batch = jax.random.key(seed), store.fetch(resident, given)
        return Replica(jnp.int32(0), key, able(method.init)(jax.random.fold_in(key, INIT), batch))

    return begin


def accumulating(phase: Phase, store: Store) -> Callable[..., tuple[Replica, Metrics]]:
    """(replica, totals), resident, what is given for the rows of one step -> (replica, totals + metrics)."""

    def step(carry: tuple[Replica, Metrics], resident: Any, given: Any) -> tuple[Replica, Metrics]:
        (count, key, state), totals = carry
        state, metrics = phase.step(state, jax.random.fold_in(key, count), count, store.fetch(resident, given))
        return Replica(count + 1, key, state), {name: totals[name] + value for name, value in metrics.items()}

    return step


def folded(step: Callable[..., tuple[Replica, Metrics]]) -> Callable[..., tuple[Replica, Metrics]]:
    """`step` over the first `count` of the given rows, in one call; any `count` is the same program."""

    def fold(carry: tuple[Replica, Metrics], resident: Any, rows: Rows, count: Array) -> tuple[Replica, Metrics]:
        def body(i: Array, carry: tuple[Replica, Metrics]) -> tuple[Replica, Metrics]:
            return step(carry, resident, Rows(*(part[i] for part in rows)))

        return jax.lax.fori_loop(0, count, body, carry)

    return fold


def arguments(method: Method, phase: Phase, spec: tuple[int, ...]) -> tuple[Any, Any, Any, Batch]:
    """Shapes and dtypes of what a phase's step takes; `spec` is the shape (H, W, C) of an image."""

    def batch(labelled: int, unlabelled: int) -> Any:
        image: Any = jax.ShapeDtypeStruct
        return Batch(
            image((labelled, *spec), jnp.float32),
            image((labelled,), jnp.int32),
            image((unlabelled, *spec), jnp.float32),
            image((unlabelled,), jnp.int32),
            image((unlabelled,), jnp.int32),
        )

    first = batch(max(phase.labelled, 1), max(phase.unlabelled, 1))
    key, step = jax.eval_shape(jax.random.key, 0), jax.ShapeDtypeStruct((), jnp.int32)
    state = jax.eval_shape(able(method.init), key, first)
    return state, key, step, batch(phase.labelled, phase.unlabelled)


def zeros(method: Method, phase: Phase, spec: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The metrics of a phase at 0, () each; `spec` is the shape (H, W, C) of an image."""
    _, metrics = jax.eval_shape(phase.step, *arguments(method, phase, spec))
    return {name: np.zeros(value.shape, value.dtype) for name, value in metrics.items()}


def check_memory(name: str, method: Method, memory: Memory, spec: tuple[int, ...], data_parallel: int) -> None:
    """Raise UserError where memory cannot be saved so: steps are traced for it, where they are asked to save any.

    `spec` is the shape (H, W, C) of an image.
    """
    mesh = AbstractMesh((data_parallel,), ("data",), axis_types=(AxisType.Auto,))
    traced = saving(method, memory).phases if memory else ()
    with jax.sharding.use_abstract_mesh(mesh) if data_parallel > 1 else contextlib.nullcontext():
        for phase in traced:
            jax.eval_shape(phase.step, *arguments(method, phase, spec))
    if memory.remat and not memory.blocks:
        raise UserError(
            f"--remat is for networks of blocks (U-Nets, residual ones, airbench); {name} has none: leave it out"
        )


def padded(rows: Rows, longest: int) -> Rows:
    """Rows of some steps, filled up with zeros to `longest` steps, so that every segment has one shape."""
    return Rows(
        *(np.concatenate([part, np.zeros((longest - len(part), *part.shape[1:]), part.dtype)]) for part in rows)
    )
