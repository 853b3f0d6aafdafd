"""Wide residual network: the classifier of FixMatch and its kin, WRN-28-2 as it stands.

Zagoruyko and Komodakis 2016, "Wide Residual Networks", arXiv:1605.07146, table 1; leaky ReLU and what the first block
adds its changes to are those of Sohn et al. 2020, arXiv:2001.07685, code.
"""

from __future__ import annotations

import functools

import flax.linen as nn

from ssl_gen.networks.convolution import Convolution
from ssl_gen.networks.layers import Dense, rematerialised
from ssl_gen.types import Array

STEM = 16  # channels of the first convolution; Zagoruyko and Komodakis 2016, table 1
GROUPS = 3  # of blocks; channels double and sides halve from one to the next; table 1
MOMENTUM = 0.9  # of batch statistics; ours: settles within a hundred steps; Sohn et al.: 0.999 over 2^20


def rectified(x: Array, train: bool) -> Array:
    return nn.leaky_relu(nn.BatchNorm(not train, momentum=MOMENTUM)(x), 0.1)  # slope: Sohn et al. 2020, code


class Block(nn.Module):
    """x (B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), features): two 3 x 3 convolutions are added to x.

    Where the channels change, x goes through a 1 x 1 convolution. `activated` adds to the rectified x.
    """

    features: int
    stride: int = 1
    activated: bool = False
    body: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        convolution = functools.partial(Convolution, self.features, use_bias=False, body=self.body)
        y = rectified(x, train)
        x = y if self.activated else x
        y = rectified(convolution(3, self.stride)(y, train), train)
        y = convolution(3)(y, train)
        return y + (x if x.shape == y.shape else convolution(1, self.stride)(x, train))


class WideResNet(nn.Module):
    """images (B, H, W, C) in [-1, 1] -> logits (B, K); the input of the last layer (B, 4 width) is sown as `features`.

    Depth 6 blocks + 4, so 28 with 4; widening factor width / 16, so 2 with 32. Stream: `dropout`.
    """

    classes: int
    width: int = 32  # channels of the first group
    blocks: int = 4  # a group
    dropout: float = 0.0  # before the last layer; Pham et al. 2021, arXiv:2003.10580, code
    body: str | None = None

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        x = Convolution(STEM, use_bias=False, body=self.body)(images, train)
        for group in range(GROUPS):
            for block in range(self.blocks):
                first = block == 0
                stride, activated = 2 if group and first else 1, first and group == 0
                x = rematerialised(Block(self.width * 2**group, stride, activated, self.body), x, train=train)
        x = rectified(x, train).mean((1, 2))
        self.sow("intermediates", "features", x)
        return Dense(self.classes)(nn.Dropout(self.dropout, deterministic=not train)(x))
