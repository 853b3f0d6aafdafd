"""Tarvainen and Valpola 2017: the ramps and the optimiser that follows them.

That the student's side of the consistency has a gradient, which a well-known code base lost, the conformance tests say.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen.core.schedules import ramp_down, ramp_up
from ssl_gen.methods.self_training.mean_teacher import PHOTOGRAPHS, Config, adam, lengths

STEPS = 150_000
PAPER = Config(steps=STEPS)


@pytest.mark.parametrize("step", [0, 10_000, 39_999, 40_000, 90_000])
def test_consistency_ramps_up_as_in_the_paper(step):
    expected = math.exp(-5 * (1 - step / 40_000) ** 2) if step < 40_000 else 1
    np.testing.assert_allclose(ramp_up(jnp.int32(step), lengths(PAPER)[0]), expected, rtol=1e-5)


@pytest.mark.parametrize("step", [0, 124_999, 125_001, 140_000, 150_000])
def test_the_learning_rate_ramps_down_as_in_the_paper(step):
    left = STEPS - step
    expected = math.exp(-12.5 * (1 - left / 25_000) ** 2) if left < 25_000 else 1
    np.testing.assert_allclose(ramp_down(jnp.int32(step), lengths(PAPER)[1], STEPS), expected, rtol=1e-5)


def test_runs_of_a_few_steps_have_ramps_too():
    assert lengths(Config(steps=2)) == (1.0, 1.0)


def test_photographs_have_the_b2_the_mean_and_the_shifts_of_the_cifar_script_throughout():
    """tensorflow/train_cifar10.py sets both decays of the ramp-up to those that come after it."""
    assert PHOTOGRAPHS.b2 == (0.999, 0.999) and PHOTOGRAPHS.averaging == (0.001, 0.001)
    assert lengths(PHOTOGRAPHS) == (40_000, 25_000) and PHOTOGRAPHS.steps == STEPS
    assert PHOTOGRAPHS.augmentation.crop == 2 and not PHOTOGRAPHS.augmentation.translate  # whole pixels, reflected


def test_adam_follows_the_ramps():
    """A constant gradient has moments 1 and 1 while b1 and b2 stay, so that a step is the learning rate itself."""
    config = dataclasses.replace(PAPER, steps=15)  # up to step 4, down from step 12.5
    optimizer, params = adam(config), jnp.zeros(())
    state = optimizer.init(params)
    update = jax.jit(lambda state: optimizer.update(jnp.ones(()), state, params))
    for step in range(15):
        change, state = update(state)
        rate = 3e-3 * math.exp(-5 * (1 - min(step / 4, 1)) ** 2)
        if step < 4:
            np.testing.assert_allclose(change, -rate, rtol=1e-4)
            np.testing.assert_allclose(state.hyperparams["b2"], 0.99)
        else:
            np.testing.assert_allclose(state.hyperparams["b2"], 0.999)
        falling = math.exp(-12.5 * (1 - min((15 - step) / 2.5, 1)) ** 2)
        np.testing.assert_allclose(state.hyperparams["learning_rate"], rate * falling, rtol=1e-4)
        np.testing.assert_allclose(state.hyperparams["b1"], 0.5 + 0.4 * falling, rtol=1e-4)


def adam_by_hand(gradients, rates, b1s, b2s):
    """Adam whose moments are weighted means: each gradient's weight written out, then divided by their sum."""
    updates = []
    for t in range(len(gradients)):
        means = []
        for powers, betas in ((gradients, b1s), (gradients**2, b2s)):
            weights = np.array([(1 - betas[i]) * np.prod(betas[i + 1 : t + 1]) for i in range(t + 1)])
            means.append(weights @ powers[: t + 1] / weights.sum())
        updates.append(-rates[t] * means[0] / (np.sqrt(means[1]) + 1e-8))
    return np.array(updates)


def test_adam_divides_by_the_weights_that_its_moments_hold_though_b1_and_b2_change():
    config = dataclasses.replace(PAPER, steps=30)  # up to step 8, down from step 25
    optimizer, params = adam(config), jnp.zeros(3)
    gradients = np.random.default_rng(0).normal(1, 0.5, (30, 3))
    state, found = optimizer.init(params), []
    update = jax.jit(lambda gradient, state: optimizer.update(gradient, state, params))
    for gradient in gradients:
        change, state = update(jnp.float32(gradient), state)
        found.append(change)
    steps = np.arange(30)
    falling = np.exp(-12.5 * (1 - np.minimum((30 - steps) / 5, 1)) ** 2)
    rates = 3e-3 * np.exp(-5 * (1 - np.minimum(steps / 8, 1)) ** 2) * falling
    expected = adam_by_hand(gradients, rates, 0.5 + 0.4 * falling, np.where(steps < 8, 0.99, 0.999))
    np.testing.assert_allclose(np.array(found), expected, rtol=1e-4)


def test_a_step_is_as_long_after_b2_changes_as_before():
    """With a constant gradient both moments are 1, whatever b1 and b2, so that a step is the learning rate itself."""
    optimizer, params = adam(dataclasses.replace(PAPER, steps=150)), jnp.zeros(())  # up to step 40
    state = optimizer.init(params)
    update = jax.jit(lambda state: optimizer.update(jnp.ones(()), state, params))
    for step in range(60):
        change, state = update(state)
        np.testing.assert_allclose(change, -3e-3 * math.exp(-5 * (1 - min(step / 40, 1)) ** 2), rtol=1e-4)
