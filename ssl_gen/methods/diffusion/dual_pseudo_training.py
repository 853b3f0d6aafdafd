"""Dual pseudo training: a classifier labels images for a flow, which then draws images for the classifier.

You et al. 2023, "Diffusion Models and Semi-Supervised Learners Benefit Mutually with Few Labels", arXiv:2302.10586,
sec. 3, with flow matching (Lipman et al. 2023, arXiv:2210.02747, see `flow_matching`) as the diffusion model and
FixMatch (Sohn et al. 2020, arXiv:2001.07685, sec. 2, see `fixmatch`) as the semi-supervised learner.

With a(.) a weak and A(.) a strong augmentation, q = p(. | a(u)) and yh = argmax_k p(k | u) of the classifier's EMA,
x_t = (1 - t) x + t z,

    1. warm_up      L_C = E_(x,y) CE(p(. | a(x)), y) + w E_u 1[max q > t] CE(p(. | A(u)), argmax q)
    2. generation   L_V = E || v(x_t, t, y) - (z - x) ||^2          over pairs (x, y) and (u, yh); y is dropped at times
    3. drawing      S = K images of each class, of the flow; nothing is learnt
    4. retraining   L_C of 1 + g E_((x,y) in S) CE(p(. | a(x)), y)

Ours: the flow; the EMA as FixMatch's teacher, and alignment of its guesses; the classifier goes on from the first
phase, where the paper begins anew; images labelled by hand keep their label in the second. The classifier of the first
phase is kept as it was, so that the error of both is measured (`first_error`, and in training samples/obeyed, the share
of S that the first classifier takes for what was asked). Three switches tell what each source is worth, as in
`gan_self_training`.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import STRONG_DIGITS, STRONG_PHOTOGRAPHS, WEAK_PHOTOGRAPHS, Augmentation, augment
from ssl_gen.core.batching import shard_batch
from ssl_gen.core.conditioning import check_guided, knows_classes
from ssl_gen.core.flows import Flow
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import FlowSampler
from ssl_gen.core.schedules import kernels, partly_cosine
from ssl_gen.losses.sources import Taught, learn_sources, lengths
from ssl_gen.losses.thresholds import Marginals, uniform_marginals
from ssl_gen.networks import classifiers
from ssl_gen.networks.unet import unet
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, UserError

PAPER = "You et al. 2023, arXiv:2302.10586"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 20_000  # updates in all; ours
    warm_up: float = 0.1  # share of the steps for the first classifier; ours
    generation: float = 0.8  # share of the steps for the flow; the last phase has the rest; ours
    from_labels: bool = True  # does the last phase learn the labels?
    from_guesses: bool = True  # do the first and the last learn the classifier's own confident guesses?
    from_samples: bool = True  # does the last phase learn generated images?
    samples_per_class: int = 128  # K; paper, on ImageNet; 1,000 on CIFAR-10
    labelled_batch: int = 32  # images a step of the classifier; ours
    generated_batch: int = 64  # generated images a step, drawn or learnt, a multiple of labelled_batch; ours
    unlabelled_batch: int = 192  # images a step of the classifier, a multiple of both; ours
    classifier_network: classifiers.Network = "conv"  # ours; paper: wide_resnet on CIFAR-10
    classifier_hidden: tuple[int, ...] = (500, 500)  # units a layer of an mlp classifier; ours
    classifier_width: int = 32  # channels of the first layer of the others; Sohn et al. 2020
    classifier_dropout: float = 0.0  # of the classifier's hidden units; Sohn et al. 2020: none
    classifier_rate: float = 2e-3  # AdamW at the start, falling along cos(7 pi t / 16 T); ours
    weight_decay: float = 5e-4  # of kernels; times the rate 1e-6 a step: inert; Sohn et al. 2020: SGD's
    guesses_weight: float = 1.0  # w; Sohn et al. 2020
    threshold: float = 0.9  # t, of probability; ours; Sohn et al. 2020: 0.95
    alignment: bool = True  # of the guesses' classes to those of the labels; Berthelot et al. 2020; paper: none
    memory: int = 128  # steps that the running means of alignment look back; Berthelot et al. 2020, code
    samples_weight: float = 1.0  # g, of the mean over generated images; ours; paper: each image weighs the same
    averaging: float = 0.01  # rate of the classifier's EMA, a step; ours
    augmentation: Augmentation = Augmentation(translate=2.0)  # the classifier's weak one; ours
    strong: Augmentation = STRONG_DIGITS  # the classifier's strong one
    flow_batch: int = 64  # images a step of the flow; ours
    label_dropout: float = 0.1  # share of labels that are dropped; Ho and Salimans 2022, arXiv:2207.12598, sec. 4.2
    widths: tuple[int, ...] = (32, 64)  # channels of a level of the U-Net, sides halve from one to the next; ours
    blocks: int = 1  # residual blocks a level, down and up; ours
    attention: tuple[int, ...] = ()  # levels, from 0, with attention; ours: none
    fold: bool = False  # does the U-Net see 2 x 2 pixels as one? A third faster at 28 x 28; ours
    dropout: float = 0.0  # of the U-Net's hidden units; ours
    logit_deviation: float = 1.0  # of logit t; Esser et al. 2024, arXiv:2403.03206, sec. 5.1
    learning_rate: float = 1e-3  # Adam of the flow at the start, falling along a half cosine to 0; ours
    generator_averaging: float = 1e-3  # rate of the flow's EMA, which draws, a step; ours
    flow_augmentation: Augmentation = Augmentation()  # of every image that the flow learns; ours: none


PHOTOGRAPHS = Config(  # classifier: Sohn et al. 2020, for CIFAR-10, in fewer steps; flow: as `flow_matching`
    steps=500_000, samples_per_class=1_000, labelled_batch=64, unlabelled_batch=448, classifier_network="wide_resnet",
    threshold=0.95, averaging=1e-3, augmentation=WEAK_PHOTOGRAPHS, strong=STRONG_PHOTOGRAPHS, flow_batch=128,
    widths=(128, 256, 256), blocks=2, attention=(1,), dropout=0.13, learning_rate=2e-4, generator_averaging=1e-4,
    flow_augmentation=Augmentation(flip=True),
)  # fmt: skip


class State(NamedTuple):
    first: TrainState  # the classifier as the first phase left it
    field: TrainState
    classifier: TrainState
    marginals: Marginals | tuple[()]  # () without guesses or alignment
    samples: Array  # S, (M, H, W, C) in [-1, 1]: image i is of class i modulo the classes


def draws(config: Config, classes: int) -> int:
    """Steps of the third phase: at least K images of each class, `generated_batch` at a time."""
    return -(-config.samples_per_class * classes // config.generated_batch) if config.from_samples else 0


def make(config: Config, spec: ImageSpec) -> Method:
    """Flow and classifiers for images of `spec`; samples obey their labels."""
    check_multiples(config, "labelled_batch", "generated_batch", "unlabelled_batch")
    check_multiples(config, "generated_batch", "unlabelled_batch")
    if not knows_classes(config):
        raise UserError("label_dropout is 1: a flow that learns no class draws none for the classifier; choose less")
    first, second, third = lengths(config)
    drawn, size = draws(config, spec.classes), config.generated_batch
    network = classifiers.classifier(
        config.classifier_network,
        spec.classes,
        config.classifier_hidden,
        config.classifier_width,
        config.classifier_dropout,
    )
    rate = partly_cosine(config.classifier_rate, first + third)
    adamw = optax.adamw(rate, weight_decay=config.weight_decay, mask=kernels)
    classifier = Player("classifier", network, adamw, ema=True)
    adam = optax.adam(optax.cosine_decay_schedule(config.learning_rate, max(second, 1)))
    field = Player("field", unet(config, spec), adam, ema=True)
    flow = Flow(
        field, spec.shape, spec.classes, config.logit_deviation, config.label_dropout, config.generator_averaging
    )

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(key)
        player = classifier.init(keys[0], batch.unlabelled)
        marginals = uniform_marginals(spec.classes) if config.from_guesses and config.alignment else ()
        first = jax.tree.map(jnp.copy, player)
        return State(first, flow.init(keys[1]), player, marginals, jnp.zeros((drawn * size, *spec.shape)))

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    def classify_first(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.first, images))

    def sample(state: State, key: Key, labels: Array, sampler: FlowSampler) -> Array:
        check_guided(sampler.guidance, config.label_dropout > 0)
        return flow.sample(state.field, key, labels, sampler)

    def encode(state: State, images: Array) -> Array:
        """Told the classifier's guess."""
        return flow.encode(state.field, images, classify(state, images).argmax(-1))

    def decode(state: State, latents: Array, labels: Array) -> Array:
        return flow.decode(state.field, latents, labels)

    def train_classifier(state: State, key: Key, step: Array, batch: Batch, taught: Taught) -> tuple[State, Metrics]:
        player, marginals, metrics = learn_sources(
            config, classifier, state.classifier, state.marginals, key, step, batch, taught
        )
        return state._replace(classifier=player, marginals=marginals), metrics

    def warm_up(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        state, metrics = train_classifier(state, key, step, batch, {"supervised": (batch.labelled, batch.labels)})
        return state._replace(first=state.classifier), metrics

    def generation(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 5)
        visible = jnp.asarray(batch.guesses)
        labels = jnp.where(visible < 0, classify(state, batch.unlabelled).argmax(-1), visible)
        images = augment(config.flow_augmentation, keys[0], batch.unlabelled)
        player, metrics = flow.learn(state.field, keys[1:], step - first, images, labels)
        return state._replace(field=player), metrics

    def drawing(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        start = (step - first - second) * size
        labels = shard_batch((start + jnp.arange(size)) % spec.classes)
        images = sample(state, key, labels, FlowSampler())
        obeyed = (classify(state, images).argmax(-1) == labels).mean()
        samples = jax.lax.dynamic_update_slice_in_dim(state.samples, images, start, 0)
        return state._replace(samples=samples), {"samples/obeyed": obeyed}

    def retraining(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key)
        taught: Taught = {"supervised": (batch.labelled, batch.labels)} if config.from_labels else {}
        if config.from_samples:
            rows = shard_batch(jax.random.randint(keys[0], (size,), 0, drawn * size))
            taught["samples"] = state.samples[rows], rows % spec.classes
        return train_classifier(state, keys[1], step - second - drawn, batch, taught)

    unlabelled = config.from_guesses * config.unlabelled_batch
    phases = (
        Phase("warm_up", first, config.labelled_batch, unlabelled, warm_up),
        Phase("generation", second, 0, config.flow_batch, generation),
        Phase("drawing", drawn, 0, 0, drawing),
        Phase("retraining", third, config.from_labels * config.labelled_batch, unlabelled, retraining),
    )
    return Method(
        init, phases, sample, classify, encode, decode, conditional=True, told="visible",
        classify_first=classify_first, sampler=FlowSampler(), costly=("encode", "decode"),
        normal_latents=True,
    )  # fmt: skip
