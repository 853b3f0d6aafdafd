"""Noise of many batches: each batch and each draw of latents has its own key, and what is asked for is what comes."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen.evaluation import inference
from ssl_gen.evaluation.inference import BATCH, DRAWS, draw_samples

MORE = 2 * DRAWS + 3  # draws: two whole chunks and a part of one


def drawn(count, seed=0):
    """What a generator makes of `count` labels that gives its label, its setting and its noise."""

    def sample(state, key, labels, sampler):
        noise = jax.random.bits(key, (len(labels), 2))
        return jnp.column_stack([labels, jnp.full(len(labels), sampler), noise.astype(jnp.uint32)])

    compiled = types.SimpleNamespace(sample=sample, method=types.SimpleNamespace(sampler=7))
    return draw_samples(compiled, {}, np.arange(count) % 7, seed)


def test_every_image_of_many_batches_has_its_own_noise_and_its_own_label():
    found = drawn(2 * BATCH)
    assert len(np.unique(found[:, 2:], axis=0)) == len(found) == 2 * BATCH
    assert found[:, 0].tolist() == [k % 7 for k in range(2 * BATCH)] and set(found[:, 1]) == {7}


def test_the_first_images_are_the_same_however_many_follow_and_others_under_another_seed():
    np.testing.assert_array_equal(drawn(BATCH + 100)[:BATCH], drawn(BATCH))
    assert not np.isin(drawn(100, seed=1)[:, 2], drawn(100)[:, 2]).any()


@pytest.fixture
def weights(monkeypatch):
    """(samples, seed) -> chunks (s, 6, 5) of six images in two batches: of each weight its image and its two keys."""
    monkeypatch.setattr(inference, "BATCH", 4)

    def log_weights(state, observed, draws, images):
        bits = jax.vmap(jax.random.key_data)(draws)[:, None]
        shape = (len(draws), len(images))
        seen = jnp.broadcast_to(images[:, 0, 0, 0][None, :, None].astype(jnp.uint32), (*shape, 1))
        parts = [
            seen,
            jnp.broadcast_to(bits, (*shape, 2)),
            jnp.broadcast_to(jax.random.key_data(observed), (*shape, 2)),
        ]
        return jnp.concatenate(parts, -1)

    images = np.arange(6, dtype=np.uint8)[:, None, None, None]
    compiled = types.SimpleNamespace(log_weights=log_weights)
    return lambda samples, seed=0: list(inference.log_weights(compiled, {}, images, samples, seed))


def test_each_draw_of_latents_has_its_own_key_in_every_batch_beyond_the_first_chunk_too(weights):
    chunks = weights(MORE)
    assert [len(chunk) for chunk in chunks] == [DRAWS, DRAWS, 3]
    found = np.concatenate(chunks)
    assert found.shape == (MORE, 6, 5) and (found[..., 0] == np.arange(6)).all()
    keys = found[:, [0, 4], 1:3].reshape(-1, 2)  # an image of either batch
    assert len(np.unique(keys, axis=0)) == 2 * MORE


def test_more_draws_begin_with_those_of_few_and_another_seed_has_others(weights):
    (few,), many = weights(DRAWS), np.concatenate(weights(MORE))
    np.testing.assert_array_equal(many[:DRAWS], few)
    (other,) = weights(DRAWS, seed=1)
    assert not np.isin(other[..., 1:], few[..., 1:]).any()


def test_what_is_observed_of_an_image_has_one_key_for_all_draws_and_none_of_theirs(weights):
    found = np.concatenate(weights(MORE))
    assert len(np.unique(found[..., 3:].reshape(-1, 2), axis=0)) == 1
    assert not np.isin(found[0, 0, 3:], found[..., 1:3]).any()
