"""EDM: a denoiser, told the class, whose inputs and outputs have the size that networks like at every noise level.

Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", arXiv:2206.00364, table 1 and
algorithm 2; guidance: Ho and Salimans 2022, arXiv:2207.12598, in an interval: Kynkaanniemi et al. 2024,
arXiv:2404.07724.

With x an image, y its class or none, n ~ N(0, s^2 I), ln s ~ N(m, d^2), c the deviation of pixels and F the network,

    D(x; s, y)  = a x + b F(e x; ln(s) / 4, y)
    a           = c^2 / (s^2 + c^2)
    b           = s c / sqrt(s^2 + c^2)
    e           = 1 / sqrt(s^2 + c^2)
    L           = E (s^2 + c^2) / (s c)^2 || D(x + n; s, y) - x ||^2        a mean over pixels; y is dropped at times
    dx          = (x - D(x; s, y)) / s ds                                   from s_max, noise, to 0, an image
    s_i         = (s_max^(1/r) + i / (N - 1) (s_min^(1/r) - s_max^(1/r)))^r, and 0 at the end

With churn a step begins with noise: from s_i up to s_i (1 + min(churn / N, sqrt(2) - 1)), where s_i is in its interval.

What images without a label are told is chosen as on the page of `flow_matching`, whose network this is too: there the
way is a straight line of t in [0, 1] and the field is learnt as it is; here noise grows without an end, and what is
learnt is the image behind it, more or less of which is handed through.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.stats import norm

from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.core.batching import shard_batch
from ssl_gen.core.conditioning import (
    TOLD,
    Unlabelled,
    asked_for,
    check_guided,
    guided_at,
    knows_classes,
    knows_none,
    phase_of,
    told_classes,
)
from ssl_gen.core.ema import update_ema
from ssl_gen.core.flows import by_quarter
from ssl_gen.core.gradient import Terms
from ssl_gen.core.odes import Churn, integrate
from ssl_gen.core.options import choose
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import check_guidance, check_steps
from ssl_gen.networks.unet import unet
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, TrainState, UserError

PAPER = "Karras et al. 2022, arXiv:2206.00364"
MOST_CHURN = math.sqrt(2) - 1  # of a noise level, in one step; algorithm 2
MOST_NOISE = 1_000.0  # deviation; ours
HIGHEST = 16.0  # radians a unit of ln(s) / 4, of the U-Net's last frequency: some levels are rarely seen; ours


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 20_000  # updates; ours
    unlabelled: Unlabelled = "guessed"  # what is done with images without a label; ours
    labelled_batch: int = 64  # images a step, of the labelled alone where others are left out; ours
    unlabelled_batch: int = 64  # images a step of all images, else; ours
    label_dropout: float = 0.1  # share of labels dropped, 1: no class is learnt; Ho and Salimans 2022, sec. 4.2
    widths: tuple[int, ...] = (32, 64)  # channels of a level of the U-Net, sides halve from one to the next; ours
    blocks: int = 1  # residual blocks a level, down and up; ours
    attention: tuple[int, ...] = ()  # levels, from 0, with attention; ours: none
    fold: bool = False  # does the U-Net see 2 x 2 pixels as one? A third faster at 28 x 28; ours
    dropout: float = 0.0  # of the U-Net's hidden units; ours
    pixel_deviation: float = 0.5  # c, of pixels in [-1, 1]; table 1
    log_noise_mean: float = -1.2  # m; table 1
    log_noise_deviation: float = 1.2  # d; table 1
    learning_rate: float = 1e-3  # Adam at the start, falling along a half cosine to 0; ours
    averaging: float = 1e-3  # rate of the EMA, which draws, a step; ours
    augmentation: Augmentation = Augmentation()  # of every image; ours: none


PHOTOGRAPHS = Config(  # U-Net, dropout and flips as in the paper for CIFAR-10, smaller; rates: ours
    steps=400_000, labelled_batch=128, unlabelled_batch=128, widths=(128, 256, 256), blocks=2, attention=(1,),
    dropout=0.13, learning_rate=2e-4, averaging=1e-4, augmentation=Augmentation(flip=True),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class EdmSampler:
    """How the way from noise to an image is gone. Raises UserError for settings that make no sense."""

    steps: int = 18  # N, levels of noise from s_max to s_min; heun looks twice in each but the last; CIFAR-10, table 1
    solver: Literal["euler", "heun"] = "heun"  # error of order 1, or 2, in the length of a step
    noise_from: float = 80.0  # s_max, where the way begins; table 1
    noise_to: float = 0.002  # s_min, the last level before 0; table 1
    rho: float = 7.0  # r: the higher, the shorter are steps near s_min; table 1
    churn: float = 0.0  # noise added on the way; 0: none, ImageNet: 40; tables 1 and 5
    churn_from: float = 0.0  # no noise is added below this level; ImageNet: 0.05; table 5
    churn_to: float = MOST_NOISE  # no noise is added above this level; ImageNet: 50; table 5
    churn_noise: float = 1.0  # deviation of the added noise, of what it should be; ImageNet: 1.003; table 5
    guidance: float = 1.0  # w; 1: none, above 1 samples obey more and vary less, 0: the class is not told
    guided_from: float = 0.0  # guidance is 1 for noise levels below; Kynkaanniemi et al. 2024: 0.28 on ImageNet-512
    guided_to: float = MOST_NOISE  # guidance is 1 for noise levels above; Kynkaanniemi et al. 2024: 2.9 there

    def __post_init__(self) -> None:
        check_steps(self.steps)
        choose("solver", self.solver, ("euler", "heun"))
        if not 0 < self.noise_to < self.noise_from <= MOST_NOISE:
            raise UserError(
                f"noise_from {self.noise_from} to noise_to {self.noise_to} is no way: choose two numbers above 0 and "
                f"up to {MOST_NOISE:,g}, the larger first"
            )
        if not (self.rho > 0 and math.isfinite(self.rho)):
            raise UserError(f"rho is {self.rho}: choose a number above 0")
        for name, value in (("churn", self.churn), ("churn_noise", self.churn_noise)):
            if not (value >= 0 and math.isfinite(value)):
                raise UserError(f"{name} is {value}: choose a number of at least 0")
        if not 0 <= self.churn_from <= self.churn_to <= MOST_NOISE:
            raise UserError(
                f"churn_from {self.churn_from} to churn_to {self.churn_to} are no levels: choose two numbers of 0 to "
                f"{MOST_NOISE:,g}, the smaller first"
            )
        check_guidance(self.guidance, self.guided_from, self.guided_to, MOST_NOISE)


class State(NamedTuple):
    denoiser: TrainState


class Scaling(NamedTuple):
    """What stands before and behind the network at noise levels (...), each (...)."""

    skip: Array  # a
    output: Array  # b
    input: Array  # e
    level: Array  # ln(s) / 4, what the network is told of s


def scaling(noise: Array, deviation: float) -> Scaling:
    """Table 1, "Network and preconditioning": noise levels s and the deviation c of pixels."""
    total = jnp.square(noise) + deviation**2
    return Scaling(deviation**2 / total, noise * deviation / jnp.sqrt(total), 1 / jnp.sqrt(total), jnp.log(noise) / 4)


def noise_levels(sampler: EdmSampler) -> Array:
    """s_0 .. s_N, (N + 1,): eq. 5; of one step, s_max and 0."""
    first, last = (level ** (1 / sampler.rho) for level in (sampler.noise_from, sampler.noise_to))
    return jnp.append(jnp.linspace(first, last, sampler.steps) ** sampler.rho, 0.0)


def churned(levels: Array, sampler: EdmSampler) -> Array:
    """Where each step begins, (N,): the levels (N + 1,) but the last, raised in the interval of churn."""
    starts = levels[:-1]
    inside = (sampler.churn_from <= starts) & (starts <= sampler.churn_to)
    return starts * (1 + jnp.where(inside, min(sampler.churn / sampler.steps, MOST_CHURN), 0.0))


def make(config: Config, spec: ImageSpec) -> Method:
    """A denoiser for images of `spec`; samples obey their labels, unless all are dropped."""
    conditional = knows_classes(config)
    rate = optax.cosine_decay_schedule(config.learning_rate, max(config.steps, 1))
    denoiser = Player("denoiser", unet(config, spec, highest=HIGHEST), optax.adam(rate), ema=True)

    def init(key: Key, batch: Batch) -> State:
        images, levels = jnp.zeros((1, *spec.shape)), jnp.zeros(1)
        return State(denoiser.init(key, images, levels, jnp.zeros(1, jnp.int32)))

    def learn(state: State, key: Key, step: Array, images: Array, labels: Array) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 5)
        images = augment(config.augmentation, keys[0], images)
        normals = shard_batch(jax.random.normal(keys[1], labels.shape))
        noise = jnp.exp(config.log_noise_mean + config.log_noise_deviation * normals)
        classes = shard_batch(told_classes(keys[2], labels, config.label_dropout, spec.classes))
        x = images + noise[:, None, None, None] * shard_batch(jax.random.normal(keys[3], images.shape))
        scales = scaling(noise, config.pixel_deviation)
        skip, output, inside = (scale[:, None, None, None] for scale in scales[:3])
        predicted = denoiser.forward(state.denoiser, inside * x, scales.level, classes, rngs={"dropout": keys[4]})

        def losses(outputs: Array) -> Array:
            """(B,), where the weight of the loss is 1 / b^2."""
            return jnp.square((skip * x + output * outputs - images) / output).mean((1, 2, 3))

        def loss(outputs: Array) -> Terms:
            return {"denoising": losses(outputs).mean()}

        player, metrics = denoiser.descend(state.denoiser, loss, predicted)
        quarters = by_quarter(losses(predicted.outputs), norm.cdf(normals))
        metrics |= {f"denoiser/{name}": value for name, value in quarters.items()}
        return State(update_ema(player, config.averaging, step)), metrics

    def sample(state: State, key: Key, labels: Array, sampler: EdmSampler) -> Array:
        check_guided(sampler.guidance, knows_none(config), conditional)
        labels = asked_for(labels, config.label_dropout)
        keys = jax.random.split(key)
        levels = noise_levels(sampler)
        starts = churned(levels, sampler)

        def slope(x: Array, noise: Array) -> Array:
            scales = scaling(noise, config.pixel_deviation)

            def denoised(x: Array, classes: Array) -> Array:
                told = jnp.full(labels.shape, scales.level)
                return scales.skip * x + scales.output * denoiser.infer(state.denoiser, scales.input * x, told, classes)

            return (x - guided_at(denoised, x, noise, labels, spec.classes, sampler, (0.0, MOST_NOISE))) / noise

        def add(i: Array, x: Array) -> Array:
            deviation = sampler.churn_noise * jnp.sqrt(jnp.square(starts[i]) - jnp.square(levels[i]))
            return x + deviation * shard_batch(jax.random.normal(jax.random.fold_in(keys[1], i), x.shape))

        noise = levels[0] * shard_batch(jax.random.normal(keys[0], (labels.shape[0], *spec.shape)))
        churn = Churn(starts, add) if sampler.churn else None
        return integrate(slope, noise, levels, sampler.solver, churn, correct_last=False).clip(-1, 1)

    phase = phase_of(config, learn)
    return Method(init, (phase,), sample, conditional=conditional, told=TOLD[config.unlabelled], sampler=EdmSampler())
