"""Pseudo-label: the network's own guesses, taken for labels by and by.

Lee 2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks", ICML
Workshop on Challenges in Representation Learning, eq. 15 and 16. The threshold, an option, is that of Oliver et al.
2018, arXiv:1804.09170.

With yh = argmax_k p(k | u), which carries no gradient, and t the step,

    L    = - E_(x,y) log p(y | x) - a(t) E_u 1[max_k p(k | u) > threshold] log p(yh | u)
    a(t) = 0 until t1, then rises along a line, a from t2 on

Here softmax, batch norm and Adam stand for the paper's sigmoids and its gradient descent with momentum.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax

from ssl_gen.augmentation import WEAK_PHOTOGRAPHS, Augmentation, augment
from ssl_gen.core.batching import interleave, separate
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import Decaying, decaying, linear_ramp
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.losses.thresholds import confident, confident_cross_entropy
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState

PAPER = "Lee 2013, ICML Workshop on Challenges in Representation Learning"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 5_000  # updates; ours
    labelled_batch: int = 32  # images a step; Lee 2013
    unlabelled_batch: int = 256  # images a step, a multiple; Lee 2013
    network: classifiers.Network = "mlp"  # the classifier
    hidden: tuple[int, ...] = (5000,)  # units a layer of the mlp; Lee 2013
    width: int = 32  # channels of the first layer of the others; wide_resnet 32 and conv13 128 in their papers
    dropout: float = 0.5  # of hidden units; Lee 2013
    optimizer: Decaying = "adam"  # ours; Sohn et al. 2020: sgd, Nesterov momentum 0.9; Jordan 2024: airbench
    learning_rate: float = 1e-3  # greatest; along a half cosine to 0 (adam), cos(7 pi t / 16 T) (sgd), lines (airbench)
    l2: float = 1e-4  # weight decay, in the gradient: of all params, with sgd of kernels; ours; Sohn et al. 2020: 5e-4
    unlabelled_weight: float = 3.0  # a; Lee 2013
    ramp: tuple[float, float] = (0.1, 0.6)  # t1 and t2, shares of the steps; Lee 2013: epochs 100 and 600
    threshold: float = 0.0  # of probability; Lee 2013: none; Oliver et al. 2018: 0.95 with a = 1
    averaging: float = 0.01  # rate of the EMA, a step; ours
    augmentation: Augmentation = Augmentation()  # of the images trained on; Lee 2013: none


PHOTOGRAPHS = Config(  # Sohn et al. 2020, arXiv:2001.07685, code (pseudo_label.py): fixmatch's length and optimiser
    steps=2**20, labelled_batch=64, unlabelled_batch=64, network="wide_resnet", dropout=0.0, optimizer="sgd",
    learning_rate=0.03, l2=5e-4, unlabelled_weight=1.0, ramp=(0.0, 0.4), threshold=0.95, averaging=1e-3,
    augmentation=WEAK_PHOTOGRAPHS,
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    optimizer = decaying(config.optimizer, config.learning_rate, config.steps, config.l2)
    classifier = Player("classifier", network, optimizer, ema=True)
    begin, end = (share * config.steps for share in config.ramp)

    def init(key: Key, batch: Batch) -> State:
        return State(classifier.init(key, batch.unlabelled))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        augment_key, dropout_key, ema_key = jax.random.split(key, 3)
        images = augment(config.augmentation, augment_key, interleave(batch.labelled, batch.unlabelled))
        sizes = batch.labelled.shape[0], batch.unlabelled.shape[0]
        predicted = classifier.forward(state.classifier, images, rngs={"dropout": dropout_key})
        teacher = jax.nn.log_softmax(separate(predicted.outputs, sizes)[1])

        def loss(logits: Array) -> Terms:
            labelled, unlabelled = separate(logits, sizes)
            weight = config.unlabelled_weight * linear_ramp(step, begin, end)
            return {
                "supervised": cross_entropy(labelled, batch.labels),
                "pseudo_label": weight * confident_cross_entropy(unlabelled, teacher, config.threshold),
            }

        player, metrics = classifier.descend(state.classifier, loss, predicted)
        metrics["classifier/confident"] = confident(teacher, config.threshold).mean()
        player = classifier.average(player, config.averaging, step, batch.unlabelled, rngs={"dropout": ema_key})
        return State(player), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
