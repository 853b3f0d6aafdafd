"""Large pages of memory: convolutional networks on a CPU, in processes that glibc gives its memory in two ways.

    python -m benchmarks.pages [--quick]      one JSON line a network; a quarter of an hour, or seconds with --quick

A step of a convolutional network takes and gives back hundreds of MiB. As Linux and glibc come, each of them is a page
of 4 KiB that the system clears anew; with `GLIBC_TUNABLES=TUNED` (in `docs/own_images.md`) pages are of 2 MiB and stay
with the process. `ratio` is the seconds of a step as they come over those so, the median of the rounds: in each, one
process runs after the other, so that a busy machine slows both. `peak_mib` is what each held at most.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.step import (
    PHOTOGRAPHS,
    SPEC,
    longest,
    machine,
    peak_memory,
    random_data,
    rounded,
    say,
    seconds_of,
    started,
    trainer,
)
from ssl_gen.methods import METHODS
from ssl_gen.methods.adversarial import conditional_gan
from ssl_gen.methods.classical import supervised
from ssl_gen.methods.diffusion import flow_matching
from ssl_gen.methods.self_training import fixmatch
from ssl_gen.runs.data import Data
from ssl_gen.training.cache import keep_compiled
from ssl_gen.types import ImageSpec, Method

TUNED = "glibc.malloc." + ":glibc.malloc.".join(
    ("hugetlb=1", "arena_max=1", "mmap_max=0", "trim_threshold=100000000000")
)
WAYS = {"plain": "", "tuned": TUNED}


class Case(NamedTuple):
    """A method at settings with convolutions, for images of `spec`."""

    method: str
    config: Any
    spec: ImageSpec
    steps: int  # of one process


FULL = {
    "airbench, 1024 images": Case("supervised", dataclasses.replace(supervised.FAST, width=32), PHOTOGRAPHS, 5),
    "airbench, 64 + 192": Case("fixmatch", fixmatch.QUICK, PHOTOGRAPHS, 15),
    "conv, 32 + 160": Case("fixmatch", fixmatch.Config(), SPEC, 40),
    "unet, 64": Case("flow_matching", flow_matching.Config(fold=True, unlabelled="left_out"), SPEC, 40),
    "conv, generator and discriminator": Case("conditional_gan", conditional_gan.Config(), SPEC, 10),
}
TINY = {"airbench": Case("supervised", supervised.Config(network="airbench", width=4, labelled_batch=8), SPEC, 2)}
ROUNDS = 5


def made(case: Case, seeds: int = 1) -> tuple[Method, Data]:
    """The method, and noise for it to learn."""
    data = random_data(2_000, seeds, case.spec)
    return METHODS[case.method].make(case.config, data.spec), data


def own(case: Case) -> dict[str, Any]:
    """The seconds of a step in this process, the median of `case.steps`, after two more, of which one compiles."""
    method, data = made(case)
    program, states = started(method, data)
    train = trainer(program, method, data, states)
    _, _, *each = (seconds_of(lambda: train(1)) for _ in range(2 + case.steps))
    phase = method.phases[longest(method)].name
    return {"phase": phase, "seconds": statistics.median(each), "peak_mib": peak_memory()["peak_host_mib"]}


def child(name: str, quick: bool, tunables: str) -> dict[str, Any]:
    """`own` of a case in a new process with these GLIBC_TUNABLES."""
    command = [sys.executable, "-m", "benchmarks.pages", "--own", name, *["--quick"] * quick]
    environment = os.environ | {"GLIBC_TUNABLES": tunables}
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def line(name: str, run: Callable[[str], dict[str, Any]], rounds: int) -> dict[str, Any]:
    """One network; run(tunables) -> what `own` says."""
    taken = [{way: run(tunables) for way, tunables in WAYS.items()} for _ in range(rounds)]
    ratios = [each["plain"]["seconds"] / each["tuned"]["seconds"] for each in taken]
    seconds = {way: statistics.median(each[way]["seconds"] for each in taken) for way in WAYS}
    peak = {way: max(each[way]["peak_mib"] for each in taken) for way in WAYS}
    about = {"kind": "pages", "name": name, "phase": taken[0]["plain"]["phase"], "seconds_per_step": rounded(seconds)}
    return about | rounded({"ratio": statistics.median(ratios)}) | {"peak_mib": peak} | machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one tiny network, to see that it runs")
    parser.add_argument("--own", metavar="NAME", help="one network's step, in this process")
    given = parser.parse_args()
    cases, rounds = (TINY, 1) if given.quick else (FULL, ROUNDS)
    keep_compiled()
    if given.own:
        print(json.dumps(own(cases[given.own])))
        return
    say(line(name, functools.partial(child, name, given.quick), rounds) for name in cases)


if __name__ == "__main__":
    main()
