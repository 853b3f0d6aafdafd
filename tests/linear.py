"""A network that is one matrix, an augmentation that dims, and numpy's side of what a step makes of them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tiny import SPEC, batch_at, first_batch, tiny

from ssl_gen import augmentation
from ssl_gen.augmentation import Augmentation
from ssl_gen.core.keys import INIT, stream
from ssl_gen.methods import METHODS
from ssl_gen.networks import classifiers
from ssl_gen.types import Average, Batch, Metrics

RATE = 0.5  # of the EMA
WEAK, STRONG = Augmentation(noise=0.9), Augmentation(noise=0.4)  # under `dimmed`, what images are multiplied by


class Linear(nn.Module):
    """Pixels times a matrix, and a bias: images (B, H, W, C) -> logits (B, outputs)."""

    outputs: int

    @nn.compact
    def __call__(self, images, train):
        weights = self.param("weights", nn.initializers.normal(0.3), (math.prod(images.shape[1:]), self.outputs))
        return images.reshape(len(images), -1) @ weights + self.param(
            "bias", nn.initializers.normal(0.5), (self.outputs,)
        )


def said(params, images):
    """The logits of `Linear` in float64."""
    pixels = np.float64(images).reshape(len(images), -1)
    return pixels @ np.float64(params["weights"]) + np.float64(params["bias"])


def dimmed(config, key, images):
    """In the place of `augment`: each image of a batch darker than the next, and all by the config's number."""
    return images * np.linspace(config.noise / 2, config.noise, len(images), dtype=np.float32)[:, None, None, None]


def together(*parts):
    """Batches beside each other as `interleave` lays them: each image of the first with its share of the others."""
    first = len(parts[0])
    groups = [np.asarray(part).reshape(first, -1, *np.shape(part)[1:]) for part in parts]
    return np.concatenate(groups, 1).reshape(-1, *np.shape(parts[0])[1:])


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def surprise(logits, labels):
    """- log p(label) of each image."""
    return -log_softmax(logits)[np.arange(len(logits)), np.asarray(labels)]


class Step(NamedTuple):
    """An update and what it was given."""

    number: int
    key: Any
    batch: Batch
    before: Any  # the method's state
    after: Any
    metrics: Metrics


def apart(player):
    """A player whose EMA is not itself."""
    params = jax.tree.map(lambda leaf: leaf[::-1] + 0.05, player.params)
    return player._replace(ema=Average(params, player.stats))


def taken(monkeypatch, name, start=None, augment=dimmed, **changes):
    """The config and updates number 2 and 3 of a method whose classifier is `Linear`; start: parts of its state."""
    module, config = METHODS[name], tiny(name, **changes).config
    monkeypatch.setattr(classifiers, "classifier", lambda network, outputs, *_: Linear(outputs))
    for place in (augmentation, module):
        monkeypatch.setattr(place, "augment", augment, raising=False)
    method = module.make(config, SPEC)
    state = method.init(stream(0, INIT), first_batch())
    state = state._replace(classifier=apart(state.classifier), **start or {})
    step, steps = jax.jit(method.phases[0].step), []
    for number in (1, 2):
        key, batch = stream(0, number), batch_at(method, 0, number)
        after, metrics = step(state, key, jnp.int32(number), batch)
        steps.append(Step(number, key, batch, state, after, metrics))
        state = after
    return config, steps


def check_average(before, after, weight):
    """Has the EMA of a player gone this part of the way from where it was to the player?"""

    def close(found, former, latest):
        np.testing.assert_allclose(found, former + weight * (latest - former), rtol=1e-4, atol=1e-6)
        assert np.abs(np.subtract(found, former)).max() > 1e-3

    jax.tree.map(close, after.ema.params, before.ema.params, after.params)


def check(step, terms):
    """Are the terms of the step's loss these, and its EMA as far between the former one and the player as it should?"""
    names = {f"classifier/{name}" for name in terms}
    known = {f"classifier/{name}" for name in ("gradient_norm", "confident", "threshold", "weight")}
    assert names == step.metrics.keys() - known
    for name, value in terms.items():
        assert abs(value) > 1e-3, name  # nothing is shown of a term that is none
        np.testing.assert_allclose(step.metrics[f"classifier/{name}"], value, rtol=2e-4, err_msg=name)
    check_average(step.before.classifier, step.after.classifier, RATE / (1 - (1 - RATE) ** (step.number + 1)))


class Pictures(nn.Module):
    """A generator whose params are its images, whatever the latents are: one of each label, or all without labels."""

    count: int

    @nn.compact
    def __call__(self, latents, labels, train):
        images = self.param("images", nn.initializers.uniform(1.0), (self.count, *SPEC.shape))
        return images if labels is None else images[labels]


class Judge(nn.Module):
    """A discriminator: four sums over pixels, its features, and `Linear` on these, with numbers of a label if given."""

    outputs: int

    @nn.compact
    def __call__(self, images, labels, train):
        pixels = images.reshape(len(images), -1)
        features = pixels @ self.param("features", nn.initializers.normal(0.2), (pixels.shape[-1], 4))
        logits = Linear(self.outputs, name="head")(features, train)
        if labels is not None:
            logits += self.param("labels", nn.initializers.normal(), (SPEC.classes, self.outputs))[labels]
        return logits, features


def judged(params, images, labels=None):
    """The logits and the features of `Judge` in float64."""
    features = np.float64(images).reshape(len(images), -1) @ np.float64(params["features"])
    logits = said(params["head"], features)
    return (logits if labels is None else logits + np.float64(params["labels"])[np.asarray(labels)]), features


def softplus(logits):
    return np.log1p(np.exp(logits))
