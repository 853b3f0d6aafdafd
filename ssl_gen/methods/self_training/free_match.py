"""FreeMatch: thresholds that follow how sure the network is, of all images and of each class.

Wang et al. 2023, "FreeMatch: Self-adaptive Thresholding for Semi-supervised Learning", arXiv:2205.07246, sec. 4.

With a(.) a weak and A(.) a strong augmentation, q = p(. | a(u)) and yh = argmax_k q_k, which carry no gradient, and
r <- r + (new - r) / memory a running mean over steps, from 1 / K on,

    s      running mean of max_k q_k, the global threshold
    m_k    running mean of q_k
    h_k    running mean of 1[yh = k]
    t_k  = s m_k / max_j m_j
    L    = - E_(x,y) log p(y | a(x)) - w E_u 1[max_k q_k > t_yh] log p(yh | A(u)) + f L_f
    L_f  = sum_k a_k log b_k,    a = norm(m / h),    b = norm(mean of p(. | A(u)) / share of k = argmax p(. | A(u)))

The means hold this step's q already. b is over the images whose guesses are learnt; norm brings to sum 1.

L_f, the fairness, has the sign of the paper's eq. 11 and of the authors' code. Followed downhill it moves b away from
a, where the words beside eq. 11 want the one near the other (microsoft/Semi-supervised-learning, issue 182); at its
weight of a thousandth it hardly counts.
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
    SelfAdaptive,
    confident,
    confident_cross_entropy,
    first_self_adaptive,
    self_adaptive_fairness,
    self_adaptive_thresholds,
    update_self_adaptive,
)
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState

PAPER = "Wang et al. 2023, arXiv:2205.07246"


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
    fairness: float = 1e-3  # f; authors' code, CIFAR-10 (USB, config/classic_cv/freematch)
    memory: int = 128  # steps that the running means look back; ours, for a short run; paper: decay 0.999, 1,000 steps
    teacher: Teacher = "student"  # whose guesses are learnt; average: the EMA's; paper: the student's
    averaging: float = 0.01  # rate of the EMA, a step; ours; paper: 0.001
    augmentation: Augmentation = Augmentation(translate=2.0)  # the weak one; ours; paper: flip, crop 4
    strong: Augmentation = STRONG_DIGITS  # the strong one; paper: RandAugment


# Paper, CIFAR-10, and authors' code (USB, config/classic_cv/freematch).
# The strong augmentation is FixMatch's: USB's has 3 operations, none skipped, of a longer list, and a smaller cutout.
PHOTOGRAPHS = Config(
    steps=2**20, labelled_batch=64, unlabelled_batch=448, network="wide_resnet", optimizer="sgd", learning_rate=0.03,
    memory=1_000, averaging=1e-3, augmentation=WEAK_PHOTOGRAPHS, strong=STRONG_PHOTOGRAPHS,
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState
    means: SelfAdaptive


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    optimizer = partly_cosine_optimizer(config.optimizer, config.learning_rate, config.steps, config.weight_decay)
    classifier = Player("classifier", network, optimizer, ema=True)

    def init(key: Key, batch: Batch) -> State:
        return State(classifier.init(key, batch.unlabelled), first_self_adaptive(spec.classes))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 5)
        shown = views(config.augmentation, config.strong, (keys[0], keys[1], keys[2]), batch)
        seen = look(classifier, state.classifier, shown, config.teacher, keys[3:])
        means = update_self_adaptive(state.means, seen.guesses, config.memory)
        thresholds = self_adaptive_thresholds(means)[seen.guesses.argmax(-1)]
        believed = confident(seen.guesses, thresholds)

        def loss(logits: Array) -> Terms:
            labelled, strong = seen.separate(logits)
            pseudo_label = confident_cross_entropy(strong, seen.guesses, thresholds)
            return {
                "supervised": cross_entropy(labelled, batch.labels),
                "pseudo_label": config.unlabelled_weight * pseudo_label,
                "fairness": config.fairness * self_adaptive_fairness(strong, believed, means),
            }

        player, metrics = classifier.descend(state.classifier, loss, seen.predicted)
        metrics |= {"classifier/confident": believed.mean(), "classifier/threshold": means.confidence}
        player = follow(classifier, player, seen, config.averaging, step, batch.unlabelled, keys[3:])
        return State(player, means), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
