"""Berthelot et al. 2019: sharpening and mixing by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tiny import tiny

from ssl_gen.losses.classification import brier
from ssl_gen.losses.mixing import mean_prediction, mixed, own_shares, sharpened, shuffles
from ssl_gen.types import UserError

RANDOM = np.random.default_rng(0)
KEY = jax.random.key(0)


def f32(array):
    return jnp.asarray(array, jnp.float32)


def test_sharpening_at_a_half_squares_and_brings_to_sum_1():
    q = [[0.5, 0.3, 0.2], [0.0, 0.9, 0.1]]
    expected = [[0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38], [0, 0.81 / 0.82, 0.01 / 0.82]]
    np.testing.assert_allclose(np.exp(sharpened(jnp.log(f32(q)), 0.5)), expected, rtol=1e-5)


def test_a_guess_is_the_mean_of_probabilities_and_not_of_logits():
    logits = RANDOM.normal(size=(2, 4, 3))
    expected = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).mean(0)
    together = f32(logits.transpose(1, 0, 2).reshape(8, 3))  # the views of an image beside each other
    np.testing.assert_allclose(np.exp(mean_prediction(together, 2)), expected, rtol=1e-5)


@pytest.mark.parametrize("concentration", [0.5, 0.75, 3.0])
def test_an_images_own_share_is_the_larger_one_of_a_beta(concentration):
    shares = np.asarray(own_shares(KEY, 4_000, concentration))
    beta = stats.beta(concentration, concentration)

    def below(share):
        return beta.cdf(share) - beta.cdf(1 - share)  # P(max(b, 1 - b) <= share)

    assert shares.min() >= 0.5 and stats.kstest(shares, below).pvalue > 0.01


def test_shuffles_are_permutations_of_each_part():
    orders = np.asarray(shuffles(KEY, 12, 3))
    np.testing.assert_array_equal(np.sort(orders), np.tile(np.arange(4), (3, 1)))
    assert len({tuple(order) for order in orders}) == 3


def test_images_and_targets_are_mixed_with_the_same_partners():
    images, targets = RANDOM.normal(size=(6, 2, 2, 1)), RANDOM.dirichlet(np.ones(3), 6)
    shares, orders = RANDOM.uniform(0.5, 1, 6), np.array([[2, 0, 1], [1, 0, 2]])
    partners = [2, 0, 1, 4, 3, 5]
    for values in (images, targets):
        expected = [s * values[i] + (1 - s) * values[j] for i, (s, j) in enumerate(zip(shares, partners, strict=True))]
        np.testing.assert_allclose(mixed(f32(values), f32(shares), jnp.asarray(orders)), expected, rtol=1e-5)


def test_brier_is_the_squared_distance_to_a_probability_over_k():
    logits, targets = RANDOM.normal(size=(4, 3)), RANDOM.dirichlet(np.ones(3), 4)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(brier(f32(logits), f32(targets)), ((p - targets) ** 2).sum(-1) / 3, rtol=1e-5)


def test_groups_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(UserError, match="labelled_batch 4 is no multiple of mixing_groups 3"):
        tiny("mix_match", mixing_groups=3)
