"""Random changes of images that keep their class: (key, images) -> images, inside jit."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from ssl_gen.types import Array, Key


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How far an image may move; every amount is drawn uniformly between minus and plus its value. 0 is off."""

    translate: float = 0.0  # pixels, along each side
    rotate: float = 0.0  # degrees
    scale: float = 0.0  # share of the size
    shear: float = 0.0  # share of the size, along each side
    noise: float = 0.0  # deviation of Gaussian pixel noise, in units of [-1, 1]
    cutout: float = 0.0  # side of one grey square, as a share of the image's side
    flip: bool = False  # left-right, half of the images
    brightness: float = 0.0  # added to every pixel, in units of [-1, 1]; Zhao et al. 2020, arXiv:2006.10738: 0.5
    saturation: float = 0.0  # share of the distance from grey; Zhao et al. 2020: 1
    contrast: float = 0.0  # share of the distance from the image's mean; Zhao et al. 2020: 0.5
    crop: int = 0  # whole pixels, along each side; the border is mirrored; photographs of 32 x 32: 4
    operations: int = 0  # changes of place, colour or contrast, one after the other (RandAugment); photographs: 2


STRONG_DIGITS = Augmentation(translate=2.0, rotate=20.0, scale=0.2, shear=0.2, cutout=0.5)  # 28 x 28, not flipped; ours

# Photographs of 32 x 32 pixels: the weak changes of every classifier since Zagoruyko and Komodakis 2016,
# arXiv:1605.07146, sec. 3; FixMatch's strong ones (Sohn et al. 2020, arXiv:2001.07685, app. E); what a discriminator
# with few images sees (Zhao et al. 2020, arXiv:2006.10738, sec. 3).
WEAK_PHOTOGRAPHS = Augmentation(flip=True, crop=4)
STRONG_PHOTOGRAPHS = dataclasses.replace(WEAK_PHOTOGRAPHS, operations=2, cutout=0.5)
DIFF_AUGMENT = Augmentation(translate=4.0, cutout=0.5, brightness=0.5, saturation=1.0, contrast=0.5)


def augment(config: Augmentation, key: Key, images: Array) -> Array:
    """images (B, H, W, C) in [-1, 1] -> the same, each changed on its own; pixels from outside repeat the edge.

    Brightness, saturation and contrast may leave [-1, 1]: clipped pixels would have no gradient in the images.
    """
    affine_key, flip_key, noise_key, cutout_key, crop_key, operations_key, colour_key = jax.random.split(key, 7)
    if config.brightness or config.saturation or config.contrast:
        draw = jax.random.uniform(colour_key, (images.shape[0], 3), minval=-1.0, maxval=1.0)
        images = recolour(images, draw * jnp.array([config.brightness, config.saturation, config.contrast]))
    if config.flip:
        flipped = jax.random.bernoulli(flip_key, shape=(images.shape[0], 1, 1, 1))
        images = jnp.where(flipped, images[:, :, ::-1], images)
    if config.crop:
        images = crop(images, jax.random.randint(crop_key, (images.shape[0], 2), -config.crop, config.crop + 1))
    if config.translate or config.rotate or config.scale or config.shear:
        images = affine(images, *random_affine(config, affine_key, images.shape[0]))
    if config.operations:
        for operation_key in jax.random.split(operations_key, config.operations):
            images = operate(images, *random_operations(operation_key, images.shape[0]))
    if config.cutout:
        images = cutout(images, jax.random.uniform(cutout_key, (images.shape[0], 2)), config.cutout)
    if config.noise:
        images = jnp.clip(images + config.noise * jax.random.normal(noise_key, images.shape), -1, 1)
    return images


def recolour(images: Array, amounts: Array) -> Array:
    """Brightness, saturation, contrast, in this order: images (B, H, W, C), amounts (B, 3) -> (B, H, W, C).

    Source: Zhao et al. 2020, "Differentiable Augmentation", arXiv:2006.10738, sec. 3.
    """
    brightness, saturation, contrast = (amount[:, None, None, None] for amount in amounts.T)
    images = images + brightness
    grey = images.mean(-1, keepdims=True)
    images = grey + (1 + saturation) * (images - grey)
    mean = images.mean((1, 2, 3), keepdims=True)
    return mean + (1 + contrast) * (images - mean)


def random_affine(config: Augmentation, key: Key, count: int) -> tuple[Array, Array]:
    """-> matrices (B, 2, 2) and shifts (B, 2) in pixels, from output to input coordinates about the centre."""
    draw = jax.random.uniform(key, (count, 6), minval=-1.0, maxval=1.0)
    angle = draw[:, 0] * jnp.deg2rad(config.rotate)
    size = 1 + draw[:, 1] * config.scale
    shear_y, shear_x = draw[:, 2] * config.shear, draw[:, 3] * config.shear
    return placing(angle, size, shear_y, shear_x), draw[:, 4:] * config.translate


def placing(angle: Array, size: Array, shear_y: Array, shear_x: Array) -> Array:
    """Angles in radians, sizes, shears, each (B,) -> matrices (B, 2, 2) from output to input coordinates."""
    cos, sin = jnp.cos(angle) / size, jnp.sin(angle) / size
    rotation = jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)
    one = jnp.ones_like(shear_y)
    shearing = jnp.stack([jnp.stack([one, shear_y], -1), jnp.stack([shear_x, one], -1)], -2)
    return jnp.einsum("bij,bjk->bik", rotation, shearing)


def affine(images: Array, matrices: Array, shifts: Array) -> Array:
    """Bilinear resampling: output pixel p takes input pixel matrix (p - centre) + centre + shift; the edge repeats.

    images (B, H, W, C), matrices (B, 2, 2), shifts (B, 2) as (rows, columns) in pixels -> (B, H, W, C).
    """
    height, width = images.shape[1:3]
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    grid = jnp.stack([rows, columns], -1) - centre

    def resample(image: Array, matrix: Array, shift: Array) -> Array:
        y, x = jnp.moveaxis(grid @ matrix.T + centre + shift, -1, 0)
        y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
        top, left = jnp.floor(y).astype(int), jnp.floor(x).astype(int)
        bottom, right = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
        down, along = (y - top)[..., None], (x - left)[..., None]
        upper = image[top, left] * (1 - along) + image[top, right] * along
        lower = image[bottom, left] * (1 - along) + image[bottom, right] * along
        return upper * (1 - down) + lower * down

    return jax.vmap(resample)(images, matrices, shifts)


def crop(images: Array, shifts: Array) -> Array:
    """Output pixel p takes input pixel p + shift, mirrored about the edge: images (B, H, W, C), shifts (B, 2) int.

    Source: the weak augmentation of Sohn et al. 2020, arXiv:2001.07685, sec. 2.3 and code.
    """

    def mirrored(by: Array, side: int) -> Array:
        period = max(2 * side - 2, 1)  # 0 1 2 1 0 1 2 ...: the edge itself comes once
        places = (jnp.arange(side) + by) % period
        return jnp.minimum(places, period - places)

    def move(image: Array, shift: Array) -> Array:
        return image[mirrored(shift[0], image.shape[0])][:, mirrored(shift[1], image.shape[1])]

    return jax.vmap(move)(images, shifts)


def cutout(images: Array, centres: Array, share: float) -> Array:
    """Grey (0) rectangles share * H by share * W about centres (B, 2) in [0, 1].

    Source: DeVries and Taylor 2017, arXiv:1708.04552.
    """
    height, width = images.shape[1:3]
    rows = jnp.abs(jnp.arange(height) + 0.5 - centres[:, :1] * height) < share * height / 2
    columns = jnp.abs(jnp.arange(width) + 0.5 - centres[:, 1:] * width) < share * width / 2
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], 0.0, images)


# Order of the operations: five of place, then those of COLOURS, the first of which changes nothing.
ROTATE, SHEAR_Y, SHEAR_X, TRANSLATE_Y, TRANSLATE_X, IDENTITY = range(6)


def random_operations(key: Key, count: int) -> tuple[Array, Array]:
    """-> which operation (B,) int, each as likely and none at all for half of the images, and its level (B,).

    Levels lie within 0.1 and 0.9 of the most there is, with either sign, which matters to operations of place alone.
    Source: RandAugment (Cubuk et al. 2020, arXiv:1909.13719) as in Sohn et al. 2020, code.
    """
    chosen_key, applied_key, level_key, sign_key = jax.random.split(key, 4)
    chosen = jax.random.randint(chosen_key, (count,), 0, IDENTITY + len(COLOURS))
    chosen = jnp.where(jax.random.bernoulli(applied_key, shape=(count,)), chosen, IDENTITY)
    return chosen, jax.random.uniform(level_key, (count,), minval=0.1, maxval=0.9) * jax.random.rademacher(
        sign_key, (count,), jnp.float32
    )


def operate(images: Array, chosen: Array, levels: Array) -> Array:
    """images (B, H, W, C), operations (B,) int, levels (B,) in [-1, 1] -> images.

    The most there is: 30 degrees, shears of 0.3, shifts of 10/32 of a side, see `COLOURS` for the rest.
    Source: Sohn et al. 2020, arXiv:2001.07685, code; there pixels from outside are grey, here the edge repeats.
    """

    def level_of(operation: int) -> Array:
        return jnp.where(chosen == operation, levels, 0.0)

    height, width = images.shape[1:3]
    angles, shears = jnp.deg2rad(30.0) * level_of(ROTATE), (0.3 * level_of(SHEAR_Y), 0.3 * level_of(SHEAR_X))
    shifts = jnp.stack([height * level_of(TRANSLATE_Y), width * level_of(TRANSLATE_X)], -1) * 10 / 32
    images = affine(images, placing(angles, jnp.ones_like(levels), *shears), shifts)

    def change(image: Array, operation: Array, level: Array) -> Array:
        return jax.lax.switch(jnp.maximum(operation - IDENTITY, 0), COLOURS, image, level)

    return jnp.clip(jax.vmap(change)(images, chosen, jnp.abs(levels)), -1, 1)


def identity(image: Array, level: Array) -> Array:
    """The image (H, W, C) as it is; like all of COLOURS it takes a level () in [0, 1]."""
    return image


def autocontrast(image: Array, level: Array) -> Array:
    """Each channel stretched to all of [-1, 1]; the level is not used."""
    low, high = image.min((0, 1)), image.max((0, 1))
    return jnp.where(high > low, (image - low) / jnp.maximum(high - low, 1e-6) * 2 - 1, image)


def equalize(image: Array, level: Array) -> Array:
    """Each channel's grey levels spread until all are as frequent; the level is not used."""
    grey = jnp.round((image + 1) * 127.5).astype(int).reshape(-1, image.shape[-1])

    def spread_out(grey: Array) -> Array:
        counts = jnp.zeros(256, int).at[grey].add(1)
        step = (grey.size - counts[grey.max()]) // 255
        table = (step // 2 + jnp.cumsum(counts) - counts) // jnp.maximum(step, 1)
        return jnp.where(step > 0, jnp.clip(table, 0, 255)[grey], grey)

    return jax.vmap(spread_out, 1, 1)(grey).reshape(image.shape) / 127.5 - 1


def solarize(image: Array, level: Array) -> Array:
    """The brightest pixels turned to their negative: those in the upper share `level` of the 256 greys."""
    return jnp.where(image < 256 * (1 - level) / 127.5 - 1, image, -image)


def posterize(image: Array, level: Array) -> Array:
    """Four bits of a pixel kept at level 0, one at the highest."""
    step = 2.0 ** (4 + jnp.floor(4 * level))
    return jnp.floor(jnp.round((image + 1) * 127.5) / step) * step / 127.5 - 1


def luminance(image: Array) -> Array:
    """(H, W, C) -> (H, W, 1): ITU-R 601 for three channels, else their mean."""
    weights = jnp.array([0.299, 0.587, 0.114]) if image.shape[-1] == 3 else jnp.full(image.shape[-1], 1.0)
    return (image * weights / weights.sum()).sum(-1, keepdims=True)


def away_from(other: Array, image: Array, level: Array) -> Array:
    """From 0.1 of the image and 0.9 of another (level 0) to 1.9 of it and -0.9 of the other (level 1)."""
    return other + (0.1 + 1.8 * level) * (image - other)


def colour(image: Array, level: Array) -> Array:
    """Less or more saturated."""
    return away_from(luminance(image), image, level)


def contrast(image: Array, level: Array) -> Array:
    """Nearer to or farther from its mean grey."""
    return away_from(luminance(image).mean(), image, level)


def brightness(image: Array, level: Array) -> Array:
    """Darker or brighter."""
    return away_from(jnp.float32(-1), image, level)


def sharpness(image: Array, level: Array) -> Array:
    """Blurred or sharpened, by a 3 x 3 mean with 5 times the weight in its centre; the edge stays."""
    height, width = image.shape[:2]
    around = sum(image[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3))
    smooth = image.at[1:-1, 1:-1].set((around + 4 * image[1:-1, 1:-1]) / 13)
    return away_from(smooth, image, level)


COLOURS = (identity, autocontrast, equalize, solarize, posterize, colour, contrast, brightness, sharpness)
