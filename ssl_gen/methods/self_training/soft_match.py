"""SoftMatch: every guess is learnt, the less the surer the others are.

Chen et al. 2023, "SoftMatch: Addressing the Quantity-Quality Trade-off in Semi-supervised Learning", arXiv:2301.10921,
sec. 3.

With a(.) a weak and A(.) a strong augmentation, q = p(. | a(u)) and yh = argmax_k q_k, which carry no gradient, and
r <- r + (new - r) / memory a running mean over steps,

    q'   = norm(q / running mean of q)                    from 1 / K on; authors' code: from the first batch's mean
    m, v   running mean and variance of max_k q'_k, from 1 / K and 1 on
    g(u) = exp(- min(max_k q'_k - m, 0)^2 / (2 d^2 v))
    L    = - E_(x,y) log p(y | a(x)) - w E_u g(u) log p(yh | A(u))

All means hold this step's q already. q' is the uniform alignment: norm brings to sum 1, and classes that are seldom
guessed weigh more. It decides on weights alone, yh is that of q. Where the classes are not as frequent as each other
(long tails, classes without labels, foreign images) it is to be switched off.
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
    Gaussian,
    Marginals,
    distribution_alignment,
    first_gaussian,
    truncated_gaussian,
    uniform_marginals,
    update_gaussian,
    update_guesses,
    weighted_cross_entropy,
)
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, UserError

PAPER = "Chen et al. 2023, arXiv:2301.10921"


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
    unlabelled_weight: float = 1.0  # w, the paper's highest weight of a guess; paper
    deviations: float = 0.5  # d, of the running deviation; authors' code (1 / n_sigma); paper's equations: 1
    alignment: bool = True  # uniform alignment, of the weights' q; paper
    memory: int = 128  # steps that the running means look back; ours, for a short run; paper: decay 0.999, 1,000 steps
    teacher: Teacher = "student"  # whose guesses are learnt; average: the EMA's; paper: the student's
    averaging: float = 0.01  # rate of the EMA, a step; ours; paper: 0.001
    augmentation: Augmentation = Augmentation(translate=2.0)  # the weak one; ours; paper: flip, crop 4
    strong: Augmentation = STRONG_DIGITS  # the strong one; paper: RandAugment


# Paper, CIFAR-10, and authors' code (USB, config/classic_cv/softmatch).
# The strong augmentation is FixMatch's: USB's has 3 operations, none skipped, of a longer list, and a smaller cutout.
PHOTOGRAPHS = Config(
    steps=2**20, labelled_batch=64, unlabelled_batch=448, network="wide_resnet", optimizer="sgd", learning_rate=0.03,
    memory=1_000, averaging=1e-3, augmentation=WEAK_PHOTOGRAPHS, strong=STRONG_PHOTOGRAPHS,
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState
    confidence: Gaussian
    marginals: Marginals | tuple[()]  # () without alignment


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    if config.unlabelled_batch < 2:
        raise UserError("unlabelled_batch is 1: one guess has no variance, give 2 or more")
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    optimizer = partly_cosine_optimizer(config.optimizer, config.learning_rate, config.steps, config.weight_decay)
    classifier = Player("classifier", network, optimizer, ema=True)

    def init(key: Key, batch: Batch) -> State:
        player = classifier.init(key, batch.unlabelled)
        marginals = uniform_marginals(spec.classes) if config.alignment else ()
        return State(player, first_gaussian(spec.classes), marginals)

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 5)
        shown = views(config.augmentation, config.strong, (keys[0], keys[1], keys[2]), batch)
        seen = look(classifier, state.classifier, shown, config.teacher, keys[3:])
        marginals = update_guesses(state.marginals, seen.guesses, config.memory) if state.marginals else ()
        judged = distribution_alignment(seen.guesses, marginals) if marginals else seen.guesses
        confidence = update_gaussian(state.confidence, judged, config.memory)
        weights = truncated_gaussian(judged, confidence, config.deviations)

        def loss(logits: Array) -> Terms:
            labelled, strong = seen.separate(logits)
            pseudo_label = weighted_cross_entropy(strong, seen.guesses, weights)
            return {
                "supervised": cross_entropy(labelled, batch.labels),
                "pseudo_label": config.unlabelled_weight * pseudo_label,
            }

        player, metrics = classifier.descend(state.classifier, loss, seen.predicted)
        metrics |= {"classifier/weight": weights.mean(), "classifier/threshold": confidence.mean}
        player = follow(classifier, player, seen, config.averaging, step, batch.unlabelled, keys[3:])
        return State(player, confidence, marginals), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
