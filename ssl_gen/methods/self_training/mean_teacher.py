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
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.core.batching import interleave, separate
from ssl_gen.core.ema import update_ema
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.losses.classification import cross_entropy, softmax_mse
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Tarvainen and Valpola 2017, arXiv:1703.01780"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 5_000  # updates; ours, for MNIST; official script: 150,000
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


# Official CIFAR-10 script (tensorflow/train_cifar10.py and mean_teacher/model.py) for 4,000 labels, without its ZCA.
# Its c of 8 = 100 * 4,000 / 50,000 is beside a mean over all images, of which as many are labelled: 100 here.
PHOTOGRAPHS = Config(
    steps=150_000, labelled_batch=10, unlabelled_batch=90, network="conv13", width=128, b2=(0.999, 0.999),
    averaging=(1e-3, 1e-3), augmentation=Augmentation(crop=2, flip=True, noise=0.15),
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState  # the student; its EMA is the teacher


def ramp_up(step: Array, length: float) -> Array:
    """r(t): exp(-5) at step 0, 1 from step `length` on; Laine and Aila 2017, arXiv:1610.02242, sec. 2."""
    return jnp.exp(-5 * jnp.square(1 - jnp.minimum(step / length, 1)))


def ramp_down(step: Array, length: float, steps: int) -> Array:
    """1 until `length` steps before the last of `steps`, exp(-12.5) at the end; official script."""
    return jnp.exp(-12.5 * jnp.square(1 - jnp.minimum((steps - step) / length, 1)))


class Moments(NamedTuple):
    """What Adam keeps when b1 and b2 change from step to step."""

    mean: Tree  # of gradients
    square: Tree  # of their squares
    missing: tuple[Array, Array]  # the products of all b1 and of all b2 so far: the weight of what came before step 0


def adam_step(learning_rate: Array, b1: Array, b2: Array, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam with the b1 and b2 of this step, the earlier steps' having been others.

    The moments are divided by the weights that they hold, 1 - b_1 b_2 ... b_t. optax's adam divides by 1 - b^t with
    the b of now, so that a b2 that grows at step t shrinks that update by the root of (1 - b^t) of new over old b2.
    Source: Kingma and Ba 2015, arXiv:1412.6980, sec. 3; TensorFlow's AdamOptimizer, which the official script uses.
    """

    def init(params: Tree) -> Moments:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Moments(zeros, zeros, (jnp.ones(()), jnp.ones(())))

    def update(gradient: Tree, state: Moments, params: Tree | None = None) -> tuple[Tree, Moments]:
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mean, gradient)
        square = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.square, gradient)
        missing = state.missing[0] * b1, state.missing[1] * b2

        def change(m: Array, v: Array) -> Array:
            return -learning_rate * m / (1 - missing[0]) / (jnp.sqrt(v / (1 - missing[1])) + eps)

        return jax.tree.map(change, mean, square), Moments(mean, square, missing)

    return optax.GradientTransformation(init, update)


def adam(config: Config) -> optax.GradientTransformation:
    """Adam whose rate rises and falls with the ramps, and its b1 and b2 with them; official script."""
    up, down = lengths(config)

    def falling(step: Array) -> Array:
        return ramp_down(step, down, config.steps)

    return optax.inject_hyperparams(adam_step)(
        learning_rate=lambda step: config.learning_rate * ramp_up(step, up) * falling(step),
        b1=lambda step: config.b1[1] + (config.b1[0] - config.b1[1]) * falling(step),
        b2=lambda step: jnp.where(step < up, *config.b2),
    )


def lengths(config: Config) -> tuple[float, float]:
    """t1 and t2 in steps."""
    return max(config.ramp_up * config.steps, 1.0), max(config.ramp_down * config.steps, 1.0)


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    classifier = Player("classifier", network, adam(config), ema=True)
    up, _ = lengths(config)

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
        rate = jnp.where(step < up, *config.averaging)
        return State(update_ema(player, rate, step, teacher_stats)), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
