"""Graphs beside graphlearning, the code of Calder et al. 2020, which the extra `bench` installs."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from test_graphs import CLASSES, GRAPH, ONE_HOT, POINTS, WHERE, dense

from ssl_gen.graphs import build, solve

graphlearning = pytest.importorskip("graphlearning", reason="no graphlearning: the extra bench installs it")
WEIGHTS = scipy.sparse.csr_matrix(dense(GRAPH))
GIVEN = np.flatnonzero(WHERE), CLASSES[WHERE]


@pytest.mark.parametrize(("kernel", "theirs"), [("gaussian", "gaussian"), ("connectivity", "uniform")])
def test_weights_are_those_of_graphlearning(kernel, theirs):
    """There a point is the first of its own neighbours."""
    indices, distances = build.neighbours(POINTS, 8)
    found = np.column_stack([np.arange(60), indices]), np.column_stack([np.zeros(60), distances])
    expected = graphlearning.weightmatrix.knn(POINTS, 8, kernel=theirs, knn_data=found).toarray()
    np.testing.assert_allclose(dense(build.build(indices, distances, kernel)), expected, rtol=1e-5)


@pytest.mark.parametrize("shift", [False, True])
def test_propagation_and_its_shift_are_those_of_graphlearning(shift):
    values = solve.propagate_labels(GRAPH, jnp.asarray(ONE_HOT), WHERE)
    expected = graphlearning.ssl.laplace(WEIGHTS, mean_shift=shift, tol=1e-10).fit(*GIVEN)
    np.testing.assert_allclose(solve.shifted(values) if shift else values, expected, atol=1e-5)


def test_poisson_learning_is_that_of_graphlearning():
    """But for a constant a class, which its conjugate gradients leave as it falls."""
    found = np.asarray(solve.poisson(GRAPH, jnp.asarray(ONE_HOT), WHERE), float)
    expected = graphlearning.ssl.poisson(WEIGHTS, tol=1e-10).fit(*GIVEN)
    np.testing.assert_allclose(found - found.mean(0), expected - expected.mean(0), atol=1e-4)


def test_poisson_mbo_names_nodes_as_graphlearning_does():
    """Its way to the sizes is another one, so that nodes between two classes may differ."""
    sizes, targets = jnp.full(3, 1 / 3), jnp.asarray(ONE_HOT)
    begun = solve.correct(solve.poisson(GRAPH, targets, WHERE), jnp.asarray(ONE_HOT[WHERE].mean(0)), sizes)
    ours = np.asarray(solve.poisson_mbo(GRAPH, begun, targets, WHERE, sizes)).argmax(1)
    theirs = graphlearning.ssl.poisson_mbo(WEIGHTS, np.full(3, 1 / 3)).fit_predict(*GIVEN)
    assert (ours == theirs).mean() > 0.9
    np.testing.assert_array_equal(np.bincount(ours), 20)
