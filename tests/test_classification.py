"""Numbers of a classifier, against cases made by hand and scikit-learn."""

import json

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import sklearn.metrics

from ssl_gen.metrics import classification
from ssl_gen.types import UserError

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


def two_classes(confidence, right):
    """Log-probabilities (B, 2) of the given confidences (B,) in class 0, and labels (B,), 0 where right."""
    confidence = np.asarray(confidence, np.float64)
    return np.log(np.stack([confidence, 1 - confidence], -1)), np.where(right, 0, 1)


def levels(shift):
    """15 groups of 100 images, shuffled: the k-th of confidence 0.6 + 0.02 k and of an accuracy `shift` below that."""
    confidence = np.repeat(0.6 + 0.02 * np.arange(15), 100)
    right = np.tile(np.arange(100), 15) < np.round(100 * (confidence - shift))
    order = RANDOM.permutation(1500)
    return two_classes(confidence[order], right[order])


def drawn(count):
    """Logits (count, 5) and labels drawn from their softmax."""
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (count, 5))
    return logits, (logits + random.gumbel(size=logits.shape)).argmax(-1)


LOGITS, DRAWN = drawn(2000)
KNOWN, OUTSIDE = RANDOM.integers(3, 10, 40) / 10, RANDOM.integers(0, 8, 70) / 10  # with many ties


def test_each_class_has_its_own_error():
    assert classification.per_class_error(BY_HAND, np.array([0, 1, 2, 2])) == {0: 0, 1: 0, 2: 50}


def test_the_error_of_a_class_is_what_recall_leaves():
    recall = sklearn.metrics.recall_score(LABELS, LOG_PROBABILITIES.argmax(-1), average=None, labels=range(3))
    found = classification.per_class_error(LOG_PROBABILITIES, LABELS)
    assert found == pytest.approx(dict(enumerate(100 * (1 - recall))))


def test_classes_without_images_have_no_error():
    assert list(classification.per_class_error(BY_HAND, np.array([2, 2, 0, 2]))) == [0, 2]


def test_the_errors_of_classes_go_into_json():
    found = classification.per_class_error(LOG_PROBABILITIES, LABELS)
    assert json.loads(json.dumps(found)) == {str(label): value for label, value in found.items()}


def test_the_balanced_error_is_what_balanced_accuracy_leaves():
    log_probabilities = LOG_PROBABILITIES[:, :3]  # scikit-learn warns of predicted classes without images
    accuracy = sklearn.metrics.balanced_accuracy_score(LABELS, log_probabilities.argmax(-1))
    assert classification.balanced_error(log_probabilities, LABELS) == pytest.approx(100 * (1 - accuracy))


def test_the_balanced_error_does_not_follow_the_common_class():
    always_first = np.log(np.full((100, 2), [0.9, 0.1]))
    labels = np.repeat([0, 1], [99, 1])
    assert classification.error(always_first, labels) == 1
    assert classification.balanced_error(always_first, labels) == 50


def test_confidence_that_equals_accuracy_has_no_calibration_error():
    assert classification.calibration_error(*levels(0)) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("shift", [0.1, -0.08])
def test_confidence_that_misses_accuracy_by_so_much_is_so_much_off(shift):
    assert classification.calibration_error(*levels(shift)) == pytest.approx(100 * abs(shift))


def test_one_bin_compares_mean_confidence_with_accuracy():
    confidence = np.exp(LOG_PROBABILITIES.astype(np.float64).max(-1)).mean()
    accuracy = (LOG_PROBABILITIES.argmax(-1) == LABELS).mean()
    found = classification.calibration_error(LOG_PROBABILITIES, LABELS, bins=1)
    assert found == pytest.approx(100 * abs(accuracy - confidence))


def test_bins_hold_equal_counts_of_the_sorted_images():
    confidence, right = RANDOM.uniform(0.5, 1, 47), RANDOM.integers(0, 2, 47).astype(bool)
    order = np.argsort(confidence)
    sizes = [10, 10, 9, 9, 9]
    ends = np.cumsum(sizes)
    groups = [order[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    expected = sum(len(rows) / 47 * abs(right[rows].mean() - confidence[rows].mean()) for rows in groups)
    found = classification.calibration_error(*two_classes(confidence, right), bins=5)
    assert found == pytest.approx(100 * expected)


def test_images_of_equal_confidence_share_their_accuracy_across_a_cut():
    log_probabilities, labels = two_classes([0.6, 0.8, 0.8, 0.8], [True, True, False, False])
    # cut after two: (1 + 1/3 - 1.4) and (2/3 - 1.6), whichever of the equal three comes first
    expected = 100 * (abs(4 / 3 - 1.4) + abs(2 / 3 - 1.6)) / 4
    assert classification.calibration_error(log_probabilities, labels, bins=2) == pytest.approx(expected)


def test_the_calibration_error_does_not_depend_on_the_order_of_images():
    log_probabilities, labels = two_classes(RANDOM.choice([0.6, 0.7, 0.9, 0.99], 101), RANDOM.integers(0, 2, 101) > 0)
    orders = [RANDOM.permutation(101) for _ in range(20)]
    found = {classification.calibration_error(log_probabilities[each], labels[each], bins=7) for each in orders}
    assert len(found) == 1


def test_a_perfect_classifier_is_off_by_chance_alone():
    log_probabilities = classification.scaled(LOGITS, 1.0)
    confidence = np.sort(np.exp(log_probabilities.max(-1)))
    variances = [(p * (1 - p)).sum() for p in np.array_split(confidence, 15)]  # of the images right in each bin
    expected = 100 * np.sqrt(2 / np.pi) * np.sqrt(variances).sum() / 2000  # sums of absolute values of normals
    deviation = 100 * np.sqrt((1 - 2 / np.pi) * np.sum(variances)) / 2000
    assert abs(classification.calibration_error(log_probabilities, DRAWN) - expected) < 4 * deviation
    assert expected < 40 * np.sqrt(15 / 2000)  # as the docstring says


def test_logits_are_not_taken_for_log_probabilities():
    with pytest.raises(UserError, match="2000 of 2000 rows are no log-probabilities"):
        classification.calibration_error(LOGITS + 20, DRAWN)


def test_more_bins_than_images_are_refused():
    with pytest.raises(UserError, match="15 calibration bins"):
        classification.calibration_error(BY_HAND, np.array([0, 1, 2, 2]))


def test_the_temperature_makes_the_likelihood_largest():
    def nll(log_temperature):
        log_probabilities = scipy.special.log_softmax(LOGITS / np.exp(log_temperature), -1)
        return -log_probabilities[np.arange(len(DRAWN)), DRAWN].mean()

    best = scipy.optimize.minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-8}).x
    assert np.log(classification.temperature(LOGITS, DRAWN)) == pytest.approx(best, abs=1e-6)


def test_labels_drawn_from_the_probabilities_have_temperature_1():
    logits, labels = drawn(20_000)
    p = scipy.special.softmax(logits, -1)
    # Fisher information of 1 / T at T = 1: the variance of the logit under the softmax, mean over images
    information = ((p * logits**2).sum(-1) - (p * logits).sum(-1) ** 2).mean()
    assert abs(classification.temperature(logits, labels) - 1) < 4 / np.sqrt(information * 20_000)


@pytest.mark.parametrize("factor", [0.01, 3, 500])
def test_logits_multiplied_by_a_factor_have_that_much_more_temperature(factor):
    once = classification.temperature(LOGITS, DRAWN)
    assert classification.temperature(factor * LOGITS, DRAWN) == pytest.approx(factor * once, rel=1e-9)


def test_logits_and_their_log_probabilities_have_one_temperature():
    log_probabilities = scipy.special.log_softmax(LOGITS, -1)
    assert classification.temperature(log_probabilities, DRAWN) == pytest.approx(
        classification.temperature(LOGITS, DRAWN)
    )


def test_a_class_that_is_impossible_everywhere_leaves_the_temperature_as_it_is():
    wider = np.concatenate([LOGITS, np.full((len(LOGITS), 1), -np.inf)], -1)
    assert classification.temperature(wider, DRAWN) == pytest.approx(classification.temperature(LOGITS, DRAWN))


def test_a_temperature_mends_confidence_that_is_too_high():
    sharp = classification.scaled(3 * LOGITS, 1.0)
    mended = classification.scaled(sharp, classification.temperature(sharp, DRAWN))
    before, after = (classification.calibration_error(each, DRAWN) for each in (sharp, mended))
    assert after < before / 3
    np.testing.assert_array_equal(mended.argmax(-1), sharp.argmax(-1))


def test_scaling_divides_the_log_odds():
    found = classification.scaled(BY_HAND, 2.0)
    np.testing.assert_allclose(np.exp(found).sum(-1), 1)
    np.testing.assert_allclose(found[:, 0] - found[:, 1], (BY_HAND[:, 0] - BY_HAND[:, 1]) / 2)


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf])
def test_a_temperature_is_positive(value):
    with pytest.raises(UserError, match="a positive number"):
        classification.scaled(BY_HAND, value)


@pytest.mark.parametrize("factor", [1, 1000])
def test_a_validation_set_without_mistakes_has_no_temperature(factor):
    with pytest.raises(UserError, match="all 2000 images are right"):
        classification.temperature(factor * LOGITS, LOGITS.argmax(-1))


@pytest.mark.parametrize("logits", [-LOGITS, np.zeros((2000, 5))])
def test_labels_no_likelier_than_chance_have_no_temperature(logits):
    with pytest.raises(UserError, match="no likelier than chance"):
        classification.temperature(logits, DRAWN)


def test_a_label_of_probability_0_has_no_temperature():
    impossible = np.where(np.arange(5) == DRAWN[:, None], -np.inf, LOGITS)
    with pytest.raises(UserError, match="2000 of 2000 labels have probability 0"):
        classification.temperature(impossible, DRAWN)


def test_the_area_is_that_of_scikit_learn():
    labels = np.repeat([1, 0], [len(KNOWN), len(OUTSIDE)])
    expected = sklearn.metrics.roc_auc_score(labels, np.concatenate([KNOWN, OUTSIDE]))
    assert classification.auroc(KNOWN, OUTSIDE) == pytest.approx(expected, rel=1e-12)


def test_the_area_of_clear_cases():
    low, high = np.array([0.1, 0.2]), np.array([0.3, 0.9, np.inf])
    assert classification.auroc(high, low) == 1
    assert classification.auroc(low, high) == 0
    assert classification.auroc(low, low) == 0.5


@pytest.mark.parametrize("broken", [np.zeros(0), np.zeros((2, 2)), np.array([0.5, np.nan])])
def test_scores_that_are_missing_or_nan_are_refused(broken):
    with pytest.raises(UserError, match="known images"):
        classification.auroc(broken, OUTSIDE)
    with pytest.raises(UserError, match="out-of-distribution images"):
        classification.auroc(KNOWN, broken)


def test_the_worst_class_error_tells_of_a_class_that_is_lost():
    labels = np.array([0] * 50 + [1] * 48 + [2] * 2)
    logits = np.full((100, 3), -5.0)
    logits[np.arange(100), np.where(labels == 2, 1, labels)] = -0.1  # the third taken for the second
    logits[:5] = [-5.0, -0.1, -5.0]
    assert classification.error(logits, labels) == pytest.approx(7)
    assert classification.worst_class_error(logits, labels) == 100
    assert classification.worst_class_error(logits[:98], labels[:98]) == 10


@pytest.mark.parametrize("measure", ["per_class_error", "balanced_error", "calibration_error", "temperature"])
@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (LOG_PROBABILITIES, LABELS[:-1], r"got \(50, 4\) and \(49,\)"),
        (LOG_PROBABILITIES[0], LABELS, r"got \(4,\) and \(50,\)"),
        (LOG_PROBABILITIES[:0], LABELS[:0], r"got \(0, 4\) and \(0,\)"),
        (LOG_PROBABILITIES, LABELS - 1, r"of 50 labels are not in 0\.\.3"),
        (LOG_PROBABILITIES[:, :2], LABELS, r"of 50 labels are not in 0\.\.1"),
        (LOG_PROBABILITIES, LABELS.astype(float), "labels must be integers, not float64"),
        (np.where(np.arange(50)[:, None] < 3, np.nan, LOG_PROBABILITIES), LABELS, "3 of 50 images"),
        (np.where(np.arange(50)[:, None] < 3, -np.inf, LOG_PROBABILITIES), LABELS, "3 of 50 images"),
    ],
)
def test_what_cannot_be_measured_is_named(measure, scores, labels, message):
    with pytest.raises(UserError, match=message):
        getattr(classification, measure)(scores, labels)


@pytest.mark.parametrize("known", [0.4, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_at_is_found_again(known):
    """Labels drawn from softmax(logits / T): the likeliest temperature of the logits is T, up to chance."""
    source = np.random.default_rng(3)
    logits = 3 * source.normal(size=(20_000, 5))
    p = scipy.special.softmax(logits / known, -1)
    labels = (p.cumsum(-1) < source.random((len(p), 1))).sum(-1).clip(max=4)
    # Fisher information of b = 1 / T: the variance of the logit under the softmax; T's own deviation is T^2 times b's
    information = len(p) * ((p * logits**2).sum(-1) - (p * logits).sum(-1) ** 2).mean()
    assert abs(classification.temperature(logits, labels) - known) < 4 * known**2 / np.sqrt(information)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0, 10.0])
def test_a_temperature_never_makes_the_likelihood_of_its_validation_set_worse(scale):
    source = np.random.default_rng(0)
    labels = source.integers(0, 4, 40)
    logits = scale * (source.normal(size=(40, 4)) + (np.arange(4) == labels[:, None]))
    before, after = (
        classification.negative_log_likelihood(classification.scaled(logits, temperature), labels)
        for temperature in (1.0, classification.temperature(logits, labels))
    )
    assert after <= before
