"""Maaløe et al. 2016: the terms of SDGM and ADGM where all is linear and normal, in closed form."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp
from tiny import IMAGES, SPEC, tiny

from ssl_gen.augmentation import Augmentation
from ssl_gen.core.batching import interleave, separate
from ssl_gen.core.keys import INIT, stream
from ssl_gen.losses import auxiliary
from ssl_gen.types import Batch

SCALED = IMAGES.astype(np.float32) / 127.5 - 1
LABELS = np.array([0, 2, 1, 1])
BATCH = Batch(SCALED[:4], jnp.asarray(LABELS), SCALED[4:12])
A, Z, K = 2, 3, SPEC.classes
LINEAR = {"hidden": (), "auxiliary": A, "latent": Z, "binarise": False, "augmentation": Augmentation()}


def linear(name, **changes):
    """The method without hidden layers, and a state with weights that matter, by name in float64 too.

    q(z | a, x, y) and q(y | a, x) do not look at a, nor the variance of p(a | z, y) at z, nor p(x | a, z, y) at any.
    """
    method = tiny(name, **LINEAR | changes).method
    state = method.init(stream(0, INIT), BATCH)
    random = np.random.default_rng(0)

    def drawn(path, leaf):
        network, dense, kind = (part.key for part in path)
        values = 0.5 * random.normal(size=leaf.shape) / (np.sqrt(leaf.shape[0]) if kind == "kernel" else 1)
        ignores_a = (network, dense) in (("encoder", "Dense_1"), ("classifier", "Dense_1"))
        if kind == "kernel" and (ignores_a or network == "decoder"):
            values[:] = 0
        if network == "auxiliary_decoder" and dense == "Dense_0" and kind == "kernel":
            values[:, A:] = 0
        return jnp.asarray(values, jnp.float32)

    params = jax.tree.map_with_path(drawn, state.model.params)
    return method, state._replace(model=state.model._replace(params=params)), jax.tree.map(np.float64, params)


def pixels(images):
    return (np.float64(images).reshape(len(images), -1) + 1) / 2


def outputs(network, *inputs):
    """Of a network without hidden layers; None for an input that it does not look at."""
    given = [each @ network[f"Dense_{i}"]["kernel"] for i, each in enumerate(inputs) if each is not None]
    return sum(given) + network["Dense_0"]["bias"]


def expected_cost(name, params, images, labels):
    """E_q(a|x) L(x, y, a) of images (B, ...) with labels (B,) -> (B,) nats."""
    x, y = pixels(images), np.eye(K)[labels]
    a_mean, a_log_variance = np.split(outputs(params["auxiliary_encoder"], x), 2, -1)
    z_mean, z_log_variance = np.split(outputs(params["encoder"], x, None, y), 2, -1)
    seen = () if name == "sdgm" else (x,)
    mean, log_variance = np.split(outputs(params["auxiliary_decoder"], z_mean, y, *seen), 2, -1)
    slope = params["auxiliary_decoder"]["Dense_0"]["kernel"][:, :A]
    # of a - E p's mean: its own variance, that of z in the mean, and the square of their distance
    spread = np.exp(a_log_variance) + np.exp(z_log_variance) @ slope**2 + (a_mean - mean) ** 2
    log_q_a = -(np.log(2 * np.pi) + a_log_variance + 1).sum(-1) / 2
    log_p_a = -(np.log(2 * np.pi) + log_variance + spread * np.exp(-log_variance)).sum(-1) / 2
    divergence = (np.exp(z_log_variance) + z_mean**2 - 1 - z_log_variance).sum(-1) / 2
    logits = params["decoder"]["Dense_0"]["bias"]
    log_p_x = (x * logits - np.logaddexp(0, logits)).sum(-1)
    return log_q_a + np.log(K) + divergence - log_p_a - log_p_x


def test_each_image_stands_as_often_as_the_auxiliary_is_drawn_and_the_unlabelled_with_every_class():
    """Images are numbers: 0 and 1 are labelled."""
    shown = interleave(jnp.arange(2.0), jnp.arange(2.0, 6.0))[:, None, None, None]
    seen = auxiliary.repeated(shown, jnp.array([2, 0]), 3, K)
    found = collections.Counter(zip(seen.pairs.ravel().tolist(), seen.labels.tolist(), strict=True))
    assert found == {(0, 2): 3, (1, 0): 3} | {(image, label): 3 for image in range(2, 6) for label in range(K)}
    labelled, _ = separate(seen.images, seen.sizes)
    assert list(zip(labelled.ravel().tolist(), seen.given.tolist(), strict=True)) == [(0, 2)] * 3 + [(1, 0)] * 3
    np.testing.assert_array_equal(seen.paired(seen.images), seen.pairs)


@pytest.mark.parametrize("name", ["sdgm", "adgm"])
def test_the_terms_are_those_of_the_closed_form_where_all_is_linear_and_normal(name):
    method, state, params = linear(name, samples=4_000, beta=0.2)
    metrics = jax.jit(method.phases[0].step)(state, stream(0, 0), jnp.int32(0), BATCH)[1]
    log_q = log_softmax(outputs(params["classifier"], pixels(SCALED[:12])), -1)
    np.testing.assert_allclose(
        metrics["model/labelled"], expected_cost(name, params, SCALED[:4], LABELS).mean(), atol=0.1
    )
    every = [expected_cost(name, params, SCALED[4:12], np.full(8, y)) + log_q[4:, y] for y in range(K)]
    bound = sum(np.exp(log_q[4:, y]) * every[y] for y in range(K))
    np.testing.assert_allclose(metrics["model/unlabelled"], bound.mean(), atol=0.1)
    weight = 0.2 * 36 / 12  # beta N / N_l
    np.testing.assert_allclose(metrics["model/classification"], -weight * log_q[np.arange(4), LABELS].mean(), rtol=1e-4)


@pytest.mark.parametrize("name", ["sdgm", "adgm"])
def test_a_class_has_the_mean_probability_over_draws_of_the_auxiliary(name):
    method, state, params = linear(name, draws=5)
    kernel = np.random.default_rng(1).normal(size=(A, K))
    params["classifier"]["Dense_1"]["kernel"] = kernel
    state.model.params["classifier"]["Dense_1"]["kernel"] = jnp.asarray(kernel, jnp.float32)
    x = pixels(SCALED[:4])
    mean, log_variance = np.split(outputs(params["auxiliary_encoder"], x), 2, -1)
    noise = np.float64(jax.random.normal(jax.random.key(0), (5, A)))
    each = [log_softmax(outputs(params["classifier"], x, mean + np.exp(log_variance / 2) * draw), -1) for draw in noise]
    expected = logsumexp(each, 0) - np.log(5)
    np.testing.assert_allclose(method.classify(state, SCALED[:4]), expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(each, 0).max() > 0.1  # the draws matter
