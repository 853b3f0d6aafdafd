"""AdaMatch: thresholds relative to how sure the network is of labelled images, and logits between two batch norms.

Berthelot et al. 2022, "AdaMatch: A Unified Approach to Semi-Supervised Learning and Domain Adaptation",
arXiv:2106.04732, sec. 3; here labelled and unlabelled images come from one source.

With a(.) a weak and A(.) a strong augmentation, l' the logits of labelled images in a pass over all images, l'' those
in a pass over the labelled ones alone (batch norm sees other batches), yh = argmax_k q'_k, t the share of the run that
is over,

    l    = l'' + z (l' - l''),   z ~ U(0, 1) of each image and class          random logit interpolation
    p    = softmax l of a(x),    q = p(. | a(u))
    q'   = norm(q E p / E q),    running means                                distribution alignment
    c    = threshold E max_k p_k                                              relative confidence threshold
    L    = (CE of l(a(x)) + CE of l(A(x))) / 2 - w r(t) E_u 1[max_k q'_k > c] log p(yh | A(u))
    r(t) = 1/2 - cos(min(pi, 2 pi t)) / 2

p, q, q' and c carry no gradient, the means hold this step already. Statistics are those of the pass over all. As
in the authors' code, the guesses are hard, and L holds the half.

Alignment takes the classes to be as frequent among the unlabelled images as among the labels; where they are not it is
to be switched off.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssl_gen.augmentation import STRONG_DIGITS, STRONG_PHOTOGRAPHS, WEAK_PHOTOGRAPHS, Augmentation, augment, views
from ssl_gen.core.batching import interleave, separate, shard_batch
from ssl_gen.core.gradient import Terms, forward
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import PartlyCosine, partly_cosine_optimizer
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.losses.thresholds import (
    Marginals,
    confident,
    confident_cross_entropy,
    distribution_alignment,
    relative_threshold,
    uniform_marginals,
    update_predicted_marginals,
)
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Berthelot et al. 2022, arXiv:2106.04732"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 2_400  # updates; ours, for MNIST; authors' code (semi_supervised/adamatch.py): 2^17
    labelled_batch: int = 32  # images a step, each shown twice; ours; authors' code: 64
    unlabelled_batch: int = 192  # images a step, a multiple; ours; authors' code: 192
    network: classifiers.Network = "conv"  # paper: wide_resnet
    hidden: tuple[int, ...] = (500, 500)  # units a layer of the mlp; ours
    width: int = 32  # channels of the first layer of the others; paper: 32
    dropout: float = 0.0  # of hidden units; paper: none
    optimizer: PartlyCosine = "adamw"  # ours; paper: sgd, Nesterov momentum 0.9
    learning_rate: float = 2e-3  # at the start, falling along cos(7 pi t / 16 T); ours; paper: 0.03 with sgd
    weight_decay: float = 1e-3  # of kernels; paper, in sgd's gradient; adamw's is times the rate, 2e-6 a step: inert
    unlabelled_weight: float = 1.0  # w; paper
    threshold: float = 0.9  # share of the mean confidence in labelled images; paper
    alignment: bool = True  # of the guesses' classes to those said of labelled images; paper
    memory: int = 128  # steps that the running means look back; authors' code, of E q; of E p there 1,000
    averaging: float = 0.01  # rate of the EMA, a step; ours; paper: 0.001
    augmentation: Augmentation = Augmentation(translate=2.0)  # the weak one; ours; paper: flip, crop 4
    strong: Augmentation = STRONG_DIGITS  # the strong one; paper: RandAugment


# Authors' code (semi_supervised/adamatch.py); there the rate falls to 1/4 instead of 1/5, and the strong augmentation
# is CTAugment.
PHOTOGRAPHS = Config(
    steps=2**17, labelled_batch=64, unlabelled_batch=192, network="wide_resnet", optimizer="sgd", learning_rate=0.03,
    averaging=1e-3, augmentation=WEAK_PHOTOGRAPHS, strong=STRONG_PHOTOGRAPHS,
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState
    marginals: Marginals | tuple[()]  # () without alignment


def interpolated(key: Key, together: Array, alone: Array) -> Array:
    """l'' + z (l' - l''), z ~ U(0, 1) of each logit: l' and l'' (L, K) -> (L, K)."""
    return alone + shard_batch(jax.random.uniform(key, together.shape)) * (together - alone)


def rise(progress: Array) -> Array:
    """r(t): from 0 to 1 along a half cosine over the first half of the run, share () -> ()."""
    return 0.5 - 0.5 * jnp.cos(jnp.minimum(math.pi, 2 * math.pi * progress))


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    optimizer = partly_cosine_optimizer(config.optimizer, config.learning_rate, config.steps, config.weight_decay)
    classifier = Player("classifier", network, optimizer, ema=True)

    def init(key: Key, batch: Batch) -> State:
        player = classifier.init(key, batch.unlabelled)
        return State(player, uniform_marginals(spec.classes) if config.alignment else ())

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 8)
        weak_labelled, strong, weak = views(config.augmentation, config.strong, (keys[0], keys[1], keys[2]), batch)
        labelled = weak_labelled, augment(config.strong, keys[3], batch.labelled)
        images = *labelled, strong, weak
        sizes = tuple(part.shape[0] for part in images)

        def both(params: Tree) -> tuple[tuple[Array, ...], Tree]:
            together, stats = classifier.run(state.classifier, params, interleave(*images), rngs={"dropout": keys[4]})
            alone, _ = classifier.run(state.classifier, params, interleave(*labelled), rngs={"dropout": keys[5]})
            *of_labelled, of_strong, of_weak = separate(together, sizes)
            return (interpolated(keys[6], interleave(*of_labelled), alone), of_strong, of_weak), stats

        predicted = forward(both, state.classifier.params)
        said, _, guesses = map(jax.nn.log_softmax, predicted.outputs)
        said, marginals = separate(said, sizes[:2])[0], state.marginals
        if marginals:
            marginals = update_predicted_marginals(marginals, said, guesses, config.memory)
        teacher = distribution_alignment(guesses, marginals) if marginals else guesses
        threshold = relative_threshold(said, config.threshold)

        def loss(outputs: tuple[Array, ...]) -> Terms:
            pseudo_label = confident_cross_entropy(outputs[1], teacher, threshold)
            return {
                "supervised": cross_entropy(outputs[0], interleave(batch.labels, batch.labels)),
                "pseudo_label": config.unlabelled_weight * rise(step / config.steps) * pseudo_label,
            }

        player, metrics = classifier.descend(state.classifier, loss, predicted)
        metrics |= {"classifier/confident": confident(teacher, threshold).mean(), "classifier/threshold": threshold}
        player = classifier.average(player, config.averaging, step, batch.unlabelled, rngs={"dropout": keys[7]})
        return State(player, marginals), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
