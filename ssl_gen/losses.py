"""Formulas that two or more methods use: arrays in, nats out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from ssl_gen.types import Array


def cross_entropy(logits: Array, labels: Array) -> Array:
    """- E log p(label): logits (B, K), labels (B,) -> () nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def entropy(logits: Array) -> Array:
    """H(p) of each row: logits (B, K) -> (B,) nats."""
    log_p = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_p) * log_p).sum(-1)


def judged_real(logits: Array) -> Array:
    """- E log D with D = sigmoid(logits): logits (B,) -> () nats."""
    return jax.nn.softplus(-logits).mean()


def judged_fake(logits: Array) -> Array:
    """- E log(1 - D) with D = sigmoid(logits): logits (B,) -> () nats."""
    return jax.nn.softplus(logits).mean()
