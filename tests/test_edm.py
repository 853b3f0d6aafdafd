"""Karras et al. 2022: table 1, its schedule and churn, the sampler and the loss on a Gaussian, guidance."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate as quadrature
from scipy import stats

from ssl_gen.methods.diffusion import edm
from ssl_gen.methods.diffusion.edm import Config, EdmSampler, churned, noise_levels, scaling
from ssl_gen.types import Batch, ImageSpec, UserError

SPEC = ImageSpec(8, 8, 1, 3)
PIXELS = 0.5  # sigma_data
MEAN, DEVIATION = 0.2, 0.1  # of every pixel of the Gaussian
OUTPUTS = np.array([0.1, -0.3, 0.25, 0.5])  # of each class, and of none


def table_1(noise):
    """c_skip, c_out, c_in and c_noise in numpy."""
    total = noise**2 + PIXELS**2
    return PIXELS**2 / total, noise * PIXELS / np.sqrt(total), 1 / np.sqrt(total), np.log(noise) / 4


class Exact(nn.Module):
    """F such that D is the mean of a Gaussian's images given noisy ones, the regression line of x on x + n."""

    @nn.compact
    def __call__(self, images, levels, labels, train):
        one = self.param("one", nn.initializers.ones, ())
        noise = jnp.exp(4 * levels)[:, None, None, None]
        total = noise**2 + PIXELS**2
        x = images * jnp.sqrt(total)
        denoised = MEAN + DEVIATION**2 / (noise**2 + DEVIATION**2) * (x - MEAN)
        return one * (denoised - PIXELS**2 / total * x) * jnp.sqrt(total) / (noise * PIXELS)


class Constant(nn.Module):
    """F that is a number for each class, and one for none."""

    @nn.compact
    def __call__(self, images, levels, labels, train):
        outputs = self.param("outputs", lambda _: jnp.asarray(OUTPUTS, jnp.float32))
        return jnp.broadcast_to(outputs[labels][:, None, None, None], images.shape)


def made(monkeypatch, network, **changes):
    """The method with a network in closed form, and its first state."""
    monkeypatch.setattr(edm, "unet", lambda *_, **__: network)
    method = edm.make(Config(**changes), SPEC)
    images = jnp.zeros((2, *SPEC.shape))
    return method, method.init(jax.random.key(0), Batch(images, jnp.zeros(2, jnp.int32), images))


def test_the_preconditioning_is_table_1_and_does_what_it_is_for():
    """Appendix B.6: what the network sees and what it is to say have deviation 1, and errors are amplified least."""
    noise = np.geomspace(0.002, 80, 30)
    found = scaling(jnp.asarray(noise, jnp.float32), PIXELS)
    for one, other in zip(found, table_1(noise), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)
    skip, output, inside, _ = (np.asarray(each, np.float64) for each in found)
    np.testing.assert_allclose(inside**2 * (PIXELS**2 + noise**2), 1, rtol=1e-5)

    def square(skip):
        """Variance of x - skip (x + n)."""
        return (1 - skip) ** 2 * PIXELS**2 + skip**2 * noise**2

    np.testing.assert_allclose(square(skip), output**2, rtol=1e-4)
    assert (square(skip + 1e-2) > square(skip)).all() and (square(skip - 1e-2) > square(skip)).all()


def test_noise_falls_evenly_in_its_seventh_root_and_ends_at_none():
    levels = np.asarray(noise_levels(EdmSampler(steps=5)), np.float64)
    np.testing.assert_allclose(levels[[0, 4, 5]], [80, 0.002, 0], rtol=1e-3)
    np.testing.assert_allclose(np.diff(levels[:5] ** (1 / 7), 2), 0, atol=1e-6)
    np.testing.assert_allclose(noise_levels(EdmSampler(steps=1)), [80, 0], rtol=1e-5)


def test_churn_raises_the_levels_in_its_interval_and_at_most_by_the_root_of_two():
    levels = jnp.array([50.0, 10.0, 1.0, 0.1, 0.0])
    some = EdmSampler(steps=4, churn=0.8, churn_from=0.5, churn_to=20.0)
    np.testing.assert_allclose(churned(levels, some), [50, 12, 1.2, 0.1], rtol=1e-6)
    most = EdmSampler(steps=4, churn=80.0)
    np.testing.assert_allclose(churned(levels, most), np.sqrt(2) * levels[:-1], rtol=1e-6)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_the_sampler_comes_nearer_to_the_gaussian_by_its_order(monkeypatch, solver, order):
    """A pixel keeps its place in the Gaussian, whose deviation is sqrt(DEVIATION^2 + s^2) on the way."""
    method, state = made(monkeypatch, Exact())
    key, count = jax.random.key(3), 20
    noise = 80 * np.asarray(jax.random.normal(jax.random.split(key)[0], (count, *SPEC.shape)), np.float64)
    expected = MEAN + DEVIATION / np.sqrt(DEVIATION**2 + 80**2) * (noise - MEAN)
    errors = []
    for steps in (40, 80):
        sampler = EdmSampler(steps, solver, noise_to=1e-4)
        found = method.sample(state, key, jnp.zeros(count, jnp.int32), sampler)
        errors.append(np.abs(np.asarray(found) - expected).max())
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), order, atol=0.25)


@pytest.mark.parametrize(("solver", "steps"), [("euler", 400), ("heun", 100)])
def test_samples_with_churn_are_others_of_the_same_gaussian(monkeypatch, solver, steps):
    method, state = made(monkeypatch, Exact())
    key, labels = jax.random.key(3), jnp.zeros(100, jnp.int32)
    plain, found = (
        np.asarray(method.sample(state, key, labels, EdmSampler(steps, solver, churn=churn))) for churn in (0.0, 40.0)
    )
    np.testing.assert_allclose([found.mean(), found.std()], [MEAN, DEVIATION], rtol=0.05)
    assert abs(np.corrcoef(plain.ravel(), found.ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("scale", [0.0, 1.5])
def test_churn_adds_noise_of_its_deviation_and_goes_on_from_the_level_that_it_raised(monkeypatch, scale):
    """Algorithm 2 by numpy for the exact denoiser, whose slope is s (x - MEAN) / (s^2 + DEVIATION^2)."""
    method, state = made(monkeypatch, Exact())
    sampler = EdmSampler(4, "euler", noise_from=2.0, noise_to=0.1, churn=1.2, churn_noise=scale)
    key, shape = jax.random.key(3), (5, *SPEC.shape)
    keys, levels = jax.random.split(key), np.float64(noise_levels(sampler))
    x = levels[0] * np.float64(jax.random.normal(keys[0], shape))
    for i, (level, after) in enumerate(itertools.pairwise(levels)):
        raised = level * (1 + 1.2 / 4)
        noise = np.float64(jax.random.normal(jax.random.fold_in(keys[1], i), shape))
        x = x + scale * np.sqrt(raised**2 - level**2) * noise
        x = x + (after - raised) * raised * (x - MEAN) / (raised**2 + DEVIATION**2)
    found = method.sample(state, key, jnp.zeros(5, jnp.int32), sampler)
    np.testing.assert_allclose(found, x.clip(-1, 1), atol=1e-4)


def test_the_loss_of_the_exact_denoiser_is_what_nobody_can_know(monkeypatch):
    """Var(x | x + n) = s^2 DEVIATION^2 / (s^2 + DEVIATION^2), times the weight, over s; and over each quarter of s."""
    method, state = made(monkeypatch, Exact())
    images = jnp.asarray(np.random.default_rng(0).normal(MEAN, DEVIATION, (8_000, *SPEC.shape)), jnp.float32)
    batch = Batch(images[:0], jnp.zeros(0, jnp.int32), images, guesses=jnp.zeros(len(images), jnp.int32))
    _, metrics = jax.jit(method.phases[0].step)(state, jax.random.key(1), jnp.int32(0), batch)

    def expected(low, high):
        """Over the quantiles low to high of ln s ~ N(-1.2, 1.2^2)."""

        def losses(normal):
            noise = np.exp(-1.2 + 1.2 * normal)
            weight = (noise**2 + PIXELS**2) / (noise * PIXELS) ** 2
            return stats.norm.pdf(normal) * weight * noise**2 * DEVIATION**2 / (noise**2 + DEVIATION**2)

        ends = np.clip(stats.norm.ppf([low, high]), -9, 9)
        return quadrature.quad(losses, *ends)[0] / (high - low)

    np.testing.assert_allclose(metrics["denoiser/denoising"], expected(0, 1), rtol=0.03)
    quarters = [metrics[f"denoiser/quarter_{i + 1}"] for i in range(4)]
    np.testing.assert_allclose(quarters, [expected(i / 4, (i + 1) / 4) for i in range(4)], rtol=0.03)


def test_one_step_goes_to_what_is_denoised_with_guidance_in_its_interval(monkeypatch):
    """x - (x - D) / s * s = D; Ho and Salimans 2022, eq. 6, for D, of which F is the part that knows the class."""
    method, state = made(monkeypatch, Constant())
    key, labels = jax.random.key(1), jnp.array([0, 1, 2])
    noise = 0.5 * np.asarray(jax.random.normal(jax.random.split(key)[0], (3, *SPEC.shape)), np.float64)
    skip, output, _, _ = table_1(0.5)
    for inside, guidance in ((True, 3.0), (False, 3.0), (True, 1.0), (True, 0.0)):
        sampler = EdmSampler(1, noise_from=0.5, guidance=guidance, guided_to=2.0 if inside else 0.4)
        said = OUTPUTS[3] + guidance * (OUTPUTS[:3] - OUTPUTS[3]) if inside else OUTPUTS[:3]
        expected = np.clip(skip * noise + output * said[:, None, None, None], -1, 1)
        np.testing.assert_allclose(method.sample(state, key, labels, sampler), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"solver": "runge"}, "choose one of euler, heun"),
        ({"noise_to": 0.0}, "the larger first"),
        ({"noise_from": 0.001}, "the larger first"),
        ({"noise_from": float("inf")}, "the larger first"),
        ({"rho": 0.0}, "rho is 0"),
        ({"churn": -1.0}, "churn is -1"),
        ({"churn_noise": float("nan")}, "churn_noise is nan"),
        ({"churn_from": 2.0, "churn_to": 1.0}, "the smaller first"),
        ({"guidance": -1.0}, "guidance is -1"),
        ({"guided_from": 0.8, "guided_to": 0.2}, "the smaller first"),
    ],
    ids=str,
)
def test_settings_of_the_sampler_that_make_no_sense_are_answered_in_one_line(changes, said):
    with pytest.raises(UserError, match=said) as refused:
        EdmSampler(**changes)
    assert "\n" not in str(refused.value)
