"""What is measured and drawn while training goes on, by name: `--evaluators error samples fid:2000`.

error      of test and validation images, each seed
samples    a picture of samples by the first seed that goes on, samples/STEP.png
METRIC     any of `ssl-gen list metrics` on few samples and images, so that it takes a moment; each seed

Nothing of it selects anything. Without a number of steps the error is measured 25 times, all others at five moments.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ssl_gen.datasets import stratify
from ssl_gen.evaluation.evaluated import Evaluated, abilities, attempted
from ssl_gen.evaluation.inference import Compiled, probabilities
from ssl_gen.evaluation.reference import Reference
from ssl_gen.metrics import classification
from ssl_gen.metrics.registry import METRICS, applicable
from ssl_gen.runs.data import Data
from ssl_gen.runs.pictures import SAMPLES, SMALL_GRID, attempt_grid
from ssl_gen.training.loop import Evaluator
from ssl_gen.training.segments import Every
from ssl_gen.types import Method, State, UserError

MOMENTS = 5  # in a run, of what is asked for without a number of steps; ours
FEW_SAMPLES = 1_000  # whose features are compared; ours
FEW_IMAGES = 500  # test images that a bound or a reconstruction is measured on; ours
OURS = ("error", "samples")  # those that are no metric's name


class Asked(NamedTuple):
    """An evaluator as the command line names it."""

    name: str
    every: int  # steps


def parse(words: tuple[str, ...], steps: int, every: Every) -> list[Asked]:
    """NAME or NAME:STEPS, each -> how often it runs. Raises UserError where a name or a number is none."""
    found: list[Asked] = []
    for word in words:
        name, colon, number = word.partition(":")
        if name not in (*OURS, *METRICS):
            raise UserError(f"there is no evaluator {name}: give {', '.join(OURS)} or a name of `ssl-gen list metrics`")
        if colon and not (number.isdecimal() and int(number) > 0):
            raise UserError(f"--evaluators {word}: give NAME or NAME:STEPS, a number of steps above 0")
        # moments of measuring the error, so that nothing else is logged at other steps than without
        moment = every.evaluate if name == "error" else math.ceil(steps / MOMENTS / every.evaluate) * every.evaluate
        if name in [each.name for each in found]:
            raise UserError(f"--evaluators names {name} twice: once says how often it runs")
        found.append(Asked(name, int(number) if colon else moment))
    return found


def intervals(every: Every, asked: list[Asked]) -> dict[str, int]:
    """Steps between all that happens in a run, for its record."""
    return {**every._asdict(), **{each.name: each.every for each in asked if each.name != "error"}} | {
        "evaluate": next((each.every for each in asked if each.name == "error"), every.evaluate)
    }


def check(asked: list[Asked], method: Method, reference: Reference) -> None:
    """Raise UserError for a metric that the method, or what it is measured against, does not allow."""
    names = tuple(each.name for each in asked if each.name not in OURS)
    if names:
        applicable(abilities(method, reference), names)


def errors(compiled: Compiled, data: Data, state: State) -> dict[str, float]:
    """Test error and, where images were held out, validation error, percent; {} without a classifier."""
    if compiled.classify is None:
        return {}
    splits = {"test": (data.dataset.test_images, data.dataset.test_labels)}
    splits |= {"validation": data.validation} if len(data.validation[1]) else {}
    return {
        f"{split}/error": classification.error(probabilities(compiled, state, images), labels)
        for split, (images, labels) in splits.items()
    }


def few_rows(labels: np.ndarray, classes: int) -> np.ndarray:
    """labels (T,) of test images -> rows of FEW_IMAGES of them at most, of each class in proportion, always the same.

    A folder's are one class after the other.
    """
    if len(labels) <= FEW_IMAGES:
        return np.arange(len(labels))
    shares = stratify.apportion(stratify.sizes(labels, classes), FEW_IMAGES)
    return stratify.draw_rows(labels, shares, stratify.generator(0))


def make(
    asked: list[Asked],
    target: Path,
    method_name: str,
    compiled: Compiled,
    data: Data,
    reference: Reference,
    is_main: bool = True,
) -> list[Evaluator]:
    """The evaluators of a run that writes to the folder `target`; what a method cannot do is left out.

    A process that is not the main one of several stops at the same steps and measures nothing.
    """
    found: list[Evaluator] = []
    images, labels = reference.dataset.test_images, reference.dataset.test_labels
    rows = few_rows(labels, reference.dataset.spec.classes)
    small = dataclasses.replace(
        reference,
        samples=FEW_SAMPLES,
        dataset=reference.dataset._replace(test_images=images[rows], test_labels=labels[rows]),
    )
    drawn: dict[int, int] = {}  # step -> the replica that drew its picture
    unmeasured: set[str] = set()  # said once

    def error(step: int, replica: int, state: State) -> dict[str, float]:
        try:
            return errors(compiled, data, state)
        except UserError as reason:  # its next losses will say more of a network that is broken
            tqdm.write(f"error was not measured at step {step}: {reason}")
            return {}

    def samples(step: int, replica: int, state: State) -> dict[str, float]:
        if drawn.setdefault(step, replica) == replica:
            (target / "samples").mkdir(exist_ok=True)
            path = target / "samples" / f"{step}.png"
            reason = attempt_grid(path, compiled, data, state, replica, method_name, SMALL_GRID)
            if reason and SAMPLES not in unmeasured:
                tqdm.write(f"no samples were drawn at step {step}: {reason}")
                unmeasured.add(SAMPLES)
        return {}

    def metric(name: str) -> Evaluator:
        sampled = "sample" in METRICS[name].needs
        against = dataclasses.replace(small, dataset=reference.dataset) if sampled else small
        count = "" if sampled else f"_n={len(small.dataset.test_labels)}"

        def run(step: int, replica: int, state: State) -> dict[str, float]:
            mask = data.masks[replica]
            evaluated = Evaluated(compiled, state, against, mask.labels, mask.pool, data.seeds[replica])
            values, reason = attempted(METRICS[name], evaluated)  # a long run is not lost for a number on the way
            if reason and name not in unmeasured:
                tqdm.write(f"{name} was not measured at step {step}: {reason}")
                unmeasured.add(name)
            return {f"{'samples' if sampled else 'test'}/{full}{count}": value for full, value in values.items()}

        return Evaluator(name, steps_of[name], run)

    steps_of: Mapping[str, int] = {each.name: each.every for each in asked}
    for each in asked:
        if each.name == "error" and compiled.classify:
            found.append(Evaluator("error", each.every, error))
        elif each.name == "samples" and compiled.sample:
            found.append(Evaluator("samples", each.every, samples))
        elif each.name not in OURS:
            found.append(metric(each.name))
    return found if is_main else [evaluator._replace(measure=nothing) for evaluator in found]


def nothing(step: int, replica: int, state: State) -> dict[str, float]:
    """What a process measures that is not the main one."""
    return {}
