"""How near images come to their originals, encoded and decoded: mean squared error, PSNR and SSIM of uint8 images.

A decoder that is told a class is told the method's own guess, not the true class of a test image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.ndimage import gaussian_filter

from ssl_gen.metrics.metric import Evaluated, Metric, Number
from ssl_gen.types import UserError

SIGMA = 1.5  # pixels, of the Gaussian window; Wang et al. 2004, sec. III-C
RADIUS = 5  # pixels, a window of 11 x 11; Wang et al. 2004, sec. III-C
K1, K2 = 0.01, 0.03  # Wang et al. 2004, sec. III-C
CHUNK = 2**19  # values held in float64 at a time, so that large sets fit in memory; ours


def mean_squared_error(a: np.ndarray, b: np.ndarray) -> float:
    """The mean of (a - b)^2 over images (B, H, W, C) uint8 and their pixels, with pixels in [0, 1].

    Raises UserError unless both sides are uint8 images of the same shape, and at least one.
    """
    return float(squared_errors(a, b).mean())


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """The peak signal-to-noise ratio, mean over pairs of images (B, H, W, C) uint8 of -10 log10 MSE, in dB.

    An image equal to its original counts as if one value of it were off by one level: 10 log10(255^2 H W C) dB, the
    largest finite ratio of images of its size (77.1 dB for 28 x 28 grey ones), so that the mean is a number.
    Raises UserError unless both sides are uint8 images of the same shape, and at least one.
    Source: Hore and Ziou 2010, "Image quality metrics: PSNR vs. SSIM".
    """
    errors = squared_errors(a, b)
    least = 1 / (255**2 * math.prod(a.shape[1:]))
    return float(-10 * np.log10(np.maximum(errors, least)).mean())


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """The structural similarity of pairs of images (B, H, W, C) uint8, at most 1; mean over images and channels.

    Means and population covariances are weighted by a Gaussian window of 11 x 11 pixels, at all places where it fits
    whole; where an image is smaller, by the largest odd square that fits (7 x 7 for 8 x 8 digits).
    Raises UserError unless both sides are uint8 images of the same shape, and at least one.
    Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", eq. 13.
    """
    check_pairs(a, b)
    radius = min(RADIUS, (min(a.shape[1:3]) - 1) // 2)
    return float(np.concatenate([similarities(x, y, radius) for x, y in chunks(a, b)]).mean())


def similarities(x: np.ndarray, y: np.ndarray, radius: int) -> np.ndarray:
    """The structural similarity of each pair of images (B, H, W, C) in [0, 1] -> (B,); radius of the window in pixels.

    Source: Wang et al. 2004, eq. 13 to 17.
    """
    height, width = x.shape[1:3]

    def local_mean(values: np.ndarray) -> np.ndarray:
        means = gaussian_filter(values, SIGMA, radius=radius, axes=(1, 2))
        return means[:, radius : height - radius, radius : width - radius]

    mean_x, mean_y = local_mean(x), local_mean(y)
    variances = local_mean(x * x + y * y) - mean_x**2 - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    contrast_and_structure = (2 * covariance + K2**2) / (variances + K2**2)
    return (luminance * contrast_and_structure).mean((1, 2, 3))


def squared_errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The mean squared error of each pair of images (B, H, W, C) uint8, pixels in [0, 1] -> (B,).

    Raises UserError unless both sides are uint8 images of the same shape, and at least one.
    """
    check_pairs(a, b)
    return np.concatenate([((x - y) ** 2).mean((1, 2, 3)) for x, y in chunks(a, b)])


def chunks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images (B, H, W, C) uint8 of both sides -> a few (b, H, W, C) at a time, in [0, 1], float64."""
    rows = max(1, CHUNK // math.prod(a.shape[1:]))
    for start in range(0, len(a), rows):
        yield a[start : start + rows] / 255.0, b[start : start + rows] / 255.0


def check_pairs(a: np.ndarray, b: np.ndarray) -> None:
    """Raise UserError unless both sides are images (B, H, W, C) uint8 of the same shape, and at least one."""
    if a.shape != b.shape or a.ndim != 4 or not a.size:
        raise UserError(f"originals and reconstructions must both be (B, H, W, C), B > 0: got {a.shape} and {b.shape}")
    if a.dtype != np.uint8 or b.dtype != np.uint8:
        raise UserError(f"originals and reconstructions must be uint8 images, not {a.dtype} and {b.dtype}")


def measure(replica: Evaluated) -> dict[str, float]:
    """Of the test images."""
    images, again = replica.test_images, replica.reconstructions
    return {
        "reconstruction_mse": mean_squared_error(images, again),
        "reconstruction_psnr": psnr(images, again),
        "reconstruction_ssim": ssim(images, again),
    }


RECONSTRUCTION = Metric(
    "mean squared error, PSNR (dB) and SSIM of test images, encoded and decoded",
    ("encode", "decode"),
    measure,
    {
        "reconstruction_mse": Number(better="lower"),
        "reconstruction_psnr": Number("dB", "higher"),
        "reconstruction_ssim": Number(better="higher"),
    },
)
