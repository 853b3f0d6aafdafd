"""Where a classifier's prediction changes most, and by how much: arrays in, nats out.

Miyato et al. 2018, "Virtual Adversarial Training", arXiv:1704.03976, sec. 3.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ssl_gen.types import Array


def kl_divergence(logits: Array, others: Array) -> Array:
    """E KL(p || q), p and q the softmax of logits (B, K) and others (B, K) -> () nats; both sides have a gradient."""
    log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(others)
    return (jnp.exp(log_p) * (log_p - log_q)).sum(-1).mean()


def unit(images: Array) -> Array:
    """Each image (B, H, W, C) divided by its Euclidean norm; one of zeros stays so."""
    largest = jnp.abs(images).max((1, 2, 3), keepdims=True)  # first, or squares of small gradients are lost
    images = images / jnp.maximum(largest, jnp.finfo(images.dtype).tiny)
    norm = jnp.sqrt(jnp.square(images).sum((1, 2, 3), keepdims=True))
    return images / jnp.maximum(norm, 1.0)  # an image whose largest pixel is 1 has a norm of 1 or more


def adversarial_direction(classify: Callable[[Array], Array], images: Array, start: Array, iterations: int) -> Array:
    """The direction in which KL(p(x) || p(x + r)) grows fastest, |r| being small: images (B, H, W, C) -> (B, H, W, C).

    classify: images -> logits (B, K); start: any directions, (B, H, W, C); the result has norm 1 and no gradient.
    The KL and its slope are 0 at r = 0, so that its Hessian H counts: d <- H d / |H d|, `iterations` times. The paper
    takes H d as a difference of slopes over a step of 1e-6, most of which is rounding in float32; here it is exact,
    J^T (diag p - p p^T) J d, with J the Jacobian of the logits in the image.
    Source: Miyato et al. 2018, arXiv:1704.03976, sec. 3.3 and 3.4.
    """
    logits, pull = jax.vjp(classify, images)  # pull: (B, K) -> J^T of it
    _, push = jax.vjp(lambda change: pull(change)[0], jnp.zeros_like(logits))  # its own transpose: d -> J d
    p = jax.nn.softmax(logits)
    direction = unit(start)
    for _ in range(iterations):
        (change,) = push(direction)
        (direction,) = pull(p * (change - (p * change).sum(-1, keepdims=True)))
        direction = unit(direction)
    return jax.lax.stop_gradient(direction)
