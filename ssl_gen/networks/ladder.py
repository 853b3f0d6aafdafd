"""Ladder networks: an encoder that is run with noise and without, and a decoder that denoises its layers one by one.

Rasmus et al. 2015, "Semi-Supervised Learning with Ladder Networks", arXiv:1507.02672, sec. 3 and algorithm 1; what the
paper leaves open is as in the official code. Layer 0 is the image, the last one gives the logits.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssl_gen.core.batching import interleave, separate, shard_batch
from ssl_gen.core.options import choose
from ssl_gen.networks.convolution import Convolution, Pads, max_pool
from ssl_gen.networks.layers import Dense
from ssl_gen.networks.mlp import flatten
from ssl_gen.types import Array, Key

EPSILON = 1e-10  # added to variances; official code
RATE = 0.1  # of the running moments, a step; official code: the mean of the last ten or so
GROWING: Pads = ((2, 2), (2, 2))  # padding by which a 3 x 3 convolution makes maps two pixels wider

Layers = list[tuple[Callable, Callable | None]]  # product before the norm, activation; None where it is linear


class Moments(NamedTuple):
    """Of each unit (of maps: of each channel) over a batch."""

    mean: Array  # (F,)
    variance: Array  # (F,)


class Path(NamedTuple):
    """What one pass through the encoder leaves at each layer, from the image up."""

    z: tuple[Array, ...]  # (B, ..., F) each: normalised, and with noise where the pass has any
    moments: tuple[Moments, ...]  # by which it was normalised; 0 and 1 of the image, which stays as it is
    logits: Array  # (B, K)


def moments(x: Array) -> Moments:
    """x (B, ..., F) -> mean and variance over all axes but the last."""
    axes = tuple(range(x.ndim - 1))
    return Moments(x.mean(axes), x.var(axes))


def normalise(x: Array, given: Moments) -> Array:
    """x (B, ..., F) -> (x - mean) / deviation."""
    return (x - given.mean) / jnp.sqrt(given.variance + EPSILON)


def combine(noisy: Array, above: Array, a: Array) -> Array:
    """g(z', u): noisy z' (B, F), the signal u from above (B, F), a (2, 5, F) -> the denoised z (B, F).

    g = (z' - m(u)) v(u) + m(u): best where z is normal, of a mean and a variance that u tells. m is, by the weights
    a[0], a1 s(a2 u + a3) + a4 u + a5 with s the sigmoid; v is the same by a[1]. Source: Rasmus et al. 2015, sec. 3.
    """
    a1, a2, a3, a4, a5 = a.swapaxes(0, 1)[:, :, None]  # (2, 1, F) each
    mean, slope = a1 * nn.sigmoid(a2 * above + a3) + a4 * above + a5
    return (noisy - mean) * slope + mean


def combinator_start(key: Key, shape: tuple[int, int, int]) -> Array:
    """a2 = 1 in m and v, all others 0; official code."""
    return jnp.zeros(shape).at[:, 1].set(1.0)


def draw_noise(key: Key, shapes: Sequence[tuple[int, ...]], deviation: float) -> tuple[Array, ...]:
    """Normal noise of each shape (B, ...), from one draw: a draw a layer would take as long to compile as the layer."""
    sizes = [math.prod(shape[1:]) for shape in shapes]
    drawn = deviation * shard_batch(jax.random.normal(key, (shapes[0][0], sum(sizes))))
    parts = jnp.split(drawn, list(itertools.accumulate(sizes))[:-1], axis=1)
    return tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))


class Encoder(nn.Module):
    """Batches (B, H, W, C) -> a `Path` of each: in every layer product, norm, noise, bias, activation.

    The sizes are multiples of the first. Noise: an array a layer, for all batches interleaved, or None. Each batch is
    normalised by its own moments, unless others are given for all. Networks: 'mlp' (`hidden`, ReLU, pixels in [0, 1])
    or 'conv' (`width`, leaky ReLU); UserError on others. A layer needs no scale before a (leaky) ReLU, the logits have
    one where `scale` says so. Source: Rasmus et al. 2015, algorithm 1; conv: Conv-Large of the official script.
    """

    classes: int
    network: str = "mlp"
    hidden: tuple[int, ...] = (1000, 500, 250, 250, 250)
    width: int = 96
    scale: bool = True

    @nn.compact
    def __call__(
        self,
        batches: tuple[Array, ...],
        noise: tuple[Array, ...] | None = None,
        given: tuple[Moments, ...] | None = None,
    ) -> tuple[Path, ...]:
        is_mlp = choose("network", self.network, ("mlp", "conv")) == "mlp"
        images, sizes = interleave(*batches), tuple(batch.shape[0] for batch in batches)
        layers = self._dense() if is_mlp else self._convolutional(min(images.shape[1:3]))
        x = flatten(images) if is_mlp else images
        x = x + noise[0] if noise else x
        z, used = [separate(x, sizes)], [(Moments(jnp.zeros(()), jnp.ones(())),) * len(sizes)]
        for layer, (product, activation) in enumerate(layers, 1):
            parts = separate(product(x), sizes)
            used.append((given[layer],) * len(sizes) if given else tuple(moments(part) for part in parts))
            x = interleave(*(normalise(*pair) for pair in zip(parts, used[-1], strict=True)))
            x = x + noise[layer] if noise else x
            z.append(separate(x, sizes))
            is_last = layer == len(layers)
            if activation or is_last:
                x = x + self.param(f"bias_{layer}", nn.initializers.zeros, x.shape[-1:])
            if activation:
                x = activation(x)
            if is_last and self.scale:
                x = x * self.param("scale", nn.initializers.ones, x.shape[-1:])
        return tuple(map(Path, zip(*z, strict=True), zip(*used, strict=True), separate(x, sizes)))

    def _dense(self) -> Layers:
        hidden = [(Dense(width, use_bias=False), nn.relu) for width in self.hidden]
        return [*hidden, (Dense(self.classes, use_bias=False), None)]

    def _convolutional(self, side: int) -> Layers:
        """Conv-Large; images below 16 x 16, whose last maps are too small for its last 3 x 3, are padded there."""
        leaky = functools.partial(nn.leaky_relu, negative_slope=0.1)  # official code

        def convolution(features: int, size: int, padding: str | Pads) -> tuple[Callable, Callable]:
            module = Convolution(features, size, padding=padding, use_bias=False)
            return functools.partial(module, train=True), leaky

        return [
            convolution(self.width, 3, "VALID"),
            convolution(self.width, 3, GROWING),
            convolution(self.width, 3, GROWING),
            (max_pool, None),
            convolution(2 * self.width, 3, "VALID"),
            convolution(2 * self.width, 3, GROWING),
            convolution(2 * self.width, 3, "VALID"),
            (max_pool, None),
            convolution(2 * self.width, 3, "VALID" if side >= 16 else "SAME"),
            convolution(2 * self.width, 1, "SAME"),
            convolution(self.classes, 1, "SAME"),
            (lambda x: x.mean((1, 2)), None),
        ]


class Decoder(nn.Module):
    """The noisy `Path` -> denoised z of its last `depth` layers, (B, F) each, from below.

    The signal from above is the noisy p(y | x) for the last layer and a product of the denoised z above for all others,
    normalised by its own moments. Source: Rasmus et al. 2015, algorithm 1.
    """

    depth: int

    @nn.compact
    def __call__(self, path: Path) -> tuple[Array, ...]:
        above = nn.softmax(path.logits)
        denoised: list[Array] = []
        for layer in reversed(range(len(path.z))[-self.depth :]):
            noisy = path.z[layer]
            if denoised:
                above = Dense(noisy.shape[-1], use_bias=False)(denoised[-1])
            weights = self.param(f"combinator_{layer}", combinator_start, (2, 5, noisy.shape[-1]))
            denoised.append(combine(noisy, normalise(above, moments(above)), weights))
        return tuple(reversed(denoised))


class Ladder(nn.Module):
    """labelled (L, ...), unlabelled (U, ...) images -> noisy logits (L, K); the clean `Path`, denoised z (U, F) each.

    Labelled and unlabelled images are normalised apart, and each path by its own moments. Those of the clean labelled
    path are averaged over steps (`batch_stats`), with the variance L / (L - 1) of the batch's: they serve `classify`,
    as in the official code its validation; its test has the moments of a last pass. Stream: `noise`.
    """

    encoder: Encoder
    decoder: Decoder
    noise: float = 0.3  # its deviation

    def __call__(self, labelled: Array, unlabelled: Array, train: bool) -> tuple[Array, Path, tuple[Array, ...]]:
        batches, size = (labelled, unlabelled), labelled.shape[0] + unlabelled.shape[0]
        clean_labelled, clean = self.encoder(batches)
        noise = draw_noise(self.make_rng("noise"), [(size, *z.shape[1:]) for z in clean.z], self.noise)
        noisy_labelled, noisy = self.encoder(batches, noise)
        self._remember(clean_labelled.moments, labelled.shape[0], train)
        return noisy_labelled.logits, clean, self.decoder(noisy)

    def classify(self, images: Array, train: bool) -> Array:
        """-> logits of p(y | x) (B, K), without noise, by the running moments."""
        (path,) = self.encoder((images,), given=self.get_variable("batch_stats", "moments"))
        return path.logits

    def _remember(self, found: tuple[Moments, ...], size: int, train: bool) -> None:
        new = tuple(Moments(each.mean, each.variance * size / (size - 1)) for each in found)
        if train:
            new = optax.incremental_update(new, self.get_variable("batch_stats", "moments"), RATE)
        self.put_variable("batch_stats", "moments", new)
