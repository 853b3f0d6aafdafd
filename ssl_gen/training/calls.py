"""The calls in which a segment of steps is made: short ones, for a signal is heard between two of them.

Where a signal cuts a segment, the checkpoint holds what the segment's metrics had added up to by then, so that the line
of the log that comes at its end is the same, to the last bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_gen.datasets.batches import Rows
from ssl_gen.training.processes import ProcessGroup
from ssl_gen.training.programs import Replicas, Sums
from ssl_gen.training.segments import Segment
from ssl_gen.types import Tree

CALL = 2.0  # seconds of one call, about; ours: grace periods are 30 and more


class Cut(NamedTuple):
    """A segment after some of its steps, or all of them."""

    since: int  # step at which it began
    sums: Sums | None = None  # of metrics since then; None: no step was made

    def means(self, step: int) -> dict[str, np.ndarray]:
        """The metrics (S,) of the steps up to `step`."""
        return {name: value / (step - self.since) for name, value in (self.sums or {}).items()}

    def note(self) -> dict[str, Any]:
        """What the note of a checkpoint says of it, to the last bit."""
        sums = {
            name: {"dtype": str(value.dtype), "values": [float(each).hex() for each in value]}
            for name, value in (self.sums or {}).items()
        }
        return {"cut": {"since": self.since, "sums": sums}}


def cut_of(note: dict[str, Any]) -> Cut | None:
    """The segment that was cut at a checkpoint, by its note; None where it was at the end of one."""
    if "cut" not in note:
        return None
    sums = {
        name: np.array([float.fromhex(value) for value in each["values"]], each["dtype"])
        for name, each in note["cut"]["sums"].items()
    }
    return Cut(note["cut"]["since"], sums)


class Calls:
    """How many steps a call may make, for it to take about `CALL` seconds, and whether a signal came meanwhile."""

    def __init__(self, group: ProcessGroup, interrupted: Callable[[], bool]) -> None:
        self.steps, self.group, self.interrupted = 1, group, interrupted

    def learn(self, steps: int, seconds: float) -> None:
        """What a call took; of several processes the first one's word counts."""
        self.steps = self.group.all_gather(max(1, int(CALL * steps / max(seconds, 1e-9))))[0]

    def stopped(self) -> bool:
        """Has a signal come, to any of the processes? All of them ask alike."""
        return any(self.group.all_gather(self.interrupted()))


def advance(
    program: Replicas, segment: Segment, rows: Rows, states: Tree, active: Sequence[bool], cut: Cut | None, calls: Calls
) -> tuple[Tree, int, Cut]:
    """States, step and what metrics came to at the end of a segment, or where a signal cut it.

    cut: what it came to before, where it goes on. One in which a replica broke is not cut, for that one goes back to
    the checkpoint before.
    """
    step, (since, sums) = segment.start, cut or Cut(segment.start)
    if segment.start == segment.begin:
        calls.steps = 1  # of a phase whose steps take nobody knows how long
    while True:
        steps, first = min(calls.steps, segment.stop - step), step - segment.start
        part = Rows(*(each[first : first + steps] for each in rows))
        began = time.perf_counter()
        states, sums = program.advance(states, segment.phase, part, steps, active, sums)
        step += steps
        calls.learn(steps, time.perf_counter() - began)
        if step == segment.stop:
            return states, step, Cut(since, sums)
        broken = any(first_nonfinite(sums, i) for i in range(len(active)) if active[i])
        if calls.stopped() and not calls.group.all_gather(broken)[0]:
            return states, step, Cut(since, sums)


def first_nonfinite(metrics: Mapping[str, np.ndarray], replica: int) -> tuple[str, float] | None:
    """The first metric of one replica that is NaN or infinite."""
    values = ((name, float(value[replica])) for name, value in metrics.items())
    return next(((name, value) for name, value in values if not math.isfinite(value)), None)
