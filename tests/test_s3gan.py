"""Lucic et al. 2019: turned images, the score of an image and its class, and what the players lose, by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import IMAGES, SPEC, batch_of, some_rows, tiny

from ssl_gen.core import gradient
from ssl_gen.datasets.batches import Rows
from ssl_gen.methods.adversarial import s3gan
from ssl_gen.networks.heads import Judgement
from ssl_gen.types import Batch, UserError

SCALED = jnp.asarray(IMAGES, jnp.float32) / 127.5 - 1
ORIENTATION = np.array([0.0, 1.0, 2.0, 3.0])  # logits that a head of no weights gives whatever it sees
CLASSES = np.array([0.5, 2.0, -1.0])
HEADS = {"orientation": ORIENTATION, "classes": CLASSES, "projection": None}
LOGIT = 0.7


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum())


def test_an_image_is_turned_by_quarters():
    turns = np.arange(8) % 4
    for image, turn, found in zip(SCALED, turns, s3gan.turned(SCALED[:8], jnp.asarray(turns)), strict=False):
        np.testing.assert_array_equal(found, np.rot90(image, turn))


def test_the_score_is_that_of_the_image_and_of_its_class_where_it_has_one():
    said = Judgement(jnp.array([1.0, 2.0, 3.0]), jnp.arange(9.0).reshape(3, 3), jnp.zeros((3, 4)), None)
    np.testing.assert_array_equal(s3gan.score(said, jnp.array([0, -1, 2])), [1 + 0, 2, 3 + 8])


def test_images_that_are_no_squares_cannot_be_turned():
    with pytest.raises(UserError, match="8 x 12 pixels cannot be turned"):
        s3gan.make(s3gan.Config(), SPEC._replace(width=12))


def first_terms(monkeypatch, method, change, guesses=()):
    """What each player loses in the first step, by a discriminator that was changed, and stays as it is."""
    rows = some_rows(method, 0, 0, 1)
    batch = batch_of(Rows(*(part[0, 0] for part in rows)))
    batch = batch._replace(guesses=jnp.asarray(guesses, jnp.int32)) if len(guesses) else batch
    state = method.init(jax.random.key(0), Batch(SCALED[:12], jnp.arange(12) % 3, SCALED[12:]))
    critic = change(state.discriminator)
    seen = {}

    def watch(name, player, optimizer, loss, forward=None):
        seen[name] = loss(forward.outputs) if forward else loss(player.params)[0]
        return player, {}

    monkeypatch.setattr(gradient, "descend", watch)
    method.phases[0].step(state._replace(discriminator=critic), jax.random.key(1), jnp.int32(0), batch)
    return batch, seen


def blind(critic):
    """A discriminator whose features are 1, and whose heads, but for that of a class's score, see none of them."""
    stats = jax.tree.map(jnp.zeros_like, critic.stats)  # the scale of its hidden layer
    inner = critic.params["discriminator"]
    hidden = inner["WeightNormDense_0"] | {"bias": jnp.ones_like(inner["WeightNormDense_0"]["bias"])}
    last = inner["WeightNormDense_1"] | {"scale": jnp.zeros(1), "bias": jnp.array([LOGIT])}
    heads = {name: jax.tree.map(jnp.zeros_like, critic.params[name]) for name in critic.params if name in HEADS}
    heads |= {name: head | {"bias": jnp.asarray(HEADS[name])} for name, head in heads.items() if "bias" in head}
    return critic._replace(
        params={"discriminator": {"WeightNormDense_0": hidden, "WeightNormDense_1": last}, **heads}, stats=stats
    )


def turns_of(term, weight, images):
    """The sum of all turns, by a rotation term of a blind head: its logits are the turns themselves."""
    return (np.log(np.exp(ORIENTATION).sum()) - float(term) / weight) * images


def test_the_terms_of_a_discriminator_that_sees_nothing(monkeypatch):
    """It gives what its biases say: the game a log of 2 numbers, the class that of its logits, each turn one of 4."""
    changes = {"auxiliary": 0.5, "rotation": 2.0, "generator_rotation": 0.3, "discriminator_steps": 1}
    batch, seen = first_terms(monkeypatch, tiny("s3gan", **changes).method, blind)
    found = seen["discriminator"]
    np.testing.assert_allclose(found["class"], -0.5 * log_softmax(CLASSES)[batch.labels].mean(), rtol=1e-5)
    np.testing.assert_allclose(found["real"], np.log1p(np.exp(-LOGIT)), rtol=1e-5)
    np.testing.assert_allclose(found["fake"], np.log1p(np.exp(LOGIT)), rtol=1e-5)
    np.testing.assert_allclose(seen["generator"]["adversarial"], np.log1p(np.exp(-LOGIT)), rtol=1e-5)
    for total, images in (
        (turns_of(found["rotation"], 2.0, 4 + 8), 4 + 8),
        (turns_of(seen["generator"]["rotation"], 0.3, 8), 8),
    ):
        assert total == pytest.approx(round(total), abs=1e-3) and 0 < total < 3 * images


def by_class(critic):
    """A blind discriminator to which class k adds the score k."""
    critic = blind(critic)
    features = critic.params["projection"]["kernel"].shape[0]
    kernel = jnp.tile(jnp.arange(3.0), (features, 1)) / features
    return critic._replace(params=critic.params | {"projection": {"kernel": kernel}})


def test_an_image_without_a_label_is_judged_with_the_class_that_is_guessed(monkeypatch):
    method = tiny("s3gan", discriminator_steps=1, noise=0.0).method
    batch, seen = first_terms(monkeypatch, method, by_class)
    guessed = int(np.argmax(CLASSES))
    scores = np.concatenate([np.asarray(batch.labels), np.full(len(batch.unlabelled), guessed)]) + LOGIT
    np.testing.assert_allclose(seen["discriminator"]["real"], np.log1p(np.exp(-scores)).mean(), rtol=1e-5)


def test_labels_of_an_earlier_run_are_the_classes_that_images_are_judged_with(monkeypatch):
    method = tiny("s3gan", inferred="guessed", discriminator_steps=1, noise=0.0).method
    assert method.told == "guessed" and method.classify is None and method.phases[0].labelled == 0
    guesses = [0, 1, 2, 2, 2, 1, -1, 0]
    _, seen = first_terms(monkeypatch, method, by_class, guesses)
    scores = LOGIT + np.maximum(guesses, 0)  # one without a guess has the score of the image alone
    assert set(seen["discriminator"]) == {"real", "fake", "rotation"}
    np.testing.assert_allclose(seen["discriminator"]["real"], np.log1p(np.exp(-scores)).mean(), rtol=1e-5)


def test_the_conv_networks_have_the_same_heads():
    config = dataclasses.replace(tiny("s3gan").config, network="conv", loss="hinge")
    method = s3gan.make(config, SPEC)
    batch = Batch(SCALED[:12], jnp.arange(12) % 3, SCALED[12:])
    state = jax.eval_shape(method.init, jax.random.key(0), batch)
    assert {"projection", "orientation", "classes"} < set(state.discriminator.params)
    assert jax.eval_shape(method.classify, state, SCALED[:5]).shape == (5, SPEC.classes)
