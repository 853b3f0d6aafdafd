"""Training steps: every method as it is trained, two steps against PyTorch, and convolutions in a fold.

    python -m benchmarks.step [--quick]      one JSON line per measurement; minutes, or seconds with --quick

    method   a method's longest phase at its default config, on random images of MNIST's shape, with 1 and 8 seeds,
             placed and advanced as `training/` does; rates count the steps, and the images read, of all seeds together
    twin     JAX against the PyTorch of `benchmarks/twins.py` (needs `pip install -e '.[bench]'`), interleaved in this
             process so that a busy machine slows both; `ratio` is JAX's rate over PyTorch's
    fold     steps folded into one program over the same steps in a Python loop; `ratio` is seconds over seconds
    stream   steps whose images are streamed from a file over steps that have them on the device, likewise

Every timing is the median of several, each until its result is there, after a first call that compiles. Work of others
slows PyTorch's threads more than JAX's: trust a ratio where `load` is low, or on one core (`taskset -c 0 python ...`).
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import multiprocessing
import os
import re
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_gen.core.files import write_whole
from ssl_gen.core.gradient import Terms
from ssl_gen.core.players import Player
from ssl_gen.datasets.dataset import Dataset
from ssl_gen.datasets.masking import Scheme, make_mask
from ssl_gen.datasets.store import Store, StreamedStore
from ssl_gen.losses.adversarial import judged_fake, judged_real
from ssl_gen.methods import METHODS
from ssl_gen.methods.adversarial import feature_matching
from ssl_gen.methods.adversarial.feature_matching import State
from ssl_gen.networks import conv
from ssl_gen.runs import record
from ssl_gen.runs.data import Data, feed, initial_rows
from ssl_gen.training.cache import keep_compiled
from ssl_gen.training.programs import Replicas
from ssl_gen.training.replicas import Mode, make_replicas
from ssl_gen.training.segments import Segment
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

SPEC = ImageSpec(28, 28, 1, 10)  # MNIST
PHOTOGRAPHS = ImageSpec(32, 32, 3, 10)  # CIFAR-10
LABELS, LONGEST = 100, 100  # visible; steps of one call at most, as in training
LATENT, RATE = 100, 2e-4  # of the convolutional GAN; Radford et al. 2016, arXiv:1511.06434, sec. 4
TARGETS = {"dense": 1.8, "convolutional": 0.7}  # JAX's rate over PyTorch's on two quiet cores; ours
LIMIT = 1.05  # seconds of a folded step over one of the Python loop; ours
STREAMED = 1 / 0.9  # seconds of a step that reads its images over one that has them; ours


class Scale(NamedTuple):
    """How much is measured, and of which methods."""

    methods: tuple[str, ...]
    images: int  # training images
    seeds: tuple[int, ...]
    seconds: float  # of one timed call, about
    repeats: int  # timed calls
    batch: int  # images a step of the convolutional GAN
    width: int  # channels of the convolutional GAN
    steps: tuple[int, int, int]  # of one timed call: dense twin, convolutional twin, fold
    side: int  # of the matrices whose product is timed
    changes: dict[str, Any]  # of a method's default config, where it has such a field


FULL = Scale(tuple(METHODS), 60_000, (1, 8), 2.0, 7, 100, 64, (20, 2, 5), 2048, {})
SMALL: dict[str, Any] = {
    "hidden": (16,),
    "generator_hidden": (16,),
    "discriminator_hidden": (16, 16),
    "classifier_hidden": (16,),
}
SMALL |= {"width": 4, "classifier_width": 4, "labelled_batch": 8, "unlabelled_batch": 8, "generated_batch": 8}
QUICK = Scale(("supervised",), 1_000, (2,), 0.05, 3, 8, 4, (2, 1, 2), 256, SMALL)


def machine() -> dict[str, Any]:
    """What every number depends on; `load`: running processes in the last minute, `cpu`: as far as Linux knows it."""
    cpu = dict(re.findall(r"(.+?)\s*: (.*)", Path("/proc/cpuinfo").read_text()))
    return {
        "device": f"{jax.local_device_count()} x {jax.devices()[0].device_kind}",
        "cpu": ", ".join(f"{key} {cpu[key]}" for key in ("model name", "cpu family", "model") if key in cpu),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "jax": jax.__version__,
    }


def peak_memory() -> dict[str, int | None]:
    """MiB that this process, and the device where it counts them, held at most."""
    stats = jax.devices()[0].memory_stats()
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10  # of KiB
    return {"peak_host_mib": host, "peak_device_mib": stats and stats["peak_bytes_in_use"] // 2**20}


def seconds_of(call: Callable[[], object]) -> float:
    """Until the result is there."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def interleaved(contenders: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every call of each contender, called in turn, after one call of each that compiles and warms up."""
    for call in contenders.values():
        seconds_of(call)
    rounds = [[seconds_of(call) for call in contenders.values()] for _ in range(repeats)]
    return dict(zip(contenders, map(list, zip(*rounds, strict=True)), strict=True))


def rounded(numbers: dict[str, float]) -> dict[str, float]:
    """To four digits."""
    return {name: float(f"{value:.4g}") for name, value in numbers.items()}


def random_data(images: int, seeds: int, spec: ImageSpec = SPEC) -> Data:
    """Images of uniform noise in ten classes, and one mask of 100 labels for each seed."""
    labels = (np.arange(images) % spec.classes).astype(np.int32)
    pixels = np.random.default_rng(0).integers(0, 256, (images, *spec.shape), np.uint8)
    dataset = Dataset("random", pixels, labels, pixels[:0], labels[:0], names := tuple("0123456789"))
    numbers = list(range(seeds))
    masks = [make_mask("random", labels, names, LABELS, Scheme(), seed, "random") for seed in numbers]
    return Data(dataset, numbers, masks, (pixels[:0], labels[:0]))


def longest(method: Method) -> int:
    """The number of the phase that takes most of the steps."""
    return max(range(len(method.phases)), key=lambda index: method.phases[index].steps)


def preset(module: ModuleType, scale: Scale) -> dict[str, Any]:
    """The changes to a method's default config."""
    return {field: value for field, value in scale.changes.items() if field in module.Config.__dataclass_fields__}


def started(
    method: Method,
    data: Data,
    placement: Mode = "auto",
    store: Store | None = None,
    steps: int = LONGEST,
    fold: bool | None = None,
) -> tuple[Replicas, Tree]:
    """The program of a method's steps, at most so many a call, for the seeds of `data`, and their first states."""
    seeds = range(len(data.masks))
    store = store or Store(data.dataset.train_images)
    program = make_replicas(method, store, len(seeds), placement, longest=steps, fold=fold)
    return program, program.init(seeds, initial_rows(data))


def write(path: Path | None, lines: Sequence[dict[str, Any]]) -> None:
    """All lines so far, with the commit, in place of what stood there; None for nowhere."""
    if path:
        write_whole(path, (json.dumps({"commit": record.commit(), "lines": lines}, indent=1) + "\n").encode())


def say(lines: Iterator[dict[str, Any]], path: Path | None = None) -> None:
    """Print lines as they come, and write them when all are there."""
    made = []
    for line in lines:
        print(json.dumps(line), flush=True)
        made.append(line)
    write(path, made)


def trainer(program: Replicas, method: Method, data: Data, states: Tree) -> Callable[[int], Tree]:
    """train(steps) -> states: every seed goes on in the longest phase, rows drawn on the host as in `training/`."""
    rows_of, position, phase = feed(data, method.phases), 0, longest(method)

    def train(steps: int) -> Tree:
        nonlocal states, position
        rows = rows_of(Segment(phase, 0, position, position + steps))
        states, _ = program.advance(states, phase, rows, steps, [True] * len(data.masks))
        position += steps
        return states

    return train


def method_line(name: str, seeds: int, scale: Scale) -> dict[str, Any]:
    """One method with so many seeds; seconds: to run one step of each, to compile it, to compile and run `init`."""
    module, data = METHODS[name], random_data(scale.images, seeds)
    changes = preset(module, scale)
    method = module.make(module.Config(**changes), data.spec)
    program = make_replicas(method, Store(data.dataset.train_images), seeds, longest=LONGEST)
    start = time.perf_counter()
    states = jax.block_until_ready(program.init(range(seeds), initial_rows(data)))
    init_seconds = time.perf_counter() - start
    train = trainer(program, method, data, states)
    first, warm = (seconds_of(lambda: train(1)) for _ in range(2))
    steps = min(max(round(scale.seconds / warm), 1), LONGEST)
    each = statistics.median(seconds_of(lambda: train(steps)) for _ in range(scale.repeats)) / steps
    phase = method.phases[longest(method)]
    images = phase.labelled + phase.unlabelled
    what = {
        "kind": "method",
        "name": name,
        "preset": changes or "default",
        "phase": phase.name,
        "images_a_step": images,
    }
    numbers = {"steps_per_second": seeds / each, "images_per_second": seeds * images / each}
    numbers |= {"running_seconds": each, "compile_seconds": first - warm, "init_seconds": init_seconds}
    return what | {"seeds": seeds, "placement": program.mode} | rounded(numbers) | peak_memory() | machine()


def alone(function: Callable, *arguments: Any) -> Any:
    """function(*arguments) in a process whose memory and compilations are its own, forked before JAX starts here."""
    cold = jax.config.update, ("jax_enable_compilation_cache", False)
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), *cold) as pool:
        return pool.submit(function, *arguments).result()


def conditional_gan(scale: Scale) -> Method:
    """A conditional DCGAN with label maps at every layer and non-saturating losses; it sees labelled images alone.

    Source: Radford et al. 2016, arXiv:1511.06434; labels: Mirza and Osindero 2014, arXiv:1411.1784.
    """
    optimizer = optax.adam(RATE, b1=0.5)
    generator = Player("generator", conv.Generator(SPEC.shape, SPEC.classes, scale.width), optimizer)
    discriminator = Player("discriminator", conv.Discriminator(1, SPEC.classes, scale.width), optimizer)

    def init(key: Key, batch: Batch) -> State:
        latents = jnp.zeros((batch.labels.shape[0], LATENT))
        return State(
            generator.init(key, latents, batch.labels, train=True),
            discriminator.init(key, batch.labelled, batch.labels, train=True),
        )

    def judge(player: TrainState, params: Tree, images: Array, labels: Array) -> tuple[Array, Tree]:
        (logits, _), stats = discriminator.run(player, params, images, labels)
        return logits[:, 0], stats

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        fake = generator.forward(state.generator, noise_of(key, batch.labels.shape[0]), batch.labels)

        def discriminator_loss(params: Tree) -> tuple[Terms, Tree]:
            images, labels = jnp.concatenate([batch.labelled, fake.outputs]), jnp.tile(batch.labels, 2)
            logits, stats = judge(state.discriminator, params, images, labels)
            real, generated = jnp.split(logits, 2)
            return {"real": judged_real(real), "fake": judged_fake(generated)}, stats

        d, d_metrics = discriminator.descend(state.discriminator, discriminator_loss)

        def generator_loss(images: Array) -> Terms:
            return {"adversarial": judged_real(judge(d, d.params, images, batch.labels)[0])}

        g, g_metrics = generator.descend(state.generator, generator_loss, fake)
        return State(g, d), d_metrics | g_metrics

    return Method(init, (Phase("main", LONGEST, scale.batch, 0, step),), conditional=True)


def noise_of(key: Key, count: int) -> Array:
    """The latents (B, Z) of one step of `conditional_gan`, whose key is given."""
    return jax.random.normal(key, (count, LATENT))


def twin_lines(scale: Scale) -> Iterator[dict[str, Any]]:
    """Both twins, beside the rates of float32 matrix products, which most of a dense step is made of."""
    from benchmarks import twins  # imports torch

    matrix = np.random.default_rng(0).random((scale.side, scale.side), np.float32)
    products = {"jax": functools.partial(jax.jit(jnp.matmul), *jax.device_put((matrix, matrix)))}
    times = interleaved(products | {"torch": twins.product(matrix)}, 3 * scale.repeats)
    gflops = {library: 2e-9 * scale.side**3 / statistics.median(seconds) for library, seconds in times.items()}
    data, config = random_data(scale.images, 1), feature_matching.Config(**preset(feature_matching, scale))
    dense = feature_matching.make(config, SPEC), functools.partial(twins.feature_matching, config)
    convolutional = conditional_gan(scale), functools.partial(twins.conditional_gan, RATE, SPEC.classes)
    for name, steps, (method, twin) in zip(TARGETS, scale.steps, (dense, convolutional), strict=False):
        program, states = started(method, data)
        other = twins.trainer(twin(program.replica(states, 0)), data.dataset, method.phases[0])
        calls = {"jax": trainer(program, method, data, states), "torch": other}
        times = interleaved({library: functools.partial(calls[library], steps) for library in calls}, scale.repeats)
        about = {"target": TARGETS[name], "torch": twins.torch.__version__}
        yield {"kind": "twin", "name": name} | compared(times, steps, gflops) | about | machine()


def compared(times: dict[str, list[float]], steps: int, gflops: dict[str, float]) -> dict[str, Any]:
    """JAX over PyTorch, from the seconds of calls of so many steps and the rates of matrix products."""
    rates = {library: steps / statistics.median(seconds) for library, seconds in times.items()}
    ratio = rates["jax"] / rates["torch"]
    ratios = {"ratio": ratio, "ratio_of_fastest": min(times["torch"]) / min(times["jax"])}
    ratios["ratio_at_equal_products"] = ratio * gflops["torch"] / gflops["jax"]
    return {"steps_per_second": rounded(rates)} | rounded(ratios) | {"product_gflops": rounded(gflops)}


def two_ways(kind: str, name: str, train: dict[str, Callable[[int], Tree]], steps: int, repeats: int) -> dict[str, Any]:
    """A line on k steps made in two ways, {way: train}; `ratio` is the first's seconds over the second's."""
    times = interleaved({way: functools.partial(call, steps) for way, call in train.items()}, repeats)
    each = {way: statistics.median(seconds) / steps for way, seconds in times.items()}
    one, other = times
    ratios = {"ratio": each[one] / each[other], "ratio_of_fastest": min(times[one]) / min(times[other])}
    about = {"kind": kind, "name": name, "steps": steps, "seconds_per_step": rounded(each)}
    return about | rounded(ratios) | machine()


def fold_line(name: str, method: Method, scale: Scale) -> dict[str, Any]:
    """k steps of a method's longest phase, with one seed, in one program and in k calls of another."""
    data, steps, calls = random_data(scale.images, 1), scale.steps[2], {}
    for kind in ("fold", "loop"):
        program, states = started(method, data, "loop", steps=steps, fold=kind == "fold")
        calls[kind] = trainer(program, method, data, states)
    return two_ways("fold", name, calls, steps, scale.repeats) | {"limit": LIMIT}


def stream_line(name: str, spec: ImageSpec, scale: Scale, **changes: Any) -> dict[str, Any]:
    """k steps of a method, with one seed, whose images are streamed from a file, and that has them on the device."""
    module, data, steps = METHODS[name], random_data(scale.images, 1, spec), scale.steps[2]
    config = module.Config(**preset(module, scale) | changes)
    method = module.make(config, spec)
    with tempfile.NamedTemporaryFile() as file:
        data.dataset.train_images.tofile(file.name)
        images = np.memmap(file.name, np.uint8, "r", shape=data.dataset.train_images.shape)
        calls = {}
        for way, store in (("stream", StreamedStore(images)), ("device", Store(data.dataset.train_images))):
            program, states = started(method, data, "loop", store, steps)
            calls[way] = trainer(program, method, data, states)
        line = two_ways("stream", f"{name}, {config.network}", calls, steps, scale.repeats)
    return line | {"limit": STREAMED}


def lines(scale: Scale) -> Iterator[dict[str, Any]]:
    """All measurements, in the order of this page."""
    for name in scale.methods:
        for seeds in scale.seeds:
            yield alone(method_line, name, seeds, scale)
    if importlib.util.find_spec("torch") is None:
        yield {"kind": "twin", "skipped": "PyTorch is not installed: pip install -e '.[bench]'"}
    elif jax.default_backend() != "cpu":
        yield {"kind": "twin", "skipped": "beside an accelerator the twins run in `python -m benchmarks.accelerator`"}
    else:
        yield from twin_lines(scale)
    yield fold_line("conditional_gan", conditional_gan(scale), scale)
    yield stream_line("fixmatch", SPEC, scale)
    yield stream_line("fixmatch", PHOTOGRAPHS, scale, network="wide_resnet", labelled_batch=8, unlabelled_batch=24)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one method and tiny networks, to see that it runs")
    keep_compiled()
    say(lines(QUICK if parser.parse_args().quick else FULL))


if __name__ == "__main__":
    main()
