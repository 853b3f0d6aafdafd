"""Miyato and Koyama 2018, Odena et al. 2017: labels in the logit, or a classifier beside it."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import IMAGES, SPEC, batch_at, first_batch, tiny

from ssl_gen.core import gradient
from ssl_gen.core.keys import INIT, stream
from ssl_gen.losses import adversarial
from ssl_gen.losses.adversarial import Loss
from ssl_gen.methods.adversarial import conditional_gan
from ssl_gen.networks import mlp

SCALED = IMAGES.astype(np.float32) / 127.5 - 1
FIRST = stream(0, 0), jnp.int32(0)  # key and number of the first step


def started(method):
    return jax.jit(method.init)(stream(0, INIT), first_batch())


def test_it_looks_at_labelled_images_alone():
    (phase,) = tiny("conditional_gan").method.phases
    assert phase.unlabelled == 0 and phase.labelled > 0


@pytest.mark.parametrize("conditioning", ["projection", "auxiliary"])
@pytest.mark.parametrize("loss", typing.get_args(Loss))
def test_each_loss_goes_with_each_way_to_tell_the_discriminator_of_labels(loss, conditioning):
    method = tiny("conditional_gan", loss=loss, conditioning=conditioning, network="mlp").method
    state = jax.eval_shape(method.init, stream(0, INIT), first_batch())
    _, metrics = jax.eval_shape(method.phases[0].step, state, *FIRST, batch_at(method))
    of_classes = {"discriminator/class_of_real", "discriminator/class_of_fake", "generator/class"}
    assert (of_classes & metrics.keys()) == (of_classes if conditioning == "auxiliary" else set())


def test_only_an_auxiliary_classifier_classifies():
    assert tiny("conditional_gan", conditioning="projection").method.classify is None
    assert tiny("conditional_gan", conditioning="auxiliary").method.classify is not None


def paint(labels):
    return jnp.broadcast_to(jnp.float32(labels)[:, None, None, None], (len(labels), *SPEC.shape))


@pytest.mark.parametrize("conditioning", ["projection", "auxiliary"])
def test_a_generated_image_has_the_label_of_the_real_one_that_it_stands_beside(conditioning, monkeypatch):
    """A generator that paints its label, a real image painted with its own: what the discriminator is shown."""
    changes = {"conditioning": conditioning, "network": "mlp", "discriminator_steps": 2}
    _, config, method = tiny("conditional_gan", **changes)
    state, batch, seen = started(method), batch_at(method), []

    class Painter(mlp.Generator):
        def __call__(self, latents, labels, train):
            return paint(labels)

    def note(config, key, images):
        return seen.append(images[:, 0, 0, 0]) or images

    def keep(name, player, optimizer, loss, forward=None):
        loss(forward.outputs if forward else player.params)
        return player, {}

    monkeypatch.setattr(mlp, "Generator", Painter)
    monkeypatch.setattr(adversarial, "augment", note)
    monkeypatch.setattr(gradient, "descend", keep)
    made = conditional_gan.make(config, SPEC)
    made.phases[0].step(state, *FIRST, batch._replace(labelled=paint(batch.labels)))
    *pairs, generated = seen
    for pair in pairs:
        np.testing.assert_array_equal(pair[::2], pair[1::2])
    np.testing.assert_array_equal(generated, batch.labels)


def test_the_auxiliary_classifier_is_all_outputs_but_the_first():
    method = tiny("conditional_gan", conditioning="auxiliary", network="mlp", input_noise=0.5).method
    state = started(method)
    network = mlp.Discriminator(1 + SPEC.classes, SPEC.classes, (4, 4))
    variables = {"params": state.discriminator.params, **state.discriminator.stats}
    logits = np.float64(network.apply(variables, SCALED[:5], None, train=False)[0])[:, 1:]
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(np.exp(method.classify(state, SCALED[:5])), expected, rtol=1e-4)
