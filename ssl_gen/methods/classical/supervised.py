"""The visible labels alone: the floor of every table (plain and augmented), and with all labels its ceiling.

Cross-entropy on the labelled images; no unlabelled image is looked at. Run it with the network, augmentation and steps
of the method it is compared with (Oliver et al. 2018, "Realistic Evaluation of Deep Semi-Supervised Learning
Algorithms", arXiv:1804.09170: an equal baseline). Its settings for photographs are those of `fixmatch`.

Its fast settings are airbench94's: Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498,
sec. 3 and code (airbench94.py), where all 50,000 labels come to an error of 6 %. Here no image is left out at the end
of an epoch, the first way that an image is mirrored is the same in every run, and it is shown once at a test and not
six times, moved and mirrored. Lookahead: every k updates, T in all, and after the last, where the code keeps s; with w
the player's weights and s the slow ones, which classify,

    s <- s + (1 - 0.95^k (t / T)^3) (w - s)
    w <- s
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax

from ssl_gen.augmentation import WEAK_PHOTOGRAPHS, Augmentation, augment
from ssl_gen.augmentation.geometry import alternately_mirrored
from ssl_gen.core.batching import passes
from ssl_gen.core.ema import look_ahead
from ssl_gen.core.gradient import Terms
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import Decaying, decaying
from ssl_gen.losses.classification import smoothed_cross_entropy
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree, UserError

PAPER = "Oliver et al. 2018, arXiv:1804.09170"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 5_000  # updates; ours
    labelled_batch: int = 100  # images a step; ours
    network: classifiers.Network = "mlp"  # the classifier
    hidden: tuple[int, ...] = (500, 500)  # units a layer of the mlp; ours
    width: int = 32  # channels of the first layer of the others; ours; wide_resnet 32, airbench 64, conv13 128: papers
    dropout: float = 0.5  # of hidden units; ours
    optimizer: Decaying = "adam"  # ours; Sohn et al. 2020: sgd, Nesterov momentum 0.9; Jordan 2024: airbench
    learning_rate: float = 1e-3  # greatest; along a half cosine to 0 (adam), cos(7 pi t / 16 T) (sgd), lines (airbench)
    l2: float = 1e-4  # weight decay, in the gradient: of all params, with sgd of kernels; ours; Sohn et al. 2020: 5e-4
    averaging: float = 0.01  # rate of the EMA, a step; ours
    lookahead: int = 0  # updates from one return to slow weights to the next, in place of the EMA; Jordan 2024: 5
    label_smoothing: float = 0.0  # share of a label that all classes get alike; Jordan 2024: 0.2
    alternating_flip: bool = False  # mirror each image in every other epoch, not at random; Jordan 2024
    augmentation: Augmentation = Augmentation()  # of the images trained on


PHOTOGRAPHS = Config(  # as fixmatch: Sohn et al. 2020, arXiv:2001.07685, code (fixmatch.py)
    steps=2**20, labelled_batch=64, network="wide_resnet", dropout=0.0, optimizer="sgd", learning_rate=0.03, l2=5e-4,
    averaging=1e-3, augmentation=WEAK_PHOTOGRAPHS,
)  # fmt: skip

FAST = Config(  # airbench94: 9.9 epochs of 48 batches; rate and decay as means over a batch, see `schedules.airbench`
    steps=476, labelled_batch=1_024, network="airbench", width=64, dropout=0.0, optimizer="airbench", learning_rate=1.5,
    l2=1.33e-3, lookahead=5, label_smoothing=0.2, alternating_flip=True, augmentation=Augmentation(crop=2),
)  # fmt: skip

QUICK = Config(  # ours, for photographs on a few cores: what fixmatch learns with, the labels alone
    steps=4_000, labelled_batch=64, network="airbench", dropout=0.0, learning_rate=2e-3, augmentation=WEAK_PHOTOGRAPHS,
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState


def slow_rate(step: Array, config: Config) -> Array:
    """How far the slow weights go towards the player's after update number `step` + 1: () in [0, 1]."""
    return 1 - 0.95**config.lookahead * ((step + 1.0) / config.steps) ** 3


def due(step: Array, config: Config) -> Array:
    """Do the slow weights move after update number `step` + 1? () bool: every so many updates, and at the end."""
    return (step % config.lookahead == config.lookahead - 1) | (step == config.steps - 1)


def images_an_epoch(config: Config, spec: ImageSpec) -> int:
    """How many there are, to mirror each in every other epoch. Raises UserError where that cannot be done."""
    if config.augmentation.flip:
        raise UserError("augmentation.flip mirrors at random and alternating_flip by turns: leave out one of them")
    if spec.labelled is None:
        raise UserError("alternating_flip counts epochs: give the ImageSpec's labelled")
    if config.steps * config.labelled_batch >= 2**31:
        raise UserError("alternating_flip counts less than 2^31 images: give fewer steps, or leave it out")
    return spec.labelled


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    epoch = images_an_epoch(config, spec) if config.alternating_flip else 0
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    optimizer = decaying(config.optimizer, config.learning_rate, config.steps, config.l2)
    classifier = Player("classifier", network, optimizer, ema=True)

    def init(key: Key, batch: Batch) -> State:
        return State(classifier.init(key, batch.labelled))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        augment_key, dropout_key, ema_key = jax.random.split(key, 3)
        images = batch.labelled
        if epoch:
            images = alternately_mirrored(images, passes(step, config.labelled_batch, epoch))
        images = augment(config.augmentation, augment_key, images)

        def loss(params: Tree) -> tuple[Terms, Tree]:
            logits, stats = classifier.run(state.classifier, params, images, rngs={"dropout": dropout_key})
            return {"supervised": smoothed_cross_entropy(logits, batch.labels, config.label_smoothing)}, stats

        player, metrics = classifier.descend(state.classifier, loss)
        if config.lookahead:
            player = look_ahead(player, slow_rate(step, config), due(step, config))
        else:
            player = classifier.average(player, config.averaging, step, batch.labelled, rngs={"dropout": ema_key})
        return State(player), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    return Method(init, (Phase("main", config.steps, config.labelled_batch, 0, step),), classify=classify)
