"""Temporal ensembling: what the network says of an image must agree with what it said in earlier epochs.

Laine and Aila 2017, "Temporal Ensembling for Semi-Supervised Learning", arXiv:1610.02242, sec. 2.2 and algorithm 2.
With n the noise of a step (augmentation and dropout), t the step, Z_u a memory of each unlabelled image, 0 at first, s
how often it was seen,

    L    = - E_(x,y) log p(y | x; n) + c r(t) E_u |p(. | u; n) - Z_u / (1 - a^s)|^2 / K
    Z_u <- a Z_u + (1 - a) p(. | u; n)
    r(t) = exp(-5 (1 - t / t1)^2) until t1, then 1: also of the learning rate, which at the end falls along
           exp(-12.5 (1 - (T - t) / t2)^2)

An image that was not seen yet has no target. One pass a step, where `pi_model` has two; the price is the memory, K
numbers for every training image, in the state and in each checkpoint. The paper takes the mean of the first term over
all images, labelled or not, and a c smaller in proportion.
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
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.losses.ensembling import Memory, empty_memory, recall, remember, remembered_mse
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, UserError

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
    consistency: float = 30.0  # c; paper
    decay: float = 0.6  # a, of the memory, each time an image is seen; paper
    ramp_up: float = 4 / 15  # t1, share of the steps; paper: 80 of 300 epochs
    ramp_down: float = 1 / 6  # t2, share of the steps, at the end; paper: 50 of 300 epochs
    learning_rate: float = 3e-3  # Adam, at its highest; paper, CIFAR-10; SVHN: 1e-3
    b1: tuple[float, float] = (0.9, 0.5)  # Adam, until the ramp-down and at the end; paper
    b2: float = 0.999  # Adam; paper
    averaging: float = 0.01  # rate of the EMA, which classifies, a step; ours; paper: none
    augmentation: Augmentation = Augmentation(translate=2.0, noise=0.1)  # of all images; paper: crop 2, noise 0.15


# Official script (config.py) for CIFAR-10 with 4,000 labels, without its ZCA, and with an EMA.
PHOTOGRAPHS = Config(
    steps=150_000, labelled_batch=10, unlabelled_batch=90, network="conv13", width=128, averaging=1e-3,
    augmentation=Augmentation(crop=2, flip=True, noise=0.15),
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState
    memory: Memory  # of every training image


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`; raises UserError where it does not say how many there are."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    if spec.images is None:
        raise UserError("temporal_ensembling remembers every training image: give the ImageSpec's images")
    remembered = spec.images
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    up, down = (max(share * config.steps, 1.0) for share in (config.ramp_up, config.ramp_down))
    optimizer = ramped_adam(config.learning_rate, config.steps, up, down, config.b1, (config.b2, config.b2))
    classifier = Player("classifier", network, optimizer, ema=True)

    def init(key: Key, batch: Batch) -> State:
        return State(classifier.init(key, batch.unlabelled), empty_memory(remembered, spec.classes))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        assert batch.rows is not None, "a batch says which images it shows"
        augment_key, dropout_key, ema_key = jax.random.split(key, 3)
        images = augment(config.augmentation, augment_key, interleave(batch.labelled, batch.unlabelled))
        sizes = batch.labelled.shape[0], batch.unlabelled.shape[0]
        predicted = classifier.forward(state.classifier, images, rngs={"dropout": dropout_key})
        targets, seen = recall(state.memory, batch.rows)

        def loss(logits: Array) -> Terms:
            labelled, unlabelled = separate(logits, sizes)
            consistency = remembered_mse(unlabelled, targets, seen)
            return {
                "supervised": cross_entropy(labelled, batch.labels),
                "consistency": config.consistency * ramp_up(step, up) * consistency,
            }

        player, metrics = classifier.descend(state.classifier, loss, predicted)
        player = classifier.average(player, config.averaging, step, batch.unlabelled, rngs={"dropout": ema_key})
        probabilities = jax.nn.softmax(separate(predicted.outputs, sizes)[1])
        return State(player, remember(state.memory, batch.rows, probabilities, config.decay)), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
