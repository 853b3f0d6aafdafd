"""Flow matching: a velocity field, told the class, that carries noise to images along straight lines.

Lipman et al. 2023, "Flow Matching for Generative Modeling", arXiv:2210.02747, sec. 4.1, with the straight paths of Liu
et al. 2023, "Flow Straight and Fast", arXiv:2209.03003; times: Esser et al. 2024, arXiv:2403.03206, sec. 3.1; guidance:
Ho and Salimans 2022, arXiv:2207.12598, in an interval: Kynkaanniemi et al. 2024, arXiv:2404.07724.

With x an image, y its class or none, z ~ N(0, I) and logit t ~ N(0, s^2),

    x_t    = (1 - t) x + t z
    L      = E || v(x_t, t, y) - (z - x) ||^2                              a mean over pixels; y is dropped at times
    dx_t   = v(x_t, t, y) dt                                               from t = 1, noise, to t = 0, an image
    v_w    = v(x_t, t, none) + w (v(x_t, t, y) - v(x_t, t, none))          guidance w; 1 is none

All images are one pool, in which each is seen once an epoch. Images whose label is visible have it; what the others are
told decides what is learnt:

    guessed     the class that the classifier of an earlier run guesses, `--labeller RUN` (You et al. 2023,
                arXiv:2302.10586, stage 2); with `--labels all` none is guessed, and it is the ceiling
    null        no class. A warning: what is told a class is a few images, which the field learns by heart
    left_out    they are not seen: the floor

Without `--labeller`, then, choose null or left_out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.core.batching import shard_batch
from ssl_gen.core.ema import update_ema
from ssl_gen.core.gradient import Terms
from ssl_gen.core.players import Player
from ssl_gen.networks.unet import UNet
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, UserError

PAPER = "Lipman et al. 2023, arXiv:2210.02747"
QUARTERS = 4  # of t, whose losses are logged
TOLD: dict[str, Literal["nothing", "visible", "guessed"]] = {
    "guessed": "guessed",
    "null": "visible",
    "left_out": "nothing",
}


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 20_000  # updates; ours
    unlabelled: Literal["guessed", "null", "left_out"] = "guessed"  # what is done with images without a label; ours
    labelled_batch: int = 64  # images a step, of the labelled alone where others are left out; ours
    unlabelled_batch: int = 64  # images a step of all images, else; ours
    label_dropout: float = 0.1  # share of labels that are dropped; Ho and Salimans 2022, sec. 4.2
    widths: tuple[int, ...] = (32, 64)  # channels of a level of the U-Net, sides halve from one to the next; ours
    blocks: int = 1  # residual blocks a level, down and up; ours
    attention: tuple[int, ...] = ()  # levels, from 0, with attention; ours: none
    fold: bool = False  # does the U-Net see 2 x 2 pixels as one? A third faster at 28 x 28; ours
    dropout: float = 0.0  # of the U-Net's hidden units; ours
    logit_deviation: float = 1.0  # s; Esser et al. 2024, sec. 5.1
    learning_rate: float = 1e-3  # Adam at the start, falling along a half cosine to 0; ours
    averaging: float = 1e-3  # rate of the EMA, which draws, a step; ours
    augmentation: Augmentation = Augmentation()  # of every image; ours: none


PHOTOGRAPHS = Config(  # ours; U-Net, dropout and flips as Karras et al. 2022, arXiv:2206.00364, for CIFAR-10, smaller
    steps=400_000, labelled_batch=128, unlabelled_batch=128, widths=(128, 256, 256), blocks=2, attention=(1,),
    dropout=0.13, learning_rate=2e-4, averaging=1e-4, augmentation=Augmentation(flip=True),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FlowSampler:
    """How the way from noise to an image is gone. Raises UserError for settings that make no sense."""

    steps: int = 20  # equal steps of t from 1 to 0; heun looks at the field twice in each
    solver: Literal["euler", "heun"] = "heun"  # error of order 1, or 2, in the length of a step
    guidance: float = 1.0  # w; 1: none, above 1 samples obey more and vary less, 0: the class is not told
    guided_from: float = 0.0  # guidance is 1 for t below; Kynkaanniemi et al. 2024
    guided_to: float = 1.0  # guidance is 1 for t above; Kynkaanniemi et al. 2024

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 10_000:
            raise UserError(f"steps is {self.steps}: choose a number of 1 to 10,000")
        if self.solver not in ("euler", "heun"):
            raise UserError(f"solver is {self.solver!r}: choose one of euler, heun")
        if not (self.guidance >= 0 and math.isfinite(self.guidance)):
            raise UserError(f"guidance is {self.guidance}: choose a number of at least 0; 1 is none")
        if not 0 <= self.guided_from <= self.guided_to <= 1:
            raise UserError(
                f"guided_from {self.guided_from} to guided_to {self.guided_to} is no part of the way: choose two "
                "numbers of 0 to 1, the smaller first"
            )


class State(NamedTuple):
    field: TrainState


def between(images: Array, noise: Array, times: Array) -> Array:
    """x_t: images and noise (B, H, W, C), times (B,) -> (B, H, W, C)."""
    times = times[:, None, None, None]
    return (1 - times) * images + times * noise


def by_quarter(losses: Array, times: Array) -> dict[str, Array]:
    """The mean of losses (B,) in each quarter of their times (B,) in [0, 1]; 0 where a quarter has none."""
    quarters = jnp.minimum((QUARTERS * times).astype(jnp.int32), QUARTERS - 1)
    inside = jax.nn.one_hot(quarters, QUARTERS)
    means = (losses @ inside) / jnp.maximum(inside.sum(0), 1)
    return {f"quarter_{i + 1}": means[i] for i in range(QUARTERS)}


def told_classes(key: Key, labels: Array, dropout: float, classes: int) -> Array:
    """labels (B,) int32, negative for none -> (B,), K where there is none or it is dropped."""
    dropped = jax.random.bernoulli(key, dropout, labels.shape)
    return jnp.where(dropped | (labels < 0), classes, labels)


def guided(told: Callable[[Array], Array], untold: Callable[[Array], Array], weight: float, x: Array) -> Array:
    """v_w at x, given v with the class and without; both are asked only where both are needed."""
    if weight == 1:
        return told(x)
    plain = untold(x)
    return plain if weight == 0 else plain + weight * (told(x) - plain)


def integrate(velocity: Callable[[Array, Array], Array], x: Array, times: Array, solver: str) -> Array:
    """dx/dt = velocity(x, t) solved from times[0] to times[-1] (N + 1,), `euler` or `heun`: x (B, ...) -> (B, ...).

    In Heun's method every other look at the field, at the end of a step, corrects the one before. The looks are one
    loop, so that the field is compiled once.
    """

    def euler(i: Array, x: Array) -> Array:
        return x + (times[i + 1] - times[i]) * velocity(x, times[i])

    def heun(look: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        start, x, first = carry
        i, corrects = look // 2, look % 2 == 1
        slope = velocity(x, jnp.where(corrects, times[i + 1], times[i]))
        x = start + (times[i + 1] - times[i]) * jnp.where(corrects, (first + slope) / 2, slope)
        return jnp.where(corrects, x, start), x, slope

    count = len(times) - 1
    if solver == "euler":
        return jax.lax.fori_loop(0, count, euler, x)
    return jax.lax.fori_loop(0, 2 * count, heun, (x, x, jnp.zeros_like(x)))[1]


def make(config: Config, spec: ImageSpec) -> Method:
    """A velocity field for images of `spec`; samples obey their labels."""
    if not config.widths:
        raise UserError("widths is empty: give the channels of one level or more")
    if any(level >= len(config.widths) for level in config.attention):
        raise UserError(f"attention {config.attention}: levels are 0 to {len(config.widths) - 1}, one for each width")
    network = UNet(spec.classes, config.widths, config.blocks, config.attention, config.fold, config.dropout)
    rate = optax.cosine_decay_schedule(config.learning_rate, max(config.steps, 1))
    field = Player("field", network, optax.adam(rate), ema=True)

    def init(key: Key, batch: Batch) -> State:
        return State(field.init(key, batch.unlabelled[:1], jnp.zeros(1), jnp.zeros(1, jnp.int32)))

    def learn(state: State, key: Key, step: Array, images: Array, labels: Array) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 5)
        images = augment(config.augmentation, keys[0], images)
        noise = shard_batch(jax.random.normal(keys[1], images.shape))
        logits = config.logit_deviation * jax.random.normal(keys[2], labels.shape)
        times = shard_batch(jax.nn.sigmoid(logits))
        classes = shard_batch(told_classes(keys[3], labels, config.label_dropout, spec.classes))
        x = between(images, noise, times)
        predicted = field.forward(state.field, x, times, classes, rngs={"dropout": keys[4]})

        def losses(velocities: Array) -> Array:
            return jnp.square(velocities - (noise - images)).mean((1, 2, 3))

        def loss(velocities: Array) -> Terms:
            return {"velocity": losses(velocities).mean()}

        player, metrics = field.descend(state.field, loss, predicted)
        metrics |= {f"field/{name}": value for name, value in by_quarter(losses(predicted.outputs), times).items()}
        return State(update_ema(player, config.averaging, step)), metrics

    def from_labelled(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        return learn(state, key, step, batch.labelled, batch.labels)

    def from_all(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        return learn(state, key, step, batch.unlabelled, jnp.asarray(batch.guesses))

    def sample(state: State, key: Key, labels: Array, sampler: FlowSampler) -> Array:
        weight, low, high = sampler.guidance, sampler.guided_from, sampler.guided_to

        def velocity(x: Array, time: Array) -> Array:
            times = jnp.full(labels.shape, time)

            def told(x: Array) -> Array:
                return field.infer(state.field, x, times, labels)

            def untold(x: Array) -> Array:
                return field.infer(state.field, x, times, jnp.full_like(labels, spec.classes))

            if weight == 1 or (low, high) == (0, 1):
                return guided(told, untold, weight, x)
            inside = (low <= time) & (time <= high)
            return jax.lax.cond(inside, lambda x: guided(told, untold, weight, x), told, x)

        noise = shard_batch(jax.random.normal(key, (labels.shape[0], *spec.shape)))
        return integrate(velocity, noise, jnp.linspace(1.0, 0.0, sampler.steps + 1), sampler.solver).clip(-1, 1)

    if config.unlabelled == "left_out":
        phase = Phase("main", config.steps, config.labelled_batch, 0, from_labelled)
    else:
        phase = Phase("main", config.steps, 0, config.unlabelled_batch, from_all)
    return Method(init, (phase,), sample, conditional=True, told=TOLD[config.unlabelled], sampler=FlowSampler())
