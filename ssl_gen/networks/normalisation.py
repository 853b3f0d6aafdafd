"""Normalisation of weights and activations: spectral norm, weight norm, conditional batch norm, and a dense layer."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ssl_gen.core.options import choose
from ssl_gen.core.precision import matmul
from ssl_gen.networks.layers import soft
from ssl_gen.types import Array

NORMALISATIONS = ("none", "spectral", "weight")
HE_NORMAL = nn.initializers.he_normal()  # He et al. 2015, arXiv:1502.01852: keeps the deviation of rectified layers


class SpectralNorm(nn.Module):
    """kernel (..., F) -> kernel / its largest singular value as a matrix (-1, F).

    One power iteration a call from a vector in `batch_stats`, which moves in training only.
    Source: Miyato et al. 2018, arXiv:1802.05957, algorithm 1.
    """

    @nn.compact
    def __call__(self, kernel: Array, train: bool) -> Array:
        matrix = kernel.reshape(-1, kernel.shape[-1])
        right = self.variable("batch_stats", "right", self._first, matrix.shape[1])
        constant = lax.stop_gradient(matrix)
        left = _unit(constant @ right.value)
        new = _unit(constant.T @ left)
        if train and not self.is_initializing():
            right.value = new
        return kernel / (left @ matrix @ new)

    def _first(self, features: int) -> Array:
        return _unit(jax.random.normal(self.make_rng("params"), (features,)))


def _unit(x: Array) -> Array:
    return x / (jnp.linalg.norm(x) + 1e-12)  # Miyato et al. 2018, code


def linear(
    module: nn.Module, product: Callable[[Array, Array], Array], shape: tuple[int, ...], x: Array, train: bool
) -> Array:
    """product(x, kernel) + bias with a kernel of the given shape (..., F), whose params live in the calling module.

    The module's `normalisation` is none, spectral, or weight: kernel = scale * direction / |direction|, where at `init`
    each output of the given batch gets deviation 1 and, with a bias, mean 0; with `train_scale` False the scale stays
    there (`constants`). Raises UserError on an unknown normalisation.
    Source: Salimans and Kingma 2016, arXiv:1602.07868, sec. 3; spectral norm: see `SpectralNorm`.
    """
    if choose("normalisation", module.normalisation, NORMALISATIONS) == "weight":
        return _weight_normalised(module, product, shape, x)
    kernel = module.param("kernel", module.kernel_init, shape)
    if module.normalisation == "spectral":
        kernel = SpectralNorm(name="spectral")(kernel, train)
    y = product(x, kernel)
    return y + module.param("bias", nn.initializers.zeros, shape[-1:]) if module.use_bias else y


def _weight_normalised(module: nn.Module, product: Callable, shape: tuple[int, ...], x: Array) -> Array:
    direction = module.param("direction", nn.initializers.normal(0.05), shape)  # Salimans and Kingma 2016, sec. 3
    y = product(x, direction / jnp.linalg.norm(direction.reshape(-1, shape[-1]), axis=0))
    axes = tuple(range(y.ndim - 1))

    def first_scale() -> Array:
        return 1 / jnp.sqrt(y.var(axes) + 1e-8)

    def first_bias() -> Array:
        return -y.mean(axes) * first_scale()

    if module.train_scale:
        scale = module.param("scale", lambda _: first_scale())
    else:
        scale = module.variable("constants", "scale", first_scale).value
    return y * scale + module.param("bias", lambda _: first_bias()) if module.use_bias else y * scale


class Dense(nn.Module):
    """x (..., C) -> (..., features), its weights normalised as in `linear`."""

    features: int
    normalisation: str = "none"
    use_bias: bool = True
    train_scale: bool = True
    kernel_init: Callable = HE_NORMAL

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        return linear(self, matmul, (x.shape[-1], self.features), x, train)


class ConditionalBatchNorm(nn.Module):
    """x (B, ..., C), labels (B,), soft (B, K) or None -> batch norm with the scale and bias of each image's class.

    Without labels it is batch norm. Source: Dumoulin et al. 2017, arXiv:1610.07629, eq. 5; in generators Miyato and
    Koyama 2018, arXiv:1802.05637.
    """

    classes: int
    momentum: float = 0.9  # ours: settles within a hundred steps, where linen's 0.99 takes a thousand
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, labels: Array | None, train: bool) -> Array:
        given = labels is not None
        x = nn.BatchNorm(
            not train, momentum=self.momentum, epsilon=self.epsilon, use_bias=not given, use_scale=not given
        )(x)
        if labels is None:
            return x
        weights, shape = soft(labels, self.classes), (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])
        scale = self.param("scale", nn.initializers.ones, (self.classes, x.shape[-1]))
        bias = self.param("bias", nn.initializers.zeros, (self.classes, x.shape[-1]))
        return x * (weights @ scale).reshape(shape) + (weights @ bias).reshape(shape)
