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
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import WEAK_PHOTOGRAPHS, Augmentation, augment
from ssl_gen.core.batching import interleave, separate
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player, update_ema
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
    learning_rate: float = 1e-3  # Adam at the start, falling to 0 along a half cosine; ours
    l2: float = 1e-4  # weight decay, in the gradient; ours
    unlabelled_weight: float = 3.0  # a; Lee 2013
    ramp: tuple[float, float] = (0.1, 0.6)  # t1 and t2, shares of the steps; Lee 2013: epochs 100 and 600
    threshold: float = 0.0  # of probability; Lee 2013: none; Oliver et al. 2018: 0.95 with a = 1
    averaging: float = 0.01  # rate of the EMA, a step; ours
    augmentation: Augmentation = Augmentation()  # of the images trained on; Lee 2013: none


PHOTOGRAPHS = Config(  # Oliver et al. 2018, table 5
    network="wide_resnet", unlabelled_weight=1.0, threshold=0.95, dropout=0.0, augmentation=WEAK_PHOTOGRAPHS
)


class State(NamedTuple):
    classifier: TrainState


def ramp(step: Array, begin: float, end: float) -> Array:
    """a(t) / a: 0 until step `begin`, 1 from `end` on, a line between them; Lee 2013, eq. 16."""
    return jnp.clip((step - begin) / jnp.maximum(end - begin, 1), 0, 1)


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    rate = optax.cosine_decay_schedule(config.learning_rate, max(config.steps, 1))
    adam = optax.chain(optax.add_decayed_weights(config.l2), optax.adam(rate))
    classifier = Player("classifier", network, adam, ema=True)
    begin, end = (share * config.steps for share in config.ramp)

    def init(key: Key, batch: Batch) -> State:
        return State(classifier.init(key, batch.unlabelled))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        augment_key, dropout_key = jax.random.split(key)
        images = augment(config.augmentation, augment_key, interleave(batch.labelled, batch.unlabelled))
        sizes = batch.labelled.shape[0], batch.unlabelled.shape[0]
        predicted = classifier.forward(state.classifier, images, rngs={"dropout": dropout_key})
        teacher = jax.nn.log_softmax(separate(predicted.outputs, sizes)[1])

        def loss(logits: Array) -> Terms:
            labelled, unlabelled = separate(logits, sizes)
            weight = config.unlabelled_weight * ramp(step, begin, end)
            return {
                "supervised": cross_entropy(labelled, batch.labels),
                "pseudo_label": weight * confident_cross_entropy(unlabelled, teacher, config.threshold),
            }

        player, metrics = classifier.descend(state.classifier, loss, predicted)
        metrics["classifier/confident"] = confident(teacher, config.threshold).mean()
        return State(update_ema(player, config.averaging, step)), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
