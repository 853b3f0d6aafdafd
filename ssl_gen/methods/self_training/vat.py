"""Virtual adversarial training: the prediction must stay where a small change of the image would move it most.

Miyato et al. 2018, "Virtual Adversarial Training: A Regularization Method for Supervised and Semi-Supervised Learning",
arXiv:1704.03976, sec. 3; entropy minimisation, sec. 4.2: Grandvalet and Bengio 2005. With p = p(. | x; w), which has no
gradient, and n the noise of this step, the same in all passes (dropout),

    L     = - E_(x,y) log p(y | x; w) + a E_(x,u) KL(p || p(. | x + r; w)) + e E_u H(p(. | u; w))
    r     = epsilon d / |d|
    d     = H d' / |H d'|, once or more, d' ~ N(0, 1)

H is the Hessian of the KL in r at r = 0: its first eigenvector is where the KL grows fastest, and d <- H d goes towards
it. Labelled and unlabelled images go through the network together, with and without r, so that r alone tells p from its
neighbour under batch norm.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import optax

from ssl_gen.augmentation import WEAK_PHOTOGRAPHS, Augmentation, augment
from ssl_gen.core.batching import interleave, separate, shard_batch
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import adam_step, annealed, preceded
from ssl_gen.losses.classification import cross_entropy, entropy
from ssl_gen.losses.virtual_adversarial import adversarial_direction, kl_divergence
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Miyato et al. 2018, arXiv:1704.03976"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 5_000  # updates; ours; official script: 48,000 for SVHN, 200,000 for CIFAR-10
    labelled_batch: int = 32  # images a step; official script
    unlabelled_batch: int = 128  # images a step, a multiple; official script
    network: classifiers.Network = "conv"  # paper: its convolutions, with batch norm throughout
    hidden: tuple[int, ...] = (1200, 1200)  # units a layer of the mlp; paper, for MNIST
    width: int = 32  # channels of the first layer of the others; paper: 128
    dropout: float = 0.0  # of hidden units; ours; official script: 0.5
    learning_rate: float = 1e-3  # Adam, until it falls; official script
    anneal: float = 1 / 3  # share of the steps, at the end, over which the rate falls to 0; official SVHN script
    b1: tuple[float, float] = (0.9, 0.5)  # Adam, before the rate falls and while it does; official script
    epsilon: float = 2.0  # |r|, norm of an image's change, pixels in [-1, 1]; ours; official SVHN script: 7
    power_iterations: int = 1  # how often d <- H d; paper
    adversarial: float = 1.0  # a; paper
    entropy: float = 1.0  # e; paper; 0: none
    averaging: float = 0.01  # rate of the EMA, a step; ours; paper: none
    augmentation: Augmentation = Augmentation(translate=2.0)  # of all images, before r; official script: crop 2


# Official script for CIFAR-10 with augmentation, on conv13, where its network has batch norm throughout. Its epsilon of
# 8 is of images after ZCA; 6 is what Berthelot et al. 2019, arXiv:1905.02249, code, take without (Oliver et al. 2018,
# arXiv:1804.09170, with), both with a of 0.3. a and e of 1 beside it are the paper's, the EMA is ours.
PHOTOGRAPHS = Config(
    steps=200_000, network="conv13", width=128, dropout=0.5, anneal=0.08, epsilon=6.0, averaging=1e-3,
    augmentation=dataclasses.replace(WEAK_PHOTOGRAPHS, crop=2),
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState


def adam(config: Config) -> optax.GradientTransformation:
    """Adam whose rate falls along a line at the end, with another b1 from there on; official script."""
    falls = config.steps - round(config.anneal * config.steps)
    return optax.inject_hyperparams(adam_step)(
        learning_rate=annealed(config.learning_rate, config.steps, config.anneal),
        b1=preceded(config.b1[0], falls, config.b1[1]),
        b2=0.999,
    )


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    classifier = Player("classifier", network, adam(config), ema=True)

    def init(key: Key, batch: Batch) -> State:
        return State(classifier.init(key, batch.unlabelled))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        augment_key, dropout_key, direction_key, ema_key = jax.random.split(key, 4)
        images = augment(config.augmentation, augment_key, interleave(batch.labelled, batch.unlabelled))
        sizes = batch.labelled.shape[0], batch.unlabelled.shape[0]

        def run(params: Tree, images: Array) -> tuple[Array, Tree]:
            return classifier.run(state.classifier, params, images, rngs={"dropout": dropout_key})

        start = shard_batch(jax.random.normal(direction_key, images.shape))
        direction = adversarial_direction(
            lambda images: run(state.classifier.params, images)[0], images, start, config.power_iterations
        )

        def loss(params: Tree) -> tuple[Terms, Tree]:
            logits, stats = run(params, images)
            moved, _ = run(params, images + config.epsilon * direction)
            labelled, unlabelled = separate(logits, sizes)
            terms = {
                "supervised": cross_entropy(labelled, batch.labels),
                "adversarial": config.adversarial * kl_divergence(jax.lax.stop_gradient(logits), moved),
            }
            if config.entropy:
                terms["entropy"] = config.entropy * entropy(unlabelled).mean()
            return terms, stats

        player, metrics = classifier.descend(state.classifier, loss)
        player = classifier.average(player, config.averaging, step, batch.unlabelled, rngs={"dropout": ema_key})
        return State(player), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
