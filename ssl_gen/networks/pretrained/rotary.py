"""Rotary positions of patches on a plane: queries and keys are turned by angles, and no position is learnt.

Su et al. 2021, arXiv:2104.09864 (rotation); Simeoni et al. 2025, arXiv:2508.10104 (DINOv3: axial, for images of any
side). Of a head of D numbers

    p_k = 100^(4 k / D),  k = 0 .. D/4 - 1
    a   = 2 pi [y / p_0, ..., y / p_(D/4-1), x / p_0, ..., x / p_(D/4-1)]
    (q_i, q_(i+D/2)) <- (q_i cos a_i - q_(i+D/2) sin a_i, q_(i+D/2) cos a_i + q_i sin a_i),  i = 0 .. D/2 - 1

with y, x the centre of a patch where the image, whatever its sides, goes from -1 to 1 along each. In training the
authors move and stretch these coordinates at random; features are made without.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from ssl_gen.types import Array

BASE = 100.0  # periods go from 1 nearly to this; DINOv3


def periods(size: int) -> np.ndarray:
    """(D/4,) of a head of `size` numbers, D, in units of half an image."""
    return BASE ** (4 * np.arange(size // 4) / size)


def angles(sides: tuple[int, int], size: int) -> np.ndarray:
    """(h w, D/2) float64, radians, of h x w patches, row after row, for heads of `size` numbers, a multiple of 4."""
    y, x = (2 * (np.arange(side) + 0.5) / side - 1 for side in sides)
    centres = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
    return (2 * np.pi * centres[:, :, None] / periods(size)).reshape(len(centres), -1)


def turned(tokens: Array, angles: np.ndarray) -> Array:
    """tokens (B, N, heads, D) -> the same, the last P of them turned by angles (P, D/2); what is before, as it was."""
    before = tokens.shape[1] - len(angles)
    first, second = jnp.split(tokens[:, before:], 2, -1)
    cos, sin = (jnp.asarray(part[:, None], tokens.dtype) for part in (np.cos(angles), np.sin(angles)))
    patches = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
    return jnp.concatenate([tokens[:, :before], patches], 1)
