"""Where the replicas of a run live: one step, written for one model and one batch, carried to many.

A `Program` holds S replicas (seeds with their own masks) in one of three placements:

    loop   a list of states, one compiled step called for each, as many at a time as there are cores (a CPU: 1.4 times
           as fast as one after the other on two cores, as small steps leave cores idle)
    vmap   states stacked on a leading axis, one program for all (one accelerator)
    pmap   the stack spread over devices, each training its own replicas, nothing communicated

`loop` and `vmap` also divide each batch over `data_parallel` devices of a mesh; a mean in a loss is then the mean over
the whole batch, so the numbers are those of one device up to rounding. The mesh may span several processes, `pmap`
stays within one. On accelerators a stretch of steps is folded
into one call; on a CPU it is a Python loop over the compiled step, where nothing is gained by folding.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from ssl_gen.training.placements import looped, pmapped, vmapped
from ssl_gen.training.program import Program
from ssl_gen.types import Method, UserError

Mode = Literal["auto", "loop", "vmap", "pmap"]


def choose(mode: Mode, replicas: int, data_parallel: int, devices: Sequence[jax.Device], several: bool = False) -> str:
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


def make_mesh(replicas: int, data_parallel: int, devices: Sequence[jax.Device], mode: str) -> Mesh | None:
    """A mesh (replica, data), or None for a single device; the processes of `devices` all give as many.

    Raises UserError where there are too few devices, and where a process would have nothing to do.
    """
    processes = sorted({device.process_index for device in devices})
    if data_parallel > len(devices):
        have = "this machine has" if len(processes) == 1 else f"the {len(processes)} processes have"
        raise UserError(f"--data-parallel {data_parallel} needs as many devices; {have} {len(devices)}")
    most = len(devices) // data_parallel if mode == "vmap" else 1
    fitting = [n for n in range(1, most + 1) if replicas % n == 0 and n * data_parallel % len(processes) == 0]
    if not fitting:
        raise UserError(
            f"{len(processes)} processes cannot share --seeds {replicas} with --replicas {mode} and --data-parallel "
            f"{data_parallel}: make --data-parallel a multiple of {len(processes)}"
        )
    rows = fitting[-1]
    if rows * data_parallel == 1:
        return None
    each = rows * data_parallel // len(processes)
    chosen = [[device for device in devices if device.process_index == process][:each] for process in processes]
    return Mesh(
        np.array(chosen).reshape(rows, data_parallel),  # a replica's devices are neighbours
        ("replica", "data"),
        axis_types=(AxisType.Auto, AxisType.Auto),
    )


def check_divisible(method: Method, data_parallel: int) -> None:
    """Raise UserError where a phase's batches cannot be divided over the devices."""
    for phase in method.phases:
        for what, size in (("labelled_batch", phase.labelled), ("unlabelled_batch", phase.unlabelled)):
            if size % data_parallel:
                raise UserError(f"{what} {size} cannot be divided over --data-parallel {data_parallel} devices")


def make_program(
    method: Method,
    images: np.ndarray,
    replicas: int,
    mode: Mode = "auto",
    data_parallel: int = 1,
    longest: int = 100,
    fold: bool | None = None,
    several: bool = False,
) -> Program:
    """Place `replicas` copies of a method on this process's devices, or on those of all processes (`several`).

    images (N, H, W, C) uint8, kept on every device; `longest` bounds the steps of one `advance`; `fold` None folds
    steps on accelerators only. Raises UserError where devices or batch sizes do not fit.
    """
    devices = jax.devices() if several else jax.local_devices()
    mode = choose(mode, replicas, data_parallel, devices, several)
    fold = devices[0].platform != "cpu" if fold is None else fold
    if mode == "pmap" and data_parallel > 1:
        raise UserError("--replicas pmap gives each device its own seeds; with --data-parallel use vmap or loop")
    if mode == "pmap" and several:
        raise UserError("--replicas pmap stays within one process; with --distributed use vmap or loop")
    if mode == "pmap":
        return pmapped(method, images, replicas, devices, longest, fold)
    mesh = make_mesh(replicas, data_parallel, devices, mode)
    check_divisible(method, data_parallel)
    place = vmapped if mode == "vmap" else looped
    return place(method, images, replicas, mesh, longest, fold)


def cache_folder() -> Path:
    """Where things are kept that can be made again: a folder of the user's, XDG_CACHE_HOME/ssl_gen."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssl_gen"


def keep_compiled() -> None:
    """Keep compiled programs on disk between processes: in JAX_COMPILATION_CACHE_DIR, else the user's cache folder."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # else small programs are not kept
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
