"""Linear heads on the features of a discriminator, which is shown no label."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn

from ssl_gen.networks.normalisation import Dense
from ssl_gen.types import Array

ORIENTATIONS = 4  # 0, 90, 180 and 270 degrees


class Judgement(NamedTuple):
    """What a `Critic` says of images."""

    real: Array  # (B,) psi(f), the part of the logit that knows no class
    of_class: Array  # (B, K) V f, what each class adds to it
    orientation: Array  # (B, 4) logits
    classes: Array | None  # (B, K) logits of the class, None without that head


class Critic(nn.Module):
    """images (B, H, W, C) -> `Judgement`: a discriminator of one logit, and heads on its features (B, F).

    The logit of an image and its class is psi(f) + y^T V f. Labels are no input, so that the class can be one that the
    same pass guesses. Source: Lucic et al. 2019, arXiv:1903.02271, sec. 3; projection: Miyato and Koyama 2018, eq. 5.
    """

    discriminator: nn.Module  # images, labels or None -> logits (B, 1), features (B, F)
    classes: int
    normalisation: str  # of the heads: none, spectral
    guess: bool  # is there a head that guesses the class?

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Judgement:
        logits, features = self.discriminator(images, None, train)
        of_class = Dense(self.classes, self.normalisation, use_bias=False, name="projection")(features, train)
        orientation = Dense(ORIENTATIONS, self.normalisation, name="orientation")(features, train)
        classes = Dense(self.classes, self.normalisation, name="classes")(features, train) if self.guess else None
        return Judgement(logits[:, 0], of_class, orientation, classes)
