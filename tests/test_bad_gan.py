"""Dai et al. 2017: the pull-away term by hand, and what its two players lose in a step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import IMAGES, SPEC, batch_of, some_rows, tiny

from ssl_gen.core import gradient
from ssl_gen.datasets.batches import Rows
from ssl_gen.methods.adversarial.bad_gan import pull_away
from ssl_gen.types import Batch

FEATURES = np.random.default_rng(0).normal(size=(7, 4))
SCALED = jnp.asarray(IMAGES, jnp.float32) / 127.5 - 1


def f32(array):
    return jnp.asarray(array, jnp.float32)


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def test_the_pull_away_term_is_the_mean_squared_cosine_of_all_pairs():
    pairs = [cosine(a, b) ** 2 for i, a in enumerate(FEATURES) for j, b in enumerate(FEATURES) if i != j]
    assert len(pairs) == 7 * 6
    np.testing.assert_allclose(pull_away(f32(FEATURES)), np.mean(pairs), rtol=1e-4)


def test_it_is_1_where_all_images_look_alike_and_0_where_no_two_do():
    np.testing.assert_allclose(pull_away(f32(np.outer([1.0, 2.0, -3.0], FEATURES[0]))), 1, rtol=1e-5)
    np.testing.assert_allclose(pull_away(f32(3 * np.eye(4))), 0, atol=1e-6)


def test_an_image_without_features_has_a_finite_gradient():
    slope = jax.grad(pull_away)(f32([[0.0, 0.0], [1.0, 2.0], [2.0, 0.5]]))
    assert np.isfinite(slope).all() and np.abs(slope[1:]).max() > 0


def test_each_player_loses_what_the_paper_says(monkeypatch):
    """Without noise, of the first step, by the outputs of the networks alone."""
    method = tiny("bad_gan", discriminator_hidden=(4, 4), input_noise=0.0, noise=0.0, entropy=0.3, pull_away=0.5).method
    batch = batch_of(Rows(*(part[0, 0] for part in some_rows(method, 0, 0, 1))))
    state = method.init(jax.random.key(0), Batch(SCALED[:12], jnp.arange(12) % 3, SCALED[12:]))
    seen = {}

    def watch(name, player, optimizer, loss, forward=None):
        """`descend` that keeps what a player is shown and moves nothing."""
        outputs = forward.outputs if forward else player.params
        seen[name] = loss(outputs) if forward else loss(outputs)[0]
        seen["images"] = forward.outputs if forward else None
        return player, {}

    monkeypatch.setattr(gradient, "descend", watch)
    method.phases[0].step(state, jax.random.key(1), jnp.int32(0), batch)
    everything = jnp.concatenate([batch.labelled, batch.unlabelled, seen["images"]])
    logits, features = outputs_of(state, everything)
    (labelled, real, fake), f = np.split(logits, [4, 12]), np.split(features, [4, 12])
    log_p = labelled - np.log(np.exp(labelled).sum(-1, keepdims=True))
    z_real, z_fake = np.exp(real).sum(-1), np.exp(fake).sum(-1)
    p = np.exp(real) / z_real[:, None]
    found = seen["discriminator"]
    np.testing.assert_allclose(found["supervised"], -log_p[np.arange(4), batch.labels].mean(), rtol=1e-4)
    np.testing.assert_allclose(found["real"], -np.log(z_real / (z_real + 1)).mean() / 2, rtol=1e-4)
    np.testing.assert_allclose(found["fake"], -np.log(1 / (z_fake + 1)).mean() / 2, rtol=1e-4)
    np.testing.assert_allclose(found["entropy"], 0.3 * -(p * np.log(p)).sum(-1).mean(), rtol=1e-4)
    found = seen["generator"]
    np.testing.assert_allclose(found["matching"], np.abs(f[1].mean(0) - f[2].mean(0)).mean(), rtol=1e-4, atol=1e-6)
    pairs = [cosine(a, b) ** 2 for i, a in enumerate(f[2]) for j, b in enumerate(f[2]) if i != j]
    assert found["pull_away"] == pytest.approx(0.5 * np.mean(pairs), rel=1e-3)


def outputs_of(state, images):
    """Logits and features in float64 of the tiny discriminator: two layers of weight norm, rectified, and the last."""
    params, scales = state.discriminator.params, state.discriminator.stats["constants"]
    x = (np.float64(images).reshape(len(images), -1) + 1) / 2

    def layer(x, name):
        weights = params[name]
        direction = np.float64(weights["direction"])
        scale = weights["scale"] if "scale" in weights else scales[name]["scale"]
        return x @ (direction / np.linalg.norm(direction, axis=0)) * np.float64(scale) + np.float64(weights["bias"])

    for name in ("WeightNormDense_0", "WeightNormDense_1"):
        x = np.maximum(layer(x, name), 0)
    assert SPEC.classes == 3
    return layer(x, "WeightNormDense_2"), x
