"""What a pretrained network says of images."""

from __future__ import annotations

from typing import NamedTuple

from ssl_gen.types import Array


class Outputs(NamedTuple):
    """Features, and logits where the file has the last layer."""

    features: Array  # (B, F)
    logits: Array | None = None  # (B, K)
