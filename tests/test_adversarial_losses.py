"""Adversarial losses against float64, penalties on discriminators whose slopes are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen.augmentation import Augmentation
from ssl_gen.core.batching import interleave
from ssl_gen.losses import adversarial
from ssl_gen.losses.adversarial import (
    DIFFERENCES,
    Game,
    discriminator_terms,
    generator_loss,
    gradient_penalty,
    judged_with_slopes,
    squared_slopes,
)
from ssl_gen.networks import conv
from ssl_gen.types import UserError

RANDOM = np.random.default_rng(0)
REAL, FAKE = 2 * RANDOM.normal(size=7), 2 * RANDOM.normal(size=7)
IMAGES, OTHERS = RANDOM.normal(size=(2, 5, 4, 3, 2))
SHARES = RANDOM.uniform(size=5)
WEIGHTS = RANDOM.normal(size=(4, 3, 2))
EXTREME = jnp.array([1e4, -1e4, 0.0, 1e30, -1e30])


def f32(array):
    return jnp.asarray(array, jnp.float32)


def log_sigmoid(scores):
    return np.log(1 / (1 + np.exp(-scores)))


def positive(scores):
    return np.where(scores > 0, scores, 0)


EXPECTED = {  # what the discriminator loses in all, and the generator
    "non_saturating": (-(log_sigmoid(REAL) + log_sigmoid(-FAKE)).mean(), -log_sigmoid(FAKE).mean()),
    "least_squares": (((REAL - 1) ** 2 + FAKE**2).mean() / 2, ((FAKE - 1) ** 2).mean() / 2),
    "hinge": ((positive(1 - REAL) + positive(1 + FAKE)).mean(), -FAKE.mean()),
    "wasserstein": (FAKE.mean() - REAL.mean(), -FAKE.mean()),
    "relativistic": (-log_sigmoid(REAL - FAKE).mean(), -log_sigmoid(FAKE - REAL).mean()),
}
every_loss = pytest.mark.parametrize("loss", EXPECTED)


@every_loss
def test_each_loss_is_its_formula(loss):
    of_discriminator, of_generator = EXPECTED[loss]
    np.testing.assert_allclose(
        sum(discriminator_terms(loss, f32(REAL), f32(FAKE)).values()), of_discriminator, rtol=1e-5
    )
    np.testing.assert_allclose(generator_loss(loss, f32(FAKE), f32(REAL)), of_generator, rtol=1e-5)


@every_loss
def test_the_discriminator_parts_what_the_generator_brings_together(loss):
    apart = jax.grad(lambda real, fake: sum(discriminator_terms(loss, real, fake).values()), (0, 1))
    low = f32([0.5, 0.2, 0.3])  # where no loss is yet content
    real, fake = apart(low, low)
    assert (real < 0).all() and (fake > 0).all()
    assert (jax.grad(lambda fake: generator_loss(loss, fake, low))(low) < 0).all()


@every_loss
def test_a_number_added_to_all_logits_changes_nothing_where_only_differences_count(loss):
    def total(shift):
        return float(sum(discriminator_terms(loss, f32(REAL + shift), f32(FAKE + shift)).values()))

    assert np.isclose(total(0.0), total(1.0), rtol=1e-5) == (loss in DIFFERENCES)


def test_the_hinge_leaves_what_is_told_apart_by_a_margin():
    def total(real, fake):
        return sum(discriminator_terms("hinge", real, fake).values())

    real, fake = jax.grad(total, (0, 1))(f32([1.5, 0.5]), f32([-1.5, -0.5]))
    np.testing.assert_allclose(real, [0, -1 / 2])
    np.testing.assert_allclose(fake, [0, 1 / 2])


@pytest.mark.parametrize("loss", ["non_saturating", "hinge", "wasserstein", "relativistic"])
def test_extreme_logits_keep_losses_and_gradients_finite(loss):
    def total(real, fake):
        return sum(discriminator_terms(loss, real, fake).values()) + generator_loss(loss, fake, real)

    value, gradients = jax.value_and_grad(total, (0, 1))(EXTREME, EXTREME[::-1])
    assert np.isfinite(value) and np.isfinite(gradients).all()


def test_an_unknown_loss_is_named():
    for formula in (discriminator_terms, generator_loss):
        with pytest.raises(UserError, match="loss is 'saturating': choose one of non_saturating, least_squares"):
            formula("saturating", f32(REAL), f32(FAKE))


def linear(weights, images):
    """s(x) = <w, x> + 3, of slope |w| everywhere."""
    return (weights * images).sum((1, 2, 3)) + 3


def quadratic(images):
    """s(x) = |x|^2 / 2, of slope |x|."""
    return (images**2).sum((1, 2, 3)) / 2


def squared_norms(images):
    return (np.float64(images) ** 2).sum((1, 2, 3))


def test_squared_slopes_are_those_of_each_image():
    weights = f32(WEIGHTS)
    np.testing.assert_allclose(
        squared_slopes(functools.partial(linear, weights), f32(IMAGES)), np.full(5, (WEIGHTS**2).sum()), rtol=1e-5
    )
    np.testing.assert_allclose(squared_slopes(quadratic, f32(IMAGES)), squared_norms(IMAGES), rtol=1e-5)


def test_the_gradient_penalty_asks_for_slope_1_between_real_and_generated():
    between = SHARES[:, None, None, None] * IMAGES + (1 - SHARES[:, None, None, None]) * OTHERS
    expected = ((np.sqrt(squared_norms(between)) - 1) ** 2).mean()
    given = f32(IMAGES), f32(OTHERS), f32(SHARES)
    np.testing.assert_allclose(gradient_penalty(quadratic, *given), expected, rtol=1e-5)
    unit = f32(WEIGHTS / np.sqrt((WEIGHTS**2).sum()))
    np.testing.assert_allclose(gradient_penalty(functools.partial(linear, unit), *given), 0, atol=1e-10)


def test_the_gradient_penalty_trains_the_weights_that_make_the_slope():
    def penalty(weights):
        return gradient_penalty(functools.partial(linear, weights), f32(IMAGES), f32(OTHERS), f32(SHARES))

    norm = np.sqrt((WEIGHTS**2).sum())
    np.testing.assert_allclose(jax.grad(penalty)(f32(WEIGHTS)), 2 * (norm - 1) * WEIGHTS / norm, rtol=1e-4)


def test_a_discriminator_without_slope_has_a_finite_gradient_penalty():
    def penalty(weights):
        return gradient_penalty(functools.partial(linear, weights), f32(IMAGES), f32(OTHERS), f32(SHARES))

    value, gradient = jax.value_and_grad(penalty)(jnp.zeros(WEIGHTS.shape))
    np.testing.assert_allclose(value, 1, rtol=1e-5)
    assert np.isfinite(gradient).all()


def rowed(images, key):
    """Two outputs of each image, whose first is the logit `quadratic`, and statistics: the batch's size."""
    return jnp.stack([quadratic(images), images[:, 0, 0, 0]], -1), images.shape[0]


def test_one_pass_judges_images_and_finds_the_slopes_of_the_logit_alone():
    outputs, slopes, stats = judged_with_slopes(rowed, f32(IMAGES), jax.random.key(0))
    np.testing.assert_array_equal(outputs, rowed(f32(IMAGES), None)[0])
    np.testing.assert_allclose(slopes, squared_norms(IMAGES), rtol=1e-5)
    assert stats == 5


@every_loss
def test_a_game_judges_real_and_generated_images_together_with_the_penalty_of_the_losss_paper(loss):
    game, real, fake = Game(loss, Augmentation(), 7.0, 0.3), f32(IMAGES), f32(OTHERS)
    terms, outputs, stats = game.discriminator_terms(rowed, real, fake, jax.random.key(0))
    expected = discriminator_terms(loss, quadratic(real), quadratic(fake))
    if loss == "wasserstein":
        shares = jax.random.uniform(jax.random.split(jax.random.key(0), 4)[3], (5,))
        expected["gradient_penalty"] = 7 * gradient_penalty(quadratic, real, fake, shares)
    if loss == "relativistic":
        expected["r1"], expected["r2"] = (0.3 / 2 * squared_norms(images).mean() for images in (IMAGES, OTHERS))
    assert terms.keys() == expected.keys() and stats == 10
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-5)
    for found, images in zip(outputs, (IMAGES, OTHERS), strict=True):
        np.testing.assert_allclose(found[:, 0], squared_norms(images) / 2, rtol=1e-5)
        np.testing.assert_allclose(found[:, 1], images[:, 0, 0, 0], rtol=1e-5)


@every_loss
def test_a_game_shows_the_generators_judge_real_images_only_where_the_loss_compares_them(loss):
    seen, real, fake = [], f32(IMAGES), f32(OTHERS)

    def judge(images, key):
        return seen.append(len(images)) or rowed(images, key)

    keys = jax.random.split(jax.random.key(0))
    terms, outputs = Game(loss, Augmentation(), 7.0, 0.3).generator_terms(judge, fake, real, keys)
    assert seen == [10 if loss == "relativistic" else 5]
    np.testing.assert_allclose(terms["adversarial"], generator_loss(loss, quadratic(fake), quadratic(real)), rtol=1e-5)
    np.testing.assert_allclose(outputs[:, 1], OTHERS[:, 0, 0, 0], rtol=1e-5)


def test_a_game_augments_real_and_generated_images_for_both_players():
    flips, seen = Augmentation(flip=True), []

    def judge(images, key):
        return seen.append(np.asarray(images)) or rowed(images, key)

    real, fake, keys = f32(IMAGES), f32(OTHERS), jax.random.split(jax.random.key(0))
    Game("hinge", flips, 7.0, 0.3).discriminator_terms(judge, real, fake, keys[0])
    Game("relativistic", flips, 7.0, 0.3).generator_terms(judge, fake, real, keys)
    for images, order in zip(seen, ((real, fake), (fake, real)), strict=True):
        for part, whole in zip((images[::2], images[1::2]), order, strict=True):
            flipped = np.array([not np.array_equal(a, b) for a, b in zip(part, whole, strict=True)])
            assert 0 < flipped.sum() < len(flipped)
            np.testing.assert_array_equal(part[flipped], np.asarray(whole)[flipped][:, :, ::-1])


def test_penalties_are_on_the_slopes_in_the_augmented_images(monkeypatch):
    """Zhao et al. 2020, code, training/loss.py, ns_r1_DiffAugment: the gradient is not taken through the change."""
    augmented = 3 * np.asarray(interleave(f32(IMAGES), f32(OTHERS)))  # the slope of `quadratic` in x is x
    monkeypatch.setattr(adversarial, "augment", lambda config, key, images: 3 * images)
    game = Game("relativistic", Augmentation(), 7.0, 0.3)
    terms, _, _ = game.discriminator_terms(rowed, f32(IMAGES), f32(OTHERS), jax.random.key(0))
    for name, part in (("r1", augmented[::2]), ("r2", augmented[1::2])):
        np.testing.assert_allclose(terms[name], 0.3 / 2 * squared_norms(part).mean(), rtol=1e-5)


@functools.partial(jax.jit, static_argnums=0)
def trained_by_penalty(body, params, real, fake):
    """The gradient, in the params of a convolutional discriminator, of all penalties on its slope."""
    network = conv.Discriminator(1, 3, 4, body=body)

    def total(params):
        def judge(images):
            return network.apply({"params": params}, images, None, train=True)[0][:, 0]

        slopes = squared_slopes(judge, interleave(real, fake))
        return gradient_penalty(judge, real, fake, jnp.full(len(real), 0.3)) + slopes.mean()

    return jax.grad(total)(params)


def test_penalties_train_convolutions_alike_through_both_bodies():
    real, fake = (f32(np.tanh(RANDOM.normal(size=(4, 9, 8, 2)))) for _ in range(2))
    params = conv.Discriminator(1, 3, 4).init(jax.random.key(0), real, None, train=True)["params"]
    ours, native = (trained_by_penalty(body, params, real, fake) for body in ("cpu", "native"))
    for path, gradient in jax.tree.leaves_with_path(native):
        if "bias" in jax.tree_util.keystr(path):
            continue  # a slope changes with a bias only where a leaky ReLU bends
        assert np.abs(gradient).max() > 1e-3, path
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * max(float(np.abs(b).max()), 1e-3)), ours, native
    )
