"""Networks of inverted residual blocks, as they classify: MobileNetV2 and EfficientNet-Lite0.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", arXiv:1801.04381, table 2; Tan and Le
2019, "EfficientNet", arXiv:1905.11946, table 1, without squeeze and excitation and with ReLU6 (EfficientNet-Lite,
TensorFlow, 2020). A block is a 1 x 1 convolution to more channels, one of each channel alone and a 1 x 1 convolution
back, added to what came in where both have one shape. Batch norms use their running moments. Both were trained by
their authors, with TensorFlow's padding and epsilon, and by others, with PyTorch's.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from ssl_gen.networks.convolution import LAYOUT, Pads, depthwise
from ssl_gen.networks.normalisation import HE_NORMAL
from ssl_gen.networks.pretrained.outputs import Outputs
from ssl_gen.types import Array

PRECISION = lax.Precision.HIGHEST  # ours: float32 everywhere, or features would depend on the accelerator
STEM, HEAD = 32, 1280  # channels before and after the blocks, of both networks


class Stage(NamedTuple):
    """Some blocks after each other; the first of them has the stride."""

    expansion: int  # times the channels that come in
    channels: int  # that go out
    blocks: int
    stride: int
    size: int = 3  # of the convolution of each channel, pixels


class Plan(NamedTuple):
    """What tells one network from another."""

    stages: tuple[Stage, ...]
    epsilon: float  # of the batch norms
    symmetric: bool  # PyTorch's padding, (k - 1) / 2 on every side; TensorFlow's SAME puts more at the end


class Block(NamedTuple):
    """One block of a plan, by its place."""

    number: int  # from 0, through all stages
    stage: int
    place: int  # in its stage, from 0
    given: int  # channels
    features: int  # channels
    expansion: int
    stride: int
    size: int


MOBILENET = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
LITE = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1),
)
TORCH, TENSORFLOW = (1e-5, True), (1e-3, False)  # epsilon and padding: PyTorch's defaults, TensorFlow's
PLANS = {
    "mobilenet_v2": Plan(MOBILENET, *TORCH),
    "mobilenet_v2_tensorflow": Plan(MOBILENET, *TENSORFLOW),
    "efficientnet_lite0": Plan(LITE, *TENSORFLOW),
    "efficientnet_lite0_torch": Plan(LITE, *TORCH),  # trained by timm
}


def blocks(plan: Plan) -> list[Block]:
    """The blocks of a plan in order."""
    found: list[Block] = []
    given = STEM
    for stage, (expansion, features, count, stride, size) in enumerate(plan.stages):
        for place in range(count):
            first = stride if place == 0 else 1
            found.append(Block(len(found), stage, place, given, features, expansion, first, size))
            given = features
    return found


def padding(plan: Plan, size: int) -> str | Pads:
    """Of a convolution of `size` pixels, as `lax` takes it."""
    side = ((size - 1) // 2, (size - 1) // 2)
    return (side, side) if plan.symmetric else "SAME"


class Kernel(nn.Module):
    """The weights of a convolution."""

    shape: tuple[int, int, int, int]

    @nn.compact
    def __call__(self) -> Array:
        return self.param("kernel", HE_NORMAL, self.shape)


class Unit(nn.Module):
    """x (B, H, W, C) -> (B, H', W', features): convolution without bias, batch norm, and ReLU6 where asked for."""

    plan: Plan
    features: int
    size: int = 1  # pixels
    stride: int = 1
    per_channel: bool = False  # a convolution of each channel alone
    activation: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        wide = 1 if self.per_channel else x.shape[-1]
        kernel = Kernel((self.size, self.size, wide, self.features), name="conv")()
        pad = padding(self.plan, self.size)
        if self.per_channel:
            x = depthwise(x, kernel, self.stride, pad, precision=PRECISION)
        else:
            strides = (self.stride, self.stride)
            x = lax.conv_general_dilated(x, kernel, strides, pad, dimension_numbers=LAYOUT, precision=PRECISION)
        x = nn.BatchNorm(use_running_average=True, epsilon=self.plan.epsilon, name="norm")(x)
        return jnp.clip(x, 0, 6) if self.activation else x


class InvertedResiduals(nn.Module):
    """images (B, H, W, 3), prepared -> Outputs: features are the means of the last map, (B, 1280).

    kind: a name of `PLANS`; classes: of the logits, 0 for a network without its last layer.
    """

    kind: str
    classes: int

    @nn.compact
    def __call__(self, images: Array) -> Outputs:
        plan = PLANS[self.kind]
        x = Unit(plan, STEM, 3, 2, name="stem")(images)
        for block in blocks(plan):
            y, name = x, f"block_{block.number}"
            wide = block.given * block.expansion
            if block.expansion > 1:
                y = Unit(plan, wide, name=f"{name}_expand")(y)
            y = Unit(plan, wide, block.size, block.stride, per_channel=True, name=f"{name}_depthwise")(y)
            y = Unit(plan, block.features, activation=False, name=f"{name}_project")(y)
            x = x + y if x.shape == y.shape else y
        features = Unit(plan, HEAD, name="head")(x).mean((1, 2))
        if not self.classes:
            return Outputs(features)
        return Outputs(features, nn.Dense(self.classes, precision=PRECISION, name="classifier")(features))
