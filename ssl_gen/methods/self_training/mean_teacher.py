"""Mean Teacher: a student that agrees with the EMA of itself.

Tarvainen and Valpola 2017, "Mean teachers are better role models: Weight-averaged consistency targets improve
semi-supervised deep learning results", arXiv:1703.01780, sec. 2 and appendix B.

With w the student's params, w' their EMA, n and n' noise drawn apart (augmentation and dropout), t the step,

    L    = - E_(x,y) log p(y | x; w, n) + c r(t) E_(x,u) |p(. | x; w, n) - p(. | x; w', n')|^2 / K
    r(t) = exp(-5 (1 - t / t1)^2) until t1, then 1: also of the learning rate, which at the end falls along
           exp(-12.5 (1 - (T - t) / t2)^2)

The teacher's side carries no gradient; it is computed as in training, with dropout and the statistics of its batch, and
classifies with their running means. The official script takes the mean of the first term over all images, labelled or
not, and a c smaller in proportion.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import optax

from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.core.batching import interleave, separate
from ssl_gen.core.ema import check_rate, update_ema
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import preceded, ramp_up, ramped_adam
from ssl_gen.losses.classification import cross_entropy, softmax_mse
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Tarvainen and Valpola 2017, arXiv:1703.01780"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 5_000  # updates; ours, for MNIST; official scripts: 150,000, SVHN 180,000
    labelled_batch: int = 20  # images a step; ours; official SVHN script: 1; CIFAR-10: 8 of 100 on the average
    unlabelled_batch: int = 80  # images a step, a multiple; ours; official SVHN script: 99
    network: classifiers.Network = "conv"  # official script: conv13
    hidden: tuple[int, ...] = (500, 500)  # units a layer of the mlp; ours
    width: int = 32  # channels of the first layer of the others; official script: 128
    dropout: float = 0.5  # of the student's and the teacher's hidden units; official script
    consistency: float = 100.0  # c; official script
    ramp_up: float = 4 / 15  # t1, share of the steps; official script: 40,000 of 150,000
    ramp_down: float = 1 / 6  # t2, share of the steps, at the end; official script: 25,000 of 150,000
    learning_rate: float = 3e-3  # Adam, at its highest; official script
    b1: tuple[float, float] = (0.9, 0.5)  # Adam, until the ramp-down and at the end; official script
    b2: tuple[float, float] = (0.99, 0.999)  # Adam, while ramping up and after; official SVHN script
    averaging: tuple[float, float] = (0.01, 0.01)  # rate of w', ramping up and after; ours; official: 0.01, 0.001
    augmentation: Augmentation = Augmentation(translate=2.0, noise=0.1)  # of each side; official: crop 2, noise 0.15


# Official script for CIFAR-10 with 4,000 labels (tensorflow/experiments/cifar10_final_eval.py and
# mean_teacher/model.py), without its ZCA. Its c of 8 = 100 * 4,000 / 50,000 is beside a mean over all images, of which
# as many are labelled: 100 here.
PHOTOGRAPHS = Config(
    steps=150_000, labelled_batch=10, unlabelled_batch=90, network="conv13", width=128, b2=(0.999, 0.999),
    averaging=(1e-3, 1e-3), augmentation=Augmentation(crop=2, flip=True, noise=0.15),
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState  # the student; its EMA is the teacher


def adam(config: Config) -> optax.GradientTransformation:
    """Adam whose rate rises and falls with the ramps, and its b1 and b2 with them; official script."""
    up, down = lengths(config)
    return ramped_adam(config.learning_rate, config.steps, up, down, config.b1, config.b2)


def lengths(config: Config) -> tuple[float, float]:
    """t1 and t2 in steps."""
    return max(config.ramp_up * config.steps, 1.0), max(config.ramp_down * config.steps, 1.0)


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    classifier = Player("classifier", network, adam(config), ema=True)
    up, _ = lengths(config)
    averaging = preceded(config.averaging[0], up, config.averaging[1])
    for rate in config.averaging:
        check_rate(rate)

    def init(key: Key, batch: Batch) -> State:
        return State(classifier.init(key, batch.unlabelled))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        student_keys, teacher_keys = jax.random.split(key, (2, 2))
        images = interleave(batch.labelled, batch.unlabelled)
        sizes = batch.labelled.shape[0], batch.unlabelled.shape[0]
        views = [augment(config.augmentation, keys[0], images) for keys in (student_keys, teacher_keys)]
        teacher, teacher_stats = classifier.run_ema(state.classifier, views[1], rngs={"dropout": teacher_keys[1]})

        def loss(params: Tree) -> tuple[Terms, Tree]:
            logits, stats = classifier.run(state.classifier, params, views[0], rngs={"dropout": student_keys[1]})
            return {
                "supervised": cross_entropy(separate(logits, sizes)[0], batch.labels),
                "consistency": config.consistency * ramp_up(step, up) * softmax_mse(logits, teacher),
            }, stats

        player, metrics = classifier.descend(state.classifier, loss)
        return State(update_ema(player, averaging(step), step, teacher_stats)), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
