"""Which part of a run draws from which random stream: numbers folded into the run's key, `jax.random.key(seed)`.

Step t folds t. The others are numbers that no step reaches, so that no noise is drawn twice.
"""

from __future__ import annotations

import jax

from ssl_gen.types import Array, Key

INIT = 2**32 - 1  # a method's `init` and `fit`
SAMPLES = INIT - 1  # samples that are measured or shown
LATENTS = INIT - 2  # draws of latents for the bounds of a likelihood
OBSERVED = INIT - 3  # how a measured image is binarised or dequantised: the same for every draw of latents
COPIES = INIT - 4  # how labelled images are changed for a method that is fitted in one go


def stream(seed: int | Array, number: int) -> Key:
    """The key of one of these streams of the run `seed`."""
    return jax.random.fold_in(jax.random.key(seed), number)
