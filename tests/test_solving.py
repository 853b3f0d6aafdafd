"""What every method that is fitted in one go promises, by being in METHODS, and the runs that such methods make."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import IMAGES, LABELS, SPEC, VISIBLE, numbers, same, tiny

from ssl_gen.augmentation import Augmentation, copies
from ssl_gen.core import keys
from ssl_gen.core.plain import from_plain
from ssl_gen.datasets import masking
from ssl_gen.datasets.dataset import Dataset
from ssl_gen.datasets.store import scaled
from ssl_gen.methods import METHODS
from ssl_gen.methods.classical import label_propagation, label_spreading, linear, mlp, pca, supervised
from ssl_gen.reports import records
from ssl_gen.runs import evaluate, fit, load, train
from ssl_gen.runs.data import Data, load_data
from ssl_gen.types import ImageSpec, Method, UserError

FITTED = [name for name in METHODS if tiny(name).method.fit is not None]
LABELS_ALONE = {"linear", "mlp"}  # these look at no unlabelled image
IMAGES_ALONE = {"pca"}  # this looks at no label
SCALED = scaled(IMAGES)
SHOWN = VISIBLE >= 0
KEY = keys.stream(0, keys.INIT)  # that a run with seed 0 fits with


@functools.cache
def fitted(name):
    return tiny(name).method.fit(KEY, SCALED[SHOWN], VISIBLE[SHOWN], SCALED[~SHOWN])


@pytest.fixture(scope="module", params=FITTED)
def name(request):
    return request.param


def test_a_state_is_named_arrays_of_shapes_that_a_checkpoint_gives_back(name):
    state = fitted(name)
    assert isinstance(state, METHODS[name].State)
    assert all(np.issubdtype(leaf.dtype, np.number) for leaf in numbers(state))
    like = fit.like(METHODS[name].State, fit.shapes(jax.tree.map(jnp.asarray, state)))
    assert jax.tree.structure(like) == jax.tree.structure(state)
    assert [leaf.shape for leaf in jax.tree.leaves(like)] == [leaf.shape for leaf in numbers(state)]


def test_the_same_key_fits_the_same_state(name):
    again = tiny(name).method.fit(KEY, SCALED[SHOWN], VISIBLE[SHOWN], SCALED[~SHOWN])
    assert same(again, fitted(name))


def test_the_labels_matter_where_they_are_used_and_there_alone(name):
    other = (VISIBLE[SHOWN] + 1) % SPEC.classes
    state = tiny(name).method.fit(KEY, SCALED[SHOWN], other, SCALED[~SHOWN])
    assert same(state, fitted(name)) == (name in IMAGES_ALONE)


def test_the_unlabelled_images_matter_where_they_are_used_and_there_alone(name):
    state = tiny(name).method.fit(KEY, SCALED[SHOWN], VISIBLE[SHOWN], SCALED[~SHOWN] * 0.5)
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
    state = method.fit(KEY, images[SHOWN], VISIBLE[SHOWN], images[~SHOWN])
    np.testing.assert_array_equal(np.argmax(method.classify(state, images), -1), LABELS)


def noise(scheme=masking.Scheme()):
    """80 images of noise in 3 classes, 6 of them labelled."""
    images = np.random.default_rng(2).integers(0, 256, (80, 4, 4, 1), np.uint8)
    labels = (np.arange(80) % 3).astype(np.int32)
    dataset = Dataset("noise", images, labels, images[:1], labels[:1], ("a", "b", "c"))
    mask = masking.make_mask("noise", labels, dataset.class_names, 6, scheme, 0, "")
    return Data(dataset, [0], [mask], (images[:0], labels[:0]))


@pytest.mark.parametrize("disjoint", [False, True])
def test_a_fitted_method_is_shown_each_image_once(disjoint):
    data = noise(masking.Scheme(disjoint=disjoint))
    seen = []
    fit.fit_seed(Method(None, (), fit=lambda *shown: seen.extend(shown)), data, 0, None)
    _, labelled, labels, others = seen
    visible = data.masks[0].labels >= 0
    np.testing.assert_array_equal(labelled, scaled(data.dataset.train_images[visible]))
    np.testing.assert_array_equal(labels, data.dataset.train_labels[visible])
    np.testing.assert_array_equal(others, scaled(data.dataset.train_images[~visible]))


def test_changed_copies_are_shown_behind_the_labelled_images_with_their_labels():
    """One copy mirrored, one too bright: what leaves an image's range is cut off, as it would be in a file."""
    data, seen = noise(), []
    both = Method(
        None,
        (),
        fit=lambda *shown: seen.extend(shown),
        copies=lambda key, images: iter((images[:, :, ::-1], images + 1)),
    )
    fit.fit_seed(both, data, 0, None)
    _, labelled, labels, others = seen
    visible = data.masks[0].labels >= 0
    images, known = data.dataset.train_images[visible], data.dataset.train_labels[visible]
    bright = np.minimum(images.astype(int) + 127.5, 255).round().astype(np.uint8)
    expected = np.concatenate([images, images[:, :, ::-1], bright])
    np.testing.assert_allclose(labelled, scaled(expected), atol=1 / 127)  # half of one value of a pixel is rounded
    np.testing.assert_array_equal(labels, np.concatenate([known] * 3))
    assert len(others) == 74


def test_an_encoder_sees_the_copies_of_images_and_not_copies_of_features():
    """Of half an image: a copy that is mirrored has another feature than the image."""
    data, seen = noise(), []
    half = Method(None, (), encode=lambda state, images: state * images[:, :, :2].mean((1, 2)))
    encoder = fit.Encoder(half, [jnp.float32(2)], records.EncoderRecord("pca", {}, 0))
    mirrored = Method(
        None,
        (),
        fit=lambda *shown: seen.extend(shown) or linear.State(*np.zeros((2, 1))),
        copies=lambda key, x: iter((x[:, :, ::-1],)),
    )
    fit.fit_seed(mirrored, data, 0, encoder)
    images = np.asarray(scaled(data.dataset.train_images[data.masks[0].labels >= 0]))
    expected = 2 * np.concatenate([images[:, :, :2].mean((1, 2)), images[:, :, 2:].mean((1, 2))])
    np.testing.assert_allclose(seen[1], expected, atol=1e-5)


def test_copies_are_drawn_anew_for_each_view_and_by_the_key_alone():
    images = jnp.asarray(SCALED[:12])
    draw = copies(Augmentation(flip=True), 3)
    first, second = draw(KEY, images)
    for copy in (first, second):
        straight, mirrored = ((copy == x).all((1, 2, 3)) for x in (images, images[:, :, ::-1]))
        assert (straight | mirrored).all() and mirrored.any() and straight.any()
    assert not same(first, second)
    assert all(same(*pair) for pair in zip(draw(KEY, images), (first, second), strict=True))


def test_ridge_on_views_is_the_least_squares_of_the_mean_over_them():
    """Sum over images of the mean square over three views, plus l2 |W|^2: its gradient is 0 at what was fitted."""
    views, l2, random = 3, 0.7, np.random.default_rng(4)
    config = linear.Config("ridge", l2, views=views, augmentation=Augmentation(flip=True))
    x, labels = random.normal(size=(views * 6, 5)).astype(np.float32), np.tile(np.array([0, 1, 2, 0, 1, 2]), views)
    state = linear.make(config, SPEC).fit(KEY, x, labels, x[:0])
    wrong = (x @ state.weights + state.bias - np.eye(SPEC.classes)[labels]) / views
    np.testing.assert_allclose(2 * x.T @ wrong + 2 * l2 * state.weights, 0, atol=1e-5)
    np.testing.assert_allclose(wrong.sum(0), 0, atol=1e-5)


@pytest.mark.parametrize("module", [linear, mlp])
def test_views_that_are_all_the_same_and_changes_of_no_view_are_refused(module):
    with pytest.raises(
        UserError, match=r"8 views of each labelled image would be the same: give --config\.augmentation"
    ):
        module.make(module.Config(views=8), SPEC)
    with pytest.raises(UserError, match=r"give their number, --config\.views 8"):
        module.make(module.Config(augmentation=Augmentation(flip=True)), SPEC)


def test_a_head_on_features_of_changed_images_comes_back_from_its_folder(finished, tmp_path):
    config = linear.Config(views=3, augmentation=Augmentation(translate=1.0, rotate=10.0))
    options = finished.options("linear", tmp_path / "run", encoder="random", seeds=1)
    final = train.train("linear", config, options).final
    loaded, dataset = load.load(tmp_path / "run"), load_data(options).dataset
    assert from_plain(linear.Config, loaded.record.config) == config
    error = np.mean(loaded.classify(dataset.test_images).argmax(-1) != dataset.test_labels) * 100
    assert error == pytest.approx(final.metrics["error"]["mean"])


def test_labels_propagate_over_a_graph_that_holds_each_image_once():
    """Beside the harmonic solution by dense algebra, on the graph of all pairs of images."""
    data, k = noise(), 5
    method = label_propagation.make(label_propagation.Config(neighbours=k), ImageSpec(4, 4, 1, 3))
    state = fit.fit_seed(method, data, 0, None)
    where = data.masks[0].labels >= 0
    x = np.concatenate([data.dataset.train_images[part].reshape(-1, 16).astype(float) for part in (where, ~where)])
    labels = np.concatenate([data.dataset.train_labels[part] for part in (where, ~where)])
    distances = np.linalg.norm(x[:, None] - x, axis=-1) + np.diag(np.full(80, np.inf))
    furthest = np.sort(distances, 1)[:, k - 1 : k]
    one_sided = np.where(distances <= furthest, np.exp(-4 * (distances / furthest) ** 2), 0)
    weights = (one_sided + one_sided.T) / 2
    laplacian = np.diag(weights.sum(1)) - weights
    expected = np.eye(3)[labels]
    expected[6:] = np.linalg.solve(laplacian[6:, 6:], weights[6:, :6] @ expected[:6])
    np.testing.assert_allclose(state.shares, expected, atol=1e-5)


def test_a_fitted_run_leaves_the_record_and_comes_back_from_its_folder(finished, tmp_path):
    folder = finished.copy("linear", tmp_path / "run")
    final = records.load_final(folder)
    assert final.steps == 0 and len(final.metrics["error"]["per_seed"]) == 2
    assert (folder / "report.html").exists()
    loaded, dataset = load.load(folder), load_data(finished.options("linear", folder)).dataset
    error = np.mean(loaded.classify(dataset.test_images).argmax(-1) != dataset.test_labels) * 100
    assert error == pytest.approx(final.metrics["error"]["mean"], abs=5)
    assert evaluate.evaluate(folder, ("error",)).metrics["error"] == final.metrics["error"]
    assert train.train("linear", None, finished.options("linear", folder)).final == final


def test_permuting_hidden_labels_changes_no_bit_of_a_fitted_state(finished, tmp_path):
    data = load_data(finished.options("linear", tmp_path))
    method = label_spreading.make(label_spreading.Config(), data.dataset.spec)
    hidden = data.masks[0].labels < 0
    labels = data.dataset.train_labels.copy()
    labels[hidden] = np.random.default_rng(0).permutation(labels[hidden])
    permuted = data._replace(dataset=data.dataset._replace(train_labels=labels))
    assert same(*(fit.fit_seed(method, each, 0, None) for each in (data, permuted)))


@pytest.mark.parametrize("earlier", ["pca", "m2"])
def test_a_fitted_method_sees_the_latents_of_an_earlier_run(finished, tmp_path, earlier):
    """Of a method that is fitted in one go itself, and of one that is trained in steps."""
    encoder, folder = finished(earlier), finished("linear_on_pca")
    if earlier == "m2":
        options = finished.options("linear", tmp_path / "run", encoder=str(encoder), validation=100)
        folder = train.train("linear", None, options).folder
    loaded, first = load.load(folder), load.load(encoder)
    images = scaled(load_data(finished.options("linear", folder)).dataset.test_images[:7])
    plain = linear.make(linear.Config(), first.record.data.spec)
    for state, latents in zip(loaded.states, first.states, strict=True):
        assert same(state.encoder, latents)
        expected = plain.classify(state.inner, first.compiled.method.encode(latents, images))
        found = loaded.compiled.method.classify(state, images)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_an_encoder_of_other_labels_or_without_latents_is_refused(finished, tmp_path):
    def refused(words, encoder, **changes):
        options = finished.options("linear", tmp_path / "run", encoder=str(encoder), **changes)
        with pytest.raises(UserError, match=words):
            train.train("linear", None, options)

    refused("--labels 30, its --mask settings and at most its seeds, 0 to 1", finished("pca"), labels="60")
    refused("--labels 30, its --mask settings and at most its seeds, 0 to 1", finished("pca"), seeds=3)
    refused("other data", finished("pca"), dataset="shapes", size=8)
    refused("linear has no latents", finished("linear"))
    second = tmp_path / "second"
    train.train("pca", pca.Config(latent=2), finished.options("pca", second, encoder=str(finished("pca"))))
    refused("made on pixels", second)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "option", ["log_every", "evaluate_every", "checkpoint_every", "data_parallel", "accumulate", "shard_params"]
)
def test_options_of_training_in_steps_are_refused(option, finished, tmp_path):
    value = True if option == "shard_params" else 5
    with pytest.raises(UserError, match=f"leave out --{option.replace('_', '-')}"):
        train.train("linear", None, finished.options("linear", tmp_path / "run", **{option: value}))


def test_evaluators_of_training_in_steps_are_refused(finished, tmp_path):
    with pytest.raises(UserError, match="leave out --evaluators"):
        train.train("linear", None, finished.options("linear", tmp_path / "run", evaluators=("error",)))


def test_an_encoder_for_a_method_that_is_trained_on_pixels_is_refused(finished, tmp_path):
    with pytest.raises(UserError, match="supervised is trained on pixels"):
        train.train("supervised", supervised.Config(), finished.options("supervised", tmp_path, encoder="random"))


def test_a_method_names_its_paper(name):
    authors, where = METHODS[name].PAPER.split(", ", 1)
    assert authors[-4:].isdecimal() and where in " ".join(METHODS[name].__doc__.split())
