"""Meshes of devices, of one process or of several."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from ssl_gen.types import UserError


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


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(size for size in range(min(number, limit), 0, -1) if number % size == 0)
