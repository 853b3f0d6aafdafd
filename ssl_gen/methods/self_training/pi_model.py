"""Pi-model: two views of an image, under two draws of dropout, must be taken for the same.

Laine and Aila 2017, "Temporal Ensembling for Semi-Supervised Learning", arXiv:1610.02242, sec. 2.1 and algorithm 1.
With n and n' noise drawn apart (augmentation and dropout), t the step,

    L    = - E_(x,y) log p(y | x; n) + c r(t) E_(x,u) |p(. | x; n) - p(. | x; n')|^2 / K
    r(t) = exp(-5 (1 - t / t1)^2) until t1, then 1: also of the learning rate, which at the end falls along
           exp(-12.5 (1 - (T - t) / t2)^2)

Both sides carry a gradient. The paper takes the mean of the first term over all images, labelled or not, and a c
smaller in proportion.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax

from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.core.batching import interleave, separate
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import ramp_up, ramped_adam
from ssl_gen.losses.classification import cross_entropy, softmax_mse
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Laine and Aila 2017, arXiv:1610.02242"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 5_000  # updates; ours, for MNIST; paper: 150,000
    labelled_batch: int = 20  # images a step; ours; official CIFAR-10 script: 8 of 100 on the average
    unlabelled_batch: int = 80  # images a step, a multiple; ours
    network: classifiers.Network = "conv"  # paper: conv13
    hidden: tuple[int, ...] = (500, 500)  # units a layer of the mlp; ours
    width: int = 32  # channels of the first layer of the others; paper: 128
    dropout: float = 0.5  # of hidden units; paper
    consistency: float = 100.0  # c; paper
    ramp_up: float = 4 / 15  # t1, share of the steps; paper: 80 of 300 epochs
    ramp_down: float = 1 / 6  # t2, share of the steps, at the end; paper: 50 of 300 epochs
    learning_rate: float = 3e-3  # Adam, at its highest; paper
    b1: tuple[float, float] = (0.9, 0.5)  # Adam, until the ramp-down and at the end; paper
    b2: float = 0.999  # Adam; paper
    averaging: float = 0.01  # rate of the EMA, which classifies, a step; ours; paper: none
    augmentation: Augmentation = Augmentation(translate=2.0, noise=0.1)  # of each side; paper: crop 2, noise 0.15


# Official script (config.py) for CIFAR-10 with 4,000 labels, without its ZCA, mirrored apart, and with an EMA.
PHOTOGRAPHS = Config(
    steps=150_000, labelled_batch=10, unlabelled_batch=90, network="conv13", width=128, averaging=1e-3,
    augmentation=Augmentation(crop=2, flip=True, noise=0.15),
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    up, down = (max(share * config.steps, 1.0) for share in (config.ramp_up, config.ramp_down))
    optimizer = ramped_adam(config.learning_rate, config.steps, up, down, config.b1, (config.b2, config.b2))
    classifier = Player("classifier", network, optimizer, ema=True)

    def init(key: Key, batch: Batch) -> State:
        return State(classifier.init(key, batch.unlabelled))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        *view_keys, dropout_key, ema_key = jax.random.split(key, 4)
        images = interleave(batch.labelled, batch.unlabelled)
        views = interleave(*(augment(config.augmentation, view_key, images) for view_key in view_keys))
        sizes = batch.labelled.shape[0], batch.unlabelled.shape[0]

        def loss(params: Tree) -> tuple[Terms, Tree]:
            logits, stats = classifier.run(state.classifier, params, views, rngs={"dropout": dropout_key})
            first, second = separate(logits, (images.shape[0], images.shape[0]))
            return {
                "supervised": cross_entropy(separate(first, sizes)[0], batch.labels),
                "consistency": config.consistency * ramp_up(step, up) * softmax_mse(first, second),
            }, stats

        player, metrics = classifier.descend(state.classifier, loss)
        player = classifier.average(player, config.averaging, step, batch.unlabelled, rngs={"dropout": ema_key})
        return State(player), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
