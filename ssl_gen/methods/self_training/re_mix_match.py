"""ReMixMatch: MixMatch whose guesses are aligned with the labels, and anchored in a weakly changed view.

Berthelot et al. 2020, "ReMixMatch: Semi-Supervised Learning with Distribution Alignment and Augmentation Anchoring",
arXiv:1911.09785, sec. 3; rotations: Gidaris et al. 2018, arXiv:1803.07728. With a(.) a weak and A(.) a strong
augmentation, A_1, ..., A_V draws of it, and q the guess for all views of u, which carries no gradient,

    q    = sharpen(p(. | a(u)) * (mean of labels) / (mean of guesses)), sharpen(p) ~ p^(1/temperature)
    L    = - E_x' sum_k y'_k log p(k | x')            supervised: A(x), mixed
         - c r(t) E_u' sum_k q'_k log p(k | u')       consistency: a(u), A_1(u), ..., A_V(u), mixed
         - b r(t) E_u sum_k q_k log p(k | A_1(u))     anchored: one strong view as it is
         - d E_u log p(turns | turned A_1(u))         rotation: by how many right angles, of 0 to 3

Mixing is that of `mix_match`, alignment that of `fixmatch`, see there for when to switch it off; r(t) rises along a
line. The class and the turns are read off the same features, by K + 4 outputs.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import STRONG_DIGITS, STRONG_PHOTOGRAPHS, WEAK_PHOTOGRAPHS, Augmentation, augment
from ssl_gen.augmentation.geometry import turned
from ssl_gen.core.batching import interleave, repeated, separate, shard_batch
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import kernels, linear_ramp
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.losses.mixing import mixed, own_shares, sharpened, shuffles
from ssl_gen.losses.thresholds import Marginals, distribution_alignment, uniform_marginals, update_marginals
from ssl_gen.networks import classifiers
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, UserError

PAPER = "Berthelot et al. 2020, arXiv:1911.09785"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 2_400  # updates; ours, for MNIST; official code: 2^20
    labelled_batch: int = 32  # images a step; ours; paper: 64
    unlabelled_batch: int = 64  # images a step, a multiple; ours; paper: 64
    views: int = 2  # V, strong ones; ours; paper: 8
    network: classifiers.Network = "conv"  # paper: wide_resnet
    hidden: tuple[int, ...] = (500, 500)  # units a layer of the mlp; ours
    width: int = 32  # channels of the first layer of the others; paper: 32
    dropout: float = 0.0  # of hidden units; paper: none
    learning_rate: float = 2e-3  # AdamW; paper
    weight_decay: float = 0.02  # of kernels, times the rate; paper
    temperature: float = 0.5  # of sharpening; paper
    concentration: float = 0.75  # of Beta(a, a), which a share of mixing is drawn from; paper
    mixing_groups: int = 1  # parts of a step's images within which they are mixed; as many as devices spares a copy
    alignment: bool = True  # of the guesses' classes to those of the labels; paper
    memory: int = 128  # steps that the means of alignment look back; paper; official code, of the labels': 1,000
    consistency: float = 1.5  # c; paper
    anchor_weight: float = 0.5  # b; paper
    rotation: float = 0.5  # d; paper; 40 labels, official code: 2
    ramp: float = 1 / 64  # share of the steps over which r(t) rises from 0 to 1; official code; with 40 labels: 1/8
    averaging: float = 0.01  # rate of the EMA, a step; ours; paper: 0.001
    augmentation: Augmentation = Augmentation(translate=2.0)  # the weak one; ours; paper: flip, crop 4
    strong: Augmentation = STRONG_DIGITS  # the strong one; paper: CTAugment


# Paper, sec. 4.1, and official code (cta/cta_remixmatch.py, runs/ssl/cifar10.sh); the strong augmentation is
# FixMatch's.
PHOTOGRAPHS = Config(
    steps=2**20, labelled_batch=64, unlabelled_batch=64, views=8, network="wide_resnet", averaging=1e-3,
    augmentation=WEAK_PHOTOGRAPHS, strong=STRONG_PHOTOGRAPHS,
)  # fmt: skip


class State(NamedTuple):
    classifier: TrainState
    marginals: Marginals | tuple[()]  # () without alignment


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for square images of `spec`; raises UserError on others, which cannot be turned."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    check_multiples(config, "mixing_groups", "labelled_batch")
    if spec.height != spec.width:
        raise UserError(f"re_mix_match turns images, and {spec.height} x {spec.width} are not square: resize them")
    network = classifiers.classifier(config.network, spec.classes + 4, config.hidden, config.width, config.dropout)
    optimizer = optax.adamw(config.learning_rate, weight_decay=config.weight_decay, mask=kernels)
    classifier = Player("classifier", network, optimizer, ema=True)
    sizes = config.labelled_batch, config.unlabelled_batch, config.views * config.unlabelled_batch

    def init(key: Key, batch: Batch) -> State:
        player = classifier.init(key, batch.unlabelled)
        return State(player, uniform_marginals(spec.classes) if config.alignment else ())

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        weak_key, strong_key, share_key, order_key, turn_key, *dropout_keys = jax.random.split(key, 8)
        weak = augment(config.augmentation, weak_key, batch.unlabelled)
        strong = augment(
            config.strong, strong_key, interleave(batch.labelled, repeated(batch.unlabelled, config.views))
        )
        labelled, views = separate(strong, sizes[::2])
        anchored = separate(views, (sizes[1],) * config.views)[0]
        rngs = [{"dropout": each} for each in dropout_keys]
        logits, _ = classifier.run(state.classifier, state.classifier.params, weak, rngs=rngs[0])
        guesses, marginals = jax.nn.log_softmax(logits[:, : spec.classes]), state.marginals
        aligned = distribution_alignment(guesses, marginals) if marginals else guesses
        guess = jnp.exp(sharpened(aligned, config.temperature))

        targets = interleave(jax.nn.one_hot(batch.labels, spec.classes), guess, repeated(guess, config.views))
        shares = own_shares(share_key, targets.shape[0], config.concentration)
        orders = shuffles(order_key, targets.shape[0], config.mixing_groups)
        labels, *guessed = separate(mixed(targets, shares, orders), sizes)
        turns = shard_batch(jax.random.randint(turn_key, weak.shape[:1], 0, 4))
        images = separate(mixed(interleave(labelled, weak, views), shares, orders), sizes)
        shown = interleave(*images, anchored, turned(anchored, turns))
        predicted = classifier.forward(state.classifier, shown, rngs=rngs[1])

        def loss(logits: Array) -> Terms:
            *seen, turned_ones = separate(logits, (*sizes, sizes[1], sizes[1]))
            labelled, *unlabelled, anchored = (each[:, : spec.classes] for each in seen)
            nats = [optax.softmax_cross_entropy(*pair).sum() for pair in zip(unlabelled, guessed, strict=True)]
            rises = linear_ramp(step, 0, config.ramp * config.steps)
            return {
                "supervised": optax.softmax_cross_entropy(labelled, labels).mean(),
                "consistency": config.consistency * rises * (nats[0] + nats[1]) / sum(sizes[1:]),
                "anchored": config.anchor_weight * rises * optax.softmax_cross_entropy(anchored, guess).mean(),
                "rotation": config.rotation * cross_entropy(turned_ones[:, spec.classes :], turns),
            }

        player, metrics = classifier.descend(state.classifier, loss, predicted)
        if marginals:
            marginals = update_marginals(marginals, batch.labels, guesses, config.memory)
        player = classifier.average(player, config.averaging, step, batch.unlabelled, rngs=rngs[2])
        return State(player, marginals), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images)[:, : spec.classes])

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
