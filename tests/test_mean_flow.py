"""Geng et al. 2025: the identity on linear fields, the loss by hand, one step on a Gaussian, learnt guidance."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen.methods.diffusion import mean_flow
from ssl_gen.methods.diffusion.mean_flow import Config, MeanFlowSampler, adaptive, intervals, on_both_sides
from ssl_gen.types import Batch, ImageSpec, UserError

SPEC = ImageSpec(8, 8, 1, 3)
MEAN, DEVIATION = 0.2, 0.1  # of every pixel of the Gaussian
SPEEDS = np.array([0.1, -0.3, 0.25, 0.5])  # of each class, and of none


class Point(nn.Module):
    """The mean velocity where all images are one grey, MEAN: that of the straight lines to it, whatever r is."""

    @nn.compact
    def __call__(self, x, levels, labels, train):
        one = self.param("one", nn.initializers.ones, ())
        return one * (x - MEAN) / levels[:, 0, None, None, None]


class Gaussian(nn.Module):
    """The mean velocity of images N(MEAN, DEVIATION^2): a pixel keeps its place in the Gaussian on the way."""

    @nn.compact
    def __call__(self, x, levels, labels, train):
        one = self.param("one", nn.initializers.ones, ())
        end, length = levels[:, 0, None, None, None], levels[:, 1, None, None, None]
        start = end - length
        before, after = (jnp.sqrt((1 - t) ** 2 * DEVIATION**2 + t**2) for t in (end, start))
        there = (1 - start) * MEAN + after / before * (x - (1 - end) * MEAN)
        return one * (x - there) / length


class Constant(nn.Module):
    """A field that is a number for each class, and one for none."""

    @nn.compact
    def __call__(self, x, levels, labels, train):
        speeds = self.param("speeds", lambda _: jnp.asarray(SPEEDS, jnp.float32))
        return jnp.broadcast_to(speeds[labels][:, None, None, None], x.shape)


def made(monkeypatch, network, **changes):
    """The method with a field in closed form, and its first state."""
    monkeypatch.setattr(mean_flow, "unet", lambda *_, **__: network)
    method = mean_flow.make(Config(**changes), SPEC)
    return method, method.init(jax.random.key(0), batch_of(np.zeros((2, 8, 8, 1)), np.zeros(2)))


def batch_of(images, guesses):
    images = jnp.asarray(images, jnp.float32)
    return Batch(images[:0], jnp.zeros(0, jnp.int32), images, guesses=jnp.asarray(guesses, jnp.int32))


def test_the_identity_holds_on_a_linear_field():
    """dx/dt = a x is solved by x_r = x_t exp(-a (t - r)); u is the way from there to x_t by its time."""
    rates = jnp.array([0.7, -1.3, 2.0])

    def mean_velocity(x, starts, ends):
        length = (ends - starts)[:, None, None, None]
        return x * (1 - jnp.exp(-rates * length)) / length, "other"

    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 1, 1, 3)), jnp.float32)
    starts, ends = jnp.array([0.0, 0.1, 0.3, 0.2, 0.5]), jnp.array([1.0, 0.9, 0.4, 0.7, 0.99])
    mean, wanted, other = on_both_sides(mean_velocity, x, starts, ends, rates * x, rates * x)
    np.testing.assert_allclose(wanted, mean, atol=2e-5)
    assert other == "other"
    wrong = on_both_sides(mean_velocity, x, starts, ends, rates * x, -rates * x)[1]
    assert np.abs(wrong - mean).max() > 0.1


def test_a_step_on_images_that_are_one_point_finds_nothing_to_learn_in_its_field(monkeypatch):
    method, state = made(monkeypatch, Point(), instantaneous=0.3)
    batch = batch_of(np.full((40, 8, 8, 1), MEAN), np.zeros(40))
    _, metrics = jax.jit(method.phases[0].step)(state, jax.random.key(1), jnp.int32(0), batch)
    assert float(metrics["field/identity"]) < 1e-3


class Steady(nn.Module):
    """u = a x whatever r and t are: no mean of any velocity, so that the identity does not hold."""

    @nn.compact
    def __call__(self, x, levels, labels, train):
        return 0.7 * x * self.param("one", nn.initializers.ones, ())


@pytest.mark.parametrize("tangent", ["conditional", "predicted"])
def test_the_loss_is_that_of_the_tangent_asked_for_with_its_power_and_floor(monkeypatch, tangent):
    """Images are 0, so x_t = t z and v = z; u = a t z, and du/dt is a v, or a u where the tangent is the field's own.

    D = (a t - 1 + (t - r) a) z, or (a t - 1 + (t - r) a^2 t) z.
    """
    config = {"tangent": tangent, "instantaneous": 0.0, "power": 0.6, "floor": 30.0}
    method, state = made(monkeypatch, Steady(), **config)
    key, count = jax.random.key(1), 20
    batch = batch_of(np.zeros((count, *SPEC.shape)), np.zeros(count))
    _, metrics = jax.jit(method.phases[0].step)(state, key, jnp.int32(0), batch)
    keys = jax.random.split(key, 5)
    z = np.float64(jax.random.normal(keys[1], (count, *SPEC.shape)))
    r, t = np.float64(intervals(keys[2], count, Config(**config)))
    slope = 0.7 if tangent == "conditional" else 0.7**2 * t
    squares = (0.7 * t - 1 + (t - r) * slope) ** 2 * (z**2).sum((1, 2, 3))
    np.testing.assert_allclose(metrics["field/identity"], (squares / (squares + 30) ** 0.6).mean(), rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 3])
def test_samples_of_the_exact_field_are_the_gaussian_however_few_the_steps(monkeypatch, steps):
    method, state = made(monkeypatch, Gaussian())
    key = jax.random.key(3)
    found = method.sample(state, key, jnp.zeros(50, jnp.int32), MeanFlowSampler(steps))
    noise = np.asarray(jax.random.normal(key, (50, *SPEC.shape)))
    np.testing.assert_allclose(found, MEAN + DEVIATION * noise, atol=1e-5)


def test_times_are_ordered_logit_normals_and_a_share_of_the_pairs_is_one():
    config = Config(logit_mean=-0.4, logit_deviation=1.0, instantaneous=0.75)
    starts, ends = (np.asarray(each, np.float64) for each in intervals(jax.random.key(0), 20_000, config))
    assert ((starts > 0) & (starts <= ends) & (ends < 1)).all()
    np.testing.assert_allclose((starts == ends).mean(), 0.75, atol=0.015)
    both = np.concatenate([starts[starts < ends], ends[starts < ends]])  # the two that were drawn, in some order
    logits = np.log(both / (1 - both))
    np.testing.assert_allclose([logits.mean(), logits.std()], [-0.4, 1.0], atol=0.04)


def test_the_adaptive_loss_divides_a_gradient_by_its_own_size():
    squares = jnp.array([0.0, 3.0])
    np.testing.assert_allclose(adaptive(squares, 1.0, 1.0), [0, 3 / 4])
    np.testing.assert_allclose(adaptive(squares, 0.5, 1.0), [0, 3 / 2])
    gradient = jax.grad(lambda squares: adaptive(squares, 0.5, 1.0).sum())(squares)
    np.testing.assert_allclose(gradient, [1, 1 / 2])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_guidance_is_learnt_from_what_is_said_without_a_class(monkeypatch, guidance):
    """Images are 0, so v = z: E (u_y - w z - (1 - w) u_none)^2 = (u_y - (1 - w) u_none)^2 + w^2 a pixel.

    Where no class is told w is 1, as in both official codes (meanflow.py, v_g; imf.py).
    """
    known = {"power": 0.0, "label_dropout": 0.0, "unlabelled": "null"}
    method, state = made(monkeypatch, Constant(), trained_guidance=guidance, **known)
    labels = np.repeat([0, 1, 2, -1], 100)
    batch = batch_of(np.zeros((400, 8, 8, 1)), labels)
    _, metrics = jax.jit(method.phases[0].step)(state, jax.random.key(1), jnp.int32(0), batch)
    weights = np.where(labels < 0, 1.0, guidance)
    expected = 64 * ((SPEEDS[labels] - (1 - weights) * SPEEDS[3]) ** 2 + weights**2).mean()
    np.testing.assert_allclose(metrics["field/identity"], expected, rtol=0.03)


def test_settings_that_make_no_sense_are_answered_in_one_line():
    with pytest.raises(UserError, match="steps is 0"):
        MeanFlowSampler(0)
    with pytest.raises(UserError, match="choose one of conditional, predicted"):
        mean_flow.make(Config(tangent="none"), SPEC)
    with pytest.raises(UserError, match="guidance is 2, away from images without a class"):
        mean_flow.make(Config(trained_guidance=2.0, label_dropout=0.0), SPEC)
