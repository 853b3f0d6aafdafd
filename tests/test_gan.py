"""Goodfellow et al. 2014: what its two players see, by loss and by network."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SPEC, batch_at, first_batch, tiny

from ssl_gen.core import gradient
from ssl_gen.core.keys import INIT, stream
from ssl_gen.losses import adversarial
from ssl_gen.losses.adversarial import Loss
from ssl_gen.methods.adversarial import gan

FIRST = stream(0, 0), jnp.int32(0)  # key and number of the first step
PLAIN = {"loss": "non_saturating", "averaging": 0.0}  # the least to compile


def started(method):
    return jax.jit(method.init)(stream(0, INIT), first_batch())


TERMS = {"wasserstein": {"real", "fake", "gradient_penalty"}, "relativistic": {"relativistic", "r1", "r2"}}


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("loss", typing.get_args(Loss))
def test_each_loss_trains_each_network_with_its_own_terms(loss, network):
    method = tiny("gan", loss=loss, network=network).method
    state = jax.eval_shape(method.init, stream(0, INIT), first_batch())
    _, metrics = jax.eval_shape(method.phases[0].step, state, *FIRST, batch_at(method))
    terms = {name.split("/")[1] for name in metrics if name.startswith("discriminator")} - {"gradient_norm"}
    assert terms == TERMS.get(loss, {"real", "fake"})
    assert "generator/adversarial" in metrics


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_a_discriminator_has_no_bias_that_its_loss_could_not_train(network):
    def biases(loss):
        method = tiny("gan", loss=loss, network=network).method
        state = jax.eval_shape(method.init, stream(0, INIT), first_batch())
        return sum(
            "bias" in jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(state.discriminator.params)
        )

    assert biases("wasserstein") == biases("relativistic") == biases("hinge") - 1


def test_each_update_of_the_discriminator_sees_its_share_of_the_real_and_of_the_generated(monkeypatch):
    method = tiny("gan", discriminator_steps=3, **PLAIN).method
    state, batch, seen = started(method), batch_at(method), []

    def note(config, key, images):
        return seen.append(images) or images

    def keep(name, player, optimizer, loss, forward=None):
        loss(forward.outputs if forward else player.params)
        return player, {}

    monkeypatch.setattr(adversarial, "augment", note)
    monkeypatch.setattr(gradient, "descend", keep)
    method.phases[0].step(state, *FIRST, batch)
    *pairs, generated = seen
    assert len(pairs) == 3 and len(batch.unlabelled) == 24
    shown = np.concatenate([pair[::2] for pair in pairs]), np.concatenate([pair[1::2] for pair in pairs])
    for images, whole in zip(shown, (batch.unlabelled, generated), strict=True):
        np.testing.assert_array_equal(*(np.sort(part.reshape(24, -1), axis=0) for part in (images, np.asarray(whole))))


def test_the_generator_is_trained_against_the_updated_discriminator(monkeypatch):
    state = started(tiny("gan", **PLAIN).method)

    def doubt(name, player, optimizer, loss, forward=None):
        """In place of the update: a discriminator whose every logit is -50."""
        if name == "generator":
            return player, {name: loss(forward.outputs)["adversarial"]}
        output = max(player.params)
        doubting = jax.tree.map(jnp.zeros_like, player.params[output]) | {"bias": jnp.full(1, -50.0)}
        doubting["direction"] = player.params[output]["direction"]
        return player._replace(params=player.params | {output: doubting}), {}

    monkeypatch.setattr(gradient, "descend", doubt)
    method = gan.make(tiny("gan", **PLAIN).config, SPEC)  # a step that no other test compiles
    _, values = jax.jit(method.phases[0].step)(state, *FIRST, batch_at(method))
    np.testing.assert_allclose(values["generator"], 50, rtol=1e-6)  # - log sigmoid(-50)


@pytest.mark.parametrize("averaging", [0.0, 0.5])
def test_samples_are_drawn_from_the_mean_params_where_there_are_any(averaging):
    method = tiny("gan", averaging=averaging).method
    state = started(method)
    assert bool(jax.tree.leaves(state.generator.ema)) == bool(averaging)

    def drawn(**change):
        moved = {name: jax.tree.map(lambda leaf: leaf + 0.5, getattr(state.generator, name)) for name in change}
        after = state._replace(generator=state.generator._replace(**moved))
        return method.sample(after, jax.random.key(1), jnp.zeros(3, jnp.int32), method.sampler)

    plain = drawn()
    assert np.array_equal(plain, drawn(ema=True)) == (averaging == 0)
    assert np.array_equal(plain, drawn(params=True)) == (averaging > 0)
