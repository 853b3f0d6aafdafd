"""Convolutions on the cores of a CPU: as XLA compiles them by itself, and divided as `core/compiling.py` has it.

    python -m benchmarks.divided [--quick] [--record]   one JSON line a comparison; ten minutes, or seconds with --quick

    step        a step of training of one seed, which has all cores to itself
    seeds       steps of as many seeds as there are cores, each in a thread
    inference   500 images classified, or drawn; with "beside", two such calls side by side
    encoder     a pretrained network's features of few images a core (extra `pretrained`; left out without it)

`ratio` is the seconds of the divided program over those of the plain one, the median of the rounds: in each, one runs
after the other in this process, so that a busy machine slows both. `core/compiling.py` divides steps of one seed and
what is no training. On one core there is nothing to divide.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import pages
from benchmarks.pages import Case, made
from benchmarks.step import interleaved, machine, rounded, say, started, trainer
from ssl_gen.core import compiling
from ssl_gen.core.machine import cores
from ssl_gen.evaluation import features
from ssl_gen.evaluation.inference import BATCH, compiled
from ssl_gen.evaluation.kept_features import mapped
from ssl_gen.training.cache import keep_compiled
from ssl_gen.types import UserError, able

RECORD = Path(__file__).with_suffix(".json")
WAYS = {"plain": 0, "divided": 2**20}  # cores that the compiler is told of
ROUNDS, IMAGES, SIDE = 5, 240, 160  # of an encoder's images, and the pixels it sees
ENCODER = "efficientnet_lite0"

What = Literal["classify", "sample"]
Calls = dict[str, Callable[[], object]]  # way -> the call that is timed


def both_ways(make: Callable[[], Callable[[], object]]) -> Calls:
    """make() -> a call, compiled in each of the ways."""
    calls = {}
    for way, told in WAYS.items():
        with mock.patch.object(compiling, "cores", return_value=told):
            calls[way] = make()
            jax.block_until_ready(calls[way]())  # compiled while the compiler is told so
    return calls


def steps_of(case: Case, seeds: int) -> Callable[[], object]:
    """A step of each seed, in a loop as on a CPU."""
    method, data = made(case, seeds)
    program, states = started(method, data, "loop")
    return functools.partial(trainer(program, method, data, states), 1)


def inference_of(case: Case, what: What, beside: int) -> Callable[[], object]:
    """`beside` calls side by side, on the images that one call of `evaluation/inference.py` sees."""
    method, data = made(case)
    program, states = started(method, data, "loop")
    state, functions = program.replica(states, 0), compiled(method)
    images, labels = map(jnp.asarray, (data.dataset.train_images[:BATCH], data.dataset.train_labels[:BATCH]))
    sampler = method.sampler
    if hasattr(sampler, "steps"):
        sampler = dataclasses.replace(sampler, steps=2)

    def once(_: int) -> object:
        if what == "classify":
            return jax.block_until_ready(able(functions.classify)(state, images))
        return jax.block_until_ready(able(functions.sample)(state, jax.random.key(0), labels, sampler))

    pool = ThreadPoolExecutor(beside)
    return lambda: list(pool.map(once, range(beside)))


def encoder_of(extractor: features.Extractor) -> Callable[[], object]:
    """Features of IMAGES images, none kept from before, a call a core as `evaluation/kept_features.py` makes them."""
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), np.uint8)
    encode = compiling.jit_inference(features.encoding(extractor.architecture))
    return functools.partial(mapped, functools.partial(encode, extractor.variables), images)


def line(kind: str, name: str, calls: Calls, rounds: int) -> dict[str, Any]:
    """Calls made in both ways, in turn."""
    times = interleaved(calls, rounds)
    ratio = statistics.median(d / p for d, p in zip(times["divided"], times["plain"], strict=True))
    seconds = {way: statistics.median(each) for way, each in times.items()}
    return {"kind": kind, "name": name, "seconds": rounded(seconds)} | rounded({"ratio": ratio}) | machine()


def lines(cases: dict[str, Case], rounds: int) -> Iterator[dict[str, Any]]:
    """All comparisons, in the order of this page."""
    for name, case in cases.items():
        yield line("step", name, both_ways(functools.partial(steps_of, case, 1)), rounds)
    for name, case in cases.items():
        yield line("seeds", name, both_ways(functools.partial(steps_of, case, cores())), rounds)
    for name, case in cases.items():
        what: What = "classify" if made(case)[0].classify else "sample"
        for kind, beside in (("inference", 1), ("inference, beside", 2)):
            calls = both_ways(functools.partial(inference_of, case, what, beside))
            yield line(kind, f"{name}: {what}", calls, rounds)
    try:
        extractor = features.find_extractor(ENCODER, pages.PHOTOGRAPHS, "random", "", SIDE)
    except UserError as why:
        yield {"kind": "encoder", "skipped": str(why)}
    else:
        yield line("encoder", f"{ENCODER}, {SIDE} pixels", both_ways(lambda: encoder_of(extractor)), rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one tiny network, to see that it runs")
    parser.add_argument("--record", action="store_true", help="write the lines to benchmarks/divided.json")
    asked = parser.parse_args()
    keep_compiled()
    say(lines(pages.TINY, 1) if asked.quick else lines(pages.FULL, ROUNDS), RECORD if asked.record else None)


if __name__ == "__main__":
    main()
