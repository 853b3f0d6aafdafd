"""The network of airbench: 94 % of CIFAR-10 in 0.36 PFLOP of training, a two-thousandth of WRN-28-2's under FixMatch.

Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498, sec. 3 and code (airbench94.py).

Here the whitening sees the images that `init` is given (the paper: 5,000 of the training set), centred by the mean
patch (the paper: by the mean colour), and its bias is trained as long as the optimiser trains it: `airbench` of
`core.schedules` stops where the paper does. Sides below the paper's 32 pixels are pooled until one pixel is left.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_gen.networks.convolution import convolve, max_pool
from ssl_gen.networks.layers import Dense, rematerialised
from ssl_gen.types import Array, Key

WIDTHS = (1, 4, 4)  # times `width`, of the three blocks; airbench94: 64, 256, 256
PATCH = 2  # pixels, side of a whitened patch
EPSILON = 5e-4  # of the mean variance, beside each of the patches'; code, where images have variance 1
MOMENTUM = 0.6  # of batch statistics; code
SCALE = 1 / 9  # of logits; code
FAN_IN = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's default, which the code starts from


class White(NamedTuple):
    """images * kernel + shift is white."""

    kernel: Array  # (2, 2, C, 8 C)
    shift: Array  # (8 C,)


def whitening(images: Array) -> White:
    """What whitens 2 x 2 patches of images (B, H, W, C).

    The first 4 C outputs are the patches' principal components, each with mean 0 and, but for EPSILON, variance 1; the
    others are the same with the other sign. Source: Jordan 2024, sec. 3.2 and code (init_whitening_conv).
    """
    _, height, width, channels = images.shape
    colour = images.mean((0, 1, 2))
    places = [(i, j) for i in range(PATCH) for j in range(PATCH)]
    # The four corners of all patches, and not the patches themselves, which take four times the memory of the images.
    corners = [
        (images - colour)[:, i : height + 1 - PATCH + i, j : width + 1 - PATCH + j].reshape(-1, channels)
        for i, j in places
    ]
    mean = jnp.concatenate([corner.mean(0) for corner in corners])
    moment = jnp.block([[one.T @ other / len(one) for other in corners] for one in corners])
    variances, components = jnp.linalg.eigh(moment - jnp.outer(mean, mean))
    least = EPSILON * variances.mean() + 1e-8  # ours, the second: images that are all alike stay finite
    components = components[:, ::-1] / jnp.sqrt(jnp.maximum(variances, 0.0)[::-1] + least)
    shift = -(mean + jnp.tile(colour, len(places))) @ components
    kernel = jnp.concatenate([components, -components], 1).reshape(PATCH, PATCH, channels, -1)
    return White(kernel, jnp.concatenate([shift, -shift]))


class Whitening(nn.Module):
    """images (B, H, W, C) -> (B, H - 1, W - 1, 8 C): `whitening` of the images of `init` (`constants`), and a bias."""

    body: str | None = None

    @nn.compact
    def __call__(self, images: Array) -> Array:
        white = self.variable("constants", "white", whitening, images)  # called in `init` alone
        kernel, shift = (each.astype(images.dtype) for each in white.value)
        bias = self.param("bias", nn.initializers.zeros, shift.shape)
        return convolve(images, kernel, 1, "VALID", self.body) + (shift + bias)


def dirac(key: Key, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """A kernel (k, k, C, F) that keeps its input in the first C of its outputs; the others start as in PyTorch.

    Source: Jordan 2024, sec. 3.3.
    """
    size, _, channels, features = shape
    kept = min(channels, features)
    identity = jnp.zeros((size, size, channels, kept), dtype)
    identity = identity.at[size // 2, size // 2, jnp.arange(kept), jnp.arange(kept)].set(1)
    return jnp.concatenate([identity, FAN_IN(key, shape, dtype)[..., kept:]], -1)


class Block(nn.Module):
    """x (B, H, W, C) -> (B, floor(H / 2), floor(W / 2), features), sides of one pixel as they are."""

    features: int
    body: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        def activated(x: Array) -> Array:
            norm = nn.BatchNorm(not train, momentum=MOMENTUM, epsilon=1e-12, use_scale=False)  # code
            return jax.nn.gelu(norm(x), approximate=False)

        def convolved(name: str, x: Array) -> Array:
            kernel = self.param(name, dirac, (3, 3, x.shape[-1], self.features))
            return convolve(x, kernel, 1, "SAME", self.body)

        height, width = (side - side % 2 or side for side in x.shape[1:3])
        x = activated(max_pool(convolved("first", x)[:, :height, :width]))
        return activated(convolved("second", x))


class Airbench(nn.Module):
    """images (B, H, W, C) in [-1, 1] -> logits (B, K); the input of the last layer (B, 4 width) is sown as `features`.

    Stream: `dropout`.
    """

    classes: int
    width: int = 64  # channels of the first block
    dropout: float = 0.0  # before the last layer; ours; the paper has none
    body: str | None = None

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        x = jax.nn.gelu(Whitening(self.body)(images), approximate=False)
        for times in WIDTHS:
            x = rematerialised(Block(times * self.width, self.body), x, train=train)
        x = x.max((1, 2))
        self.sow("intermediates", "features", x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return SCALE * Dense(self.classes, use_bias=False, kernel_init=FAN_IN)(x)
