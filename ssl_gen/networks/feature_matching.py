"""Generator and K-class discriminator of feature matching, dense or convolutional: what a `network` option chooses.

Salimans et al. 2016, "Improved Techniques for Training GANs", arXiv:1606.03498, code; Dai et al. 2017,
arXiv:1705.09783, sec. 5, train the same.
"""

from __future__ import annotations

from typing import Literal, get_args

import flax.linen as nn

from ssl_gen.core.options import choose
from ssl_gen.networks import conv, conv9, mlp
from ssl_gen.types import ImageSpec

Network = Literal["mlp", "conv"]


def generator_and_discriminator(
    network: Network,
    spec: ImageSpec,
    generator_hidden: tuple[int, ...],
    discriminator_hidden: tuple[int, ...],
    noise: tuple[float, float],
    generator_width: int,
    width: int,
    dropout: tuple[float, float, float],
) -> tuple[nn.Module, nn.Module]:
    """latents (B, Z) -> images of `spec`, and images -> K logits and features, both without labels.

    mlp: units a layer of each, and the deviations of the discriminator's noise, of pixels and of later layers; conv:
    the rest, see `conv.Generator` and `conv9.Discriminator`. Raises UserError on another network.
    """
    if choose("network", network, get_args(Network)) == "mlp":
        generator = mlp.Generator(spec.shape, spec.classes, generator_hidden)
        return generator, mlp.Discriminator(spec.classes, spec.classes, discriminator_hidden, *noise)
    discriminator = conv9.Discriminator(spec.classes, width, dropout)
    return conv.Generator(spec.shape, spec.classes, generator_width), discriminator
