"""Networks for images of any size, their conditioning and their normalisation."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen.networks import conv, conv9, mlp
from ssl_gen.networks.airbench import Airbench
from ssl_gen.networks.conv13 import Conv13
from ssl_gen.networks.feature_matching import generator_and_discriminator
from ssl_gen.networks.layers import GaussianNoise, WeightNormDense
from ssl_gen.networks.normalisation import ConditionalBatchNorm, Dense, SpectralNorm
from ssl_gen.networks.unet import UNet
from ssl_gen.networks.wide_resnet import WideResNet
from ssl_gen.types import ImageSpec, UserError

CLASSES, BATCH, LATENT = 3, 6, 5
SHAPES = [(8, 8, 1), (28, 28, 1), (33, 47, 3), (16, 100, 2), (128, 128, 3)]
LABELS = jnp.arange(BATCH) % CLASSES


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def keys(seed=0):
    return dict(zip(("params", "noise", "dropout"), jax.random.split(jax.random.key(seed), 3), strict=True))


@functools.partial(jax.jit, static_argnums=0)
def started(module, *arguments):
    """-> output on the first batch in training, variables."""
    return module.init_with_output(keys(), *arguments, train=True)


def images(shape):
    return jnp.tanh(draw(BATCH, *shape))


def networks(shape):
    """name: (network, its arguments without `train`, its output shapes)."""
    latents, maps = draw(BATCH, LATENT), (BATCH, *shape)
    narrow = functools.partial(dict, classes=CLASSES, width=4)
    return {
        "generator": (conv.Generator(shape, **narrow()), (latents, LABELS), maps),
        "generator, conditional batch norm": (
            conv.Generator(shape, **narrow(conditioning="conditional_batch_norm")),
            (latents, LABELS),
            maps,
        ),
        "generator, unconditional": (conv.Generator(shape, **narrow()), (latents, None), maps),
        "decoder": (conv.Decoder(shape, **narrow()), (latents, LABELS), maps),
        "encoder": (conv.Encoder(7, **narrow()), (images(shape), LABELS), (BATCH, 7)),
        "classifier": (conv.Classifier(**narrow(dropout=0.5)), (images(shape),), (BATCH, CLASSES)),
        "discriminator, weight norm": (
            conv.Discriminator(2, **narrow(normalisation="weight", input_noise=0.1)),
            (images(shape), LABELS),
            (BATCH, 2),
        ),
        "discriminator of 9 layers, unconditional": (
            conv9.Discriminator(2, 4, (0.2, 0.5, 0.5)),
            (images(shape), None),
            (BATCH, 2),
        ),
        "discriminator, spectral norm and projection": (
            conv.Discriminator(1, **narrow(normalisation="spectral", conditioning="projection", dropout=0.2)),
            (images(shape), LABELS),
            (BATCH, 1),
        ),
        "mlp generator": (mlp.Generator(shape, CLASSES, (8, 8)), (latents, LABELS), maps),
        "mlp decoder": (mlp.Decoder(shape, CLASSES, (8, 8)), (latents, LABELS), maps),
        "mlp encoder": (mlp.Encoder(7, CLASSES, (8, 8)), (images(shape), LABELS), (BATCH, 7)),
        "mlp classifier": (mlp.Classifier(CLASSES, (8, 8), 0.5), (images(shape),), (BATCH, CLASSES)),
        "mlp discriminator": (mlp.Discriminator(2, CLASSES, (8, 8)), (images(shape), LABELS), (BATCH, 2)),
        "mlp discriminator, projection": (
            mlp.Discriminator(1, CLASSES, (8, 8), conditioning="projection", use_bias=False),
            (images(shape), LABELS),
            (BATCH, 1),
        ),
    }


NAMES = list(networks((8, 8, 1)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_network_takes_images_of_any_size(shape):
    for name, (network, arguments, expected) in networks(shape).items():
        output, _ = jax.eval_shape(functools.partial(started, network), *arguments)
        if isinstance(output, tuple):
            output, features = output
            assert features.ndim == 2, name
        assert output.shape == expected, name


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_gradient(name):
    network, arguments, expected = networks((8, 8, 1))[name]
    _, variables = started(network, *arguments)
    weights, rest = draw(*expected, seed=1), {k: v for k, v in variables.items() if k != "params"}

    @jax.jit
    def gradients(params):
        def loss(params):
            output, _ = network.apply(
                {"params": params, **rest}, *arguments, train=True, rngs=keys(1), mutable=list(rest)
            )
            return (weights * (output[0] if isinstance(output, tuple) else output)).sum()

        return jax.grad(loss)(params)

    for path, gradient in jax.tree.leaves_with_path(gradients(variables["params"])):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-8, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", [name for name in NAMES if "generator" in name])
def test_generated_images_lie_between_minus_1_and_1(name):
    network, (latents, labels), _ = networks((9, 11, 2))[name]
    output, variables = started(network, latents, labels)
    large = network.apply(variables, 100 * latents, labels, train=False)
    assert np.abs(output).max() <= 1 and np.abs(large).max() <= 1
    assert output.min() < 0 < output.max()


NOISY = {
    name: given[:2] for name, given in networks((8, 8, 1)).items() if "discriminator" in name or "classifier" in name
} | {
    "unet": (UNet(CLASSES, (4,), dropout=0.5), (images((8, 8, 1)), jnp.linspace(0, 1, BATCH), LABELS)),
    "conv13": (Conv13(CLASSES, 4), (images((8, 8, 1)),)),
    "airbench": (Airbench(CLASSES, 4, dropout=0.5), (images((8, 8, 1)),)),
    "wide_resnet": (WideResNet(CLASSES, 4, 1, 0.5), (images((8, 8, 1)),)),
}


@pytest.mark.parametrize("name", NOISY)
def test_noise_and_dropout_are_on_in_training_only(name):
    network, arguments = NOISY[name]
    _, variables = started(network, *arguments)
    random = np.random.default_rng(1)  # a U-Net ends in zeros
    params = jax.tree.map(lambda leaf: leaf + 0.1 * random.normal(size=leaf.shape), variables["params"])
    variables = variables | {"params": params}

    @functools.partial(jax.jit, static_argnums=1)
    def output(seed, train):
        rngs = {"noise": jax.random.key(seed), "dropout": jax.random.key(seed)}
        result, _ = network.apply(variables, *arguments, train=train, rngs=rngs, mutable=["batch_stats"])
        return result[0] if isinstance(result, tuple) else result

    assert np.abs(output(0, True) - output(1, True)).max() > 1e-4
    np.testing.assert_array_equal(output(0, False), output(1, False))


@pytest.mark.parametrize("name", [name for name in NAMES if "unconditional" not in name and "classifier" not in name])
def test_labels_matter_and_one_hot_labels_are_the_same_labels(name):
    network, (first, labels), _ = networks((8, 8, 1))[name]
    _, variables = started(network, first, labels)
    noisy = np.random.default_rng(2)  # conditional batch norm starts equal for all classes
    variables = jax.tree.map(
        lambda leaf: leaf + 0.1 * jnp.asarray(noisy.normal(size=leaf.shape), leaf.dtype), variables
    )
    answer = jax.jit(lambda labels: jax.tree.leaves(network.apply(variables, first, labels, train=False))[0])
    np.testing.assert_allclose(answer(labels), answer(jax.nn.one_hot(labels, CLASSES)), atol=1e-6)
    assert np.abs(answer(labels) - answer((labels + 1) % CLASSES)).max() > 1e-4


def test_the_first_maps_of_a_generator_with_conditional_batch_norm_know_the_label():
    """At `init` every class has one scale and one bias, so that whatever differs comes from the label beside z."""
    generator = conv.Generator((8, 8, 1), 3, 4, "conditional_batch_norm")
    latents, labels = jnp.ones((3, 4)), jnp.arange(3)
    images, _ = generator.init_with_output(jax.random.key(0), latents, labels, train=False)
    assert jnp.abs(images[0] - images[1]).max() > 0.01


@pytest.mark.parametrize("width", [64, 96])  # SVHN, CIFAR-10
def test_the_discriminator_of_9_layers_has_those_of_the_official_script(width):
    network = conv9.Discriminator(10, width)
    photographs = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    (logits, features), variables = jax.eval_shape(
        lambda x: network.init_with_output(keys(), x, None, train=True), photographs
    )
    first, second = width, 2 * width
    kernels = [(3, 3, 3, first), *[(3, 3, first, first)] * 2, (3, 3, first, second), *[(3, 3, second, second)] * 3]
    kernels += [(1, 1, second, second)] * 2
    found = [variables["params"][f"Convolution_{layer}"] for layer in range(9)]
    assert [layer["direction"].shape for layer in found] == kernels
    assert all("scale" not in layer for layer in found) and len(variables["constants"]) == 9
    assert variables["params"]["WeightNormDense_0"]["direction"].shape == (second, 10)
    assert logits.shape == (2, 10) and features.shape == (2, second)


def test_the_logits_of_the_discriminator_of_9_layers_start_small():
    logits, _ = started(conv9.Discriminator(3, 4), draw(50, 8, 8, 1), None)[0]
    np.testing.assert_allclose(logits.std(0), 0.1, atol=1e-3)


def test_the_players_of_feature_matching_are_of_the_sizes_asked_for():
    """Linen modules are equal where all their fields are."""
    spec, sizes = ImageSpec(8, 9, 3, 5), ((6,), (7, 8), (0.1, 0.2), 4, 3, (0.3, 0.4, 0.5))
    assert generator_and_discriminator("mlp", spec, *sizes) == (
        mlp.Generator((8, 9, 3), 5, hidden=(6,)),
        mlp.Discriminator(outputs=5, classes=5, hidden=(7, 8), input_noise=0.1, noise=0.2),
    )
    assert generator_and_discriminator("conv", spec, *sizes) == (
        conv.Generator((8, 9, 3), 5, width=4),
        conv9.Discriminator(outputs=5, width=3, dropout=(0.3, 0.4, 0.5)),
    )
    with pytest.raises(UserError, match="network is 'unet'"):
        generator_and_discriminator("unet", spec, *sizes)


def test_the_noise_of_discriminators_is_in_units_of_pixels_in_0_to_1():
    """A dense network flattens to [0, 1] first; a convolutional one sees [-1, 1]: twice as much is the same."""
    pixels = images((8, 8, 1))
    for network, unit in (
        (mlp.Discriminator(1, 2, (4,), 0.1), 1.0),
        (conv.Discriminator(1, 2, 4, input_noise=0.1), 2.0),
    ):
        _, variables = network.init_with_output(keys(), pixels, None, train=True)
        _, kept = network.apply(
            variables, pixels, None, train=True, rngs=keys(), capture_intermediates=True, mutable="intermediates"
        )
        noisy = kept["intermediates"]["GaussianNoise_0"]["__call__"][0].reshape(BATCH, -1)
        added = noisy - (pixels.reshape(BATCH, -1) + (2 - unit)) * unit / 2
        np.testing.assert_allclose(added.std(), 0.1 * unit, rtol=0.1)


@pytest.mark.parametrize("layer", [WeightNormDense(4, init_deviation=0.5), WeightNormDense(4, train_scale=False)])
def test_weight_norm_dense_starts_with_mean_0_and_its_deviation_on_the_first_batch(layer):
    y, variables = layer.init_with_output(jax.random.key(0), 3 + 2 * draw(50, 7))
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(0), layer.init_deviation, atol=1e-4)
    assert ("scale" in variables["params"]) == layer.train_scale


def test_weight_norm_without_bias_sets_the_deviation_and_leaves_the_mean():
    x = 3 + 2 * draw(50, 7)
    y, variables = WeightNormDense(4, use_bias=False).init_with_output(jax.random.key(0), x)
    direction, scale = variables["params"]["direction"], variables["params"]["scale"]
    assert set(variables["params"]) == {"direction", "scale"}
    np.testing.assert_allclose(y, x @ (direction / np.linalg.norm(direction, axis=0)) * scale, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(y.std(0), 1, atol=1e-4)
    other, variables = Dense(4, "weight", use_bias=False).init_with_output(jax.random.key(0), x, True)
    assert set(variables["params"]) == {"direction", "scale"}
    np.testing.assert_allclose(other.std(0), 1, atol=1e-4)


def test_gaussian_noise_has_the_given_deviation():
    noise = GaussianNoise(0.3).apply({}, jnp.ones((200, 200)), True, rngs={"noise": jax.random.key(0)}) - 1
    assert abs(float(noise.std()) - 0.3) < 5 * 0.3 / np.sqrt(2 * 200**2)  # five standard errors of a deviation


def test_flattened_pixels_lie_between_0_and_1_and_come_back():
    shape = (2, 3, 1)
    pixels = mlp.flatten(images(shape))
    assert pixels.shape == (BATCH, 6) and pixels.min() >= 0 and pixels.max() <= 1
    np.testing.assert_allclose(mlp.unflatten(pixels, shape), images(shape), atol=1e-6)


def test_conditional_batch_norm_scales_and_shifts_by_class():
    x, layer = draw(BATCH, 4, 3, 2), ConditionalBatchNorm(CLASSES)
    scale, bias = draw(CLASSES, 2, seed=1), draw(CLASSES, 2, seed=2)
    _, variables = started(layer, x, LABELS)
    y, _ = layer.apply(
        variables | {"params": {"scale": scale, "bias": bias}}, x, LABELS, train=True, mutable=["batch_stats"]
    )
    normal = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    expected = [normal[i] * scale[LABELS[i]] + bias[LABELS[i]] for i in range(BATCH)]
    np.testing.assert_allclose(y, expected, atol=1e-4)


@pytest.mark.parametrize(
    "network",
    [
        conv.Discriminator(1, CLASSES, 4, conditioning="projection"),
        mlp.Discriminator(1, CLASSES, (8, 8), conditioning="projection"),
    ],
    ids=["conv", "mlp"],
)
def test_the_projection_logit_is_the_plain_logit_plus_the_product_with_the_class_vector(network):
    _, variables = started(network, images((8, 8, 1)), LABELS)
    logits, features = network.apply(variables, images((8, 8, 1)), LABELS, train=False)
    plain, same = network.apply(variables, images((8, 8, 1)), None, train=False)
    vectors = variables["params"]["Projection_0"]["Dense_0"]["kernel"]
    expected = [plain[i, 0] + features[i] @ vectors[:, LABELS[i]] for i in range(BATCH)]
    np.testing.assert_allclose(logits[:, 0], expected, rtol=1e-4)
    np.testing.assert_array_equal(features, same)


def test_spectral_norm_brings_the_largest_singular_value_to_1_and_moves_in_training_only():
    layer, kernel = SpectralNorm(), draw(3, 3, 4, 6)
    _, variables = started(layer, kernel)
    step = jax.jit(lambda variables: layer.apply(variables, kernel, train=True, mutable=["batch_stats"]))
    for _ in range(200):
        normalised, variables = step(variables)
    largest = np.linalg.svd(np.reshape(normalised, (-1, 6)), compute_uv=False)[0]
    assert abs(largest - 1) < 1e-3
    _, after = layer.apply(variables, kernel, train=False, mutable=["batch_stats"])
    np.testing.assert_array_equal(after["batch_stats"]["right"], variables["batch_stats"]["right"])


def test_batch_norm_follows_no_bias():
    for name in ("generator", "decoder", "encoder", "classifier"):
        network, arguments, _ = networks((16, 16, 1))[name]
        variables = jax.eval_shape(functools.partial(started, network), *arguments)[1]
        with_bias = [p for p, _ in jax.tree.leaves_with_path(variables["params"]) if "bias" in str(p[-1])]
        layers = [jax.tree_util.keystr(path) for path in with_bias if "BatchNorm" not in jax.tree_util.keystr(path)]
        assert len(layers) == 1, layers  # the output layer alone


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        (conv.Generator((6, 6, 1), CLASSES), (draw(2, 3), None), "6 x 6 pixels are too small"),
        (conv.Generator((8, 8, 1), CLASSES, conditioning="projection"), (draw(2, 3), None), "conditioning is"),
        (conv.Discriminator(1, CLASSES, normalisation="batch"), (draw(2, 8, 8, 1), None), "normalisation is"),
        (conv.Discriminator(2, CLASSES, conditioning="projection"), (images((8, 8, 1)), LABELS), "one logit and got 2"),
        (mlp.Discriminator(1, CLASSES, conditioning="other"), (images((8, 8, 1)), LABELS), "conditioning is 'other'"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(network, arguments, message):
    with pytest.raises(UserError, match=message):
        network.init(keys(), *arguments, train=True)
