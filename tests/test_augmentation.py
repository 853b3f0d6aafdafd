"""Random changes of images, against the same changes made pixel by pixel in numpy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from ssl_gen.augmentation import DIFF_AUGMENT, Augmentation, augment, operations, random_affine, recolour
from ssl_gen.augmentation.geometry import affine, crop, cutout, shifted
from ssl_gen.augmentation.operations import operate, random_operations

KEY = jax.random.key(3)
AFFINE = jax.jit(affine)
CROP = jax.jit(crop)
TALL = np.random.default_rng(0).uniform(-1, 1, (4, 7, 5, 3)).astype(np.float32)
SQUARE = np.random.default_rng(1).uniform(-1, 1, (2, 6, 6, 1)).astype(np.float32)
EVERYTHING = Augmentation(2, 30, scale=0.2, shear=0.2, noise=0.3, cutout=0.4, flip=True, crop=2, shift=2, operations=1)
PIXELS = np.random.default_rng(2).integers(30, 200, (12, 10, 3), np.uint8)  # neither black nor white


@functools.cache
def jitted(config):
    return jax.jit(lambda key, images: augment(config, key, images))


def same_for_all(images, matrix, shift):
    """`affine` with one matrix (2, 2) and one shift (2,) for every image."""
    matrices = np.tile(np.float32(matrix), (len(images), 1, 1))
    return AFFINE(images, matrices, np.tile(np.float32(shift), (len(images), 1)))


def resampled(image, matrix, shift):
    """One image (H, W, C), pixel by pixel: the mean of the four input pixels around the point, the edge repeated."""
    height, width, _ = image.shape
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    output = np.empty_like(image)
    for i in range(height):
        for j in range(width):
            y, x = np.clip(matrix @ (np.array([i, j]) - centre) + centre + shift, 0, [height - 1, width - 1])
            output[i, j] = sum(
                image[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
                for row in {int(np.floor(y)), int(np.ceil(y))}
                for column in {int(np.floor(x)), int(np.ceil(x))}
            )
    return output


def test_the_default_changes_nothing():
    images = jnp.asarray(TALL)
    assert augment(Augmentation(), KEY, images) is images


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, -2), (-3, 2), (9, 9)])
def test_a_shift_by_whole_pixels_moves_them_and_repeats_the_edge(shift):
    down, right = shift
    wide = np.pad(TALL, ((0, 0), (9, 9), (9, 9), (0, 0)), mode="edge")
    expected = wide[:, 9 + down : 16 + down, 9 + right : 14 + right]
    np.testing.assert_allclose(same_for_all(TALL, np.eye(2), shift), expected, atol=1e-6)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_quarter_turn_is_that_of_numpy(turns):
    # Output p shows input matrix @ p; np.rot90 takes output (i, j) from input (j, -i) about the centre.
    matrix = np.linalg.matrix_power([[0, 1], [-1, 0]], turns)
    np.testing.assert_allclose(same_for_all(SQUARE, matrix, (0, 0)), np.rot90(SQUARE, turns, axes=(1, 2)), atol=1e-6)


def test_a_half_turn_of_an_oblong_image_is_about_its_centre():
    np.testing.assert_allclose(same_for_all(TALL, -np.eye(2), (0, 0)), TALL[:, ::-1, ::-1], atol=1e-6)


def test_any_affine_change_is_bilinear_resampling_of_each_image_by_its_own_matrix():
    random = np.random.default_rng(2)
    matrices, shifts = np.eye(2) + random.normal(0, 0.3, (4, 2, 2)), random.uniform(-2, 2, (4, 2))
    expected = [resampled(*each) for each in zip(TALL, matrices, shifts, strict=True)]
    np.testing.assert_allclose(AFFINE(*map(np.float32, (TALL, matrices, shifts))), expected, atol=1e-5)


@jax.jit
def random_affine_of(amounts):
    return random_affine(Augmentation(*amounts), KEY, 256)


def drawn(translate=0.0, rotate=0.0, scale=0.0, shear=0.0):
    """256 random matrices and shifts, float64."""
    return (np.asarray(each, np.float64) for each in random_affine_of((translate, rotate, scale, shear)))


def test_what_is_off_is_not_drawn():
    matrices, _ = drawn(translate=2.0)
    np.testing.assert_array_equal(matrices, np.tile(np.eye(2), (256, 1, 1)))
    _, shifts = drawn(rotate=40.0)
    assert not shifts.any()


def test_shifts_fill_the_range_asked_for():
    _, shifts = drawn(translate=2.0)
    assert np.abs(shifts).max() <= 2
    assert shifts.min(0).max() < -1.8 and shifts.max(0).min() > 1.8


def test_rotations_keep_lengths_and_stay_within_the_angle():
    matrices, _ = drawn(rotate=40.0)
    np.testing.assert_allclose(matrices @ matrices.swapaxes(1, 2), np.tile(np.eye(2), (256, 1, 1)), atol=1e-6)
    angles = np.rad2deg(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert -40 <= angles.min() < -36 and 36 < angles.max() <= 40


def test_scaling_makes_images_larger_or_smaller_by_the_share():
    matrices, _ = drawn(scale=0.25)
    sizes = 1 / matrices[:, 0, 0]  # from output to input: an image twice as large has the matrix 1/2
    np.testing.assert_allclose(matrices, np.eye(2) / sizes[:, None, None], atol=1e-6)
    assert 0.75 <= sizes.min() < 0.78 and 1.22 < sizes.max() <= 1.25


def test_shearing_moves_rows_and_columns_within_the_share():
    matrices, _ = drawn(shear=0.3)
    np.testing.assert_array_equal(matrices[:, [0, 1], [0, 1]], 1)
    sides = matrices[:, [0, 1], [1, 0]]
    assert np.abs(sides).max() <= 0.3 and np.abs(sides).max(0).min() > 0.27


def test_a_flip_mirrors_left_and_right_in_about_half_of_the_images():
    images = np.tile(TALL[:1], (64, 1, 1, 1))
    changed = np.asarray(jitted(Augmentation(flip=True))(KEY, images))
    mirrored = (changed == images[:, :, ::-1]).all((1, 2, 3))
    assert (mirrored | (changed == images).all((1, 2, 3))).all()
    assert 16 < mirrored.sum() < 48


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_cutout_greys_the_rectangle_about_its_centre_and_nothing_else(share):
    centres = np.array([[0.5, 0.5], [0.0, 0.0], [1.0, 0.25], [0.7, 0.9]])
    expected = TALL.copy()
    for image, (y, x) in zip(expected, centres, strict=True):
        for i in range(7):
            for j in range(5):
                if abs((i + 0.5) - 7 * y) < 7 * share / 2 and abs((j + 0.5) - 5 * x) < 5 * share / 2:
                    image[i, j] = 0
    np.testing.assert_array_equal(cutout(jnp.asarray(TALL), jnp.float32(centres), share), expected)


def test_a_cutout_within_the_image_has_the_side_asked_for():
    images = cutout(jnp.ones((1, 8, 16, 3)), jnp.full((1, 2), 0.5), 0.5)
    grey = np.zeros((8, 16, 3), bool)
    grey[2:6, 4:12] = True
    np.testing.assert_array_equal(images[0] == 0, grey)


def test_noise_has_the_deviation_asked_for_and_is_cut_at_black_and_white():
    noisy = jitted(Augmentation(noise=0.1))(KEY, jnp.zeros((8, 16, 16, 1)))
    assert abs(float(noisy.std()) - 0.1) < 0.01 and abs(float(noisy.mean())) < 0.01
    white = jitted(Augmentation(noise=0.1))(KEY, jnp.ones((8, 16, 16, 1)))
    assert float(white.max()) == 1 and float(white.min()) < 0.9


def test_what_is_off_takes_no_part_in_what_is_drawn():
    # A setting's images are those it had before later settings existed: noise is drawn from the third of four keys.
    noise = 0.1 * jax.random.normal(jax.random.split(KEY, 4)[2], TALL.shape)
    np.testing.assert_array_equal(
        augment(Augmentation(noise=0.1), KEY, jnp.asarray(TALL)), np.clip(TALL + noise, -1, 1)
    )


@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (-2, 1), (6, -4), (-9, 9)])
def test_a_crop_moves_whole_pixels_and_mirrors_the_border(shift):
    down, right = shift
    wide = np.pad(TALL, ((0, 0), (9, 9), (9, 9), (0, 0)), mode="reflect")
    shifts = jnp.tile(jnp.array(shift), (len(TALL), 1))
    np.testing.assert_array_equal(
        crop(jnp.asarray(TALL), shifts), wide[:, 9 + down : 16 + down, 9 + right : 14 + right]
    )


def test_crops_reach_as_far_as_asked_for_and_no_farther():
    ramp = np.tile(np.linspace(-1, 1, 16, dtype=np.float32)[:, None, None], (256, 1, 16, 1))
    moved = np.asarray(jitted(Augmentation(crop=3))(KEY, ramp))[:, 8, 0, 0]
    assert set(np.round((moved + 1) * 7.5).astype(int)) == set(range(5, 12))


@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (-2, 1), (6, -4), (-9, 9)])
def test_a_shift_for_discriminators_moves_whole_pixels_and_brings_in_grey(shift):
    down, right = shift
    wide = np.pad(TALL, ((0, 0), (9, 9), (9, 9), (0, 0)))
    shifts = jnp.tile(jnp.array(shift), (len(TALL), 1))
    expected = wide[:, 9 + down : 16 + down, 9 + right : 14 + right]
    np.testing.assert_array_equal(shifted(jnp.asarray(TALL), shifts), expected)


def test_shifts_are_whole_pixels_as_far_as_asked_for_each_as_likely():
    spot = np.zeros((700, 9, 9, 1), np.float32)
    spot[:, 4, 4] = 1
    found = np.asarray(jitted(Augmentation(shift=3))(KEY, spot))
    assert set(np.unique(found)) == {0, 1}  # neither blurred nor lost
    for axis in (1, 2):
        places = found.max(3 - axis)[..., 0].argmax(1)
        np.testing.assert_allclose(np.bincount(places, minlength=9) / 700, [0, *[1 / 7] * 7, 0], atol=0.06)


def test_what_discriminators_see_of_photographs_is_what_the_authors_show_them():
    # Zhao et al. 2020, DiffAugment_tf.py, at 32 pixels: brightness and contrast within 0.5, saturation within 1, shifts
    # of an eighth, squares of a half; cutout's are centred on the corner of a pixel, from the border to the border.
    expected = {"brightness": 0.5, "saturation": 1.0, "contrast": 0.5, "shift": 32 // 8, "cutout": 0.5}
    assert {name: value for name, value in dataclasses.asdict(DIFF_AUGMENT).items() if value} == expected
    for offset in range(33):  # at each offset - 8 to offset + 7, cut at the border
        covered = np.asarray(cutout(jnp.ones((1, 32, 32, 1)), jnp.array([[offset / 32, 0.5]]), 0.5))[0, :, 16, 0] == 0
        np.testing.assert_array_equal(np.flatnonzero(covered), np.arange(max(offset - 8, 0), min(offset + 8, 32)))


@jax.jit
def one_operation(images, chosen, levels):
    return operate(images, jnp.full(len(images), chosen), jnp.full(len(images), levels))


def by_pillow(name, level):
    """PIXELS changed by Pillow, of which RandAugment's operations are those of the same name."""
    image = Image.fromarray(PIXELS)
    enhancers = {"colour": "Color", "contrast": "Contrast", "brightness": "Brightness", "sharpness": "Sharpness"}
    if name in enhancers:
        return getattr(ImageEnhance, enhancers[name])(image).enhance(0.1 + 1.8 * level)
    if name in ("solarize", "posterize"):
        return getattr(ImageOps, name)(image, 256 * (1 - level) if name == "solarize" else 4 - int(4 * level))
    return image if name == "identity" else getattr(ImageOps, name)(image)


@pytest.mark.parametrize("level", [0.1, 0.35, 0.6, 0.9])
@pytest.mark.parametrize("change", operations.COLOURS, ids=lambda change: change.__name__)
def test_colours_change_as_in_pillow(change, level):
    chosen = operations.IDENTITY + operations.COLOURS.index(change)
    ours = one_operation(PIXELS[None] / np.float32(127.5) - 1, chosen, level)[0]
    theirs = np.asarray(by_pillow(change.__name__, level), np.float64)
    assert np.abs((np.asarray(ours) + 1) * 127.5 - theirs).max() < 2  # Pillow rounds, at times twice


def test_equalizing_leaves_an_image_of_one_grey_as_it_is():
    flat = jnp.full((8, 8, 1), 0.2)
    for change in (operations.equalize, operations.autocontrast):
        np.testing.assert_allclose(jax.jit(change)(flat, 0.5), flat, atol=1 / 255)


@pytest.mark.parametrize("level", [0.5, -0.5])
def test_operations_of_place_are_one_affine_change(level):
    angle = np.deg2rad(30 * level)
    turned = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    places = {
        "ROTATE": (turned, (0, 0)),
        "SHEAR_Y": ([[1, 0.3 * level], [0, 1]], (0, 0)),
        "SHEAR_X": ([[1, 0], [0.3 * level, 1]], (0, 0)),
        "TRANSLATE_Y": (np.eye(2), (7 * level * 10 / 32, 0)),
        "TRANSLATE_X": (np.eye(2), (0, 5 * level * 10 / 32)),
        "IDENTITY": (np.eye(2), (0, 0)),
    }
    for name, (matrix, shift) in places.items():
        expected = [resampled(image, np.asarray(matrix), np.asarray(shift)) for image in TALL]
        changed = one_operation(TALL, getattr(operations, name), level)
        np.testing.assert_allclose(changed, expected, atol=1e-5, err_msg=name)


def test_operations_are_drawn_alike_and_spare_half_of_the_images():
    chosen, levels = (np.asarray(part) for part in jax.jit(random_operations, static_argnums=1)(KEY, 20_000))
    frequency = np.bincount(chosen, minlength=14) / len(chosen)
    expected = np.where(np.arange(14) == operations.IDENTITY, 0.5 + 0.5 / 14, 0.5 / 14)
    np.testing.assert_allclose(frequency, expected, atol=0.02)
    assert 0.1 <= np.abs(levels).min() < 0.11 and 0.89 < np.abs(levels).max() <= 0.9
    assert abs((levels > 0).mean() - 0.5) < 0.02


def test_a_batch_divided_over_devices_is_augmented_where_its_images_are():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    divided = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    config = Augmentation(crop=1, shift=1, operations=1)
    change = jax.jit(lambda images: augment(config, KEY, images), in_shardings=divided, out_shardings=divided)
    compiled = change.lower(jnp.zeros((8, 8, 8, 3))).compile().as_text()
    for movement in ("all-gather", "all-to-all", "collective-permute", "all-reduce"):
        assert movement not in compiled


def test_images_stay_images():
    extremes = np.sign(TALL)
    changed = jitted(EVERYTHING)(KEY, extremes)
    assert changed.shape == extremes.shape and changed.dtype == extremes.dtype
    assert np.abs(changed).max() <= 1


@pytest.mark.parametrize(
    "config",
    [
        Augmentation(translate=2.0),
        Augmentation(rotate=30.0),
        Augmentation(scale=0.3),
        Augmentation(shear=0.3),
        Augmentation(noise=0.1),
        Augmentation(cutout=0.5),
        Augmentation(crop=3),
        Augmentation(shift=3),
    ],
    ids=["translate", "rotate", "scale", "shear", "noise", "cutout", "crop", "shift"],
)
def test_each_image_of_a_batch_is_changed_on_its_own(config):
    changed = np.asarray(jitted(config)(KEY, np.tile(TALL[:1], (4, 1, 1, 1))))
    assert len(np.unique(changed.reshape(4, -1), axis=0)) == 4
    assert not (changed == TALL[:1]).all((1, 2, 3)).any()


def test_the_key_alone_decides():
    change = jitted(EVERYTHING)
    np.testing.assert_array_equal(change(KEY, TALL), change(KEY, TALL))
    assert not np.array_equal(change(KEY, TALL), change(jax.random.key(4), TALL))


def test_the_channels_of_a_pixel_move_together():
    moving = jitted(Augmentation(translate=2, rotate=30, scale=0.2, shear=0.2, cutout=0.4, flip=True, crop=2))
    grey = np.repeat(TALL[..., :1], 3, axis=-1)
    changed = np.asarray(moving(KEY, grey))
    np.testing.assert_array_equal(changed, np.repeat(changed[..., :1], 3, axis=-1))


def test_colour_moves_all_pixels_then_their_distance_from_grey_then_from_the_images_mean():
    amounts = np.random.default_rng(2).uniform(-0.9, 0.9, (4, 3))
    for image, (brightness, saturation, contrast), found in zip(
        TALL, amounts, recolour(jnp.asarray(TALL), jnp.float32(amounts)), strict=True
    ):
        moved = np.float64(image) + brightness
        grey = moved.mean(-1, keepdims=True)
        coloured = grey + (1 + saturation) * (moved - grey)
        np.testing.assert_allclose(found, coloured.mean() + (1 + contrast) * (coloured - coloured.mean()), atol=1e-5)


@pytest.mark.parametrize("share", ["brightness", "saturation", "contrast"])
def test_each_amount_of_colour_is_drawn_within_its_range(share):
    images = np.tile(TALL[:1], (200, 1, 1, 1))
    changed = np.asarray(jitted(Augmentation(**{share: 0.5}))(KEY, images))
    order = list(Augmentation.__dataclass_fields__).index("brightness")
    place = list(Augmentation.__dataclass_fields__).index(share) - order
    low, high = (recolour(jnp.asarray(images[:1]), 0.5 * sign * jnp.eye(3)[place][None])[0] for sign in (-1, 1))
    assert (changed >= np.minimum(low, high) - 1e-5).all() and (changed <= np.maximum(low, high) + 1e-5).all()
    assert np.ptp(changed, axis=0).max() > 0.9 * np.abs(high - low).max()


def test_every_pixel_has_a_gradient_through_what_a_discriminator_is_shown():
    """Differentiable augmentation trains the generator: no pixel is clipped or rounded, cutout alone hides some."""
    config = Augmentation(shift=1, brightness=0.5, saturation=1.0, contrast=0.5)
    weights = np.random.default_rng(3).uniform(0.5, 1, TALL.shape).astype(np.float32)
    gradient = jax.grad(lambda images: (weights * jitted(config)(KEY, images)).sum())(jnp.asarray(TALL))
    inner = np.asarray(gradient)[:, 1:-1, 1:-1]
    assert np.isfinite(gradient).all() and (np.abs(inner) > 0).mean() > 0.99
