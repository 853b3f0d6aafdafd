"""Fréchet distances: against the matrix square root, closed forms and singular values of the samples themselves."""

import tracemalloc

import numpy as np
import pytest
from scipy import linalg

from ssl_gen.metrics import frechet
from ssl_gen.metrics.frechet import Gaussian, distance, fid, fid_infinity, gaussian, intra_fid
from ssl_gen.types import UserError


def draw(seed, samples, width, decades=1.0):
    """Correlated features (N, F) whose variances span that many decades in some basis, and whose mean is not 0."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.normal(size=(width, width)))[0]
    deviations = 10 ** -np.linspace(0, decades / 2, width)
    return (random.normal(size=(samples, width)) * deviations) @ basis + random.normal(size=width)


def textbook(a, b):
    """The definition, with scipy's square root of the product of covariances."""
    covariances = (np.atleast_2d(np.cov(each, rowvar=False)) for each in (a, b))
    root = linalg.sqrtm(np.matmul(*covariances)).real
    variances = a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum()
    return np.square(a.mean(0) - b.mean(0)).sum() + variances - 2 * np.trace(root)


def by_samples(a, b):
    """The same without covariances: tr (A B)^(1/2) is the sum of singular values of the centred a^T b, scaled."""
    a_centred, b_centred = a - a.mean(0), b - b.mean(0)
    scale = np.sqrt((len(a) - 1) * (len(b) - 1))
    shared = np.linalg.svd(a_centred @ b_centred.T / scale, compute_uv=False).sum()
    variances = a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum()
    return np.square(a.mean(0) - b.mean(0)).sum() + variances - 2 * shared


def peak(call):
    """The most bytes that a call holds beyond what was there before it."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("width", [1, 2, 7, 40])
def test_fid_is_the_textbook_form_with_a_matrix_square_root(width):
    a, b = draw(0, 200, width), 1.3 * draw(1, 150, width)
    assert fid(a, b) == pytest.approx(textbook(a, b), rel=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [(12, 20), (20, 12), (2, 2), (30, 200)])
def test_fewer_samples_than_features_lose_nothing(ours, theirs):
    a, b = draw(0, ours, 64), 1.3 * draw(1, theirs, 64)
    assert fid(a, b) == pytest.approx(by_samples(a, b), rel=1e-9)


def test_independent_features_have_a_closed_form():
    random = np.random.default_rng(0)
    means, deviations = random.normal(size=(2, 9)), random.uniform(0.1, 3, size=(2, 9))
    a, b = (Gaussian(mean, np.diag(each**2), 100) for mean, each in zip(means, deviations, strict=True))
    expected = np.square(means[0] - means[1]).sum() + np.square(deviations[0] - deviations[1]).sum()
    assert distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_one_feature_differs_by_its_mean_and_its_deviation():
    a, b = np.array([[0.0], [2], [4]]), np.array([[5.0], [5], [8]])  # means 2 and 6, variances 4 and 3
    assert fid(a, b) == pytest.approx(16 + (2 - 3**0.5) ** 2)


@pytest.mark.parametrize(("samples", "width"), [(50, 200), (200, 50), (2, 30), (64, 64)])
@pytest.mark.parametrize("scale", [1, 30])
def test_equal_sets_are_at_distance_0_in_any_order(samples, width, scale):
    a = scale * draw(0, samples, width)
    permuted = a[np.random.default_rng(1).permutation(samples)]
    assert fid(a, a.copy()) == pytest.approx(0, abs=1e-6)
    assert fid(a, permuted) == pytest.approx(0, abs=1e-6)
    assert fid(a.astype(np.float32), permuted.astype(np.float32)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("decades", [8, 12, 20])
def test_equal_sets_are_at_distance_0_where_variances_span_many_decades(decades):
    a = 10 * draw(0, 600, 256, decades)
    permuted = a[np.random.default_rng(1).permutation(600)]
    assert fid(a, permuted) == pytest.approx(0, abs=1e-6)


def test_the_distance_is_symmetric():
    a, b = gaussian([draw(0, 40, 12)]), gaussian([draw(1, 9, 12)])
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-12)


def test_a_translation_adds_its_squared_length():
    a, b, shift = draw(0, 60, 5), draw(1, 70, 5), np.array([3.0, 0, -4, 0, 1])
    b += a.mean(0) - b.mean(0)
    assert fid(a, b + shift) == pytest.approx(fid(a, b) + 26)


def test_features_without_variance_differ_by_their_means_alone():
    a, b = np.zeros((4, 3)), np.full((5, 3), 2.0)
    assert fid(a, b) == pytest.approx(12)
    b = draw(0, 50, 3)
    assert fid(a, b) == pytest.approx(np.square(b.mean(0)).sum() + b.var(0, ddof=1).sum())


@pytest.mark.parametrize("sizes", [(1, 30, 2, 7), (40,), (1,) * 40, (39, 1)])
def test_moments_over_uneven_batches_are_those_of_all_samples(sizes):
    features = draw(0, 40, 6)
    moments = gaussian(np.split(features, np.cumsum(sizes)[:-1]))
    assert moments.samples == 40
    np.testing.assert_allclose(moments.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(features, rowvar=False), rtol=1e-11)


def test_moments_of_more_rows_than_are_held_at_a_time_are_those_of_all_samples(monkeypatch):
    monkeypatch.setattr(frechet, "ROWS", 8)
    features = draw(0, 43, 6)
    np.testing.assert_allclose(gaussian([features]).covariance, np.cov(features, rowvar=False), rtol=1e-11)


def test_a_mean_far_from_zero_costs_no_digits():
    deviations = 1e-2 * draw(0, 3_000, 4)
    moments = gaussian(np.split(deviations + 1e4, 10))
    # adding 1e4 rounds each feature by up to 1e-12, and 1e-10 of a deviation; 1e4 squared would round by 1e-8
    expected = np.cov(deviations, rowvar=False)
    np.testing.assert_allclose(moments.covariance, expected, rtol=0, atol=1e-9 * expected.max())


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_narrow_floats_are_computed_in_float64(kind):
    a, b = draw(0, 50, 8).astype(kind), draw(1, 60, 8).astype(kind)
    assert fid(a, b) == fid(a.astype(np.float64), b.astype(np.float64))


def test_features_and_moments_stay_as_they_are():
    a, b = draw(0, 50, 8), draw(1, 60, 8)
    moments = [gaussian([each]) for each in (a, b)]
    kept = [each.copy() for each in (a, b, moments[0].covariance, moments[1].covariance)]
    fid(a, b)
    distance(*moments)
    fid_infinity(a, moments[1])
    for now, before in zip((a, b, moments[0].covariance, moments[1].covariance), kept, strict=True):
        np.testing.assert_array_equal(now, before)


@pytest.mark.parametrize(("ours", "theirs"), [(500, 500), (500, 395), (395, 500), (395, 395)])
def test_a_distance_holds_three_matrices_beside_its_inputs(ours, theirs):
    width = 400
    a, b = gaussian([draw(0, ours, width)]), gaussian([draw(1, theirs, width)])
    assert peak(lambda: distance(a, b)) < 3.2 * 8 * width**2  # LAPACK works in a few columns more


def test_moments_hold_one_batch_and_few_matrices():
    width, batches = 400, 20
    held = peak(lambda: gaussian(draw(seed, 300, width) for seed in range(batches)))
    assert held < 0.5 * batches * 300 * width * 8


def test_intra_fid_is_the_mean_over_classes():
    a, b = draw(0, 60, 4), draw(1, 90, 4)
    a_labels, b_labels = np.arange(60) % 3, np.arange(90) // 30
    expected = np.mean([textbook(a[a_labels == k], b[b_labels == k]) for k in range(3)])
    assert intra_fid(a, a_labels, b, b_labels, 3) == pytest.approx(expected, rel=1e-8)


def test_samples_of_no_class_take_no_part_in_intra_fid():
    a, b, labels = draw(0, 60, 4), draw(1, 60, 4), np.arange(60) % 3
    expected = intra_fid(a, labels, b, labels, 3)
    with_others = np.r_[a, 100 + draw(2, 10, 4)], np.r_[labels, [-1] * 5, [3] * 5]
    assert intra_fid(*with_others, b, labels, 3) == pytest.approx(expected)


def test_intra_fid_tells_swapped_classes_that_fid_cannot():
    a, labels = draw(0, 80, 3), np.arange(80) % 2
    a[labels == 1] += 10
    assert fid(a, a) == pytest.approx(0, abs=1e-6)
    assert intra_fid(a, labels, a, 1 - labels, 2) > 100


def test_extrapolation_comes_nearer_to_the_distance_of_known_gaussians():
    width, samples = 24, 2_000
    deviations, shift = np.linspace(0.5, 1.5, width), 0.1
    exact = np.square(deviations - 1).sum() + width * shift**2
    known, errors = Gaussian(np.zeros(width), np.eye(width), samples), []
    for seed in range(10):
        features = np.random.default_rng(seed).normal(size=(samples, width)) * deviations + shift
        plain, limit = distance(gaussian([features]), known), fid_infinity(features, known, seed)
        errors.append((plain - exact, limit - exact))
    plain, limit = np.mean(errors, 0)
    assert plain > 0  # few samples make FID too large
    assert abs(limit) < plain / 3


def test_extrapolation_takes_equal_distributions_to_nothing_on_average():
    random, known = np.random.default_rng(0), Gaussian(np.zeros(16), np.eye(16), 600)
    features = random.normal(size=(30, 600, 16))
    limits = [fid_infinity(each, known) for each in features]
    plain = [distance(gaussian([each]), known) for each in features]
    assert abs(np.mean(limits)) < 0.1 * np.mean(plain)
    assert min(limits) < 0


def test_the_limit_is_the_intercept_of_a_line_through_fid_of_nested_subsets():
    features, reference = draw(0, 90, 6), draw(1, 200, 6)
    order = np.random.default_rng(3).permutation(90)
    sizes = np.array([30, 50, 70, 90])
    distances = [textbook(features[order[:size]], reference) for size in sizes]
    line = np.c_[1 / sizes, np.ones(4)]
    expected = np.linalg.lstsq(line, np.array(distances), rcond=None)[0][1]
    assert fid_infinity(features, gaussian([reference]), 3, 4, 30) == pytest.approx(expected, rel=1e-8)


def test_the_smallest_subset_is_a_tenth():
    features, reference = draw(0, 300, 4), gaussian([draw(1, 200, 4)])
    assert fid_infinity(features, reference) == fid_infinity(features, reference, least=30)


def test_the_reference_is_factored_once_for_all_points(monkeypatch):
    factored, factor, reference = [], frechet._factor, gaussian([draw(1, 60, 4)])
    monkeypatch.setattr(frechet, "_factor", lambda of: factored.append(of) or factor(of))
    fid_infinity(draw(0, 60, 4), reference, points=5)
    assert factored == [reference]


def broken(value):
    features = draw(0, 20, 4)
    features[3, 1] = value
    return features


A, B, LABELS = draw(0, 20, 4), draw(1, 20, 4), np.arange(20) % 2


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: fid(broken(np.nan), B), "1 of 20 samples have features that are NaN or infinite"),
        (lambda: fid(A, broken(np.inf)), "1 of 20 samples"),
        (lambda: fid(A, B[:, :3]), r"widths \[3, 4\]"),
        (lambda: fid(A[:1], B), "1 samples are too few: this metric needs at least 2"),
        (lambda: fid(A[0], B), r"not of shape \(4,\)"),
        (lambda: gaussian([A[:1]]), "1 samples are too few: a covariance needs at least 2"),
        (lambda: gaussian([]), "0 samples are too few"),
        (lambda: gaussian([A, broken(np.nan)]), "1 of 20 samples"),
        (lambda: gaussian([A, B[:, :3]]), r"widths \[3, 4\]"),
        (lambda: distance(gaussian([A]), gaussian([B[:, :3]])), r"widths \[3, 4\]"),
        (lambda: intra_fid(A, LABELS, B[:3], LABELS[:3], 2), "class 1 has 10 and 1 samples"),
        (lambda: intra_fid(A, LABELS, B, LABELS, 3), "class 2 has 0 and 0 samples"),
        (lambda: intra_fid(A, LABELS[:19], B, LABELS, 2), "20 samples have 19 labels"),
        (lambda: fid_infinity(A, gaussian([B[:, :3]])), r"widths \[3, 4\]"),
        (lambda: fid_infinity(broken(np.nan), gaussian([B])), "1 of 20 samples"),
        (lambda: fid_infinity(A[:15], gaussian([B])), "15 samples are too few: this metric needs at least 16"),
        (lambda: fid_infinity(A, gaussian([B]), points=5, least=17), "at least 21"),
        (lambda: fid_infinity(A, gaussian([B]), points=1), "1 subsets of 2 samples and more give no line"),
        (lambda: fid_infinity(A, gaussian([B]), least=1), "15 subsets of 1 samples and more give no line"),
    ],
)
def test_what_cannot_be_measured_gets_one_line(call, line):
    with pytest.raises(UserError, match=line) as error:
        call()
    assert "\n" not in str(error.value)
