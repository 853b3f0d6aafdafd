"""Autoencoders: an encoder and a decoder; variational ones have q(z | x, y), p(x | z, y) and a classifier q(y | x)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ssl_gen.losses.likelihood import reparametrised
from ssl_gen.networks import conv, mlp
from ssl_gen.networks.layers import soft
from ssl_gen.types import Array, ImageSpec


class Autoencoder(nn.Module):
    """x, labels (B,) or None, noise (B, Z) -> the decoder's outputs for z, mean and log variance of q(z | x, y) (B, Z).

    z = mean + exp(log_variance / 2) noise. The encoder has 2 Z outputs. Source: Kingma and Welling 2014,
    arXiv:1312.6114, sec. 2.4; with labels: Kingma et al. 2014, arXiv:1406.5298, sec. 2.
    """

    encoder: nn.Module
    decoder: nn.Module
    classifier: nn.Module | None = None

    def __call__(self, x: Array, labels: Array | None, noise: Array, train: bool) -> tuple[Array, Array, Array]:
        mean, log_variance = self.encode(x, labels, train)
        return self.decode(reparametrised(mean, log_variance, noise), labels, train), mean, log_variance

    def encode(self, x: Array, labels: Array | None, train: bool) -> tuple[Array, Array]:
        """-> mean and log variance of q(z | x, y), (B, Z) each."""
        return _moments(self.encoder(x, labels, train))

    def decode(self, latents: Array, labels: Array | None, train: bool) -> Array:
        """latents (B, Z) -> what p(x | z, y) is made of."""
        return self.decoder(latents, labels, train)

    def classify(self, x: Array, train: bool) -> Array:
        """-> logits of q(y | x) (B, K)."""
        assert self.classifier is not None, "made without a classifier"
        return self.classifier(x, train=train)

    def initialise(self, x: Array, labels: Array, noise: Array, train: bool) -> tuple[Array, Array, Array, Array]:
        """All that `__call__` and `classify` return: for `init`, which makes the params that are used."""
        return *self(x, labels, noise, train), self.classify(x, train)


class AuxiliaryAutoencoder(nn.Module):
    """A second latent a beside z: q(a | x), q(y | a, x), q(z | a, x, y), p(a | z, y) and p(x | a, z, y), all dense.

    With `skip` False p(a | z, y, x) and p(x | z, y), so that a, integrated out, leaves p(x | z, y) as it is.
    a (B, A), z (B, Z), labels (B,). What makes moments starts near N(0, 1), all else as `NormalisedPerceptron`.
    Source: Maaløe et al. 2016, arXiv:1602.05473, sec. 2; the start: their code.
    """

    shape: tuple[int, int, int]  # H, W, outputs of a pixel
    classes: int
    auxiliary: int  # A
    latent: int  # Z
    hidden: tuple[int, ...]
    skip: bool

    def setup(self) -> None:
        near = nn.initializers.normal(1e-3)
        self.auxiliary_encoder = mlp.NormalisedPerceptron(2 * self.auxiliary, self.hidden, near)
        self.classifier = mlp.NormalisedPerceptron(self.classes, self.hidden)
        self.encoder = mlp.NormalisedPerceptron(2 * self.latent, self.hidden, near)
        self.auxiliary_decoder = mlp.NormalisedPerceptron(2 * self.auxiliary, self.hidden, near)
        self.decoder = mlp.NormalisedPerceptron(math.prod(self.shape), self.hidden)

    def __call__(
        self, x: Array, a: Array, labels: Array, noise: Array, train: bool
    ) -> tuple[Array, tuple[Array, Array], tuple[Array, Array]]:
        """-> the outputs for the z of `noise` (B, Z); mean and log variance of p(a | z, y), and of q(z | a, x, y)."""
        posterior = self.encode(x, a, labels, train)
        z = reparametrised(*posterior, noise)
        return self.decode(z, labels, a, train), self.decode_auxiliary(z, labels, x, train), posterior

    def encode_auxiliary(self, x: Array, train: bool) -> tuple[Array, Array]:
        """-> mean and log variance of q(a | x), (B, A) each."""
        return _moments(self.auxiliary_encoder(mlp.flatten(x), train=train))

    def classify(self, x: Array, a: Array, train: bool) -> Array:
        """-> logits of q(y | a, x) (B, K)."""
        return self.classifier(mlp.flatten(x), a, train=train)

    def encode(self, x: Array, a: Array, labels: Array, train: bool) -> tuple[Array, Array]:
        """-> mean and log variance of q(z | a, x, y), (B, Z) each."""
        return _moments(self.encoder(mlp.flatten(x), a, soft(labels, self.classes), train=train))

    def decode_auxiliary(self, z: Array, labels: Array, x: Array | None, train: bool) -> tuple[Array, Array]:
        """-> mean and log variance of p(a | z, y), or p(a | z, y, x), (B, A) each; with `skip` x is not looked at."""
        if self.skip:
            return _moments(self.auxiliary_decoder(z, soft(labels, self.classes), train=train))
        assert x is not None, "p(a | z, y, x) looks at x"
        return _moments(self.auxiliary_decoder(z, soft(labels, self.classes), mlp.flatten(x), train=train))

    def decode(self, z: Array, labels: Array, a: Array | None, train: bool) -> Array:
        """-> what p(x | a, z, y), or p(x | z, y), is made of; without `skip` a is not looked at."""
        seen = (z, soft(labels, self.classes), a) if self.skip else (z, soft(labels, self.classes))
        return self.decoder(*seen, train=train).reshape(-1, *self.shape)

    def initialise(self, x: Array, labels: Array, a: Array, noise: Array, train: bool) -> Any:
        """All of it: for `init`, which makes the params that are used."""
        return self.encode_auxiliary(x, train), self.classify(x, a, train), self(x, a, labels, noise, train)


def _moments(outputs: Array) -> tuple[Array, Array]:
    mean, log_variance = jnp.split(outputs, 2, -1)
    return mean, log_variance


def autoencoder(
    network: str,
    spec: ImageSpec,
    maps: int,
    latent: int,
    hidden: tuple[int, ...],
    width: int,
    activation: Callable[[Array], Array] = nn.softplus,
    classifier: bool = False,
) -> Autoencoder:
    """Dense (`hidden`, `activation`) or convolutional (`width`) networks for images of `spec`.

    maps: the decoder's outputs for each channel of an image; latent: Z.
    """
    encoder, decoder = encoder_and_decoder(network, spec, 2 * latent, maps, hidden, width, activation)
    if not classifier:
        return Autoencoder(encoder, decoder)
    if network == "conv":
        return Autoencoder(encoder, decoder, conv.Classifier(spec.classes, width))
    return Autoencoder(encoder, decoder, mlp.Encoder(spec.classes, spec.classes, hidden, activation))


def encoder_and_decoder(
    network: str,
    spec: ImageSpec,
    outputs: int,
    maps: int,
    hidden: tuple[int, ...],
    width: int,
    activation: Callable[[Array], Array] = nn.softplus,
) -> tuple[nn.Module, nn.Module]:
    """images -> (B, outputs) and latents of any width -> (B, H, W, maps C); see `autoencoder` for the options."""
    shape = (spec.height, spec.width, maps * spec.channels)
    if network == "conv":
        return conv.Encoder(outputs, spec.classes, width), conv.Decoder(shape, spec.classes, width)
    return (
        mlp.Encoder(outputs, spec.classes, hidden, activation),
        mlp.Decoder(shape, spec.classes, hidden[::-1], activation),
    )
