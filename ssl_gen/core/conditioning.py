"""What diffusion models are told of an image's class, in training and in drawing: the same for all of them.

All images are one pool, in which each is seen once an epoch. Images whose label is visible have it; of the others they
are told the class that an earlier run guesses (`guessed`), or none (`null`), or they are not seen (`left_out`). Labels
are dropped at times, so that one network knows both the class and no class; none is class K. Where all are dropped
nothing is told, and the model is an unconditional one, which draws what it likes whatever class it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ssl_gen.core.options import choose
from ssl_gen.types import Array, Batch, Key, Metrics, Phase, State, UserError

Unlabelled = Literal["guessed", "null", "left_out"]  # what is done with images without a label
Learn = Callable[[State, Key, Array, Array, Array], tuple[State, Metrics]]  # state, key, step, images, labels
TOLD: dict[str, Literal["nothing", "visible", "guessed"]] = {
    "guessed": "guessed",
    "null": "visible",
    "left_out": "nothing",
}


def phase_of(config: Any, learn: Learn) -> Phase:
    """The one phase of a model that learns images with labels, negative for none, of those that its config chooses.

    Raises UserError on an unknown choice.
    """

    def from_labelled(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        return learn(state, key, step, batch.labelled, batch.labels)

    def from_all(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        return learn(state, key, step, batch.unlabelled, jnp.asarray(batch.guesses))

    if choose("unlabelled", config.unlabelled, tuple(TOLD)) == "left_out":
        return Phase("main", config.steps, config.labelled_batch, 0, from_labelled)
    return Phase("main", config.steps, 0, config.unlabelled_batch, from_all)


def knows_none(config: Any) -> bool:
    """Does a model with this config learn what images are like whose class it is not told?"""
    return config.label_dropout > 0 or config.unlabelled == "null"


def knows_classes(config: Any) -> bool:
    """Does a model with this config learn any class?"""
    return config.label_dropout < 1


def check_guided(guidance: float, knows: bool, classes: bool = True) -> None:
    """Raise UserError for guidance other than 1, none, away from no class where that, or any class, was not learnt."""
    if guidance != 1 and not classes:
        raise UserError(
            f"guidance is {guidance:g}, towards a class, and this network never learnt one: "
            "train it with label_dropout below 1, or leave guidance at 1"
        )
    if guidance != 1 and not knows:
        raise UserError(
            f"guidance is {guidance:g}, away from images without a class, which this network never learnt: "
            "train it with label_dropout above 0, or leave guidance at 1"
        )


def or_none(labels: Array, classes: int) -> Array:
    """labels (B,) int32, negative for none -> (B,), K for none."""
    return jnp.where(labels < 0, classes, labels)


def asked_for(labels: Array, dropout: float) -> Array:
    """labels (B,) that samples are asked for -> (B,), -1, none, of a model whose labels were all dropped."""
    return labels if dropout < 1 else jnp.full_like(labels, -1)


def told_classes(key: Key, labels: Array, dropout: float, classes: int) -> Array:
    """labels (B,) int32, negative for none -> (B,), K where there is none or it is dropped."""
    dropped = jax.random.bernoulli(key, dropout, labels.shape)
    return jnp.where(dropped, classes, or_none(labels, classes))


def guided(told: Callable[[Array], Array], untold: Callable[[Array], Array], weight: float, x: Array) -> Array:
    """p_w = p(x, none) + w (p(x, y) - p(x, none)), given a prediction p with the class and without.

    Both are asked only where both are needed. Source: Ho and Salimans 2022, arXiv:2207.12598, eq. 6.
    """
    if weight == 1:
        return told(x)
    plain = untold(x)
    return plain if weight == 0 else plain + weight * (told(x) - plain)


def guided_at(
    predict: Callable[[Array, Array], Array],
    x: Array,
    level: Array,
    labels: Array,
    classes: int,
    sampler: Any,
    whole: tuple[float, float],
) -> Array:
    """predict(x, labels (B,)) with the guidance of a sampler, which is 1 where the noise level () is outside its own.

    whole: the interval that holds every level. Each look is judged by its own level, as in the paper; the authors' code
    judges each step by its first, so that Heun's across an end of the interval is guided in both of its looks or in
    none. Source: Kynkaanniemi et al. 2024, arXiv:2404.07724.
    """
    weight, low, high = sampler.guidance, sampler.guided_from, sampler.guided_to

    def told(x: Array) -> Array:
        return predict(x, or_none(labels, classes))

    def untold(x: Array) -> Array:
        return predict(x, jnp.full_like(labels, classes))

    if weight == 1 or (low, high) == whole:
        return guided(told, untold, weight, x)
    inside = (low <= level) & (level <= high)
    return jax.lax.cond(inside, lambda x: guided(told, untold, weight, x), told, x)
