"""Densities, divergences and bounds of latent-variable models against closed forms, sums and integrals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from ssl_gen.core.batching import separate
from ssl_gen.losses import likelihood
from ssl_gen.types import UserError

RANDOM = np.random.default_rng(0)
MEAN, LOG_VARIANCE = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(4, 3))
LEVELS = np.arange(256) / 127.5 - 1


def f32(array):
    return jnp.asarray(array, jnp.float32)


def test_the_divergence_is_the_integral_of_its_definition():
    for mean, log_variance in zip(MEAN[:, 0], LOG_VARIANCE[:, 0], strict=True):
        q = norm(mean, np.exp(log_variance / 2))
        expected, _ = quad(lambda z, q=q: q.pdf(z) * (q.logpdf(z) - norm.logpdf(z)), -15, 15)
        found = likelihood.kl_to_prior(f32([[mean]]), f32([[log_variance]]))
        np.testing.assert_allclose(found, [expected], rtol=1e-4)


def test_the_divergence_sums_over_latents_and_is_0_at_the_prior():
    each = [likelihood.kl_to_prior(f32(MEAN[:, [j]]), f32(LOG_VARIANCE[:, [j]])) for j in range(3)]
    np.testing.assert_allclose(likelihood.kl_to_prior(f32(MEAN), f32(LOG_VARIANCE)), sum(each), rtol=1e-5)
    np.testing.assert_array_equal(likelihood.kl_to_prior(jnp.zeros((2, 3)), jnp.zeros((2, 3))), 0)


def test_the_prior_ratio_is_that_of_the_two_densities_and_its_mean_is_minus_the_divergence():
    noise = RANDOM.normal(size=(200_000, 3))
    mean, log_variance = np.broadcast_to(MEAN[0], noise.shape), np.broadcast_to(LOG_VARIANCE[0], noise.shape)
    found = np.asarray(likelihood.log_prior_ratio(f32(mean), f32(log_variance), f32(noise)))
    z = mean + np.exp(log_variance / 2) * noise
    expected = (norm.logpdf(z) - norm.logpdf(z, mean, np.exp(log_variance / 2))).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    divergence = likelihood.kl_to_prior(f32(MEAN[:1]), f32(LOG_VARIANCE[:1]))[0]
    np.testing.assert_allclose(found.mean(), -divergence, atol=5 * found.std() / np.sqrt(len(found)))


def test_the_normal_density_sums_over_all_entries():
    x, mean, log_variance = RANDOM.normal(size=(3, 2, 4, 5, 1))
    expected = norm.logpdf(x, mean, np.exp(log_variance / 2)).reshape(2, -1).sum(-1)
    np.testing.assert_allclose(likelihood.normal(f32(x), f32(mean), f32(log_variance)), expected, rtol=1e-4)


# Of a linear model x = W z + b + s noise the likelihood is known, and with orthogonal columns in W the exact posterior
# has a diagonal covariance, so that q can be it.
WEIGHTS = np.linalg.qr(RANDOM.normal(size=(6, 3)))[0] * [0.5, 1.0, 2.0]
BIAS, DEVIATION, DATA = RANDOM.normal(size=6), 0.7, RANDOM.normal(size=(5, 6))
LOG_LIKELIHOOD = multivariate_normal(BIAS, WEIGHTS @ WEIGHTS.T + DEVIATION**2 * np.eye(6)).logpdf(DATA)
PRECISION = 1 + (WEIGHTS**2).sum(0) / DEVIATION**2
POSTERIOR_MEAN = (DATA - BIAS) @ WEIGHTS / DEVIATION**2 / PRECISION
POSTERIOR_LOG_VARIANCE = np.broadcast_to(-np.log(PRECISION), POSTERIOR_MEAN.shape)


def linear_log_weights(mean, log_variance, noise):
    z = np.asarray(likelihood.reparametrised(f32(mean), f32(log_variance), f32(noise)))
    log_density = likelihood.normal(
        f32(DATA), f32(z @ WEIGHTS.T + BIAS), jnp.full(DATA.shape, 2 * np.log(DEVIATION), jnp.float32)
    )
    return np.asarray(likelihood.log_importance(log_density, f32(mean), f32(log_variance), f32(noise)))


def test_with_the_exact_posterior_every_weight_of_a_linear_model_is_its_likelihood():
    for _ in range(5):
        found = linear_log_weights(POSTERIOR_MEAN, POSTERIOR_LOG_VARIANCE, RANDOM.normal(size=(5, 3)))
        np.testing.assert_allclose(found, LOG_LIKELIHOOD, rtol=1e-4)


def test_another_posterior_loses_its_divergence_from_the_exact_one():
    mean, log_variance = POSTERIOR_MEAN + 0.3, POSTERIOR_LOG_VARIANCE - 0.5
    weights = np.stack([linear_log_weights(mean, log_variance, RANDOM.normal(size=(5, 3))) for _ in range(2_000)])
    ratio = np.exp(log_variance - POSTERIOR_LOG_VARIANCE)
    lost = (ratio + 0.3**2 * PRECISION - 1 - np.log(ratio)).sum(-1) / 2  # KL of two diagonal Gaussians
    errors = weights.std(0) / np.sqrt(len(weights))
    assert (np.abs(weights.mean(0) - (LOG_LIKELIHOOD - lost)) < 5 * errors).all() and (errors < 0.05).all()


def test_the_bound_of_a_linear_model_is_its_likelihood_at_the_exact_posterior():
    # E |x - W z - b|^2 = |x - W m - b|^2 + sum of the variances of W z: the reconstruction without noise
    variance = np.exp(POSTERIOR_LOG_VARIANCE)
    expected = norm.logpdf(DATA, POSTERIOR_MEAN @ WEIGHTS.T + BIAS, DEVIATION).sum(-1)
    expected -= (variance @ (WEIGHTS**2).T).sum(-1) / (2 * DEVIATION**2)
    divergence = likelihood.kl_to_prior(f32(POSTERIOR_MEAN), f32(POSTERIOR_LOG_VARIANCE))
    np.testing.assert_allclose(expected - divergence, LOG_LIKELIHOOD, rtol=1e-4)
    terms = likelihood.elbo_terms(f32(expected), f32(POSTERIOR_MEAN), f32(POSTERIOR_LOG_VARIANCE))
    np.testing.assert_allclose(terms["reconstruction"] + terms["divergence"], -LOG_LIKELIHOOD.mean(), rtol=1e-4)


def test_bernoulli_images_sum_to_1():
    images = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), -1).reshape(8, 3)
    logits = np.broadcast_to([2.0, -1.0, 0.3], (8, 3))
    log_p = likelihood.bernoulli(f32(images), f32(logits))
    p = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(np.exp(log_p), np.where(images, p, 1 - p).prod(-1), rtol=1e-5)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-5)


def test_pixels_between_0_and_1_cost_their_cross_entropy():
    found = likelihood.bernoulli(f32([[0.3]]), f32([[np.log(4)]]))  # p = 0.8
    np.testing.assert_allclose(found, [0.3 * np.log(0.8) + 0.7 * np.log(0.2)], rtol=1e-5)


@pytest.mark.parametrize("location", [-1.3, -1.0, -0.37, 0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("log_scale", [-7.0, -4.0, -1.0, 2.0])
def test_the_levels_of_a_discretised_logistic_sum_to_1(location, log_scale):
    parameters = (jnp.full((256, 1), value, jnp.float32) for value in (location, log_scale))
    log_p = likelihood.discretised_logistic(f32(LEVELS[:, None]), *parameters)
    np.testing.assert_allclose(np.exp(np.float64(log_p)).sum(), 1, rtol=1e-4)


def test_a_discretised_logistic_is_a_difference_of_sigmoids_with_the_tails_at_the_ends():
    location, scale = 0.1, 0.3
    borders = np.concatenate([[-np.inf], (LEVELS[1:] + LEVELS[:-1]) / 2, [np.inf]])
    expected = np.log(np.diff(1 / (1 + np.exp(-(borders - location) / scale))))
    parameters = (jnp.full((256, 1), value, jnp.float32) for value in (location, np.log(scale)))
    np.testing.assert_allclose(
        likelihood.discretised_logistic(f32(LEVELS[:, None]), *parameters), expected, rtol=1e-4, atol=1e-4
    )


def test_a_discretised_logistic_far_off_stays_finite_with_its_gradient():
    def log_p(parameters):
        return likelihood.discretised_logistic(f32([[-1.0], [1.0], [0.0], [0.0]]), *parameters).sum()

    far = f32([[[9.0], [-9.0], [9.0], [0.0]], [[-7.0], [-7.0], [-7.0], [9.0]]])
    value, gradient = jax.value_and_grad(log_p)(far)
    assert np.isfinite(value) and np.isfinite(gradient).all() and value < -1e4


def test_a_gaussian_over_grey_levels_integrates_to_1():
    gaussian = likelihood.pixel_likelihood("gaussian")
    fine = np.arange(0, 255, 0.25) / 127.5 - 1  # quarters of a level
    images = f32(fine[:, None, None, None])
    outputs = jnp.broadcast_to(f32([np.arctanh(0.2), np.log(0.08)]), (len(fine), 1, 1, 2))
    density = np.exp(np.float64(gaussian.log_density(images, outputs)))
    np.testing.assert_allclose(density.sum() / 4, 1, rtol=1e-3)
    np.testing.assert_allclose(gaussian.mean(outputs), 0.2, rtol=1e-5)


def test_a_gaussian_with_noise_bounds_the_probability_of_a_level():
    gaussian, deviation = likelihood.pixel_likelihood("gaussian"), 0.01
    images = gaussian.observe(jax.random.key(0), jnp.zeros((20_000, 1, 1, 1)))
    assert np.abs(images).max() <= 1 / 255 and np.abs(np.asarray(images).mean()) < 1e-4
    outputs = jnp.broadcast_to(f32([0.0, np.log(deviation)]), (20_000, 1, 1, 2))
    bound = np.asarray(gaussian.log_density(images, outputs)).mean()
    probability = np.log(norm.cdf(1 / 255, 0, deviation) - norm.cdf(-1 / 255, 0, deviation))
    assert probability - 0.05 < bound < probability


def test_binarised_pixels_are_as_often_white_as_they_are_bright():
    images = jnp.broadcast_to(f32([-1.0, -0.5, 0.2, 1.0]), (20_000, 4))[:, :, None, None]
    binary = np.asarray(likelihood.pixel_likelihood("bernoulli").observe(jax.random.key(0), images))
    assert set(np.unique(binary)) == {-1.0, 1.0}
    np.testing.assert_allclose(binary.mean(0)[:, 0, 0], [-1.0, -0.5, 0.2, 1.0], atol=0.03)
    assert (binary[:, 0] == -1).all() and (binary[:, 3] == 1).all()


@pytest.mark.parametrize(("name", "binarise"), [("bernoulli", False), ("logistic", True)])
def test_other_likelihoods_see_the_images_as_they_are(name, binarise):
    images = f32(RANDOM.uniform(-1, 1, (2, 3, 3, 1)))
    pixels = likelihood.pixel_likelihood(name, binarise)
    np.testing.assert_array_equal(pixels.observe(jax.random.key(0), images), images)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "logistic"])
def test_a_likelihood_takes_what_its_maps_say_and_its_mean_is_an_image(name):
    pixels = likelihood.pixel_likelihood(name)
    outputs = f32(5 * RANDOM.normal(size=(2, 3, 4, 2 * pixels.maps)))
    assert pixels.mean(outputs).shape == (2, 3, 4, 2)
    assert np.abs(pixels.mean(outputs)).max() <= 1
    assert pixels.log_density(jnp.ones((2, 3, 4, 2)), outputs).shape == (2,)


def test_the_mean_of_a_bernoulli_image_is_its_probability():
    pixels = likelihood.pixel_likelihood("bernoulli")
    np.testing.assert_allclose(pixels.mean(f32([np.log(4)])), [2 * 0.8 - 1], rtol=1e-5)


def test_an_unknown_likelihood_is_refused():
    with pytest.raises(UserError, match="bernoulli, gaussian, logistic"):
        likelihood.pixel_likelihood("poisson")


def test_the_bound_without_a_label_is_the_sum_over_classes():
    costs, logits = RANDOM.normal(size=(5, 4)), RANDOM.normal(size=(5, 4))
    q = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = [sum(q[u, y] * (costs[u, y] + np.log(q[u, y])) for y in range(4)) for u in range(5)]
    np.testing.assert_allclose(likelihood.over_classes(f32(costs), f32(np.log(q))), expected, rtol=1e-4)


def test_the_bound_without_a_label_is_least_at_the_posterior_where_it_is_the_marginal():
    costs = RANDOM.normal(size=(1, 4))  # - log p(x, y)
    marginal = -np.log(np.exp(-costs).sum())
    np.testing.assert_allclose(likelihood.over_classes(f32(costs), f32(marginal - costs)), [marginal], rtol=1e-4)
    for _ in range(10):
        other = np.log(RANDOM.dirichlet(np.ones(4)))[None]
        assert likelihood.over_classes(f32(costs), f32(other))[0] > marginal


def test_labelled_images_are_paired_with_their_labels_and_the_others_with_every_class():
    images = f32(RANDOM.normal(size=(6, 2)))
    pairs, labels = likelihood.labelled_pairs(images[:2], jnp.array([2, 0]), images[2:], 3)
    own, others = separate(pairs, (2, 12))
    own_labels, other_labels = separate(labels, (2, 12))
    np.testing.assert_array_equal(own, images[:2])
    np.testing.assert_array_equal(own_labels, [2, 0])
    for y in range(3):
        np.testing.assert_array_equal(others.reshape(4, 3, 2)[:, y], images[2:])
        np.testing.assert_array_equal(other_labels.reshape(4, 3)[:, y], y)


def test_the_mean_over_classes_is_that_of_probabilities():
    log_p = RANDOM.normal(size=(5, 4))
    found = likelihood.mean_over_classes(f32(log_p.reshape(-1)), 4)
    np.testing.assert_allclose(found, np.log(np.exp(log_p).mean(-1)), rtol=1e-4, atol=1e-5)


def test_running_moments_say_which_latents_deviate():
    means = RANDOM.normal([1.0, -2.0, 0.0], [0.5, 0.05, 0.2], (3, 40, 3))
    moments = jnp.zeros((2, 3))
    for count, batch in enumerate(means):
        moments = likelihood.running(moments, f32(batch), jnp.int32(count))
    deviation = np.sqrt(moments[1] - moments[0] ** 2)
    np.testing.assert_allclose(deviation, means.reshape(-1, 3).std(0), rtol=1e-2)
    np.testing.assert_array_equal(likelihood.informative(moments, 0.1), [True, False, True])
    latents = f32(RANDOM.normal(size=(5, 3)))
    np.testing.assert_array_equal(likelihood.keep_informative(latents, moments, 0.1), latents * f32([1, 0, 1]))
