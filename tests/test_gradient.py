"""The gradient step that every player takes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_gen.core.gradient import descend, forward
from ssl_gen.types import TrainState

PARAMS = {"weight": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.1, -0.4])}
INPUTS = jnp.array([[1.0, 2.0], [-1.0, 0.5], [0.3, 0.7]])
ADAM = optax.adam(0.1, b1=0.5)


def started(stats, optimizer, ema=()):
    """A player before its first update."""
    return TrainState(PARAMS, stats, optimizer.init(PARAMS), ema)


def loss(params):
    """Two terms and the collections after the forward pass."""
    outputs = INPUTS @ params["weight"] + params["bias"]
    return {"square": jnp.square(outputs).mean(), "sine": 0.3 * jnp.sin(outputs).sum()}, {"seen": outputs.mean(0)}


def total(params):
    return loss(params)[0]["square"] + loss(params)[0]["sine"]


def assert_close(a, b, rtol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7), a, b)


def test_a_step_is_the_one_written_out_with_optax():
    player = started({"seen": jnp.zeros(2)}, ADAM)
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
        return {"square": jnp.square(values).mean(), "sine": 0.3 * jnp.sin(values).sum()}

    player = started({"seen": jnp.zeros(2)}, ADAM)
    shared = forward(outputs, player.params)
    assert_close(descend("player", player, ADAM, of_outputs, shared), descend("player", player, ADAM, loss))


def test_the_optimizer_sees_the_params():
    decay = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1))
    player, _ = descend("player", started({}, decay), decay, loss)
    expected = jax.tree.map(lambda p, g: p - 0.1 * (g + 0.5 * p), PARAMS, jax.grad(total)(PARAMS))
    assert_close(player.params, expected)


def test_the_terms_are_reported_and_their_sum_is_what_falls():
    slow = optax.sgd(1e-3)
    player, metrics = descend("player", started({}, slow), slow, loss)
    assert set(metrics) == {"player/square", "player/sine", "player/gradient_norm"}
    np.testing.assert_allclose(metrics["player/square"] + metrics["player/sine"], total(PARAMS), rtol=1e-6)
    assert total(player.params) < total(PARAMS)


def test_the_gradient_norm_is_that_of_the_sum_over_all_params():
    _, metrics = descend("player", started({}, ADAM), ADAM, loss)
    leaves = [np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(jax.grad(total)(PARAMS))]
    np.testing.assert_allclose(metrics["player/gradient_norm"], np.sqrt((np.concatenate(leaves) ** 2).sum()), rtol=1e-6)


def test_a_gradient_that_is_not_a_number_is_seen_in_the_metrics():
    def broken(params):
        return {"root": jnp.sqrt(params["bias"]).sum()}, {}  # of a negative number

    _, metrics = descend("player", started({}, ADAM), ADAM, broken)
    assert np.isnan(metrics["player/root"]) and np.isnan(metrics["player/gradient_norm"])


def test_a_step_keeps_the_collections_of_its_forward_pass_and_leaves_the_ema():
    before = started({"seen": jnp.zeros(2)}, ADAM, ema=PARAMS)
    after, _ = descend("player", before, ADAM, loss)
    assert_close(after.stats, loss(PARAMS)[1])
    assert after.ema is before.ema
