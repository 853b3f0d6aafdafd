"""FixMatch: what the network is sure of on a slightly changed image, it must say of a strongly changed one.

Sohn et al. 2020, "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence", arXiv:2001.07685,
sec. 2; distribution alignment: Berthelot et al. 2020, "ReMixMatch", arXiv:1911.09785, sec. 3.1.

With a(.) a weak and A(.) a strong augmentation, q = p(. | a(u)) and yh = argmax_k q_k, which carry no gradient,

    L = - E_(x,y) log p(y | a(x)) - w E_u 1[max_k q_k > threshold] log p(yh | A(u))

With alignment q becomes q * (mean of labels) / (mean of q), brought to sum 1: the means are running ones. Without it,
as in the paper, a class of a few labels is easily swallowed by another one that looks like it. It takes the classes to
be as frequent among the unlabelled images as among the labels; where they are not (classes without labels, foreign
images, long tails) it is to be switched off.

The paper's q is the network's own; with teacher "average" it is that of its EMA, which classifies either way. Both are
made as in training: running statistics of batch norm are those of neither, and q by them goes astray while the params
move.
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
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.losses.thresholds import (
    Marginals,
    confident,
    confident_cross_entropy,
    distribution_alignment,
    uniform_marginals,
    update_marginals,
)
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState

PAPER = "Sohn et al. 2020, arXiv:2001.07685"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 2_400  # updates; ours, for MNIST; paper: 2^20
    labelled_batch: int = 32  # images a step; ours; paper: 64
    unlabelled_batch: int = 192  # images a step, a multiple; ours; paper: 448
    network: classifiers.Network = "conv"  # paper: wide_resnet
    hidden: tuple[int, ...] = (500, 500)  # units a layer of the mlp; ours
    width: int = 32  # channels of the first layer of the others; paper: 32
    dropout: float = 0.0  # of hidden units; paper: none
    optimizer: PartlyCosine = "adamw"  # ours; paper: sgd, Nesterov momentum 0.9
    learning_rate: float = 2e-3  # at the start, falling along cos(7 pi t / 16 T); ours; paper: 0.03 with sgd
    weight_decay: float = 5e-4  # of kernels; paper, in sgd's gradient; adamw's is times the rate, 1e-6 a step: inert
    unlabelled_weight: float = 1.0  # w; paper
    threshold: float = 0.95  # of probability; paper
    teacher: Teacher = "student"  # whose guesses are learnt; average: the EMA's
    alignment: bool = True  # of the guesses' classes to those of the labels; Berthelot et al. 2020; paper: none
    memory: int = 128  # steps that the means of alignment look back; Berthelot et al. 2020, code, of the guesses'
    averaging: float = 0.01  # rate of the EMA, a step; ours; paper: 0.001
    augmentation: Augmentation = Augmentation(translate=2.0)  # the weak one; ours; paper: flip, crop 4
    strong: Augmentation = STRONG_DIGITS  # the strong one; paper: flip, crop 4, operations 2, cutout 0.5


PHOTOGRAPHS = Config(  # paper, CIFAR-10, and alignment
    steps=2**20,
    labelled_batch=64,
    unlabelled_batch=448,
    network="wide_resnet",
    optimizer="sgd",
    learning_rate=0.03,
    averaging=1e-3,
    augmentation=WEAK_PHOTOGRAPHS,
    strong=STRONG_PHOTOGRAPHS,
)
QUICK = Config(  # ours, for photographs on a few cores: half of Jordan 2024's network, arXiv:2404.00498, and few images
    steps=1_200, labelled_batch=32, unlabelled_batch=96, network="airbench", teacher="average",
    augmentation=WEAK_PHOTOGRAPHS, strong=STRONG_PHOTOGRAPHS,
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState
    marginals: Marginals | tuple[()]  # () without alignment


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    optimizer = partly_cosine_optimizer(config.optimizer, config.learning_rate, config.steps, config.weight_decay)
    classifier = Player("classifier", network, optimizer, ema=True)

    def init(key: Key, batch: Batch) -> State:
        player = classifier.init(key, batch.unlabelled)
        return State(player, uniform_marginals(spec.classes) if config.alignment else ())

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 5)
        shown = views(config.augmentation, config.strong, (keys[0], keys[2], keys[1]), batch)
        seen = look(classifier, state.classifier, shown, config.teacher, keys[3:])
        marginals = state.marginals
        teacher = distribution_alignment(seen.guesses, marginals) if marginals else seen.guesses

        def loss(logits: Array) -> Terms:
            labelled, unlabelled = seen.separate(logits)
            pseudo_label = confident_cross_entropy(unlabelled, teacher, config.threshold)
            return {
                "supervised": cross_entropy(labelled, batch.labels),
                "pseudo_label": config.unlabelled_weight * pseudo_label,
            }

        player, metrics = classifier.descend(state.classifier, loss, seen.predicted)
        metrics["classifier/confident"] = confident(teacher, config.threshold).mean()
        if marginals:
            marginals = update_marginals(marginals, batch.labels, seen.guesses, config.memory)
        player = follow(classifier, player, seen, config.averaging, step, batch.unlabelled, keys[3:])
        return State(player, marginals), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
