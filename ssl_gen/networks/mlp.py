"""Dense networks for images of any size: the permutation-invariant nets of the MNIST papers.

Every network flattens its images and sees pixels in [0, 1], as these papers do; at the doors images stay (B, H, W, C)
in [-1, 1]. Labels condition by concatenation of their one-hot vectors, at every layer (Triple-GAN) where given.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from ssl_gen.core.options import choose
from ssl_gen.networks.layers import Dense, GaussianNoise, WeightNormDense, beside
from ssl_gen.networks.projection import Projection
from ssl_gen.types import Array


def flatten(images: Array) -> Array:
    """images (B, H, W, C) in [-1, 1] -> pixels (B, H W C) in [0, 1]."""
    return (images.reshape(images.shape[0], -1) + 1) / 2


def unflatten(pixels: Array, shape: tuple[int, int, int]) -> Array:
    """pixels (B, H W C) in [0, 1] -> images (B, H, W, C) in [-1, 1]."""
    return pixels.reshape(-1, *shape) * 2 - 1


class Generator(nn.Module):
    """latents (B, Z), labels (B,) or None -> images (B, H, W, C): softplus layers with batch norm, sigmoid output.

    The output layer has weight norm without data-dependent initialisation, as in the official script: with it,
    feature matching at the script's learning rate loses to its discriminator within 300 steps. `data_dependent` True
    has it all the same.

    Source: Salimans et al. 2016, arXiv:1606.03498, MNIST code; with labels: Li et al. 2017, arXiv:1703.02291.
    """

    shape: tuple[int, int, int]
    classes: int
    hidden: tuple[int, ...] = (500, 500)
    data_dependent: bool = False

    @nn.compact
    def __call__(self, latents: Array, labels: Array | None, train: bool) -> Array:
        x = latents
        for width in self.hidden:
            x = Dense(width, use_bias=False)(beside(x, labels, self.classes))
            x = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-6, use_scale=False)(x)
            x = nn.softplus(x)
        if self.data_dependent:
            last = WeightNormDense(math.prod(self.shape))
        else:
            start = nn.initializers.glorot_uniform()
            last = WeightNormDense(math.prod(self.shape), data_dependent=False, kernel_init=start)
        pixels = last(beside(x, labels, self.classes))
        return unflatten(nn.sigmoid(pixels), self.shape)


class Discriminator(nn.Module):
    """images (B, H, W, C), labels (B,) or None -> logits (B, outputs), features (B, F).

    Gaussian noise before every weight-normalised layer; the features are the last hidden layer before its noise.
    conditioning: 'concatenate' (labels beside the input of every layer) or 'projection', see `conv.Discriminator`;
    UserError on others. Source: Salimans et al. 2016, arXiv:1606.03498, MNIST code; with labels: Li et al. 2017,
    arXiv:1703.02291.
    """

    outputs: int
    classes: int
    hidden: tuple[int, ...] = (1000, 500, 250, 250, 250)
    input_noise: float = 0.3  # deviation, pixels in [0, 1]
    noise: float = 0.5
    conditioning: str = "concatenate"
    use_bias: bool = True  # of the logits; False where only their differences count

    @nn.compact
    def __call__(self, images: Array, labels: Array | None, train: bool) -> tuple[Array, Array]:
        concatenate = choose("conditioning", self.conditioning, ("concatenate", "projection")) == "concatenate"
        maps = labels if concatenate else None
        x = flatten(images)
        for layer, width in enumerate(self.hidden):
            x = GaussianNoise(self.noise if layer else self.input_noise)(x, train)
            x = nn.relu(WeightNormDense(width, train_scale=False)(beside(x, maps, self.classes)))
        noisy = GaussianNoise(self.noise)(x, train)
        logits = WeightNormDense(self.outputs, use_bias=self.use_bias)(beside(noisy, maps, self.classes))
        if labels is not None and not concatenate:
            logits += Projection(self.outputs, self.classes, "none")(noisy, labels, train)
        return logits, x


class Classifier(nn.Module):
    """images (B, H, W, C) -> logits (B, K): batch norm, ReLU and dropout (stream `dropout`)."""

    classes: int
    hidden: tuple[int, ...] = (500, 500)
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        x = flatten(images)
        for width in self.hidden:
            x = Dense(width, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Dense(self.classes)(x)


class Perceptron(nn.Module):
    """x (B, F), labels (B,) or None -> (B, outputs); without hidden layers it is linear.

    Source: Kingma et al. 2014, arXiv:1406.5298, sec. 4: softplus layers; Kingma and Welling 2014, app. C: tanh.
    """

    outputs: int
    classes: int
    hidden: tuple[int, ...] = (500, 500)
    activation: Callable[[Array], Array] = nn.softplus

    @nn.compact
    def __call__(self, x: Array, labels: Array | None = None, train: bool = False) -> Array:
        x = beside(x, labels, self.classes)
        for width in self.hidden:
            x = self.activation(Dense(width)(x))
        return Dense(self.outputs)(x)


class NormalisedPerceptron(nn.Module):
    """Any number of inputs (B, F_i) side by side -> (B, outputs): batch norm and ReLU after each hidden layer.

    The first layer has a product for each input, so that one that is mapped over is multiplied alone.
    Source: Maaløe et al. 2016, arXiv:1602.05473, code.
    """

    outputs: int
    hidden: tuple[int, ...] = (500, 500)
    last_init: Callable = nn.initializers.lecun_normal()  # of the last kernel

    @nn.compact
    def __call__(self, *inputs: Array, train: bool) -> Array:
        for width in self.hidden:
            x = functools.reduce(jnp.add, [Dense(width, use_bias=False)(each) for each in inputs])
            inputs = (nn.relu(nn.BatchNorm(not train, momentum=0.9)(x)),)
        last = [Dense(self.outputs, i == 0, kernel_init=self.last_init)(each) for i, each in enumerate(inputs)]
        return functools.reduce(jnp.add, last)


class Encoder(nn.Module):
    """images (B, H, W, C), labels (B,) or None -> (B, outputs): a `Perceptron` of the pixels."""

    outputs: int
    classes: int
    hidden: tuple[int, ...] = (500, 500)
    activation: Callable[[Array], Array] = nn.softplus

    @nn.compact
    def __call__(self, images: Array, labels: Array | None = None, train: bool = False) -> Array:
        perceptron = Perceptron(self.outputs, self.classes, self.hidden, self.activation)
        return perceptron(flatten(images), labels, train)


class Decoder(nn.Module):
    """latents (B, Z), labels (B,) or None -> pixel logits (B, H, W, C): a `Perceptron`."""

    shape: tuple[int, int, int]
    classes: int
    hidden: tuple[int, ...] = (500, 500)
    activation: Callable[[Array], Array] = nn.softplus

    @nn.compact
    def __call__(self, latents: Array, labels: Array | None, train: bool) -> Array:
        perceptron = Perceptron(math.prod(self.shape), self.classes, self.hidden, self.activation)
        return perceptron(latents, labels, train).reshape(-1, *self.shape)
