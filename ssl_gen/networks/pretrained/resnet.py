"""ResNet-50 as it classifies, its strides in the 3 x 3 convolutions, as all its published weights have it.

He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1, with the strides of Goyal et
al. 2017, arXiv:1706.02677, sec. 5.1. Batch norms use their running moments.
"""

from __future__ import annotations

import flax.linen as nn
from jax import lax

from ssl_gen.networks.pretrained.outputs import Outputs
from ssl_gen.types import Array

PRECISION = lax.Precision.HIGHEST  # ours: float32 everywhere, or features would depend on the accelerator
STAGES = (3, 4, 6, 3)  # blocks
WIDTH = 64  # channels inside the first stage's blocks, doubled from stage to stage
EXPANSION = 4  # times as many go out


class Unit(nn.Module):
    """x (B, H, W, C) -> (B, H', W', features): convolution without bias, padded by half, batch norm, perhaps ReLU."""

    features: int
    size: int = 1  # pixels
    stride: int = 1
    activation: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        pad, sides, strides = self.size // 2, (self.size, self.size), (self.stride, self.stride)
        pads = ((pad, pad), (pad, pad))
        x = nn.Conv(self.features, sides, strides, pads, use_bias=False, precision=PRECISION, name="conv")(x)
        x = nn.BatchNorm(use_running_average=True, epsilon=1e-5, name="norm")(x)
        return nn.relu(x) if self.activation else x


class ResNet50(nn.Module):
    """images (B, H, W, 3), prepared -> Outputs: features are the means of the last map, (B, 2048)."""

    classes: int  # of the logits, 0 for a network without its last layer

    @nn.compact
    def __call__(self, images: Array) -> Outputs:
        x = Unit(WIDTH, 7, 2, name="stem")(images)
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, count in enumerate(STAGES):
            for block in range(count):
                width, stride, name = WIDTH * 2**stage, 2 if stage and not block else 1, f"block_{stage}_{block}"
                y = Unit(width, name=f"{name}_1")(x)
                y = Unit(width, 3, stride, name=f"{name}_2")(y)
                y = Unit(width * EXPANSION, activation=False, name=f"{name}_3")(y)
                if not block:
                    x = Unit(width * EXPANSION, 1, stride, activation=False, name=f"{name}_short")(x)
                x = nn.relu(x + y)
        features = x.mean((1, 2))
        if not self.classes:
            return Outputs(features)
        return Outputs(features, nn.Dense(self.classes, precision=PRECISION, name="classifier")(features))
