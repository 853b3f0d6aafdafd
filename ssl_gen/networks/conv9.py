"""The 9-layer discriminator of feature matching on photographs: weight norm, dropout, the mean over all pixels.

Salimans et al. 2016, "Improved Techniques for Training GANs", arXiv:1606.03498, code: train_cifar_feature_matching.py
and train_svhn_feature_matching.py, which differ in the width.
"""

from __future__ import annotations

import flax.linen as nn

from ssl_gen.networks.conv import SLOPE
from ssl_gen.networks.convolution import Convolution
from ssl_gen.networks.layers import WeightNormDense
from ssl_gen.types import Array


class Discriminator(nn.Module):
    """images (B, H, W, C) in [-1, 1], no labels -> logits (B, outputs), features (B, 2 width).

    Three 3 x 3 convolutions of `width` and three of 2 width, the third of each halving the sides, one of 2 width
    without padding, two 1 x 1, the mean over all pixels: the features. Images below 9 x 9 keep the padding. The scales
    of hidden layers stay as the first batch set them, and the logits start with deviation 0.1. Stream: `dropout`.
    """

    outputs: int
    width: int = 96  # CIFAR-10; SVHN: 64
    dropout: tuple[float, float, float] = (0.2, 0.5, 0.5)  # of pixels, after each halving
    body: str | None = None

    @nn.compact
    def __call__(self, images: Array, labels: None, train: bool) -> tuple[Array, Array]:
        def dropped(x: Array, share: float) -> Array:
            return nn.Dropout(share, deterministic=not train)(x)

        def rectified(x: Array, features: int, size: int = 3, stride: int = 1, padding: str = "SAME") -> Array:
            layer = Convolution(features, size, stride, padding, "weight", train_scale=False, body=self.body)
            return nn.leaky_relu(layer(x, train), SLOPE)

        pixels, *halved = self.dropout
        x = dropped(images, pixels)
        for features, share in zip((self.width, 2 * self.width), halved, strict=True):
            x = dropped(rectified(rectified(rectified(x, features), features), features, stride=2), share)
        x = rectified(x, 2 * self.width, padding="VALID" if min(x.shape[1:3]) >= 3 else "SAME")
        x = rectified(rectified(x, 2 * self.width, 1), 2 * self.width, 1).mean((1, 2))
        return WeightNormDense(self.outputs, init_deviation=0.1, kernel_init=nn.initializers.normal(0.05))(x), x
