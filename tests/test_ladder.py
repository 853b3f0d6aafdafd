"""Rasmus et al. 2015: the combinator by hand, encoder, decoder, costs and running moments by numpy, settings."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import IMAGES, tiny

from ssl_gen.core import gradient
from ssl_gen.core.batching import separate
from ssl_gen.core.keys import stream
from ssl_gen.methods.variational.ladder import PHOTOGRAPHS, Config, denoising_cost, layer_weights, make
from ssl_gen.networks import ladder as networks
from ssl_gen.networks.ladder import Encoder, Moments, combinator_start, combine, draw_noise
from ssl_gen.types import Batch, ImageSpec, UserError

SCALED = IMAGES.astype(np.float32) / 127.5 - 1
BATCH = Batch(SCALED[:4], jnp.array([0, 2, 1, 1]), SCALED[4:12])
HIDDEN = (5, 4)
LAYERS = len(HIDDEN) + 2
WEIGHTS = {"full": {0: 1000.0, 1: 10.0, 2: 0.1, 3: 0.1}, "gamma": {3: 0.5}}  # the paper's, 100 labels


# The combinator


def test_a_combinator_by_hand():
    """s(0) = 1/2 and s(log 3) = 3/4."""
    a = np.zeros((2, 5, 3), np.float32)
    a[0] = np.array([[2, 1, 0, 3, 1], [2, 1, 0, 3, 1], [4, 0, math.log(3), 0, -1]]).T
    a[1] = np.array([[4, 5, 0, 6, -1.5], [0, 0, 0, 0, 1], [0, 0, 0, 2, 0]]).T
    above = np.array([[0, math.log(3), 0.25]])
    # m = 2/2 + 1 = 2, v = 4/2 - 3/2 = 1/2;  v = 1: as it came;  m = 3 - 1 = 2, v = 2/4
    np.testing.assert_allclose(combine(jnp.array([[6.0, 7.0, 3.0]]), above, a), [[4.0, 7.0, 2.5]], rtol=1e-5)


def test_a_combinator_starts_by_telling_nothing():
    a = combinator_start(jax.random.key(0), (2, 5, 3))
    np.testing.assert_array_equal(combine(jnp.ones((4, 3)), jnp.ones((4, 3)), a), np.zeros((4, 3)))


def test_a_denoising_cost_is_a_mean_of_squares_in_units_of_the_clean_deviation():
    clean, denoised = jnp.array([[1.0, -1.0], [0.0, 2.0]]), jnp.array([[5.0, 0.0], [3.0, 4.0]])
    moments = Moments(jnp.array([3.0, 2.0]), jnp.array([4.0, 1.0]))
    # (5 - 3) / 2 = 1, (0 - 2) / 1 = -2, (3 - 3) / 2 = 0, (4 - 2) / 1 = 2; only the second is off, by 1
    np.testing.assert_allclose(denoising_cost(clean, denoised, moments), 1 / 4, rtol=1e-6)


# The whole by numpy


def moments(x):
    return x.mean(0), x.var(0)


def norm(x, mean, variance):
    return (x - mean) / np.sqrt(variance + 1e-10)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def encoded(params, images, noise=(0.0,) * LAYERS, given=None):
    """z from the image up, the moments of each layer above it, logits."""
    x = (np.float64(images).reshape(len(images), -1) + 1) / 2 + noise[0]
    z, used = [x], []
    for layer in range(1, LAYERS):
        x = x @ np.float64(params[f"Dense_{layer - 1}"]["kernel"])
        used.append(moments(x) if given is None else given[layer - 1])
        z.append(norm(x, *used[-1]) + noise[layer])
        x = z[-1] + params[f"bias_{layer}"]
        x = x * params["scale"] if layer == LAYERS - 1 else np.maximum(x, 0)
    return z, used, x


def decoded(params, z, logits, lowest):
    """The denoised z by layer."""
    above, denoised = softmax(logits), {}
    for place, layer in enumerate(reversed(range(lowest, LAYERS))):
        if place:
            above = denoised[layer + 1] @ np.float64(params[f"Dense_{place - 1}"]["kernel"])
        u = norm(above, *moments(above))
        a = np.float64(params[f"combinator_{layer}"]).reshape(10, -1)
        m = a[0] * sigmoid(a[1] * u + a[2]) + a[3] * u + a[4]
        v = a[5] * sigmoid(a[6] * u + a[7]) + a[8] * u + a[9]
        denoised[layer] = (z[layer] - m) * v + m
    return denoised


def as_it_stands(name, player, optimizer, loss, forward=None):
    """In the place of `descend`: the terms and the collections after the pass, the params as they are."""
    terms, stats = loss(player.params)
    return player._replace(stats=stats), terms


def known_noise(key, shapes, deviation):
    rng = np.random.default_rng(0)
    return tuple(np.float32(deviation * rng.normal(size=shape)) for shape in shapes)


@functools.cache
def passed(variant):
    """A state with drawn params, the state after a pass of the batch, the terms of that pass with known noise."""
    method = tiny("ladder", variant=variant, hidden=HIDDEN, noise=0.2).method

    def both(key):
        state = method.init(key, BATCH)
        leaves, tree = jax.tree.flatten(state.model.params)
        keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
        drawn = [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
        state = state._replace(model=state.model._replace(params=jax.tree.unflatten(tree, drawn)))
        return state, *method.phases[0].step(state, stream(0, 0), jnp.int32(0), BATCH)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient, "descend", as_it_stands)
        patch.setattr(networks, "draw_noise", known_noise)
        return method, *jax.jit(both)(jax.random.key(0))


@pytest.mark.parametrize("variant", WEIGHTS)
def test_the_loss_is_that_of_the_paper_and_gamma_has_its_last_cost_alone(variant):
    _, state, _, terms = passed(variant)
    params, weights = state.model.params, WEIGHTS[variant]
    widths = (math.prod(SCALED.shape[1:]), *HIDDEN, 3)
    parts = [separate(each, (4, 8)) for each in known_noise(None, [(12, width) for width in widths], 0.2)]
    labelled_noise, noise = zip(*parts, strict=True)
    logits = encoded(params["encoder"], BATCH.labelled, labelled_noise)[2]
    clean, used, _ = encoded(params["encoder"], BATCH.unlabelled)
    noisy, _, above = encoded(params["encoder"], BATCH.unlabelled, noise)
    denoised = decoded(params["decoder"], noisy, above, min(weights))
    expected = {"supervised": -np.log(softmax(logits)[np.arange(4), BATCH.labels]).mean()}
    for layer, weight in weights.items():
        found = norm(denoised[layer], *used[layer - 1]) if layer else denoised[layer]
        expected[f"denoising_{layer}"] = weight * ((found - clean[layer]) ** 2).mean()
    assert set(terms) == set(expected)
    for term, value in expected.items():
        np.testing.assert_allclose(terms[term], value, rtol=1e-3)


def test_gamma_has_no_decoder_below_the_logits():
    _, state, _, _ = passed("gamma")
    assert set(state.model.params["decoder"]) == {"combinator_3"}


def test_running_moments_are_those_of_the_clean_labelled_images_and_classify():
    method, before, after, _ = passed("full")
    old, new = (state.model.stats["batch_stats"]["moments"] for state in (before, after))
    params = after.model.params["encoder"]
    running = []
    for layer, (mean, variance) in enumerate(encoded(params, BATCH.labelled)[1], 1):
        expected = 0.9 * old[layer].mean + 0.1 * mean, 0.9 * old[layer].variance + 0.1 * variance * 4 / 3
        for one, other in zip(new[layer], expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
        running.append(tuple(map(np.float64, expected)))
    logits = encoded(params, SCALED[:3], given=running)[2]
    np.testing.assert_allclose(
        jax.jit(method.classify)(after, SCALED[:3]), np.log(softmax(logits)), rtol=1e-3, atol=1e-6
    )


def test_noise_has_its_deviation_in_each_layer_and_is_drawn_apart():
    image, hidden = draw_noise(jax.random.key(0), [(60, 5, 5, 3), (60, 75)], 0.3)
    assert image.shape == (60, 5, 5, 3) and hidden.shape == (60, 75)
    for each in (image, hidden):  # 4500 numbers: known within a few per cent
        np.testing.assert_allclose(np.std(each), 0.3, rtol=0.06)
    assert abs(np.corrcoef(image.ravel(), hidden.ravel())[0, 1]) < 0.1


# Settings


@pytest.mark.parametrize(
    ("denoising", "expected"),
    [
        ((1000.0, 10.0, 0.1), (1000.0, 10.0, *(0.1,) * 5)),  # official script, 100 labels
        ((5000.0, 0.0), (5000.0, *(0.0,) * 6)),  # official script, bottom
        ((0.0, 0.0, 3.0), (3.0,) * 5),
    ],
)
def test_the_last_weight_serves_all_layers_above_and_none_is_decoded_below_the_first(denoising, expected):
    assert layer_weights(Config(denoising=denoising)) == expected


def test_the_convolutional_network_is_the_papers_for_cifar_10():
    """Conv-Large: the sides by hand, valid convolutions taking 2 pixels off and full ones adding 2."""
    network = Encoder(10, "conv", scale=PHOTOGRAPHS.scale)
    images, rngs = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32), {"params": jax.random.key(0)}
    (path,), variables = jax.eval_shape(lambda x: network.init_with_output(rngs, (x,)), images)
    assert [z.shape[1] for z in path.z[:-1]] == [32, 30, 32, 34, 17, 15, 17, 15, 8, 6, 6, 6]
    assert [z.shape[-1] for z in path.z] == [3, *[96] * 4, *[192] * 6, 10, 10]
    assert path.z[-1].shape == path.logits.shape == (2, 10) and "scale" not in variables["params"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "half"}, "choose one of full, gamma"),
        ({"network": "conv"}, "take --config.variant gamma"),
        ({"denoising": (1.0,) * 8}, "give 1 to 7 weights"),
        ({"denoising": (0.0,)}, "one above 0"),
        ({"labelled_batch": 1}, "take 2 or more"),
        ({"unlabelled_batch": 150}, "no multiple of labelled_batch"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_a_line(changes, message):
    with pytest.raises(UserError, match=message):
        make(dataclasses.replace(Config(), **changes), ImageSpec(28, 28, 1, 10))


def test_photographs_are_denoised_at_the_logits_alone():
    assert layer_weights(PHOTOGRAPHS) == (4.0,)
