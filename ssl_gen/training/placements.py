"""The placements `loop`, `vmap` and `pmap` of a method's replicas, see `replicas`.

A `pmap` is, since jax 0.8, a thin layer on `shard_map` over the devices: one replica a device, nothing communicated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ssl_gen.datasets.batches import Rows
from ssl_gen.datasets.store import Store, read
from ssl_gen.training import processes
from ssl_gen.training.mesh import evenly, parts_of
from ssl_gen.training.programs import Replica, Replicas, Sums, accumulating, folded, padded, start, zeros
from ssl_gen.types import Method, Metrics, Phase, State, Tree


class StepPrograms(NamedTuple):
    """One compiled program a phase, for one replica or for a stack of them, on one device or on a mesh."""

    put: Callable[[Tree], Tree]  # a state, or a stack of them, to where it trains
    local: Callable[[Tree], Tree]  # what lies on a mesh, on devices of this process
    whole: Callable[[Tree], Tree]  # likewise, all of it on each
    init: Callable[[Any, Rows], Replica]  # (seed, rows), or stacks of them
    run: Callable[
        [Replica, int, Rows, int, Sums | None], tuple[Replica, Metrics]
    ]  # (state, phase, rows (steps, ...), steps, sums so far) -> sums
    lower: Callable[[Replica, int, Rows], jax.stages.Lowered]  # (state, phase, rows of one step)
    step: Callable[[int], Any]  # phase -> the jitted step
    devices: int  # that are at work
    zeros: list[dict[str, np.ndarray]]  # the metrics of each phase at 0


def still_in_parts(step: Any, parts: int) -> Any:
    """A step of one replica, whose new state lies in parts as the old one does; else the compiler would choose."""

    def in_parts(carry: tuple[Replica, Metrics], *given: Any) -> tuple[Replica, Metrics]:
        replica, totals = step(carry, *given)
        state = jax.lax.with_sharding_constraint(replica.state, parts_of(replica.state, parts))
        return replica._replace(state=state), totals

    return in_parts


def make_step_programs(
    method: Method,
    store: Store,
    replicas: int | None,
    mesh: Mesh | None,
    longest: int,
    fold: bool,
    shard: bool,
    compiler_options: dict[str, str],
) -> StepPrograms:
    """The programs of a stack of `replicas`, or of one replica where that is None.

    shard: each device of a replica holds a part of what its players learn, between steps too.
    """
    shape, leading = ((), ()) if replicas is None else ((replicas,), ("replica",))
    parts = mesh.shape["data"] if mesh and shard else 1

    def here() -> AbstractContextManager:
        return jax.set_mesh(mesh) if mesh else nullcontext()

    several = mesh is not None and len({device.process_index for device in mesh.devices.flat}) > 1

    def put_as(tree: Tree, axes: Tree) -> Tree:
        if mesh is None:
            return jax.device_put(tree)
        where = jax.tree.map(lambda each: NamedSharding(mesh, each), axes)
        if not several:
            return jax.device_put(tree, where)
        # each process gives what its own devices hold
        made = jax.make_array_from_callback
        return jax.tree.map(lambda leaf, its: made(leaf.shape, its, leaf.__getitem__), tree, where)

    def put(tree: Tree, *axes: str | None) -> Tree:
        return put_as(tree, jax.tree.map(lambda _: P(*axes), tree))

    def local(tree: Tree) -> Tree:
        if mesh is None or not several:
            return tree
        flat = Mesh(mesh.devices.reshape(-1), "all")
        return multihost_utils.global_array_to_host_local_array(tree, flat, P())

    def whole(tree: Tree) -> Tree:
        return local(tree) if several or parts == 1 else put(tree)

    resident = put(store.resident)
    totals = [zeros(method, phase, store.shape) for phase in method.phases]

    first = start(method, store)

    def compile_step(phase: Phase) -> Any:
        step = accumulating(phase, store)
        step = still_in_parts(step, parts) if parts > 1 else step
        step = folded(step) if fold else step
        if replicas is not None:
            axes = (0, None, 1, None) if fold else (0, None, 0)
            step = jax.vmap(step, axes, spmd_axis_name="replica" if mesh else None)
        return jax.jit(step, donate_argnums=0, compiler_options=compiler_options)

    compiled = [compile_step(phase) for phase in method.phases]
    compiled_init = jax.jit(first if replicas is None else jax.vmap(first, (0, 0, None)))

    def placed(given: Any) -> Any:
        """What a step is handed, on the mesh; without one the step takes it from the host, or has it ahead."""
        if mesh:
            return put(given, *leading, "data")
        return given if store.folds else jax.device_put(given)

    def begin(state: Replica, phase: int, sums: Sums | None = None) -> tuple[Replica, Metrics]:
        sums = {name: np.zeros(shape, value.dtype) for name, value in totals[phase].items()} if sums is None else sums
        return state, {name: put(value, *leading) for name, value in sums.items()}

    def run(state: Replica, phase: int, rows: Rows, steps: int, sums: Sums | None) -> tuple[Replica, Metrics]:
        carry, step = begin(state, phase, sums), compiled[phase]
        with here():
            if fold:
                return step(carry, resident, put(padded(rows, longest), None, *leading, "data"), steps)
            for given in store.ahead(rows, placed):
                carry = step(carry, resident, given)
        return carry

    def lower(state: Replica, phase: int, rows: Rows) -> jax.stages.Lowered:
        with here():
            if fold:
                together = padded(Rows(*(part[None] for part in rows)), longest)
                return compiled[phase].lower(begin(state, phase), resident, put(together, None, *leading, "data"), 1)
            return compiled[phase].lower(begin(state, phase), resident, placed(store.given(rows)))

    def init(seeds: Any, rows: Rows) -> Replica:
        state = compiled_init(seeds, read(store.given(rows)), store.resident)
        return processes.broadcast_tree(state, state) if several else state  # another processor may round otherwise

    return StepPrograms(
        lambda tree: put_as(tree, parts_of(tree, parts, *leading)),
        local,
        whole,
        init,
        run,
        lower,
        compiled.__getitem__,
        mesh.size if mesh else 1,
        totals,
    )


def looped(programs: StepPrograms, replicas: int, at_once: int) -> Replicas:
    """The placement `loop`: `states` is a list, `at_once` of its replicas advance at a time; programs are of one."""
    pool = ThreadPoolExecutor(at_once)

    def init(seeds: Sequence[int], rows: Rows) -> Tree:
        each = enumerate(np.asarray(seeds))
        return [programs.put(programs.init(seed, Rows(*(part[i] for part in rows)))) for i, seed in each]

    def advance(
        states: Tree, phase: int, rows: Rows, steps: int, active: Sequence[bool], sums: Sums | None = None
    ) -> tuple[Tree, Sums]:
        names = programs.zeros[phase]

        def train(i: int) -> tuple[Tree, Any]:
            own = names if sums is None else {name: np.asarray(sums[name][i]) for name in names}
            if not active[i]:
                return states[i], own
            part = Rows(*(part[:, i] for part in rows))
            return jax.block_until_ready(programs.run(states[i], phase, part, steps, own))

        results = list(pool.map(train, range(replicas)))
        added = {name: np.array([np.asarray(its[name]) for _, its in results]) for name in names}
        return [state for state, _ in results], added

    return Replicas(
        "loop",
        init,
        advance,
        stack=lambda states: jax.tree.map(lambda *leaves: jnp.stack(leaves), *programs.local(states)),
        place=lambda tree: [programs.put(jax.tree.map(lambda leaf, i=i: leaf[i], tree)) for i in range(replicas)],
        replica=lambda states, index: programs.whole(states[index].state),
        step=programs.step,
        lower=lambda states, phase, rows: programs.lower(states[0], phase, Rows(*(part[0] for part in rows))),
        devices=programs.devices,
    )


def vmapped(programs: StepPrograms) -> Replicas:
    """The placement `vmap`: `states` is stacked, one program advances them all."""

    def advance(
        states: Tree, phase: int, rows: Rows, steps: int, active: Sequence[bool], sums: Sums | None = None
    ) -> tuple[Tree, Sums]:
        states, added = programs.run(states, phase, rows, steps, sums)
        return states, {name: np.asarray(value) for name, value in programs.local(added).items()}

    return Replicas(
        "vmap",
        lambda seeds, rows: programs.put(programs.init(np.asarray(seeds), rows)),
        advance,
        stack=lambda states: jax.tree.map(jnp.copy, programs.local(states)),
        place=programs.put,
        replica=lambda states, index: jax.tree.map(lambda leaf: leaf[index], programs.whole(states.state)),
        step=programs.step,
        lower=programs.lower,
        devices=programs.devices,
    )


def pmapped(
    method: Method, store: Store, replicas: int, devices: Sequence[jax.Device], longest: int, fold: bool
) -> Replicas:
    """The placement `pmap`: each device trains its own replicas, stacked where it has several.

    All have as many: where fewer are left for the last, the last replica is trained again in their place, for nothing.
    """
    count, each = evenly(replicas, len(devices))
    devices, filled = list(devices)[:count], np.minimum(np.arange(count * each), replicas - 1)
    totals = [zeros(method, phase, store.shape) for phase in method.phases]
    resident = jax.pmap(lambda _, x: x, in_axes=(0, None), devices=devices)(np.zeros(count), store.resident)
    by_device = resident.sharding

    def spread(tree: Tree, axis: int = 0) -> Tree:
        """(..., S, ...) -> (devices, ..., replicas of one device, ...); the inner axis is dropped where it is 1."""

        def divide(leaf: Any) -> Any:
            leaf = leaf if len(filled) == replicas else leaf[(slice(None),) * axis + (filled,)]
            leaf = leaf.reshape(*leaf.shape[:axis], count, each, *leaf.shape[axis + 1 :])
            leaf = np.moveaxis(leaf, axis, 0) if isinstance(leaf, np.ndarray) else jnp.moveaxis(leaf, axis, 0)
            return leaf.squeeze(axis + 1) if each == 1 else leaf

        return jax.tree.map(divide, tree)

    def together(leaf: Any) -> Any:
        """(devices, replicas of one device, ...) -> (S, ...)"""
        return leaf if each == 1 else leaf.reshape(-1, *leaf.shape[2:])[:replicas]

    def stack(states: Tree) -> Tree:
        return jax.tree.map(lambda leaf: jnp.copy(together(leaf)), states)

    def within(function: Callable[..., Any], axes: tuple[int | None, ...]) -> Callable[..., Any]:
        return function if each == 1 else jax.vmap(function, axes)

    def compile_step(phase: Phase) -> Any:
        step = accumulating(phase, store)
        if fold:
            return jax.pmap(
                within(folded(step), (0, None, 1, None)), in_axes=(0, 0, 0, None), devices=devices, donate_argnums=0
            )
        return jax.pmap(within(step, (0, None, 0)), devices=devices, donate_argnums=0)

    compiled = [compile_step(phase) for phase in method.phases]

    def init(seeds: Sequence[int], rows: Rows) -> Tree:
        first = jax.pmap(within(start(method, store), (0, 0, None)), devices=devices)
        return first(spread(np.asarray(seeds)), spread(store.given(rows)), resident)

    def begin(states: Tree, phase: int, sums: Sums | None = None) -> tuple[Tree, Metrics]:
        nothing = {name: np.zeros(replicas, value.dtype) for name, value in totals[phase].items()}
        return states, spread(nothing if sums is None else sums)

    def lower(states: Tree, phase: int, rows: Rows) -> jax.stages.Lowered:
        if fold:
            folded_rows = spread(padded(Rows(*(part[None] for part in rows)), longest), 1)
            return compiled[phase].lower(begin(states, phase), resident, folded_rows, 1)
        return compiled[phase].lower(begin(states, phase), resident, spread(store.given(rows)))

    def advance(
        states: Tree, phase: int, rows: Rows, steps: int, active: Sequence[bool], sums: Sums | None = None
    ) -> tuple[Tree, Sums]:
        carry = begin(states, phase, sums)
        if fold:
            carry = compiled[phase](carry, resident, spread(padded(rows, longest), 1), steps)
        else:
            for given in store.ahead(rows, spread):
                carry = compiled[phase](carry, resident, given)
        states, added = carry
        return states, {name: together(np.asarray(value)) for name, value in added.items()}

    def place(tree: Tree) -> Tree:
        return jax.device_put(spread(tree), by_device)

    def replica(states: Tree, index: int) -> State:
        return jax.tree.map(lambda leaf: leaf[index], stack(states).state)

    return Replicas("pmap", init, advance, stack, place, replica, compiled.__getitem__, lower, count)
