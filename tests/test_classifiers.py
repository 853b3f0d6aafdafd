"""The large classifiers: their shapes and numbers of parameters against the papers' tables, and their own layers."""

import functools
from math import prod
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen.networks.classifiers import Network, classifier
from ssl_gen.networks.conv13 import MOMENTUM, Conv13, NormalisedConvolution
from ssl_gen.networks.wide_resnet import Block, WideResNet
from ssl_gen.types import UserError

CIFAR = (32, 32, 3)
KEYS = dict(zip(("params", "dropout"), jax.random.split(jax.random.key(0)), strict=True))


def shapes(network, shape, batch=2):
    """The network's output and variables on images of a shape, nothing computed; each variable as its shape."""
    images = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    start = functools.partial(
        network.init_with_output, KEYS, train=True, mutable=["params", "batch_stats", "constants"]
    )
    return jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(start, images), is_leaf=lambda x: hasattr(x, "shape"))


def of(tree):
    """The shapes of a tree of shapes."""
    return jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, tuple))


def parameters(network, shape=CIFAR):
    return sum(prod(leaf) for leaf in of(shapes(network, shape)[1]["params"]))


def test_wrn_28_2_has_the_layers_of_the_paper():
    """Zagoruyko and Komodakis 2016, table 1: 16, then three groups of 4 blocks of 32, 64 and 128 channels."""
    expected, channels = 3 * 3 * 3 * 16, 16
    for width in (32, 64, 128):
        for _ in range(4):
            norms, convolutions = 2 * (channels + width), 9 * width * (channels + width)
            expected += norms + convolutions + (channels * width if channels != width else 0)
            channels = width
    expected += 2 * channels + (channels + 1) * 10
    assert parameters(WideResNet(10)) == expected
    assert round(expected / 1e6, 1) == 1.5
    kernels = [leaf for leaf in of(shapes(WideResNet(10), CIFAR)[1]["params"]) if len(leaf) == 4]
    assert len(kernels) == 28


def test_conv_13_has_the_layers_of_the_paper():
    """Laine and Aila 2017, table 5; beside its weights each channel has a scale and a bias."""
    layers = [(3, 3, 128), (3, 128, 128), (3, 128, 128), (3, 128, 256), (3, 256, 256), (3, 256, 256)]
    layers += [(3, 256, 512), (1, 512, 256), (1, 256, 128), (1, 128, 10)]
    expected = sum(size**2 * inputs * outputs + 2 * outputs for size, inputs, outputs in layers)
    assert parameters(Conv13(10)) == expected
    assert round(expected / 1e6, 1) == 3.1
    kernels = [leaf for leaf in of(shapes(Conv13(10), CIFAR)[1]["params"]) if len(leaf) == 4]
    assert sorted(kernels) == sorted((size, size, inputs, outputs) for size, inputs, outputs in layers)


@pytest.mark.parametrize("shape", [(8, 8, 1), (11, 9, 1), (28, 28, 1), (33, 47, 3), (96, 96, 3)], ids=str)
@pytest.mark.parametrize("name", get_args(Network))
def test_every_classifier_takes_images_of_any_size(name, shape):
    output, _ = shapes(classifier(name, 7, (8, 8), 4, 0.5), shape, batch=3)
    assert output == (3, 7)


def test_an_unknown_classifier_is_named():
    with pytest.raises(UserError, match="network is 'resnet': choose one of mlp, conv, conv13, wide_resnet, airbench"):
        classifier("resnet", 10, (8,), 4, 0.5)


def test_dropout_of_a_wide_resnet_is_of_the_last_features_alone():
    """Pham et al. 2021, code (modeling.py): blocks have none."""
    network, images = WideResNet(3, 4, blocks=1, dropout=0.5), jnp.ones((2, 8, 8, 1))
    variables = network.init(jax.random.key(0), images, train=False)

    def features(seed):
        logits, kept = network.apply(
            variables,
            images,
            train=True,
            rngs={"dropout": jax.random.key(seed)},
            mutable=["batch_stats", "intermediates"],
        )
        return logits, kept["intermediates"]["features"][0]

    (logits, same), (others, still) = features(0), features(1)
    np.testing.assert_array_equal(same, still)
    assert np.abs(logits - others).max() > 1e-4


def test_a_block_whose_last_convolution_is_zero_changes_nothing():
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 3))
    _, variables = Block(3).init_with_output(KEYS, x, train=True)
    last = variables["params"]["Convolution_1"]
    variables["params"]["Convolution_1"] = jax.tree.map(jnp.zeros_like, last)
    np.testing.assert_array_equal(Block(3).apply(variables, x, train=False), x)


@functools.partial(jax.jit, static_argnums=2)
def normalised(variables, x, train):
    return NormalisedConvolution(4).apply(variables, x, train=train, mutable=["batch_stats"])


def test_mean_only_batch_norm_takes_off_the_mean_of_the_batch_and_later_the_running_one():
    x, other = 3 + jax.random.normal(jax.random.key(1), (2, 5, 6, 6, 2))
    first, variables = NormalisedConvolution(4).init_with_output(KEYS, x, train=True)
    np.testing.assert_allclose(first.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(first.std((0, 1, 2)), 1, atol=1e-4)

    kernel = variables["params"]["direction"] / np.sqrt((variables["params"]["direction"] ** 2).sum((0, 1, 2)))
    plain = jax.lax.conv_general_dilated(other, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    plain = plain * variables["params"]["scale"]
    mean = plain.mean((0, 1, 2))
    trained, after = normalised(variables, other, True)
    np.testing.assert_allclose(trained, plain - mean, atol=1e-4)
    running = MOMENTUM * variables["batch_stats"]["mean"] + (1 - MOMENTUM) * mean
    np.testing.assert_allclose(after["batch_stats"]["mean"], running, rtol=1e-5)
    evaluated, still = normalised(variables | after, other, False)
    np.testing.assert_allclose(evaluated, plain - running, atol=1e-4)
    np.testing.assert_array_equal(still["batch_stats"]["mean"], after["batch_stats"]["mean"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv13", "wide_resnet", "airbench"])
def test_every_parameter_has_a_gradient(name):
    network = classifier(name, 3, (), 4, 0.0)
    images = jnp.tanh(jax.random.normal(jax.random.key(1), (6, 8, 8, 1)))
    variables = jax.jit(functools.partial(network.init, train=True))(KEYS, images)

    def loss(params):
        output, _ = network.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])
        return (output * jax.random.normal(jax.random.key(2), output.shape)).sum()

    for path, gradient in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(variables["params"])):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-6, jax.tree_util.keystr(path)
