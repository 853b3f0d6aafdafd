"""The whole library on a page: what flows between data, methods and training.

A method is a handful of pure functions. Data become a `Batch`, a `Phase`'s step turns (state, batch) into
(state, metrics), and the state is a pytree: a NamedTuple of `TrainState`s, a step number and a key that never changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array
Images = np.ndarray  # (N, H, W, C) float32 in [-1, 1], or latents (N, Z)
Labels = np.ndarray  # (N,) int32, 0..K-1
Key = jax.Array  # a typed key, jax.random.key(seed)
Tree = Any  # a pytree of arrays
State = Any  # a method's own NamedTuple: step, key, and its players by name
Metrics = dict[str, Array]  # name -> ()

BEFORE = 2**32 - 1  # what `init` folds into its key: a number that no step reaches, so that no noise is drawn twice


class ImageSpec(NamedTuple):
    """What a method must know of the data before it sees any."""

    height: int  # pixels
    width: int  # pixels
    channels: int
    classes: int  # K

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


class Batch(NamedTuple):
    """One step's data; images float32 in [-1, 1], NHWC. Hidden labels never enter a batch."""

    labelled: Array  # (L, H, W, C)
    labels: Array  # (L,) int32, 0..K-1
    unlabelled: Array  # (U, H, W, C)


class TrainState(NamedTuple):
    """One trained network: everything its next update needs."""

    params: Tree
    stats: Tree  # linen's untrained collections (batch statistics, spectral-norm vectors)
    opt: Tree  # optax state
    ema: Tree  # averaged params, () when the method keeps none


class Phase(NamedTuple):
    """A stretch of training with one compiled step."""

    name: str
    steps: int  # updates in this phase
    labelled: int  # L, images a step
    unlabelled: int  # U, images a step; 0 where the phase uses labels alone
    step: Callable[[State, Batch], tuple[State, Metrics]]


class Method(NamedTuple):
    """A semi-supervised learner as pure functions, closed over its config. What it cannot do is None.

    It is trained in steps (`init`, `phases`) or, where the paper has a solver, fitted in one go (`fit`).
    """

    init: Callable[[Key, Batch], State] | None  # the batch serves data-dependent initialisation (weight norm)
    phases: tuple[Phase, ...]
    sample: Callable[[State, Key, Array], Array] | None = None  # labels (B,) -> images (B, H, W, C) in [-1, 1]
    classify: Callable[[State, Array], Array] | None = None  # images -> log-probabilities (B, K)
    encode: Callable[[State, Array], Array] | None = None  # images -> latents (B, Z)
    decode: Callable[[State, Array, Array], Array] | None = None  # latents (B, Z), labels (B,) -> images
    conditional: bool = False  # does sample obey labels?
    log_weight: Callable[[State, Key, Array], Array] | None = None  # images -> log p(x, z) / q(z | x) (B,) nats, z ~ q
    fit: Callable[[Key, Images, Labels, Images], State] | None = None  # labelled, labels, unlabelled; on the host


class UserError(Exception):
    """What a user can mend: one line that says what is wrong and how; the commands print it and exit with status 2."""
