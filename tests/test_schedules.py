"""Learning rates over a run, and what weight decay touches."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_gen.core.schedules import (
    annealed,
    clipped,
    decaying,
    half_cosine,
    kernels,
    linear_ramp,
    partly_cosine,
    partly_cosine_optimizer,
    ramp_down,
    ramp_up,
    staged,
)
from ssl_gen.methods.classical import supervised
from ssl_gen.methods.self_training import fixmatch, pseudo_label
from ssl_gen.methods.variational import vae


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_an_annealed_rate_is_constant_until_its_last_share_and_0_at_the_end(share):
    rate, updates = annealed(0.1, 8, share), np.arange(9)
    found = [rate(update) if callable(rate) else rate for update in updates]
    left = 1 - updates / 8
    np.testing.assert_allclose(found, 0.1 * np.minimum(1, left / share) if share else np.full(9, 0.1), atol=1e-8)


def test_a_staged_rate_is_multiplied_at_the_end_of_each_of_equal_parts():
    schedule = staged(0.4, 10, 5, 0.75)
    np.testing.assert_allclose([schedule(step) for step in range(10)], 0.4 * 0.75 ** (np.arange(10) // 2), rtol=1e-6)


def test_a_partly_cosine_rate_begins_whole_and_ends_at_a_fifth():
    schedule = partly_cosine(0.5, 100)
    assert schedule(0) == 0.5
    assert schedule(100) == pytest.approx(0.5 * math.sin(math.pi / 16))  # cos(7 pi / 16)
    assert schedule(50) == pytest.approx(0.5 * math.cos(7 * math.pi / 32))


def test_a_number_goes_from_one_value_to_another_along_half_a_cosine_and_stays():
    schedule = half_cosine(0.9, 0.99, 100)
    found = [float(schedule(jnp.int32(step))) for step in (0, 25, 50, 100, 1_000)]
    np.testing.assert_allclose(found, [0.9, 0.99 - 0.09 * (1 + math.sqrt(0.5)) / 2, 0.945, 0.99, 0.99], rtol=1e-6)


def test_kernels_are_what_has_two_axes_or_more():
    params = {"dense": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}, "norm": {"scale": jnp.zeros(3)}}
    assert kernels(params) == {"dense": {"kernel": True, "bias": False}, "norm": {"scale": False}}


def updates_of(optimizer, params, gradients):
    state, found = optimizer.init(params), []
    for gradient in gradients:
        change, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, change)
        found.append(params)
    return found


def test_sgd_has_nesterovs_momentum_and_decays_kernels_in_its_gradient():
    """tf.train.MomentumOptimizer with use_nesterov: a <- 0.9 a + g, w <- w - rate (g + 0.9 a)."""
    random = np.random.default_rng(0)
    kernel, bias = random.normal(size=(2, 3)), random.normal(size=3)
    gradients = [{"kernel": random.normal(size=(2, 3)), "bias": random.normal(size=3)} for _ in range(5)]
    params = jax.tree.map(jnp.float32, {"kernel": kernel, "bias": bias})
    found = updates_of(decaying("sgd", 0.03, 5, 0.1), params, [jax.tree.map(jnp.float32, each) for each in gradients])
    memory = {"kernel": 0.0, "bias": 0.0}
    weights, decay = {"kernel": kernel, "bias": bias}, {"kernel": 0.1, "bias": 0.0}
    for step, (gradient, after) in enumerate(zip(gradients, found, strict=True)):
        rate = 0.03 * math.cos(7 * math.pi * step / (16 * 5))
        for name in weights:
            slope = gradient[name] + decay[name] * weights[name]
            memory[name] = 0.9 * memory[name] + slope
            weights[name] = weights[name] - rate * (slope + 0.9 * memory[name])
            np.testing.assert_allclose(after[name], weights[name], rtol=1e-5)


def test_the_floor_on_photographs_has_the_network_the_optimiser_and_the_length_of_fixmatch():
    rivals = [module.PHOTOGRAPHS for module in (fixmatch, supervised, pseudo_label)]
    shared = ("steps", "labelled_batch", "network", "width", "dropout", "optimizer", "learning_rate", "averaging")
    for name in (*shared, "augmentation"):
        assert len({getattr(config, name) for config in rivals}) == 1, name
    assert {fixmatch.PHOTOGRAPHS.weight_decay, supervised.PHOTOGRAPHS.l2, pseudo_label.PHOTOGRAPHS.l2} == {5e-4}
    rival = fixmatch.PHOTOGRAPHS
    theirs = partly_cosine_optimizer(rival.optimizer, rival.learning_rate, rival.steps, rival.weight_decay)
    ours = decaying("sgd", 0.03, 2**20, 5e-4)
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    jax.tree.map(np.testing.assert_array_equal, *(updates_of(each, params, [params] * 2) for each in (ours, theirs)))


LONG = 9_840_000  # updates; the longest default, of vae
STEPS = (0, 1, 327_361, LONG // 2, LONG - 1, 2**31 - 1)  # at 327,361 an int32 product with 3^8 - 1 wraps


def stage(step):
    """Of the paper's eight, the first as long as (3 - 1) / (3^8 - 1) of all updates."""
    ends = (3.0 ** np.arange(1, 9) - 1) / (3.0**8 - 1) * LONG
    return min(int((step >= ends).sum()), 7)


def test_a_clipped_gradient_has_the_decay_of_kernels_in_it_and_is_scaled_down_before_its_entries_are_held():
    params = {"kernel": jnp.array([[2.0, 4.0]]), "bias": jnp.array([1.0])}
    gradients = {"kernel": jnp.array([[2.0, 2.0]]), "bias": jnp.array([6.0])}
    optimizer = clipped(optax.sgd(1.0), l2=0.5, norm=3.5, most=2.5)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    # with the decay 3, 4 and 6, of norm sqrt(61); the last one is still above 2.5 when that is 3.5
    assert 6 * 3.5 / math.sqrt(61) > 2.5
    np.testing.assert_allclose(updates["kernel"], -np.array([[3.0, 4.0]]) * 3.5 / math.sqrt(61), rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], [-2.5], rtol=1e-6)


@pytest.mark.parametrize("step", STEPS[:-1])
def test_the_stages_of_a_vae_are_the_papers_for_int32_steps(step):
    rate = vae.falling(1e-3, LONG, jnp.int32(step))
    np.testing.assert_allclose(rate, 1e-3 * 10 ** (-stage(step) / 7), rtol=1e-5)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "schedule",
    [
        lambda step: vae.falling(1e-3, LONG, step),
        lambda step: partly_cosine(1e-3, LONG)(step),
        lambda step: annealed(1e-3, LONG, 0.5)(step),
        lambda step: ramp_up(step, LONG / 3),
        lambda step: ramp_down(step, LONG / 6, LONG),
        lambda step: linear_ramp(step, 0.1 * LONG, 0.6 * LONG),
    ],
    ids=["vae", "partly_cosine", "annealed", "ramp_up", "ramp_down", "linear_ramp"],
)
def test_a_schedule_is_what_it_is_in_float64_however_large_an_int32_step_is(schedule, step):
    given = float(jax.jit(schedule)(jnp.int32(step)))
    with jax.enable_x64(True):
        expected = float(schedule(jnp.float64(step)))
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-7)
