"""What an accelerator makes of this library, in at most nine minutes: beside its chip's peak and beside PyTorch.

    python -m benchmarks.accelerator [--tiny] [--only BLOCK ...] [--seconds S] [--out FILE]

A row per measurement on stderr as it comes, a JSON line and a table per block on stdout; with --out all blocks are also
in one JSON file, written anew at each row. Each block runs in a process of its own that is ended at its time limit, so
a crash or a slow compiler costs one block, and what that had measured stands. In order, most valuable first:

    chip         rates of matrix products and of copies, beside what the maker says (`core/chips.py`)
    gan          `feature_matching` with dense networks and a DCGAN-size conditional step, beside their PyTorch twins,
                 eager and by `torch.compile`; `ratio` is JAX's rate over PyTorch's in the same precision
    classifiers  FixMatch on WRN-28-2, 64 + 448 photographs, and airbench's step of 1,024
    seeds        1, 8 and 32 seeds in one program, the dense GAN and FixMatch's small network; `times` is the time of a
                 step of all seeds over that of one; with `body`, convolutions in the ways of `networks/convolution.py`
    flow         a flow's U-Net on photographs of 32 x 32
    metrics      FID of 50,000 x 2,048, precision to coverage of 10,000, the neighbours of 70,000 images; on the host

Steps are measured in float32, as jax multiplies it by default, and in bfloat16 (`core/precision.py`; PyTorch by
autocast). `tflops` are operations of the model (`runs.cost.flop`), forward and backward, and `share` is that
over the chip's peak in the precision of the run, where the chip is known. Images are noise; a timing is the median of
several, each until its result is there, after calls that compile; steps of both libraries are up to 100 a call, as
training makes them. --tiny is for a test of this file and measures nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import step
from benchmarks.metrics import features
from benchmarks.step import machine, random_data, rounded, seconds_of, trainer, write
from ssl_gen.augmentation import Augmentation
from ssl_gen.core import chips
from ssl_gen.core.precision import Precision, products_in
from ssl_gen.graphs import build
from ssl_gen.methods import METHODS
from ssl_gen.methods.adversarial import feature_matching
from ssl_gen.metrics import frechet, manifold
from ssl_gen.networks.convolution import with_body
from ssl_gen.reports.tables import text_table
from ssl_gen.runs import record
from ssl_gen.runs.cost import flop
from ssl_gen.runs.data import Data
from ssl_gen.training.cache import keep_compiled
from ssl_gen.types import ImageSpec, Method

TOTAL = 540  # seconds, of all blocks together
GOALS = {"dense": 1.5, "seeds": 1.5, "wide_resnet": 0.4}  # over torch.compile; 32 seeds' time; share of peak; ours
COMPILED = ("eager", "compiled")  # how PyTorch runs

Row = dict[str, Any]


class Scale(NamedTuple):
    """How much is measured."""

    seconds: float  # of one timed call, about
    repeats: int  # timed calls
    side: int  # of the matrices whose product is timed
    copied: int  # float32 numbers that are read and written
    images: int  # training images
    photographs: ImageSpec
    products: tuple[Precision, ...]
    gan: step.Scale
    gans: tuple[str, ...]
    twins: tuple[str, ...]
    seeds: tuple[int, ...]
    stacked: dict[str, tuple[str, ...]]  # method whose seeds are -> bodies of its convolutions
    small: dict[str, dict[str, Any]]  # method -> changes to its settings
    fid: tuple[int, int]  # samples, width
    prdc: tuple[int, int]
    graph: tuple[int, int]


FULL = Scale(
    seconds=0.5,
    repeats=3,
    side=8192,
    copied=2**28,
    images=10_000,
    photographs=ImageSpec(32, 32, 3, 10),  # CIFAR-10
    products=("float32", "bfloat16"),
    gan=step.FULL,
    gans=("dense", "convolutional"),
    twins=COMPILED,
    seeds=(1, 8, 32),
    stacked={"feature_matching": ("native",), "fixmatch": ("native", "products")},
    small={},
    fid=(50_000, 2048),
    prdc=(10_000, 512),
    graph=(70_000, 784),
)
PLAIN = {"network": "mlp", "hidden": (4,), "augmentation": Augmentation()}  # the least to compile
TINY = Scale(
    seconds=0.001,
    repeats=2,
    side=64,
    copied=2**18,
    images=200,
    photographs=ImageSpec(8, 8, 3, 10),
    products=("float32",),
    gan=step.QUICK,
    gans=("dense",),
    twins=COMPILED[:1],
    seeds=(1, 2),
    stacked={"fixmatch": ("native",)},
    small={
        "fixmatch": PLAIN
        | {"strong": Augmentation(), "optimizer": "adamw", "labelled_batch": 2, "unlabelled_batch": 2},
        "supervised": PLAIN | {"optimizer": "adam", "labelled_batch": 4},
        "flow_matching": {"labelled_batch": 2, "unlabelled_batch": 2, "widths": (4,), "blocks": 1, "attention": ()},
    },
    fid=(100, 16),
    prdc=(50, 8),
    graph=(100, 16),
)


class Block(NamedTuple):
    """Rows that are measured together."""

    seconds: int  # its limit
    rows: Callable[[Scale], Iterator[Row]]


def share(operations: float | None, precision: str) -> dict[str, float]:
    """The rate in 10^12 operations a second, and over the chip's peak where that is known."""
    if operations is None:
        return {}
    peak = chips.peak(jax.devices()[0].device_kind, precision)
    return {"tflops": operations / 1e12} | ({"share": operations / peak} if peak else {})


def median_seconds(call: Callable[[], object], scale: Scale) -> float:
    """Of one of as many calls in a row as take about `scale.seconds`, the wait for the last result included."""
    seconds_of(call)
    count = max(1, min(1_000, round(scale.seconds / max(seconds_of(call), 1e-6))))

    def several() -> object:
        for _ in range(count - 1):
            call()
        return call()

    return statistics.median(seconds_of(several) for _ in range(scale.repeats)) / count


def seconds_of_steps(train: Callable[[int], object], scale: Scale) -> tuple[float, float]:
    """Of one step, in calls of as many as take about `scale.seconds` or as training makes at most; and to compile it.

    train(steps): waits, or is waited for, once a call, whichever library it is of.
    """
    first, warm = (seconds_of(lambda: train(1)) for _ in range(2))
    steps = min(max(round(scale.seconds / warm), 1), step.LONGEST)
    return statistics.median(seconds_of(lambda: train(steps)) for _ in range(scale.repeats)) / steps, first - warm


def chip_rows(scale: Scale) -> Iterator[Row]:
    """Products of square matrices, and a copy, which reads and writes each number."""
    multiply = jax.jit(jnp.matmul)
    words = {"float32": record.precision(), "bfloat16": "bfloat16"}
    for dtype, precision in words.items():
        matrix = jax.random.normal(jax.random.key(0), (scale.side, scale.side), dtype)
        each = median_seconds(functools.partial(multiply, matrix, matrix), scale)
        about = {"name": f"product {scale.side}", "precision": precision, "seconds": each}
        yield about | share(2 * scale.side**3 / each, precision)
    numbers = jnp.ones(scale.copied)
    each = median_seconds(functools.partial(jax.jit(lambda x: x + 1), numbers), scale)
    chip, rate = chips.CHIPS.get(jax.devices()[0].device_kind), 8 * scale.copied / each
    row = {"name": f"copy of {4 * scale.copied / 2**20:.0f} MiB", "seconds": each, "gb_per_second": rate / 1e9}
    yield row | ({"share": rate / 1e9 / chip.memory} if chip else {})


def made(
    name: str, start: Any, spec: ImageSpec, scale: Scale, seeds: int = 1, products: Precision = "float32"
) -> tuple[Method, Data]:
    """A method at the settings `start`, changed as the scale says, and data for it."""
    data = random_data(scale.images, seeds, spec)
    with products_in(products):
        return METHODS[name].make(dataclasses.replace(start, **scale.small.get(name, {})), data.spec), data


def step_row(
    name: str,
    method: Method,
    data: Data,
    scale: Scale,
    products: Precision = "float32",
    keep: Callable[[Any], None] | None = None,
) -> Row:
    """Steps of a method's longest phase, of all seeds of `data` in the placement that training chooses.

    products: the precision that the method was made in; keep: is given the state of the first seed before its first
    step.
    """
    phase, seeds = method.phases[step.longest(method)], len(data.masks)
    program, states = step.started(method, data)
    if keep:
        keep(jax.tree.map(np.asarray, program.replica(states, 0)))
    each, compiling = seconds_of_steps(trainer(program, method, data, states), scale)
    operations, precision = flop(method, phase, data.dataset.spec.shape), record.precision(products)
    rates = {"steps_per_second": 1 / each, "images_per_second": seeds * (phase.labelled + phase.unlabelled) / each}
    about = {"name": name, "precision": precision, "seeds": seeds, "placement": program.mode}
    costs = share(operations and seeds * operations / each, precision)
    return about | rates | costs | {"seconds": each, "compile_seconds": compiling}


def gan_rows(scale: Scale) -> Iterator[Row]:
    """Both steps in JAX first, then their twins, which start from the same weights."""
    config = feature_matching.Config(**step.preset(feature_matching, scale.gan))
    data = random_data(scale.images, 1)
    states: dict[str, Any] = {}
    seconds: dict[tuple[str, Precision], float] = {}
    for products in scale.products:
        with products_in(products):
            dense, convolutional = feature_matching.make(config, data.spec), step.conditional_gan(scale.gan)
        methods = {"dense": dense, "convolutional": convolutional}
        for name in scale.gans:
            row = step_row(name, methods[name], data, scale, products, functools.partial(states.__setitem__, name))
            seconds[name, products] = row["seconds"]
            yield row | {"library": "jax"}
    reason = no_twins()
    if reason:
        yield {"name": "twins", "skipped": reason}
        return
    from benchmarks import twins  # imports torch

    makers = {
        "dense": functools.partial(twins.feature_matching, config),
        "convolutional": functools.partial(twins.conditional_gan, step.RATE, data.spec.classes),
    }
    for how, name, products in itertools.product(scale.twins, scale.gans, scale.products):
        wrap = twins.torch.compile if how == "compiled" else twins.as_it_is
        train = twins.trainer(makers[name](states[name], wrap), data.dataset, methods[name].phases[0])
        with twins.torch.autocast(twins.DEVICE.type, twins.torch.bfloat16, enabled=products == "bfloat16"):
            each, _ = seconds_of_steps(train, scale)
        ratio = {"ratio": each / seconds[name, products]}
        ratio |= {"goal": GOALS[name]} if (name, how) == ("dense", "compiled") else {}
        library = f"torch {twins.torch.__version__}, {how}"
        about = {"name": name, "precision": record.precision(products), "library": library}
        yield about | {"steps_per_second": 1 / each, "seconds": each} | ratio


def no_twins() -> str | None:
    """Why PyTorch cannot run where JAX does."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed: pip install -e '.[bench]'"
    import torch

    if jax.default_backend() == "cpu" or (jax.default_backend() == "gpu" and torch.cuda.is_available()):
        return None
    return f"PyTorch {torch.__version__} has no {jax.default_backend().upper()} here"


def classifier_rows(scale: Scale) -> Iterator[Row]:
    """The two classifiers of photographs, as their presets train them."""
    starts = {"fixmatch": METHODS["fixmatch"].PHOTOGRAPHS, "supervised": METHODS["supervised"].FAST}
    networks = {"fixmatch": "WRN-28-2", "supervised": "airbench"}
    for name, products in itertools.product(starts, reversed(scale.products)):
        method, data = made(name, starts[name], scale.photographs, scale, products=products)
        row = step_row(f"{name}, {networks[name]}", method, data, scale, products)
        yield row | ({"goal": GOALS["wide_resnet"]} if (name, products) == ("fixmatch", "bfloat16") else {})


def seeds_rows(scale: Scale) -> Iterator[Row]:
    """The most seeds last: its program is the largest; over the time of one seed in the first body."""
    for name, bodies in scale.stacked.items():
        alone = None
        for seeds, body in itertools.product(scale.seeds, bodies):
            with with_body(body):
                row = step_row(name, *made(name, METHODS[name].Config(), step.SPEC, scale, seeds), scale)
            alone = alone or row["seconds"]
            goal = {"goal": GOALS["seeds"]} if seeds == FULL.seeds[-1] else {}
            yield row | {"body": body, "times": row["seconds"] / alone} | goal


def flow_rows(scale: Scale) -> Iterator[Row]:
    """The U-Net of its preset."""
    start = METHODS["flow_matching"].PHOTOGRAPHS
    for products in reversed(scale.products):
        method, data = made("flow_matching", start, scale.photographs, scale, products=products)
        yield step_row("flow_matching", method, data, scale, products)


def metric_rows(scale: Scale) -> Iterator[Row]:
    """Once each: they take seconds, and compile nothing."""
    calls: dict[str, tuple[tuple[int, int], Callable[[np.ndarray, np.ndarray], object]]] = {
        "fid": (scale.fid, frechet.fid),
        "prdc": (scale.prdc, manifold.prdc),
        "neighbours": (scale.graph, lambda images, _: build.neighbours(images, 10)),
    }
    for name, ((samples, width), call) in calls.items():
        measure = functools.partial(call, *features(samples, width))
        yield {"name": name, "samples": samples, "width": width, "seconds": seconds_of(measure)}


BLOCKS = {
    "chip": Block(40, chip_rows),
    "gan": Block(130, gan_rows),
    "classifiers": Block(110, classifier_rows),
    "seeds": Block(120, seeds_rows),
    "flow": Block(60, flow_rows),
    "metrics": Block(80, metric_rows),
}


def measured(name: str, scale: Scale, rows: Connection) -> None:
    """A block's rows, sent as they come, after what the machine is; then None, or the last line of what went wrong."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch wants memory of the same chip
    try:
        keep_compiled()
        rows.send(machine())
        for row in BLOCKS[name].rows(scale):
            rows.send(
                {key: rounded({key: value})[key] if isinstance(value, float) else value for key, value in row.items()}
            )
        rows.send(None)
    except Exception as error:  # whatever it is costs this block alone, and is said
        traceback.print_exc()
        rows.send("".join(traceback.format_exception_only(error)).strip().splitlines()[0])


def block_line(name: str, scale: Scale, seconds: float, came: Callable[[Row], None]) -> Row:
    """One block in a process of its own, ended after so many seconds; `came` is called with its line at each row."""
    context = multiprocessing.get_context(
        "fork"
    )  # what is imported here need not be imported again; JAX has not started
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=measured, args=(name, scale, sender))
    start = time.monotonic()
    line: Row = {"block": name, "limit": seconds, "rows": []}
    child.start()
    sender.close()
    ended = f"stopped at its limit of {seconds:.0f} s"
    try:
        while receiver.poll(max(0.0, start + seconds - time.monotonic())):
            what = receiver.recv()
            if what is None or isinstance(what, str):
                ended = what or "whole"
                break
            if "jax" in what and "name" not in what:
                line |= what
            else:
                line["rows"].append(what)
            came(line)
    except EOFError:
        child.join()
        ended = f"its process died with status {child.exitcode}"
    child.kill()
    child.join()
    return line | {"seconds": round(time.monotonic() - start, 1), "ended": ended}


def table(line: Row) -> str:
    """A block's rows, a column for each number that one of them has."""
    columns = list(dict.fromkeys(key for row in line["rows"] for key in row))
    cells = [[str(row.get(column, "-")) for column in columns] for row in line["rows"]]
    title = f"{line['block']}: {line['ended']}, {line['seconds']} s on {line.get('device', 'no device')}"
    return f"{title}\n{text_table(columns, cells)}\n" if cells else f"{title}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny networks and few images, to see that it runs")
    parser.add_argument("--only", nargs="+", choices=BLOCKS, default=list(BLOCKS), help="blocks, in this order")
    parser.add_argument("--seconds", type=float, default=TOTAL, help="of all blocks together")
    parser.add_argument("--out", type=Path, help="a JSON file of all blocks")
    asked = parser.parse_args()
    end, done = time.monotonic() + asked.seconds, list[Row]()

    def came(line: Row) -> None:
        if line["rows"]:
            print(line["block"], json.dumps(line["rows"][-1]), file=sys.stderr, flush=True)
        write(asked.out, [*done, line])

    for name in asked.only:
        limit = TOTAL if asked.tiny else min(BLOCKS[name].seconds, end - time.monotonic())  # a busy CPU compiles slowly
        done.append(block_line(name, TINY if asked.tiny else FULL, limit, came))
        write(asked.out, done)
        print(json.dumps(done[-1]), table(done[-1]), sep="\n", flush=True)


if __name__ == "__main__":
    main()
