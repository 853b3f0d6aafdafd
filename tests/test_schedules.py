"""Learning rates over a run, and what weight decay touches."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen.core.schedules import annealed, kernels, partly_cosine


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
