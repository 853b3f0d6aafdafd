"""The Gaussian mixture: EM beside scikit-learn's without labels, and by hand with them."""

import warnings

import jax
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm
from sklearn.mixture import GaussianMixture

from ssl_gen.methods.classical import gaussian_mixture
from ssl_gen.methods.classical.gaussian_mixture import (
    Config,
    Mixture,
    begun,
    expected,
    fit_mixture,
    joint,
    maximised,
    shrunk,
)
from ssl_gen.types import ImageSpec, UserError

RANDOM = np.random.default_rng(0)
POINTS = np.concatenate([RANDOM.normal((0, 0, 0), (1, 2, 1), (60, 3)), RANDOM.normal((2, 1, -1), (2, 1, 1), (40, 3))])
START = Mixture(np.array([0.3, 0.7]), np.array([[0.5, 0, 0], [1, 1, 1]]), np.stack([np.eye(3) * 2] * 2))
NO_LABELS = np.zeros((0, 2))
THEIRS = {"shared": "tied", "full": "full", "diagonal": "diag"}


@pytest.mark.parametrize("covariance", list(THEIRS))
def test_without_labels_it_is_scikit_learns_mixture_from_the_same_start(covariance):
    precisions = {"shared": np.eye(3) / 2, "full": np.stack([np.eye(3) / 2] * 2), "diagonal": np.full((2, 3), 0.5)}
    theirs = GaussianMixture(
        2,
        covariance_type=THEIRS[covariance],
        tol=0.0,
        reg_covar=0.0,
        max_iter=8,
        weights_init=START.weights,
        means_init=START.means,
        precisions_init=precisions[covariance],
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not come to rest
        theirs.fit(POINTS)
    ours = fit_mixture(POINTS, NO_LABELS, START, Config(covariance, shrinkage=0.0, sizes="learnt", iterations=8))
    np.testing.assert_allclose(ours.means, theirs.means_, atol=1e-4)
    np.testing.assert_allclose(ours.weights, theirs.weights_, atol=1e-4)
    found = {"shared": ours.covariances[0], "full": ours.covariances}
    found["diagonal"] = np.stack([np.diag(each) for each in ours.covariances])
    np.testing.assert_allclose(found[covariance], theirs.covariances_, atol=1e-3)


def test_a_labelled_point_stays_with_its_class_and_the_others_follow_bayes():
    """On a line: N(0, 1) and N(4, 4), of weights 1/4 and 3/4; the first point lies at 0 and has the second class."""
    mixture = Mixture(np.array([0.25, 0.75]), np.array([[0.0], [4.0]]), np.array([[[1.0]], [[4.0]]]))
    points = np.array([[0.0], [0.0], [3.0]])
    shares, log_p = expected(points, mixture, np.array([[0.0, 1.0]]))
    near, far = 0.25 * norm.pdf(points[:, 0], 0, 1), 0.75 * norm.pdf(points[:, 0], 4, 2)
    np.testing.assert_allclose(shares[0], [0, 1])
    np.testing.assert_allclose(shares[1:, 0], (near / (near + far))[1:])
    np.testing.assert_allclose(log_p, np.log([far[0], near[1] + far[1], near[2] + far[2]]))


def test_the_next_mixture_has_the_moments_that_the_shares_weigh():
    shares = RANDOM.dirichlet((1, 1), len(POINTS))
    found = maximised(POINTS, shares, "full", 0.0)
    for k in range(2):
        np.testing.assert_allclose(found.means[k], np.average(POINTS, 0, shares[:, k]))
        np.testing.assert_allclose(found.covariances[k], np.cov(POINTS.T, aweights=shares[:, k], bias=True), rtol=1e-4)
    np.testing.assert_allclose(found.weights, shares.mean(0))


def test_shrinking_goes_to_a_round_covariance_of_the_same_trace():
    covariance = np.array([[4.0, 1.0], [1.0, 2.0]])
    np.testing.assert_allclose(shrunk(covariance, 1.0), np.eye(2) * 3, rtol=1e-5)
    np.testing.assert_allclose(shrunk(covariance, 0.5), [[3.5, 0.5], [0.5, 2.5]], rtol=1e-5)


def test_a_step_never_lowers_the_likelihood_where_nothing_is_shrunk():
    clamped, mixture, likelihoods = np.eye(2)[[0] * 5 + [1] * 5], START, []
    points = np.concatenate([POINTS[:5], POINTS[-5:], POINTS[5:-5]])
    for _ in range(12):
        shares, log_p = expected(points, mixture, clamped)
        likelihoods.append(log_p.sum())
        mixture = maximised(points, shares, "full", 0.0)
    assert (np.diff(likelihoods) > -1e-3).all() and likelihoods[-1] - likelihoods[0] > 10


def test_unlabelled_points_of_no_weight_change_nothing():
    clamped = np.eye(2)[[0] * 5 + [1] * 5]
    points = np.concatenate([POINTS[:5], POINTS[-5:]])
    config = Config("shared", unlabelled_weight=0.0, iterations=1)
    alone, beside = (fit_mixture(each, clamped, START, config) for each in (points, np.concatenate([points, POINTS])))
    np.testing.assert_allclose(alone.means, beside.means)
    np.testing.assert_allclose(alone.covariances, beside.covariances)


def test_sizes_stay_those_of_the_labels_unless_they_are_learnt():
    clamped = np.eye(2)[[0] * 5 + [1] * 5]
    points = np.concatenate([POINTS[:5], POINTS[-5:], POINTS[5:-5]])
    fixed, learnt = (fit_mixture(points, clamped, START, Config(sizes=sizes)) for sizes in ("labels", "learnt"))
    np.testing.assert_array_equal(fixed.weights, START.weights)
    assert abs(learnt.weights - START.weights).max() > 0.01
    np.testing.assert_allclose(begun(points, np.array([0, 0, 0, 1]), 2, 0.5).weights, [0.75, 0.25])


def long_clusters():
    """Two long parallel clouds of 100 points, 4 apart; a label each, left of the middle and right of it."""
    random = np.random.default_rng(1)
    clouds = [np.stack([random.normal(0, 4, 100), random.normal(4 * label, 0.5, 100)], 1) for label in (0, 1)]
    known = np.float32([[-3, 0], [3, 4]])
    return known, np.float32(np.concatenate(clouds)), np.repeat([0, 1], 100)


def test_the_shape_of_the_unlabelled_points_corrects_what_two_labels_say():
    known, others, truth = long_clusters()
    config = Config("shared", shrinkage=0.0, unit_length=False)
    method = gaussian_mixture.make(config, ImageSpec(1, 2, 1, 2))
    state = method.fit(jax.random.key(0), known[:, None, :, None], np.array([0, 1]), others[:, None, :, None])
    found = np.argmax(method.classify(state, others[:, None, :, None]), -1)
    nearest = np.square(others[:, None] - known).sum(-1).argmin(-1)
    assert (nearest != truth).mean() > 0.2 and (found != truth).mean() < 0.02


def test_new_images_are_classified_by_the_densities_of_the_components():
    features = RANDOM.normal(size=(40, 1, 5, 1)).astype(np.float32)
    labels = np.arange(6) % 2
    config = Config("full", shrinkage=0.3, directions=0, unit_length=False, iterations=3)
    method = gaussian_mixture.make(config, ImageSpec(1, 5, 1, 2))
    state = method.fit(jax.random.key(0), features[:6], labels, features[6:])
    reduced = (features.reshape(40, 5) - state.mean) @ state.axes
    scores = []
    for mean, whitening, offset in zip(state.means, state.whitening, state.offsets, strict=True):
        covariance = np.linalg.inv(np.float64(whitening.T @ whitening))
        weight = np.exp(offset - np.linalg.slogdet(np.float64(whitening))[1])
        scores.append(np.log(weight) + multivariate_normal(mean, covariance).logpdf(reduced))
    scores = np.stack(scores, 1)
    expected_scores = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    np.testing.assert_allclose(method.classify(state, features), expected_scores, atol=1e-3)


def test_of_features_of_length_one_their_length_does_not_matter():
    features = RANDOM.normal(size=(30, 1, 4, 1)).astype(np.float32)
    lengths = RANDOM.uniform(0.5, 2, (30, 1, 1, 1)).astype(np.float32)
    method = gaussian_mixture.make(Config(iterations=3), ImageSpec(1, 4, 1, 2))
    labels = np.arange(4) % 2
    states = [method.fit(jax.random.key(0), each[:4], labels, each[4:]) for each in (features, features * lengths)]
    found = [method.classify(state, each) for state, each in zip(states, (features, features * lengths), strict=True)]
    np.testing.assert_allclose(*found, atol=1e-3)


@pytest.mark.parametrize("sizes", ["labels", "learnt"])
@pytest.mark.parametrize("covariance", list(THEIRS))
def test_a_class_without_a_label_is_never_guessed_and_one_image_is_a_class(covariance, sizes):
    """Of three clouds the third has no label and lies where the others' middle is; the second has a single image."""
    known = np.float32([[-3, 0, 0], [-3, 1, 0], [-3, 0, 1], [3, 0, 0]])
    others = np.concatenate([RANDOM.normal((x, 0, 0), 0.4, (30, 3)) for x in (-3, 3, 0)]).astype(np.float32)
    config = Config(covariance, directions=0, unit_length=False, sizes=sizes)
    method = gaussian_mixture.make(config, ImageSpec(1, 3, 1, 3))
    for unlabelled in (others, others[:0]):  # of labels alone a covariance of one image is a point
        given = known[:, None, :, None], np.array([0, 0, 0, 1]), unlabelled[:, None, :, None]
        state = method.fit(jax.random.key(0), *given)
        found = np.asarray(method.classify(state, others[:, None, :, None]))
        guessed = {0, 1} if len(unlabelled) or covariance == "shared" else {0}
        assert np.isfinite(found).all() and set(found.argmax(-1)) == guessed


def test_what_makes_no_mixture_is_refused_in_one_line():
    with pytest.raises(UserError, match="covariance"):
        gaussian_mixture.make(Config(covariance="round"), ImageSpec(1, 4, 1, 2))
    method = gaussian_mixture.make(Config(), ImageSpec(1, 4, 1, 2))
    same = np.ones((4, 1, 4, 1), np.float32)
    with pytest.raises(UserError, match="all images are the same"):
        method.fit(jax.random.key(0), same[:2], np.array([0, 1]), same)


def test_a_joint_density_is_that_of_scipy():
    found = joint(POINTS[:4], START)
    for k in range(2):
        density = multivariate_normal(START.means[k], START.covariances[k]).logpdf(POINTS[:4])
        np.testing.assert_allclose(found[:, k], np.log(START.weights[k]) + density)
