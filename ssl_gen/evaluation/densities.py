"""Densities of latents, fitted after training: where the classes are that a decoder knows.

Source: Ghosh et al. 2020, arXiv:1903.12436, sec. 4, "ex-post density estimation", by a mixture of Gaussians; where the
decoder is told the class, ours, by a Gaussian for each class that was guessed. The variance of q(z | x) is added to
that of its means: these alone are less spread than the latents that the decoder learnt from, and so would samples be.
Three densities are a little narrower than that all the same: of `stacked_m1_m2` the spread of v over draws of z is left
out, and the styles of `adversarial_autoencoder` and the codes of `autoencoder`, which are points, of variance 0, are
those of images without the noise that they train with.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.mixture import GaussianMixture

from ssl_gen.core.files import say
from ssl_gen.core.samplers import FittedLatents, LatentDensity
from ssl_gen.evaluation.inference import Compiled, everywhere, mapped, probabilities
from ssl_gen.types import ImageSpec, Method, State, UserError, able

PARTS = 10  # Gaussians of a mixture; Ghosh et al. 2020, sec. 4
SEED = 0  # of where a mixture starts


def prepared(compiled: Compiled, state: State, sampler: Any, shown: Callable[[], np.ndarray]) -> State:
    """The state that a sampler can draw from: with a density of latents where that is what it draws from.

    sampler: None is the method's own. shown: gives the training images (N, H, W, C) uint8 that the run learns from, and
    is asked only where a density is to be fitted. Raises UserError where latents are not finite.
    """
    sampler = compiled.method.sampler if sampler is None else sampler
    if not needed(sampler) or state.density:
        return state
    images = shown()
    outputs = mapped(functools.partial(able(compiled.posterior), everywhere(state)), images)
    if not np.isfinite(outputs).all():
        raise UserError("the latents of training images are not all finite: no density can be fitted to them")
    means, variances = np.split(outputs.astype(np.float64), 2, axis=-1)
    if not compiled.method.conditional:
        return state._replace(density=mixture(means, variances))
    scores = probabilities(compiled, state, images)
    guesses, classes = scores.argmax(-1), scores.shape[-1]
    missing = sorted(set(range(classes)) - set(guesses.tolist()))
    if missing:
        say(f"latents are drawn from the prior for classes that no image is taken for: {', '.join(map(str, missing))}")
    return state._replace(density=by_class(means, variances, guesses, classes))


def needed(sampler: Any) -> bool:
    """Does a sampler draw from a density of latents?"""
    return isinstance(sampler, FittedLatents) and sampler.of_density


def like(method: Method, state: State, spec: ImageSpec) -> LatentDensity:
    """Shapes and dtypes of the density of a state, itself arrays or shapes, of a method for images of `spec`."""
    images: Any = jax.ShapeDtypeStruct((1, *spec.shape), jnp.float32)
    mean, _ = jax.eval_shape(able(method.posterior), state, images)
    parts, width = spec.classes if method.conditional else PARTS, mean.shape[1]
    shapes: Any = [
        jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((parts,), (parts, width), (parts, width, width))
    ]
    return LatentDensity(*shapes)


def shown_rows(visible: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Rows of the training images that a run was shown, of its mask (N,), negative for hidden, and pool (M,)."""
    return np.union1d(pool, np.flatnonzero(visible >= 0))


def by_class(means: np.ndarray, variances: np.ndarray, guesses: np.ndarray, classes: int) -> LatentDensity:
    """means, variances (N, Z) of q(z | x) and the class (N,) of each image -> a Gaussian a class.

    A class without an image has the prior, N(0, I).
    """
    width = means.shape[1]
    gaussians = [(np.zeros(width), np.eye(width)) for _ in range(classes)]
    for k in np.unique(guesses):
        chosen = guesses == k
        gaussians[k] = moments(means[chosen], variances[chosen], np.full(chosen.sum(), 1 / chosen.sum()))
    return density(np.bincount(guesses, minlength=classes) / len(guesses), gaussians)


def mixture(means: np.ndarray, variances: np.ndarray) -> LatentDensity:
    """means, variances (N, Z) of q(z | x) -> a mixture of 10 Gaussians; of fewer images each has one, the rest none."""
    found = GaussianMixture(min(PARTS, len(means)), random_state=SEED).fit(means)
    weights = found.predict_proba(means)
    gaussians = [moments(means, variances, column / column.sum()) for column in weights.T]
    empty = PARTS - len(gaussians)
    width = means.shape[1]
    return density(
        np.pad(weights.mean(0), (0, empty)), gaussians + [(np.zeros(width), np.zeros((width, width)))] * empty
    )


def moments(means: np.ndarray, variances: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (Z,) and covariance (Z, Z) of z ~ q(z | x), by the weights (N,), sum 1, of images x: between plus within."""
    mean = weights @ means
    centred = means - mean
    return mean, (centred.T * weights) @ centred + np.diag(weights @ variances)


def density(shares: np.ndarray, gaussians: list[tuple[np.ndarray, np.ndarray]]) -> LatentDensity:
    """Shares (K,), means and covariances of K Gaussians, as a state holds them; a covariance may be singular."""
    means, covariances = (np.stack(part) for part in zip(*gaussians, strict=True))
    values, vectors = np.linalg.eigh(covariances)
    factors = vectors * np.sqrt(np.maximum(values, 0))[:, None, :]
    return LatentDensity(*(jnp.asarray(part, jnp.float32) for part in (shares, means, factors)))
