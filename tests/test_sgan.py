"""Odena 2016: K + 1 outputs read as a score of reality and as classes."""

import jax
import jax.numpy as jnp
import numpy as np
from linear import Judge, Pictures, apart, check_average, judged
from tiny import IMAGES, SPEC, batch_at, first_batch, tiny

from ssl_gen.augmentation import Augmentation
from ssl_gen.core import gradient
from ssl_gen.core.keys import INIT, stream
from ssl_gen.losses.adversarial import judged_fake, judged_real
from ssl_gen.methods.adversarial import sgan
from ssl_gen.methods.adversarial.sgan import reality
from ssl_gen.networks import mlp

LOGITS = 2 * np.random.default_rng(0).normal(size=(6, 4))  # K = 3
SCALED = IMAGES.astype(np.float32) / 127.5 - 1
FIRST = stream(0, 0), jnp.int32(0)  # key and number of the first step


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_reality_is_the_logit_of_any_class_but_the_last():
    generated = softmax(LOGITS)[:, -1]
    np.testing.assert_allclose(reality(jnp.float32(LOGITS)), np.log((1 - generated) / generated), rtol=1e-4)


def test_losses_of_reality_are_those_of_the_k_plus_1_classes():
    generated, logits = softmax(LOGITS)[:, -1], jnp.float32(LOGITS)
    np.testing.assert_allclose(judged_real(reality(logits)), -np.log(1 - generated).mean(), rtol=1e-5)
    np.testing.assert_allclose(judged_fake(reality(logits)), -np.log(generated).mean(), rtol=1e-5)


def test_reality_of_extreme_logits_is_finite_with_its_gradient():
    extreme = jnp.array([[1e30, 0.0, -1e30], [-1e30, -1e30, 1e30], [0.0, 0.0, 0.0]])
    value, gradient = jax.value_and_grad(lambda x: judged_real(reality(x)))(extreme)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def state_and_batch():
    method = tiny("sgan", network="mlp").method
    state = jax.jit(method.init)(stream(0, INIT), first_batch())
    return state, batch_at(method)


def test_a_class_is_as_probable_as_among_real_images(monkeypatch):
    class Fixed(mlp.Discriminator):
        """A discriminator with given logits."""

        def __call__(self, images, labels, train):
            return jnp.float32(LOGITS), None

    state, _ = state_and_batch()
    monkeypatch.setattr(mlp, "Discriminator", Fixed)
    method = sgan.make(tiny("sgan", network="mlp").config, SPEC)
    p = softmax(LOGITS)
    np.testing.assert_allclose(np.exp(method.classify(state, SCALED[:6])), p[:, :-1] / (1 - p[:, -1:]), rtol=1e-5)


def test_the_generator_is_trained_against_the_updated_discriminator(monkeypatch):
    state, batch = state_and_batch()

    def mistrust(name, player, optimizer, loss, forward=None):
        """In place of the update: a discriminator that takes every image for a generated one."""
        if name == "generator":
            return player, {name: loss(forward.outputs)["adversarial"]}
        output = max(player.params)
        bias = jnp.zeros(SPEC.classes + 1).at[-1].set(50.0)
        sure = jax.tree.map(jnp.zeros_like, player.params[output]) | {"bias": bias}
        sure["direction"] = player.params[output]["direction"]
        return player._replace(params=player.params | {output: sure}), {}

    monkeypatch.setattr(gradient, "descend", mistrust)
    method = sgan.make(tiny("sgan", network="mlp").config, SPEC)  # a step that no other test compiles
    _, values = jax.jit(method.phases[0].step)(state, *FIRST, batch)
    np.testing.assert_allclose(values["generator"], 50 - np.log(SPEC.classes), rtol=1e-5)


def test_each_player_loses_what_the_paper_says(monkeypatch):
    changes = {"unlabelled_weight": 0.3, "averaging": 0.5, "learning_rate": 0.1}  # an update is seen in what D says
    config = tiny("sgan", augmentation=Augmentation(), **changes).config
    monkeypatch.setattr(sgan, "networks", lambda *_: (Pictures(8), Judge(SPEC.classes + 1)))
    method, batch = sgan.make(config, SPEC), batch_at(tiny("sgan").method)
    before = method.init(stream(0, INIT), first_batch())
    before = before._replace(discriminator=apart(before.discriminator))
    after, metrics = jax.jit(method.phases[0].step)(before, stream(0, 1), jnp.int32(1), batch)
    fake, params = before.generator.params["images"], before.discriminator.params
    labelled, real, generated = (judged(params, images)[0] for images in (batch.labelled, batch.unlabelled, fake))
    deceived = judged(after.discriminator.params, fake)[0]
    expected = {
        "discriminator/supervised": -np.log(softmax(labelled)[np.arange(4), batch.labels]).mean(),
        "discriminator/real": 0.3 * -np.log(1 - softmax(real)[:, -1]).mean(),
        "discriminator/fake": 0.3 * -np.log(softmax(generated)[:, -1]).mean(),
        "generator/adversarial": -np.log(1 - softmax(deceived)[:, -1]).mean(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
    check_average(before.discriminator, after.discriminator, 2 / 3)  # the second update of rate 1/2
