"""A map of points in the plane by class, for readers of any colour vision: colour and shape differ, and names stand by.

Colours are those of Okabe and Ito 2008, "Color universal design", without yellow, which is faint on white. Class
k has colour k mod 7 and shape k mod 5: seven and five have no common divisor, so 35 classes differ, neighbours in both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssl_gen.reports.charts import curves, pictures
from ssl_gen.reports.charts.style import Colour

COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (0, 0, 0))
CORNERS = ((24, 0.0), (3, 0.25), (4, 0.125), (3, -0.25), (4, 0.0))  # of each shape, and its turn in rounds
SYMBOLS = len(COLOURS) * len(CORNERS)  # classes that can be told apart
SIDE, LEFT, TOP, BOTTOM, RIGHT = 640, 56, 30, 46, 190  # pixels: the square of points, and what stands around it
FINE = 3  # the picture is drawn this much larger and then reduced, so that its edges are smooth
RADIUS = (2.5, 5.0)  # pixels, of a point: the fewer, the larger; ours
INK, SOFT, RULE = (29, 35, 41), (89, 99, 110), (213, 218, 224)  # as on the page


def symbol(k: int) -> tuple[Colour, np.ndarray]:
    """Class k -> its colour and the corners (n, 2) of its shape around 0, of area pi."""
    corners, turn = CORNERS[k % len(CORNERS)]
    angles = 2 * np.pi * (np.arange(corners) / corners + turn)
    size = np.sqrt(np.pi / (corners / 2 * np.sin(2 * np.pi / corners)))
    return COLOURS[k % len(COLOURS)], size * np.stack([np.cos(angles), -np.sin(angles)], -1)


def frame(points: np.ndarray) -> tuple[np.ndarray, float]:
    """points (N, 2) -> the lower left corner (2,) and the side of the smallest square around them, with a margin.

    One scale serves both axes, so that distances are what they look like.
    """
    low, high = points.min(0), points.max(0)
    side = 1.08 * float((high - low).max()) or 1.0
    return (low + high - side) / 2, side


def scatter(points: np.ndarray, labels: np.ndarray, names: Sequence[str], axes: tuple[str, str]) -> Image.Image:
    """points (N, 2) of classes labels (N,) -> a picture with a legend, and each class's name at its median.

    axes: what the horizontal and the vertical position are.
    """
    size = LEFT + SIDE + RIGHT, TOP + SIDE + BOTTOM
    page = Image.new("RGB", (FINE * size[0], FINE * size[1]), "white")
    draw = ImageDraw.Draw(page)
    corner, side = frame(points)
    # in pixels of the reduced picture, y downwards
    places = np.array([LEFT, TOP + SIDE]) + SIDE * (points - corner) / side * np.array([1, -1])
    _axes(draw, corner, side, axes)
    radius = float(np.clip(150 / np.sqrt(len(points)), *RADIUS))
    for row in np.random.default_rng(0).permutation(len(points)):  # or the last class would cover the others
        _mark(draw, places[row], int(labels[row]), radius)
    shown = [k for k in range(len(names)) if (labels == k).any()]
    if len(shown) <= SYMBOLS:
        for k in shown:
            _write(draw, np.median(places[labels == k], 0), names[k], 15, "mm", INK, halo=3)
    for i, k in enumerate(shown[:SYMBOLS]):
        y = TOP + (i + 0.5) * min(22.0, SIDE / min(len(shown), SYMBOLS))
        _mark(draw, np.array([LEFT + SIDE + 18, y]), k, 5.0)
        _write(draw, (LEFT + SIDE + 32, y), pictures.fitted(names[k], RIGHT - 40)[0], 13, "lm", INK)
    return page.resize(size, Image.Resampling.LANCZOS)


def _mark(draw: ImageDraw.ImageDraw, place: np.ndarray, k: int, radius: float) -> None:
    """The symbol of class k."""
    colour, corners = symbol(k)
    draw.polygon([tuple(each) for each in FINE * (place + radius * corners)], fill=colour, outline="white")


def _write(
    draw: ImageDraw.ImageDraw, place: Sequence[float], text: str, size: int, anchor: str, fill: Colour, halo: int = 0
) -> None:
    """A line of text, with a white rim of `halo` pixels."""
    x, y = place
    font = ImageFont.load_default(FINE * size)
    draw.text((FINE * x, FINE * y), text, fill, font, anchor=anchor, stroke_width=FINE * halo, stroke_fill="white")


def _axes(draw: ImageDraw.ImageDraw, corner: np.ndarray, side: float, axes: tuple[str, str]) -> None:
    """Frame, ticks and what the axes are."""
    for value in curves.ticks(corner[0], corner[0] + side):
        x = LEFT + SIDE * (value - corner[0]) / side
        draw.line([FINE * x, FINE * TOP, FINE * x, FINE * (TOP + SIDE)], RULE, FINE)
        _write(draw, (x, TOP + SIDE + 6), curves.short(value), 12, "mt", SOFT)
    for value in curves.ticks(corner[1], corner[1] + side):
        y = TOP + SIDE - SIDE * (value - corner[1]) / side
        draw.line([FINE * LEFT, FINE * y, FINE * (LEFT + SIDE), FINE * y], RULE, FINE)
        _write(draw, (LEFT - 6, y), curves.short(value), 12, "rm", SOFT)
    draw.rectangle([FINE * LEFT, FINE * TOP, FINE * (LEFT + SIDE), FINE * (TOP + SIDE)], outline=SOFT, width=FINE)
    _write(draw, (LEFT + SIDE / 2, TOP + SIDE + 24), axes[0], 13, "mt", INK)
    _write(draw, (LEFT, TOP - 10), f"upwards: {axes[1]}", 13, "lb", INK)
