"""The segments of a run: steps between the moments at which something is written, measured or kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ssl_gen.types import Phase, UserError


class Every(NamedTuple):
    """Steps between two lines of the log, two measurements of the error, two checkpoints."""

    log: int
    evaluate: int
    checkpoint: int


class Segment(NamedTuple):
    """Steps start .. stop - 1 of the run, all of one phase, which began at `begin`."""

    phase: int
    begin: int
    start: int
    stop: int


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


def segments(phases: Sequence[Phase], every: Sequence[int], start: int) -> Iterator[Segment]:
    """All segments from step `start` on; they end at multiples of each number of steps in `every`."""
    begin = 0
    for index, phase in enumerate(phases):
        end = begin + phase.steps
        while start < end:
            stop = min(end, *(start - start % number + number for number in every))
            yield Segment(index, begin, start, stop)
            start = stop
        begin = end
