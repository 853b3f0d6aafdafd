"""Mean Teacher: a student that agrees with the running mean of itself.

Tarvainen and Valpola 2017, "Mean teachers are better role models: Weight-averaged consistency targets improve
semi-supervised deep learning results", arXiv:1703.01780, sec. 2 and appendix B.

With w the student's params, w' their running mean, n and n' noise drawn apart (augmentation and dropout), t the step,

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

from ssl_gen import losses
from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.networks.classifiers import Network, classifier
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree
from ssl_gen.update import average, check_multiples, create, descend, interleave, separate

PAPER = "Tarvainen and Valpola 2017, arXiv:1703.01780"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 5_000  # updates; ours, for MNIST; official script: 150,000
    labelled_batch: int = 20  # images a step; ours; official SVHN script: 1
    unlabelled_batch: int = 80  # images a step, a multiple; ours; official SVHN script: 99
    network: Network = "conv"  # official script: conv13
    hidden: tuple[int, ...] = (500, 500)  # units a layer of the mlp; ours
    width: int = 32  # channels of the first layer of the others; official script: 128
    dropout: float = 0.5  # of the student's and the teacher's hidden units; official script
    consistency: float = 100.0  # c; official script
    ramp_up: float = 4 / 15  # t1, share of the steps; official script: 40,000 of 150,000
    ramp_down: float = 1 / 6  # t2, share of the steps, at the end; official script: 25,000 of 150,000
    learning_rate: float = 3e-3  # Adam, at its highest; official script
    b1: tuple[float, float] = (0.9, 0.5)  # Adam, until the ramp-down and at the end; official script
    b2: tuple[float, float] = (0.99, 0.999)  # Adam, while ramping up and after; official SVHN script
    averaging: tuple[float, float] = (0.01, 0.01)  # rate of w' a step, ramping up and after; official: 0.01, 0.001
    augmentation: Augmentation = Augmentation(translate=2.0, noise=0.1)  # of each side; official CIFAR script: flip too


PHOTOGRAPHS = Config(  # official CIFAR-10 script
    steps=150_000, network="conv13", width=128, augmentation=Augmentation(translate=2.0, flip=True, noise=0.15)
)


class State(NamedTuple):
    step: Array  # () int32, updates done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    classifier: TrainState  # the student; its running mean is the teacher
    teacher_stats: Tree  # the teacher's untrained collections


def ramp_up(step: Array, length: float) -> Array:
    """r(t): exp(-5) at step 0, 1 from step `length` on; Laine and Aila 2017, arXiv:1610.02242, sec. 2."""
    return jnp.exp(-5 * jnp.square(1 - jnp.minimum(step / length, 1)))


def ramp_down(step: Array, length: float, steps: int) -> Array:
    """1 until `length` steps before the last of `steps`, exp(-12.5) at the end; official script."""
    return jnp.exp(-12.5 * jnp.square(1 - jnp.minimum((steps - step) / length, 1)))


def adam(config: Config) -> optax.GradientTransformation:
    """Adam whose rate rises and falls with the ramps, and its b1 and b2 with them; official script."""
    up, down = lengths(config)

    def falling(step: Array) -> Array:
        return ramp_down(step, down, config.steps)

    return optax.inject_hyperparams(optax.adam)(
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
    net = classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    optimizer, (up, _) = adam(config), lengths(config)

    def init(key: Key, batch: Batch) -> State:
        variables = net.init(jax.random.fold_in(key, BEFORE), batch.unlabelled, train=False)
        player = create(variables.pop("params"), variables, optimizer, average=True)
        return State(jnp.int32(0), key, player, player.stats)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        student_keys, teacher_keys = jax.random.split(jax.random.fold_in(state.key, state.step), (2, 2))
        images = interleave(batch.labelled, batch.unlabelled)
        sizes = batch.labelled.shape[0], batch.unlabelled.shape[0]

        def predict(params: dict, stats: Tree, keys: Key) -> tuple[Array, Tree]:
            variables, moved = {"params": params, **stats}, augment(config.augmentation, keys[0], images)
            return net.apply(variables, moved, train=True, rngs={"dropout": keys[1]}, mutable=["batch_stats"])

        teacher, teacher_stats = predict(state.classifier.ema, state.teacher_stats, teacher_keys)

        def loss(params: dict) -> tuple[dict, dict]:
            logits, stats = predict(params, state.classifier.stats, student_keys)
            weight = config.consistency * ramp_up(state.step, up)
            return {
                "supervised": losses.cross_entropy(separate(logits, sizes)[0], batch.labels),
                "consistency": weight * losses.inconsistency(logits, teacher),
            }, stats

        player, metrics = descend("classifier", state.classifier, optimizer, loss)
        rate = jnp.where(state.step < up, *config.averaging)
        return State(state.step + 1, state.key, average(player, rate, state.step), teacher_stats), metrics

    def classify(state: State, images: Array) -> Array:
        variables = {"params": state.classifier.ema, **state.teacher_stats}
        return jax.nn.log_softmax(net.apply(variables, images, train=False))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
