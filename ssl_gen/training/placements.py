"""The placements `loop`, `vmap` and `pmap` of a method's replicas, see `devices`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ssl_gen.datasets.batches import Rows
from ssl_gen.training.program import Program, accumulating, folded, gather, padded, zeros
from ssl_gen.types import Array, Method, Metrics, Phase, State, Tree


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(size for size in range(min(number, limit), 0, -1) if number % size == 0)


def jitted(
    method: Method, images: np.ndarray, replicas: int, mode: str, mesh: Mesh | None, longest: int, fold: bool
) -> Program:
    """The placements `loop` and `vmap`, on one device or on a mesh."""
    stacked = mode == "vmap"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

    def here() -> AbstractContextManager:
        return jax.set_mesh(mesh) if mesh else nullcontext()

    def put(tree: Tree, *axes: str | None) -> Tree:
        return jax.device_put(tree, NamedSharding(mesh, P(*axes))) if mesh else jax.device_put(tree)

    resident = put(images)
    leading = ("replica",) if stacked else ()
    totals = [zeros(method, phase, images.shape[1:]) for phase in method.phases]

    def first(seed: Array, rows: Rows, images: Array) -> State:
        return method.init(jax.random.key(seed), gather(images, rows))

    def compile_step(phase: Phase) -> Callable:
        step = accumulating(phase)
        step = folded(step) if fold else step
        if stacked:
            rows_axis = 1 if fold else 0
            axes = (0, None, rows_axis, None) if fold else (0, None, rows_axis)
            step = jax.vmap(step, axes, spmd_axis_name="replica" if mesh else None)
        return jax.jit(step, donate_argnums=0)

    compiled = [compile_step(phase) for phase in method.phases]
    whole_init = jax.vmap(first, (0, 0, None)) if stacked else first
    compiled_init = jax.jit(whole_init)

    def init(seeds: Sequence[int], rows: Rows) -> Tree:
        seeds = np.asarray(seeds)
        if stacked:
            return put(compiled_init(seeds, rows, images), *leading)
        return [put(compiled_init(seed, Rows(*(part[i] for part in rows)), images)) for i, seed in enumerate(seeds)]

    def begin(state: Tree, phase: int) -> tuple[Tree, Metrics]:
        shape = (replicas,) if stacked else ()
        return state, {name: put(np.zeros(shape, value.dtype), *leading) for name, value in totals[phase].items()}

    def run(state: Tree, phase: int, rows: Rows, steps: int) -> tuple[Tree, Metrics]:
        carry, step = begin(state, phase), compiled[phase]
        with here():
            if fold:
                return step(carry, resident, put(padded(rows, longest), None, *leading, "data"), steps)
            for i in range(steps):
                step_rows = Rows(*(part[i] for part in rows))
                carry = step(carry, resident, put(step_rows, *leading, "data") if mesh else step_rows)
        return carry

    def advance(
        states: Tree, phase: int, rows: Rows, steps: int, active: Sequence[bool]
    ) -> tuple[Tree, dict[str, np.ndarray]]:
        if stacked:
            states, sums = run(states, phase, rows, steps)
            return states, {name: np.asarray(value) / steps for name, value in sums.items()}

        def train(i: int) -> tuple[Tree, Metrics]:
            if not active[i]:
                return states[i], totals[phase]
            return jax.block_until_ready(run(states[i], phase, Rows(*(part[:, i] for part in rows)), steps))

        with ThreadPoolExecutor(1 if mesh else cores) as pool:  # collectives of two programs at once can starve
            results = list(pool.map(train, range(replicas)))
        means = {name: np.array([np.asarray(sums[name]) for _, sums in results]) / steps for name in totals[phase]}
        return [state for state, _ in results], means

    def stack(states: Tree) -> Tree:
        if stacked:
            return jax.tree.map(jnp.copy, states)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def replica(states: Tree, index: int) -> State:
        return jax.tree.map(lambda leaf: leaf[index], states) if stacked else states[index]

    def place(tree: Tree) -> Tree:
        if stacked:
            return put(tree, *leading)
        return [put(jax.tree.map(lambda leaf, i=i: leaf[i], tree)) for i in range(replicas)]

    def lower(states: Tree, phase: int, rows: Rows) -> jax.stages.Lowered:
        with here():
            if fold:
                rows = padded(Rows(*(part[None] for part in rows)), longest)
            rows = rows if stacked else Rows(*(part[..., 0, :] for part in rows))
            placed = put(rows, *([None] if fold else []), *leading, "data") if mesh else rows
            carry = begin(states if stacked else states[0], phase)
            return compiled[phase].lower(carry, resident, placed, *([1] if fold else []))

    return Program(mode, init, advance, stack, place, replica, compiled.__getitem__, lower)


def pmapped(
    method: Method, images: np.ndarray, replicas: int, devices: Sequence[jax.Device], longest: int, fold: bool
) -> Program:
    """The placement `pmap`: each device trains its own replicas, stacked where it has several."""
    count = largest_divisor(replicas, len(devices))
    devices, each = list(devices)[:count], replicas // count
    totals = [zeros(method, phase, images.shape[1:]) for phase in method.phases]
    resident = jax.pmap(lambda _, x: x, in_axes=(0, None), devices=devices)(np.zeros(count), images)
    by_device = resident.sharding

    def spread(tree: Tree, axis: int = 0) -> Tree:
        """(..., S, ...) -> (devices, ..., replicas of one device, ...); the inner axis is dropped where it is 1."""

        def divide(leaf: Array) -> Array:
            leaf = leaf.reshape(*leaf.shape[:axis], count, each, *leaf.shape[axis + 1 :])
            leaf = np.moveaxis(leaf, axis, 0) if isinstance(leaf, np.ndarray) else jnp.moveaxis(leaf, axis, 0)
            return leaf.squeeze(axis + 1) if each == 1 else leaf

        return jax.tree.map(divide, tree)

    def stack(states: Tree) -> Tree:
        return jax.tree.map(lambda leaf: jnp.copy(leaf if each == 1 else leaf.reshape(-1, *leaf.shape[2:])), states)

    def within(function: Callable, axes: tuple) -> Callable:
        return function if each == 1 else jax.vmap(function, axes)

    def compile_step(phase: Phase) -> Callable:
        step = accumulating(phase)
        if fold:
            return jax.pmap(
                within(folded(step), (0, None, 1, None)), in_axes=(0, 0, 0, None), devices=devices, donate_argnums=0
            )
        return jax.pmap(within(step, (0, None, 0)), devices=devices, donate_argnums=0)

    compiled = [compile_step(phase) for phase in method.phases]

    def first(seed: Array, images: Array, rows: Rows) -> State:
        return method.init(jax.random.key(seed), gather(images, rows))

    def init(seeds: Sequence[int], rows: Rows) -> Tree:
        start = jax.pmap(within(first, (0, None, 0)), devices=devices)
        return start(spread(np.asarray(seeds)), resident, spread(rows))

    def begin(states: Tree, phase: int) -> tuple[Tree, Metrics]:
        return states, spread({name: np.zeros(replicas, value.dtype) for name, value in totals[phase].items()})

    def lower(states: Tree, phase: int, rows: Rows) -> jax.stages.Lowered:
        if fold:
            folded_rows = spread(padded(Rows(*(part[None] for part in rows)), longest), 1)
            return compiled[phase].lower(begin(states, phase), resident, folded_rows, 1)
        return compiled[phase].lower(begin(states, phase), resident, spread(rows))

    def advance(
        states: Tree, phase: int, rows: Rows, steps: int, active: Sequence[bool]
    ) -> tuple[Tree, dict[str, np.ndarray]]:
        carry = begin(states, phase)
        if fold:
            states, sums = compiled[phase](carry, resident, spread(padded(rows, longest), 1), steps)
        else:
            for i in range(steps):
                carry = compiled[phase](carry, resident, spread(Rows(*(part[i] for part in rows))))
            states, sums = carry
        return states, {name: np.asarray(value).reshape(replicas) / steps for name, value in sums.items()}

    def place(tree: Tree) -> Tree:
        return jax.device_put(spread(tree), by_device)

    def replica(states: Tree, index: int) -> State:
        return jax.tree.map(lambda leaf: leaf[index], stack(states))

    return Program("pmap", init, advance, stack, place, replica, compiled.__getitem__, lower)
