"""Laine and Aila 2017: the memory of predictions, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SPEC, batch_of, some_rows, tiny

from ssl_gen.core.keys import INIT, stream
from ssl_gen.datasets.batches import Rows
from ssl_gen.losses.ensembling import empty_memory, recall, remember, remembered_mse
from ssl_gen.methods.self_training import temporal_ensembling
from ssl_gen.types import ImageSpec, UserError

RANDOM = np.random.default_rng(0)
PREDICTIONS = RANDOM.dirichlet(np.ones(3), (4, 5))  # of four epochs, five images


def f32(array):
    return jnp.asarray(array, jnp.float32)


def test_targets_are_corrected_for_the_start_as_in_algorithm_2():
    """Z <- a Z + (1 - a) z, targets Z / (1 - a^epochs): after the first epoch, its predictions."""
    memory, z = empty_memory(5, 3), np.zeros((5, 3))
    for epoch, predictions in enumerate(PREDICTIONS, 1):
        for rows in ([0, 3], [4, 1, 2]):
            memory = remember(memory, jnp.array(rows), f32(predictions[rows]), 0.6)
        z = 0.6 * z + 0.4 * predictions
        targets, seen = recall(memory, jnp.arange(5))
        np.testing.assert_allclose(targets, z / (1 - 0.6**epoch), rtol=1e-5)
        assert seen.all()


def test_an_image_that_was_not_seen_has_no_target_and_costs_nothing():
    memory = remember(empty_memory(5, 3), jnp.array([3]), f32(PREDICTIONS[0, :1]), 0.6)
    targets, seen = recall(memory, jnp.array([3, 1]))
    assert seen.tolist() == [True, False]
    p = np.exp([1.0, 2.0, 0.0]) / np.exp([1.0, 2.0, 0.0]).sum()
    expected = ((p - PREDICTIONS[0, 0]) ** 2).sum() / 3 / 2  # K = 3, the mean of two images
    found = remembered_mse(f32([[1, 2, 0], [5, 0, 0]]), targets, seen)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_image_that_comes_twice_in_a_batch_is_remembered_as_the_mean():
    memory = remember(empty_memory(5, 3), jnp.array([2, 2]), f32(PREDICTIONS[0, :2]), 0.6)
    np.testing.assert_allclose(recall(memory, jnp.array([2]))[0][0], PREDICTIONS[0, :2].mean(0), rtol=1e-5)


def test_a_step_remembers_the_images_of_its_batch_and_no_others():
    method = tiny("temporal_ensembling").method
    rows = Rows(*(part[0, 0] for part in some_rows(method, 0, 0, 1)))
    batch = batch_of(rows)
    state = jax.jit(method.init)(stream(0, INIT), batch)
    after, metrics = jax.jit(method.phases[0].step)(state, stream(0, 0), jnp.int32(0), batch)
    seen = np.flatnonzero(np.asarray(after.memory.weights))
    assert seen.tolist() == sorted(rows.unlabelled.tolist())
    np.testing.assert_allclose(after.memory.sums[seen].sum(-1), 0.4, rtol=1e-5)
    assert float(metrics["classifier/consistency"]) == 0  # the first epoch has no targets


def test_it_must_know_how_many_images_there_are():
    with pytest.raises(UserError, match="images"):
        temporal_ensembling.make(temporal_ensembling.Config(), ImageSpec(*SPEC[:4]))
