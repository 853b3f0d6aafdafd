"""UDA: what is said of a strongly changed image comes near to a sharpened guess, and labels are learnt by and by.

Xie et al. 2020, "Unsupervised Data Augmentation for Consistency Training", arXiv:1904.12848, sec. 2 and 3, and its
appendix for training signal annealing.

With a(.) a weak and A(.) a strong augmentation, q = p(. | a(u)), which carries no gradient, t the share of the run that
is over,

    q'   = q^(1/temperature), brought to sum 1
    L    = mean of - log p(y | a(x)) where p(y | a(x)) <= e(t)  -  w E_u 1[max_k q_k > threshold] q' log p(. | A(u))
    e(t) = r(t) (1 - 1/K) + 1/K,    r(t) = 1 - exp(-5 t) (log), t (linear) or exp(5 (t - 1)) (exp); 1 without annealing

The paper's second term is KL(q' | p), which differs by the entropy of q', without a gradient. With few labels, exp lets
the network grow sure of them late, and so not overfit them.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax

from ssl_gen.augmentation import STRONG_DIGITS, STRONG_PHOTOGRAPHS, WEAK_PHOTOGRAPHS, Augmentation, views
from ssl_gen.core.consistency import Teacher, follow, look
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import PartlyCosine, partly_cosine_optimizer
from ssl_gen.losses.thresholds import (
    Annealing,
    annealed_cross_entropy,
    confident,
    sharpened_cross_entropy,
    signal_ceiling,
)
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState

PAPER = "Xie et al. 2020, arXiv:1904.12848"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 2_400  # updates; ours, for MNIST; official code (image/scripts/run_cifar10_gpu.sh): 500,000
    labelled_batch: int = 32  # images a step; ours; official code: 64
    unlabelled_batch: int = 192  # images a step, a multiple; ours; official code: 448
    network: classifiers.Network = "conv"  # paper: wide_resnet
    hidden: tuple[int, ...] = (500, 500)  # units a layer of the mlp; ours
    width: int = 32  # channels of the first layer of the others; paper: 32
    dropout: float = 0.0  # of hidden units; paper: none
    optimizer: PartlyCosine = "adamw"  # ours; paper: sgd, Nesterov momentum 0.9
    learning_rate: float = 2e-3  # at the start, falling along cos(7 pi t / 16 T); ours; official code: 0.03 with sgd
    weight_decay: float = 5e-4  # of kernels; official code, of all params, in sgd's; adamw's is times the rate: inert
    unlabelled_weight: float = 1.0  # w; paper
    threshold: float = 0.8  # of probability; paper
    temperature: float = 0.4  # of the guesses; paper
    annealing: Annealing = "none"  # of the labels' signal; log, linear or exp; official code: none for images
    teacher: Teacher = "student"  # whose guesses are learnt; average: the EMA's; paper: the student's
    averaging: float = 0.01  # rate of the EMA, a step; ours; official code: 0.0001
    augmentation: Augmentation = Augmentation(translate=2.0)  # the weak one; ours; paper: flip, crop 4
    strong: Augmentation = STRONG_DIGITS  # the strong one; paper: RandAugment


PHOTOGRAPHS = Config(  # official code, CIFAR-10 (image/scripts/run_cifar10_gpu.sh and image/main.py)
    steps=500_000, labelled_batch=64, unlabelled_batch=448, network="wide_resnet", optimizer="sgd", learning_rate=0.03,
    averaging=1e-4, augmentation=WEAK_PHOTOGRAPHS, strong=STRONG_PHOTOGRAPHS,
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    optimizer = partly_cosine_optimizer(config.optimizer, config.learning_rate, config.steps, config.weight_decay)
    classifier = Player("classifier", network, optimizer, ema=True)

    def init(key: Key, batch: Batch) -> State:
        return State(classifier.init(key, batch.unlabelled))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 5)
        shown = views(config.augmentation, config.strong, (keys[0], keys[1], keys[2]), batch)
        seen = look(classifier, state.classifier, shown, config.teacher, keys[3:])
        ceiling = signal_ceiling(config.annealing, step / config.steps, spec.classes)

        def loss(logits: Array) -> Terms:
            labelled, strong = seen.separate(logits)
            settings = config.temperature, config.threshold, False
            consistency = sharpened_cross_entropy(strong, seen.guesses, *settings)
            return {
                "supervised": annealed_cross_entropy(labelled, batch.labels, ceiling),
                "consistency": config.unlabelled_weight * consistency,
            }

        player, metrics = classifier.descend(state.classifier, loss, seen.predicted)
        metrics["classifier/confident"] = confident(seen.guesses, config.threshold).mean()
        player = follow(classifier, player, seen, config.averaging, step, batch.unlabelled, keys[3:])
        return State(player), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
