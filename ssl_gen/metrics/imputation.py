"""How well hidden pixels of an image are filled in by encoding and decoding.

Pixels are hidden at random, independently of each other and of the image, and filled in by encoding and decoding again
and again while the others stay: Rezende, Mohamed and Wierstra 2014, "Stochastic Backpropagation and Approximate
Inference in Deep Generative Models", arXiv:1401.4082. There each pass draws from q(z | x) and p(x | z), a Markov chain;
here both give their means, so that the error does not hold the noise of a draw.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from ssl_gen.metrics.metric import Evaluated, Metric, Number
from ssl_gen.types import Array, UserError

HIDDEN = 0.3  # share of the pixels that is hidden; ours
PASSES = 20  # of encoding and decoding; ours: on digits the errors after 5 and 80 are within a tenth
IMPUTED = 1_000  # test images at most that it is measured on, so that convolutional networks take seconds; ours


def hidden_pixels(images: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which pixels of images (B, H, W, C) to hide -> (B, H, W, 1) bool, each True with probability `share`.

    All channels of a pixel are hidden together.
    """
    return np.random.default_rng(seed).random((*images.shape[:3], 1)) < share


def filled(images: Array, hidden: Array, guess: Array) -> Array:
    """images (B, H, W, C) with the pixels that are hidden (B, H, W, 1) taken from `guess`, an image or one for each.

    One pass of imputation is filled(images, hidden, decode(encode(images))).
    Source: Rezende et al. 2014, arXiv:1401.4082.
    """
    return jnp.where(hidden, guess, images)


def hidden_error(images: np.ndarray, guesses: np.ndarray, hidden: np.ndarray) -> float:
    """The root mean squared error, pixels in [0, 1], of guesses on the hidden pixels (B, H, W, 1) of all images.

    images and guesses (B, H, W, C) in [-1, 1]. Raises UserError where nothing is hidden.
    """
    where = np.broadcast_to(hidden, images.shape)
    if not where.any():
        raise UserError(f"no pixel of {len(images)} images is hidden: imputation needs test images")
    halves = (images[where].astype(np.float64) - guesses[where]) / 2
    return float(np.sqrt(np.square(halves).mean()))


def measure(replica: Evaluated) -> dict[str, float]:
    """The error on hidden pixels of test images, by the method and by the mean training image, where both start.

    The same images and pixels for every replica and every method.
    """
    rows = np.random.default_rng(0).permutation(len(replica.test_images))[:IMPUTED]
    images = replica.test_images[rows].astype(np.float32) / 127.5 - 1
    mean_image = replica.train_images.mean(0).astype(np.float32) / 127.5 - 1
    hidden = hidden_pixels(images, HIDDEN, seed=1)
    guesses = replica.impute(images, hidden, mean_image, PASSES)
    return {
        "imputation": hidden_error(images, guesses, hidden),
        "imputation_mean_image": hidden_error(images, np.broadcast_to(mean_image, images.shape), hidden),
    }


IMPUTATION = Metric(
    "root mean squared error on 30 % of test pixels, hidden, by encoding and decoding; and that of the mean image",
    ("encode", "decode"),
    measure,
    {"imputation": Number(better="lower"), "imputation_mean_image": Number()},
)
