"""The gradient step that every method shares, and what goes with it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from ssl_gen.types import TrainState
from ssl_gen.update import (
    annealed,
    average,
    create,
    descend,
    forward,
    interleave,
    kernels,
    partly_cosine,
    separate,
    spread,
)

PARAMS = {"weight": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.1, -0.4])}
INPUTS = jnp.array([[1.0, 2.0], [-1.0, 0.5], [0.3, 0.7]])
ADAM = optax.adam(0.1, b1=0.5)


def loss(params):
    """Two terms and the collections after the forward pass."""
    outputs = INPUTS @ params["weight"] + params["bias"]
    return {"square": jnp.square(outputs).mean(), "sine": 0.3 * jnp.sin(outputs).sum()}, {"seen": outputs.mean(0)}


def total(params):
    return loss(params)[0]["square"] + loss(params)[0]["sine"]


def assert_close(a, b, rtol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7), a, b)


def test_a_step_is_the_one_written_out_with_optax():
    player = create(PARAMS, {"seen": jnp.zeros(2)}, ADAM)
    params, opt = PARAMS, ADAM.init(PARAMS)
    for _ in range(3):
        player, _ = descend("player", player, ADAM, loss)
        updates, opt = ADAM.update(jax.grad(total)(params), opt, params)
        params = optax.apply_updates(params, updates)
    assert_close((player.params, player.opt), (params, opt))


def test_a_pass_made_before_gives_the_step_that_one_made_anew_gives():
    def outputs(params):
        values = INPUTS @ params["weight"] + params["bias"]
        return values, {"seen": values.mean(0)}

    def of_outputs(values):
        return {"square": jnp.square(values).mean(), "sine": 0.3 * jnp.sin(values).sum()}, shared.stats

    player = create(PARAMS, {"seen": jnp.zeros(2)}, ADAM)
    shared = forward(outputs, player.params)
    assert_close(descend("player", player, ADAM, of_outputs, shared), descend("player", player, ADAM, loss))


def test_the_optimizer_sees_the_params():
    decay = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1))
    player, _ = descend("player", create(PARAMS, {}, decay), decay, loss)
    expected = jax.tree.map(lambda p, g: p - 0.1 * (g + 0.5 * p), PARAMS, jax.grad(total)(PARAMS))
    assert_close(player.params, expected)


def test_the_terms_are_reported_and_their_sum_is_what_falls():
    slow = optax.sgd(1e-3)
    player, metrics = descend("player", create(PARAMS, {}, slow), slow, loss)
    assert set(metrics) == {"player/square", "player/sine", "player/gradient_norm"}
    np.testing.assert_allclose(metrics["player/square"] + metrics["player/sine"], total(PARAMS), rtol=1e-6)
    assert total(player.params) < total(PARAMS)


def test_the_gradient_norm_is_that_of_the_sum_over_all_params():
    _, metrics = descend("player", create(PARAMS, {}, ADAM), ADAM, loss)
    leaves = [np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(jax.grad(total)(PARAMS))]
    np.testing.assert_allclose(metrics["player/gradient_norm"], np.sqrt((np.concatenate(leaves) ** 2).sum()), rtol=1e-6)


def test_a_gradient_that_is_not_a_number_is_seen_in_the_metrics():
    def broken(params):
        return {"root": jnp.sqrt(params["bias"]).sum()}, {}  # of a negative number

    _, metrics = descend("player", create(PARAMS, {}, ADAM), ADAM, broken)
    assert np.isnan(metrics["player/root"]) and np.isnan(metrics["player/gradient_norm"])


def test_a_step_keeps_the_collections_of_its_forward_pass_and_leaves_the_mean():
    before = create(PARAMS, {"seen": jnp.zeros(2)}, ADAM, average=True)
    after, _ = descend("player", before, ADAM, loss)
    assert_close(after.stats, loss(PARAMS)[1])
    assert after.ema is before.ema


def test_a_player_keeps_a_mean_only_where_it_is_asked_to():
    assert create(PARAMS, {}, ADAM).ema == ()
    assert_close(create(PARAMS, {}, ADAM, average=True).ema, PARAMS)


@pytest.mark.parametrize("rate", [1e-4, 0.01, 0.3, 1.0])
def test_the_mean_of_params_is_the_weighted_mean_of_all_since_the_first_update(rate):
    history = np.random.default_rng(0).normal(size=(6, 3))
    player = TrainState(jnp.zeros(3), {}, (), jnp.full(3, 100.0))
    for step, params in enumerate(history):
        player = average(player._replace(params=jnp.asarray(params, jnp.float32)), rate, jnp.int32(step))
        weights = rate * (1 - rate) ** np.arange(step, -1, -1)
        expected = (weights[:, None] * history[: step + 1]).sum(0) / weights.sum()
        np.testing.assert_allclose(player.ema, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rate", [1e-4, 0.01, 0.3, 1.0])
def test_the_mean_after_the_first_update_is_the_params(rate):
    player = average(TrainState(PARAMS, {}, (), jax.tree.map(jnp.ones_like, PARAMS)), rate, jnp.int32(0))
    assert_close(player.ema, PARAMS, rtol=1e-5)


def test_the_mean_leaves_the_params_themselves():
    player = average(create(PARAMS, {}, ADAM, average=True), 0.1, jnp.int32(3))
    assert player.params is PARAMS


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_an_annealed_rate_is_constant_until_its_last_share_and_0_at_the_end(share):
    rate, updates = annealed(0.1, 8, share), np.arange(9)
    found = [rate(update) if callable(rate) else rate for update in updates]
    left = 1 - updates / 8
    np.testing.assert_allclose(found, 0.1 * np.minimum(1, left / share) if share else np.full(9, 0.1), atol=1e-8)


def numbered(first, count):
    """Images (count, 2, 2, 1), every pixel of which is the image's number."""
    return jnp.broadcast_to(jnp.arange(first, first + count, dtype=jnp.float32)[:, None, None, None], (count, 2, 2, 1))


@pytest.mark.parametrize("sizes", [(3,), (3, 3), (2, 8, 4), (4, 4, 12), (1, 5, 2)])
def test_separate_undoes_interleave(sizes):
    batches = [numbered(100 * i, size) for i, size in enumerate(sizes)]
    for part, batch in zip(separate(interleave(*batches), sizes), batches, strict=True):
        np.testing.assert_array_equal(part, batch)


def test_interleaved_batches_hold_each_image_once():
    mixed = interleave(numbered(0, 2), numbered(10, 4), numbered(20, 6))
    assert mixed.shape == (12, 2, 2, 1)
    assert sorted(mixed[:, 0, 0, 0].tolist()) == [0, 1, *range(10, 14), *range(20, 26)]
    assert bool((mixed == mixed[:, :1, :1]).all())  # no image is torn apart


def test_each_image_of_the_first_batch_brings_its_share_of_the_others():
    mixed = interleave(jnp.array([0, 1]), jnp.array([10, 11, 12, 13]), jnp.array([20, 21]))
    assert mixed.tolist() == [0, 10, 11, 20, 1, 12, 13, 21]


@pytest.mark.parametrize("sizes", [(2, 3), (4, 2), (2, 4, 5)])
def test_sizes_that_are_no_multiples_of_the_first_are_refused(sizes):
    with pytest.raises(ValueError, match=f"multiples of the first.*{sizes[-1]}"):
        interleave(*(numbered(0, size) for size in sizes))


def test_spread_does_nothing_outside_a_data_parallel_run():
    assert spread(INPUTS) is INPUTS


def test_spread_divides_a_batch_over_the_devices_of_a_data_parallel_run():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        noise = jax.jit(lambda key: spread(jax.random.normal(key, (8, 3))))(jax.random.key(0))
    assert {shard.data.shape for shard in noise.addressable_shards} == {(2, 3)}


def test_a_partly_cosine_rate_begins_whole_and_ends_at_a_fifth():
    schedule = partly_cosine(0.5, 100)
    assert schedule(0) == 0.5
    assert schedule(100) == pytest.approx(0.5 * math.sin(math.pi / 16))  # cos(7 pi / 16)
    assert schedule(50) == pytest.approx(0.5 * math.cos(7 * math.pi / 32))


def test_kernels_are_what_has_two_axes_or_more():
    params = {"dense": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}, "norm": {"scale": jnp.zeros(3)}}
    assert kernels(params) == {"dense": {"kernel": True, "bias": False}, "norm": {"scale": False}}
