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
    null        no class. A warning: few images are told a class, and the field hardly obeys (digits, 50 labels: 10 %)
    left_out    they are not seen: the floor, which learns the few images by heart

Without `--labeller`, then, choose null or left_out.

The way from noise to an image can be gone back: `encode` goes from an image to its noise, `decode` returns, with any
class or none. An image is encoded without its class, which nobody knows of a new one: so what is decoded without a
class is the image again, and with each class in turn it is that image made to obey (`ssl-gen latents` draws it). The
same way gives the likelihood of an image (Chen et al. 2018, arXiv:1806.07366, eq. 8), of pixels that are spread over
their grey level,

    log p(x_0) = log N(x_1; 0, I) + the integral over t of div v(x_t, t, none)

These take tens to thousands of looks an image, so metrics of them are measured where `ssl-gen evaluate RUN --metrics`
names them: `elbo`, here the log-likelihood itself, and `reconstruction`, here the solver's error.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.core.conditioning import TOLD, Unlabelled, check_guided, knows_classes, knows_none, phase_of
from ssl_gen.core.flows import Flow
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import FlowSampler
from ssl_gen.losses.likelihood import dequantised, of_levels
from ssl_gen.networks.unet import unet
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, TrainState

PAPER = "Lipman et al. 2023, arXiv:2210.02747"


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
    logit_deviation: float = 1.0  # s; Esser et al. 2024, sec. 5.1
    learning_rate: float = 1e-3  # Adam at the start, falling along a half cosine to 0; ours
    averaging: float = 1e-3  # rate of the EMA, which draws, a step; ours
    augmentation: Augmentation = Augmentation()  # of every image; ours: none


PHOTOGRAPHS = Config(  # ours; U-Net, dropout and flips as Karras et al. 2022, arXiv:2206.00364, for CIFAR-10, smaller
    steps=400_000, labelled_batch=128, unlabelled_batch=128, widths=(128, 256, 256), blocks=2, attention=(1,),
    dropout=0.13, learning_rate=2e-4, averaging=1e-4, augmentation=Augmentation(flip=True),
)  # fmt: skip
QUICK = Config(  # ours, for photographs on a few cores
    steps=1_000, widths=(48, 96), fold=True, averaging=5e-3, augmentation=Augmentation(flip=True),
)  # fmt: skip


class State(NamedTuple):
    field: TrainState


def nothing(images: Array) -> Array:
    """The labels (B,) of images (B, ...) whose class nobody knows."""
    return jnp.full(images.shape[0], -1, jnp.int32)


def make(config: Config, spec: ImageSpec) -> Method:
    """A velocity field for images of `spec`; samples obey their labels, unless all are dropped."""
    conditional = knows_classes(config)
    rate = optax.cosine_decay_schedule(config.learning_rate, max(config.steps, 1))
    field = Player("field", unet(config, spec), optax.adam(rate), ema=True)
    flow = Flow(field, spec.shape, spec.classes, config.logit_deviation, config.label_dropout, config.averaging)

    def init(key: Key, batch: Batch) -> State:
        return State(flow.init(key))

    def learn(state: State, key: Key, step: Array, images: Array, labels: Array) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 5)
        images = augment(config.augmentation, keys[0], images)
        player, metrics = flow.learn(state.field, keys[1:], step, images, labels)
        return State(player), metrics

    def sample(state: State, key: Key, labels: Array, sampler: FlowSampler) -> Array:
        check_guided(sampler.guidance, knows_none(config), conditional)
        return flow.sample(state.field, key, labels, sampler)

    def encode(state: State, images: Array) -> Array:
        return flow.encode(state.field, images, nothing(images))

    def decode(state: State, latents: Array, labels: Array) -> Array:
        return flow.decode(state.field, latents, labels)

    def log_weight(state: State, observed: Key, key: Key, images: Array) -> Array:
        """Nothing is drawn that depends on `key`: the latents of an image are its own."""
        keys = jax.random.split(observed)
        images = dequantised(keys[0], images)
        return of_levels(flow.log_density(state.field, keys[1], images, nothing(images)), images)

    phase = phase_of(config, learn)
    method = Method(
        init, (phase,), sample, conditional=conditional, told=TOLD[config.unlabelled], sampler=FlowSampler()
    )
    if not knows_none(config):
        return method
    return method._replace(
        encode=encode, decode=decode, log_weight=log_weight, costly=("encode", "decode", "log_weight"),
        normal_latents=True,
    )  # fmt: skip
