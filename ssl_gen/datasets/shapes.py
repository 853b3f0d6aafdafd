"""Coloured shapes drawn by a formula: ten classes at any size, for tests, first tries and sizes no real set has."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ssl_gen.datasets import stratify
from ssl_gen.datasets.dataset import DEFAULT_SIDE, Dataset, check_sides
from ssl_gen.datasets.disk import ROWS, Empty, in_memory, unfilled
from ssl_gen.types import UserError

DEFAULT_COUNT = 5000  # training images; ours
SEED = 0
PATTERN = re.compile(r"shapes(?::(\d+)(?:x(\d+)(?:x(\d+))?)?)?(?::(\d+))?")


def _bar(u: np.ndarray, v: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.minimum(_bar(u, v, 1.0, 0.3), _bar(u, v, 0.3, 1.0))


def _saltire(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _cross((u + v) * np.float32(0.5**0.5), (u - v) * np.float32(0.5**0.5))


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(
        v - 0.5, np.float32(3**0.5 / 2) * np.abs(u) - 0.5 * v - 0.5
    )  # v points down; corners on the circle


# name -> distance(u, v): negative inside, in units of the radius; u right, v down; shapes fit into [-1, 1] x [-1, 1].
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": lambda u, v: np.hypot(u, v) - 1.0,
    "square": lambda u, v: _bar(u, v, 0.85, 0.85),
    "triangle": _triangle,
    "cross": _cross,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.75) - 0.25,
    "diamond": lambda u, v: (np.abs(u) + np.abs(v) - 1.0) * np.float32(0.5**0.5),
    "frame": lambda u, v: np.abs(_bar(u, v, 0.7, 0.7)) - 0.22,
    "saltire": _saltire,
    "half_disc": lambda u, v: np.maximum(np.hypot(u, v + 0.4) - 1.0, -(v + 0.4)),
    "bars": lambda u, v: _bar(u, np.abs(v) - 0.6, 0.95, 0.3),
}


class Looks(NamedTuple):
    """What is drawn of n images, each its own."""

    radius: np.ndarray  # (n, 1, 1) float32, pixels
    centre: np.ndarray  # (2, n, 1, 1) float32, pixels down and right
    background: np.ndarray  # (n, 1, 1, C) levels
    colour: np.ndarray  # (n, 1, 1, C) levels


def looks(count: int, height: int, width: int, channels: int, random: np.random.Generator) -> Looks:
    """A random place, size, colour and background each.

    The radius is 0.28 to 0.45 of the shorter side and the shape stays inside the image; every channel of its colour
    differs from the background by at least 96 of 255 levels.
    """
    radius = random.uniform(0.28, 0.45, (count, 1, 1)).astype(np.float32) * min(height, width)
    room = np.stack([height - 2 * radius, width - 2 * radius])
    centre = radius + random.uniform(0, 1, (2, count, 1, 1)).astype(np.float32) * room
    background = random.integers(0, 256, (count, 1, 1, channels))
    # A step of 96 to 160 around the circle of 256 levels is a difference of at least 96 either way.
    colour = (background + random.integers(96, 161, background.shape)) % 256
    return Looks(radius, centre, background.astype(np.int16), colour.astype(np.int16))


def draw(shape: str, of: Looks, height: int, width: int) -> np.ndarray:
    """(n, height, width, C) uint8, edges antialiased."""
    v = (np.arange(height, dtype=np.float32)[:, None] + 0.5 - of.centre[0]) / of.radius
    u = (np.arange(width, dtype=np.float32) + 0.5 - of.centre[1]) / of.radius
    coverage = np.clip(0.5 - SHAPES[shape](u, v) * of.radius, 0, 1)[..., None]
    image = of.background.astype(np.float32) + coverage * (of.colour - of.background).astype(np.float32)
    return np.rint(image).astype(np.uint8)


def render(shape: str, count: int, height: int, width: int, channels: int, random: np.random.Generator) -> np.ndarray:
    """(count, height, width, channels) uint8: one shape each, with a look of its own."""
    return draw(shape, looks(count, height, width, channels, random), height, width)


def split(
    count: int, height: int, width: int, channels: int, stream: int, empty: Empty = in_memory
) -> tuple[np.ndarray, np.ndarray]:
    """(images (N, H, W, C) uint8, labels (N,) int32), classes as equal as `count` allows and in random order.

    Looks are drawn class by class, images in order: a large set is written to disk from its start to its end.
    """
    random = stratify.generator(SEED, stream)
    labels = random.permutation(np.arange(count, dtype=np.int32) % len(SHAPES))
    every = Looks(
        np.empty((count, 1, 1), np.float32),
        np.empty((2, count, 1, 1), np.float32),
        np.empty((count, 1, 1, channels), np.int16),
        np.empty((count, 1, 1, channels), np.int16),
    )
    for k in range(len(SHAPES)):
        rows = np.flatnonzero(labels == k)
        own = looks(len(rows), height, width, channels, random)
        every.radius[rows], every.centre[:, rows] = own.radius, own.centre
        every.background[rows], every.colour[rows] = own.background, own.colour
    images = empty((count, height, width, channels))
    for block in unfilled("drawing shapes", ROWS, images):
        for k, shape in enumerate(SHAPES):
            rows = block.start + np.flatnonzero(labels[block] == k)
            own = Looks(every.radius[rows], every.centre[:, rows], every.background[rows], every.colour[rows])
            images[rows] = draw(shape, own, height, width)
    return images, labels


class Size(NamedTuple):
    """Of a set."""

    height: int
    width: int
    channels: int
    images: int  # for training; a fifth as many for tests

    @property
    def nbytes(self) -> int:
        """Of all images."""
        return self.height * self.width * self.channels * (self.images + self.images // 5)


def size_of(name: str, side: int | None) -> Size:
    """What `shapes[:HEIGHT[xWIDTH[xCHANNELS]]][:COUNT]` asks for; `side` (32) squared where the name gives no sides.

    Raises UserError where the name cannot be read, sides are outside 8..128, channels are not 1 or 3, or COUNT is below
    50 (ten classes, five to one).
    """
    match = PATTERN.fullmatch(name)
    if match is None:
        raise UserError(
            f"{name!r} is no shapes data set: write shapes, shapes:32, shapes:64x64x1 or shapes:32x32x3:5000."
        )
    height, width, channels, count = (int(group) if group else None for group in match.groups())
    height = height if height is not None else side or DEFAULT_SIDE
    width = width if width is not None else height
    channels = channels if channels is not None else 3
    count = count if count is not None else DEFAULT_COUNT
    check_sides(height, width, name)
    if channels not in (1, 3):
        raise UserError(f"{name} asks for {channels} channels: 1 (grey) or 3 (RGB) can be drawn.")
    if count < 5 * len(SHAPES):
        raise UserError(f"{name} asks for {count} images: give {5 * len(SHAPES)} or more.")
    return Size(height, width, channels, count)


def make_dataset(name: str, side: int | None, empty: Empty = in_memory) -> Dataset:
    """The set of a name, see `size_of`: COUNT training images (5,000) and a fifth as many test images.

    Training and test images are different draws of one seeded generator.
    """
    height, width, channels, count = size_of(name, side)
    train = split(count, height, width, channels, 0, empty)
    test = split(count // 5, height, width, channels, 1, empty)
    return Dataset(name, *train, *test, tuple(SHAPES))
