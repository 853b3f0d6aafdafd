"""You et al. 2023, with a GAN: who trains in which phase, on which images, with whose labels."""

import dataclasses
import functools
import itertools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear import Judge, Linear, Pictures, apart, check_average
from tiny import IMAGES, SPEC, batch_at, first_batch, same, tiny

from ssl_gen.augmentation import Augmentation
from ssl_gen.core import gradient
from ssl_gen.core.keys import INIT, stream
from ssl_gen.losses import sources
from ssl_gen.losses.thresholds import Marginals
from ssl_gen.methods.self_training import gan_self_training
from ssl_gen.types import Batch, UserError

SCALED = jnp.asarray(IMAGES, jnp.float32) / 127.5 - 1
DENSE = {"classifier_network": "mlp"}


@functools.cache
def started():
    method = tiny("gan_self_training", **DENSE).method
    return jax.jit(method.init)(stream(0, INIT), first_batch())


FIRST = stream(0, 0), jnp.int32(0)  # key and number of a run's first step


def test_each_phase_trains_its_own_players():
    method, moved = tiny("gan_self_training", **DENSE).method, []
    for index, phase in enumerate(method.phases):
        after, _ = jax.jit(phase.step)(started(), *FIRST, batch_at(method, index))
        moved.append({name for name in after._fields if not same(getattr(after, name), getattr(started(), name))})
    taught = {"classifier", "marginals"}
    assert moved == [taught, {"generator", "discriminator"}, taught]


def terms(phase, **switches):
    """The terms of the classifier's loss in a phase, nothing computed."""
    method = tiny("gan_self_training", **DENSE, **switches).method
    _, metrics = jax.eval_shape(method.phases[phase].step, started(), *FIRST, batch_at(method, phase))
    return {name.removeprefix("classifier/") for name in metrics} - {"gradient_norm", "confident"}


@pytest.mark.parametrize("on", [on for on in itertools.product([False, True], repeat=3) if any(on)])
def test_each_switch_takes_its_source_from_the_loss_and_from_the_batch(on):
    switches = dict(zip(["from_labels", "from_guesses", "from_samples"], on, strict=True))
    named = {name for name, is_on in zip(["supervised", "guesses", "samples"], on, strict=True) if is_on}
    assert terms(2, **switches) == named
    assert terms(0, **switches) == {"supervised"} | (named & {"guesses"})
    first, _, third = tiny("gan_self_training", **DENSE, **switches).method.phases
    assert bool(first.labelled) and bool(third.labelled) == switches["from_labels"]
    assert bool(first.unlabelled) == bool(third.unlabelled) == switches["from_guesses"]


def paint(labels):
    return jnp.broadcast_to(jnp.float32(labels)[:, None, None, None], (len(labels), *SPEC.shape))


class Painter(nn.Module):
    """A generator that paints its label."""

    def __call__(self, latents, labels, train):
        return paint(labels)


def watch(monkeypatch, config, judge=None):
    """The method with a painter for its generator, and perhaps another discriminator; nobody learns."""
    _, discriminator, classifier = gan_self_training.networks(config, SPEC)
    networks = Painter(), judge or discriminator, classifier
    monkeypatch.setattr(gan_self_training, "networks", lambda *_: networks)
    monkeypatch.setattr(gradient, "descend", keep)
    return gan_self_training.make(config, SPEC)


def keep(name, player, optimizer, loss, forward=None):
    loss(forward.outputs if forward else player.params)
    return player, {}


def test_pairs_are_judged_with_the_labels_of_hand_classifier_and_generator(monkeypatch):
    judged = []

    class Judge(nn.Module):
        def __call__(self, images, labels, train):
            judged.append((images, labels))
            return jnp.zeros((len(labels), 1)), None

    _, config, method = tiny("gan_self_training", **DENSE)
    state, batch = started(), Batch(SCALED[:4], jnp.array([2, 0, 1, 1]), SCALED[12:20])
    watch(monkeypatch, config, Judge()).phases[1].step(state, *FIRST, batch)
    (images, labels), (generated, wanted) = judged
    guesses = np.asarray(method.classify(state, batch.unlabelled)).argmax(-1)
    given = {bytes(np.asarray(image)): label for image, label in zip(batch.labelled, batch.labels, strict=True)}
    given |= {bytes(np.asarray(image)): guess for image, guess in zip(batch.unlabelled, guesses, strict=True)}
    real, fake = (images[::2], labels[::2]), (images[1::2], labels[1::2])
    assert [given[bytes(np.asarray(image))] for image in real[0]] == list(real[1])
    np.testing.assert_array_equal(fake[0], paint(fake[1]))
    np.testing.assert_array_equal(generated, paint(wanted))
    np.testing.assert_array_equal(np.sort(wanted), np.sort([*batch.labels, *guesses]))


def test_generated_images_teach_the_labels_that_they_were_drawn_for(monkeypatch):
    shown, taught = [], []
    switches = {"from_labels": False, "from_guesses": False, "augmentation": Augmentation()}
    _, config, method = tiny("gan_self_training", **DENSE, **switches)
    batch = batch_at(method, 2)
    monkeypatch.setattr(sources, "augment", lambda config, key, images: shown.append(images) or images)
    monkeypatch.setattr(sources, "cross_entropy", lambda logits, labels: taught.append(labels) or 0.0)
    watch(monkeypatch, config).phases[2].step(started(), *FIRST, batch)
    (images,), (labels,) = shown, taught
    np.testing.assert_array_equal(images, paint(labels))
    assert len(labels) == config.generated_batch


def test_samples_are_drawn_by_the_ema_of_the_generator():
    method, labels, key = tiny("gan_self_training", **DENSE).method, jnp.arange(3), jax.random.key(1)
    step, states, first = jax.jit(method.phases[1].step), [started()], method.phases[0].steps
    for at in (first, first + 1):
        states.append(step(states[-1], stream(0, at), jnp.int32(at), batch_at(method, 1))[0])
    first, second = (state.generator.params for state in states[1:])
    rate = gan_self_training.Config().generator_averaging  # the mean of two: weights (1 - rate) : 1
    mean = jax.tree.map(lambda a, b: ((1 - rate) * a + b) / (2 - rate), first, second)
    chex.assert_trees_all_close(states[-1].generator.ema.params, mean, atol=1e-6)
    other = states[-1]._replace(generator=states[-1].generator._replace(params=first))
    samples = [method.sample(state, key, labels, method.sampler) for state in (other, states[-1])]
    np.testing.assert_array_equal(*samples)


@pytest.mark.parametrize("steps", [0, 1, 7, 5_000])
def test_the_phases_have_all_steps_between_them(steps):
    config = gan_self_training.Config(steps=steps, warm_up=0.5, generation=0.5)
    assert sum(gan_self_training.lengths(config)) == steps


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"warm_up": 0.6, "generation": 0.5}, "shares"),
        ({"generation": -0.1}, "shares"),
        ({"from_labels": False, "from_guesses": False, "from_samples": False}, "nothing to learn"),
        ({"loss": "wasserstein"}, "penalty"),
        ({"generated_batch": 48}, "multiple"),
        ({"unlabelled_batch": 96}, "multiple"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(changes, what):
    with pytest.raises(UserError, match=what):
        gan_self_training.make(gan_self_training.Config(**changes), SPEC)


@pytest.mark.parametrize("phase", [0, 2])
def test_guesses_are_brought_to_the_class_frequencies_of_the_labels(phase, monkeypatch):
    """In both phases of the classifier what is learnt is q times the ratio of the means, and q itself is counted."""
    config, learnt = tiny("gan_self_training", **DENSE).config, []
    monkeypatch.setattr(
        sources, "confident_cross_entropy", lambda logits, teacher, threshold: learnt.append(teacher) or 0.0
    )
    method = gan_self_training.make(config, SPEC)
    means = Marginals(jnp.array([0.6, 0.3, 0.1]), jnp.array([0.2, 0.3, 0.5]))
    state = started()._replace(marginals=means)
    after, _ = method.phases[phase].step(state, *FIRST, batch_at(method, phase))
    plain = gan_self_training.make(dataclasses.replace(config, alignment=False), SPEC)
    untouched, _ = plain.phases[phase].step(started()._replace(marginals=()), *FIRST, batch_at(plain, phase))
    aligned, guesses = (np.exp(np.float64(each)) for each in learnt)
    expected = guesses * np.array([3.0, 1.0, 0.2])
    np.testing.assert_allclose(aligned, expected / expected.sum(1, keepdims=True), rtol=1e-3)
    rate = 1 / config.memory
    np.testing.assert_allclose(
        after.marginals.guesses, (1 - rate) * np.array([0.2, 0.3, 0.5]) + rate * guesses.mean(0), rtol=1e-5
    )
    assert untouched.marginals == ()


@pytest.mark.parametrize("from_guesses", [True, False])
def test_the_classifier_is_averaged_whether_it_guesses_or_not(from_guesses, monkeypatch):
    config = tiny("gan_self_training", from_guesses=from_guesses, averaging=0.5, augmentation=Augmentation()).config
    config = dataclasses.replace(config, strong=Augmentation())
    monkeypatch.setattr(gan_self_training, "networks", lambda *_: (Pictures(3), Judge(1), Linear(3)))
    method = gan_self_training.make(config, SPEC)
    before = jax.jit(method.init)(stream(0, INIT), first_batch())
    before = before._replace(classifier=apart(before.classifier))
    after, _ = jax.jit(method.phases[0].step)(before, stream(0, 1), jnp.int32(1), batch_at(method))
    check_average(before.classifier, after.classifier, 2 / 3)  # the second update of rate 1/2
