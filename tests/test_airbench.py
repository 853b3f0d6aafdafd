"""Jordan 2024: the network of airbench, by hand and against the numbers of the paper."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen.networks.airbench import EPSILON, Airbench, Whitening, dirac
from ssl_gen.networks.airbench import whitening as eager_whitening

CIFAR = (32, 32, 3)
WIDTHS = (64, 256, 256)  # Jordan 2024, sec. 3.1
KEY = jax.random.key(0)
whitening = jax.jit(eager_whitening)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def correlated(count, side, channels, seed=0):
    """Images whose neighbouring pixels and channels go together, and are off centre."""
    pixels = draw(count, side + 1, side + 1, channels, seed=seed)
    smooth = pixels[:, 1:, 1:] + 0.7 * pixels[:, :-1, 1:] + 0.5 * pixels[:, 1:, :-1]
    return jnp.float32(0.2 + 0.1 * smooth @ (np.eye(channels) + 0.3))


def patches(images):
    """Every 2 x 2 patch as a row, (P, 4 C)."""
    images = np.asarray(images, np.float64)
    corners = [images[:, i : images.shape[1] - 1 + i, j : images.shape[2] - 1 + j] for i in (0, 1) for j in (0, 1)]
    return np.concatenate(corners, -1).reshape(-1, 4 * images.shape[-1])


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_patches_have_mean_0_and_the_identity_for_covariance(channels):
    images = correlated(6, 12, channels)
    kernel, shift = whitening(images)
    white = patches(images) @ np.asarray(kernel, np.float64).reshape(4 * channels, -1) + np.asarray(shift)
    own = np.linalg.eigvalsh(np.cov(patches(images).T, bias=True))
    assert own.max() > 3 * own.min()  # there was something to whiten
    count = 4 * channels
    np.testing.assert_allclose(white[:, count:], -white[:, :count], atol=1e-5)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-4)
    shrunk = own[::-1] / (own[::-1] + EPSILON * own.mean())  # 1 but for EPSILON
    np.testing.assert_allclose(np.cov(white[:, :count].T, bias=True), np.diag(shrunk), atol=1e-3)
    np.testing.assert_allclose(shrunk, 1, atol=0.01)


def test_the_whitening_layer_is_that_of_the_images_of_init_whatever_comes_later():
    first, later = correlated(4, 9, 2), correlated(4, 9, 2, seed=1)
    variables = jax.jit(Whitening().init)(KEY, first)
    kernel, shift = whitening(first)
    for found, expected in zip(variables["constants"]["white"], (kernel, shift), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    bias = jnp.float32(draw(16))
    found = jax.jit(Whitening().apply)(variables | {"params": {"bias": bias}}, later)
    expected = patches(later) @ np.asarray(kernel).reshape(8, 16) + np.asarray(shift + bias)
    np.testing.assert_allclose(found, expected.reshape(4, 8, 8, 16), atol=1e-4)


def test_images_that_are_all_alike_stay_finite():
    assert all(np.isfinite(each).all() for each in whitening(jnp.full((3, 8, 8, 1), 0.5)))


@pytest.mark.parametrize("features", [5, 3, 2])
def test_a_dirac_kernel_keeps_its_input_in_the_first_outputs(features):
    x = jnp.float32(draw(2, 5, 5, 3))
    kernel = dirac(KEY, (3, 3, 3, features))
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    kept = min(3, features)
    np.testing.assert_array_equal(y[..., :kept], x[..., :kept])
    rest = np.asarray(kernel)[..., kept:]
    assert (np.abs(rest) <= 1 / np.sqrt(9 * 3)).all()  # PyTorch's default: U(-1, 1) / sqrt(fan in)
    assert features == kept or rest.std() == pytest.approx(1 / np.sqrt(9 * 3) / np.sqrt(3), rel=0.2)


def layers():
    """(pixels, inputs, outputs) of the six 3 x 3 convolutions at 32 x 32: the second of a block comes after pooling."""
    side, inputs = 31, 24
    for width in WIDTHS:
        yield side, inputs, width
        side //= 2
        yield side, width, width
        inputs = width


def test_airbench94_has_the_layers_of_the_paper_and_1_97_million_parameters():
    images = jax.ShapeDtypeStruct((2, *CIFAR), jnp.float32)
    found = jax.eval_shape(lambda x: Airbench(10).init(KEY, x, train=False), images)
    kernels = [9 * inputs * outputs for _, inputs, outputs in layers()]
    biases = 24 + 2 * sum(WIDTHS)
    learnt = sum(leaf.size for leaf in jax.tree.leaves(found["params"]))
    assert learnt == sum(kernels) + biases + WIDTHS[-1] * 10
    assert round((learnt + found["constants"]["Whitening_0"]["white"].kernel.size) / 1e6, 2) == 1.97


def test_airbench94_computes_what_the_paper_says_it_does():
    """0.36 PFLOP a run: 9.9 epochs of 48 x 1,024 images, a step three forward passes, and 60,000 views at the test."""
    whole = 2 * (31**2 * 12 * 24 + sum(side**2 * 9 * inputs * outputs for side, inputs, outputs in layers()) + 2560)
    assert round((int(48 * 9.9 + 1) * 1024 * 3 + 60_000) * whole / 1e15, 2) == 0.36
    inner = 2 * (  # as XLA counts: no products with the border's zeros
        31**2 * 12 * 24 + sum((3 * side - 2) ** 2 * inputs * outputs for side, inputs, outputs in layers()) + 2560
    )
    images = jax.ShapeDtypeStruct((1, *CIFAR), jnp.float32)
    network = Airbench(10)
    variables = jax.eval_shape(lambda x: network.init(KEY, x, train=False), images)
    found = jax.jit(functools.partial(network.apply, train=False)).lower(variables, images).cost_analysis()["flops"]
    assert inner < found < 1.03 * inner  # the rest are norms and activations
