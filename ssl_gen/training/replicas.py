"""Where the replicas of a run live: one step, written for one model and one batch, carried to many.

`Replicas` hold S replicas (seeds with their own masks) in one of three placements:

    loop   a list of states, one compiled step called for each, as many at a time as there are cores (a CPU: 1.4 times
           as fast as one after the other on two cores, as small steps leave cores idle)
    vmap   states stacked on a leading axis, one program for all (one accelerator)
    pmap   the stack spread over devices, each training its own replicas, nothing communicated

`loop` and `vmap` also divide each batch over `data_parallel` devices of a mesh; a mean in a loss is then the mean over
the whole batch, so the numbers are those of one device up to rounding. What is learnt lies on all of them or, with
`shard`, in parts on each. The mesh may span several processes, `pmap` stays within one. On accelerators a segment of
steps is folded into one call; on a CPU it is a Python loop over the compiled step, where nothing is gained by folding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax

from ssl_gen.core.compiling import compiler_options
from ssl_gen.core.machine import cores
from ssl_gen.core.memory import Memory, saving
from ssl_gen.datasets.store import Store
from ssl_gen.training.mesh import make_mesh
from ssl_gen.training.placements import looped, make_step_programs, pmapped, vmapped
from ssl_gen.training.programs import Replicas
from ssl_gen.types import Method, UserError

Mode = Literal["auto", "loop", "vmap", "pmap"]


def choose_placement(
    mode: Mode, replicas: int, data_parallel: int, devices: Sequence[jax.Device], several: bool = False
) -> str:
    """The placement for `auto`: spread over devices, else stacked on an accelerator, else one after the other.

    several: the devices are of several processes, over which a stack is spread as a mesh.
    """
    if mode != "auto":
        return mode
    if data_parallel == 1 and min(replicas, len(devices)) > 1:
        return "vmap" if several else "pmap"
    if devices[0].platform == "cpu" and not (data_parallel > 1 and len(devices) // data_parallel > 1 < replicas):
        return "loop"
    return "vmap"


def check_divisible(method: Method, data_parallel: int) -> None:
    """Raise UserError where a phase's batches cannot be divided over the devices."""
    for phase in method.phases:
        for what, size in (("labelled_batch", phase.labelled), ("unlabelled_batch", phase.unlabelled)):
            if size % data_parallel:
                raise UserError(f"{what} {size} cannot be divided over --data-parallel {data_parallel} devices")


def make_replicas(
    method: Method,
    store: Store,
    replicas: int,
    mode: Mode = "auto",
    data_parallel: int = 1,
    longest: int = 100,
    fold: bool | None = None,
    several: bool = False,
    shard: bool = False,
    memory: Memory | None = None,
) -> Replicas:
    """Place `replicas` copies of a method on this process's devices, or on those of all processes (`several`).

    `longest` bounds the steps of one `advance`; `fold` None folds steps on accelerators only, where the store's may be
    folded; `memory` is how steps save it, None for not. Raises UserError where devices or batch sizes do not fit.
    """
    memory = memory or Memory()
    method = saving(method, memory)
    devices = jax.devices() if several else jax.local_devices()
    placement = choose_placement(mode, replicas, data_parallel, devices, several)
    fold = store.folds and (devices[0].platform != "cpu" if fold is None else fold)
    if shard and mode == "pmap":
        raise UserError("--replicas pmap gives each device whole states; with --shard-params use vmap or loop")
    if shard and data_parallel == 1:
        raise UserError("--shard-params divides over the devices that share a batch: give --data-parallel 2 or more")
    if placement == "pmap" and data_parallel > 1:
        raise UserError("--replicas pmap gives each device its own seeds; with --data-parallel use vmap or loop")
    if placement == "pmap" and several:
        raise UserError("--replicas pmap stays within one process; with --distributed use vmap or loop")
    if placement == "pmap":
        return pmapped(method, store, replicas, devices, longest, fold)
    mesh = make_mesh(replicas, data_parallel, devices, placement)
    check_divisible(method, data_parallel)
    stacked = replicas if placement == "vmap" else None
    # the devices of a mesh are at work together, and so are replicas in a loop
    at_once = mesh.size if mesh else replicas if placement == "loop" else 1
    compiled_with = compiler_options(devices[0].platform, memory.remat, at_once)
    programs = make_step_programs(method, store, stacked, mesh, longest, fold, shard, compiled_with)
    if placement == "vmap":
        return vmapped(programs)
    return looped(programs, replicas, 1 if mesh else cores())  # collectives of two programs at once can starve
