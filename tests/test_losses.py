"""The shared formulas against the same sums in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen.losses.adversarial import judged_fake, judged_real
from ssl_gen.losses.classification import cross_entropy, entropy, smoothed_cross_entropy, softmax_mse
from ssl_gen.losses.thresholds import confident, confident_cross_entropy

RANDOM = np.random.default_rng(0)
LOGITS = 3 * RANDOM.normal(size=(6, 4))
LABELS = np.array([0, 3, 1, 1, 2, 0])
SCORES = 4 * RANDOM.normal(size=9)
EXTREME = jnp.array([[1e4, -1e4, 0.0], [-1e30, 0.0, 1e30], [1e30, 1e30, -1e30], [0.0, 0.0, 0.0]])


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def f32(array):
    return jnp.asarray(array, jnp.float32)


def test_cross_entropy_is_the_mean_surprise_at_the_labels():
    expected = np.mean([-np.log(p[label]) for p, label in zip(softmax(LOGITS), LABELS, strict=True)])
    np.testing.assert_allclose(cross_entropy(f32(LOGITS), jnp.asarray(LABELS)), expected, rtol=1e-5)


def test_cross_entropy_of_uniform_logits_is_log_k():
    np.testing.assert_allclose(cross_entropy(jnp.full((2, 7), 3.0), jnp.array([0, 6])), np.log(7), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smoothed_labels_keep_their_share_and_give_the_rest_to_all_classes_alike(smoothing):
    log_p = np.log(softmax(LOGITS))
    own = np.mean([row[label] for row, label in zip(log_p, LABELS, strict=True)])
    found = smoothed_cross_entropy(f32(LOGITS), jnp.asarray(LABELS), smoothing)
    np.testing.assert_allclose(found, -(1 - smoothing) * own - smoothing * log_p.mean(), rtol=1e-5)


def test_entropy_is_one_number_a_row():
    p = softmax(LOGITS)
    np.testing.assert_allclose(entropy(f32(LOGITS)), -(p * np.log(p)).sum(-1), rtol=1e-5)


def test_entropy_is_zero_where_one_class_is_sure_and_log_k_where_none_is():
    np.testing.assert_allclose(entropy(EXTREME), [0, 0, np.log(2), np.log(3)], atol=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 0.7, 0.95])
def test_only_a_teacher_surer_than_the_threshold_is_believed(threshold):
    teacher, student = softmax(LOGITS), softmax(LOGITS[::-1])
    believed = [row for row in range(6) if teacher[row].max() > threshold]
    assert (len(believed) == 6) == (threshold == 0)
    np.testing.assert_array_equal(confident(f32(np.log(teacher)), threshold).nonzero()[0], believed)
    expected = sum(-np.log(student[row, teacher[row].argmax()]) for row in believed) / 6  # over all, sure or not
    value = confident_cross_entropy(f32(LOGITS[::-1]), f32(np.log(teacher)), threshold)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_softmax_mse_is_the_squared_distance_of_probabilities_over_k():
    other = LOGITS[::-1]
    expected = np.mean([((p - q) ** 2).sum() / 4 for p, q in zip(softmax(LOGITS), softmax(other), strict=True)])
    np.testing.assert_allclose(softmax_mse(f32(LOGITS), f32(other)), expected, rtol=1e-5)
    assert softmax_mse(f32(LOGITS), f32(LOGITS)) == 0


def test_a_score_is_judged_by_the_logarithm_of_its_sigmoid():
    d = 1 / (1 + np.exp(-SCORES))
    np.testing.assert_allclose(judged_real(f32(SCORES)), -np.log(d).mean(), rtol=1e-5)
    np.testing.assert_allclose(judged_fake(f32(SCORES)), -np.log(1 - d).mean(), rtol=1e-5)


def test_a_sure_score_costs_nothing_where_it_is_right_and_itself_where_it_is_wrong():
    sure = jnp.array([1e4])
    assert judged_real(sure) == judged_fake(-sure) == 0
    assert judged_fake(sure) == judged_real(-sure) == 1e4


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: cross_entropy(x, jnp.array([0, 2, 1, 0])),
        lambda x: entropy(x).mean(),
        lambda x: confident_cross_entropy(x, jax.nn.log_softmax(x[::-1]), 0.5),
        lambda x: softmax_mse(x, x[::-1]),
        lambda x: judged_real(x[:, 0]),
        lambda x: judged_fake(x[:, 0]),
    ],
    ids=["cross_entropy", "entropy", "confident", "softmax_mse", "judged_real", "judged_fake"],
)
def test_extreme_logits_keep_values_and_gradients_finite(formula):
    value, gradient = jax.value_and_grad(formula)(EXTREME)
    assert np.isfinite(value) and np.isfinite(gradient).all()
