"""The classifiers by name: what a method's `network` option chooses from."""

from __future__ import annotations

from typing import Literal, get_args

import flax.linen as nn

from ssl_gen.core.options import choose
from ssl_gen.networks import airbench, conv, conv13, mlp, wide_resnet

Network = Literal["mlp", "conv", "conv13", "wide_resnet", "airbench"]


def classifier(network: Network, classes: int, hidden: tuple[int, ...], width: int, dropout: float) -> nn.Module:
    """images (B, H, W, C) -> logits (B, K): `hidden` is the mlp's, `width` that of the first layer of all others.

    Raises UserError on an unknown network.
    """
    if choose("network", network, get_args(Network)) == "mlp":
        return mlp.Classifier(classes, hidden, dropout)
    kinds = {
        "conv": conv.Classifier,
        "conv13": conv13.Conv13,
        "wide_resnet": wide_resnet.WideResNet,
        "airbench": airbench.Airbench,
    }
    return kinds[network](classes, width, dropout=dropout)
