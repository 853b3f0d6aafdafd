"""The networks of R3GAN: residual blocks without normalisation, bilinear resampling, one number a channel at the ends.

Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern GAN Baseline", arXiv:2501.05441, sec. 4, and code. The
last layer of every block starts at 0 and the others the smaller, the more blocks there are (Zhang et al. 2019, "Fixup",
arXiv:1901.09321), so that a network starts linear. Images have any size from 8 x 8; sides halve, rounded up, until the
shorter is below 8. Ours: 3 x 3 convolutions are plain and as wide as the rest, where the paper's have groups of 16 and
twice the channels, for which XLA has nothing fast on a CPU. The dense twins see an image as one vector: no stages.

The doors are those of `conv`: images (B, H, W, C) in [-1, 1], but labels (B,) may be negative, for none. `body` is that
of all convolutions, see `convolution.convolve`.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_gen.networks.conv import halvings
from ssl_gen.networks.convolution import Convolution
from ssl_gen.networks.layers import Dense, rematerialised, soft
from ssl_gen.types import Array

SLOPE = 0.2  # of leaky ReLUs; code
GAIN = 2 / (1 + SLOPE**2)  # of variance, what a leaky ReLU takes; He et al. 2015, arXiv:1502.01852, eq. 14


def sides_of(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Height and width of the maps of each stage, from the image (H, W, ...) inwards; UserError below 8 pixels."""
    height, width = shape[:2]
    return [(-(-height // 2**stage), -(-width // 2**stage)) for stage in range(halvings((height, width)) + 1)]


def linear(features: int, variance: float = 1.0, use_bias: bool = False) -> nn.Module:
    """A product over the last axis, 1 x 1 convolutions included; outputs start with `variance` times the inputs'."""
    start = nn.initializers.variance_scaling(variance, "fan_in", "normal") if variance else nn.initializers.zeros
    return Dense(features, use_bias, kernel_init=start)


def resampled(x: Array, sides: tuple[int, int]) -> Array:
    """x (B, H, W, C) -> (B, *sides, C), bilinear, without aliasing where it shrinks."""
    return jax.image.resize(x, (x.shape[0], *sides, x.shape[-1]), "bilinear")


class Residual(nn.Module):
    """x (B, F), or maps (B, H, W, F) -> the same: three layers, two leaky ReLUs between them, are added to x.

    Of maps the one in the middle is a 3 x 3 convolution.
    """

    blocks: int  # of the whole network
    body: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        width = x.shape[-1]
        small = GAIN * self.blocks**-0.5  # deviation L^(-1 / (2 m - 2)) with m = 3; Zhang et al., sec. 3
        y = nn.leaky_relu(linear(width, small, use_bias=True)(x), SLOPE)
        if x.ndim == 2:
            y = linear(width, small, use_bias=True)(y)
        else:
            start = nn.initializers.variance_scaling(small, "fan_in", "normal")
            y = Convolution(width, 3, kernel_init=start, body=self.body)(y, train)
        return x + linear(width, 0.0)(nn.leaky_relu(y, SLOPE))


class Numbers(nn.Module):
    """latents (B, Z), labels (B,) -> (B, width): linear in the latents and in an embedding of the class, as wide."""

    classes: int
    width: int

    @nn.compact
    def __call__(self, latents: Array, labels: Array) -> Array:
        embedded = linear(latents.shape[-1])(soft(labels, self.classes))
        return linear(self.width)(jnp.concatenate([latents, embedded], -1))


class Score(nn.Module):
    """features (B, F), labels (B,) -> logits (B, 1): psi(f) + y^T V f, psi(f) alone where there is no class.

    Of the two the paper has one, by whether there are labels. Neither has a bias: differences count.
    """

    classes: int

    @nn.compact
    def __call__(self, features: Array, labels: Array) -> Array:
        of_class = linear(self.classes, 1 / self.classes)(features)
        return linear(1)(features) + (soft(labels, self.classes) * of_class).sum(-1, keepdims=True)


class Generator(nn.Module):
    """latents (B, Z), labels (B,) -> images (B, H, W, C), which no function holds to [-1, 1].

    The first maps are learnt, each times a number of the latents and the class.
    """

    shape: tuple[int, int, int]
    classes: int
    width: int = 64  # channels of every stage
    blocks: int = 2  # a stage
    body: str | None = None

    @nn.compact
    def __call__(self, latents: Array, labels: Array, train: bool) -> Array:
        sides = sides_of(self.shape)[::-1]
        maps = self.param("maps", nn.initializers.normal(1.0), (*sides[0], self.width))
        x = Numbers(self.classes, self.width)(latents, labels)[:, None, None] * maps
        for stage, each in enumerate(sides):
            x = resampled(x, each) if stage else x
            for _ in range(self.blocks):
                x = rematerialised(Residual(self.blocks * len(sides), self.body), x, train=train)
        return linear(self.shape[2])(x)


class Discriminator(nn.Module):
    """images (B, H, W, C), labels (B,) -> logits (B, 1), each image on its own.

    A feature is the sum of a channel of the last maps, weighted by pixel. UserError for images below 8 pixels.
    """

    classes: int
    width: int = 64
    blocks: int = 2
    body: str | None = None

    @nn.compact
    def __call__(self, images: Array, labels: Array, train: bool) -> Array:
        sides, x = sides_of(images.shape[1:3]), linear(self.width)(images)
        for stage, each in enumerate(sides):
            x = resampled(x, each) if stage else x
            for _ in range(self.blocks):
                x = rematerialised(Residual(self.blocks * len(sides), self.body), x, train=train)
        maps = self.param("maps", nn.initializers.normal(math.prod(sides[-1]) ** -0.5), (*sides[-1], self.width))
        return Score(self.classes)((x * maps).sum((1, 2)), labels)


class DenseGenerator(nn.Module):
    """latents (B, Z), labels (B,) -> images (B, H, W, C), which no function holds to [-1, 1]. Ours."""

    shape: tuple[int, int, int]
    classes: int
    width: int = 256  # units of every layer
    blocks: int = 2

    @nn.compact
    def __call__(self, latents: Array, labels: Array, train: bool) -> Array:
        x = Numbers(self.classes, self.width)(latents, labels)
        for _ in range(self.blocks):
            x = rematerialised(Residual(self.blocks), x, train=train)
        return linear(math.prod(self.shape))(x).reshape(-1, *self.shape)


class DenseDiscriminator(nn.Module):
    """images (B, H, W, C), labels (B,) -> logits (B, 1). Ours."""

    classes: int
    width: int = 256
    blocks: int = 2

    @nn.compact
    def __call__(self, images: Array, labels: Array, train: bool) -> Array:
        x = linear(self.width)(images.reshape(images.shape[0], -1))
        for _ in range(self.blocks):
            x = rematerialised(Residual(self.blocks), x, train=train)
        return Score(self.classes)(x, labels)
