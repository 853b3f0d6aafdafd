"""Xie et al. 2020: who teaches whom, and what is learnt of a guess."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear import Linear, apart, check_average
from tiny import SPEC, batch_at, first_batch, same, tiny

from ssl_gen.augmentation import Augmentation
from ssl_gen.core.keys import INIT, stream
from ssl_gen.methods.self_training import noisy_student
from ssl_gen.methods.self_training.noisy_student import Config, State, starts, taught, told
from ssl_gen.networks import classifiers
from ssl_gen.types import UserError

RANDOM = np.random.default_rng(0)


def test_only_guesses_above_the_threshold_are_learnt_and_each_as_it_is():
    logits, q = RANDOM.normal(size=(5, 3)), RANDOM.dirichlet(np.ones(3), 5)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    kept = [row for row in range(5) if q[row].max() > 0.6]
    assert 0 < len(kept) < 5
    expected = np.mean([-(q[row] * np.log(p[row])).sum() for row in kept])
    found = taught(jnp.asarray(logits, jnp.float32), jnp.asarray(np.log(q), jnp.float32), 0.6)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert float(taught(jnp.asarray(logits), jnp.asarray(np.log(q)), 1.0)) == 0


def test_students_share_what_the_first_teacher_leaves_of_the_steps():
    assert starts(Config(steps=1_000, warm_up=0.1, iterations=3)) == (100, 400, 700)
    with pytest.raises(UserError, match="iterations 4 are more students than there are steps for them"):
        starts(Config(steps=10, warm_up=0.7, iterations=4))


def test_a_student_becomes_the_teacher_of_a_new_one_when_its_turn_is_over_and_then_alone():
    made = tiny("noisy_student")
    method, (first, second) = made.method, starts(made.config)
    batch = batch_at(method, 1)
    before = jax.jit(method.init)(stream(0, INIT), batch)
    step = jax.jit(method.phases[1].step)
    for at in (first, second, second + 1):
        after, _ = step(before, stream(0, at), jnp.int32(at), batch)
        assert same(after.teacher, before.student if at == second else before.teacher)
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after.student.params, before.student.params)
        # one step of Adam moves a weight by its rate; another draw of the first weights by far more
        assert (max(jax.tree.leaves(moved)) > 0.1) == (at == second)


def test_only_images_that_are_told_a_class_are_learnt_by_it():
    logits, labels = RANDOM.normal(size=(4, 3)), np.array([2, -1, 0, -1])
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -(np.log(p[0, 2]) + np.log(p[2, 0])) / 2
    np.testing.assert_allclose(told(jnp.asarray(logits, jnp.float32), jnp.asarray(labels)), expected, rtol=1e-5)
    assert float(told(jnp.asarray(logits), jnp.full(4, -1))) == 0


def test_the_first_teacher_learns_an_earlier_runs_guesses_where_it_is_to_and_no_student_does():
    made = tiny("noisy_student", first_teacher="guessed")
    method = made.method
    assert method.told == "guessed" and tiny("noisy_student").method.told == "nothing"
    for phase, learns in zip(method.phases, (True, False), strict=True):
        batch = batch_at(method, method.phases.index(phase))
        state, step = jax.jit(method.init)(stream(0, INIT), batch), jax.jit(phase.step)
        shifted = batch._replace(guesses=(jnp.maximum(batch.guesses, 0) + 1) % 3)
        first, other = (step(state, stream(0, 1), jnp.int32(1), each)[0] for each in (batch, shifted))
        assert same(first, other) != learns


@pytest.mark.parametrize(("phase", "player", "number"), [(0, "teacher", 1), (1, "student", 5), (1, "student", 7)])
def test_each_network_is_averaged_over_its_own_updates(phase, player, number, monkeypatch):
    """Networks begin at 0, 4 and 6: of each this is the second update, at a rate of 1/2."""
    monkeypatch.setattr(classifiers, "classifier", lambda network, outputs, *_: Linear(outputs))
    changes = {"steps": 8, "warm_up": 0.5, "iterations": 2, "averaging": 0.5, "strong": Augmentation()}
    config = tiny("noisy_student", **changes).config
    method = noisy_student.make(config, SPEC)
    state = method.init(stream(0, INIT), first_batch())
    before = State(apart(state.teacher), apart(state.student))
    after, _ = jax.jit(method.phases[phase].step)(before, stream(0, number), jnp.int32(number), batch_at(method, phase))
    check_average(getattr(before, player), getattr(after, player), 2 / 3)
