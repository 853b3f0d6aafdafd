"""Models with an auxiliary variable a: a batch paired with classes for their bounds, and what is a mean over a.

Maaløe et al. 2016, "Auxiliary Deep Generative Models", arXiv:1602.05473, sec. 2 and 3. ADGM and SDGM share q(a | x),
q(y | a, x), q(z | a, x, y) and differ in p. A model here is a player whose network is an `AuxiliaryAutoencoder`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssl_gen.core.batching import interleave, separate
from ssl_gen.core.players import Player
from ssl_gen.losses.likelihood import (
    Likelihood,
    every_pair,
    labelled_pairs,
    log_importance,
    mean_over_classes,
    normal,
    reparametrised,
)
from ssl_gen.types import Array, TrainState


class Repeated(NamedTuple):
    """A batch in which each image stands as often as a is drawn for it, L labelled and U unlabelled in all."""

    images: Array  # (L + U, H, W, C), interleaved
    given: Array  # (L,) the labels
    pairs: Array  # (L + U K, H, W, C): labelled images as they are, the others with each class
    labels: Array  # (L + U K,) of the pairs
    sizes: tuple[int, int]  # L, U
    classes: int  # K

    def paired(self, rows: Array) -> Array:
        """Of all images (L + U, ...) -> of all pairs (L + U K, ...)."""
        labelled, unlabelled = separate(rows, self.sizes)
        return labelled_pairs(labelled, self.given, unlabelled, self.classes)[0]


def repeated(images: Array, labels: Array, samples: int, classes: int) -> Repeated:
    """Images (B, H, W, C), interleaved, the labelled ones with labels (L,), each `samples` times."""
    parts = separate(images, (labels.shape[0], images.shape[0] - labels.shape[0]))
    labelled, unlabelled, given = (jnp.repeat(rows, samples, 0) for rows in (*parts, labels))
    pairs, of_pairs = labelled_pairs(labelled, given, unlabelled, classes)
    sizes = labelled.shape[0], unlabelled.shape[0]
    return Repeated(interleave(labelled, unlabelled), given, pairs, of_pairs, sizes, classes)


def log_class_probabilities(model: Player, state: TrainState, images: Array, noise: Array) -> Array:
    """log E_q(a|x) q(y | a, x), the mean over the draws of a that noise (D, A) makes of every image -> (B, K) nats."""
    mean, log_variance = model.infer(state, images, method="encode_auxiliary")

    def at(noise: Array) -> Array:
        a = reparametrised(mean, log_variance, noise)
        return jax.nn.log_softmax(model.infer(state, images, a, method="classify"))

    return jax.nn.logsumexp(jax.vmap(at)(noise), 0) - jnp.log(noise.shape[0])


def log_weight(
    model: Player, state: TrainState, likelihood: Likelihood, images: Array, noise: tuple[Array, Array], classes: int
) -> Array:
    """log sum_y p(x, y, a, z_y) / q(a | x) q(z_y | a, x, y): images as the model sees them (B, H, W, C) -> (B,) nats.

    noise: of a (B, A), and of the z_y (B K, Z), as in `every_pair`. The weight's mean is no more than log p(x).
    """
    a_noise, z_noise = noise
    mean, log_variance = model.infer(state, images, method="encode_auxiliary")
    a = reparametrised(mean, log_variance, a_noise)
    (pairs, labels), a_pairs = every_pair(images, classes), every_pair(a, classes)[0]
    outputs, p_a, (z_mean, z_log_variance) = model.infer(state, pairs, a_pairs, labels, z_noise)
    log_p = normal(a_pairs, *p_a) + likelihood.log_density(pairs, outputs)
    each = log_importance(log_p, z_mean, z_log_variance, z_noise)
    return mean_over_classes(each, classes) - normal(a, mean, log_variance)
