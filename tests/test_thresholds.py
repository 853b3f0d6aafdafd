"""Thresholds and weights that follow the network: five steps of each rule by hand, in plain Python and float64."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SPEC, batch_at, tiny

from ssl_gen.core.consistency import look
from ssl_gen.core.keys import INIT, stream
from ssl_gen.core.schedules import partly_cosine_optimizer
from ssl_gen.losses import thresholds as rules
from ssl_gen.methods.self_training import ada_match, flex_match, soft_match
from ssl_gen.types import UserError

RANDOM = np.random.default_rng(0)
STEPS, IMAGES, CLASSES, MEMORY = 5, 6, 4, 2
GUESSES = RANDOM.dirichlet(np.full(CLASSES, 0.4), (STEPS, IMAGES))  # q of five steps, from unsure to sure
ANSWERS = 2 * RANDOM.normal(size=(STEPS, IMAGES, CLASSES))  # logits of the strong view
LABELLED = RANDOM.dirichlet(np.full(CLASSES, 0.3), (STEPS, 3))  # p of labelled images


def f32(array):
    return jnp.asarray(array, jnp.float32)


def log(array):
    return f32(np.log(array))


def surprise(logits, label):
    """- log softmax at the label."""
    return np.log(np.exp(logits).sum()) - logits[label]


def moved(mean, now):
    return [(1 - 1 / MEMORY) * old + new / MEMORY for old, new in zip(mean, now, strict=True)]


def mean_of(rows):
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def one_hot(label):
    return [float(k == label) for k in range(CLASSES)]


def norm(values):
    return [value / sum(values) for value in values]


def test_freematch_by_hand():
    confidence, guesses, counts = [1 / 4], [1 / 4] * 4, [1 / 4] * 4
    means = rules.first_self_adaptive(CLASSES)
    believed_in_all = 0
    for q, logits in zip(GUESSES, ANSWERS, strict=True):
        confidence = moved(confidence, [np.mean([row.max() for row in q])])
        guesses, counts = moved(guesses, mean_of(q)), moved(counts, mean_of([one_hot(row.argmax()) for row in q]))
        limits = [confidence[0] * guess / max(guesses) for guess in guesses]
        believed = [bool(row.max() > limits[row.argmax()]) for row in q]
        taught = [surprise(x, row.argmax()) for x, row, sure in zip(logits, q, believed, strict=True) if sure]

        means = rules.update_self_adaptive(means, log(q), MEMORY)
        found = rules.self_adaptive_thresholds(means)
        np.testing.assert_allclose(found, limits, rtol=1e-5)
        of_guess = found[log(q).argmax(-1)]
        assert rules.confident(log(q), of_guess).tolist() == believed
        loss = rules.confident_cross_entropy(f32(logits), log(q), of_guess)
        np.testing.assert_allclose(loss, sum(taught) / IMAGES, rtol=1e-5)
        fairness = rules.self_adaptive_fairness(f32(logits), jnp.array(believed), means)
        np.testing.assert_allclose(fairness, fairness_by_hand(logits, believed, guesses, counts), rtol=1e-5)
        believed_in_all += sum(believed)
    np.testing.assert_allclose(means.counts, counts, rtol=1e-5)
    assert 0 < believed_in_all < STEPS * IMAGES


def fairness_by_hand(logits, believed, guesses, counts):
    """sum_k a_k log b_k of the images that are believed; a class without an answer has b = 0."""
    chosen = [np.exp(row) / np.exp(row).sum() for row, sure in zip(logits, believed, strict=True) if sure]
    times = collections.Counter(int(row.argmax()) for row in chosen)
    a = norm([guess / count for guess, count in zip(guesses, counts, strict=True)])
    b = norm([sum(row[k] for row in chosen) / times[k] if times[k] else 0.0 for k in range(CLASSES)])
    return sum(x * np.log(y + 1e-12) for x, y in zip(a, b, strict=True))


def test_fairness_of_no_answer_is_nothing_and_has_no_gradient():
    means = rules.first_self_adaptive(CLASSES)
    value, gradient = jax.value_and_grad(rules.self_adaptive_fairness)(f32(ANSWERS[0]), jnp.zeros(IMAGES, bool), means)
    assert value == 0 and not np.any(gradient)


def test_fairness_has_a_gradient_by_the_classes_that_were_answered():
    means = rules.first_self_adaptive(CLASSES)
    logits = f32([[3, 0, 0, 0], [0, 1, 0, 0], [0.5, 0, 0, 0]])  # nobody says the third or the fourth class
    gradient = jax.grad(rules.self_adaptive_fairness)(logits, jnp.array([True, True, False]), means)
    assert np.isfinite(gradient).all() and np.abs(gradient[:2]).min() > 1e-3 and not np.any(gradient[2])


def test_fairness_of_a_class_that_is_never_guessed_stays_a_number():
    """Its running count falls from 1 / K by a factor a step, to 0 in the end; its mean guess does not."""
    means, logits, believed = rules.first_self_adaptive(CLASSES), f32(ANSWERS[0]), jnp.ones(IMAGES, bool)
    swallowed = log(np.tile([0.5, 0.3, 0.19, 0.01], (IMAGES, 1)))
    step = jax.jit(lambda means: rules.update_self_adaptive(means, swallowed, 1.5))
    held = 0
    for _ in range(200):
        means = step(means)
        value, gradient = jax.value_and_grad(rules.self_adaptive_fairness)(logits, believed, means)
        assert np.isfinite(value) and np.isfinite(gradient).all()
        held += float(means.counts[-1]) > 0
    assert 0 < held < 200 and means.guesses[-1] > 0.009


FLEXMATCH = [  # rows, guesses, which are sure; then the images' latest, and M(beta) of the three classes
    ([0, 1, 2], [0, 0, 1], [1, 1, 0], [0, 0, -1, -1, -1, -1], (1 / 3, 0, 0)),  # 2 of 4 unused: M(1/2)
    ([3, 4, 5], [1, 2, 0], [1, 0, 1], [0, 0, -1, 1, -1, 0], (1, 1 / 5, 0)),  # 3, 1 and 0 of 3: M(1/3)
    ([2, 0, 1], [1, 1, 2], [1, 1, 0], [1, 0, 1, 1, -1, 0], (1 / 2, 1, 0)),  # 0 is another, 1 stays: M(2/3)
    ([4, 4, 5], [2, 0, 2], [1, 1, 0], [1, 0, 1, 1, 0, 0], (1, 1, 0)),  # of 4 the later guess counts
    ([4, 4, 1], [2, 0, 2], [1, 0, 1], [1, 2, 1, 1, 2, 0], (1 / 5, 1, 1 / 2)),  # of 4 the sure one
]


def test_flexmatch_by_hand():
    """Six images in the pool, and two training images that are kept out of it."""
    threshold, latest = 0.6, jnp.full(8, -1, jnp.int32)
    np.testing.assert_array_equal(rules.curriculum_thresholds(latest, 6, 3, threshold), 0)  # all guesses are learnt
    for rows, guesses, sure, expected, raised in FLEXMATCH:
        confidence = np.where(sure, 0.7, 0.5)[:, None]
        q = np.where(np.arange(3) == np.array(guesses)[:, None], confidence, (1 - confidence) / 2)
        latest = rules.latest_guesses(latest, jnp.array(rows), log(q), threshold)
        assert latest.tolist() == [*expected, -1, -1] and latest.dtype == jnp.int32
        found = rules.curriculum_thresholds(latest, 6, 3, threshold)
        np.testing.assert_allclose(found, threshold * np.array(raised), rtol=1e-6)


def test_latest_guesses_of_a_batch_that_is_divided_over_devices_are_those_of_its_order_bit_for_bit():
    batch, threshold, expected = 64, 0.6, [-1] * 20
    rows, q = RANDOM.integers(0, 20, batch), RANDOM.dirichlet(np.full(CLASSES, 0.4), batch)
    for row, each in zip(rows, q, strict=True):
        expected[row] = int(each.argmax()) if each.max() > threshold else expected[row]
    devices = jax.sharding.Mesh(np.array(jax.devices()), "batch")
    divided = jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec("batch"))
    given = jnp.full(20, -1, jnp.int32), *jax.device_put((jnp.asarray(rows, jnp.int32), log(q)), divided)
    assert len(jax.devices()) > 1
    assert jax.jit(rules.latest_guesses)(*given, threshold).tolist() == expected


def test_a_step_of_flexmatch_remembers_confident_guesses_of_its_batch_and_no_others():
    method = tiny("flex_match").method
    batch = batch_at(method)
    state = jax.jit(method.init)(stream(0, INIT), batch)
    after, metrics = jax.jit(method.phases[0].step)(state, stream(0, 0), jnp.int32(0), batch)
    remembered = set(np.flatnonzero(after.latest >= 0).tolist())
    assert remembered and remembered <= set(batch.rows.tolist())
    assert float(metrics["classifier/confident"]) == 1  # under a threshold of 0


def test_softmatch_by_hand():
    mean, variance, guesses, width = [1 / 4], [1.0], [1 / 4] * 4, 0.5
    gaussian, marginals = rules.first_gaussian(CLASSES), rules.uniform_marginals(CLASSES)
    seen = []
    for q, logits in zip(GUESSES, ANSWERS, strict=True):
        guesses = moved(guesses, mean_of(q))
        aligned = [norm([p * (0.25 + 1e-6) / (g + 1e-6) for p, g in zip(row, guesses, strict=True)]) for row in q]
        sure = [max(row) for row in aligned]
        centre = sum(sure) / IMAGES
        mean = moved(mean, [centre])
        variance = moved(variance, [sum((each - centre) ** 2 for each in sure) / (IMAGES - 1)])
        deviation = width * variance[0] ** 0.5
        weights = [1.0 if each >= mean[0] else np.exp(-((each - mean[0]) ** 2) / (2 * deviation**2)) for each in sure]
        nats = [surprise(x, row.argmax()) for x, row in zip(logits, q, strict=True)]  # of q, which is not aligned

        marginals = rules.update_guesses(marginals, log(q), MEMORY)
        judged = rules.distribution_alignment(log(q), marginals)
        gaussian = rules.update_gaussian(gaussian, judged, MEMORY)
        found = rules.truncated_gaussian(judged, gaussian, width)
        np.testing.assert_allclose(gaussian, (mean[0], variance[0]), rtol=1e-5)
        np.testing.assert_allclose(found, weights, rtol=1e-4)
        expected = sum(w * nat for w, nat in zip(weights, nats, strict=True)) / IMAGES
        np.testing.assert_allclose(rules.weighted_cross_entropy(f32(logits), log(q), found), expected, rtol=1e-4)
        seen += weights
    assert 0 < min(seen) < 1 == max(seen)
    np.testing.assert_allclose(marginals.labels, 0.25)


def test_a_network_that_is_sure_of_all_images_has_full_weights():
    sure = jnp.log(jax.nn.one_hot(jnp.array([0, 1, 2, 3]), CLASSES))
    gaussian = rules.Gaussian(jnp.float32(1), jnp.float32(0))
    np.testing.assert_array_equal(rules.truncated_gaussian(sure, gaussian, 0.5), 1.0)


def test_adamatch_by_hand():
    said, guesses = [1 / 4] * 4, [1 / 4] * 4
    marginals = rules.uniform_marginals(CLASSES)
    learnt = 0
    for p, q in zip(LABELLED, GUESSES, strict=True):
        said, guesses = moved(said, mean_of(p)), moved(guesses, mean_of(q))
        ratios = [(x + 1e-6) / (y + 1e-6) for x, y in zip(said, guesses, strict=True)]
        aligned = [norm([each * ratio for each, ratio in zip(row, ratios, strict=True)]) for row in q]
        limit = 0.9 * sum(max(row) for row in p) / len(p)

        marginals = rules.update_predicted_marginals(marginals, log(p), log(q), MEMORY)
        teacher = rules.distribution_alignment(log(q), marginals)
        np.testing.assert_allclose(np.exp(teacher), aligned, rtol=1e-4)
        threshold = rules.relative_threshold(log(p), 0.9)
        np.testing.assert_allclose(threshold, limit, rtol=1e-5)
        expected = [max(row) > limit for row in aligned]
        assert rules.confident(teacher, threshold).tolist() == expected
        learnt += sum(expected)
    assert 0 < learnt < STEPS * IMAGES


def test_interpolated_logits_lie_between_those_of_either_pass_each_at_a_place_of_its_own():
    together, alone = RANDOM.normal(size=(2, 500, 4))
    found = np.float64(ada_match.interpolated(jax.random.key(0), f32(together), f32(alone)))
    share = (found - alone) / (together - alone)
    wide = np.abs(together - alone) > 0.1
    assert -1e-4 < share[wide].min() < 0.01 and 0.99 < share[wide].max() < 1.0001
    np.testing.assert_allclose(share[wide].mean(), 0.5, atol=4 / np.sqrt(12 * wide.sum()))
    assert np.abs(np.diff(share, axis=1)).mean() > 0.2  # 1/3 for places that are drawn apart


def test_the_weight_of_adamatchs_guesses_rises_over_the_first_half_of_the_run():
    found = [float(ada_match.rise(jnp.float32(t))) for t in (0, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)]
    np.testing.assert_allclose(found, [0, 0.5 - np.sqrt(0.125), 0.5, 1, 1, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("annealing", "risen"),
    [
        ("none", [1, 1, 1, 1, 1]),
        ("linear", [0, 0.25, 0.5, 0.75, 1]),
        ("log", [0, 1 - np.exp(-1.25), 1 - np.exp(-2.5), 1 - np.exp(-3.75), 1 - np.exp(-5)]),
        ("exp", [np.exp(-5), np.exp(-3.75), np.exp(-2.5), np.exp(-1.25), 1]),
    ],
)
def test_uda_by_hand(annealing, risen):
    labels = [0, 3, 3, 1, 2, 0]
    for progress, share, logits in zip((0, 0.25, 0.5, 0.75, 1), risen, ANSWERS, strict=True):
        ceiling = 1 / 4 + share * 3 / 4
        nats = [surprise(row, label) for row, label in zip(logits, labels, strict=True)]
        taught = [nat for nat in nats if np.exp(-nat) <= ceiling]

        found = rules.signal_ceiling(annealing, jnp.float32(progress), CLASSES)
        np.testing.assert_allclose(found, ceiling, rtol=1e-5)
        loss = rules.annealed_cross_entropy(f32(logits), jnp.array(labels), found)
        np.testing.assert_allclose(loss, sum(taught) / max(len(taught), 1), rtol=1e-5)
        assert len(taught) == IMAGES or share < 1


def test_labels_that_are_known_already_teach_nothing_under_a_low_ceiling():
    logits, labels = f32([[9, 0, 0, 0], [0, 8, 0, 0]]), jnp.array([0, 1])
    value, gradient = jax.value_and_grad(rules.annealed_cross_entropy)(logits, labels, jnp.float32(0.5))
    assert value == 0 and not np.any(gradient)


@pytest.mark.parametrize("spec", [SPEC._replace(images=None), SPEC._replace(unlabelled=None)])
def test_flexmatch_must_know_how_many_images_there_are(spec):
    with pytest.raises(UserError, match="images and unlabelled"):
        flex_match.make(flex_match.Config(), spec)


def test_what_does_not_fit_is_said_in_a_line():
    with pytest.raises(UserError, match="give 2 or more"):
        soft_match.make(dataclasses.replace(tiny("soft_match").config, labelled_batch=1, unlabelled_batch=1), SPEC)
    with pytest.raises(UserError, match="annealing is 'cosine': choose one of none, log, linear, exp"):
        rules.signal_ceiling("cosine", jnp.float32(0), CLASSES)
    with pytest.raises(UserError, match="optimizer is 'lion': choose one of adamw, sgd"):
        partly_cosine_optimizer("lion", 0.1, 5, 0.0)
    with pytest.raises(UserError, match="teacher is 'both': choose one of student, average"):
        look(None, None, (None, None, None), "both", None)
