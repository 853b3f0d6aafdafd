"""Miyato et al. 2018: the direction is that of the greatest KL, found another way on a small net."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen.losses.virtual_adversarial import adversarial_direction, kl_divergence, unit
from ssl_gen.methods.self_training.vat import Config, adam

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(3, 2, 3, 1))
FIRST, SECOND = RANDOM.normal(size=(6, 8)), RANDOM.normal(size=(8, 4))
START = RANDOM.normal(size=IMAGES.shape)


def f32(array):
    return jnp.asarray(array, jnp.float32)


def classify(images):
    return jnp.tanh(images.reshape(len(images), -1) @ f32(FIRST)) @ f32(SECOND)


def kl_by_hand(image, change):
    """KL(p(x) || p(x + r)) of one image (6,) in float64."""
    logits = [np.tanh(each @ FIRST) @ SECOND for each in (image, image + change)]
    p, q = (np.exp(each) / np.exp(each).sum() for each in logits)
    return (p * np.log(p / q)).sum()


def hessian_by_hand(image, size=1e-4):
    """Of the KL in r at r = 0, by finite differences, (6, 6)."""
    steps = size * np.eye(6)

    def at(a, b):
        return kl_by_hand(image, a + b)

    return np.array([[at(a, b) - at(a, -b) - at(-a, b) + at(-a, -b) for a in steps] for b in steps]) / (4 * size**2)


def test_kl_divergence_is_the_sum_of_its_definition():
    expected = np.mean([kl_by_hand(image, change) for image, change in zip(*flat(IMAGES, 0.3 * START), strict=True)])
    found = kl_divergence(classify(f32(IMAGES)), classify(f32(IMAGES + 0.3 * START)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def flat(*arrays):
    return [array.reshape(len(array), -1) for array in arrays]


@pytest.mark.parametrize("iterations", [1, 2])
def test_the_direction_is_the_hessian_by_finite_differences_times_the_start(iterations):
    found = adversarial_direction(classify, f32(IMAGES), f32(START), iterations)
    for image, start, direction in zip(*flat(IMAGES, START, np.asarray(found)), strict=True):
        expected = start
        for _ in range(iterations):
            expected = hessian_by_hand(image) @ expected
            expected = expected / np.linalg.norm(expected)
        np.testing.assert_allclose(direction, expected, atol=1e-3)


def test_after_many_iterations_no_direction_of_a_thousand_has_a_greater_kl():
    found = np.asarray(adversarial_direction(classify, f32(IMAGES), f32(START), 60))
    for image, direction in zip(*flat(IMAGES, found), strict=True):
        others = RANDOM.normal(size=(1000, 6))
        others = 1e-2 * others / np.linalg.norm(others, axis=-1, keepdims=True)
        assert kl_by_hand(image, 1e-2 * direction) > max(kl_by_hand(image, other) for other in others)


def test_images_are_brought_to_norm_1_however_small_and_zeros_stay():
    images = f32(np.stack([IMAGES[0], 1e-30 * IMAGES[1], 0 * IMAGES[2]]))
    norms = np.linalg.norm(flat(unit(images))[0], axis=-1)
    np.testing.assert_allclose(norms, [1, 1, 0], rtol=1e-5)


def test_the_rate_falls_at_the_end_and_b1_with_it():
    optimizer, params = adam(Config(steps=12)), jnp.zeros(())
    state, found = optimizer.init(params), []
    for _ in range(12):
        _, state = optimizer.update(jnp.ones(()), state, params)
        found.append((float(state.hyperparams["learning_rate"]), float(state.hyperparams["b1"])))
    expected = [(1e-3, 0.9)] * 8 + [(1e-3 * left / 4, 0.5) for left in (4, 3, 2, 1)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
