"""What every method that is fitted in one go promises, by being in METHODS, and the runs that such methods make."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import IMAGES, LABELS, SPEC, VISIBLE, numbers, same, tiny

from ssl_gen import run, solving
from ssl_gen.methods import METHODS
from ssl_gen.methods.classical import label_spreading, linear, pca, supervised
from ssl_gen.setting import Options
from ssl_gen.types import UserError

FITTED = [name for name in METHODS if tiny(name).method.fit is not None]
LABELS_ALONE = {"linear", "mlp"}  # these look at no unlabelled image
IMAGES_ALONE = {"pca"}  # this looks at no label
SCALED = solving.scaled(IMAGES)
SHOWN = VISIBLE >= 0


@functools.cache
def fitted(name, seed=0):
    return tiny(name).method.fit(jax.random.key(seed), SCALED[SHOWN], VISIBLE[SHOWN], SCALED)


@pytest.fixture(scope="module", params=FITTED)
def name(request):
    return request.param


def test_a_state_is_named_arrays_of_shapes_that_a_checkpoint_gives_back(name):
    state = fitted(name)
    assert isinstance(state, METHODS[name].State)
    assert all(np.issubdtype(leaf.dtype, np.number) for leaf in numbers(state))
    like = solving.like(METHODS[name].State, solving.shapes(jax.tree.map(jnp.asarray, state)))
    assert jax.tree.structure(like) == jax.tree.structure(state)
    assert [leaf.shape for leaf in jax.tree.leaves(like)] == [leaf.shape for leaf in numbers(state)]


def test_the_same_key_fits_the_same_state(name):
    again = tiny(name).method.fit(jax.random.key(0), SCALED[SHOWN], VISIBLE[SHOWN], SCALED)
    assert same(again, fitted(name))


def test_the_labels_matter_where_they_are_used_and_there_alone(name):
    other = (VISIBLE[SHOWN] + 1) % SPEC.classes
    state = tiny(name).method.fit(jax.random.key(0), SCALED[SHOWN], other, SCALED)
    assert same(state, fitted(name)) == (name in IMAGES_ALONE)


def test_the_unlabelled_images_matter_where_they_are_used_and_there_alone(name):
    state = tiny(name).method.fit(jax.random.key(0), SCALED[SHOWN], VISIBLE[SHOWN], SCALED[::-1] * 0.5)
    assert same(state, fitted(name)) == (name in LABELS_ALONE)


def test_class_probabilities_sum_to_one(name):
    method = tiny(name).method
    if method.classify is None:
        pytest.skip("this method does not classify")
    log_probabilities = jax.jit(method.classify)(fitted(name), SCALED[:5])
    assert log_probabilities.shape == (5, SPEC.classes)
    np.testing.assert_allclose(np.exp(log_probabilities).sum(-1), 1, rtol=1e-5)


def test_classes_that_can_be_told_apart_are(name):
    """Each class bright in a third of the image of its own, with noise: every classifier must find them."""
    method = tiny(name).method
    if method.classify is None:
        pytest.skip("this method does not classify")
    images = np.random.default_rng(1).normal(-0.5, 0.1, SCALED.shape).astype(np.float32)
    for image, label in zip(images, LABELS, strict=True):
        image[:, 3 * label : 3 * label + 2] += 1
    state = method.fit(jax.random.key(0), images[SHOWN], VISIBLE[SHOWN], images)
    np.testing.assert_array_equal(np.argmax(method.classify(state, images), -1), LABELS)


def settings(tmp_path, **changes):
    return Options(**{"labels": "50", "seeds": 2, "out": tmp_path / "run", "quiet": True} | changes)


def test_a_fitted_run_leaves_the_record_and_comes_back_from_its_folder(tmp_path):
    result = run.train("linear", None, settings(tmp_path))
    assert result.final["steps"] == 0 and len(result.final["metrics"]["error"]["per_seed"]) == 2
    assert (result.folder / "report.html").exists()
    loaded = run.load(result.folder)
    digits = Options(labels="50", seeds=2)
    data = run.load_data(digits)
    error = np.mean(run.predict(loaded, data.dataset.test_images).argmax(-1) != data.dataset.test_labels) * 100
    assert error == pytest.approx(result.final["metrics"]["error"]["mean"], abs=5)
    assert run.evaluate(result.folder, ("error",))["metrics"]["error"] == result.final["metrics"]["error"]
    assert run.train("linear", None, settings(tmp_path)).final == result.final


def test_permuting_hidden_labels_changes_no_bit_of_a_fitted_state():
    data = run.load_data(Options(labels="50"))
    method = label_spreading.make(label_spreading.Config(), data.dataset.spec)
    hidden = data.masks[0].labels < 0
    labels = data.dataset.train_labels.copy()
    labels[hidden] = np.random.default_rng(0).permutation(labels[hidden])
    permuted = data._replace(dataset=data.dataset._replace(train_labels=labels))
    assert same(*(solving.fit_seed(method, each, 0, None) for each in (data, permuted)))


@pytest.mark.parametrize("earlier", ["pca", "m1"])
def test_a_fitted_method_sees_the_latents_of_an_earlier_run(tmp_path, earlier):
    config = pca.Config(latent=4) if earlier == "pca" else dataclasses.replace(tiny("m1").config, steps=4)
    run.train(earlier, config, settings(tmp_path, out=tmp_path / "encoder"))
    result = run.train("linear", linear.Config(), settings(tmp_path, encoder=tmp_path / "encoder"))
    loaded, encoder = run.load(result.folder), run.load(tmp_path / "encoder")
    digits = run.load_data(Options()).dataset
    images = solving.scaled(digits.test_images[:7])
    for state, latents in zip(loaded.states, encoder.states, strict=True):
        assert same(state.encoder, latents)
        expected = linear.make(linear.Config(), digits.spec).classify(
            state.inner, encoder.tools.method.encode(latents, images)
        )
        np.testing.assert_allclose(loaded.tools.method.classify(state, images), expected, rtol=1e-5, atol=1e-6)


def test_an_encoder_of_other_labels_or_without_latents_is_refused(tmp_path):
    run.train("pca", pca.Config(latent=4), settings(tmp_path, out=tmp_path / "encoder"))
    with pytest.raises(UserError, match="--labels 50 and at most its --seeds 2"):
        run.train("linear", None, settings(tmp_path, labels="60", encoder=tmp_path / "encoder"))
    with pytest.raises(UserError, match="other data"):
        run.train("linear", None, settings(tmp_path, dataset="shapes", encoder=tmp_path / "encoder"))
    run.train("linear", None, settings(tmp_path, out=tmp_path / "linear"))
    with pytest.raises(UserError, match="linear has no latents"):
        run.train("linear", None, settings(tmp_path, encoder=tmp_path / "linear"))


def test_options_of_the_other_kind_of_method_are_refused(tmp_path):
    with pytest.raises(UserError, match="leave out --log-every"):
        run.train("linear", None, settings(tmp_path, log_every=5))
    with pytest.raises(UserError, match="supervised is trained on pixels"):
        run.train("supervised", supervised.Config(), settings(tmp_path, encoder=tmp_path / "encoder"))


def test_a_method_names_its_paper(name):
    authors, where = METHODS[name].PAPER.split(", ", 1)
    assert authors[-4:].isdecimal() and where in " ".join(METHODS[name].__doc__.split())
