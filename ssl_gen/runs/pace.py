"""How long a method can be trained in some minutes on this machine: what `--preset quick` does with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import jax

from ssl_gen.core.wording import count
from ssl_gen.reports import records
from ssl_gen.runs import train
from ssl_gen.runs.data import Data
from ssl_gen.runs.options import Options
from ssl_gen.training.calls import CALL
from ssl_gen.training.segments import Segment
from ssl_gen.types import Tree, UserError

MINUTES = 10.0  # of training, start and evaluation apart; ours
TIMED = 2.0  # seconds of each phase, at least
LEAST = 100  # steps, however slow the machine is


class Paced(NamedTuple):
    """How many steps, and what they were timed on, for `train` to go on with."""

    steps: int
    data: Data | None  # None where a run that was begun said the steps


def steps_in(minutes: float, name: str, config: Any, options: Options) -> Paced:
    """Steps of all seeds that take about so many minutes here; a run that was begun keeps those that it has.

    Some steps of each phase are made, and forgotten. Raises UserError for what does not fit together, as `train` does,
    and where several processes would measure each its own.
    """
    if options.distributed:
        raise UserError("--preset quick measures one machine: give --steps with --distributed")
    folder = options.out or train.default_folder(name, options)
    if (folder / "run.json").is_file():
        begun = records.load_run(folder)
        if begun.method == name and "steps" in begun.config:
            return Paced(int(begun.config["steps"]), None)
    job = train.prepare(name, config, options)
    each = seconds_a_step(job)
    steps = max(LEAST, rounded_down(60 * minutes / each))
    print(
        f"a step takes {each:.2g} s here: {count(steps, 'step')}, about {minutes:.0f} minutes; "
        f"--steps {steps} trains as long elsewhere",
        flush=True,
    )
    return Paced(steps, job.data)


def seconds_a_step(job: train.Job) -> float:
    """The mean over a run's steps, of all its seeds, each phase as often as it comes, in calls as in training."""
    longest = min(job.every)
    replicas, states, rows, _ = train.begin(job, longest)
    phases, active = job.compiled.method.phases, [True] * len(job.record.seeds)
    total, first, seconds = sum(phase.steps for phase in phases), 0, 0.0
    for index, phase in enumerate(phases):

        def advance(states: Tree, start: int, steps: int, index: int = index, first: int = first) -> Tree:
            some = rows(Segment(index, first, first + start, first + start + steps))
            return jax.block_until_ready(replicas.advance(states, index, some, steps, active)[0])

        if phase.steps:
            each, states = timed(advance, states, longest)
            seconds += phase.steps / total * each
        first += phase.steps
    return seconds


def timed(advance: Callable[[Tree, int, int], Tree], states: Tree, longest: int) -> tuple[float, Tree]:
    """Seconds of a step, and the states that the next phase goes on with: those that were given are given away.

    advance: (states, first step, steps) -> states; in calls of up to `longest` steps, as many as take `TIMED` seconds.
    """
    states = advance(states, 0, 1)  # compiled
    start = perf_counter()
    states = advance(states, 1, 1)
    steps = max(1, min(longest, round(CALL / max(perf_counter() - start, 1e-6))))
    start, passed, made = perf_counter(), 0.0, 0
    while passed < TIMED:
        states = advance(states, 2 + made, steps)
        made, passed = made + steps, perf_counter() - start
    return passed / made, states


def rounded_down(steps: float) -> int:
    """To two digits, so that small differences between calls are none: 1234.5 -> 1200."""
    digits = max(0, math.floor(math.log10(max(steps, 1))) - 1)
    return math.floor(steps / 10**digits) * 10**digits
