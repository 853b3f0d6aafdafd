"""Which of a network's own guesses it learns, and how they are brought in line with the labels: arrays in, nats out."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from ssl_gen.core.options import choose
from ssl_gen.losses.classification import mean_over
from ssl_gen.types import Array

Threshold = float | Array  # of probability: one for all guesses, () or a number, or one of each, (U,)


class Marginals(NamedTuple):
    """Running means over steps of the classes of labels and of guesses."""

    labels: Array  # (K,) of one-hot labels; of what is said of labelled images in AdaMatch
    guesses: Array  # (K,) of q before alignment


class SelfAdaptive(NamedTuple):
    """FreeMatch's running means over steps of what is said of unlabelled images."""

    confidence: Array  # () of max q
    guesses: Array  # (K,) of q
    counts: Array  # (K,) of one-hot argmax q


class Gaussian(NamedTuple):
    """SoftMatch's running mean and variance over steps of max q."""

    mean: Array  # ()
    variance: Array  # ()


def guess_cross_entropy(logits: Array, teacher: Array) -> Array:
    """CE(p, argmax q) of each guess: student logits and teacher log-probabilities (U, K) -> (U,) nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, jax.lax.stop_gradient(teacher).argmax(-1))


def confident_cross_entropy(logits: Array, teacher: Array, threshold: Threshold) -> Array:
    """E 1[max q > t] CE(p, argmax q): student logits and teacher log-probabilities (U, K) -> () nats.

    Source: Sohn et al. 2020, "FixMatch", arXiv:2001.07685, sec. 2.2; the mean is over all U, sure or not.
    """
    sure = confident(jax.lax.stop_gradient(teacher), threshold)
    return jnp.where(sure, guess_cross_entropy(logits, teacher), 0.0).mean()


def confident(teacher: Array, threshold: Threshold) -> Array:
    """max q > t: log-probabilities (U, K) -> (U,) bool."""
    return jnp.exp(teacher.max(-1)) > threshold


def sharpened_cross_entropy(
    logits: Array, targets: Array, temperature: float, threshold: float, sharpened_mask: bool
) -> Array:
    """E 1[max q > threshold] CE(q', p), q' = q^(1 / temperature) brought to sum 1: logits of p and q (U, K) -> () nats.

    The mean is over all U, sure or not; q carries no gradient. Source: Xie et al. 2020, arXiv:1904.12848, sec. 2 and 3;
    with `sharpened_mask` the threshold is on max q', as in Pham et al. 2021, code (training_utils.py).
    """
    targets = jax.lax.stop_gradient(targets)
    sharpened = jax.nn.log_softmax(targets / temperature)
    nats = optax.softmax_cross_entropy(logits, jnp.exp(sharpened))
    judged = sharpened if sharpened_mask else jax.nn.log_softmax(targets)
    return jnp.where(confident(judged, threshold), nats, 0.0).mean()


def weighted_cross_entropy(logits: Array, teacher: Array, weights: Array) -> Array:
    """E w CE(p, argmax q): student logits and teacher log-probabilities (U, K), weights (U,) -> () nats.

    Source: Chen et al. 2023, "SoftMatch", arXiv:2301.10921, sec. 3.
    """
    return (jax.lax.stop_gradient(weights) * guess_cross_entropy(logits, teacher)).mean()


def distribution_alignment(teacher: Array, marginals: Marginals) -> Array:
    """log q (U, K) -> log of q * labels / guesses, brought to sum 1, (U, K).

    Source: Berthelot et al. 2020, "ReMixMatch", arXiv:1911.09785, sec. 3.1.
    """
    ratio = jnp.log(marginals.labels + 1e-6) - jnp.log(marginals.guesses + 1e-6)  # their code's 1e-6
    return jax.nn.log_softmax(teacher + ratio)


def uniform_marginals(classes: int) -> Marginals:
    """The running means before the first step."""
    uniform = jnp.full(classes, 1 / classes, jnp.float32)
    return Marginals(uniform, uniform)


def update_marginals(marginals: Marginals, labels: Array, teacher: Array, memory: int) -> Marginals:
    """The running means after a step with labels (L,) and log q (U, K), of about the last `memory` steps.

    In a step without labels (L = 0) their mean stays.
    """
    now = jax.nn.one_hot(labels, teacher.shape[-1]).mean(0) if labels.shape[0] else marginals.labels
    return optax.incremental_update(Marginals(now, jnp.exp(teacher).mean(0)), marginals, 1 / memory)


def update_predicted_marginals(marginals: Marginals, labelled: Array, teacher: Array, memory: float) -> Marginals:
    """As `update_marginals`, with log-probabilities of labelled images (L, K) in the place of their labels.

    Source: Berthelot et al. 2022, "AdaMatch", arXiv:2106.04732, sec. 3.
    """
    now = Marginals(jnp.exp(labelled).mean(0), jnp.exp(teacher).mean(0))
    return optax.incremental_update(now, marginals, 1 / memory)


def update_guesses(marginals: Marginals, teacher: Array, memory: float) -> Marginals:
    """The running mean of guesses after a step with log q (U, K); that of labels, a target of its own, stays.

    With `uniform_marginals` before the first step `distribution_alignment` is the uniform alignment of Chen et al.
    2023, "SoftMatch", arXiv:2301.10921, sec. 3.
    """
    guesses = optax.incremental_update(jnp.exp(teacher).mean(0), marginals.guesses, 1 / memory)
    return marginals._replace(guesses=guesses)


def relative_threshold(labelled: Array, threshold: float) -> Array:
    """t E max p: log-probabilities of labelled images (L, K), a share of their confidence -> () probability.

    Source: Berthelot et al. 2022, "AdaMatch", arXiv:2106.04732, sec. 3.
    """
    return threshold * jnp.exp(jax.lax.stop_gradient(labelled).max(-1)).mean()


def first_self_adaptive(classes: int) -> SelfAdaptive:
    """The running means before the first step; Wang et al. 2023, "FreeMatch", arXiv:2205.07246, sec. 4."""
    uniform = jnp.full(classes, 1 / classes, jnp.float32)
    return SelfAdaptive(jnp.float32(1 / classes), uniform, uniform)


def update_self_adaptive(means: SelfAdaptive, teacher: Array, memory: float) -> SelfAdaptive:
    """The running means after a step with log q (U, K), of about the last `memory` steps.

    Source: Wang et al. 2023, "FreeMatch", arXiv:2205.07246, sec. 4; its decay is 1 - 1 / memory.
    """
    counts = jax.nn.one_hot(teacher.argmax(-1), teacher.shape[-1])
    now = SelfAdaptive(jnp.exp(teacher.max(-1)).mean(), jnp.exp(teacher).mean(0), counts.mean(0))
    return optax.incremental_update(now, means, 1 / memory)


def self_adaptive_thresholds(means: SelfAdaptive) -> Array:
    """A threshold of each class, (K,): the global one, times the class's mean guess over the largest.

    Source: Wang et al. 2023, "FreeMatch", arXiv:2205.07246, sec. 4.1.
    """
    return means.confidence * means.guesses / means.guesses.max()


def self_adaptive_fairness(logits: Array, believed: Array, means: SelfAdaptive) -> Array:
    """sum_k a_k log b_k: student logits (U, K), which guesses are learnt (U,) bool -> () nats, at most 0.

    a: the running mean guess of each class over its running count; b: the same of the student's answers to the images
    whose guesses are learnt; each brought to sum 1. A class that no answer counts in has b = 0, and none of the
    gradient; one that has not been guessed for so long that its running count is 0 has a = 0; without any answer the
    term is 0. Source: Wang et al. 2023, "FreeMatch", arXiv:2205.07246, eq. 11, and code (freematch.py) for 1e-12 and
    for such classes.
    """
    probabilities = jax.nn.softmax(logits)
    answers = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1])
    counts = (answers * believed[:, None]).sum(0)
    wanted = means.guesses / means.counts
    wanted = jnp.where(jnp.isfinite(wanted), wanted, 0.0)
    given = jnp.where(counts > 0, (probabilities * believed[:, None]).sum(0) / jnp.maximum(counts, 1.0), 0.0)
    total = given.sum()
    given = given / jnp.where(total > 0, total, 1.0)
    terms = wanted / wanted.sum() * jnp.log(given + 1e-12)
    return jnp.where(total > 0, terms.sum(), 0.0)


def latest_guesses(latest: Array, rows: Array, teacher: Array, threshold: float) -> Array:
    """The latest confident guess of each of N images, -1 for none, after a step with log q (U, K): (N,) -> (N,) int32.

    rows (U,): which of the images the guesses are of. One that is not confident leaves what was there. An image may
    stand in a batch twice, at the border of two epochs: of its confident guesses the last one in the batch stays. As a
    maximum of integers, which a batch that is divided over devices gives in parts, bit for bit.
    Source: Zhang et al. 2021, "FlexMatch", arXiv:2110.08263, sec. 3.1 and algorithm 1.
    """
    places, classes = jnp.arange(rows.shape[0]), teacher.shape[-1]
    ordered = jnp.where(confident(teacher, threshold), places * classes + teacher.argmax(-1), -1)
    last = jnp.full_like(latest, -1).at[rows].max(ordered.astype(latest.dtype))
    return jnp.where(last < 0, latest, last % classes)


def curriculum_thresholds(latest: Array, images: int, classes: int, threshold: float) -> Array:
    """A threshold of each class, (K,), from latest guesses (N,), -1 for none: M(beta) t with M(x) = x / (2 - x).

    beta is how many images were guessed to be of the class over that of the best learnt class or over those of all
    `images` of the pool not yet guessed, whichever is larger. Source: Zhang et al. 2021, "FlexMatch", arXiv:2110.08263,
    sec. 3.1 to 3.3.
    """
    counts = jnp.bincount(latest + 1, length=classes + 1)[1:]
    effect = counts / jnp.maximum(counts.max(), images - counts.sum())
    return threshold * effect / (2 - effect)


def first_gaussian(classes: int) -> Gaussian:
    """Mean 1 / K and variance 1 before the first step; Chen et al. 2023, "SoftMatch", arXiv:2301.10921, sec. 3."""
    return Gaussian(jnp.float32(1 / classes), jnp.float32(1))


def update_gaussian(gaussian: Gaussian, teacher: Array, memory: float) -> Gaussian:
    """Mean and variance after a step with log q (U, K), U of at least 2, of about the last `memory` steps.

    Source: Chen et al. 2023, "SoftMatch", arXiv:2301.10921, sec. 3; the batch's variance is the unbiased one.
    """
    confidence = jnp.exp(teacher.max(-1))
    return optax.incremental_update(Gaussian(confidence.mean(), confidence.var(ddof=1)), gaussian, 1 / memory)


def truncated_gaussian(teacher: Array, gaussian: Gaussian, width: float) -> Array:
    """Weights of guesses: log q (U, K) -> (U,), 1 above the mean, exp(- (max q - mean)^2 / 2 s^2) below it.

    s is `width` times the running deviation. Source: Chen et al. 2023, "SoftMatch", arXiv:2301.10921, sec. 3.
    """
    short = jnp.minimum(jnp.exp(teacher.max(-1)) - gaussian.mean, 0.0)
    return jnp.exp(-jnp.square(short / width) / (2 * jnp.maximum(gaussian.variance, 1e-12)))  # 1e-12: all are sure


Annealing = Literal["none", "log", "linear", "exp"]


def signal_ceiling(annealing: Annealing, progress: Array, classes: int) -> Array:
    """How sure of a label the network may be and still learn it: share of the run () in [0, 1] -> () probability.

    From 1 / K to 1 along 1 - exp(-5 t), t or exp(5 (t - 1)); 1 all along with none. Raises UserError on others.
    Source: Xie et al. 2020, "Unsupervised Data Augmentation", arXiv:1904.12848, app. on training signal annealing.
    """
    risen = {
        "none": jnp.ones_like(progress),
        "log": 1 - jnp.exp(-5 * progress),
        "linear": progress,
        "exp": jnp.exp(5 * (progress - 1)),
    }[choose("annealing", annealing, get_args(Annealing))]
    return risen * (1 - 1 / classes) + 1 / classes


def annealed_cross_entropy(logits: Array, labels: Array, ceiling: Array) -> Array:
    """CE(p, label) in the mean of those with p(label) at most the ceiling: logits (L, K), labels (L,) -> () nats.

    0 where there are none. Source: Xie et al. 2020, arXiv:1904.12848, app. on training signal annealing.
    """
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    taught = jax.lax.stop_gradient(jnp.exp(-nats) <= ceiling)
    return mean_over(taught, nats)
