"""Meta Pseudo Labels: a teacher whose labels are judged by what a student, taught by them, then knows of the labels.

Pham et al. 2021, "Meta Pseudo Labels", arXiv:2003.10580, sec. 2 and algorithm 1, with the teacher's consistency of UDA
(Xie et al. 2020, arXiv:1904.12848). With a(.) a weak and A(.) a strong augmentation, yh ~ T(. | A(u)) drawn from the
teacher T, S the student with params w, L(w) its loss on labelled images,

    w' = w - r grad_w E_u CE(S(. | A(u); w), yh)                    the student's update
    h  = L(w) - L(w')                                               what it was worth
    L_T = E_(x,y) CE(T(. | a(x)), y)                                supervised
        + c r(t) E_u 1[max q > threshold] CE(q', T(. | A(u)))       consistency, q = T(. | a(u)), q' ~ q^(1/temperature)
        + m (h - b) E_u CE(T(. | A(u)), yh)                         meta, b a running mean of h

q, h and yh carry no gradient. The sign: over draws, grad E L(w') = E L(w') grad log T(yh | u) = E (L(w) - L(w')) grad
CE(T(. | u), yh), since E grad log T = 0. So the meta term points, in the mean and up to a factor U, down the student's
loss after its update, whatever b. The paper's h is ours to first order, r grad L(w') . grad_w CE. The official code has
h with the other sign and soft labels: with T's own softmax for target the term's gradient is softmax - softmax = 0,
sign and all. L is measured here as the student classifies, there as it trains, with statistics of the batch and
dropout. In a last phase the student alone is fine-tuned on the labels.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import STRONG_DIGITS, STRONG_PHOTOGRAPHS, WEAK_PHOTOGRAPHS, Augmentation, augment, views
from ssl_gen.core.batching import interleave, separate, shard_batch
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import kernels, linear_ramp, partly_cosine
from ssl_gen.losses.classification import cross_entropy, smoothed_cross_entropy
from ssl_gen.losses.thresholds import sharpened_cross_entropy
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree, UserError

PAPER = "Pham et al. 2021, arXiv:2003.10580"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 1_200  # updates in all; ours, for MNIST in ten minutes of one core; official code, CIFAR-10: 300,000
    warm_up: float = 0.1  # share of the steps that train the teacher alone; ours; official code: 0.01
    fine_tuning: float = 0.1  # share of the steps, at the end, that train the student on the labels; ours
    labelled_batch: int = 32  # images a step; ours; official code: 128
    unlabelled_batch: int = 192  # images a step, a multiple; ours; official code: 896
    network: classifiers.Network = "conv"  # of teacher and student; paper: wide_resnet
    hidden: tuple[int, ...] = (500, 500)  # units a layer of the mlp; ours
    width: int = 32  # channels of the first layer of the others; paper: 32
    dropout: float = 0.2  # of both: before the last layer of conv and wide_resnet; official code
    learning_rate: float = 2e-3  # AdamW, both, at the start, falling along cos(7 pi t / 16 T); ours
    fine_tuning_rate: float = 1e-4  # AdamW, the student's at the end; ours; paper: 1e-6 with SGD
    weight_decay: float = 5e-4  # of kernels; official: in SGD's gradient; AdamW's is times the rate, 1e-6 a step: inert
    consistency: float = 1.0  # c; ours; official code: 8
    ramp: float = 0.1  # share of the steps over which r(t) rises from 0 to 1; ours; official code: 1 / 60
    temperature: float = 0.7  # of the consistency's targets; official code
    threshold: float = 0.9  # of probability; ours, for digits; official code: 0.6
    sharpened_mask: bool = False  # is the threshold on q'? official code; no, on q: Xie et al. 2020
    label_smoothing: float = 0.0  # of y in the teacher's supervised term, of yh in the student's; official code: 0.15
    meta: float = 1.0  # m; official code
    memory: float = 0.01  # rate of the running mean of h, a step; official code
    averaging: float = 0.01  # rate of the student's EMA, a step; ours; official code: 0.005
    augmentation: Augmentation = Augmentation(translate=2.0)  # the weak one; ours; paper: flip, crop 4
    strong: Augmentation = STRONG_DIGITS  # the strong one; paper: RandAugment


PHOTOGRAPHS = Config(  # official code (README.md), CIFAR-10, but for optimiser, RandAugment and fine-tuning
    steps=300_000,
    warm_up=0.01,
    labelled_batch=128,
    unlabelled_batch=896,
    network="wide_resnet",
    consistency=8.0,
    ramp=1 / 60,
    threshold=0.6,
    sharpened_mask=True,
    label_smoothing=0.15,
    averaging=5e-3,
    augmentation=WEAK_PHOTOGRAPHS,
    strong=STRONG_PHOTOGRAPHS,
)


class State(NamedTuple):
    teacher: TrainState
    student: TrainState
    baseline: Array  # () nats, running mean of h


def drawn(key: Key, logits: Array) -> Array:
    """yh ~ softmax of logits (U, K) -> (U,) int32, by the Gumbel trick: no gradient flows through it."""
    return (logits + shard_batch(jax.random.gumbel(key, logits.shape))).argmax(-1)


def feedback(logits: Array, labels: Array, advantage: Array) -> Array:
    """(h - b) E_u CE(T, yh): the teacher's logits (U, K), the labels drawn from it (U,), h - b () -> () nats^2."""
    return jax.lax.stop_gradient(advantage) * cross_entropy(logits, labels)


def lengths(config: Config) -> tuple[int, int, int]:
    """Updates of each phase; raises UserError where the shares are no shares."""
    if config.warm_up < 0 or config.fine_tuning < 0 or config.warm_up + config.fine_tuning > 1:
        raise UserError(
            f"warm_up {config.warm_up} and fine_tuning {config.fine_tuning} are shares: sum them to 1 or less"
        )
    first, end = (round(share * config.steps) for share in (config.warm_up, 1 - config.fine_tuning))
    return first, max(end - first, 0), config.steps - max(end, first)


def optimizers(config: Config) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """The teacher's and the student's AdamW; the student's falls over its own updates, then is the fine-tuning's."""
    first, main, _ = lengths(config)
    falling, fine_tuning = partly_cosine(config.learning_rate, main), optax.constant_schedule(config.fine_tuning_rate)
    rates = partly_cosine(config.learning_rate, first + main), optax.join_schedules([falling, fine_tuning], [main])
    teacher, student = (optax.adamw(rate, weight_decay=config.weight_decay, mask=kernels) for rate in rates)
    return teacher, student


def make(config: Config, spec: ImageSpec) -> Method:
    """A teacher and a student for images of `spec`; the EMA of the student classifies."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    t_optimizer, s_optimizer = optimizers(config)
    teacher = Player("teacher", network, t_optimizer)
    student = Player("student", network, s_optimizer, ema=True)
    first, main, last = lengths(config)

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(key)
        return State(teacher.init(keys[0], batch.unlabelled), student.init(keys[1], batch.unlabelled), jnp.float32(0))

    def train_teacher(
        state: State, step: Array, batch: Batch, images: tuple[Array, ...], key: Key, drawing: Key | None
    ) -> tuple[State, Metrics]:
        """One update of the teacher; with `drawing`, of the student before it, by labels drawn from the teacher."""
        sizes = tuple(part.shape[0] for part in images)
        teacher_key, student_key = jax.random.split(key)
        predicted = teacher.forward(state.teacher, interleave(*images), rngs={"dropout": teacher_key})
        s, baseline = state.student, state.baseline
        s_metrics: Metrics = {}
        if drawing is not None:
            labels = drawn(drawing, separate(predicted.outputs, sizes)[1])
            shown = images[1], labels, batch.unlabelled
            s, s_metrics = train_student(state.student, step, *shown, student_key, config.label_smoothing)
            before, after = (
                cross_entropy(student.infer(s, images[0], params=params), batch.labels)
                for params in (state.student.params, s.params)
            )
            advantage = before - after - baseline
            baseline += config.memory * advantage
            s_metrics["student/improvement"] = before - after

        def loss(logits: Array) -> Terms:
            labelled, strong, weak = separate(logits, sizes)
            weight = config.consistency * linear_ramp(step, 0, config.ramp * config.steps)
            consistency = sharpened_cross_entropy(
                strong, weak, config.temperature, config.threshold, config.sharpened_mask
            )
            supervised = smoothed_cross_entropy(labelled, batch.labels, config.label_smoothing)
            terms = {"supervised": supervised, "consistency": weight * consistency}
            if drawing is not None:
                terms["meta"] = config.meta * feedback(strong, labels, advantage)
            return terms

        t, t_metrics = teacher.descend(state.teacher, loss, predicted)
        return State(t, s, baseline), s_metrics | t_metrics

    def train_student(
        player: TrainState, step: Array, images: Array, labels: Array, plain: Array, key: Key, smoothing: float = 0.0
    ) -> tuple[TrainState, Metrics]:
        """One update of the student on `images`; its EMA sees `plain` ones, which are not moved about."""
        key, ema_key = jax.random.split(key)

        def loss(params: Tree) -> tuple[Terms, Tree]:
            logits, stats = student.run(player, params, images, rngs={"dropout": key})
            return {"labels": smoothed_cross_entropy(logits, labels, smoothing)}, stats

        after, metrics = student.descend(player, loss)
        step = jnp.maximum(step - first, 0)
        return student.average(after, config.averaging, step, plain, rngs={"dropout": ema_key}), metrics

    def warm_up(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        view_key, key = jax.random.split(key)
        shown = views(config.augmentation, config.strong, jax.random.split(view_key, 3), batch)
        return train_teacher(state, step, batch, shown, key, None)

    def main_step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        view_key, key, drawing = jax.random.split(key, 3)
        shown = views(config.augmentation, config.strong, jax.random.split(view_key, 3), batch)
        return train_teacher(state, step, batch, shown, key, drawing)

    def fine_tuning(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        view_key, key = jax.random.split(key)
        images = augment(config.augmentation, view_key, batch.labelled)
        s, metrics = train_student(state.student, step, images, batch.labels, batch.labelled, key)
        return state._replace(student=s), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(student.infer(state.student, images))

    labelled, unlabelled = config.labelled_batch, config.unlabelled_batch
    phases = (
        Phase("warm_up", first, labelled, unlabelled, warm_up),
        Phase("main", main, labelled, unlabelled, main_step),
        Phase("fine_tuning", last, labelled, 0, fine_tuning),
    )
    return Method(init, phases, classify=classify)
