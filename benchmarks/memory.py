"""Memory of a step: what `train --dry-run` says before it, beside what the step takes.

    python -m benchmarks.memory [--quick] [--only PART]      one JSON line a case; half an hour, or seconds with --quick

    classifier   `fixmatch` with WRN-28-2, 64 labelled and 448 unlabelled images of 32 x 32 x 3: plain, and with
                 `--remat`; its batch norm forbids `--accumulate`
    field        `flow_matching` with a U-Net of 60 million parameters, 64 images: as it is, with `--accumulate 4`, with
                 `--remat`, with both

Every line comes from a process of its own. `predicted_mib` is the forecast's, `measured_mib` what the process holds at
most in a step (Linux resets VmHWM by request) less what it held before it, and the state and the images, which lie
there already; on an accelerator it is the device's own count of the most it held, from the start of the process.
`ratio` is predicted over measured.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import gc
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.step import PHOTOGRAPHS, alone, machine, random_data, rounded, say
from ssl_gen.methods.diffusion import flow_matching
from ssl_gen.methods.self_training import fixmatch
from ssl_gen.runs.forecast import PhaseCost, forecast
from ssl_gen.runs.options import Options
from ssl_gen.runs.train import begin, prepare
from ssl_gen.training.cache import keep_compiled
from ssl_gen.training.segments import Segment

WITHIN = 0.2  # of what is measured; a target, ours
MIB = 2**20


class Scale(NamedTuple):
    """How large the networks and batches are."""

    classifier: fixmatch.Config
    field: flow_matching.Config
    images: int  # training images


FULL = Scale(
    fixmatch.PHOTOGRAPHS,
    dataclasses.replace(
        flow_matching.PHOTOGRAPHS, widths=(240, 480, 480), unlabelled="null", labelled_batch=64, unlabelled_batch=64
    ),
    2_000,
)
QUICK = Scale(
    dataclasses.replace(FULL.classifier, network="mlp", labelled_batch=8, unlabelled_batch=24),
    dataclasses.replace(FULL.field, widths=(8,), blocks=1, attention=(), labelled_batch=8, unlabelled_batch=8),
    200,
)
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "remat": {"remat": True},
    "accumulate 4": {"accumulate": 4},
    "accumulate 4 and remat": {"accumulate": 4, "remat": True},
}


def held_now() -> tuple[int, int]:
    """(bytes that this process holds, the most it held since the last `forget_the_most`)."""
    found = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", Path("/proc/self/status").read_text()))
    return int(found["VmRSS"]) * 2**10, int(found["VmHWM"]) * 2**10


def forget_the_most() -> None:
    """From here on the most is counted anew; what was freed goes back first, or a step would take it unseen."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def line(name: str, config: Any, way: str, images: int) -> dict[str, Any]:
    """One case, in this process; the step is compiled once, for the forecast, and read from jax's cache after it."""
    jax.config.update("jax_enable_compilation_cache", True)
    keep_compiled()
    data = random_data(images, 1, PHOTOGRAPHS)
    options = Options(store="device", samples=100, **WAYS[way])
    cost = forecast(name, config, options, data)
    (phase,) = cost.phases
    job = prepare(name, config, options, data=data)
    replicas, states, rows_of, _ = begin(job, 1)
    seconds = []
    for step in range(2):  # the first compiles
        rows = rows_of(Segment(0, 0, step, step + 1))
        forget_the_most()
        before, _ = held_now()
        start = time.perf_counter()
        states, _ = jax.block_until_ready(replicas.advance(states, 0, rows, 1, [True]))
        seconds.append(time.perf_counter() - start)
    measured = measured_bytes(before, cost.state + cost.resident)
    what = {"kind": name, "way": way, "parameters": sum(cost.parameters.values())}
    main = job.compiled.method.phases[0]
    what["images_a_step"] = main.labelled + main.unlabelled
    return what | compared(phase, measured) | {"seconds": round(seconds[-1], 2)} | machine()


def measured_bytes(before: int, there: int) -> int:
    """What was held at most, with what lay there before."""
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] if stats else held_now()[1] - before + there


def compared(phase: PhaseCost, measured: int) -> dict[str, Any]:
    assert phase.memory is not None, "jax cannot say on this device"
    numbers = {"predicted_mib": phase.memory / MIB, "measured_mib": measured / MIB}
    return rounded(numbers | {"ratio": phase.memory / measured}) | {"within": WITHIN}


def lines(scale: Scale, part: str = "") -> Iterator[dict[str, Any]]:
    """All cases whose method's name has `part` in it."""
    cases: list[tuple[str, Any, str]] = [("fixmatch", scale.classifier, way) for way in ("plain", "remat")]
    cases += [("flow_matching", scale.field, way) for way in WAYS]
    for name, config, way in cases:
        if part in name:
            yield alone(line, name, config, way, scale.images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny networks, to see that it runs")
    parser.add_argument("--only", default="", help="methods whose name has this in it")
    asked = parser.parse_args()
    say(lines(QUICK if asked.quick else FULL, asked.only))


if __name__ == "__main__":
    main()
