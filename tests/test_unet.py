"""The U-Net: its parts by numpy, any sides, where it starts, and what it looks at."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen.networks.unet import Attention, UNet, doubled, folded, frequencies, normalised, unfolded
from ssl_gen.types import UserError

RANDOM = np.random.default_rng(0)


def random(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("sides", [(8, 8), (5, 8), (4, 7), (3, 3)], ids=str)
def test_folding_lays_2_by_2_pixels_side_by_side_and_is_undone(sides):
    images = random(2, *sides, 3)
    found = folded(images)
    assert found.shape == (2, -(-sides[0] // 2), -(-sides[1] // 2), 12)
    np.testing.assert_array_equal(found[:, 0, 1, :3], images[:, 0, 2])
    np.testing.assert_array_equal(found[:, 0, 0, 9:], images[:, 1, 1])
    np.testing.assert_array_equal(unfolded(found, *sides), images)


@pytest.mark.parametrize("sides", [(6, 4), (5, 3)], ids=str)
def test_doubling_repeats_every_pixel_and_cuts_to_size(sides):
    images = random(2, 3, 2, 4)
    expected = np.asarray(images).repeat(2, 1).repeat(2, 2)[:, : sides[0], : sides[1]]
    np.testing.assert_array_equal(doubled(images, *sides), expected)


def test_noise_levels_become_waves_from_one_radian_a_unit_to_a_thousand():
    levels = np.array([0.0, 0.25, 1.0])
    found = frequencies(jnp.asarray(levels, jnp.float32), 8)
    angles = levels[:, None] * np.array([1, 10, 100, 1_000])
    np.testing.assert_allclose(found, np.concatenate([np.cos(angles), np.sin(angles)], 1), atol=1e-3)
    slower = frequencies(jnp.asarray(levels, jnp.float32), 6, 16.0)
    angles = levels[:, None] * np.array([1, 4, 16])
    np.testing.assert_allclose(slower, np.concatenate([np.cos(angles), np.sin(angles)], 1), atol=1e-5)


def test_several_noise_levels_of_an_image_stand_one_after_the_other():
    levels = jnp.array([[0.1, 0.2], [0.7, 0.0], [0.3, 1.0]])
    expected = np.concatenate([frequencies(levels[:, 0], 8), frequencies(levels[:, 1], 8)], 1)
    np.testing.assert_array_equal(frequencies(levels, 8), expected)


def test_attention_is_a_mean_of_values_by_how_well_keys_match_a_query():
    x = random(2, 3, 2, 4)
    attention = Attention()
    variables = attention.init(jax.random.key(0), x)
    np.testing.assert_array_equal(attention.apply(variables, x), x)  # its output starts at 0
    last = {"kernel": random(4, 4), "bias": random(4)}
    params = variables["params"] | {"Dense_1": last}
    pixels = np.asarray(x, np.float64).reshape(2, 6, 4)
    for image, found in zip(pixels, attention.apply({"params": params}, x), strict=True):
        seen = (image - image.mean()) / np.sqrt(image.var() + 1e-6)  # four channels are one group
        query, key, value = np.split(seen @ np.asarray(params["Dense_0"]["kernel"]), 3, 1)
        scores = np.exp(query @ key.T / 2)
        heads = scores / scores.sum(1, keepdims=True) @ value
        expected = image + heads @ np.asarray(last["kernel"]) + np.asarray(last["bias"])
        np.testing.assert_allclose(found.reshape(6, 4), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((8, 8, 1), {"widths": (4,)}),
        ((8, 13, 3), {"widths": (4, 8, 8, 8)}),
        ((28, 28, 1), {"fold": True, "attention": (1,)}),
        ((27, 9, 2), {"fold": True, "blocks": 2}),
        ((128, 128, 3), {"widths": (4, 4, 8, 8, 8), "attention": (3, 4)}),
    ],
    ids=str,
)
def test_images_of_any_sides_come_out_as_they_went_in(shape, settings):
    network = UNet(3, **settings)
    given = jnp.zeros((2, *shape)), jnp.zeros(2), jnp.zeros(2, jnp.int32)
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), *given, train=False))
    found = jax.eval_shape(lambda variables: network.apply(variables, *given, train=False), variables)
    assert found.shape == (2, *shape)


def test_images_smaller_than_8_pixels_are_refused_in_one_line():
    given = jnp.zeros((1, 8, 7, 1)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    with pytest.raises(UserError, match="8 x 7 pixels are too small"):
        UNet(3).init(jax.random.key(0), *given, train=False)


def test_the_output_starts_at_0_and_then_depends_on_pixel_noise_and_class():
    network = UNet(2, (8,))
    images, levels, labels = random(1, 8, 8, 1), jnp.array([0.4]), jnp.array([1])
    variables = network.init(jax.random.key(0), images, levels, labels, train=False)
    run = jax.jit(lambda variables, *given: network.apply(variables, *given, train=False))
    assert not run(variables, images, levels, labels).any()
    moved = jax.tree.map(lambda leaf: leaf + 0.1 * random(*leaf.shape), variables)
    found = run(moved, images, levels, labels)
    for given in (
        (images.at[0, 0, 0].add(1), levels, labels),
        (images, levels + 0.1, labels),
        (images, levels, labels + 1),
        (images, levels, labels - 1),
    ):
        assert float(jnp.abs(run(moved, *given) - found).max()) > 1e-3


@pytest.mark.parametrize(("channels", "groups"), [(3, 1), (24, 6), (30, 6), (64, 16), (240, 30), (720, 30), (7, 1)])
def test_any_number_of_channels_has_a_norm_in_equal_groups_of_at_least_4(channels, groups):
    """At most 32 of them, of 4 channels or more where there are as many (Wu and He 2018, arXiv:1803.08494, eq. 1)."""
    x = random(2, 3, 3, channels)
    found = Norm().apply({}, x)
    parts = np.asarray(x).reshape(2, 9, groups, -1)
    mean, variance = parts.mean((1, 3), keepdims=True), parts.var((1, 3), keepdims=True)
    np.testing.assert_allclose(found, ((parts - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape), atol=1e-5)


class Norm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return normalised(x, affine=False)
