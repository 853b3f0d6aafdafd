"""Salimans et al. 2016: the formulas against float64, and what its two players keep and give away."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear import Judge, Pictures, judged
from tiny import IMAGES, SPEC, STEPS, batch_at, first_batch, tiny

from ssl_gen.core import gradient
from ssl_gen.core.keys import INIT, stream
from ssl_gen.core.schedules import annealed
from ssl_gen.methods.adversarial import feature_matching
from ssl_gen.methods.adversarial.feature_matching import matching, unsupervised
from ssl_gen.networks import mlp

RANDOM = np.random.default_rng(0)
REAL, FAKE = 2 * RANDOM.normal(size=(5, 3)), 2 * RANDOM.normal(size=(7, 3))
FEATURES, GENERATED = RANDOM.normal(size=(6, 4)), RANDOM.normal(size=(8, 4))
SCALED = IMAGES.astype(np.float32) / 127.5 - 1
FIRST = stream(0, 0), jnp.int32(0)  # key and number of the first step
AVERAGING = 0.5  # of 4 steps: a rate of 1/2, so that params and their mean differ


def f32(array):
    return jnp.asarray(array, jnp.float32)


def test_the_unsupervised_loss_is_that_of_d():
    def d(logits):
        z = np.exp(logits).sum(-1)
        return z / (z + 1)

    real, fake = unsupervised(f32(REAL), f32(FAKE))
    np.testing.assert_allclose(real, -np.log(d(REAL)).mean() / 2, rtol=1e-5)
    np.testing.assert_allclose(fake, -np.log(1 - d(FAKE)).mean() / 2, rtol=1e-5)


def test_k_logits_are_k_plus_1_classes_with_the_fake_logit_at_0():
    def fakeness(logits):
        more = np.concatenate([logits, np.zeros((len(logits), 1))], -1)
        return (np.exp(more) / np.exp(more).sum(-1, keepdims=True))[:, -1]

    real, fake = unsupervised(f32(REAL), f32(FAKE))
    np.testing.assert_allclose(real, -np.log(1 - fakeness(REAL)).mean() / 2, rtol=1e-5)
    np.testing.assert_allclose(fake, -np.log(fakeness(FAKE)).mean() / 2, rtol=1e-5)


def test_the_unsupervised_loss_stays_finite():
    extreme = jnp.array([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4]])
    for value in unsupervised(extreme, extreme):
        np.testing.assert_allclose(value, 1e4 / 4, rtol=1e-3)  # of two images one is right, the other wrong by 1e4
    gradient = jax.grad(lambda x: sum(unsupervised(x, x)))(extreme)
    assert np.isfinite(gradient).all()


def test_matching_compares_mean_features():
    difference = FEATURES.mean(0) - GENERATED.mean(0)
    np.testing.assert_allclose(matching(f32(FEATURES), f32(GENERATED), "squared"), (difference**2).mean(), rtol=1e-5)
    np.testing.assert_allclose(matching(f32(FEATURES), f32(GENERATED), "absolute"), abs(difference).mean(), rtol=1e-5)


@pytest.mark.parametrize("distance", ["squared", "absolute"])
def test_equal_means_match_whatever_the_images(distance):
    pairs = f32([[1.0, 5.0], [3.0, -1.0]])
    assert matching(pairs, jnp.full((7, 2), 2.0), distance) == 0


@functools.cache
def states():
    """The state before each update and after the last."""
    method = tiny("feature_matching", averaging=AVERAGING).method
    found = [jax.jit(method.init)(stream(0, INIT), first_batch())]
    step = jax.jit(method.phases[0].step)
    for i in range(STEPS):
        found.append(step(found[-1], stream(0, i), jnp.int32(i), batch_at(method, step=i))[0])
    return found


def optimizer_of(monkeypatch, **changes):
    """The optimiser that a step hands to each player's update; they are one."""
    state, config, seen = states()[0], tiny("feature_matching", **changes).config, []

    def note(name, player, optimizer, loss, forward=None):
        seen.append(optimizer)
        return player, {}

    monkeypatch.setattr(gradient, "descend", note)
    method = feature_matching.make(config, SPEC)  # a step that no other test compiles
    jax.eval_shape(method.phases[0].step, state, *FIRST, batch_at(method))
    assert len(seen) == 2 and seen[0] is seen[1]
    return seen[0]


@pytest.mark.parametrize("anneal", [0.0, 0.5, 1.0])
def test_the_learning_rate_is_constant_until_the_last_share_of_the_steps_and_0_at_the_end(anneal, monkeypatch):
    steps, rate = 8, 0.1
    optimizer = optimizer_of(monkeypatch, anneal=anneal, steps=steps, learning_rate=rate)
    opt, moves = optimizer.init(jnp.float32(0)), []
    for _ in range(steps + 1):  # Adam's update for a gradient that is always 1 is the learning rate itself
        update, opt = optimizer.update(jnp.float32(1), opt)
        moves.append(-float(update))
    left = np.arange(steps, -1, -1) / steps  # share of the steps before each update
    expected = np.full(steps + 1, rate) if anneal == 0 else rate * np.minimum(1, left / anneal)
    np.testing.assert_allclose(moves, expected, rtol=1e-4, atol=1e-7)


def test_photographs_have_the_rate_and_the_mean_of_the_official_script():
    config = feature_matching.PHOTOGRAPHS
    rate = annealed(config.learning_rate, config.steps, config.anneal)
    for epoch in (0, 400, 799, 900, 1100, 1200):  # of 500 steps; train_cifar_feature_matching.py
        np.testing.assert_allclose(rate(500 * epoch), 3e-4 * min(3 - epoch / 400, 1), rtol=1e-4, atol=1e-9)
    assert round(config.averaging * config.steps) == 1 / 0.0001


def test_the_scales_of_the_hidden_layers_stay_and_that_of_the_output_moves():
    before, after = (state.discriminator for state in (states()[0], states()[-1]))
    layers = sorted(before.params)
    fixed = sorted(before.stats["constants"])
    assert fixed == layers[:-1] and len(layers) == 3  # two hidden layers and the output
    for layer in fixed:
        np.testing.assert_array_equal(
            before.stats["constants"][layer]["scale"], after.stats["constants"][layer]["scale"]
        )
        assert "scale" not in before.params[layer]
    assert not np.array_equal(before.params[layers[-1]]["scale"], after.params[layers[-1]]["scale"])


def test_the_mean_discriminator_follows_every_update_at_the_rate_of_its_time_constant():
    history = [state.discriminator.params for state in states()[1:]]
    rate = 1 / (AVERAGING * STEPS)
    weights = rate * (1 - rate) ** np.arange(STEPS - 1, -1, -1)
    expected = jax.tree.map(lambda *leaves: np.average(leaves, axis=0, weights=weights), *history)
    jax.tree.map(
        lambda mean, leaf: np.testing.assert_allclose(mean, leaf, rtol=1e-4, atol=1e-5),
        states()[-1].discriminator.ema.params,
        expected,
    )


def test_the_classifier_is_the_averaged_discriminator_without_noise():
    method, state = tiny("feature_matching", averaging=AVERAGING).method, states()[-1]
    images = SCALED[:5]
    discriminator = mlp.Discriminator(SPEC.classes, SPEC.classes, (4, 4))
    average = state.discriminator.ema
    variables = {"params": average.params, **average.stats}
    expected = jax.nn.log_softmax(discriminator.apply(variables, images, None, train=False)[0])
    np.testing.assert_allclose(method.classify(state, images), expected, rtol=1e-5, atol=1e-6)
    latest = average._replace(params=state.discriminator.params)
    latest = state._replace(discriminator=state.discriminator._replace(ema=latest))
    assert not np.allclose(method.classify(latest, images), expected, atol=1e-4)


def test_the_generator_is_trained_against_the_updated_discriminator(monkeypatch):
    state = states()[0]

    def silence(name, player, optimizer, loss, forward=None):
        """In place of the update: a discriminator whose features are all 0, so that any two images match."""
        low = jax.tree.map(lambda leaf: leaf - 1e6 * (leaf.ndim == 1), player.params)  # biases before the ReLUs
        terms = loss(forward.outputs) if forward else loss(player.params)[0]
        return player._replace(params=low), {name: sum(terms.values())}

    monkeypatch.setattr(gradient, "descend", silence)
    method = feature_matching.make(tiny("feature_matching").config, SPEC)  # a step that no other test compiles
    _, losses = jax.jit(method.phases[0].step)(state, *FIRST, batch_at(method))
    assert losses["discriminator"] > 0
    assert losses["generator"] == 0


@pytest.mark.parametrize("distance", ["squared", "absolute"])
def test_each_player_loses_what_the_paper_says(distance, monkeypatch):
    changes = {"distance": distance, "unlabelled_weight": 0.3, "learning_rate": 0.1}  # an update is seen in features
    config = tiny("feature_matching", **changes).config
    networks = Pictures(8), Judge(SPEC.classes)
    monkeypatch.setattr(feature_matching, "generator_and_discriminator", lambda *_: networks)
    method, batch = feature_matching.make(config, SPEC), batch_at(tiny("feature_matching").method)
    before = method.init(stream(0, INIT), first_batch())
    after, metrics = jax.jit(method.phases[0].step)(before, *FIRST, batch)
    fake, params = before.generator.params["images"], before.discriminator.params
    labelled, real, generated = (judged(params, images)[0] for images in (batch.labelled, batch.unlabelled, fake))
    z_real, z_fake = np.exp(real).sum(-1), np.exp(generated).sum(-1)
    p = np.exp(labelled) / np.exp(labelled).sum(-1, keepdims=True)
    means = [judged(after.discriminator.params, images)[1].mean(0) for images in (batch.unlabelled, fake)]
    apart = means[0] - means[1]
    expected = {
        "discriminator/supervised": -np.log(p[np.arange(4), batch.labels]).mean(),
        "discriminator/real": 0.3 * -np.log(z_real / (z_real + 1)).mean() / 2,
        "discriminator/fake": 0.3 * -np.log(1 / (z_fake + 1)).mean() / 2,
        "generator/matching": (apart**2 if distance == "squared" else abs(apart)).mean(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
