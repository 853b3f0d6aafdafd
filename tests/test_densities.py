"""Densities of latents: samples come from where the classes are that the decoder knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finished import SETTINGS
from PIL import Image
from tiny import IMAGES, SPEC, tiny

from ssl_gen import cli
from ssl_gen.core.samplers import DensityLatents, FittedLatents, LatentDensity
from ssl_gen.evaluation import densities, inference
from ssl_gen.methods.variational import autoencoder, m2
from ssl_gen.reports import records
from ssl_gen.runs import evaluate, export, load
from ssl_gen.runs.options import Options
from ssl_gen.runs.pictures import draw_grid
from ssl_gen.runs.train import train
from ssl_gen.types import Batch, Method, UserError

ASKED = ["--sampler.latents", "class_density"]
SUFFIX = "_latents=class_density"
DENSE = DensityLatents(latents="class_density")
RNG = np.random.default_rng(0)
MEANS, VARIANCES = RNG.normal(size=(60, 3)), RNG.uniform(0.1, 1, (60, 3))
CENTRES = np.array([[-9.0, 0.0], [9.0, 0.0]])  # of two classes, far from each other and from N(0, I)
WITHIN, POSTERIOR = 1.0, 0.5  # deviation of a class's means, and of q(z | x)


def covariance(factor):
    return np.float64(factor) @ np.float64(factor).T


def test_a_class_has_the_mean_of_its_latents_and_their_covariance_with_that_of_each():
    guesses = np.arange(60) % 2
    found = densities.by_class(MEANS, VARIANCES, guesses, 2)
    np.testing.assert_allclose(found.shares, [0.5, 0.5])
    for k in (0, 1):
        of_class, within = MEANS[k::2], VARIANCES[k::2].mean(0)
        np.testing.assert_allclose(found.means[k], of_class.mean(0), rtol=1e-5)
        np.testing.assert_allclose(covariance(found.factors[k]), np.cov(of_class.T, bias=True) + np.diag(within), 1e-4)


def test_a_class_that_no_image_is_taken_for_has_the_prior_and_one_image_its_own_posterior():
    found = densities.by_class(MEANS[:1], VARIANCES[:1], np.array([1]), 3)
    np.testing.assert_allclose(found.means, [np.zeros(3), MEANS[0], np.zeros(3)], rtol=1e-6)
    np.testing.assert_allclose(covariance(found.factors[1]), np.diag(VARIANCES[0]), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(covariance(found.factors[0]), np.eye(3), rtol=1e-6)


def test_latents_without_variance_that_lie_on_a_line_stay_on_it():
    line = np.linspace(-1, 1, 20)[:, None] * np.array([3.0, 4.0])
    found = densities.by_class(line, np.zeros_like(line), np.zeros(20, int), 1)
    drawn = DENSE.draw_by_class(jax.random.key(0), jnp.zeros(500, jnp.int32), found, 2)
    np.testing.assert_allclose(drawn @ np.array([4.0, -3.0]) / 5, np.zeros(500), atol=1e-4)
    assert np.std(drawn[:, 0]) == pytest.approx(np.std(line[:, 0]), rel=0.1)


def test_the_parts_of_a_mixture_have_together_the_mean_and_the_covariance_of_all_latents():
    found = densities.mixture(MEANS, VARIANCES)
    shares, means = np.float64(found.shares), np.float64(found.means)
    assert shares.sum() == pytest.approx(1) and shares.shape == (densities.PARTS,)
    np.testing.assert_allclose(shares @ means, MEANS.mean(0), rtol=1e-4)
    within = np.einsum("k,kij->ij", shares, [covariance(factor) for factor in found.factors])
    between = np.cov(means.T, aweights=shares, ddof=0)
    expected = np.cov(MEANS.T, bias=True) + np.diag(VARIANCES.mean(0))
    np.testing.assert_allclose(within + between, expected, rtol=1e-3, atol=1e-5)


def test_fewer_images_than_a_mixture_has_parts_leave_some_of_them_empty():
    found = densities.mixture(MEANS[:4], VARIANCES[:4])
    assert found.means.shape == (densities.PARTS, 3)
    np.testing.assert_allclose(found.shares, [0.25] * 4 + [0] * 6, atol=1e-6)
    drawn = DENSE.draw_mixed(jax.random.key(0), 400, found, 3)
    assert np.isfinite(drawn).all() and np.abs(drawn).max(0).min() > 0


def test_the_temperature_is_the_deviation_around_the_mean_of_the_class():
    found = LatentDensity(np.ones(1, np.float32), np.full((1, 2), 5, np.float32), 2 * np.eye(2, dtype=np.float32)[None])
    cold = DensityLatents(0.5, "class_density").draw_by_class(jax.random.key(1), jnp.zeros(4000, int), found, 2)
    np.testing.assert_allclose(cold.mean(0), [5, 5], atol=0.1)
    assert np.std(cold) == pytest.approx(0.5 * 2, rel=0.05)


def test_the_prior_is_drawn_as_before_whatever_was_fitted():
    labels, key = jnp.zeros(7, jnp.int32), jax.random.key(3)
    found = densities.by_class(MEANS, VARIANCES, np.zeros(60, int), 1)
    for drawn in (
        DensityLatents().draw_by_class(key, labels, found, 3),
        DensityLatents().draw_mixed(key, 7, (), 3),
    ):
        np.testing.assert_array_equal(drawn, jax.random.normal(key, (7, 3)))


# A method whose latents are its two pixels, times 10: class 0 lies left of 0, class 1 right of it.


def sample(state, key, labels, sampler):
    latents = sampler.draw_by_class(key, labels, state.density, 2)
    return (latents / 10).reshape(-1, 1, 2, 1).clip(-1, 1)


def posterior(state, images):
    mean = 10 * images.reshape(-1, 2)
    return mean, jnp.full_like(mean, POSTERIOR**2)


def classify(state, images):
    score = images[:, 0, 0, 0]
    return jax.nn.log_softmax(jnp.stack([-score, score], -1))


FAR = Method(None, (), sample, classify, conditional=True, sampler=DensityLatents(), posterior=posterior)


def images_of(latents):
    return np.round((latents.reshape(-1, 1, 2, 1) / 10 + 1) * 127.5).clip(0, 255).astype(np.uint8)


def drawn(latents, count=1000):
    """Classes asked for, and the latents of samples drawn by the sampler `latents`."""
    centres = np.repeat(CENTRES, 500, 0)
    shown = images_of(centres * 0.6 + RNG.normal(size=centres.shape) * WITHIN)
    compiled, sampler = inference.compiled(FAR), DensityLatents(latents=latents)
    state = densities.prepared(compiled, m2.State(()), sampler, lambda: shown)
    labels = np.arange(count) % 2
    images = inference.draw_samples(compiled, state, labels, 0, sampler)
    return labels, (images.reshape(-1, 2) / 127.5 - 1) * 10


def test_samples_fall_where_their_class_is_and_those_of_the_prior_do_not():
    labels, latents = drawn("class_density")
    assert ((latents[:, 0] > 0) == labels).all()
    for k in (0, 1):
        of_class = latents[labels == k]
        np.testing.assert_allclose(of_class.mean(0), CENTRES[k] * 0.6, atol=0.25)
        np.testing.assert_allclose(of_class.std(0), np.hypot(WITHIN, POSTERIOR), rtol=0.1)  # as varied as the class is
    labels, latents = drawn("prior")
    assert 0.4 < ((latents[:, 0] > 0) == labels).mean() < 0.6
    assert np.abs(latents[:, 0]).max() < 5.4 - 1  # nowhere near the middle of a class


def test_a_class_that_is_never_guessed_is_told(capsys):
    compiled = inference.compiled(FAR)
    densities.prepared(compiled, m2.State(()), DENSE, lambda: images_of(np.full((5, 2), -4.0)))
    assert "from the prior for classes that no image is taken for: 1\n" in capsys.readouterr().err


def test_nothing_is_fitted_where_samples_come_from_the_prior():
    def never():
        raise AssertionError("no image is looked at")

    state = m2.State(())
    assert densities.prepared(inference.compiled(FAR), state, DensityLatents(), never) is state
    assert densities.prepared(inference.compiled(FAR), state, None, never) is state
    fitted = state._replace(density=densities.by_class(MEANS, VARIANCES, np.zeros(60, int), 2))
    assert densities.prepared(inference.compiled(FAR), fitted, DENSE, never) is fitted


def test_latents_that_are_not_finite_are_refused():
    broken = FAR._replace(posterior=lambda state, images: (jnp.full((len(images), 2), jnp.nan),) * 2)
    with pytest.raises(UserError, match="not all finite"):
        densities.prepared(inference.compiled(broken), m2.State(()), DENSE, lambda: images_of(np.zeros((3, 2))))


def test_a_density_sees_the_images_that_the_run_sees():
    visible, pool = np.array([-1, 2, -1, 0, -1]), np.array([4, 1])
    assert densities.shown_rows(visible, pool).tolist() == [1, 3, 4]  # and not 0 and 2, which no one is shown


def test_a_finished_run_is_sampled_measured_and_exported_by_its_densities(finished, tmp_path):
    folder = finished.copy("m2", tmp_path / "run")
    before, run = records.load_final(folder).metrics, load.load(folder)
    guessed = int(run.log_probabilities(0, load.data_of(run)[1].shown(0))[0].argmax())  # one that has a density
    asked = {"label": guessed, "count": 3, "seed": 2}
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    assert cli.main(["sample", str(folder), *words, "--out", str(tmp_path / "drawn"), *ASKED]) == 0
    images = np.stack([np.asarray(Image.open(file))[..., None] for file in sorted((tmp_path / "drawn").iterdir())])
    expected = run.sample(**asked, latents="class_density")
    np.testing.assert_array_equal(images, expected)
    assert not np.array_equal(images, run.sample(**asked))
    assert run.states[1].density == ()  # of the seed that nobody asked

    after = evaluate.evaluate(folder, ("agreement_svc", "deviation_ratio"), {"latents": "class_density"}).metrics
    assert after.keys() - before.keys() == {"agreement_svc" + SUFFIX, "deviation_ratio" + SUFFIX}
    assert {name: values for name, values in after.items() if name in before} == before

    card = export.save(folder, tmp_path / "dense", latents="class_density")
    assert card.sampler == {"temperature": 1.0, "latents": "class_density"}
    back = export.load(tmp_path / "dense")
    np.testing.assert_array_equal(back.sample(**asked), expected)
    export.save(folder, tmp_path / "plain")
    with pytest.raises(UserError, match="was exported without its density of latents: export the run again"):
        export.load(tmp_path / "plain").sample(**asked, latents="class_density")


@pytest.mark.parametrize("name", ["m2", "stacked_m1_m2", "adversarial_autoencoder", "vae_gan", "vae"])
def test_what_the_config_says_is_how_samples_are_drawn(name):
    """Of a page whose encoder has the moments of a latent for every image; by default it is the prior, as in papers."""
    assert tiny(name).method.sampler == DensityLatents()
    method = tiny(name, latents="class_density").method
    assert method.sampler == DENSE
    images = jnp.asarray(IMAGES[:12], jnp.float32) / 127.5 - 1
    state = jax.eval_shape(method.init, jax.random.key(0), Batch(images, jnp.zeros(12, jnp.int32), images))
    density = densities.like(method, state, SPEC)
    assert density.means.shape == (SPEC.classes if method.conditional else densities.PARTS, 4)
    labels, key = jnp.zeros(5, jnp.int32), jax.random.key(0)
    dense = state._replace(density=density)
    drawn = jax.eval_shape(lambda state: method.sample(state, key, labels, method.sampler), dense)
    assert drawn.shape == (5, *SPEC.shape)
    with pytest.raises(AssertionError, match="no density of latents was fitted"):
        jax.eval_shape(lambda state: method.sample(state, key, labels, method.sampler), state)


def test_an_autoencoder_draws_by_the_density_of_its_codes_alone():
    """And by default, so that no name says it. Samples of a mixture at no deviation are what its means decode to."""
    method = tiny("autoencoder").method
    assert method.sampler == FittedLatents() and not method.conditional
    images = jnp.asarray(IMAGES[:12], jnp.float32) / 127.5 - 1
    state = jax.jit(method.init)(jax.random.key(0), Batch(images, jnp.zeros(12, jnp.int32), images))
    codes, variances = method.posterior(state, images)
    np.testing.assert_array_equal(codes, method.encode(state, images))
    np.testing.assert_array_equal(variances, np.zeros_like(codes))
    fitted = densities.prepared(inference.compiled(method), state, None, lambda: IMAGES)
    assert densities.like(method, state, SPEC).means.shape == fitted.density.means.shape == (densities.PARTS, 4)
    cold = method.sample(fitted, jax.random.key(0), jnp.zeros(20, jnp.int32), FittedLatents(1e-9))
    means = np.asarray(method.decode(state, fitted.density.means, jnp.zeros(densities.PARTS, jnp.int32)))
    nearest = np.abs(np.asarray(cold)[:, None] - means).max((2, 3, 4)).argmin(1)
    np.testing.assert_allclose(cold, means[nearest], atol=1e-5)
    assert len(set(nearest.tolist())) > 1


def test_a_run_of_an_autoencoder_is_sampled_measured_and_exported_like_any_other(tmp_path, capsys):
    config = autoencoder.Config(steps=4, unlabelled_batch=8, latent=4, hidden=(8,))
    settings = SETTINGS | {"seeds": 1, "out": tmp_path / "run"}
    final = train("autoencoder", config, Options(**settings)).final
    assert {"fid_pixels_ref=test_n=200", "reconstruction_psnr"} <= final.metrics.keys()
    assert (tmp_path / "run" / "samples.png").exists()
    run = load.load(tmp_path / "run")
    assert run.states[0].density == ()  # a checkpoint holds none
    expected = run.sample(count=5, seed=2)
    assert np.abs(expected - run.sample(count=5, seed=3).astype(int)).max() > 0
    export.save(tmp_path / "run", tmp_path / "out")
    np.testing.assert_array_equal(export.load(tmp_path / "out").sample(count=5, seed=2), expected)
    assert cli.main(["sample", str(tmp_path / "run"), "--out", str(tmp_path / "drawn"), *ASKED]) == 2
    assert "Unrecognized options: --sampler.latents" in capsys.readouterr().err


def test_a_grid_of_a_run_whose_default_is_its_densities_is_drawn_from_them(finished, tmp_path):
    run = load.load(finished("m2"))
    dense = inference.compiled(run.compiled.method._replace(sampler=DENSE))
    data = load.data_of(run)[1]
    draw_grid(tmp_path / "dense.png", dense, data, run.states[0], 0, "m2", rows=2)
    draw_grid(tmp_path / "asked.png", run.compiled, data, run.states[0], 0, "m2", rows=2, sampler=DENSE)
    draw_grid(tmp_path / "prior.png", run.compiled, data, run.states[0], 0, "m2", rows=2)
    dense, asked, prior = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("dense", "asked", "prior"))
    np.testing.assert_array_equal(dense, asked)
    assert not np.array_equal(dense, prior)


@pytest.mark.parametrize("command", ["sample", "evaluate", "export"])
def test_latents_of_another_kind_are_answered_in_one_line(command, capsys, finished, tmp_path):
    more = ["--out", str(tmp_path / "out")] if command != "evaluate" else []
    capsys.readouterr()
    assert cli.main([command, str(finished("m2")), *more, "--sampler.latents", "posterior"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "latents" in said
    with pytest.raises(UserError, match="choose one of prior, class_density"):
        DensityLatents(latents="posterior")
