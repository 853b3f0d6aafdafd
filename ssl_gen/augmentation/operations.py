"""RandAugment: changes of place, colour or contrast, one drawn for each image.

Source: Cubuk et al. 2020, arXiv:1909.13719, as in Sohn et al. 2020, arXiv:2001.07685, code.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ssl_gen.augmentation.geometry import affine, placing
from ssl_gen.types import Array, Key

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
    Source: Sohn et al. 2020, arXiv:2001.07685, code. There pixels from outside are grey, the nearest pixel is taken,
    and a shear leaves the upper left corner in place; here the edge repeats, four pixels are mixed, the middle stays.
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
