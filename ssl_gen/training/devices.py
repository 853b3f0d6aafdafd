"""Where the replicas of a run live: one step, written for one model and one batch, carried to many.

A `Program` holds S replicas (seeds with their own masks) in one of three placements:

    loop   a list of states, one compiled step called for each in turn (a CPU, where this is measured faster)
    vmap   states stacked on a leading axis, one program for all (one accelerator)
    pmap   the stack spread over devices, each training its own replicas, nothing communicated

`loop` and `vmap` also divide each batch over `data_parallel` devices of a mesh; a mean in a loss is then the mean over
the whole batch, so the numbers are those of one device up to rounding. On accelerators a stretch of steps is folded
into one call; on a CPU it is a Python loop over the compiled step, where nothing is gained by folding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ssl_gen.datasets.batches import Rows
from ssl_gen.types import Array, Batch, Method, Metrics, Phase, State, Tree, UserError

Mode = Literal["auto", "loop", "vmap", "pmap"]


class Program(NamedTuple):
    """S replicas of a method in one placement. `states` is the placement's own form; `stacked` has a leading axis S."""

    mode: str
    init: Callable[[Sequence[int], Rows], Tree]  # (seeds, rows (S, ...)) -> states
    advance: Callable[[Tree, int, Rows, int, Sequence[bool]], tuple[Tree, dict[str, np.ndarray]]]
    # (states, phase, rows (steps, S, ...), steps, active (S,)) -> states, mean metrics (S,); states are given away
    stack: Callable[[Tree], Tree]  # states -> a stacked copy
    place: Callable[[Tree], Tree]  # stacked -> states
    replica: Callable[[Tree, int], State]  # states -> the state of one replica
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


def choose(mode: Mode, replicas: int, data_parallel: int, devices: Sequence[jax.Device]) -> str:
    """The placement for `auto`: spread over devices, else stacked on an accelerator, else one after the other."""
    if mode != "auto":
        return mode
    if data_parallel == 1 and min(replicas, len(devices)) > 1:
        return "pmap"
    if devices[0].platform == "cpu" and not (data_parallel > 1 and len(devices) // data_parallel > 1 < replicas):
        return "loop"
    return "vmap"


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(size for size in range(min(number, limit), 0, -1) if number % size == 0)


def make_mesh(replicas: int, data_parallel: int, devices: Sequence[jax.Device], mode: str) -> Mesh | None:
    """A mesh (replica, data), or None for a single device. Raises UserError where there are too few devices."""
    if data_parallel > len(devices):
        raise UserError(f"--data-parallel {data_parallel} needs as many devices; this machine has {len(devices)}")
    rows = largest_divisor(replicas, len(devices) // data_parallel) if mode == "vmap" else 1
    if rows * data_parallel == 1:
        return None
    return Mesh(
        np.array(devices[: rows * data_parallel]).reshape(rows, data_parallel),
        ("replica", "data"),
        axis_types=(AxisType.Auto, AxisType.Auto),
    )


def check_divisible(method: Method, data_parallel: int) -> None:
    """Raise UserError where a phase's batches cannot be divided over the devices."""
    for phase in method.phases:
        for what, size in (("labelled_batch", phase.labelled), ("unlabelled_batch", phase.unlabelled)):
            if size % data_parallel:
                raise UserError(f"{what} {size} cannot be divided over --data-parallel {data_parallel} devices")


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


def make_program(
    method: Method,
    images: np.ndarray,
    replicas: int,
    mode: Mode = "auto",
    data_parallel: int = 1,
    longest: int = 100,
    fold: bool | None = None,
) -> Program:
    """Place `replicas` copies of a method on this process's devices.

    images (N, H, W, C) uint8, kept on every device; `longest` bounds the steps of one `advance`; `fold` None folds
    steps on accelerators only. Raises UserError where devices or batch sizes do not fit.
    """
    devices = jax.local_devices()
    mode = choose(mode, replicas, data_parallel, devices)
    check_divisible(method, data_parallel)
    fold = devices[0].platform != "cpu" if fold is None else fold
    if mode == "pmap":
        return pmapped(method, images, replicas, devices, longest, fold)
    return jitted(method, images, replicas, mode, make_mesh(replicas, data_parallel, devices, mode), longest, fold)


def zeros(method: Method, phase: Phase, spec: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The metrics of a phase at 0, () each; `spec` is the shape (H, W, C) of an image."""

    def batch(labelled: int, unlabelled: int) -> Batch:
        image = jax.ShapeDtypeStruct
        return Batch(
            image((labelled, *spec), jnp.float32),
            image((labelled,), jnp.int32),
            image((unlabelled, *spec), jnp.float32),
        )

    state = jax.eval_shape(
        method.init, jax.eval_shape(jax.random.key, 0), batch(phase.labelled, max(phase.unlabelled, 1))
    )
    _, metrics = jax.eval_shape(phase.step, state, batch(phase.labelled, phase.unlabelled))
    return {name: np.zeros(value.shape, value.dtype) for name, value in metrics.items()}


def padded(rows: Rows, longest: int) -> Rows:
    """Rows of some steps, filled up with zeros to `longest` steps, so that every stretch has one shape."""
    return Rows(
        *(np.concatenate([part, np.zeros((longest - len(part), *part.shape[1:]), part.dtype)]) for part in rows)
    )


def key_of(seed: Array) -> Array:
    """A replica's key."""
    return jax.random.key(seed)


def jitted(
    method: Method, images: np.ndarray, replicas: int, mode: str, mesh: Mesh | None, longest: int, fold: bool
) -> Program:
    """The placements `loop` and `vmap`, on one device or on a mesh."""
    stacked = mode == "vmap"

    def here() -> AbstractContextManager:
        return jax.set_mesh(mesh) if mesh else nullcontext()

    def put(tree: Tree, *axes: str | None) -> Tree:
        return jax.device_put(tree, NamedSharding(mesh, P(*axes))) if mesh else jax.device_put(tree)

    resident = put(images)
    leading = ("replica",) if stacked else ()
    totals = [zeros(method, phase, images.shape[1:]) for phase in method.phases]

    def first(seed: Array, rows: Rows, images: Array) -> State:
        return method.init(key_of(seed), gather(images, rows))

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
        results = [
            run(state, phase, Rows(*(part[:, i] for part in rows)), steps) if active[i] else (state, totals[phase])
            for i, state in enumerate(states)
        ]
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
        return method.init(key_of(seed), gather(images, rows))

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


def keep_compiled() -> None:
    """Keep compiled programs on disk between processes: in JAX_COMPILATION_CACHE_DIR, else the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssl_gen" / "jax"
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # else small programs are not kept
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
