"""Learning rates over a run, and what weight decay touches."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen.core.schedules import annealed, kernels, partly_cosine
from ssl_gen.methods.self_training import mean_teacher, pseudo_label
from ssl_gen.methods.variational import vae


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_an_annealed_rate_is_constant_until_its_last_share_and_0_at_the_end(share):
    rate, updates = annealed(0.1, 8, share), np.arange(9)
    found = [rate(update) if callable(rate) else rate for update in updates]
    left = 1 - updates / 8
    np.testing.assert_allclose(found, 0.1 * np.minimum(1, left / share) if share else np.full(9, 0.1), atol=1e-8)


def test_a_partly_cosine_rate_begins_whole_and_ends_at_a_fifth():
    schedule = partly_cosine(0.5, 100)
    assert schedule(0) == 0.5
    assert schedule(100) == pytest.approx(0.5 * math.sin(math.pi / 16))  # cos(7 pi / 16)
    assert schedule(50) == pytest.approx(0.5 * math.cos(7 * math.pi / 32))


def test_kernels_are_what_has_two_axes_or_more():
    params = {"dense": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}, "norm": {"scale": jnp.zeros(3)}}
    assert kernels(params) == {"dense": {"kernel": True, "bias": False}, "norm": {"scale": False}}


LONG = 9_840_000  # updates; the longest default, of vae
STEPS = (0, 1, 327_361, LONG // 2, LONG - 1, 2**31 - 1)  # at 327,361 an int32 product with 3^8 - 1 wraps


def stage(step):
    """Of the paper's eight, the first as long as (3 - 1) / (3^8 - 1) of all updates."""
    ends = (3.0 ** np.arange(1, 9) - 1) / (3.0**8 - 1) * LONG
    return min(int((step >= ends).sum()), 7)


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
        lambda step: mean_teacher.ramp_up(step, LONG / 3),
        lambda step: mean_teacher.ramp_down(step, LONG / 6, LONG),
        lambda step: pseudo_label.ramp(step, 0.1 * LONG, 0.6 * LONG),
    ],
    ids=["vae", "partly_cosine", "annealed", "ramp_up", "ramp_down", "pseudo_label"],
)
def test_a_schedule_is_what_it_is_in_float64_however_large_an_int32_step_is(schedule, step):
    given = float(jax.jit(schedule)(jnp.int32(step)))
    with jax.enable_x64(True):
        expected = float(schedule(jnp.float64(step)))
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-7)
