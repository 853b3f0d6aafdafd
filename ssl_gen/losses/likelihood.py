"""Latent-variable models: how likely an image is given its latents, and bounds on how likely it is without them.

Arrays in, nats out: one number an image, or the terms of a loss. Throughout p(z) = N(0, I), q(z | x) = N(mean,
exp(log_variance)) with a diagonal covariance, and z = mean + exp(log_variance / 2) noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssl_gen.core.batching import interleave, separate, shard_batch
from ssl_gen.core.gradient import Terms
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.types import Array, Key, UserError

LEVELS = 256  # grey levels of a pixel, 2 / 255 apart in [-1, 1]
HALF = 1 / 255  # half the way from one level to the next
LEAST_LOG_SCALE = -7.0  # Salimans et al. 2017, arXiv:1701.05517, code: a ninth of a grey level


def reparametrised(mean: Array, log_variance: Array, noise: Array) -> Array:
    """z of q(z | x), all (B, Z), so that gradients reach q. Source: Kingma and Welling 2014, sec. 2.4."""
    return mean + jnp.exp(log_variance / 2) * noise


def kl_to_prior(mean: Array, log_variance: Array) -> Array:
    """KL(q(z | x) || p(z)): (B, Z) and (B, Z) -> (B,) nats. Source: Kingma and Welling 2014, app. B."""
    return (jnp.exp(log_variance) + jnp.square(mean) - 1 - log_variance).sum(-1) / 2


def log_prior_ratio(mean: Array, log_variance: Array, noise: Array) -> Array:
    """log p(z) - log q(z | x) at the z of `noise`, all (B, Z) -> (B,) nats; its mean over noise is - `kl_to_prior`."""
    latents = reparametrised(mean, log_variance, noise)
    return (jnp.square(noise) + log_variance - jnp.square(latents)).sum(-1) / 2


def elbo_terms(log_density: Array, mean: Array, log_variance: Array) -> Terms:
    """- E_q log p(x | z) + KL(q(z | x) || p(z)), a mean over images: log p(x | z) (B,) and q's moments, both (B, Z).

    Source: Kingma and Welling 2014, arXiv:1312.6114, eq. 7.
    """
    return {"reconstruction": -log_density.mean(), "divergence": kl_to_prior(mean, log_variance).mean()}


def log_importance(log_density: Array, mean: Array, log_variance: Array, noise: Array) -> Array:
    """log p(x | z) + log p(z) - log q(z | x) at the z of `noise`: log p(x | z) (B,), the others (B, Z) -> (B,) nats.

    Its mean over noise is the ELBO. Source: Burda et al. 2016, arXiv:1509.00519, sec. 3.
    """
    return log_density + log_prior_ratio(mean, log_variance, noise)


def normal(x: Array, mean: Array, log_variance: Array) -> Array:
    """log N(x; mean, exp(log_variance)) of the entries of x (B, ...), summed -> (B,) nats."""
    surprise = jnp.log(2 * jnp.pi) + log_variance + jnp.square(x - mean) * jnp.exp(-log_variance)
    return -surprise.reshape(x.shape[0], -1).sum(-1) / 2


def bernoulli(x: Array, logits: Array) -> Array:
    """log p(x) of pixels (B, ...) that are 0 or 1, summed -> (B,) nats; of pixels between, minus the cross-entropy."""
    return (x * logits - jax.nn.softplus(logits)).reshape(x.shape[0], -1).sum(-1)


def discretised_logistic(x: Array, location: Array, log_scale: Array) -> Array:
    """log p(x) of pixels (B, ...) in [-1, 1] on 256 levels, summed -> (B,) nats.

    p is the logistic distribution's mass between half a level below x and half a level above; the two outer levels
    take its tails. With a > b those two borders in units of the scale, s(a) - s(b) = s(a) (1 - s(b)) (1 - exp(b - a))
    for s the sigmoid, so that no difference of equal numbers is taken.
    Source: Salimans et al. 2017, "PixelCNN++", arXiv:1701.05517, eq. 2, with one component.
    """
    below, above = x < HALF - 1, x > 1 - HALF
    upper = (x - location + HALF) * jnp.exp(-log_scale)
    lower = (x - location - HALF) * jnp.exp(-log_scale)
    log_mass = jnp.where(above, 0.0, jax.nn.log_sigmoid(upper)) + jnp.where(below, 0.0, jax.nn.log_sigmoid(-lower))
    within = jnp.log(-jnp.expm1(-2 * HALF * jnp.exp(-log_scale)))
    return (log_mass + jnp.where(below | above, 0.0, within)).reshape(x.shape[0], -1).sum(-1)


def squared_error(x: Array, other: Array) -> Array:
    """|x - other|^2 of pixels (B, ...) in [-1, 1], in units where they are in [0, 1], summed -> (B,)."""
    return jnp.square((x - other) / 2).reshape(x.shape[0], -1).sum(-1)


class Likelihood(NamedTuple):
    """p(x | z) of images, from what a decoder puts out."""

    maps: int  # of the decoder, for each channel
    observe: Callable[[Key, Array], Array]  # images (B, H, W, C) in [-1, 1] -> as the model sees them, the same shape
    log_density: Callable[[Array, Array], Array]  # images as seen, outputs (B, H, W, maps C) -> (B,) nats
    mean: Callable[[Array], Array]  # outputs -> images in [-1, 1]


def pixel_likelihood(name: str, binarise: bool = True) -> Likelihood:
    """The likelihood of pixels: 'bernoulli', 'gaussian' or 'logistic'. Raises UserError on others.

    bernoulli: with `binarise` a pixel is the probability of a 1 and is drawn anew at each sight (Burda et al. 2016,
    arXiv:1509.00519, sec. 5); without, it is compared as it is, and the nats are no likelihood of anything.
    gaussian: the mean goes through tanh (Kingma and Welling 2014, app. C.2: sigmoid, for pixels in [0, 1]); pixels get
    uniform noise of one grey level, and the density is that of 0..255: a bound on the probability of whole levels
    (Theis et al. 2016, arXiv:1511.01844, sec. 3.1).
    logistic: see `discretised_logistic`; the mean is its location.
    """
    if name == "bernoulli":
        return Likelihood(
            1,
            binarised if binarise else lambda key, images: images,
            lambda images, outputs: bernoulli((images + 1) / 2, outputs),
            lambda outputs: jnp.tanh(outputs / 2),
        )
    if name == "gaussian":
        return Likelihood(2, dequantised, gaussian_pixels, lambda outputs: jnp.tanh(jnp.split(outputs, 2, -1)[0]))
    if name == "logistic":
        return Likelihood(
            2,
            lambda key, images: images,
            lambda images, outputs: discretised_logistic(images, *located(outputs)),
            lambda outputs: jnp.clip(located(outputs)[0], -1, 1),
        )
    raise UserError(f"likelihood is {name!r}: choose one of bernoulli, gaussian, logistic")


def binarised(key: Key, images: Array) -> Array:
    """Pixels -1 or 1, with (x + 1) / 2 the probability of a 1."""
    return jnp.where(2 * shard_batch(jax.random.uniform(key, images.shape)) - 1 < images, 1.0, -1.0)


def noisy(key: Key, images: Array, deviation: float) -> Array:
    """Pixels with normal noise, its deviation in units where pixels are in [0, 1]; they may leave [-1, 1]."""
    return images + 2 * deviation * shard_batch(jax.random.normal(key, images.shape)) if deviation else images


def dequantised(key: Key, images: Array) -> Array:
    """Pixels anywhere within half a grey level of where they were."""
    return images + HALF * shard_batch(jax.random.uniform(key, images.shape, minval=-1.0, maxval=1.0))


def located(outputs: Array) -> tuple[Array, Array]:
    """A decoder's outputs (B, H, W, 2 C) -> location and log scale (B, H, W, C), the latter bounded from below."""
    location, log_scale = jnp.split(outputs, 2, -1)
    return location, jnp.maximum(log_scale, LEAST_LOG_SCALE)


def gaussian_pixels(images: Array, outputs: Array) -> Array:
    """log N(x; tanh(location), scale) in units of grey levels."""
    location, log_scale = located(outputs)
    return of_levels(normal(images, jnp.tanh(location), 2 * log_scale), images)


def of_levels(log_density: Array, images: Array) -> Array:
    """A log-density (B,) of images (B, H, W, C) in [-1, 1] -> that of the same images in grey levels, 0..255."""
    return log_density - images[0].size * jnp.log((LEVELS - 1) / 2)


def every_pair(images: Array, classes: int) -> tuple[Array, Array]:
    """Images, or other rows, (B, ...) -> each with each class in turn, (B K, ...) and (B K,)."""
    return jnp.repeat(images, classes, 0), jnp.tile(jnp.arange(classes), images.shape[0])


def labelled_pairs(labelled: Array, labels: Array, unlabelled: Array, classes: int) -> tuple[Array, Array]:
    """Images (L, ...) with their labels (L,), and each of (U, ...) with each class -> (L + U K, ...) and (L + U K,)."""
    images, every = every_pair(unlabelled, classes)
    return interleave(labelled, images), interleave(labels, every)


def over_classes(costs: Array, log_q: Array) -> Array:
    """sum_y q(y | x) (L(x, y) + log q(y | x)): costs L and log-probabilities (U, K) -> (U,) nats.

    Source: Kingma et al. 2014, arXiv:1406.5298, eq. 7.
    """
    return (jnp.exp(log_q) * (costs + log_q)).sum(-1)


def bounds(costs: Array, log_q: Array, labels: Array) -> tuple[Array, Array, Array]:
    """E_(x,y) L(x, y), E_u U(u) and - E_(x,y) log q(y | x), () nats each, with U as in `over_classes`.

    costs: L of `labelled_pairs` (L + U K,); log_q: of all images, interleaved, (L + U, K); labels (L,).
    """
    (images, classes), labelled = log_q.shape, labels.shape[0]
    bound, each = separate(costs, (labelled, (images - labelled) * classes))
    given, hidden = separate(log_q, (labelled, images - labelled))
    return bound.mean(), over_classes(each.reshape(-1, classes), hidden).mean(), cross_entropy(given, labels)


def semi_supervised_terms(costs: Array, log_q: Array, labels: Array, share: float, alpha: float) -> Terms:
    """l E_(x,y) L(x, y) + (1 - l) E_u U(u) - alpha E_(x,y) log q(y | x), with l the share; see `bounds`.

    Source: Kingma et al. 2014, arXiv:1406.5298, eq. 8 and 9.
    """
    labelled, unlabelled, classification = bounds(costs, log_q, labels)
    return {
        "labelled": share * labelled,
        "unlabelled": (1 - share) * unlabelled,
        "classification": alpha * classification,
    }


def mean_over_classes(log_p: Array, classes: int) -> Array:
    """log sum_y p(y) exp log_p(x, y) with p(y) uniform: of `every_pair` (B K,) -> (B,) nats."""
    return jax.nn.logsumexp(log_p.reshape(-1, classes), -1) - jnp.log(classes)


def informative(moments: Array, least: float) -> Array:
    """Which latents tell images apart: first and second moments of their means (2, Z) -> (Z,) bool, deviation > least.

    Source: Kingma et al. 2014, code: the others are the prior's noise.
    """
    return moments[1] - jnp.square(moments[0]) > least**2


def keep_informative(latents: Array, moments: Array, least: float) -> Array:
    """Latents (B, Z), 0 where they are not `informative`."""
    return jnp.where(informative(moments, least), latents, 0.0)


def running(moments: Array, means: Array, count: Array) -> Array:
    """First and second moments (2, Z) of `count` batches, and of one more of means (B, Z)."""
    batch = jnp.stack([means.mean(0), jnp.square(means).mean(0)])
    return moments + (batch - moments) / (count + 1.0)
