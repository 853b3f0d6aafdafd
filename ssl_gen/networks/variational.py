"""Autoencoders: an encoder and a decoder; variational ones have q(z | x, y), p(x | z, y) and a classifier q(y | x)."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from ssl_gen.losses.likelihood import reparametrised
from ssl_gen.networks import conv, mlp
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
        mean, log_variance = jnp.split(self.encoder(x, labels, train), 2, -1)
        return mean, log_variance

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
