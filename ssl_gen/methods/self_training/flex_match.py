"""FlexMatch: a curriculum of thresholds, low for classes that are learnt late.

Zhang et al. 2021, "FlexMatch: Boosting Semi-Supervised Learning with Curriculum Pseudo Labeling", arXiv:2110.08263,
sec. 3.

With a(.) a weak and A(.) a strong augmentation, q = p(. | a(u)) and yh = argmax_k q_k, which carry no gradient, and y_i
the latest yh of the unlabelled image i that had max q above the threshold t, none at first,

    c_k    how many of the M unlabelled images have y_i = k
    b_k  = c_k / max(max_j c_j, M - sum_j c_j)
    t_k  = t b_k / (2 - b_k)
    L    = - E_(x,y) log p(y | a(x)) - w E_u 1[max_k q_k > t_yh] log p(yh | A(u))

c is that before the step. At the start it is 0, and all thresholds with it: every guess is learnt, until the images
without a confident guess are no longer the most (the paper's warm-up).

As in the authors' code (TorchSSL, USB), an image of which the network is no longer sure counts on by its latest
confident guess. Theirs does not say which guess an image that comes twice in a batch is left with: here the last one.
The price of the count is the memory, a number for every training image, in the state and in each checkpoint.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssl_gen.augmentation import STRONG_DIGITS, STRONG_PHOTOGRAPHS, WEAK_PHOTOGRAPHS, Augmentation, views
from ssl_gen.core.consistency import Teacher, follow, look
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import PartlyCosine, partly_cosine_optimizer
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.losses.thresholds import confident, confident_cross_entropy, curriculum_thresholds, latest_guesses
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, UserError

PAPER = "Zhang et al. 2021, arXiv:2110.08263"


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
    threshold: float = 0.95  # t, of probability; paper
    teacher: Teacher = "student"  # whose guesses are learnt; average: the EMA's; paper: the student's
    averaging: float = 0.01  # rate of the EMA, a step; ours; paper: 0.001
    augmentation: Augmentation = Augmentation(translate=2.0)  # the weak one; ours; paper: flip, crop 4
    strong: Augmentation = STRONG_DIGITS  # the strong one; paper: RandAugment


# Paper, CIFAR-10, and authors' code (USB, config/classic_cv/flexmatch).
# The strong augmentation is FixMatch's: USB's has 3 operations, none skipped, of a longer list, and a smaller cutout.
PHOTOGRAPHS = Config(
    steps=2**20, labelled_batch=64, unlabelled_batch=448, network="wide_resnet", optimizer="sgd", learning_rate=0.03,
    averaging=1e-3, augmentation=WEAK_PHOTOGRAPHS, strong=STRONG_PHOTOGRAPHS,
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState
    latest: Array  # y, (N,) int32, of every training image; -1 for none


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`; raises UserError where it does not say how many there are."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    if spec.images is None or spec.unlabelled is None:
        raise UserError("flex_match remembers a guess of every image: give the ImageSpec's images and unlabelled")
    remembered, pool = spec.images, spec.unlabelled
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    optimizer = partly_cosine_optimizer(config.optimizer, config.learning_rate, config.steps, config.weight_decay)
    classifier = Player("classifier", network, optimizer, ema=True)

    def init(key: Key, batch: Batch) -> State:
        return State(classifier.init(key, batch.unlabelled), jnp.full(remembered, -1, jnp.int32))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        assert batch.rows is not None, "a batch says which images it shows"
        keys = jax.random.split(key, 5)
        shown = views(config.augmentation, config.strong, (keys[0], keys[1], keys[2]), batch)
        seen = look(classifier, state.classifier, shown, config.teacher, keys[3:])
        class_thresholds = curriculum_thresholds(state.latest, pool, spec.classes, config.threshold)
        thresholds = class_thresholds[seen.guesses.argmax(-1)]

        def loss(logits: Array) -> Terms:
            labelled, strong = seen.separate(logits)
            pseudo_label = confident_cross_entropy(strong, seen.guesses, thresholds)
            return {
                "supervised": cross_entropy(labelled, batch.labels),
                "pseudo_label": config.unlabelled_weight * pseudo_label,
            }

        player, metrics = classifier.descend(state.classifier, loss, seen.predicted)
        metrics["classifier/confident"] = confident(seen.guesses, thresholds).mean()
        metrics["classifier/lowest_threshold"] = class_thresholds.min()
        latest = latest_guesses(state.latest, batch.rows, seen.guesses, config.threshold)
        player = follow(classifier, player, seen, config.averaging, step, batch.unlabelled, keys[3:])
        return State(player, latest), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
