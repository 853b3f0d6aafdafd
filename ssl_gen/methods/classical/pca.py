"""Principal components of all images, labelled or not: the linear encoder, and the baseline of every compression.

Pearson 1901, Philosophical Magazine 2 (6); solved by scikit-learn.

    z = V (x - m),  x' = m + V^T z,  m the mean image, V (Z, F) the directions of largest variance, V V^T = I

No other linear code of Z numbers has a smaller mean of |x - x'|^2 on the images it is fitted to. Features are pixels in
[-1, 1], or latents: the mean is taken off and nothing is divided by a deviation, so latents differ in variance. The
state's `explained` is the part of the variance that each direction holds. Decoded pixels are cut at -1 and 1.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_gen.types import Array, Images, ImageSpec, Key, Labels, Method, UserError

PAPER = "Pearson 1901, Philosophical Magazine 2"


@dataclasses.dataclass(frozen=True)
class Config:
    latent: int = 50  # directions Z; ours


class State(NamedTuple):
    mean: Array  # of the features: (H, W, C), or (F,)
    directions: Array  # (Z, F), orthonormal rows, most variance first
    explained: Array  # (Z,), parts of the variance, sum <= 1


def make(config: Config, spec: ImageSpec) -> Method:
    """An encoder and decoder of images, or of other latents. It knows no classes."""

    def fit(key: Key, labelled: Images, labels: Labels, unlabelled: Images) -> State:
        from sklearn.decomposition import PCA

        images = np.concatenate([labelled, unlabelled])
        features = images.reshape(len(images), -1)
        if not 1 <= config.latent <= min(features.shape):
            raise UserError(
                f"latent is {config.latent}: {len(features)} images of {features.shape[1]} numbers "
                f"have 1 to {min(features.shape)} principal components"
            )
        seed = int(jax.random.bits(key))  # for its randomised solver of large problems
        found = PCA(config.latent, random_state=seed).fit(features)
        parts = found.mean_.reshape(images.shape[1:]), found.components_, found.explained_variance_ratio_
        return State(*(part.astype(np.float32) for part in parts))

    def encode(state: State, images: Array) -> Array:
        return jnp.reshape(images - state.mean, (len(images), -1)) @ state.directions.T

    def decode(state: State, latents: Array, labels: Array) -> Array:
        features = state.mean + jnp.reshape(latents @ state.directions, (-1, *state.mean.shape))
        return jnp.clip(features, -1, 1) if state.mean.ndim > 1 else features

    return Method(None, (), encode=encode, decode=decode, fit=fit)
