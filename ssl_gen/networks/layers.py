"""What dense and convolutional networks share: labels beside an input, noise, dense layers with weight norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_gen.core.memory import current
from ssl_gen.core.precision import dot_general, matmul
from ssl_gen.types import Array


def soft(labels: Array, classes: int) -> Array:
    """labels (B,) or already soft (B, K) -> (B, K)."""
    return jax.nn.one_hot(labels, classes) if labels.ndim == 1 else labels


def beside(x: Array, labels: Array | None, classes: int) -> Array:
    """x (B, ..., C) -> (B, ..., C + K), the labels as constant maps; x as it is without labels."""
    if labels is None:
        return x
    maps = soft(labels, classes).astype(x.dtype).reshape(x.shape[0], *(1,) * (x.ndim - 2), classes)
    return jnp.concatenate([x, jnp.broadcast_to(maps, (*x.shape[:-1], classes))], -1)


def rematerialised(module: nn.Module, *inputs: Array, **settings: Any) -> Array:
    """module(*inputs, **settings), whose insides are computed again on the way back where a run saves memory so.

    Its params have the same names and its noise is the same, so that a checkpoint is of both.
    """
    saved = current()
    if not saved.remat:
        return module(*inputs, **settings)
    saved.blocks.add(type(module).__name__)
    return nn.remat(lambda module, *inputs: module(*inputs, **settings))(module, *inputs)


class GaussianNoise(nn.Module):
    """Adds N(0, deviation^2) noise in training (stream `noise`), nothing otherwise; any shape."""

    deviation: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        if not train or self.deviation == 0:
            return x
        return x + self.deviation * jax.random.normal(self.make_rng("noise"), x.shape, x.dtype)


class Dense(nn.Dense):
    """x (..., C) -> (..., features): linen's, its product in the player's precision."""

    dot_general: Any = dot_general


class WeightNormDense(nn.Module):
    """x (B, F) -> (B, features): w = scale * v / |v|, scale and bias set from the first batch.

    At `init` each output of the given batch gets mean 0 and deviation `init_deviation`; with `data_dependent` False
    scale and bias start at 1 and 0. With `train_scale` False the scale stays as it started (collection `constants`);
    without `use_bias` the mean stays as it is.

    Source: Salimans and Kingma 2016, arXiv:1602.07868, sec. 3; the fixed scale: Salimans et al. 2016, code.
    """

    features: int
    train_scale: bool = True
    init_deviation: float = 1.0
    data_dependent: bool = True
    kernel_init: Callable = nn.initializers.normal(0.1)  # Salimans et al. 2016, code
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        direction = self.param("direction", self.kernel_init, (x.shape[-1], self.features))
        x = matmul(x, direction / jnp.linalg.norm(direction, axis=0))

        def first_scale() -> Array:
            if not self.data_dependent:
                return jnp.ones(self.features)
            return self.init_deviation / jnp.sqrt(x.var(tuple(range(x.ndim - 1))) + 1e-8)

        def first_bias() -> Array:
            if not self.data_dependent:
                return jnp.zeros(self.features)
            return -x.mean(tuple(range(x.ndim - 1))) * first_scale()

        if self.train_scale:
            scale = self.param("scale", lambda _: first_scale())
        else:
            scale = self.variable("constants", "scale", first_scale).value
        return x * scale + self.param("bias", lambda _: first_bias()) if self.use_bias else x * scale
