"""Convolutional networks for images of any size from 8 x 8: every stage halves or doubles the sides.

The doors are those of `mlp`: images (B, H, W, C) in [-1, 1], labels (B,), soft (B, K) or None. Without labels a network
is unconditional, whatever its `conditioning`. Streams: `noise`, `dropout`; collections: `batch_stats`, `constants`.
`body` is that of all convolutions, see `convolution.convolve`; None is the platform's own.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp

from ssl_gen.core.options import choose
from ssl_gen.networks import layers
from ssl_gen.networks.convolution import Convolution, TransposedConvolution, max_pool
from ssl_gen.networks.layers import GaussianNoise, beside
from ssl_gen.networks.normalisation import ConditionalBatchNorm, Dense
from ssl_gen.networks.projection import Projection
from ssl_gen.types import Array, UserError

SLOPE = 0.2  # of leaky ReLUs in encoders and discriminators; Radford et al. 2016, arXiv:1511.06434, sec. 4
SIZE = 4  # pixels, kernels of strided layers: a multiple of the stride; Miyato et al. 2018, arXiv:1802.05957, table 3
WIDEST = 8  # times `width`: channels double at each stage up to here; Radford et al. 2016, fig. 1


def halvings(sides: tuple[int, ...]) -> int:
    """How often the shorter side (pixels) halves before it falls below 4; raises UserError below 8 pixels."""
    if min(sides) < 8:
        raise UserError(
            f"images of {sides[0]} x {sides[1]} pixels are too small for convolutions: resize to 8 x 8 or more"
        )
    return int(math.log2(min(sides) / 4))


def widths(width: int, sides: tuple[int, ...]) -> list[int]:
    """Channels of each strided stage, from the image inwards; at least two, or 8 x 8 images would get a single one."""
    return [width * min(2**stage, WIDEST) for stage in range(max(2, halvings(sides)))]


class Decoder(nn.Module):
    """latents (B, Z), labels -> pixel logits (B, H, W, C): transposed convolutions, batch norm, ReLU.

    conditioning: 'concatenate' (label maps beside the input of every layer) or 'conditional_batch_norm', with the label
    beside the latents too: of so few layers, batch norm alone can scale maps but move no stroke. UserError on others.
    With n stages the first maps have sides ceil(H / 2^n), ceil(W / 2^n); the last are cropped to H x W.
    Source: Radford et al. 2016, arXiv:1511.06434; conditional batch norm: Miyato and Koyama 2018, arXiv:1802.05637.
    """

    shape: tuple[int, int, int]
    classes: int
    width: int = 64
    conditioning: str = "concatenate"
    body: str | None = None

    @nn.compact
    def __call__(self, latents: Array, labels: Array | None, train: bool) -> Array:
        concatenate = (
            choose("conditioning", self.conditioning, ("concatenate", "conditional_batch_norm")) == "concatenate"
        )
        maps, classwise = (labels, None) if concatenate else (None, labels)
        height, width, channels = self.shape
        first, *inner = reversed(widths(self.width, (height, width)))
        scale = 2 ** (len(inner) + 1)
        sides = (-(-height // scale), -(-width // scale))
        x = layers.Dense(math.prod(sides) * first, use_bias=False)(beside(latents, labels, self.classes))
        x = x.reshape(-1, *sides, first)
        for stage in inner:
            x = nn.relu(ConditionalBatchNorm(self.classes)(x, classwise, train))
            x = TransposedConvolution(stage, SIZE, use_bias=False, body=self.body)(beside(x, maps, self.classes), train)
        x = nn.relu(ConditionalBatchNorm(self.classes)(x, classwise, train))
        x = TransposedConvolution(channels, SIZE, body=self.body)(beside(x, maps, self.classes), train)
        return x[:, :height, :width]


class Generator(nn.Module):
    """latents (B, Z), labels -> images (B, H, W, C): tanh of a `Decoder`, with its options and errors.

    Source: Radford et al. 2016, arXiv:1511.06434.
    """

    shape: tuple[int, int, int]
    classes: int
    width: int = 64
    conditioning: str = "concatenate"
    body: str | None = None

    @nn.compact
    def __call__(self, latents: Array, labels: Array | None, train: bool) -> Array:
        return jnp.tanh(
            Decoder(self.shape, self.classes, self.width, self.conditioning, self.body)(latents, labels, train)
        )


class Discriminator(nn.Module):
    """images, labels -> logits (B, outputs), features (B, F): strided convolutions, leaky ReLU, no batch norm.

    normalisation of all weights: 'none', 'spectral' or 'weight' (hidden scales fixed, as in `mlp`). conditioning:
    'concatenate' (label maps at every layer) or 'projection': y^T V f is added to the one logit; UserError on others.
    The features are the last maps with all their pixels: after two stages one of them sees but 10 pixels across, and
    their mean would know nothing of the whole image.
    Source: Radford et al. 2016, arXiv:1511.06434; projection: Miyato and Koyama 2018, arXiv:1802.05637, eq. 5.
    """

    outputs: int
    classes: int
    width: int = 64
    conditioning: str = "concatenate"
    normalisation: str = "none"
    input_noise: float = 0.0  # deviation, pixels in [0, 1], as in `mlp`
    dropout: float = 0.0  # after every stage
    use_bias: bool = True  # of the logits; False where only their differences count
    body: str | None = None

    @nn.compact
    def __call__(self, images: Array, labels: Array | None, train: bool) -> tuple[Array, Array]:
        concatenate = choose("conditioning", self.conditioning, ("concatenate", "projection")) == "concatenate"
        maps = labels if concatenate else None
        x = GaussianNoise(2 * self.input_noise)(images, train)  # of pixels in [-1, 1]
        for stage in widths(self.width, images.shape[1:3]):
            x = beside(x, maps, self.classes)
            x = Convolution(stage, SIZE, 2, normalisation=self.normalisation, train_scale=False, body=self.body)(
                x, train
            )
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.leaky_relu(x, SLOPE))
        features = x.reshape(x.shape[0], -1)
        logits = Dense(self.outputs, self.normalisation, self.use_bias)(beside(features, maps, self.classes), train)
        if labels is not None and not concatenate:
            logits += Projection(self.outputs, self.classes, self.normalisation)(features, labels, train)
        return logits, features


class Classifier(nn.Module):
    """images -> logits (B, K): 5 x 5 and 3 x 3 convolutions, batch norm, leaky ReLU, max pooling, a dense layer.

    With 28 x 28 images: 5x5/2 width, 3x3 2 width and pool, 3x3 2 width, 128. Larger images get more pooled stages;
    those that halve only once are pooled, not strided. The input of the last layer (B, hidden) is sown as `features`.
    Ours: small enough to train in minutes on a CPU.
    """

    classes: int
    width: int = 32
    hidden: int = 128
    dropout: float = 0.0  # before the last layer
    body: str | None = None

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        def rectified(x: Array) -> Array:
            return nn.leaky_relu(nn.BatchNorm(not train, momentum=0.9)(x), 0.1)  # slope: Sohn et al. 2020, code

        halved = halvings(images.shape[1:3])
        strided = halved > 1
        x = rectified(Convolution(self.width, 5, 2 if strided else 1, use_bias=False, body=self.body)(images, train))
        for _ in range(halved - strided):
            x = max_pool(rectified(Convolution(2 * self.width, use_bias=False, body=self.body)(x, train)))
        x = rectified(Convolution(2 * self.width, use_bias=False, body=self.body)(x, train))
        x = rectified(layers.Dense(self.hidden, use_bias=False)(x.reshape(x.shape[0], -1)))
        self.sow("intermediates", "features", x)
        return layers.Dense(self.classes)(nn.Dropout(self.dropout, deterministic=not train)(x))


class Encoder(nn.Module):
    """images, labels -> (B, outputs): strided convolutions, batch norm, leaky ReLU; label maps at every layer.

    Source: the discriminator of Radford et al. 2016, arXiv:1511.06434.
    """

    outputs: int
    classes: int
    width: int = 64
    body: str | None = None

    @nn.compact
    def __call__(self, images: Array, labels: Array | None, train: bool) -> Array:
        x = images
        for stage in widths(self.width, images.shape[1:3]):
            x = Convolution(stage, SIZE, 2, use_bias=False, body=self.body)(beside(x, labels, self.classes), train)
            x = nn.leaky_relu(nn.BatchNorm(not train, momentum=0.9)(x), SLOPE)
        return layers.Dense(self.outputs)(beside(x.reshape(x.shape[0], -1), labels, self.classes))
