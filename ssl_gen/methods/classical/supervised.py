"""The visible labels alone: the floor of every table (plain and augmented), and with all labels its ceiling.

Cross-entropy on the labelled images; no unlabelled image is looked at. Run it with the network, augmentation and steps
of the method it is compared with (Oliver et al. 2018, "Realistic Evaluation of Deep Semi-Supervised Learning
Algorithms", arXiv:1804.09170: an equal baseline). Its settings for photographs are those of `fixmatch`.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax

from ssl_gen.augmentation import WEAK_PHOTOGRAPHS, Augmentation, augment
from ssl_gen.core.gradient import Terms
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import Decaying, decaying
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Oliver et al. 2018, arXiv:1804.09170"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 5_000  # updates; ours
    labelled_batch: int = 100  # images a step; ours
    network: classifiers.Network = "mlp"  # the classifier
    hidden: tuple[int, ...] = (500, 500)  # units a layer of the mlp; ours
    width: int = 32  # channels of the first layer of the others; ours; wide_resnet 32, conv13 128 in their papers
    dropout: float = 0.5  # of hidden units; ours
    optimizer: Decaying = "adam"  # ours; Sohn et al. 2020: sgd, Nesterov momentum 0.9
    learning_rate: float = 1e-3  # at the start; adam's falls along a half cosine to 0, sgd's along cos(7 pi t / 16 T)
    l2: float = 1e-4  # weight decay, in the gradient: of all params, with sgd of kernels; ours; Sohn et al. 2020: 5e-4
    averaging: float = 0.01  # rate of the EMA, a step; ours
    augmentation: Augmentation = Augmentation()  # of the images trained on


PHOTOGRAPHS = Config(  # as fixmatch: Sohn et al. 2020, arXiv:2001.07685, code (fixmatch.py)
    steps=2**20, labelled_batch=64, network="wide_resnet", dropout=0.0, optimizer="sgd", learning_rate=0.03, l2=5e-4,
    averaging=1e-3, augmentation=WEAK_PHOTOGRAPHS,
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    optimizer = decaying(config.optimizer, config.learning_rate, config.steps, config.l2)
    classifier = Player("classifier", network, optimizer, ema=True)

    def init(key: Key, batch: Batch) -> State:
        return State(classifier.init(key, batch.labelled))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        augment_key, dropout_key, ema_key = jax.random.split(key, 3)
        images = augment(config.augmentation, augment_key, batch.labelled)

        def loss(params: Tree) -> tuple[Terms, Tree]:
            logits, stats = classifier.run(state.classifier, params, images, rngs={"dropout": dropout_key})
            return {"supervised": cross_entropy(logits, batch.labels)}, stats

        player, metrics = classifier.descend(state.classifier, loss)
        player = classifier.average(player, config.averaging, step, batch.labelled, rngs={"dropout": ema_key})
        return State(player), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    return Method(init, (Phase("main", config.steps, config.labelled_batch, 0, step),), classify=classify)
