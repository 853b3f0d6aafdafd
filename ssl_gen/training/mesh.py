"""Meshes of devices, of one process or of several, and how states lie on them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from ssl_gen.types import TrainState, Tree, UserError

# Numbers of a leaf below which it lies whole on each device; ours. Each leaf in parts costs the latency of a message
# wherever it is used; the smaller ones, 55 of the 80 of a WRN-28-2, are 0.5 % of it.
WHOLE_BELOW = 4_096


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


def evenly(number: int, limit: int) -> tuple[int, int]:
    """The fewest parts, at most `limit`, in which so many things go with as few as can be in each: (parts, in each)."""
    each = -(-number // limit)
    return -(-number // each), each


def idle(seeds: int, data_parallel: int, used: int, devices: int) -> str | None:
    """What leaves devices without work though there are as many seeds, in words; None where none is.

    used: of `devices`, `data_parallel` a seed or a stack of seeds.
    """
    groups = devices // data_parallel
    if used >= min(seeds, groups) * data_parallel:
        return None
    fewer = seeds // groups * groups
    numbers = " or ".join(str(number) for number in (fewer, fewer + groups) if number)
    return (
        f"{seeds} seeds train on {used} of {devices} devices, for they do not divide over all: "
        f"--seeds {numbers} would use all"
    )


def part_of(shape: tuple[int, ...], devices: int) -> P:
    """How a leaf lies over the devices of the axis `data`: along its largest axis that their number divides.

    One without such an axis, and one that is small, lies whole on each.
    """
    fitting = [axis for axis, length in enumerate(shape) if length % devices == 0]
    if not fitting or math.prod(shape) < WHOLE_BELOW:
        return P()
    longest = max(fitting, key=lambda axis: shape[axis])
    return P(*[None] * longest, "data")


def parts_of(state: Tree, devices: int, *leading: str | None) -> Tree:
    """`part_of` for each leaf of the players in a state, behind the axes `leading`; all else of it lies whole on each.

    One device: everything is whole. Source of the division: Zhao et al. 2023, arXiv:2304.11277 (FSDP), sec. 3.
    """

    def of(part: Tree) -> Tree:
        divided = devices > 1 and isinstance(part, TrainState)
        return jax.tree.map(
            lambda leaf: P(*leading, *(part_of(leaf.shape[len(leading) :], devices) if divided else ())), part
        )

    return jax.tree.map(of, state, is_leaf=lambda part: isinstance(part, TrainState))
