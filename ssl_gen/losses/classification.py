"""Formulas that two or more methods use: arrays in, nats out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from ssl_gen.types import Array


def cross_entropy(logits: Array, labels: Array) -> Array:
    """- E log p(label): logits (B, K), labels (B,) -> () nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def mean_over(kept: Array, nats: Array) -> Array:
    """The mean of nats (B,) over the images that are kept (B,) bool -> (); 0 without any."""
    return jnp.where(kept, nats, 0.0).sum() / jnp.maximum(kept.sum(), 1)


def smoothed_cross_entropy(logits: Array, labels: Array, smoothing: float) -> Array:
    """CE(p, (1 - smoothing) one-hot + smoothing / K): logits (B, K), labels (B,) -> () nats.

    Source: Szegedy et al. 2016, arXiv:1512.00567, sec. 7.
    """
    if not smoothing:
        return cross_entropy(logits, labels)
    one_hot = jax.nn.one_hot(labels, logits.shape[-1])
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(one_hot, smoothing)).mean()


def entropy(logits: Array) -> Array:
    """H(p) of each row: logits (B, K) -> (B,) nats."""
    log_p = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_p) * log_p).sum(-1)


def softmax_mse(logits: Array, others: Array) -> Array:
    """E |p - q|^2 / K, p and q the softmax of logits (B, K) and others (B, K) -> (); both sides have a gradient.

    Source: Laine and Aila 2017, arXiv:1610.02242, algorithm 1; Tarvainen and Valpola 2017, arXiv:1703.01780, sec. 2.
    """
    return jnp.square(jax.nn.softmax(logits) - jax.nn.softmax(others)).mean()


def brier(logits: Array, targets: Array) -> Array:
    """|p - target|^2 / K, p the softmax of logits (B, K): targets (B, K) sum to 1 and carry no gradient -> (B,).

    Source: Brier 1950; Berthelot et al. 2019, arXiv:1905.02249, eq. 4.
    """
    return jnp.square(jax.nn.softmax(logits) - jax.lax.stop_gradient(targets)).mean(-1)


def log_shares(values: Array, floor: float = 1e-4) -> Array:
    """Log-probabilities in proportion to the positive part of values (B, K), each raised by `floor` -> (B, K).

    For sums of votes and least-squares fits, where a class may get nothing: it then costs -log `floor` nats, not
    infinitely many; ours.
    """
    raised = jnp.maximum(values, 0.0) + floor
    return jnp.log(raised) - jnp.log(raised.sum(-1, keepdims=True))


def balance(logits: Array) -> Array:
    """CE(uniform, mean posterior): logits (U, K) -> () nats; least, log K, where every class is predicted as often."""
    return -jnp.log(jax.nn.softmax(logits).mean(0) + 1e-8).mean()
