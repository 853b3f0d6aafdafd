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
sign and all. In a last phase the student alone is fine-tuned on the labels.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen import losses
from ssl_gen.augmentation import STRONG_DIGITS, STRONG_PHOTOGRAPHS, WEAK_PHOTOGRAPHS, Augmentation, augment
from ssl_gen.networks.classifiers import Network, classifier
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, UserError
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
    spread,
)

PAPER = "Pham et al. 2021, arXiv:2003.10580"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 1_200  # updates in all; ours, for MNIST in ten minutes of one core; official code, CIFAR-10: 300,000
    warm_up: float = 0.1  # share of the steps that train the teacher alone; ours; official code: 0.01
    fine_tuning: float = 0.1  # share of the steps, at the end, that train the student on the labels; ours
    labelled_batch: int = 32  # images a step; ours; official code: 128
    unlabelled_batch: int = 192  # images a step, a multiple; ours; official code: 896
    network: Network = "conv"  # of teacher and student; paper: wide_resnet
    hidden: tuple[int, ...] = (500, 500)  # units a layer of the mlp; ours
    width: int = 32  # channels of the first layer of the others; paper: 32
    dropout: float = 0.2  # of hidden units, of both; official code
    learning_rate: float = 2e-3  # AdamW, both, at the start, falling along cos(7 pi t / 16 T); ours
    fine_tuning_rate: float = 1e-4  # AdamW, the student's at the end; ours; paper: 1e-6 with SGD
    weight_decay: float = 5e-4  # of kernels; official code
    consistency: float = 1.0  # c; ours; official code: 8
    ramp: float = 0.1  # share of the steps over which r(t) rises from 0 to 1; ours; official code: 1 / 60
    temperature: float = 0.7  # of the consistency's targets; official code
    threshold: float = 0.9  # of probability; ours, for digits; official code: 0.6
    meta: float = 1.0  # m; official code
    memory: float = 0.01  # rate of the running mean of h, a step; official code
    averaging: float = 0.01  # rate of the student's mean params, a step; ours; official code: 0.005
    augmentation: Augmentation = Augmentation(translate=2.0)  # the weak one; ours; paper: flip, crop 4
    strong: Augmentation = STRONG_DIGITS  # the strong one; paper: RandAugment


PHOTOGRAPHS = Config(  # official code, CIFAR-10, but for optimiser, RandAugment and fine-tuning
    steps=300_000,
    warm_up=0.01,
    labelled_batch=128,
    unlabelled_batch=896,
    network="wide_resnet",
    consistency=8.0,
    ramp=1 / 60,
    threshold=0.6,
    averaging=5e-3,
    augmentation=WEAK_PHOTOGRAPHS,
    strong=STRONG_PHOTOGRAPHS,
)


class State(NamedTuple):
    step: Array  # () int32, updates done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    teacher: TrainState
    student: TrainState
    baseline: Array  # () nats, running mean of h


def drawn(key: Key, logits: Array) -> Array:
    """yh ~ softmax of logits (U, K) -> (U,) int32, by the Gumbel trick: no gradient flows through it."""
    return (logits + spread(jax.random.gumbel(key, logits.shape))).argmax(-1)


def sharpened_cross_entropy(logits: Array, targets: Array, temperature: float, threshold: float) -> Array:
    """E 1[max q > threshold] CE(q^(1 / temperature) brought to sum 1, p): logits of p and of q (U, K) -> () nats.

    The mean is over all U, sure or not; q carries no gradient. Source: Xie et al. 2020, arXiv:1904.12848, sec. 2 and 3.
    """
    targets = jax.lax.stop_gradient(targets)
    nats = optax.softmax_cross_entropy(logits, jax.nn.softmax(targets / temperature))
    return jnp.where(losses.confident(jax.nn.log_softmax(targets), threshold), nats, 0.0).mean()


def feedback(logits: Array, labels: Array, advantage: Array) -> Array:
    """(h - b) E_u CE(T, yh): the teacher's logits (U, K), the labels drawn from it (U,), h - b () -> () nats^2."""
    return jax.lax.stop_gradient(advantage) * losses.cross_entropy(logits, labels)


def lengths(config: Config) -> tuple[int, int, int]:
    """Updates of each phase; raises UserError where the shares are no shares."""
    if config.warm_up < 0 or config.fine_tuning < 0 or config.warm_up + config.fine_tuning > 1:
        raise UserError(
            f"warm_up {config.warm_up} and fine_tuning {config.fine_tuning} are shares: sum them to 1 or less"
        )
    first, end = (round(share * config.steps) for share in (config.warm_up, 1 - config.fine_tuning))
    return first, max(end - first, 0), config.steps - max(end, first)


def make(config: Config, spec: ImageSpec) -> Method:
    """A teacher and a student for images of `spec`; the student's mean params classify."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    net = classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    first, main, last = lengths(config)

    def adamw(schedule: optax.Schedule) -> optax.GradientTransformation:
        return optax.adamw(schedule, weight_decay=config.weight_decay, mask=kernels)

    teacher_optimizer = adamw(partly_cosine(config.learning_rate, first + main))
    falling = partly_cosine(config.learning_rate, main)
    fine_tuning_rate = optax.constant_schedule(config.fine_tuning_rate)
    student_optimizer = adamw(optax.join_schedules([falling, fine_tuning_rate], [main]))

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(jax.random.fold_in(key, BEFORE))
        t, s = (net.init(key, batch.unlabelled, train=False) for key in keys)
        return State(
            jnp.int32(0),
            key,
            create(t.pop("params"), t, teacher_optimizer),
            create(s.pop("params"), s, student_optimizer, average=True),
            jnp.float32(0),
        )

    def predict(player: TrainState, params: dict, images: Array, key: Key) -> tuple[Array, dict]:
        variables = {"params": params, **player.stats}
        return net.apply(variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"])

    def in_evaluation(params: dict, stats: dict, images: Array) -> Array:
        return net.apply({"params": params, **stats}, images, train=False)

    def views(batch: Batch, key: Key) -> tuple[Array, Array, Array]:
        """Labelled, strong and weak: the order in which the teacher sees them."""
        keys = jax.random.split(key, 3)
        return (
            augment(config.augmentation, keys[0], batch.labelled),
            augment(config.strong, keys[1], batch.unlabelled),
            augment(config.augmentation, keys[2], batch.unlabelled),
        )

    def train_teacher(
        state: State, batch: Batch, images: tuple[Array, ...], key: Key, drawing: Key | None
    ) -> tuple[State, Metrics]:
        """One update of the teacher; with `drawing`, of the student before it, by labels drawn from the teacher."""
        sizes = tuple(part.shape[0] for part in images)
        teacher_key, student_key = jax.random.split(key)
        predicted = forward(
            lambda params: predict(state.teacher, params, interleave(*images), teacher_key), state.teacher.params
        )
        student, baseline, metrics = state.student, state.baseline, {}
        if drawing is not None:
            labels = drawn(drawing, separate(predicted.outputs, sizes)[1])
            student, metrics = train_student(state, images[1], labels, student_key)
            before, after = (
                losses.cross_entropy(in_evaluation(params, student.stats, images[0]), batch.labels)
                for params in (state.student.params, student.params)
            )
            advantage = before - after - baseline
            baseline += config.memory * advantage
            metrics["student/improvement"] = before - after

        def loss(logits: Array) -> tuple[dict, dict]:
            labelled, strong, weak = separate(logits, sizes)
            weight = config.consistency * jnp.minimum(state.step / max(config.ramp * config.steps, 1), 1)
            consistency = sharpened_cross_entropy(strong, weak, config.temperature, config.threshold)
            terms = {
                "supervised": losses.cross_entropy(labelled, batch.labels),
                "consistency": weight * consistency,
            }
            if drawing is not None:
                terms["meta"] = config.meta * feedback(strong, labels, advantage)
            return terms, predicted.stats

        teacher, own = descend("teacher", state.teacher, teacher_optimizer, loss, predicted)
        return State(state.step + 1, state.key, teacher, student, baseline), metrics | own

    def train_student(state: State, images: Array, labels: Array, key: Key) -> tuple[TrainState, Metrics]:
        def loss(params: dict) -> tuple[dict, dict]:
            logits, stats = predict(state.student, params, images, key)
            return {"labels": losses.cross_entropy(logits, labels)}, stats

        player, metrics = descend("student", state.student, student_optimizer, loss)
        return average(player, config.averaging, jnp.maximum(state.step - first, 0)), metrics

    def warm_up_step(state: State, batch: Batch) -> tuple[State, Metrics]:
        view_key, key = jax.random.split(jax.random.fold_in(state.key, state.step))
        return train_teacher(state, batch, views(batch, view_key), key, None)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        view_key, key, drawing = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        return train_teacher(state, batch, views(batch, view_key), key, drawing)

    def fine_tuning_step(state: State, batch: Batch) -> tuple[State, Metrics]:
        view_key, key = jax.random.split(jax.random.fold_in(state.key, state.step))
        images = augment(config.augmentation, view_key, batch.labelled)
        student, metrics = train_student(state, images, batch.labels, key)
        return state._replace(step=state.step + 1, student=student), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(in_evaluation(state.student.ema, state.student.stats, images))

    labelled, unlabelled = config.labelled_batch, config.unlabelled_batch
    phases = (
        Phase("warm_up", first, labelled, unlabelled, warm_up_step),
        Phase("main", main, labelled, unlabelled, step),
        Phase("fine_tuning", last, labelled, 0, fine_tuning_step),
    )
    return Method(init, phases, classify=classify)
