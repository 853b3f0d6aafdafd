"""ResNets as they classify, strides in the 3 x 3 convolutions of bottlenecks, as all published weights have it.

He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1, with the strides of Goyal et
al. 2017, arXiv:1706.02677, sec. 5.1. Batch norms use their running moments.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
from jax import lax

from ssl_gen.networks.pretrained.outputs import Outputs
from ssl_gen.types import Array

PRECISION = lax.Precision.HIGHEST  # ours: float32 everywhere, or features would depend on the accelerator
WIDTH = 64  # channels inside the first stage's blocks, doubled from stage to stage


class Plan(NamedTuple):
    """A column of table 1."""

    stages: tuple[int, int, int, int]  # blocks
    sizes: tuple[int, ...] = (1, 3, 1)  # pixels, of the convolutions of a block
    expansion: int = 4  # times as many channels go out as are inside

    def short(self, stage: int, block: int) -> bool:
        """Does a convolution bring what a block adds to, to its channels and stride?"""
        return not block and (stage > 0 or self.expansion > 1)

    def layers(self) -> Iterator[tuple[int, int, str]]:
        """The convolutions of all blocks: stage, block and name, '1', '2', ... or 'short'."""
        for stage, count in enumerate(self.stages):
            for block in range(count):
                yield from ((stage, block, str(i + 1)) for i in range(len(self.sizes)))
                if self.short(stage, block):
                    yield stage, block, "short"


PLANS = {
    "resnet18": Plan((2, 2, 2, 2), (3, 3), 1),
    "resnet34": Plan((3, 4, 6, 3), (3, 3), 1),
    "resnet50": Plan((3, 4, 6, 3)),
    "resnet101": Plan((3, 4, 23, 3)),
    "resnet152": Plan((3, 8, 36, 3)),
}


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


class ResNet(nn.Module):
    """images (B, H, W, 3), prepared -> Outputs: features are the means of the last map, (B, 512 or 2048)."""

    classes: int  # of the logits, 0 for a network without its last layer
    kind: str = "resnet50"  # a name of `PLANS`

    @nn.compact
    def __call__(self, images: Array) -> Outputs:
        plan = PLANS[self.kind]
        x = Unit(WIDTH, 7, 2, name="stem")(images)
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, count in enumerate(plan.stages):
            for block in range(count):
                width, stride, name = WIDTH * 2**stage, 2 if stage and not block else 1, f"block_{stage}_{block}"
                y, strided = x, plan.sizes.index(3)
                for i, size in enumerate(plan.sizes[:-1]):
                    y = Unit(width, size, stride if i == strided else 1, name=f"{name}_{i + 1}")(y)
                out, last = width * plan.expansion, f"{name}_{len(plan.sizes)}"
                y = Unit(out, plan.sizes[-1], activation=False, name=last)(y)
                if plan.short(stage, block):
                    x = Unit(out, 1, stride, activation=False, name=f"{name}_short")(x)
                x = nn.relu(x + y)
        features = x.mean((1, 2))
        if not self.classes:
            return Outputs(features)
        return Outputs(features, nn.Dense(self.classes, precision=PRECISION, name="classifier")(features))
