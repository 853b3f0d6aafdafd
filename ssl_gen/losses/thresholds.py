"""Which of a network's own guesses it learns, and how they are brought in line with the labels: arrays in, nats out."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen.types import Array


class Marginals(NamedTuple):
    """Running means over steps of the classes of labels and of guesses."""

    labels: Array  # (K,) of one-hot labels
    guesses: Array  # (K,) of q before alignment


def confident_cross_entropy(logits: Array, teacher: Array, threshold: float) -> Array:
    """E 1[max q > t] CE(p, argmax q): student logits and teacher log-probabilities (U, K) -> () nats.

    Source: Sohn et al. 2020, "FixMatch", arXiv:2001.07685, sec. 2.2; the mean is over all U, sure or not.
    """
    teacher = jax.lax.stop_gradient(teacher)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, teacher.argmax(-1))
    return jnp.where(confident(teacher, threshold), nats, 0.0).mean()


def confident(teacher: Array, threshold: float) -> Array:
    """max q > t: log-probabilities (U, K) -> (U,) bool."""
    return jnp.exp(teacher.max(-1)) > threshold


def sharpened_cross_entropy(
    logits: Array, targets: Array, temperature: float, threshold: float, sharpened_mask: bool
) -> Array:
    """E 1[max q > threshold] CE(q', p), q' = q^(1 / temperature) brought to sum 1: logits of p and q (U, K) -> () nats.

    The mean is over all U, sure or not; q carries no gradient. Source: Xie et al. 2020, arXiv:1904.12848, sec. 2 and 3;
    with `sharpened_mask` the threshold is on max q', as in Pham et al. 2021, code (training_utils.py).
    """
    targets = jax.lax.stop_gradient(targets)
    sharpened = jax.nn.log_softmax(targets / temperature)
    nats = optax.softmax_cross_entropy(logits, jnp.exp(sharpened))
    judged = sharpened if sharpened_mask else jax.nn.log_softmax(targets)
    return jnp.where(confident(judged, threshold), nats, 0.0).mean()


def distribution_alignment(teacher: Array, marginals: Marginals) -> Array:
    """log q (U, K) -> log of q * labels / guesses, brought to sum 1, (U, K).

    Source: Berthelot et al. 2020, "ReMixMatch", arXiv:1911.09785, sec. 3.1.
    """
    ratio = jnp.log(marginals.labels + 1e-6) - jnp.log(marginals.guesses + 1e-6)  # their code's 1e-6
    return jax.nn.log_softmax(teacher + ratio)


def uniform_marginals(classes: int) -> Marginals:
    """The running means before the first step."""
    uniform = jnp.full(classes, 1 / classes, jnp.float32)
    return Marginals(uniform, uniform)


def update_marginals(marginals: Marginals, labels: Array, teacher: Array, memory: int) -> Marginals:
    """The running means after a step with labels (L,) and log q (U, K), of about the last `memory` steps.

    In a step without labels (L = 0) their mean stays.
    """
    now = jax.nn.one_hot(labels, teacher.shape[-1]).mean(0) if labels.shape[0] else marginals.labels
    return optax.incremental_update(Marginals(now, jnp.exp(teacher).mean(0)), marginals, 1 / memory)
