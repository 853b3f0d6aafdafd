"""The training loop: segments of steps between the moments at which something is written, measured or kept.

A state at step t is that after t updates. Segments end at fixed steps, so that a resumed run writes the same lines.
A signal may cut one: see `calls`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from ssl_gen.core.signals import interruptible
from ssl_gen.datasets.batches import Rows
from ssl_gen.training import processes
from ssl_gen.training.calls import Calls, advance, cut_of, first_nonfinite
from ssl_gen.training.checkpoints import Checkpoints
from ssl_gen.training.log import Log, NullLog
from ssl_gen.training.programs import Replica, Replicas
from ssl_gen.training.segments import Every, Segment, segments
from ssl_gen.types import Phase, State, Tree, UserError


class Evaluator(NamedTuple):
    """What is measured, or drawn, while training goes on. Nothing of it selects anything."""

    name: str
    every: int  # steps; it also runs after the last one
    measure: Callable[[int, int, State], dict[str, float]]  # (step, replica, state) -> numbers for the log


class Outcome(NamedTuple):
    """Where a call of `train` left the run."""

    states: Tree  # in the program's own form
    step: int
    seconds: float  # spent training so far, earlier calls included
    stopped: dict[int, dict]  # replica -> {"step", "metric", "value"}
    interrupted: bool


def train(
    program: Replicas,
    phases: Sequence[Phase],
    rows: Callable[[Segment], Rows],
    seeds: Sequence[int],
    every: Every,
    log: Log | NullLog,
    checkpoints: Checkpoints,
    evaluators: Sequence[Evaluator],
    initial: Tree,
    quiet: bool = False,
    group: processes.ProcessGroup = processes.SINGLE_PROCESS,
) -> Outcome:
    """Train all replicas from the newest checkpoint, or from `initial`, to the end or to the first signal.

    rows: the segment's rows, (steps, S, ...). A replica whose metrics are not finite goes back to its last checkpoint
    and stays there; the others go on. Of several processes all stop at the same step, for a signal to any of them.
    """
    names = [phase.name for phase in phases]
    total = sum(phase.steps for phase in phases)
    states, step, seconds, frozen = initial, 0, 0.0, {}
    stopped: dict[int, dict] = {}
    kept = checkpoints.newest(lambda note: jax.eval_shape(program.stack, initial))

    def keep(cut: dict[str, Any]) -> None:
        note = {"seconds": seconds, "stopped": {str(i): why for i, why in stopped.items()}} | cut
        checkpoints.save(step, program.stack(states), note, log.lines)

    if kept is None:
        keep({})
    else:
        states, step, seconds = program.place(kept.states), kept.step, kept.note["seconds"]
        stopped = {int(replica): why for replica, why in kept.note["stopped"].items()}
        frozen = {i: one_of(kept.states, i) for i in stopped}
    cut = None if kept is None else cut_of(kept.note)
    started = time.perf_counter() - seconds
    silent = True if quiet or not group.is_main else None
    bar = tqdm(total=total, initial=step, unit="step", disable=silent, dynamic_ncols=True)
    stop = False
    with interruptible() as interrupted, bar:
        calls = Calls(group, interrupted)
        for segment in segments(phases, [*every, *(evaluator.every for evaluator in evaluators)], step):
            active = [i not in stopped for i in range(len(seeds))]
            if stop or not any(active):
                break
            states, step, cut = advance(program, segment, rows(segment), states, active, cut, calls)
            bar.update(step - segment.start)
            if step < segment.stop:
                states, seconds, stop = with_frozen(program, states, frozen), time.perf_counter() - started, True
                keep(cut.note())
                break
            metrics, cut = cut.means(step), None
            # The first's word counts: another kind of processor may round otherwise.
            nonfinite = group.all_gather([first_nonfinite(metrics, i) for i in range(len(seeds))])[0]
            for i in (i for i in range(len(seeds)) if active[i]):
                values = {name: float(value[i]) for name, value in metrics.items()}
                log.write(step=step, seed=seeds[i], phase=names[segment.phase], **values)
                if nonfinite[i]:
                    name, value = nonfinite[i]
                    stopped[i] = {"seed": seeds[i], "step": step, "metric": name, "value": str(value)}
                    frozen[i] = last_good(checkpoints, program, states, i)
                    if group.is_main:
                        bar.write(f"seed {seeds[i]} stopped at step {step}: {name} is {value}")
            states = with_frozen(program, states, frozen)
            due = [evaluator for evaluator in evaluators if step % evaluator.every == 0 or step == total]
            for i in range(len(seeds)):
                if due and i not in stopped:
                    measure_replica(due, step, i, seeds[i], program.replica(states, i), log)
            seconds = time.perf_counter() - started
            stop = calls.stopped()  # all wait here while the main one evaluates
            if step % every.checkpoint == 0 or step == total or stop:
                keep({})
    checkpoints.wait()
    return Outcome(states, step, seconds, stopped, stop and step < total)


def measure_replica(
    evaluators: Sequence[Evaluator], step: int, replica: int, seed: int, state: State, log: Log | NullLog
) -> None:
    """One line of the log with what these evaluators find, none where they find no number."""
    found: dict[str, float] = {}
    for evaluator in evaluators:
        found |= evaluator.measure(step, replica, state)
    if found:
        log.write(step=step, seed=seed, **found)


def last_good(checkpoints: Checkpoints, program: Replicas, states: Tree, replica: int) -> Replica:
    """One replica in the newest checkpoint. Raises UserError where none is whole any more."""
    checkpoints.wait()
    kept = checkpoints.newest(lambda note: jax.eval_shape(program.stack, states))
    if kept is None:
        raise UserError(f"{checkpoints.folder} lost its checkpoints while training went on: start the command again")
    return one_of(kept.states, replica)


def one_of(stacked: Tree, replica: int) -> Replica:
    """One replica of a stack, on no device in particular, so that those of any placement take it."""
    found = jax.tree.map(lambda leaf: leaf[replica], stacked)
    return processes.with_keys(found, jax.tree.map(np.asarray, processes.words(found)))


def with_frozen(program: Replicas, states: Tree, frozen: dict[int, Replica]) -> Tree:
    """The states with the stopped replicas put back to where they stopped."""
    if not frozen:
        return states
    stacked = program.stack(states)
    for i, state in frozen.items():
        stacked = jax.tree.map(lambda leaf, value, i=i: leaf.at[i].set(value), stacked, state)
    return program.place(stacked)
