"""The classical methods: their formulas another way, and what they promise beyond tests/test_solving.py."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen.core.keys import INIT, stream
from ssl_gen.losses.classification import cross_entropy, log_shares
from ssl_gen.methods.classical import (
    k_means,
    label_propagation,
    label_spreading,
    linear,
    mlp,
    pca,
    poisson_learning,
    poisson_mbo,
)
from ssl_gen.types import ImageSpec, UserError

SPEC = ImageSpec(4, 4, 1, 3)
RANDOM = np.random.default_rng(0)
KEY = stream(0, INIT)


def clouds(count, spread=0.3):
    """Images (3 count, 4, 4, 1) around three random ones, and their classes."""
    middles = np.random.default_rng(1).uniform(-0.7, 0.7, (3, *SPEC.shape))
    classes = np.arange(3 * count) % 3
    images = middles[classes] + RANDOM.normal(0, spread, (3 * count, *SPEC.shape))
    return images.astype(np.float32), classes.astype(np.int32)


KNOWN, LABELS = clouds(4)
OTHERS, _ = clouds(30)
NONE = OTHERS[:0]
TEST, TRUTH = clouds(50)
GRAPH_METHODS = [label_propagation, label_spreading, poisson_learning, poisson_mbo]
CLASSIFIERS = [linear, mlp, k_means, *GRAPH_METHODS]
SMALL = {mlp: {"hidden": (8, 6)}}


def fitted(module, labelled=KNOWN, labels=LABELS, unlabelled=OTHERS, spec=SPEC, **changes):
    method = module.make(module.Config(**SMALL.get(module, {}) | changes), spec)
    return method, method.fit(KEY, labelled, labels, unlabelled)


def classes_of(method, state, images=TEST):
    return np.asarray(method.classify(state, images)).argmax(-1)


def name(module):
    return module.__name__.split(".")[-1]


@pytest.mark.parametrize("module", CLASSIFIERS, ids=name)
def test_new_images_of_classes_apart_are_told_apart(module):
    assert (classes_of(*fitted(module)) == TRUTH).mean() > 0.95


@pytest.mark.parametrize("module", CLASSIFIERS, ids=name)
def test_labels_alone_are_enough_to_fit(module):
    assert (classes_of(*fitted(module, unlabelled=NONE)) == TRUTH).mean() > 0.85


@pytest.mark.parametrize("module", CLASSIFIERS, ids=name)
def test_latents_are_as_good_as_images(module):
    flat = [x.reshape(len(x), -1) for x in (KNOWN, OTHERS, TEST)]
    method, state = fitted(module, flat[0], LABELS, flat[1])
    expected = method.classify(*fitted(module)[1:], TEST)
    np.testing.assert_allclose(method.classify(state, flat[2]), expected, atol=1e-4)


@pytest.mark.parametrize("module", CLASSIFIERS, ids=name)
def test_a_class_without_labels_is_not_guessed(module):
    method, state = fitted(module, labels=np.where(LABELS == 1, 2, LABELS))
    if module is k_means:
        pytest.skip("as many clusters as classes are named one to one")
    assert 1 not in classes_of(method, state)


@pytest.mark.parametrize("module", GRAPH_METHODS, ids=name)
def test_two_images_of_equal_pixels_are_two_nodes(module):
    apart, together = (fitted(module, unlabelled=pool) for pool in (OTHERS, np.concatenate([KNOWN[:3], OTHERS])))
    assert len(together[1].features) == len(apart[1].features) + 3
    np.testing.assert_array_equal(together[1].features[:3], together[1].features[12:15])
    assert (classes_of(*apart) == classes_of(*together)).mean() > 0.98


@pytest.mark.parametrize("module", GRAPH_METHODS, ids=name)
def test_more_neighbours_than_images_are_refused(module):
    with pytest.raises(UserError, match="10 neighbours among 9 images"):
        fitted(module, KNOWN[:9], LABELS[:9], NONE)


@pytest.mark.parametrize("module", GRAPH_METHODS, ids=name)
def test_an_unknown_kernel_is_refused(module):
    with pytest.raises(UserError, match="kernel is 'cosine': choose one of gaussian, connectivity"):
        module.make(module.Config(kernel="cosine"), SPEC)


@pytest.mark.parametrize(("count", "width"), [(30, 5), (5, 30)])
def test_ridge_weights_have_no_slope_left_in_their_loss(count, width):
    x, y, l2 = RANDOM.normal(2, 1, (count, width)), RANDOM.normal(1, 1, (count, 3)), 0.7
    weights, bias = linear.ridge(x, y, l2)
    residual = x @ weights + bias - y
    np.testing.assert_allclose(x.T @ residual + l2 * weights, 0, atol=1e-9)
    np.testing.assert_allclose(residual.sum(0), 0, atol=1e-9)


def test_ridge_outputs_sum_to_1():
    method, state = fitted(linear, kind="ridge")
    outputs = TEST.reshape(len(TEST), -1) @ state.weights + state.bias
    np.testing.assert_allclose(outputs.sum(-1), 1, rtol=1e-4)
    np.testing.assert_array_equal(classes_of(method, state), outputs.argmax(-1))


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_has_no_slope_left_in_its_loss(classes):
    """scikit-learn has one column of weights for two classes, so |W|^2 is twice that of two columns apart."""
    keep = np.isin(LABELS, range(classes))
    x, y = KNOWN[keep].reshape(keep.sum(), -1), LABELS[keep]
    weights, bias = linear.logistic(x, y, classes, 0.5, 1000)

    def loss(weights, bias):
        logits = x @ weights + bias
        return cross_entropy(logits, y) * len(x) + 0.25 * (weights**2).sum()

    slopes = jax.grad(loss, (0, 1))(jnp.asarray(weights, jnp.float32), jnp.asarray(bias, jnp.float32))
    free = slice(1, None) if classes == 2 else slice(None)
    for slope in slopes:
        np.testing.assert_allclose(slope[..., free], 0, atol=5e-3)


def test_a_class_without_labels_costs_30_nats_of_logistic_regression():
    weights, bias = linear.logistic(KNOWN.reshape(12, -1), np.where(LABELS == 1, 2, LABELS), 3, 1.0, 1000)
    np.testing.assert_array_equal(weights[:, [0, 1]], 0)
    assert bias[0] == 0 and bias[1] == linear.ABSENT


@pytest.mark.parametrize("module", [linear, mlp], ids=name)
def test_labels_of_one_class_are_refused(module):
    with pytest.raises(UserError, match="needs labels of two classes or more"):
        fitted(module, labels=np.zeros_like(LABELS))


def test_a_ridge_of_no_strength_is_refused():
    with pytest.raises(UserError, match="l2 is 0"):
        linear.make(linear.Config(l2=0), SPEC)


@pytest.mark.parametrize("hidden", [(5,), (8, 6, 4)])
@pytest.mark.parametrize("labels", [LABELS, np.where(LABELS == 1, 2, LABELS)], ids=["three", "two"])
def test_the_perceptron_is_that_of_scikit_learn(hidden, labels):
    """Its predictions, which the state's arrays must give again."""
    from sklearn.neural_network import MLPClassifier

    config = mlp.Config(hidden=hidden, epochs=20)
    state = mlp.train(config, 3, KNOWN.reshape(12, -1), labels, 3)
    theirs = MLPClassifier(hidden, max_iter=20, random_state=3)
    with pytest.warns(match="Maximum iterations"):
        theirs.fit(KNOWN.reshape(12, -1), labels)
    ours = jax.nn.softmax(mlp.forward(state, TEST.reshape(len(TEST), -1), hidden))
    np.testing.assert_allclose(ours[:, np.unique(labels)], theirs.predict_proba(TEST.reshape(150, -1)), atol=1e-4)


def test_a_perceptron_without_a_layer_is_refused():
    with pytest.raises(UserError, match="hidden is empty"):
        mlp.make(mlp.Config(hidden=()), SPEC)


def test_components_are_eigenvectors_of_the_covariance():
    _, state = fitted(pca, latent=3)
    images = np.concatenate([KNOWN, OTHERS]).reshape(-1, 16)
    values, vectors = np.linalg.eigh(np.cov(images.T))
    np.testing.assert_allclose(np.abs(np.sum(state.directions * vectors.T[:-4:-1], -1)), 1, atol=1e-4)
    np.testing.assert_allclose(state.explained, values[:-4:-1] / values.sum(), rtol=1e-4)


def test_the_error_of_reconstruction_is_the_variance_left_out():
    method, state = fitted(pca, latent=5)
    images = np.clip(np.concatenate([KNOWN, OTHERS]), -10, 10)
    flat = fitted(pca, KNOWN.reshape(12, -1), LABELS, OTHERS.reshape(len(OTHERS), -1), latent=5)
    again = flat[0].decode(flat[1], flat[0].encode(flat[1], images.reshape(-1, 16)), None)
    left = np.square(images.reshape(-1, 16) - again).sum() / np.square(images - images.mean(0)).sum()
    assert left == pytest.approx(1 - state.explained.sum(), rel=1e-3)
    np.testing.assert_allclose(method.encode(state, images), flat[0].encode(flat[1], images.reshape(-1, 16)), atol=1e-4)


def test_decoded_images_are_cut_at_the_ends_of_the_scale():
    method, state = fitted(pca, latent=3)
    images = method.decode(state, jnp.full((2, 3), 100.0), None)
    assert images.shape == (2, *SPEC.shape) and float(jnp.abs(images).max()) == 1


@pytest.mark.parametrize("latent", [0, 17])
def test_there_are_no_more_components_than_pixels(latent):
    with pytest.raises(UserError, match="102 images of 16 numbers have 1 to 16 principal components"):
        fitted(pca, latent=latent)


def test_clusters_are_named_so_that_most_labels_are_right():
    clusters, labels = RANDOM.integers(0, 4, 40), RANDOM.integers(0, 4, 40)
    names = k_means.name_clusters(clusters, labels, np.zeros((4, 2)), 4)
    best = max((np.array(order)[clusters] == labels).sum() for order in itertools.permutations(range(4)))
    assert sorted(names) == [0, 1, 2, 3] and (names[clusters] == labels).sum() == best


def test_spare_clusters_are_named_by_majority_and_empty_ones_like_the_nearest():
    centres = np.array([[0.0], [1.0], [5.0], [1.2], [4.0]])
    names = k_means.name_clusters(np.array([0, 0, 0, 1, 2]), np.array([2, 2, 1, 0, 1]), centres, 3)
    np.testing.assert_array_equal(names, [2, 0, 1, 0, 1])


def test_cluster_probabilities_are_those_of_round_gaussians():
    centres, names, variance = np.array([[0.0, 0], [1, 0], [0, 2]], np.float32), np.array([1, 0, 1]), 0.5
    method = k_means.make(k_means.Config(clusters=3), ImageSpec(1, 2, 1, 2))
    query = np.array([[0.4, 0.3]], np.float32)
    weights = np.exp(-np.square(query - centres).sum(1) / (2 * variance))
    expected = np.array([weights[1], weights[0] + weights[2]]) / weights.sum()
    found = np.exp(method.classify(k_means.State(centres, names, np.float32(variance)), query))
    np.testing.assert_allclose(found[0], expected, atol=2e-4)  # of the floor, 2 x 1e-4


def test_the_variance_is_the_mean_within_clusters():
    _, state = fitted(k_means)
    images = np.concatenate([KNOWN, OTHERS]).reshape(-1, 16)
    squares = np.square(images[:, None] - state.centres).sum(-1)
    assert state.variance == pytest.approx(squares.min(1).mean() / 16, rel=1e-4)


def test_seeds_from_labels_begin_at_class_means():
    means = k_means.class_means(KNOWN.reshape(12, -1), LABELS, 3)
    np.testing.assert_allclose(means[1], KNOWN[LABELS == 1].mean(0).ravel(), rtol=1e-5)
    method, state = fitted(k_means, seeding="labels")
    assert (classes_of(method, state) == TRUTH).mean() > 0.95
    np.testing.assert_array_equal(state.names, [0, 1, 2])


def test_seeds_from_labels_need_a_label_of_each_class():
    with pytest.raises(UserError, match="class 1 has none"):
        fitted(k_means, labels=np.where(LABELS == 1, 2, LABELS), seeding="labels")


@pytest.mark.parametrize(("seeding", "clusters"), [("k-means++", 2), ("labels", 4)])
def test_clusters_that_cannot_be_named_are_refused(seeding, clusters):
    with pytest.raises(UserError, match=f"clusters is {clusters}"):
        k_means.make(k_means.Config(seeding=seeding, clusters=clusters), SPEC)


def test_where_each_image_is_a_cluster_probabilities_are_numbers():
    images = np.concatenate([KNOWN, OTHERS])
    method, state = fitted(k_means, clusters=len(np.unique(images.reshape(len(images), -1), axis=0)))
    found = np.asarray(method.classify(state, np.concatenate([images, 3 * images])))
    assert np.isfinite(found).all() and (found[:12].argmax(-1) == LABELS).all()


def test_more_clusters_than_images_are_refused():
    with pytest.raises(UserError, match="200 clusters of 102 images"):
        fitted(k_means, clusters=200)


@pytest.mark.parametrize("alpha", [0, 1])
def test_an_alpha_that_is_no_part_is_refused(alpha):
    with pytest.raises(UserError, match="between 0 and 1"):
        label_spreading.make(label_spreading.Config(alpha=alpha), SPEC)


def test_a_prior_moves_classes_in_its_direction():
    images = RANDOM.uniform(-1, 1, (90, *SPEC.shape)).astype(np.float32)
    counts = [
        (classes_of(*fitted(poisson_learning, images[:12], LABELS, images[12:], prior=prior)) == 2).sum()
        for prior in ((1, 1, 1), (1, 1, 8))
    ]
    assert counts[0] < counts[1]


@pytest.mark.parametrize("module", [label_propagation, poisson_learning, poisson_mbo], ids=name)
@pytest.mark.parametrize("prior", [(1.0, 1.0), (1.0, 1.0, 0.0)])
def test_a_prior_names_each_class(module, prior):
    with pytest.raises(UserError, match="give 3 numbers above 0"):
        module.make(module.Config(prior=prior), SPEC)


def test_sizes_that_poisson_learning_finds_are_parts_of_the_nodes_that_it_reaches():
    potential = jnp.array([[1.0, -1, 0], [2, -1, -1], [-1, -1, 2], [0, 0, 0]])
    np.testing.assert_allclose(poisson_mbo.found_sizes(potential), [2 / 3, 0, 1 / 3], rtol=1e-6)


def test_classes_of_poisson_mbo_come_to_the_sizes_that_are_given():
    """Of a wide cloud that no class divides; the labels alone would have them a third each."""
    images = np.random.default_rng(4).normal(0, 0.3, (300, *SPEC.shape)).astype(np.float32)

    def parts(**changes):
        state = fitted(poisson_mbo, images[:12], LABELS, images[12:], **changes)[1]
        return np.bincount(state.shares.argmax(1), minlength=3) / 300

    assert np.abs(parts() - 1 / 3).max() < 0.1
    assert np.abs(parts(prior=(1.0, 1.0, 2.0)) - [1 / 4, 1 / 4, 1 / 2]).max() < 0.1
    assert not np.array_equal(parts(sizes="potential"), parts())


@pytest.mark.parametrize("correction", ["mean_shift", "class_mass"])
def test_a_correction_keeps_label_propagation_from_one_class(correction):
    """One label a class in one wide cloud: without a correction most images are named like one of the three."""
    images = np.random.default_rng(4).normal(0, 0.3, (300, *SPEC.shape)).astype(np.float32)
    images[0] *= 0.3  # in the middle, where most walks end
    plain, corrected = (
        fitted(label_propagation, images[:3], LABELS[:3], images[3:], **changes)[1].shares[3:]
        for changes in ({}, {"correction": correction})
    )
    largest = [np.bincount(shares.argmax(1), minlength=3).max() / 297 for shares in (plain, corrected)]
    assert largest[0] > 0.9 > 0.7 > largest[1]


@pytest.mark.parametrize(
    ("module", "changes", "said"),
    [
        (label_propagation, {"correction": "mean"}, "correction is 'mean': choose one of none, mean_shift, class_mass"),
        (label_propagation, {"prior": (1, 1, 1)}, "prior is of the correction class_mass"),
        (poisson_mbo, {"sizes": "given"}, "sizes is 'given': choose one of labels, potential"),
        (poisson_mbo, {"sizes": "potential", "prior": (1, 1, 1)}, "there is a prior: leave out one of them"),
        (poisson_mbo, {"outer": 0}, "outer 0: choose a fidelity above 0 and 1 or more"),
    ],
)
def test_settings_of_graphs_that_make_no_sense_are_refused(module, changes, said):
    with pytest.raises(UserError, match=said):
        module.make(module.Config(**changes), SPEC)


def test_shares_become_log_probabilities_with_a_floor():
    values = jnp.array([[0.5, 0.5, 0.0], [3.0, 1.0, -2.0]])
    expected = np.log((np.array([[0.5, 0.5, 0], [3, 1, 0]]) + 0.01) / np.array([[1.03], [4.03]]))
    np.testing.assert_allclose(log_shares(values, 0.01), expected, rtol=1e-5)
