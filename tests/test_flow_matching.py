"""Lipman et al. 2023: the field of a Gaussian and of two points in closed form, the solvers on them, loss, guidance."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate as quadrature
from scipy import stats

from ssl_gen.core import flows
from ssl_gen.core.conditioning import guided, told_classes
from ssl_gen.core.flows import by_quarter, log_density
from ssl_gen.core.odes import integrate
from ssl_gen.core.samplers import FlowSampler
from ssl_gen.evaluation.inference import compiled, encoded_and_decoded
from ssl_gen.losses.likelihood import dequantised
from ssl_gen.methods.diffusion import dual_pseudo_training, edm, flow_matching, mean_flow
from ssl_gen.methods.diffusion.flow_matching import Config
from ssl_gen.metrics.likelihood import bits_per_dimension
from ssl_gen.runs import latents, load
from ssl_gen.types import Batch, ImageSpec, UserError

SPEC = ImageSpec(8, 8, 1, 3)
MEAN, DEVIATION = 0.2, 0.1  # of every pixel of the Gaussian
NONE = SPEC.classes


def spread(time):
    """The deviation of x_t, of images N(MEAN, DEVIATION^2) and noise N(0, 1)."""
    return np.sqrt((1 - time) ** 2 * DEVIATION**2 + time**2)


def field_of_a_gaussian(x, time):
    """E[z - x | x_t]: x, z and x_t are jointly Gaussian, so it is the regression line of z - x on x_t."""
    covariance, variance = time - (1 - time) * DEVIATION**2, (1 - time) ** 2 * DEVIATION**2 + time**2
    return -MEAN + covariance / variance * (x - (1 - time) * MEAN)


class Exact(nn.Module):
    """The field of a Gaussian in the place of the network."""

    @nn.compact
    def __call__(self, images, levels, labels, train):
        one = self.param("one", nn.initializers.ones, ())
        return one * field_of_a_gaussian(images, levels[:, None, None, None])


class Constant(nn.Module):
    """A field that is a number for each class, and one for none."""

    @nn.compact
    def __call__(self, images, levels, labels, train):
        speeds = self.param("speeds", lambda _: jnp.array([0.1, -0.3, 0.25, 0.5]))
        return jnp.broadcast_to(speeds[labels][:, None, None, None], images.shape)


def made(monkeypatch, network, **changes):
    """The method with a field in closed form, and its first state."""
    monkeypatch.setattr(flow_matching, "unet", lambda *_: network)
    method = flow_matching.make(Config(**changes), SPEC)
    images = jnp.zeros((2, *SPEC.shape))
    return method, method.init(jax.random.key(0), Batch(images, jnp.zeros(2, jnp.int32), images))


def noise_of(key, count):
    return np.asarray(jax.random.normal(key, (count, *SPEC.shape)))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_a_solver_comes_nearer_by_its_order_as_steps_get_shorter(solver, order):
    """All of a Gaussian keeps its place in it: (x_t - mean of x_t) / deviation of x_t stays what it was at t = 1."""
    noise = jnp.linspace(-2, 2, 9)
    errors = []
    for steps in (40, 80, 160):
        found = integrate(field_of_a_gaussian, noise, jnp.linspace(1.0, 0.0, steps + 1), solver)
        errors.append(np.abs(np.asarray(found) - (MEAN + DEVIATION * np.asarray(noise))).max())
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), order, atol=0.25)


def test_noise_ends_at_one_of_two_points_the_one_on_its_side():
    """Of images at +-a, E[x | x_t] = a tanh(a (1 - t) x_t / t^2) by Bayes; and z = (x_t - (1 - t) x) / t."""
    a = 0.7

    def field(x, time):
        return (x - a * jnp.tanh(a * (1 - time) * x / time**2)) / time

    noise = jnp.array([-2.0, -0.5, -0.1, 0.1, 0.5, 2.0])
    found = integrate(field, noise, jnp.linspace(1.0, 0.0, 101), "euler")
    np.testing.assert_allclose(found, a * np.sign(noise), atol=1e-3)


def test_samples_of_the_exact_field_are_the_gaussian(monkeypatch):
    method, state = made(monkeypatch, Exact())
    key = jax.random.key(3)
    found = method.sample(state, key, jnp.zeros(50, jnp.int32), FlowSampler(steps=200))
    np.testing.assert_allclose(found, MEAN + DEVIATION * noise_of(key, 50), atol=3e-3)


def test_the_loss_of_the_exact_field_is_what_nobody_can_know(monkeypatch):
    """Var(z - x | x_t) = DEVIATION^2 / Var(x_t), a mean over the logit-normal t; and over each quarter of t."""
    method, state = made(monkeypatch, Exact())
    images = jnp.asarray(np.random.default_rng(0).normal(MEAN, DEVIATION, (8_000, *SPEC.shape)), jnp.float32)
    batch = Batch(images[:0], jnp.zeros(0, jnp.int32), images, guesses=jnp.zeros(len(images), jnp.int32))
    _, metrics = method.phases[0].step(state, jax.random.key(1), jnp.int32(0), batch)

    def expected(low, high):
        """Over t = sigmoid(n), n ~ N(0, 1)."""
        ends = [np.log(t / (1 - t)) if 0 < t < 1 else np.sign(t - 0.5) * 9 for t in (low, high)]

        def losses(n):
            return stats.norm.pdf(n) * DEVIATION**2 / spread(1 / (1 + np.exp(-n))) ** 2

        return quadrature.quad(losses, *ends)[0] / np.diff(stats.norm.cdf(ends))[0]

    np.testing.assert_allclose(metrics["field/velocity"], expected(0, 1), rtol=0.06)
    quarters = [metrics[f"field/quarter_{i + 1}"] for i in range(4)]
    np.testing.assert_allclose(quarters, [expected(i / 4, (i + 1) / 4) for i in range(4)], rtol=0.06)


def test_a_quarter_has_the_mean_of_its_own_losses_and_0_without_any():
    found = by_quarter(jnp.array([1.0, 2.0, 6.0, 5.0]), jnp.array([0.1, 0.3, 0.49, 1.0]))
    assert {name: float(value) for name, value in found.items()} == {
        "quarter_1": 1.0,
        "quarter_2": 4.0,
        "quarter_3": 0.0,
        "quarter_4": 5.0,
    }


def test_a_label_that_is_unknown_or_dropped_is_the_class_of_none():
    labels = jnp.asarray(np.arange(20_000) % 4 - 1)  # -1: unknown
    kept = told_classes(jax.random.key(0), labels, 0.0, NONE)
    np.testing.assert_array_equal(kept, np.where(labels < 0, NONE, labels))
    np.testing.assert_array_equal(told_classes(jax.random.key(0), labels, 1.0, NONE), NONE)
    dropped = np.asarray(told_classes(jax.random.key(0), labels, 0.1, NONE))[labels >= 0] == NONE
    np.testing.assert_allclose(dropped.mean(), 0.1, atol=5 * np.sqrt(0.09 / len(dropped)))


@pytest.mark.parametrize(
    ("module", "term"),
    [(flow_matching, "field/velocity"), (edm, "denoiser/denoising"), (mean_flow, "field/identity")],
    ids=["flow_matching", "edm", "mean_flow"],
)
def test_what_a_step_drops_of_the_labels_is_learnt_as_the_class_of_none(monkeypatch, module, term):
    monkeypatch.setattr(module, "unet", lambda *_, **__: Constant())
    images, labels = jnp.zeros((6, *SPEC.shape)), jnp.array([0, 1, 2, 2, 1, 0])

    def loss(dropout, guesses):
        method = module.make(module.Config(label_dropout=dropout), SPEC)
        batch = Batch(images[:0], labels[:0], images, guesses=guesses)
        state = method.init(jax.random.key(0), batch)
        return float(jax.jit(method.phases[0].step)(state, jax.random.key(1), jnp.int32(0), batch)[1][term])

    none = loss(0.0, jnp.full(6, -1))
    assert loss(1.0, labels) == none
    assert abs(loss(0.0, labels) - none) > 1e-3 * abs(none)


def test_without_guidance_the_class_of_none_is_not_asked():
    def never(x):
        raise AssertionError

    x = jnp.arange(3.0)
    np.testing.assert_array_equal(guided(jnp.sin, never, 1.0, x), jnp.sin(x))
    np.testing.assert_array_equal(guided(never, jnp.sin, 0.0, x), jnp.sin(x))


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_guidance_1_is_the_field_of_the_class_bit_for_bit(monkeypatch, solver):
    """And so is guidance in an interval of t that no look falls into."""
    method, state = made(monkeypatch, Constant())
    key, labels, times = jax.random.key(0), jnp.array([0, 1, 2]), jnp.linspace(1.0, 0.0, 5)
    speeds = state.field.params["speeds"]

    def field(x, time):
        return jnp.broadcast_to(speeds[labels][:, None, None, None], x.shape)

    expected = integrate(field, noise_of(key, 3), times, solver).clip(-1, 1)
    outside = FlowSampler(4, solver, guidance=2.0, guided_from=0.3, guided_to=0.4)
    for sampler in (FlowSampler(4, solver), outside):
        np.testing.assert_array_equal(method.sample(state, key, labels, sampler), expected)


def test_guidance_goes_beyond_the_class_from_none_inside_its_interval(monkeypatch):
    """Ho and Salimans 2022, eq. 6, along constant fields: a sample is noise less the sum of the speeds on the way."""
    method, state = made(monkeypatch, Constant())
    key, labels = jax.random.key(1), jnp.array([0, 1, 2])
    speeds, none, noise = np.array([0.1, -0.3, 0.25]), 0.5, noise_of(key, 3)
    for low, high, inside in ((0.0, 1.0, 5), (0.3, 0.9, 3)):  # Euler looks at t = 1, 0.8, 0.6, 0.4, 0.2
        sampler = FlowSampler(5, "euler", guidance=3.0, guided_from=low, guided_to=high)
        speed = (inside * (none + 3 * (speeds - none)) + (5 - inside) * speeds) / 5
        expected = np.clip(noise - speed[:, None, None, None], -1, 1)
        np.testing.assert_allclose(method.sample(state, key, labels, sampler), expected, atol=1e-5)


def test_an_image_encoded_without_its_class_comes_back_without_one_and_obeys_any_class_it_is_given(monkeypatch):
    """Along constant fields: latents are the image and the speed of none; from there each class goes its way."""
    method, state = made(monkeypatch, Constant())
    images = np.random.default_rng(0).uniform(-0.4, 0.4, (4, *SPEC.shape)).astype(np.float32)
    latents = method.encode(state, images)
    np.testing.assert_allclose(latents, images.reshape(4, -1) + 0.5, atol=1e-5)
    found = np.asarray(method.decode(state, latents, jnp.array([-1, 0, 1, 2])))
    speeds = np.array([0.5, 0.1, -0.3, 0.25])[:, None, None, None]
    np.testing.assert_allclose(found, np.clip(images + 0.5 - speeds, -1, 1), atol=1e-5)
    np.testing.assert_allclose(encoded_and_decoded(method, state, jnp.asarray(images)), images, atol=1e-5)


def test_the_latents_of_a_gaussian_are_standard_normal_and_lead_back(monkeypatch):
    method, state = made(monkeypatch, Exact())
    images = MEAN + DEVIATION * np.random.default_rng(0).normal(size=(20, *SPEC.shape)).astype(np.float32)
    latents = method.encode(state, images)
    np.testing.assert_allclose(latents, ((images - MEAN) / DEVIATION).reshape(20, -1), rtol=0.05, atol=0.02)
    back = method.decode(state, latents, jnp.full(20, -1))
    np.testing.assert_allclose(back, images, atol=0.02)


def test_half_way_between_two_images_of_a_gaussian_is_an_image_of_it_and_on_the_line_none(monkeypatch):
    """Its pixels then have the deviation of images, by the line 0.71 of it: what is decoded is as far from the mean."""
    method, state = made(monkeypatch, Exact())
    images = MEAN + DEVIATION * np.random.default_rng(1).normal(size=(60, *SPEC.shape)).astype(np.float32)
    starts, ends = np.split(np.asarray(method.encode(state, images)), 2)
    deviations = {}
    for name, between in (("arc", latents.on_arcs), ("line", latents.on_lines)):
        middle = between(starts, ends, 3)[:, 1]
        found = np.asarray(method.decode(state, middle, jnp.full(30, -1))) - MEAN
        np.testing.assert_allclose(found, DEVIATION * middle.reshape(found.shape), atol=0.02)
        deviations[name] = found.std() / (images - MEAN).std()
    assert method.normal_latents
    assert deviations["arc"] == pytest.approx(1, abs=0.06) and deviations["line"] == pytest.approx(0.71, abs=0.05)


def test_the_latents_of_a_run_of_a_flow_are_looked_at(monkeypatch, finished, tmp_path):
    """Of images, folder and record of another run, for the sake of time: its field is that of a Gaussian."""
    run = load.load(finished.copy("m2", tmp_path / "run"))
    method, state = made(monkeypatch, Exact())
    flow = run._replace(compiled=compiled(method), states=[state, state])
    monkeypatch.setattr(latents, "load", lambda path: flow)
    found = latents.look(tmp_path / "run", count=200)
    assert found.latents == 64 and not found.left_out
    styles, paths, _ = found.pictures
    assert styles.file == "latents_styles.png" and "the arc" in paths.caption
    assert all((tmp_path / "run" / picture.file).exists() for picture in found.pictures)


COVARIANCE = np.array([[0.5, 0.3], [0.3, 0.4]])
CENTRE = np.array([0.3, -0.2])


def field_of_a_correlated_gaussian(x, time):
    """E[z - x | x_t] = -m + (t I - (1 - t) S) ((1 - t)^2 S + t^2 I)^-1 (x_t - (1 - t) m)."""
    one = jnp.eye(2)
    variance = (1 - time) ** 2 * COVARIANCE + time**2 * one
    slope = (time * one - (1 - time) * COVARIANCE) @ jnp.linalg.inv(variance)
    return (x - (1 - time) * CENTRE) @ slope.T - CENTRE


def test_the_likelihood_of_a_gaussian_is_its_density():
    """With the exact divergence; and the mean of estimates over all probes, half of which are minus the others."""
    x = np.random.default_rng(0).normal(size=(6, 2))
    expected = stats.multivariate_normal(CENTRE, COVARIANCE).logpdf(x)
    some = jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(log_density(field_of_a_correlated_gaussian, some, None), expected, atol=1e-3)
    both = [
        log_density(field_of_a_correlated_gaussian, some, jnp.broadcast_to(jnp.array(probe), x.shape))
        for probe in ([1.0, 1.0], [1.0, -1.0])
    ]
    np.testing.assert_allclose(np.mean(both, 0), expected, atol=1e-3)
    assert np.abs(both[0] - expected).max() > 0.05  # one alone is an estimate


@pytest.mark.parametrize("exact", [64, 63], ids=["exact", "estimate"])
def test_a_log_weight_is_the_density_of_pixels_spread_over_their_grey_levels(monkeypatch, exact):
    """In nats of grey levels, 127.5 to one of [-1, 1]; of pixels apart from each other an estimate is exact too."""
    monkeypatch.setattr(flows, "EXACT", exact)
    method, state = made(monkeypatch, Exact())
    images = np.round((MEAN + DEVIATION * np.random.default_rng(0).normal(size=(5, *SPEC.shape)) + 1) * 127.5)
    images = jnp.asarray(images / 127.5 - 1, jnp.float32)
    observed, key = jax.random.key(1), jax.random.key(2)
    found = np.asarray(method.log_weight(state, observed, key, images))
    spread_out = np.asarray(dequantised(jax.random.split(observed)[0], images), np.float64)
    density = stats.norm(MEAN, DEVIATION).logpdf(spread_out).sum((1, 2, 3))
    bits = [bits_per_dimension(nats, 64) for nats in found]
    np.testing.assert_allclose(bits, [bits_per_dimension(nats, 64, 127.5) for nats in density], atol=2e-3)
    np.testing.assert_array_equal(method.log_weight(state, observed, jax.random.key(9), images), found)


def test_a_field_that_never_learns_no_class_encodes_nothing():
    never = flow_matching.make(Config(label_dropout=0.0), SPEC)
    assert never.encode is never.decode is never.log_weight is None and never.costly == ()
    for some in (Config(), Config(label_dropout=0.0, unlabelled="null")):
        method = flow_matching.make(some, SPEC)
        assert method.costly and all(getattr(method, name) for name in method.costly)


@pytest.mark.parametrize(
    ("module", "sampler"),
    [
        (flow_matching, FlowSampler(guidance=1.5)),
        (edm, edm.EdmSampler(guidance=0.0)),
        (dual_pseudo_training, FlowSampler(guidance=1.5)),
    ],
)
def test_guidance_away_from_no_class_needs_a_field_that_learnt_it(module, sampler):
    method = module.make(module.Config(label_dropout=0.0), SPEC)
    with pytest.raises(
        UserError, match="which this network never learnt: train it with label_dropout above 0"
    ) as refused:
        method.sample(None, jax.random.key(0), jnp.zeros(2, jnp.int32), sampler)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("module", [flow_matching, edm, mean_flow])
def test_a_field_whose_labels_are_all_dropped_draws_the_same_whatever_class_is_asked_for(module):
    small = module.Config(label_dropout=1.0, unlabelled="null", widths=(8,))
    method = module.make(small, SPEC)
    images = jnp.zeros((3, *SPEC.shape))
    state = method.init(jax.random.key(0), Batch(images, jnp.zeros(3, jnp.int32), images))
    # the last layer starts at 0
    state = jax.tree.map(lambda each: each + 0.1 if jnp.issubdtype(each.dtype, jnp.floating) else each, state)
    drawn = [method.sample(state, jax.random.key(1), jnp.full(3, k), method.sampler) for k in (-1, 0, 2)]
    assert not method.conditional
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])
    told = module.make(dataclasses.replace(small, label_dropout=0.5), SPEC)
    assert told.conditional
    assert np.any(np.asarray(told.sample(state, jax.random.key(1), jnp.zeros(3, jnp.int32), told.sampler)) != drawn[0])


@pytest.mark.parametrize(("module", "sampler"), [(flow_matching, FlowSampler), (edm, edm.EdmSampler)])
def test_guidance_towards_a_class_needs_a_field_that_learnt_one(module, sampler):
    method = module.make(module.Config(label_dropout=1.0), SPEC)
    with pytest.raises(UserError, match="never learnt one: train it with label_dropout below 1"):
        method.sample(None, jax.random.key(0), jnp.zeros(2, jnp.int32), sampler(guidance=2.0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"solver": "runge"}, "choose one of euler, heun"),
        ({"guidance": -1.0}, "guidance is -1"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"guided_from": 0.8, "guided_to": 0.2}, "the smaller first"),
        ({"guided_to": 1.5}, "numbers of 0 to 1"),
    ],
    ids=str,
)
def test_settings_of_the_sampler_that_make_no_sense_are_answered_in_one_line(changes, said):
    with pytest.raises(UserError, match=said) as refused:
        FlowSampler(**changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"widths": ()}, "widths is empty"), ({"attention": (2,)}, "levels are 0 to 1")],
    ids=str,
)
def test_a_network_that_cannot_be_is_answered_in_one_line(changes, said):
    with pytest.raises(UserError, match=said):
        flow_matching.make(Config(**changes), SPEC)


@pytest.mark.parametrize(("unlabelled", "told"), [("guessed", "guessed"), ("null", "visible"), ("left_out", "nothing")])
def test_what_is_told_of_images_without_a_label_decides_which_images_a_step_sees(unlabelled, told):
    method = flow_matching.make(Config(unlabelled=unlabelled, labelled_batch=5, unlabelled_batch=7), SPEC)
    sizes = (5, 0) if unlabelled == "left_out" else (0, 7)
    assert method.told == told and (method.phases[0].labelled, method.phases[0].unlabelled) == sizes
