"""Sohn et al. 2020: alignment by hand, and every option traced; and the large networks in all methods of the family."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import batch_at, first_batch, tiny

from ssl_gen.augmentation import Augmentation
from ssl_gen.core.keys import INIT, stream
from ssl_gen.losses.thresholds import Marginals, distribution_alignment, update_marginals
from ssl_gen.methods import METHODS, family

RANDOM = np.random.default_rng(0)
Q = RANDOM.dirichlet(np.ones(4), 6)
LABELS = np.array([0, 3, 3, 1])
PHOTOGRAPHS = Augmentation(flip=True, crop=1)


def f32(array):
    return jnp.asarray(array, jnp.float32)


def test_alignment_weighs_each_class_by_the_ratio_of_its_means():
    labels, guesses = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.2, 0.3, 0.4])
    expected = [[p * y / g for p, y, g in zip(row, labels, guesses, strict=True)] for row in Q]
    expected = [np.array(row) / sum(row) for row in expected]
    found = np.exp(distribution_alignment(f32(np.log(Q)), Marginals(f32(labels), f32(guesses))))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_guesses_that_are_balanced_already_stay_as_they_are():
    means = f32([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(distribution_alignment(f32(np.log(Q)), Marginals(means, means)), np.log(Q), rtol=1e-5)


def test_a_class_that_is_never_guessed_stays_finite():
    marginals = Marginals(f32([0.5, 0.5, 0, 0]), f32([0, 0.5, 0.5, 0]))
    assert np.isfinite(distribution_alignment(f32(np.log(Q)), marginals)).all()


def test_running_means_keep_to_those_of_the_last_steps():
    marginals = Marginals(f32(np.full(4, 0.25)), f32(np.full(4, 0.25)))
    labels, guesses = np.full(4, 0.25), np.full(4, 0.25)
    for _ in range(3):
        marginals = update_marginals(marginals, jnp.asarray(LABELS), f32(np.log(Q)), 8)
        labels = 7 / 8 * labels + np.array([1, 1, 0, 2]) / 4 / 8
        guesses = 7 / 8 * guesses + Q.mean(0) / 8
    np.testing.assert_allclose(marginals.labels, labels, rtol=1e-5)
    np.testing.assert_allclose(marginals.guesses, guesses, rtol=1e-5)


def test_the_mean_of_labels_stays_in_a_step_that_has_none():
    before = Marginals(f32([0.4, 0.3, 0.2, 0.1]), f32(np.full(4, 0.25)))
    after = update_marginals(before, jnp.zeros(0, jnp.int32), f32(np.log(Q)), 8)
    np.testing.assert_allclose(after.labels, before.labels, rtol=1e-6)
    np.testing.assert_allclose(after.guesses, 7 / 8 / 4 + Q.mean(0) / 8, rtol=1e-5)


@functools.cache
def terms(name, **changes):
    """The metrics of a step of each phase of a method, nothing computed."""
    method = tiny(name, **changes).method
    batches = [jax.eval_shape(lambda i=i: batch_at(method, i)) for i in range(len(method.phases))]
    state = jax.eval_shape(method.init, stream(0, INIT), jax.eval_shape(first_batch))
    steps = zip(method.phases, batches, strict=True)
    return [jax.eval_shape(phase.step, state, stream(0, 0), jnp.int32(0), batch)[1].keys() for phase, batch in steps]


@pytest.mark.parametrize("changes", [{"optimizer": "sgd"}, {"teacher": "average", "alignment": False}], ids=str)
def test_options_change_the_way_and_not_the_terms(changes):
    assert terms("fixmatch", **changes) == terms("fixmatch")


FAMILY = ["supervised", *(name for name in METHODS if family(name) == "self_training")]
SETTINGS = dict.fromkeys(FAMILY, ("network", "augmentation")) | {
    "gan_self_training": ("classifier_network", "augmentation"),
    "noisy_student": ("network", "strong"),
}
# Other networks go through the same call; that of PHOTOGRAPHS is traced by test_conformance.py, at its whole size.
PAIRS = [(name, "airbench") for name in FAMILY] + [("fixmatch", "conv13"), ("mean_teacher", "wide_resnet")]


@pytest.mark.parametrize(("name", "network"), PAIRS)
def test_every_method_of_the_family_takes_the_networks_of_the_papers(name, network):
    assert terms(name, **dict(zip(SETTINGS[name], (network, PHOTOGRAPHS), strict=True))) == terms(name)


def test_guesses_of_the_ema_do_not_depend_on_running_statistics():
    """While the params move, running statistics of batch norm fit neither them nor their EMA."""
    method = tiny("fixmatch", teacher="average").method
    batch = batch_at(method)
    state = method.init(stream(0, INIT), batch)
    player = state.classifier
    assert jax.tree.leaves(player.ema.stats)
    stats, own = jax.tree.map(lambda leaf: leaf + 3, (player.stats, player.ema.stats))
    astray = state._replace(classifier=player._replace(stats=stats, ema=player.ema._replace(stats=own)))
    step = jax.jit(lambda state: method.phases[0].step(state, stream(0, 0), jnp.int32(0), batch)[1])
    found, expected = (step(each)["classifier/pseudo_label"] for each in (astray, state))
    assert float(expected) > 0 and float(found) == float(expected)
