"""Pham et al. 2021: the teacher's meta term against finite differences, and what a step hands to whom."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import IMAGES, SPEC, first_rows, numbers, same, tiny

from ssl_gen.augmentation import Augmentation
from ssl_gen.core.keys import INIT, stream
from ssl_gen.losses.thresholds import sharpened_cross_entropy
from ssl_gen.methods.self_training.meta_pseudo_labels import Config, drawn, feedback, lengths
from ssl_gen.networks import mlp
from ssl_gen.types import Batch, UserError

RANDOM = np.random.default_rng(0)
PLAIN = {"network": "mlp", "augmentation": Augmentation(), "strong": Augmentation()}
UNLABELLED, LABELLED = RANDOM.normal(size=(3, 2)), RANDOM.normal(size=(4, 2))  # two features
LABELS = np.array([0, 2, 1, 0])
TEACHER, STUDENT = RANDOM.normal(size=(2, 3)), RANDOM.normal(size=(2, 3))  # linear, three classes
RATE = 2.0  # large, so that the student's loss is far from linear in its step


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def student_loss(student):
    return -log_softmax(LABELLED @ student)[np.arange(4), LABELS].mean()


def taught(labels):
    """The student after one step of gradient descent on the drawn labels."""
    gradient = UNLABELLED.T @ (np.exp(log_softmax(UNLABELLED @ STUDENT)) - np.eye(3)[labels]) / 3
    return STUDENT - RATE * gradient


DRAWS = [np.array(labels) for labels in itertools.product(range(3), repeat=3)]  # all there are
WORTH = [student_loss(STUDENT) - student_loss(taught(labels)) for labels in DRAWS]


def chance(teacher, labels):
    return np.exp(log_softmax(UNLABELLED @ teacher)[np.arange(3), labels].sum())


def expected_loss(teacher):
    """E L(w') over all draws, each with the chance that the teacher gives it."""
    return sum(chance(teacher, labels) * student_loss(taught(labels)) for labels in DRAWS)


@jax.jit
def meta_gradient(teacher, labels, advantage):
    return jax.grad(lambda teacher: feedback(jnp.float32(UNLABELLED) @ teacher, labels, advantage))(teacher)


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_the_meta_term_points_in_the_mean_down_the_students_labelled_loss(baseline):
    """Its gradient, weighed over all 27 draws, is 1 / U that of the student's expected loss, whatever the baseline."""
    differences = np.zeros((2, 3))
    for place in np.ndindex(2, 3):
        step = np.zeros((2, 3))
        step[place] = 1e-5
        differences[place] = (expected_loss(TEACHER + step) - expected_loss(TEACHER - step)) / 2e-5
    found = sum(
        chance(TEACHER, labels) * np.float64(meta_gradient(jnp.float32(TEACHER), labels, jnp.float32(worth - baseline)))
        for labels, worth in zip(DRAWS, WORTH, strict=True)
    )
    assert np.abs(differences).max() > 0.01
    np.testing.assert_allclose(3 * found, differences, rtol=1e-3, atol=1e-5)


def test_labels_are_drawn_as_often_as_the_teacher_says():
    logits = np.log([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    labels = drawn(jax.random.key(0), jnp.repeat(jnp.float32(logits), 10_000, 0)).reshape(2, 10_000)
    shares = [[(row == label).mean() for label in range(3)] for row in labels]
    np.testing.assert_allclose(shares, np.exp(logits), atol=4 * np.sqrt(0.25 / 10_000))


def test_the_consistency_is_the_cross_entropy_with_the_sharpened_sure_targets():
    logits, targets = RANDOM.normal(size=(5, 3)), 2 * RANDOM.normal(size=(5, 3))
    q, log_p = np.exp(log_softmax(targets)), log_softmax(logits)
    threshold = np.sort(q.max(-1))[1:3].mean()  # two are left out, and count in the mean
    sharp = q ** (1 / 0.7) / (q ** (1 / 0.7)).sum(-1, keepdims=True)
    expected = sum(-(s * p).sum() for s, p, row in zip(sharp, log_p, q, strict=True) if row.max() > threshold) / 5
    found = sharpened_cross_entropy(jnp.float32(logits), jnp.float32(targets), 0.7, threshold, False)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_mask_is_on_the_sharpened_maximum_where_asked_for():
    logits, targets = RANDOM.normal(size=(5, 3)), 2 * RANDOM.normal(size=(5, 3))
    q, log_p = np.exp(log_softmax(targets)), log_softmax(logits)
    sharp = q ** (1 / 0.7) / (q ** (1 / 0.7)).sum(-1, keepdims=True)
    threshold = (q.max(-1)[0] + sharp.max(-1)[0]) / 2
    assert q.max(-1)[0] < threshold < sharp.max(-1)[0]
    expected = sum(-(s * p).sum() for s, p in zip(sharp, log_p, strict=True) if s.max() > threshold) / 5
    found = sharpened_cross_entropy(jnp.float32(logits), jnp.float32(targets), 0.7, threshold, True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_targets_of_the_consistency_carry_no_gradient():
    logits, targets = jnp.float32(RANDOM.normal(size=(5, 3))), jnp.float32(RANDOM.normal(size=(5, 3)))
    own, theirs = jax.grad(sharpened_cross_entropy, argnums=(0, 1))(logits, targets, 0.7, 0.0, False)
    assert np.abs(own).max() > 0.01 and not np.any(theirs)


def step_of(method, phase):
    return jax.jit(lambda state, step, batch: method.phases[phase].step(state, stream(0, step), step, batch))


@functools.cache
def stepped(phase):
    """The state before and after the first step of a phase, nothing augmented, and its metrics."""
    method = tiny("meta_pseudo_labels", **PLAIN).method
    images, rows = jnp.asarray(IMAGES, jnp.float32) / 127.5 - 1, first_rows()
    batch = Batch(images[rows.labelled[0, :4]], rows.labels[0, :4], images[rows.unlabelled[0, :8]])
    before = jax.jit(method.init)(stream(0, INIT), batch)._replace(baseline=jnp.float32(0.3))
    return batch, before, *step_of(method, phase)(before, jnp.int32(0), batch)


def test_the_worth_of_a_step_is_what_it_took_off_the_students_labelled_loss():
    batch, before, after, metrics = stepped(1)
    network, values = mlp.Classifier(SPEC.classes, (4, 4), 0.2), []
    for params in (before.student.params, after.student.params):
        logits = network.apply({"params": params, **after.student.stats}, batch.labelled, train=False)
        values.append(-log_softmax(np.float64(logits))[np.arange(4), batch.labels].mean())
    worth = values[0] - values[1]
    assert abs(worth) > 1e-5
    np.testing.assert_allclose(metrics["student/improvement"], worth, rtol=1e-2)


def test_the_teacher_is_rewarded_for_what_is_above_the_running_mean():
    _, before, after, metrics = stepped(1)
    advantage = float(metrics["student/improvement"] - before.baseline)
    np.testing.assert_allclose(after.baseline, before.baseline + 0.01 * advantage, rtol=1e-5)
    assert metrics["teacher/meta"] / advantage > 0.5  # a cross-entropy of drawn labels, positive


def test_each_phase_trains_its_own_players():
    moved = []
    for phase in range(3):
        _, before, after, _ = stepped(phase)
        moved.append(tuple(not same(*pair) for pair in zip(before[:2], after[:2], strict=True)))
    assert moved == [(True, False), (True, True), (False, True)]


def test_the_first_ema_of_the_student_is_its_params():
    """It starts with the student's first update, after the teacher's warm-up, and not with its initial params."""
    method = tiny("meta_pseudo_labels", **PLAIN).method
    batch, before, *_ = stepped(1)
    student = step_of(method, 1)(before, jnp.int32(method.phases[0].steps), batch)[0].student
    for mean, params in zip(numbers(student.ema.params), numbers(student.params), strict=True):
        np.testing.assert_allclose(mean, params, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("steps", [0, 1, 7, 1_200])
def test_the_phases_have_all_steps_between_them(steps):
    assert sum(lengths(Config(steps=steps, warm_up=0.5, fine_tuning=0.5))) == steps


@pytest.mark.parametrize("shares", [(0.6, 0.5), (-0.1, 0.5), (0.5, -0.1)])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(UserError, match="shares"):
        lengths(Config(warm_up=shares[0], fine_tuning=shares[1]))


def test_the_fine_tuning_has_its_own_rate():
    """Adam's first step moves a param by its rate, whatever the gradient; decay is 0.05 % of a param below 2."""
    method = tiny("meta_pseudo_labels", **PLAIN, warm_up=0.0, fine_tuning=1.0, fine_tuning_rate=1e-3).method
    batch, before, *_ = stepped(2)
    before = before._replace(student=jax.jit(method.init)(stream(0, INIT), batch).student)
    after = step_of(method, 2)(before, jnp.int32(0), batch)[0]
    moves = [np.abs(x - y).max() for x, y in zip(*(numbers(s.student.params) for s in (before, after)), strict=True)]
    np.testing.assert_allclose(moves, 1e-3, rtol=0.02)
