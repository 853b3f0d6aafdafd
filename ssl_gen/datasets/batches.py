"""Which images step t sees: a pure function of (seed, t), so that a resumed run goes on where it stood.

Row numbers are drawn on the host, an epoch's permutation once; the images stay on the device as uint8 and are gathered
there. Only visible labels and an earlier run's guesses ever leave this module: hidden ones are not in the mask.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

STREAMS = {"labelled": 0, "unlabelled": 1, "guesses": 2}
UNTOLD = -1  # in the place of a guess


class Rows(NamedTuple):
    """The images of one or more steps: row numbers into the training images, and what the run may know of labels."""

    labelled: np.ndarray  # (..., L) int32
    labels: np.ndarray  # (..., L) int32, visible ones
    unlabelled: np.ndarray  # (..., U) int32
    guesses: np.ndarray  # (..., U) int32, UNTOLD where nothing is said of an unlabelled image


@functools.lru_cache(maxsize=64)
def permutation(size: int, seed: int, stream: str, phase: int, epoch: int) -> np.ndarray:
    """One epoch's order of `size` rows, (size,) int32."""
    source = np.random.SeedSequence([seed, STREAMS[stream], phase, epoch])
    return np.random.Generator(np.random.Philox(source)).permutation(size).astype(np.int32)


def epochs_slice(size: int, seed: int, stream: str, phase: int, start: int, count: int) -> np.ndarray:
    """Entries start .. start + count - 1 of the endless sequence of epochs, each a permutation of `size` rows."""
    first, last = start // size, (start + count - 1) // size
    epochs = [permutation(size, seed, stream, phase, epoch) for epoch in range(first, last + 1)]
    return np.concatenate(epochs)[start - first * size :][:count]


def guessed(told: np.ndarray, unlabelled: np.ndarray, seed: int, phase: int, start: int) -> np.ndarray:
    """The labels that go with rows `unlabelled` (steps, U) from step `start` on, (steps, U) int32.

    told: see `rows`. What is drawn from probabilities is drawn anew in each step.
    """
    if told.ndim == 1:
        return told[unlabelled].astype(np.int32)
    labels = np.empty(unlabelled.shape, np.int32)
    for step, chosen in enumerate(unlabelled):
        source = np.random.SeedSequence([seed, STREAMS["guesses"], phase, start + step])
        cumulated = told[chosen].cumsum(-1, dtype=np.float64)
        below = np.random.Generator(np.random.Philox(source)).random(len(chosen)) * cumulated[:, -1]
        labels[step] = np.where(cumulated[:, -1] > 0, (cumulated <= below[:, None]).sum(-1), UNTOLD)
    return labels


def rows(
    visible: np.ndarray,
    pool: np.ndarray,
    sizes: tuple[int, int],
    seed: int,
    phase: int,
    start: int,
    steps: int,
    told: np.ndarray | None = None,
) -> Rows:
    """The batches of steps start .. start + steps - 1 of one phase.

    visible (N,) int32: the mask's labels, negative where hidden; pool (M,): rows of the unlabelled; sizes (L, U) images
    a step, 0 for none; `start` counts from the phase's own beginning; told: what is said of the unlabelled, labels (N,)
    int32, UNTOLD for none, or probabilities (N, K) that labels are drawn from, zeros for none. Returns Rows with
    leading axis `steps`. Every image of the labelled set and of the pool comes once an epoch.
    """

    def drawn(candidates: np.ndarray, stream: str, size: int) -> np.ndarray:
        if not size:
            return np.zeros((steps, 0), np.int32)
        order = epochs_slice(len(candidates), seed, stream, phase, start * size, steps * size)
        return candidates[order].reshape(steps, size).astype(np.int32)

    labelled = drawn(np.flatnonzero(visible >= 0), "labelled", sizes[0])
    unlabelled = drawn(pool, "unlabelled", sizes[1])
    guesses = np.full_like(unlabelled, UNTOLD) if told is None else guessed(told, unlabelled, seed, phase, start)
    return Rows(labelled, visible[labelled].astype(np.int32), unlabelled, guesses)
