"""The training loop: stretches of steps between the moments at which something is written, measured or kept.

A state at step t is the state after t updates. Stretches end at fixed step numbers, so a resumed run passes the same
ones as an uninterrupted run and writes the same lines.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from ssl_gen.datasets.batches import Rows
from ssl_gen.training import hosts
from ssl_gen.training.checkpoints import Checkpoints
from ssl_gen.training.devices import Program
from ssl_gen.training.folder import Log, Silence
from ssl_gen.types import Phase, State, Tree, UserError


class Every(NamedTuple):
    """Steps between two lines of the log, two evaluations, two checkpoints."""

    log: int
    evaluate: int
    checkpoint: int


class Stretch(NamedTuple):
    """Steps start .. stop - 1 of the run, all of one phase, which began at `begin`."""

    phase: int
    begin: int
    start: int
    stop: int


class Outcome(NamedTuple):
    """Where a call of `train` left the run."""

    states: Tree  # in the program's own form
    step: int
    seconds: float  # spent training so far, earlier calls included
    stopped: dict[int, dict]  # replica -> {"step", "metric", "value"}
    interrupted: bool


def choose_every(steps: int, log: int | None, evaluate: int | None, checkpoint: int | None) -> Every:
    """What was asked for; else about 200 lines, 10 to 100 steps apart, 25 evaluations, 10 checkpoints.

    Raises UserError where a number, or the number of steps, is below 1.
    """
    every = Every(
        max(1, min(100, max(10, steps // 200), steps)) if log is None else log,
        max(1, math.ceil(steps / 25)) if evaluate is None else evaluate,
        max(1, math.ceil(steps / 10)) if checkpoint is None else checkpoint,
    )
    if steps < 1 or min(every) < 1:
        raise UserError("--steps, --log-every, --evaluate-every and --checkpoint-every are at least 1")
    return every


def stretches(phases: Sequence[Phase], every: Every, start: int) -> Iterator[Stretch]:
    """All stretches from step `start` on."""
    begin = 0
    for index, phase in enumerate(phases):
        end = begin + phase.steps
        while start < end:
            stop = min(end, *(start - start % number + number for number in every))
            yield Stretch(index, begin, start, stop)
            start = stop
        begin = end


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Within, SIGTERM and Ctrl-C raise a flag, and act the second time; outside the main thread nothing changes."""
    seen = []

    def notice(number: int, _frame: object) -> None:
        seen.append(number)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    try:
        before = {number: signal.signal(number, notice) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # signals belong to the main thread
        before = {}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def bad(metrics: dict[str, np.ndarray], replica: int) -> tuple[str, float] | None:
    """The first metric of one replica that is NaN or infinite."""
    values = ((name, float(value[replica])) for name, value in metrics.items())
    return next(((name, value) for name, value in values if not math.isfinite(value)), None)


def train(
    program: Program,
    phases: Sequence[Phase],
    rows: Callable[[Stretch], Rows],
    seeds: Sequence[int],
    every: Every,
    log: Log | Silence,
    checkpoints: Checkpoints,
    evaluate: Callable[[State], dict[str, float]],
    initial: Tree,
    quiet: bool = False,
    team: hosts.Team = hosts.ALONE,
) -> Outcome:
    """Train all replicas from the newest checkpoint, or from `initial`, to the end or to the first signal.

    rows: the stretch's rows, (steps, S, ...); evaluate: state -> metrics for the log. A replica whose metrics
    are not finite goes back to its last checkpoint and stays there; the others go on. Of several processes all
    stop at the same step, for a signal to any of them.
    """
    names = [phase.name for phase in phases]
    total = sum(phase.steps for phase in phases)
    states, step, stopped, seconds, frozen = initial, 0, {}, 0.0, {}
    latest = checkpoints.latest()
    if latest is None:
        checkpoints.save(0, program.stack(states), {"seconds": 0.0, "stopped": {}})
    else:
        like = jax.eval_shape(program.stack, states)
        stacked, note = checkpoints.restore(latest, like), checkpoints.note(latest)
        states, step, seconds = program.place(stacked), latest, note["seconds"]
        stopped = {int(replica): why for replica, why in note["stopped"].items()}
        frozen = {i: jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in stopped}
    started = time.perf_counter() - seconds
    silent = True if quiet or not team.first else None
    bar = tqdm(total=total, initial=step, unit="step", disable=silent, dynamic_ncols=True)
    stop = False
    with interruptible() as interrupted, bar:
        for stretch in stretches(phases, every, step):
            active = [i not in stopped for i in range(len(seeds))]
            if stop or not any(active):
                break
            count = stretch.stop - stretch.start
            states, metrics = program.advance(states, stretch.phase, rows(stretch), count, active)
            step = stretch.stop
            # The first's word counts: another kind of processor may round otherwise.
            wrong = team.gather([bad(metrics, i) for i in range(len(seeds))])[0]
            for i in np.flatnonzero(active):
                values = {name: float(value[i]) for name, value in metrics.items()}
                log.write(step=step, seed=seeds[i], phase=names[stretch.phase], **values)
                if wrong[i]:
                    name, value = wrong[i]
                    stopped[int(i)] = {"seed": seeds[i], "step": step, "metric": name, "value": str(value)}
                    frozen[int(i)] = last_good(checkpoints, program, states, int(i))
                    if team.first:
                        bar.write(f"seed {seeds[i]} stopped at step {step}: {name} is {value}")
            if frozen:
                states = with_frozen(program, states, frozen)
            if step % every.evaluate == 0 or step == total:
                for i in range(len(seeds)):
                    if i not in stopped:
                        log.write(step=step, seed=seeds[i], **evaluate(program.replica(states, i)))
            seconds = time.perf_counter() - started
            stop = any(team.gather(interrupted()))  # all wait here while the first evaluates
            if step % every.checkpoint == 0 or step == total or stop:
                note = {"seconds": seconds, "stopped": {str(i): why for i, why in stopped.items()}}
                checkpoints.save(step, program.stack(states), note)
            bar.update(count)
    checkpoints.wait()
    return Outcome(states, step, seconds, stopped, stop and step < total)


def last_good(checkpoints: Checkpoints, program: Program, states: Tree, replica: int) -> State:
    """One replica's state in the newest checkpoint."""
    checkpoints.wait()
    like = jax.eval_shape(program.stack, states)
    return jax.tree.map(lambda leaf: leaf[replica], checkpoints.restore(checkpoints.latest(), like))


def with_frozen(program: Program, states: Tree, frozen: dict[int, State]) -> Tree:
    """The states with the stopped replicas put back to where they stopped."""
    stacked = program.stack(states)
    for i, state in frozen.items():
        stacked = jax.tree.map(lambda leaf, value, i=i: leaf.at[i].set(value), stacked, state)
    return program.place(stacked)
