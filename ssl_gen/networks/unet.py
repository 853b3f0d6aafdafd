"""U-Net for diffusion and flows: an image, how noisy it is and its class in, an image of the same sides out.

Ronneberger et al. 2015, arXiv:1505.04597; its form for diffusion: Ho et al. 2020, arXiv:2006.11239, app. B, with the
changes of Dhariwal and Nichol 2021, arXiv:2105.05233, sec. 3 (residual blocks whose norm is scaled and shifted by time
and class). Small: a block a level, attention where it is asked for and nowhere else.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_gen.core.precision import matmul
from ssl_gen.networks.convolution import Convolution
from ssl_gen.networks.layers import Dense, rematerialised
from ssl_gen.types import Array, ImageSpec, UserError

SMALLEST = 8  # pixels of a side
HIGHEST = 1_000.0  # radians a unit of the noise level, of the last frequency; ours: Vaswani et al. 2017 for levels to 1
GROUP = 4  # channels a group of a norm at least, and at most 32 groups; Karras et al. 2022, arXiv:2206.00364, code


def frequencies(levels: Array, width: int, highest: float = HIGHEST) -> Array:
    """Noise levels (B,) -> (B, width): cosines and sines of frequencies from 1 to `highest`, evenly in their log.

    Of several levels an image, (B, n), they stand one after the other, (B, n width).
    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.5.
    """
    angles = levels[..., None] * highest ** jnp.linspace(0, 1, width // 2)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1).reshape(levels.shape[0], -1)


def normalised(x: Array, affine: bool = True) -> Array:
    """Group norm of x (B, H, W, C); without `affine`, for FiLM to scale and shift."""
    channels = x.shape[-1]
    groups = next(n for n in range(max(1, min(32, channels // GROUP)), 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, use_bias=affine, use_scale=affine)(x)


def folded(x: Array) -> Array:
    """x (B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 4 C): the pixels of every 2 x 2 beside each other."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    x = x.reshape(batch, -(-height // 2), 2, -(-width // 2), 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(*x.shape[:3], 4 * channels)


def unfolded(x: Array, height: int, width: int) -> Array:
    """Undo `folded`: x (B, h, w, 4 C) -> (B, height, width, C)."""
    batch, rows, columns, channels = x.shape
    x = x.reshape(batch, rows, columns, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, 2 * rows, 2 * columns, channels // 4)[:, :height, :width]


def doubled(x: Array, height: int, width: int) -> Array:
    """x (B, h, w, C) -> (B, height, width, C): every pixel 2 x 2 times, cut to size."""
    batch, rows, columns, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, rows, 2, columns, 2, channels))
    return x.reshape(batch, 2 * rows, 2 * columns, channels)[:, :height, :width]


class Block(nn.Module):
    """x (B, H, W, C), condition (B, E) -> (B, H, W, features): two 3 x 3 convolutions are added to x.

    The second norm is scaled and shifted by the condition (FiLM; Perez et al. 2018, arXiv:1709.07871); the second
    convolution starts at 0, so that a block starts as its short cut.
    """

    features: int
    dropout: float
    body: str | None

    @nn.compact
    def __call__(self, x: Array, condition: Array, train: bool) -> Array:
        y = Convolution(self.features, body=self.body)(nn.silu(normalised(x)), train)
        scale, shift = jnp.split(Dense(2 * self.features)(condition)[:, None, None], 2, -1)
        y = nn.silu(normalised(y, affine=False) * (1 + scale) + shift)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        y = Convolution(self.features, kernel_init=nn.initializers.zeros, body=self.body)(y, train)
        return y + (x if x.shape == y.shape else Convolution(self.features, 1, body=self.body)(x, train))


class Attention(nn.Module):
    """x (B, H, W, C) -> the same, every pixel looking at all others: one head, its output starts at 0 and is added."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        pixels = normalised(x).reshape(batch, height * width, channels)
        query, key, value = jnp.split(Dense(3 * channels)(pixels), 3, -1)
        weights = jax.nn.softmax(matmul(query, key.swapaxes(1, 2)) / jnp.sqrt(channels), -1)
        y = Dense(channels, kernel_init=nn.initializers.zeros)(matmul(weights, value))
        return x + y.reshape(x.shape)


class UNet(nn.Module):
    """images (B, H, W, C), noise levels (B,) or (B, n), labels (B,) int32 of 0..K, K for no class -> (B, H, W, C).

    Sides halve from one entry of `widths` to the next, rounded up, so any from 8 to 128 pixels do. The output starts
    at 0. Stream: `dropout`. `body` is that of all convolutions, see `convolution.convolve`. Raises UserError for
    smaller images.
    """

    classes: int  # K
    widths: tuple[int, ...] = (32, 64)  # channels a level, from the image inwards
    blocks: int = 1  # residual blocks a level, on the way down and on the way up
    attention: tuple[int, ...] = ()  # levels, from 0, whose blocks are followed by attention
    fold: bool = False  # begin with 2 x 2 pixels beside each other, at a quarter of the cost
    dropout: float = 0.0  # of hidden units
    body: str | None = None
    highest: float = HIGHEST  # radians a unit of the noise level, of the last frequency

    @nn.compact
    def __call__(self, images: Array, levels: Array, labels: Array, train: bool) -> Array:
        height, width, channels = images.shape[1:]
        if min(height, width) < SMALLEST:
            raise UserError(f"images of {height} x {width} pixels are too small for a U-Net: resize to 8 x 8 or more")
        embedded = 4 * self.widths[0]  # Ho et al. 2020, code
        condition = Dense(embedded)(frequencies(levels, embedded, self.highest))
        condition = nn.silu(condition + nn.Embed(self.classes + 1, embedded)(labels))
        condition = nn.silu(Dense(embedded)(condition))

        def block(x: Array, level: int) -> Array:
            x = rematerialised(Block(self.widths[level], self.dropout, self.body), x, condition, train=train)
            return rematerialised(Attention(), x) if level in self.attention else x

        x = Convolution(self.widths[0], body=self.body)(folded(images) if self.fold else images, train)
        kept = []
        for level, features in enumerate(self.widths):
            x = Convolution(features, stride=2, body=self.body)(x, train) if level else x
            for _ in range(self.blocks):
                x = block(x, level)
            kept.append(x)
        for _ in range(self.blocks):
            x = block(x, len(self.widths) - 1)
        for level in range(len(self.widths) - 2, -1, -1):
            x = jnp.concatenate([doubled(x, *kept[level].shape[1:3]), kept[level]], -1)
            for _ in range(self.blocks):
                x = block(x, level)
        outputs = 4 * channels if self.fold else channels
        x = Convolution(outputs, kernel_init=nn.initializers.zeros, body=self.body)(nn.silu(normalised(x)), train)
        return unfolded(x, height, width) if self.fold else x


def unet(config: Any, spec: ImageSpec, body: str | None = None, highest: float = HIGHEST) -> UNet:
    """The U-Net of a config with `widths`, `blocks`, `attention`, `fold` and `dropout`.

    Raises UserError without widths, and for attention at a level that there is not.
    """
    if not config.widths:
        raise UserError("widths is empty: give the channels of one level or more")
    if any(level >= len(config.widths) for level in config.attention):
        raise UserError(f"attention {config.attention}: levels are 0 to {len(config.widths) - 1}, one for each width")
    sizes = config.widths, config.blocks, config.attention, config.fold, config.dropout
    return UNet(spec.classes, *sizes, body, highest)
