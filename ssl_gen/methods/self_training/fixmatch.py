"""FixMatch: what the network is sure of on a slightly changed image, it must say of a strongly changed one.

Sohn et al. 2020, "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence", arXiv:2001.07685,
sec. 2; distribution alignment, an option: Berthelot et al. 2020, "ReMixMatch", arXiv:1911.09785, sec. 3.1.

With a(.) a weak and A(.) a strong augmentation, q = p(. | a(u)) and yh = argmax_k q_k, which carry no gradient,

    L = - E_(x,y) log p(y | a(x)) - w E_u 1[max_k q_k > threshold] log p(yh | A(u))

With alignment q becomes q * (mean of labels) / (mean of q), brought to sum 1: the means are running ones. The paper's q
is the network's own; with teacher "average" it is that of the mean params, which classify either way. Both are made as
in training: running statistics of batch norm are those of neither, and q by them goes astray while the params move.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen import losses
from ssl_gen.augmentation import STRONG_DIGITS, STRONG_PHOTOGRAPHS, WEAK_PHOTOGRAPHS, Augmentation, augment
from ssl_gen.networks.classifiers import Network, classifier
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree
from ssl_gen.update import (
    average,
    check_multiples,
    create,
    descend,
    forward,
    interleave,
    kernels,
    partly_cosine,
    separate,
)

PAPER = "Sohn et al. 2020, arXiv:2001.07685"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 2_400  # updates; ours, for MNIST; paper: 2^20
    labelled_batch: int = 32  # images a step; ours; paper: 64
    unlabelled_batch: int = 192  # images a step, a multiple; ours; paper: 448
    network: Network = "conv"  # paper: wide_resnet
    hidden: tuple[int, ...] = (500, 500)  # units a layer of the mlp; ours
    width: int = 32  # channels of the first layer of the others; paper: 32
    dropout: float = 0.0  # of hidden units; paper: none
    optimizer: Literal["adamw", "sgd"] = "adamw"  # ours; paper: sgd, Nesterov momentum 0.9
    learning_rate: float = 2e-3  # at the start, falling along cos(7 pi t / 16 T); ours; paper: 0.03 with sgd
    weight_decay: float = 5e-4  # of kernels; paper, with sgd
    unlabelled_weight: float = 1.0  # w; paper
    threshold: float = 0.95  # of probability; paper
    teacher: Literal["student", "average"] = "student"  # whose guesses are learnt; average: of the mean params
    alignment: bool = False  # of the guesses' classes to those of the labels; Berthelot et al. 2020
    memory: int = 128  # steps that the running means of alignment look back; Berthelot et al. 2020, code
    averaging: float = 0.01  # rate of the mean params, a step; ours; paper: 0.001
    augmentation: Augmentation = Augmentation(translate=2.0)  # the weak one; ours; paper: flip, crop 4
    strong: Augmentation = STRONG_DIGITS  # the strong one; paper: flip, crop 4, operations 2, cutout 0.5


PHOTOGRAPHS = Config(  # paper, CIFAR-10
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


class Marginals(NamedTuple):
    """Running means over steps."""

    labels: Array  # (K,) of one-hot labels
    guesses: Array  # (K,) of q before alignment


class State(NamedTuple):
    step: Array  # () int32, updates done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    classifier: TrainState
    teacher_stats: Tree  # the untrained collections of the mean params; () where the student is the teacher
    marginals: Marginals | tuple[()]  # () without alignment


def aligned(teacher: Array, marginals: Marginals) -> Array:
    """log q (U, K) -> log of q * labels / guesses, brought to sum 1, (U, K); Berthelot et al. 2020, sec. 3.1."""
    ratio = jnp.log(marginals.labels + 1e-6) - jnp.log(marginals.guesses + 1e-6)  # their code's 1e-6
    return jax.nn.log_softmax(teacher + ratio)


def remembered(marginals: Marginals, labels: Array, teacher: Array, memory: int) -> Marginals:
    """The running means after a step with labels (L,) and log q (U, K)."""
    classes = teacher.shape[-1]
    now = Marginals(jax.nn.one_hot(labels, classes).mean(0), jnp.exp(teacher).mean(0))
    return optax.incremental_update(now, marginals, 1 / memory)


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    net = classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)

    schedule = partly_cosine(config.learning_rate, config.steps)
    if config.optimizer == "adamw":
        optimizer = optax.adamw(schedule, weight_decay=config.weight_decay, mask=kernels)
    else:
        decay = optax.add_decayed_weights(config.weight_decay, kernels)
        optimizer = optax.chain(decay, optax.sgd(schedule, momentum=0.9, nesterov=True))

    def init(key: Key, batch: Batch) -> State:
        variables = net.init(jax.random.fold_in(key, BEFORE), batch.unlabelled, train=False)
        player = create(variables.pop("params"), variables, optimizer, average=True)
        uniform = jnp.full(spec.classes, 1 / spec.classes, jnp.float32)
        return State(
            jnp.int32(0),
            key,
            player,
            player.stats if config.teacher == "average" else (),
            Marginals(uniform, uniform) if config.alignment else (),
        )

    def classify(state: State, images: Array) -> Array:
        stats = state.teacher_stats if config.teacher == "average" else state.classifier.stats
        return jax.nn.log_softmax(net.apply({"params": state.classifier.ema, **stats}, images, train=False))

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 5)
        labelled = augment(config.augmentation, keys[0], batch.labelled)
        weak = augment(config.augmentation, keys[1], batch.unlabelled)
        strong = augment(config.strong, keys[2], batch.unlabelled)
        images = (labelled, strong, weak) if config.teacher == "student" else (labelled, strong)
        sizes = tuple(part.shape[0] for part in images)

        def predict(params: dict, stats: Tree, inputs: Array, key: Key) -> tuple[Array, dict]:
            variables = {"params": params, **stats}
            return net.apply(variables, inputs, train=True, rngs={"dropout": key}, mutable=["batch_stats"])

        predicted = forward(
            lambda params: predict(params, state.classifier.stats, interleave(*images), keys[3]),
            state.classifier.params,
        )
        if config.teacher == "student":
            logits, teacher_stats = separate(predicted.outputs, sizes)[2], ()
        else:
            logits, teacher_stats = predict(state.classifier.ema, state.teacher_stats, weak, keys[4])
        guesses = jax.nn.log_softmax(logits)
        teacher = aligned(guesses, state.marginals) if config.alignment else guesses

        def loss(logits: Array) -> tuple[dict, dict]:
            labelled, unlabelled, *_ = separate(logits, sizes)
            pseudo_label = losses.confident_cross_entropy(unlabelled, teacher, config.threshold)
            return {
                "supervised": losses.cross_entropy(labelled, batch.labels),
                "pseudo_label": config.unlabelled_weight * pseudo_label,
            }, predicted.stats

        player, metrics = descend("classifier", state.classifier, optimizer, loss, predicted)
        metrics["classifier/confident"] = losses.confident(teacher, config.threshold).mean()
        marginals = state.marginals
        if config.alignment:
            marginals = remembered(marginals, batch.labels, guesses, config.memory)
        player = average(player, config.averaging, state.step)
        return State(state.step + 1, state.key, player, teacher_stats, marginals), metrics

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
