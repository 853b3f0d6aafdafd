"""Graphs and what travels along them, against dense algebra and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from sklearn.semi_supervised import LabelPropagation, LabelSpreading

from experiments import digits_regression
from ssl_gen.graphs import build, induce, solve
from ssl_gen.types import UserError

RANDOM = np.random.default_rng(0)
CLUSTERS = np.repeat([[0.0, 0, 0], [2.0, 0, 0], [0, 2.0, 0]], 20, 0)
POINTS = (CLUSTERS + RANDOM.normal(0, 0.8, CLUSTERS.shape)).astype(np.float32)
CLASSES = np.repeat(np.arange(3), 20)
WHERE = np.isin(np.arange(60), [0, 1, 20, 40, 41, 42])
ONE_HOT = np.eye(3, dtype=np.float32)[CLASSES] * WHERE[:, None]
GRAPH = build.build(*build.neighbours(POINTS, 8), "gaussian")


def dense(graph):
    """Its weight matrix in float64."""
    matrix = np.zeros((len(graph.degrees),) * 2)
    matrix[np.asarray(graph.rows), np.asarray(graph.columns)] = np.asarray(graph.weights)
    return matrix


W = dense(GRAPH)
D = W.sum(1)
LAPLACIAN = np.diag(D) - W


def two_parts():
    """Two rings of 5 and 7 nodes that nothing joins."""
    rings = [scipy.sparse.csr_matrix(np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0)) for n in (5, 7)]
    return build.from_matrix(scipy.sparse.block_diag(rings))


def test_the_graph_of_these_tests_is_connected():
    assert set(np.asarray(GRAPH.parts).tolist()) == {0}


def test_neighbours_are_those_of_all_pairs_without_the_point_itself():
    indices, distances = build.neighbours(POINTS, 4)
    pairs = np.linalg.norm(POINTS[:, None].astype(float) - POINTS, axis=-1)
    np.fill_diagonal(pairs, np.inf)
    np.testing.assert_array_equal(indices, pairs.argsort(1)[:, :4])
    np.testing.assert_allclose(distances, np.sort(pairs, 1)[:, :4], rtol=1e-5)


def test_equal_points_are_each_others_neighbours_at_distance_0():
    indices, distances = build.neighbours(np.repeat(POINTS[:5], 2, 0), 1)
    np.testing.assert_array_equal(indices[:, 0], np.arange(10) ^ 1)
    np.testing.assert_array_equal(distances, 0)


@pytest.mark.parametrize("k", [0, 5, 6])
def test_there_are_fewer_neighbours_than_points(k):
    with pytest.raises(UserError, match="among 5 images: choose 1 to 4"):
        build.neighbours(POINTS[:5], k)


def test_weights_fall_with_the_square_of_distance_scaled_by_the_kth_neighbour():
    distances = jnp.array([[1.0, 2.0, 4.0]])
    expected = [[np.exp(-4 / 16), np.exp(-1), np.exp(-4)]]
    np.testing.assert_allclose(build.similarities(distances, "gaussian"), expected, rtol=1e-6)
    np.testing.assert_array_equal(build.similarities(distances, "connectivity"), 1)
    np.testing.assert_array_equal(build.similarities(jnp.zeros((1, 3)), "gaussian"), 1)


def test_gaussian_weights_are_the_mean_of_both_sides():
    indices, distances = build.neighbours(POINTS, 8)
    one_sided = np.zeros((60, 60))
    for row in range(60):
        for column, distance in zip(indices[row], distances[row], strict=True):
            one_sided[row, column] = np.exp(-4 * distance**2 / distances[row, -1] ** 2)
    graph = build.build(indices, distances, "gaussian")
    np.testing.assert_allclose(dense(graph), (one_sided + one_sided.T) / 2, rtol=1e-5)
    np.testing.assert_allclose(graph.degrees, dense(graph).sum(1), rtol=1e-5)
    assert (np.diff(graph.rows) >= 0).all()


def test_connectivity_is_1_where_either_side_is_a_neighbour():
    """On a line 0, 1, 3 each point has one neighbour: 0 and 1 each other, 3 has 1, which has not 3."""
    graph = build.build(*build.neighbours(np.array([[0.0], [1.0], [3.0]]), 1), "connectivity")
    np.testing.assert_array_equal(dense(graph), [[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(graph.degrees, [1, 2, 1])


def test_a_graph_with_a_lonely_node_is_refused():
    with pytest.raises(ValueError, match="1 nodes have no neighbour"):
        build.from_matrix(scipy.sparse.csr_matrix(np.array([[1.0, 0.0], [0.0, 0.0]])))


def test_parts_of_a_graph_are_numbered():
    parts = np.asarray(two_parts().parts)
    assert len(set(parts[:5])) == len(set(parts[5:])) == 1 and parts[0] != parts[5]


def test_a_product_is_that_of_the_dense_matrix():
    values = RANDOM.normal(size=(60, 2)).astype(np.float32)
    np.testing.assert_allclose(solve.product(GRAPH, jnp.asarray(values)), W @ values, atol=1e-5)


def test_conjugate_gradients_solve_the_system_column_by_column():
    scale = np.array([1.0, 1e3])
    right = RANDOM.normal(size=(60, 2)) * scale
    free = (RANDOM.random(60) < 0.7).astype(float)
    matrix = np.diag(D) - 0.9 * free[:, None] * W * free
    found = solve.solve(GRAPH, GRAPH.degrees, 0.9, jnp.asarray(free, jnp.float32), jnp.asarray(right, jnp.float32))
    np.testing.assert_allclose(found / scale, np.linalg.solve(matrix, right) / scale, atol=1e-5)


def test_clouds_that_hardly_touch_are_solved_too():
    """The second eigenvalue of D^-1 L is 1e-4; columns of the right side take more and fewer steps."""
    far = np.concatenate([POINTS[:20], POINTS[20:] + 1e3])
    weights = np.exp(-np.square(far[:, None] - far).sum(-1) / 2) + 1e-5
    np.fill_diagonal(weights, 0)
    graph = build.from_matrix(scipy.sparse.csr_matrix(weights))
    where, targets = np.isin(np.arange(60), [0, 1, 20, 21]), np.zeros((60, 3))
    targets[[0, 1, 20, 21], [0, 1, 0, 2]] = 1
    exact = dense(graph)
    degrees = exact.sum(1)
    u = np.linalg.pinv(np.diag(degrees) - exact) @ sources(graph, targets, where)
    expected = u - degrees @ u / degrees.sum()
    found = solve.poisson(graph, jnp.asarray(targets, jnp.float32), where)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_a_right_side_of_0_is_solved_by_0():
    found = solve.solve(GRAPH, GRAPH.degrees, 1.0, jnp.ones(60), jnp.zeros((60, 1)))
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("alpha", [0.2, 0.99])
def test_label_spreading_is_its_closed_form(alpha):
    s = W / np.sqrt(np.outer(D, D))
    expected = (1 - alpha) * np.linalg.solve(np.eye(60) - alpha * s, ONE_HOT)
    np.testing.assert_allclose(solve.spread_labels(GRAPH, ONE_HOT, alpha, 0.0), expected, rtol=1e-3)


def scikit(method, **options):
    """The label distributions, before rows are divided by their sum, of scikit-learn's method."""
    labels = np.where(WHERE, CLASSES, -1)
    fitted = method(max_iter=100_000, tol=1e-12, **options).fit(POINTS, labels)
    return fitted.label_distributions_


def rows_sum_to_1(values):
    values = np.asarray(values, float)
    return values / values.sum(1, keepdims=True)


@pytest.mark.parametrize("alpha", [0.2, 0.9])
def test_label_spreading_is_that_of_scikit_learn_on_the_same_weights(alpha):
    theirs = scikit(LabelSpreading, kernel=lambda x, y: W.copy(), alpha=alpha)
    ours = solve.spread_labels(GRAPH, ONE_HOT, alpha, 3e-6)
    np.testing.assert_allclose(rows_sum_to_1(ours), theirs, atol=1e-5)


def test_label_spreading_is_that_of_scikit_learn_on_its_own_one_sided_graph():
    """scikit-learn counts a point among its own neighbours, drops that, and divides by the sums of columns."""
    theirs = scikit(LabelSpreading, kernel="knn", n_neighbors=16, alpha=0.8)
    indices, _ = build.neighbours(POINTS, 15)
    one_sided = np.zeros((60, 60))
    np.put_along_axis(one_sided, indices, 1.0, 1)
    assert not np.array_equal(one_sided, one_sided.T)
    graph = build.from_matrix(scipy.sparse.csr_matrix(one_sided))
    np.testing.assert_allclose(rows_sum_to_1(solve.spread_labels(graph, ONE_HOT, 0.8, 3e-6)), theirs, atol=1e-5)


def test_spreading_keeps_the_digits_of_nodes_far_from_all_labels():
    """On a path of 12 nodes with a label at one end, F falls by orders of magnitude."""
    path = np.diag(np.ones(11), 1) + np.diag(np.ones(11), -1)
    degrees = path.sum(0)
    targets = np.zeros((12, 1), np.float32)
    targets[0] = 1
    expected = 0.9 * np.linalg.solve(np.eye(12) - 0.1 * path / np.sqrt(np.outer(degrees, degrees)), targets)
    assert expected.min() < 1e-12
    found = solve.spread_labels(build.from_matrix(scipy.sparse.csr_matrix(path)), targets, 0.1, 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def harmonic(values):
    """values (N, C) on labelled nodes -> on all, by a dense solve."""
    free = ~WHERE
    result = values.astype(float).copy()
    result[free] = np.linalg.solve(LAPLACIAN[np.ix_(free, free)], W[np.ix_(free, WHERE)] @ values[WHERE])
    return result


def test_label_propagation_is_harmonic():
    found = solve.propagate_labels(GRAPH, jnp.asarray(ONE_HOT), WHERE)
    np.testing.assert_allclose(found, harmonic(ONE_HOT), atol=1e-5)


def test_label_propagation_is_that_of_scikit_learn_on_the_same_weights():
    theirs = scikit(LabelPropagation, kernel=lambda x, y: W.copy())
    np.testing.assert_allclose(solve.propagate_labels(GRAPH, jnp.asarray(ONE_HOT), WHERE), theirs, atol=1e-5)


def test_label_propagation_is_the_limit_of_its_iteration():
    values = ONE_HOT.astype(float)
    for _ in range(3000):
        values = np.where(WHERE[:, None], ONE_HOT, W @ values / D[:, None])
    np.testing.assert_allclose(solve.propagate_labels(GRAPH, jnp.asarray(ONE_HOT), WHERE), values, atol=1e-5)


def test_a_part_without_labels_gets_the_mean_label():
    where = np.arange(12) < 3
    targets = jnp.asarray(np.eye(2)[[0, 0, 1] + [0] * 9] * where[:, None], jnp.float32)
    np.testing.assert_allclose(solve.propagate_labels(two_parts(), targets, where)[5:], [[2 / 3, 1 / 3]] * 7, rtol=1e-6)


def test_real_values_spread_harmonically():
    values = RANDOM.normal(100, 10, (60, 2))
    found = solve.regress(GRAPH, jnp.asarray(values, jnp.float32), WHERE)
    np.testing.assert_allclose(found, harmonic(values), rtol=1e-5)


def test_regression_with_a_strength_is_a_penalised_least_squares_fit():
    values, strength = RANDOM.normal(5, 1, (60, 2)), 0.3
    mean = values[WHERE].mean(0)
    matrix = np.diag(WHERE.astype(float)) + strength * LAPLACIAN
    expected = mean + np.linalg.solve(matrix, WHERE[:, None] * (values - mean))
    found = solve.regress(GRAPH, jnp.asarray(values, jnp.float32), WHERE, strength)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_hidden_targets_are_not_looked_at():
    values = RANDOM.normal(5, 1, (60, 1)).astype(np.float32)
    other = np.where(WHERE[:, None], values, 1e6)
    found, again = (solve.regress(GRAPH, jnp.asarray(each), WHERE) for each in (values, other))
    np.testing.assert_array_equal(found, again)


def test_regression_without_a_target_is_refused():
    with pytest.raises(ValueError, match="no node has a target"):
        solve.regress(GRAPH, jnp.zeros((60, 1)), np.zeros(60, bool))


def sources(graph, targets, where):
    return where[:, None] * (targets - targets[where].mean(0))


def test_poisson_learning_is_the_solution_by_the_pseudoinverse():
    u = np.linalg.pinv(LAPLACIAN) @ sources(GRAPH, ONE_HOT, WHERE)
    expected = u - D @ u / D.sum()
    found = solve.poisson(GRAPH, jnp.asarray(ONE_HOT), WHERE)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(D @ np.asarray(found) / D.sum(), 0, atol=1e-5)


def test_poisson_learning_is_the_limit_of_the_papers_iteration():
    u, right = np.zeros((60, 3)), sources(GRAPH, ONE_HOT, WHERE)
    for _ in range(5000):
        u = u + (right - LAPLACIAN @ u) / D[:, None]
    found = solve.poisson(GRAPH, jnp.asarray(ONE_HOT), WHERE)
    np.testing.assert_allclose(found, u, atol=1e-5 * np.abs(u).max())


def test_a_part_whose_sources_do_not_sum_to_0_rises_as_in_the_papers_iteration():
    graph, where = two_parts(), np.isin(np.arange(12), [0, 1, 5, 8, 9])
    targets = np.eye(2)[[0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0]] * where[:, None]
    laplacian, degrees = 2 * np.eye(12) - dense(graph), 2.0
    u, right = np.zeros((12, 2)), sources(graph, targets, where)
    for _ in range(int(solve.REACH)):
        u = u + (right - laplacian @ u) / degrees
    assert np.abs(right[:5].sum(0)).min() > 0.5
    found = solve.poisson(graph, jnp.asarray(targets, jnp.float32), where)
    np.testing.assert_allclose(found, u, rtol=1e-4)


def test_class_priors_correct_the_potential():
    potential = jnp.array([[2.0, 3.0, 0.0]])
    found = solve.correct(potential, jnp.array([0.25, 0.75, 0.0]), jnp.array([0.5, 0.3, 0.2]))
    np.testing.assert_allclose(found, [[4.0, 1.2, 0.0]], rtol=1e-6)


def weighted(values, sizes):
    """Values (N, K) times the weights of a loop of falling steps that come nearest to the sizes, in numpy."""
    weights, tried = np.ones(values.shape[1]), []
    for step in range(1, 101):
        found = np.bincount((values * weights).argmax(1), minlength=values.shape[1]) / len(values)
        tried.append((np.abs(sizes - found).max(), weights))
        weights = np.clip(weights + 10 / step * (sizes - found), 0.5, 2)
    return values * min(tried, key=lambda each: each[0])[1]


def algorithm_2(graph, targets, where, sizes, inner, outer):
    """Poisson MBO by dense matrices, line by line; every node of `graph` is in its one part."""
    w = dense(graph)
    laplacian, step = np.diag(w.sum(1)) - w, 1 / w.sum(1).max()
    u = np.linalg.pinv(laplacian) @ sources(graph, targets, where)
    u = (u - w.sum(1) @ u / w.sum()) * sizes / targets[where].mean(0)
    for _ in range(outer):
        for _ in range(inner):
            u = u - step * (laplacian @ u - sources(graph, targets, where))
        scores = weighted(u, sizes)
        u = np.eye(targets.shape[1])[scores.argmax(1)]
    return scores


@pytest.mark.parametrize(("sizes", "outer"), [((0.25, 0.5, 0.25), 1), ((0.5, 0.25, 0.25), 6)])
def test_poisson_mbo_is_the_papers_algorithm_2(sizes, outer):
    sizes = np.array(sizes)
    expected = algorithm_2(GRAPH, ONE_HOT.astype(float), WHERE, sizes, 7, outer)
    frequencies = jnp.asarray(ONE_HOT[WHERE].mean(0))
    begun = solve.correct(solve.poisson(GRAPH, jnp.asarray(ONE_HOT), WHERE), frequencies, jnp.asarray(sizes))
    found = solve.poisson_mbo(GRAPH, begun, jnp.asarray(ONE_HOT), WHERE, jnp.asarray(sizes), 1.0, 7, outer)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_classes_come_to_their_sizes():
    values = np.random.default_rng(3).random((10_000, 2))
    values[:, 1] *= 0.1 + 0.1 * (np.arange(10_000) % 2)  # class 1 wins one in twenty and one in ten times
    sizes = jnp.array([0.9, 0.1])
    winners = np.asarray(solve.of_sizes(jnp.asarray(values), sizes, jnp.ones(10_000))).argmax(1)
    assert abs((winners == 0).mean() - 0.9) < 0.01 < abs((values.argmax(1) == 0).mean() - 0.9)


def test_a_part_without_labels_is_not_counted_among_the_classes():
    where = np.isin(np.arange(12), [0, 2])
    targets = jnp.asarray(np.eye(2)[[0, 0, 1] + [0] * 9] * where[:, None], jnp.float32)
    found = solve.poisson_mbo(two_parts(), solve.poisson(two_parts(), targets, where), targets, where, jnp.ones(2) / 2)
    np.testing.assert_array_equal(found[5:], 0)
    assert (np.abs(found[:5]).max(1) > 0.1).all()


def test_a_shift_leaves_no_mean_and_the_differences():
    values = jnp.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    np.testing.assert_allclose(solve.shifted(values), [[0.1, -0.1], [0, 0], [-0.1, 0.1]], atol=1e-6)


def test_classes_have_their_mass_among_the_unlabelled():
    """Masses of the last two nodes are 1.6 and 0.4; priors of 1/2 scale by 1/3.2 and 1/0.8."""
    values = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.7, 0.3]])
    found = solve.normalized_mass(values, np.array([True, False, False]), jnp.array([0.5, 0.5]))
    np.testing.assert_allclose(found, [[1 / 3.2, 0], [0.9 / 3.2, 0.1 / 0.8], [0.7 / 3.2, 0.3 / 0.8]], rtol=1e-6)
    np.testing.assert_allclose(found[1:].sum(0), [0.5, 0.5], rtol=1e-6)


def test_shares_are_positive_parts_over_their_sum():
    found = solve.shares(jnp.array([[1.0, -1.0, 3.0], [-1.0, 0.0, -2.0]]), jnp.array([0.5, 0.25, 0.25]))
    np.testing.assert_allclose(found, [[0.25, 0, 0.75], [0.5, 0.25, 0.25]])


def test_a_problem_puts_the_labelled_images_first():
    images = POINTS.reshape(60, 3, 1, 1)
    posed = build.pose(images[:4], np.array([2, 0, 0, 1]), images[4:], 3, 5, "gaussian")
    np.testing.assert_array_equal(posed.features, POINTS)
    np.testing.assert_array_equal(posed.where, np.arange(60) < 4)
    np.testing.assert_array_equal(posed.targets[:5], np.array([[0, 0, 1], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]]))
    np.testing.assert_allclose(posed.frequencies, [0.5, 0.25, 0.25])


def test_pixels_are_remembered_in_8_bits_and_others_as_they_are():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    nodes = induce.remember(pixels.astype(np.float32) / 127.5 - 1, jnp.zeros((16, 2)))
    assert nodes.features.dtype == np.uint8
    np.testing.assert_array_equal(nodes.features, pixels)
    kept = induce.remember(POINTS, jnp.zeros((60, 2)))
    assert kept.features.dtype == np.float32
    np.testing.assert_array_equal(kept.features, POINTS)


@pytest.mark.parametrize("block", [7, 60, 64])
def test_nearest_nodes_are_those_of_all_pairs_whatever_the_block(block, monkeypatch):
    monkeypatch.setattr(induce, "BLOCK", block)
    queries = RANDOM.normal(0, 1, (9, 3)).astype(np.float32)
    pairs = np.linalg.norm(queries[:, None].astype(float) - POINTS, axis=-1)
    nodes = induce.remember(POINTS, jnp.zeros((60, 3)))
    search = jax.jit(lambda nodes, queries: induce.nearest_nodes(nodes, queries, 5))  # compiled anew for each block
    indices, distances = search(nodes, jnp.asarray(queries))
    np.testing.assert_array_equal(indices, pairs.argsort(1)[:, :5])
    np.testing.assert_allclose(distances, np.sort(pairs, 1)[:, :5], rtol=1e-5)


def test_an_image_that_is_a_node_is_0_from_it():
    nodes = induce.remember(POINTS + 100, jnp.zeros((60, 3)))
    indices, distances = induce.nearest_nodes(nodes, jnp.asarray(POINTS + 100), 1)
    np.testing.assert_array_equal(indices[:, 0], np.arange(60))
    np.testing.assert_array_equal(distances, 0)


def test_induction_is_the_weighted_mean_of_the_nearest_nodes():
    shares = RANDOM.dirichlet(np.ones(3), 60).astype(np.float32)
    query = np.array([[0.3, 0.4, -0.2]], np.float32)
    distances = np.linalg.norm(POINTS - query, axis=1)
    near = distances.argsort()[:6]
    weights = np.exp(-4 * (distances[near] / distances[near].max()) ** 2)
    found = np.exp(induce.induce(induce.remember(POINTS, jnp.asarray(shares)), jnp.asarray(query), 6, "gaussian"))
    np.testing.assert_allclose(found[0], weights @ shares[near] / weights.sum(), atol=3e-4)  # of the floor, 3 x 1e-4


def test_a_line_that_leans_to_the_right_has_its_angle_as_slant():
    """Four pixels up and 0, 1, 2 or -1 to the right each step: the angle from the vertical."""
    steps = (0, 1, 2, -1)
    images = np.zeros((4, 9, 9, 1), np.uint8)
    for image, step in zip(images, steps, strict=True):
        for height in range(4):
            image[8 - height, 4 + step * height - 3 * (step == 2), 0] = 200
    np.testing.assert_allclose(digits_regression.slants(images), np.degrees(np.arctan(steps)), atol=1e-9)


def test_images_turned_by_nothing_are_their_pixels():
    images = RANDOM.integers(0, 256, (2, 8, 8, 1), np.uint8)
    expected = images.reshape(2, 64) / 127.5 - 1
    np.testing.assert_allclose(digits_regression.turned(images, np.zeros(2)), expected, atol=1e-6)


def test_predictions_look_at_no_hidden_number():
    features, numbers = RANDOM.normal(size=(150, 4)).astype(np.float32), RANDOM.normal(size=150)
    where = np.arange(150) < 100
    found = digits_regression.predictions(features, numbers, where)
    again = digits_regression.predictions(features, np.where(where, numbers, 1e6), where)
    for what, values in found.items():
        np.testing.assert_array_equal(values, again[what])
