"""MixMatch: guesses of several views, sharpened, and all images mixed with each other and so their targets.

Berthelot et al. 2019, "MixMatch: A Holistic Approach to Semi-Supervised Learning", arXiv:1905.02249, sec. 3 and alg. 1.
With u_1, ..., u_V views of u and q the guess for all of them, which carries no gradient,

    q    = sharpen(mean over v of p(. | u_v)), sharpen(p) ~ p^(1/temperature)
    x'   = s x + (1 - s) z, y' = s y + (1 - s) y_z, s = max(s', 1 - s'), s' ~ Beta(a, a)
    L    = - E_x' sum_k y'_k log p(k | x') + c r(t) E_u' |p(. | u') - q'|^2 / K

z is another image of the step, labelled or not, y_z its label or guess; u' and q' are made of u_v and q as x' and y' of
x and y. An image's own share s is the larger one, so that x' counts as labelled and u' as unlabelled. The weight rises
along a line, r(t).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import WEAK_PHOTOGRAPHS, Augmentation, augment
from ssl_gen.core.batching import interleave, repeated, separate
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import kernels, linear_ramp
from ssl_gen.losses.classification import brier
from ssl_gen.losses.mixing import mean_prediction, mixed, own_shares, sharpened, shuffles
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState

PAPER = "Berthelot et al. 2019, arXiv:1905.02249"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 2_400  # updates; ours, for MNIST; official code: 2^20
    labelled_batch: int = 32  # images a step; ours; paper: 64
    unlabelled_batch: int = 96  # images a step, a multiple; ours; paper: 64
    views: int = 2  # V; paper
    network: classifiers.Network = "conv"  # paper: wide_resnet
    hidden: tuple[int, ...] = (500, 500)  # units a layer of the mlp; ours
    width: int = 32  # channels of the first layer of the others; paper: 32
    dropout: float = 0.0  # of hidden units; paper: none
    learning_rate: float = 2e-3  # AdamW; official code
    weight_decay: float = 0.02  # of kernels, times the rate; official code
    temperature: float = 0.5  # of sharpening; paper
    concentration: float = 0.75  # a, of Beta(a, a); paper
    mixing_groups: int = 1  # parts of a step's images within which they are mixed; as many as devices spares a copy
    consistency: float = 75.0  # c; paper, CIFAR-10; SVHN: 250
    ramp: float = 1 / 64  # share of the steps over which r(t) rises from 0 to 1; official code
    averaging: float = 0.01  # rate of the EMA, a step; ours; paper: 0.001
    augmentation: Augmentation = Augmentation(translate=2.0)  # of each view; ours; paper: flip, crop 4


PHOTOGRAPHS = Config(  # official code (mixmatch.py, runs/table5.sh), CIFAR-10; paper, sec. 4.2
    steps=2**20, labelled_batch=64, unlabelled_batch=64, network="wide_resnet", averaging=1e-3,
    augmentation=WEAK_PHOTOGRAPHS,
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    check_multiples(config, "mixing_groups", "labelled_batch")
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    optimizer = optax.adamw(config.learning_rate, weight_decay=config.weight_decay, mask=kernels)
    classifier = Player("classifier", network, optimizer, ema=True)
    sizes = config.labelled_batch, config.views * config.unlabelled_batch

    def init(key: Key, batch: Batch) -> State:
        return State(classifier.init(key, batch.unlabelled))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        augment_key, share_key, order_key, *dropout_keys = jax.random.split(key, 6)
        images = interleave(batch.labelled, repeated(batch.unlabelled, config.views))
        images = augment(config.augmentation, augment_key, images)
        rngs = [{"dropout": each} for each in dropout_keys]
        views = separate(images, sizes)[1]
        logits, _ = classifier.run(state.classifier, state.classifier.params, views, rngs=rngs[0])
        guess = jnp.exp(sharpened(mean_prediction(logits, config.views), config.temperature))

        targets = interleave(jax.nn.one_hot(batch.labels, spec.classes), repeated(guess, config.views))
        shares = own_shares(share_key, images.shape[0], config.concentration)
        orders = shuffles(order_key, images.shape[0], config.mixing_groups)
        labels, guesses = separate(mixed(targets, shares, orders), sizes)
        predicted = classifier.forward(state.classifier, mixed(images, shares, orders), rngs=rngs[1])

        def loss(logits: Array) -> Terms:
            labelled, unlabelled = separate(logits, sizes)
            weight = config.consistency * linear_ramp(step, 0, config.ramp * config.steps)
            return {
                "supervised": optax.softmax_cross_entropy(labelled, labels).mean(),
                "consistency": weight * brier(unlabelled, guesses).mean(),
            }

        player, metrics = classifier.descend(state.classifier, loss, predicted)
        player = classifier.average(player, config.averaging, step, batch.unlabelled, rngs=rngs[2])
        return State(player), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
