"""Random changes of images that keep their class: (key, images) -> images, inside jit."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from ssl_gen.augmentation.geometry import affine, crop, cutout, placing, shifted
from ssl_gen.augmentation.operations import operate, random_operations
from ssl_gen.types import Array, Batch, Key, UserError


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
    shift: int = 0  # whole pixels, along each side; grey (0) comes in; Zhao et al. 2020, code: an eighth of the side
    operations: int = 0  # changes of place, colour or contrast, one after the other (RandAugment); photographs: 2


STRONG_DIGITS = Augmentation(translate=2.0, rotate=20.0, scale=0.2, shear=0.2, cutout=0.5)  # 28 x 28, not flipped; ours

# Photographs of 32 x 32 pixels: the weak changes of every classifier since Zagoruyko and Komodakis 2016,
# arXiv:1605.07146, sec. 3; FixMatch's strong ones (Sohn et al. 2020, arXiv:2001.07685, app. E); what a discriminator
# with few images sees (Zhao et al. 2020, arXiv:2006.10738, sec. 3 and code, DiffAugment_tf.py).
WEAK_PHOTOGRAPHS = Augmentation(flip=True, crop=4)
STRONG_PHOTOGRAPHS = dataclasses.replace(WEAK_PHOTOGRAPHS, operations=2, cutout=0.5)
DIFF_AUGMENT = Augmentation(shift=4, cutout=0.5, brightness=0.5, saturation=1.0, contrast=0.5)


def augment(config: Augmentation, key: Key, images: Array) -> Array:
    """images (B, H, W, C) in [-1, 1] -> the same, each changed on its own; affine changes repeat the edge.

    Brightness, saturation and contrast may leave [-1, 1]: clipped pixels would have no gradient in the images.
    """
    keys = jax.random.split(key, 8)
    affine_key, flip_key, noise_key, cutout_key, crop_key, operations_key, colour_key, shift_key = keys
    if config.brightness or config.saturation or config.contrast:
        draw = jax.random.uniform(colour_key, (images.shape[0], 3), minval=-1.0, maxval=1.0)
        images = recolour(images, draw * jnp.array([config.brightness, config.saturation, config.contrast]))
    if config.flip:
        flipped = jax.random.bernoulli(flip_key, shape=(images.shape[0], 1, 1, 1))
        images = jnp.where(flipped, images[:, :, ::-1], images)
    if config.crop:
        images = crop(images, jax.random.randint(crop_key, (images.shape[0], 2), -config.crop, config.crop + 1))
    if config.shift:
        shifts = jax.random.randint(shift_key, (images.shape[0], 2), -config.shift, config.shift + 1)
        images = shifted(images, shifts)
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


def views(
    weak: Augmentation, strong: Augmentation, keys: Key | tuple[Key, Key, Key], batch: Batch
) -> tuple[Array, Array, Array]:
    """Labelled images weakly changed, unlabelled ones strongly, and weakly; three keys, one of each.

    Source: Sohn et al. 2020, "FixMatch", arXiv:2001.07685, fig. 1.
    """
    return (
        augment(weak, keys[0], batch.labelled),
        augment(strong, keys[1], batch.unlabelled),
        augment(weak, keys[2], batch.unlabelled),
    )


def copies(config: Augmentation, views: int) -> Callable[[Key, Array], Iterator[Array]] | None:
    """`Method.copies` for `views` of each labelled image, of which one is the image as it is; None for that alone.

    Raises UserError where views would all be the same, and where nothing would be changed that could be.
    """
    moving = config != Augmentation()
    if views > 1 and not moving:
        raise UserError(f"{views} views of each labelled image would be the same: give --config.augmentation.FIELD too")
    if views == 1 and moving:
        raise UserError(
            "the augmentation changes further views of labelled images: give their number, --config.views 8"
        )
    if views == 1:
        return None
    changed = jax.jit(functools.partial(augment, config))
    return lambda key, images: (changed(each, images) for each in jax.random.split(key, views - 1))


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
