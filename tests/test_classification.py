"""Numbers of a classifier, against cases made by hand and scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics

from ssl_gen.metrics import classification

RANDOM = np.random.default_rng(0)
LOG_PROBABILITIES = np.log(RANDOM.dirichlet(np.ones(4), 50)).astype(np.float32)
LABELS = RANDOM.integers(0, 3, 50).astype(np.int32)  # class 3 has no image
BY_HAND = np.log([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.1, 0.4], [0.2, 0.3, 0.5]])


def test_error_is_the_percentage_of_wrong_images():
    assert classification.error(BY_HAND, np.array([0, 1, 2, 2])) == 25
    assert classification.error(BY_HAND, np.array([0, 1, 0, 2])) == 0
    assert classification.error(BY_HAND, np.array([1, 2, 1, 0])) == 100


def test_error_is_what_accuracy_leaves():
    accuracy = sklearn.metrics.accuracy_score(LABELS, LOG_PROBABILITIES.argmax(-1))
    assert classification.error(LOG_PROBABILITIES, LABELS) == pytest.approx(100 * (1 - accuracy))


def test_the_likelihood_by_hand():
    found = classification.negative_log_likelihood(BY_HAND, np.array([0, 1, 2, 1]))
    assert found == pytest.approx(-np.log(0.7 * 0.8 * 0.4 * 0.3) / 4)


def test_the_likelihood_is_the_log_loss():
    p = np.exp(LOG_PROBABILITIES.astype(np.float64))
    expected = sklearn.metrics.log_loss(LABELS, p / p.sum(-1, keepdims=True), labels=range(4))
    assert classification.negative_log_likelihood(LOG_PROBABILITIES, LABELS) == pytest.approx(expected, rel=1e-5)


def test_confusion_has_the_true_class_in_its_row():
    counts = classification.confusion(BY_HAND, np.array([0, 1, 2, 2]))
    assert counts.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]


def test_confusion_is_that_of_scikit_learn_and_keeps_classes_without_images():
    expected = sklearn.metrics.confusion_matrix(LABELS, LOG_PROBABILITIES.argmax(-1), labels=range(4))
    np.testing.assert_array_equal(classification.confusion(LOG_PROBABILITIES, LABELS), expected)


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_labels_may_be_of_any_integer_type(kind):
    many = np.log(np.full((300, 30), 1 / 30))  # 30 * 30 does not fit into a byte
    counts = classification.confusion(many, np.full(300, 29).astype(kind))
    assert counts[29, 0] == counts.sum() == 300
    assert classification.negative_log_likelihood(many, np.full(300, 29).astype(kind)) == pytest.approx(np.log(30))


def test_the_error_is_the_share_off_the_diagonal():
    counts = classification.confusion(LOG_PROBABILITIES, LABELS)
    expected = 100 * (1 - np.trace(counts) / counts.sum())
    assert classification.error(LOG_PROBABILITIES, LABELS) == pytest.approx(expected)


def test_numbers_are_plain_floats():
    assert type(classification.error(LOG_PROBABILITIES, LABELS)) is float
    assert type(classification.negative_log_likelihood(LOG_PROBABILITIES, LABELS)) is float
