"""Guesses made sure, and images and their targets mixed: arrays in, arrays out.

Berthelot et al. 2019, "MixMatch", arXiv:1905.02249, sec. 3; mixing: Zhang et al. 2018, "mixup", arXiv:1710.09412.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ssl_gen.core.batching import shard_batch
from ssl_gen.types import Array, Key


def mean_prediction(logits: Array, views: int) -> Array:
    """The mean probabilities of each image's views, which stand together: logits (U views, K) -> log q (U, K)."""
    log_p = jax.nn.log_softmax(logits).reshape(-1, views, logits.shape[-1])
    return jax.nn.logsumexp(log_p, 1) - math.log(views)


def sharpened(log_q: Array, temperature: float) -> Array:
    """log q (U, K) -> log of q^(1 / temperature), brought to sum 1; Berthelot et al. 2019, eq. 7."""
    return jax.nn.log_softmax(log_q / temperature)


def own_shares(key: Key, count: int, concentration: float) -> Array:
    """max(s, 1 - s), s ~ Beta(a, a), a the concentration, 1/2 or more -> (count,) in [1/2, 1].

    s = (1 + sqrt(1 - v^(2 / (2 a - 1))) cos(2 pi w)) / 2 with v, w ~ U(0, 1): without the loops of `jax.random.beta`.
    Source: Berthelot et al. 2019, eq. 8 and 9; the draw: Ulrich 1984, Applied Statistics 33, 158-163.
    """
    v, w = shard_batch(jax.random.uniform(key, (count, 2))).T
    radius = jnp.sqrt(1 - v ** (2 / (2 * concentration - 1) if concentration > 0.5 else math.inf))
    return (1 + jnp.abs(radius * jnp.cos(2 * math.pi * w))) / 2


def shuffles(key: Key, count: int, groups: int) -> Array:
    """An order of its own of each of so many equal parts of `count` images -> (groups, count / groups) int."""
    return shard_batch(jax.random.uniform(key, (groups, count // groups))).argsort(-1)


def mixed(values: Array, shares: Array, orders: Array) -> Array:
    """share * value + (1 - share) * partner: values (B, ...), shares (B,), orders (G, B / G) -> (B, ...).

    The partners of each of G consecutive parts of the batch are the part itself in the order given.
    Source: Zhang et al. 2018, arXiv:1710.09412, sec. 2.
    """
    parts = values.reshape(orders.shape[0], -1, *values.shape[1:])
    partners = jax.vmap(lambda part, order: part[order])(parts, orders).reshape(values.shape)
    shares = shares.reshape(-1, *(1,) * (values.ndim - 1))
    return shares * values + (1 - shares) * partners
