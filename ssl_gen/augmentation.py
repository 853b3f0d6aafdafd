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


def augment(config: Augmentation, key: Key, images: Array) -> Array:
    """images (B, H, W, C) in [-1, 1] -> the same, each changed on its own; pixels from outside repeat the edge."""
    affine_key, flip_key, noise_key, cutout_key = jax.random.split(key, 4)
    if config.flip:
        flipped = jax.random.bernoulli(flip_key, shape=(images.shape[0], 1, 1, 1))
        images = jnp.where(flipped, images[:, :, ::-1], images)
    if config.translate or config.rotate or config.scale or config.shear:
        images = affine(images, *random_affine(config, affine_key, images.shape[0]))
    if config.cutout:
        images = cutout(images, jax.random.uniform(cutout_key, (images.shape[0], 2)), config.cutout)
    if config.noise:
        images = jnp.clip(images + config.noise * jax.random.normal(noise_key, images.shape), -1, 1)
    return images


def random_affine(config: Augmentation, key: Key, count: int) -> tuple[Array, Array]:
    """-> matrices (B, 2, 2) and shifts (B, 2) in pixels, from output to input coordinates about the centre."""
    draw = jax.random.uniform(key, (count, 6), minval=-1.0, maxval=1.0)
    angle = draw[:, 0] * jnp.deg2rad(config.rotate)
    size = 1 + draw[:, 1] * config.scale
    shear_y, shear_x = draw[:, 2] * config.shear, draw[:, 3] * config.shear
    cos, sin = jnp.cos(angle) / size, jnp.sin(angle) / size
    rotation = jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)
    one = jnp.ones_like(shear_y)
    shearing = jnp.stack([jnp.stack([one, shear_y], -1), jnp.stack([shear_x, one], -1)], -2)
    return jnp.einsum("bij,bjk->bik", rotation, shearing), draw[:, 4:] * config.translate


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


def cutout(images: Array, centres: Array, share: float) -> Array:
    """Grey (0) rectangles share * H by share * W about centres (B, 2) in [0, 1].

    Source: DeVries and Taylor 2017, arXiv:1708.04552.
    """
    height, width = images.shape[1:3]
    rows = jnp.abs(jnp.arange(height) + 0.5 - centres[:, :1] * height) < share * height / 2
    columns = jnp.abs(jnp.arange(width) + 0.5 - centres[:, 1:] * width) < share * width / 2
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], 0.0, images)
