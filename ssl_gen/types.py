"""The whole library on a page: what flows between data, methods and training.

A method is a handful of pure functions. Data become a `Batch`; a `Phase`'s step turns (state, key, step, batch) into
(state, metrics). A state holds what is learnt and nothing else: the framework folds a step's number into the run's key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import numpy as np

Array = jax.Array
Images = np.ndarray  # (N, H, W, C) float32 in [-1, 1], or latents (N, Z)
Labels = np.ndarray  # (N,) int32, 0..K-1
Key = jax.Array  # a typed key, jax.random.key(seed)
Tree = Any  # a pytree of arrays
State = Any  # a method's own NamedTuple: its players by name, and what else it learns
Metrics = dict[str, Array]  # name -> ()
Precision = Literal["float32", "bfloat16"]  # what convolutions and matrix products are cast to
F = TypeVar("F")


class ImageSpec(NamedTuple):
    """What a method must know of the data before it sees any."""

    height: int  # pixels
    width: int  # pixels
    channels: int
    classes: int  # K
    labelled: int | None = None  # images with a visible label; None: not known, as long as there is no mask
    unlabelled: int | None = None  # images of the pool, which holds the labelled ones too unless they are kept out
    images: int | None = None  # N, all training images, labelled, in the pool or neither

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


class Batch(NamedTuple):
    """One step's data; images float32 in [-1, 1], NHWC. Hidden labels never enter a batch."""

    labelled: Array  # (L, H, W, C)
    labels: Array  # (L,) int32, 0..K-1
    unlabelled: Array  # (U, H, W, C)
    rows: Array | None = None  # (U,) int32, 0..N-1: which of the training images the unlabelled are
    guesses: Array | tuple[()] = ()  # (U,) int32, what a method is `told` of their classes: 0..K-1, -1 for nothing


class Average(NamedTuple):
    """The exponential moving average (EMA) of a network over its updates: a network itself, statistics and all."""

    params: Tree
    stats: Tree  # those of a network with these params: see `ema.update_ema`


class TrainState(NamedTuple):
    """One trained network: everything its next update needs."""

    params: Tree
    stats: Tree  # linen's untrained collections (batch statistics, spectral-norm vectors)
    opt: Tree  # optax state
    ema: Average | tuple[()]  # () when the player keeps none


class Phase(NamedTuple):
    """A part of training with one compiled step."""

    name: str
    steps: int  # updates in this phase
    labelled: int  # L, images a step
    unlabelled: int  # U, images a step; 0 where the phase uses labels alone
    step: Callable[[State, Key, Array, Batch], tuple[State, Metrics]]  # the key is this step's; step () int32, from 0


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """The sampler of a method that draws samples in one way."""


class Method(NamedTuple):
    """A semi-supervised learner as pure functions, closed over its config. What it cannot do is None.

    It is trained in steps (`init`, `phases`) or, where the paper has a solver, fitted in one go (`fit`).
    """

    init: Callable[[Key, Batch], State] | None  # the batch serves data-dependent initialisation (weight norm)
    phases: tuple[Phase, ...]
    sample: Callable[[State, Key, Array, Any], Array] | None = None  # labels (B,), sampler -> images in [-1, 1]
    classify: Callable[[State, Array], Array] | None = None  # images -> log-probabilities (B, K)
    encode: Callable[[State, Array], Array] | None = None  # images -> latents (B, Z)
    decode: Callable[[State, Array, Array], Array] | None = None  # latents (B, Z), labels (B,) -> images; of one that
    # does not classify, -1 is the label of an image whose class nobody knows
    conditional: bool = False  # does sample obey labels?
    log_weight: Callable[[State, Key, Key, Array], Array] | None = None  # keys of what is observed and of z ~ q, images
    # -> log p(x, z) / q(z | x) (B,) nats
    fit: Callable[[Key, Images, Labels, Images], State] | None = None  # labelled, labels, the other images; on the host
    # labelled images (L, H, W, C) -> changed copies of all of them, one array after the other, which `fit` is shown
    # behind them, as latents where it sees latents
    copies: Callable[[Key, Array], Iterator[Array]] | None = None
    told: Literal["nothing", "visible", "guessed"] = "nothing"  # of unlabelled images' classes; guessed: by --labeller
    classify_first: Callable[[State, Array], Array] | None = None  # by the classifier before its last phase
    sampler: Any = NoSettings()  # a frozen dataclass: how samples are drawn unless asked for otherwise
    posterior: Callable[[State, Array], tuple[Array, Array]] | None = None  # images -> mean and variance of q(z | x),
    # (B, Z) each, of the class that is guessed: what a density of latents, `state.density`, is fitted to
    normal_latents: bool = False  # is what `encode` gives of all images together N(0, I), or held to it in training?
    costly: tuple[str, ...] = ()  # what of these takes long: metrics of it are made where they are asked for alone


def able(function: F | None) -> F:
    """A function of a method that its caller knows to be there."""
    assert function is not None, "this method lacks what was asked of it"
    return function


class UserError(Exception):
    """What a user can mend: one line that says what is wrong and how; the commands print it and exit with status 2."""
