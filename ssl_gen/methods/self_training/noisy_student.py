"""Noisy Student: a network that sees noise learns what another one says without; then it is the teacher of the next.

Xie et al. 2020, "Self-training with Noisy Student improves ImageNet classification", arXiv:1911.04252, sec. 2. With
A(.) a strong augmentation and n dropout, T the teacher without either, q = T(. | u), S the student,

    L_T  = - E_(x,y) log p(y | A(x); n)                          the first teacher: the labels alone
    L    = - E_(x,y) log S(y | A(x); n)                          each student: supervised
         - w E_(u: max q > threshold) sum_k q_k log S(k | A(u); n)   guesses

A student starts anew and becomes the next one's teacher; the EMA of each teaches, and that of the latest student
classifies: as one that knows nothing until the first begins. Here a student is as large as its teacher (the paper: as
large or larger), q is asked for at every step (the paper: once), and classes of guesses are not balanced.

With first_teacher "guessed", ours, the first teacher learns beside the labels what the classifier of an earlier run
guesses, `--labeller RUN`, above `--confident`: a graph or a linear layer on features of a pretrained network, say, that
knows much from few labels and stays as it is, while the network goes on from there,

    L_T  = - E_(x,y) log p(y | A(x); n) - E_(u told yh) log p(yh | A(u); n)
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import STRONG_DIGITS, STRONG_PHOTOGRAPHS, Augmentation, augment
from ssl_gen.core.batching import interleave, separate
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples, choose
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import Decaying, decaying
from ssl_gen.losses.classification import cross_entropy, mean_over
from ssl_gen.losses.thresholds import confident
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree, UserError

FirstTeacher = Literal["labelled", "guessed"]
PAPER = "Xie et al. 2020, arXiv:1911.04252"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 3_600  # updates in all; ours, for MNIST
    warm_up: float = 0.2  # share of the steps that train the first teacher; ours
    first_teacher: FirstTeacher = "labelled"  # what it learns from; guessed: of an earlier run, too; ours
    iterations: int = 2  # students, one after the other, of as many steps each; paper: 3
    labelled_batch: int = 32  # images a step; ours; official SVHN script: 128
    unlabelled_batch: int = 160  # images a step, a multiple; official SVHN script: 5 times the labelled ones
    network: classifiers.Network = "conv"  # of teacher and students; paper: EfficientNet
    hidden: tuple[int, ...] = (500, 500)  # units a layer of the mlp; ours
    width: int = 32  # channels of the first layer of the others; ours; wide_resnet 32, conv13 128 in their papers
    dropout: float = 0.5  # of hidden units; paper: before the last layer
    optimizer: Decaying = "adam"  # ours; paper: RMSProp
    learning_rate: float = 2e-3  # of each network at its start; adam's falls along a half cosine to 0; ours
    l2: float = 1e-4  # weight decay, in the gradient: of all params, with sgd of kernels; official SVHN script
    unlabelled_weight: float = 1.0  # w; paper, algorithm 1; official code: unlabelled images a labelled one
    threshold: float = 0.3  # of probability, below which a guess is left out; paper
    averaging: float = 0.01  # rate of each network's EMA, a step; ours; paper: 1e-4
    strong: Augmentation = STRONG_DIGITS  # what students, and the first teacher, see; paper: RandAugment


# Official SVHN script (local_scripts/svhn/svhn_offline.sh, main.py) for batches, decay, w and the length of each
# network, paper for the rest, on FixMatch's network and with its optimiser (Sohn et al. 2020, arXiv:2001.07685).
# main.py smooths the labels by 0.1, here they are as they are.
PHOTOGRAPHS = Config(
    steps=437_896, warm_up=0.25, iterations=3, labelled_batch=128, unlabelled_batch=640, network="wide_resnet",
    optimizer="sgd", learning_rate=0.03, unlabelled_weight=5.0, averaging=1e-4, strong=STRONG_PHOTOGRAPHS,
)  # fmt: skip


class State(NamedTuple):
    teacher: TrainState
    student: TrainState


def taught(logits: Array, guesses: Array, threshold: float) -> Array:
    """CE(q, p) over the images with max q > threshold: logits of p, log q, both (U, K) -> () nats; 0 without any."""
    guesses = jax.lax.stop_gradient(guesses)
    kept = confident(guesses, threshold)
    nats = optax.softmax_cross_entropy(logits, jnp.exp(guesses))
    return mean_over(kept, nats)


def told(logits: Array, labels: Array) -> Array:
    """CE of images that are told a class: logits (U, K), labels (U,), negative for none -> () nats; 0 without one."""
    kept = labels >= 0
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    return mean_over(kept, nats)


def starts(config: Config) -> tuple[int, ...]:
    """The step at which each student begins; raises UserError where one would have no step."""
    first = round(config.warm_up * config.steps)
    begins = tuple(first + (config.steps - first) * i // config.iterations for i in range(config.iterations))
    if first < config.steps < first + config.iterations:
        raise UserError(f"iterations {config.iterations} are more students than there are steps for them")
    return begins


def make(config: Config, spec: ImageSpec) -> Method:
    """A teacher and its students for images of `spec`; the EMA of the last student classifies."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    begins = starts(config)
    first, longest = begins[0], max(1, math.ceil((config.steps - begins[0]) / config.iterations))
    optimizers = [decaying(config.optimizer, config.learning_rate, updates, config.l2) for updates in (first, longest)]
    teacher = Player("teacher", network, optimizers[0], ema=True)
    student = Player("student", network, optimizers[1], ema=True)
    by_guesses = choose("first_teacher", config.first_teacher, get_args(FirstTeacher)) == "guessed"

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(key)
        return State(teacher.init(keys[0], batch.labelled), student.init(keys[1], batch.unlabelled))

    def train_teacher(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        augment_key, dropout_key, ema_key = jax.random.split(key, 3)
        seen = interleave(batch.labelled, batch.unlabelled) if by_guesses else batch.labelled
        images = augment(config.strong, augment_key, seen)

        def loss(params: Tree) -> tuple[Terms, Tree]:
            logits, stats = teacher.run(state.teacher, params, images, rngs={"dropout": dropout_key})
            if not by_guesses:
                return {"supervised": cross_entropy(logits, batch.labels)}, stats
            labelled, unlabelled = separate(logits, (batch.labelled.shape[0], batch.unlabelled.shape[0]))
            guessed = told(unlabelled, jnp.asarray(batch.guesses))
            return {"supervised": cross_entropy(labelled, batch.labels), "guesses": guessed}, stats

        player, metrics = teacher.descend(state.teacher, loss)
        player = teacher.average(player, config.averaging, step, seen, rngs={"dropout": ema_key})
        return state._replace(teacher=player), metrics

    def train_student(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        augment_key, dropout_key, ema_key, init_key = jax.random.split(key, 4)
        begin = jnp.asarray(begins)[jnp.searchsorted(jnp.asarray(begins), step, side="right") - 1]
        state = jax.lax.cond(
            (step == begin) & (begin > first),  # the last student teaches a new one
            lambda state: State(state.student, student.init(init_key, batch.unlabelled)),
            lambda state: state,
            state,
        )
        guesses = jax.nn.log_softmax(teacher.infer(state.teacher, batch.unlabelled))
        images = augment(config.strong, augment_key, interleave(batch.labelled, batch.unlabelled))
        sizes = batch.labelled.shape[0], batch.unlabelled.shape[0]

        def loss(params: Tree) -> tuple[Terms, Tree]:
            logits, stats = student.run(state.student, params, images, rngs={"dropout": dropout_key})
            labelled, unlabelled = separate(logits, sizes)
            guessed = config.unlabelled_weight * taught(unlabelled, guesses, config.threshold)
            return {"supervised": cross_entropy(labelled, batch.labels), "guesses": guessed}, stats

        player, metrics = student.descend(state.student, loss)
        metrics["student/confident"] = confident(guesses, config.threshold).mean()
        player = student.average(player, config.averaging, step - begin, batch.unlabelled, rngs={"dropout": ema_key})
        return state._replace(student=player), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(student.infer(state.student, images))

    phases = (
        Phase("teacher", first, config.labelled_batch, config.unlabelled_batch if by_guesses else 0, train_teacher),
        Phase("students", config.steps - first, config.labelled_batch, config.unlabelled_batch, train_student),
    )
    return Method(init, phases, classify=classify, told="guessed" if by_guesses else "nothing")
