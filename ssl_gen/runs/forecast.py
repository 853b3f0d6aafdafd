"""What a run will cost before it is started: memory, operations and bytes of its compiled steps (`train --dry-run`)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax

from ssl_gen.core.machine import cores
from ssl_gen.core.wording import size
from ssl_gen.datasets.batches import Rows
from ssl_gen.reports.tables import MISSING, text_table
from ssl_gen.runs.cost import flop
from ssl_gen.runs.data import Data
from ssl_gen.runs.options import Options
from ssl_gen.runs.train import begin, prepare
from ssl_gen.training.segments import Segment
from ssl_gen.types import State, Tree, UserError


class PhaseCost(NamedTuple):
    """One step of a phase."""

    name: str
    steps: int
    memory: int | None  # bytes that one device holds at most, all of its seeds together; None where jax cannot say
    operations: float | None  # of one seed, forward and backward
    traffic: float | None  # bytes that the compiled step reads and writes, of all seeds of a call


class Forecast(NamedTuple):
    """What is known of a run without a step of it."""

    parameters: dict[str, int]  # of each player, of one seed
    images: int  # bytes of the training images
    resident: int  # bytes of them that every device holds
    state: int  # bytes of all that one seed learns, optimiser states and averages among it
    part: int  # bytes of it that each of the seed's devices holds
    phases: list[PhaseCost]
    device: str
    placement: str
    limit: int | None  # bytes that the device has for jax, where it says so


def forecast(name: str, config: Any = None, options: Options | None = None, data: Data | None = None) -> Forecast:
    """Prepare a run as `train` does, start its seeds and compile its steps; nothing is trained and nothing written.

    The arguments are those of `train`. Raises UserError for what `train` refuses, and for a method that has no steps.
    """
    options = options or Options()
    job = prepare(name, config, options, data=data)
    method, data = job.compiled.method, job.data
    if method.fit:
        raise UserError(f"{name} is fitted in one go and compiles no step: leave out --dry-run")
    replicas, states, rows_of, store = begin(job, min(job.every))
    first = replicas.replica(states, 0)
    alone = size_of(first)
    part = part_on_a_device(states, replicas.mode) if options.shard_params else alone
    phases = []
    for index, phase in enumerate(method.phases):
        rows = Rows(*(part[0] for part in rows_of(Segment(index, 0, 0, 1))))
        compiled = replicas.lower(states, index, rows).compile()
        memory = held(compiled.memory_analysis(), replicas.mode, len(data.seeds), part)
        operations = flop(method, phase, data.dataset.spec.shape)
        traffic = (compiled.cost_analysis() or {}).get("bytes accessed")
        phases.append(PhaseCost(phase.name, phase.steps, memory, operations, traffic))
    devices = jax.local_devices()
    players = {key: part.params for key, part in first._asdict().items() if hasattr(part, "params")}
    parameters = {key: sum(leaf.size for leaf in jax.tree.leaves(params)) for key, params in players.items()}
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    device = f"{len(devices)} x {devices[0].device_kind}"
    images, resident = data.dataset.train_images.nbytes, store.resident.nbytes
    return Forecast(parameters, images, resident, alone, part, phases, device, replicas.mode, limit)


def held(memory: Any, mode: str, seeds: int, part: int) -> int | None:
    """Bytes that a device holds while a step runs: what it is given, what it gives less what it overwrites, and room.

    memory: jax's analysis of the compiled step, None where it has none. In the placement `loop` the program is of one
    seed: the states of the others, `part` bytes each, wait beside it, and on a processor as many run at a time as
    there are cores.
    """
    if memory is None:
        return None
    given = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    if mode != "loop":
        return given + memory.temp_size_in_bytes
    return given + (seeds - 1) * part + min(seeds, cores()) * memory.temp_size_in_bytes


def size_of(state: State) -> int:
    """Bytes of a state; keys count as the words they are made of."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def part_on_a_device(states: Tree, mode: str) -> int:
    """`size_of` what one device of a mesh holds of a seed; `states` are those of the placement `loop` or `vmap`."""
    one, axis = (states[0].state, 0) if mode == "loop" else (states.state, 1)
    leaves = jax.tree.leaves(one)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)[axis:]) * leaf.dtype.itemsize for leaf in leaves)


def words(found: Forecast) -> str:
    """A forecast as it is printed: a table of phases, and below it what all of them share."""
    headers = ["phase", "steps", "memory a device", "operations a seed and step", "bytes a step"]
    rows = []
    for phase in found.phases:
        memory = MISSING if phase.memory is None else size(phase.memory)
        operations = MISSING if phase.operations is None else f"{phase.operations / 1e9:.3g} GFLOP"
        traffic = MISSING if phase.traffic is None else size(round(phase.traffic))
        rows.append([phase.name, f"{phase.steps:,}", memory, operations, traffic])
    players = ", ".join(f"{name} {number:,}" for name, number in found.parameters.items())
    parts = "" if found.part == found.state else f", {size(found.part)} of it on each device"
    said = [text_table(headers, rows), f"parameters: {players}; a seed's state is {size(found.state)}{parts}"]
    where = "on each device" if found.resident else "streamed, a step's at a time"
    said += [f"images: {size(found.images)} {where}; seeds by {found.placement} on {found.device}"]
    needed = [phase.memory for phase in found.phases if phase.memory is not None]
    if found.limit is not None and needed:
        fits = "it fits" if max(needed) <= found.limit else "it does not fit"
        said += [f"{fits}: {size(max(needed))} of {size(found.limit)} that the device has"]
    return "\n".join(said)
