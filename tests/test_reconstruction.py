"""How near two batches of images are, by hand, by brute force and against scikit-image."""

import numpy as np
import pytest
import skimage.metrics
from sklearn.datasets import load_digits

from ssl_gen.metrics import imputation, reconstruction
from ssl_gen.types import UserError

RANDOM = np.random.default_rng(0)
DIGITS = np.round(load_digits().images[:12, :, :, None] * (255 / 16)).astype(np.uint8)


def noisy(images, deviation):
    """Images (B, H, W, C) uint8 with Gaussian noise of some levels, cut off at 0 and 255."""
    return np.clip(np.round(images + RANDOM.normal(0, deviation, images.shape)), 0, 255).astype(np.uint8)


def pictures(*shape):
    """Images (B, H, W, C) uint8 with structure, and the same with noise of 20 levels."""
    rows, columns = np.indices(shape[1:3])[..., None]
    phase = RANDOM.uniform(0, 6, (shape[0], 1, 1, shape[3]))
    images = np.round(127.5 + 120 * np.sin(rows / 3 + phase) * np.cos(columns / 4 - phase)).astype(np.uint8)
    return images, noisy(images, 20)


def weights(radius):
    """The Gaussian window (2 radius + 1, 2 radius + 1) of deviation 1.5, sum 1."""
    squares = np.arange(-radius, radius + 1) ** 2
    window = np.exp(-(squares[:, None] + squares) / (2 * 1.5**2))
    return window / window.sum()


def similarity_by_brute_force(a, b, radius):
    """Structural similarity of two images (H, W), window by window, from the weighted moments as defined."""
    window, size, found = weights(radius), 2 * radius + 1, []
    for i in range(a.shape[0] - size + 1):
        for j in range(a.shape[1] - size + 1):
            x, y = (image[i : i + size, j : j + size].astype(float) for image in (a, b))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            variance_x, variance_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
            covariance = (window * (x - mean_x) * (y - mean_y)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            top = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
            found.append(top / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)))
    return np.mean(found)


def grey(*levels):
    """Images (B, 12, 13, 1) of one level each."""
    return np.array(levels, np.uint8)[:, None, None, None] * np.ones((1, 12, 13, 1), np.uint8)


@pytest.mark.parametrize("shape", [(5, 28, 28, 1), (3, 32, 32, 3), (2, 11, 17, 2), (2, 40, 12, 1)])
def test_the_similarity_is_that_of_scikit_image(shape):
    a, b = pictures(*shape)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = [
        skimage.metrics.structural_similarity(x, y, channel_axis=-1, **settings) for x, y in zip(a, b, strict=True)
    ]
    assert reconstruction.ssim(a, b) == pytest.approx(np.mean(expected), rel=1e-10)


def test_the_similarity_is_that_of_the_definition():
    a, b = pictures(1, 14, 13, 1)
    expected = similarity_by_brute_force(a[0, :, :, 0], b[0, :, :, 0], 5)
    assert reconstruction.ssim(a, b) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("height", "width", "radius"), [(8, 8, 3), (10, 30, 4), (9, 12, 4), (3, 8, 1), (2, 8, 0)])
def test_small_images_get_the_largest_window_that_fits(height, width, radius):
    a, b = pictures(1, height, width, 1)
    expected = similarity_by_brute_force(a[0, :, :, 0], b[0, :, :, 0], radius)
    assert reconstruction.ssim(a, b) == pytest.approx(expected, rel=1e-10)


def test_equal_images_are_wholly_similar():
    assert reconstruction.ssim(DIGITS, DIGITS) == pytest.approx(1, abs=1e-12)


def test_flat_images_are_as_similar_as_their_brightness():
    x, y, c = 100 / 255, 140 / 255, 0.01**2
    found = reconstruction.ssim(grey(100), grey(140))
    assert found == pytest.approx((2 * x * y + c) / (x**2 + y**2 + c), rel=1e-10)


def test_inverted_images_are_unlike():
    a, _ = pictures(2, 28, 28, 1)
    assert reconstruction.ssim(a, 255 - a) < 0


def test_the_squared_error_by_hand():
    assert reconstruction.mean_squared_error(grey(0, 255), grey(255, 255)) == 0.5
    assert reconstruction.mean_squared_error(grey(3), grey(54)) == pytest.approx(0.2**2)


def test_the_squared_error_is_that_of_scikit_image():
    b = noisy(DIGITS, 30)
    expected = skimage.metrics.mean_squared_error(DIGITS / 255, b / 255)
    assert reconstruction.mean_squared_error(DIGITS, b) == pytest.approx(expected)


def test_the_noise_ratio_is_the_mean_of_that_of_each_image():
    b = noisy(DIGITS, 30)
    expected = [skimage.metrics.peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(DIGITS, b, strict=True)]
    assert reconstruction.psnr(DIGITS, b) == pytest.approx(np.mean(expected))


def test_the_noise_ratio_by_hand():
    white = np.full((1, 4, 10, 1), 255, np.uint8)
    spotted = white.copy()
    spotted[:, :, 0] = 0  # one pixel in ten, by the whole range
    assert reconstruction.psnr(white, spotted) == pytest.approx(10)
    assert reconstruction.psnr(grey(0), grey(51)) == pytest.approx(20 * np.log10(5))


def test_equal_images_count_as_if_one_value_were_off_by_one_level():
    nearly = DIGITS.copy()
    nearly[:, 3, 3] ^= 1
    assert reconstruction.psnr(DIGITS, DIGITS) == pytest.approx(10 * np.log10(255**2 * 64))
    assert reconstruction.psnr(DIGITS, nearly) == pytest.approx(reconstruction.psnr(DIGITS, DIGITS))


MEASURES = [reconstruction.mean_squared_error, reconstruction.psnr, reconstruction.ssim]


@pytest.mark.parametrize("measure", MEASURES)
def test_both_sides_count_the_same(measure):
    b = noisy(DIGITS, 30)
    assert measure(DIGITS, b) == pytest.approx(measure(b, DIGITS), rel=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_many_images_are_measured_a_few_at_a_time_with_the_same_result(measure, monkeypatch):
    b = noisy(DIGITS, 30)
    whole = measure(DIGITS, b)
    for values in (1, 5 * 64):
        monkeypatch.setattr(reconstruction, "CHUNK", values)
        assert measure(DIGITS, b) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_more_noise_is_worse(measure):
    values = [measure(DIGITS, noisy(DIGITS, deviation)) for deviation in (5, 20, 80)]
    assert values == sorted(values, reverse=measure is not reconstruction.mean_squared_error)


@pytest.mark.parametrize("measure", MEASURES)
def test_numbers_are_plain_floats(measure):
    assert type(measure(DIGITS, DIGITS)) is float


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (DIGITS, DIGITS[:5], r"\(12, 8, 8, 1\) and \(5, 8, 8, 1\)"),
        (DIGITS[..., 0], DIGITS[..., 0], r"\(12, 8, 8\) and \(12, 8, 8\)"),
        (DIGITS[:0], DIGITS[:0], "B > 0"),
        (DIGITS[:, :0], DIGITS[:, :0], "B > 0"),
        (DIGITS, DIGITS / 255, "not uint8 and float64"),
    ],
)
def test_images_that_cannot_be_compared_are_refused(measure, a, b, message):
    with pytest.raises(UserError, match=message):
        measure(a, b)


def test_hidden_pixels_are_taken_from_the_guess_and_the_others_from_the_image():
    images, guess = np.arange(2 * 4 * 3, dtype=np.float32).reshape(2, 2, 2, 3), -np.ones((2, 2, 3), np.float32)
    hidden = np.zeros((2, 2, 2, 1), bool)
    hidden[0, 1, 0] = hidden[1, 0, 1] = True
    found = np.asarray(imputation.filled(images, hidden, guess))
    expected = images.copy()
    expected[0, 1, 0] = expected[1, 0, 1] = -1
    np.testing.assert_array_equal(found, expected)


def test_the_error_on_hidden_pixels_is_that_of_scikit_image_on_them():
    a, b = DIGITS / np.float32(127.5) - 1, noisy(DIGITS, 40) / np.float32(127.5) - 1
    hidden = imputation.hidden_pixels(a, 0.3, seed=0)
    expected = skimage.metrics.mean_squared_error((a[hidden] + 1) / 2, (b[hidden] + 1) / 2) ** 0.5
    assert imputation.hidden_error(a, b, hidden) == pytest.approx(expected, rel=1e-5)
