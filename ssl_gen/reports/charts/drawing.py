"""A picture as a list of shapes, and two ways to write it: SVG for pages, PNG for where no SVG is shown.

Positions are in units of the picture, x to the right and y downwards, one unit a pixel of the SVG. A text stands with
its foot on y.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssl_gen.reports.charts.style import Colour

FINE = 3  # a PNG is drawn this much larger and then reduced, so that its edges are smooth
SCALE = 2  # pixels of a PNG a unit, for sharp text on today's screens
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"


class Area(NamedTuple):
    """A filled polygon, with a white rim where it is opaque."""

    points: np.ndarray  # (n, 2)
    colour: Colour
    opacity: float = 1.0


class Stroke(NamedTuple):
    """A line through points."""

    points: np.ndarray  # (n, 2)
    colour: Colour
    width: float = 2.0
    dashes: tuple[float, ...] = ()  # lengths of dash, gap, dash, gap ...; none: a solid line


class Text(NamedTuple):
    """A line of text."""

    x: float
    y: float
    text: str
    colour: Colour
    size: float = 13.0
    anchor: Literal["start", "middle", "end"] = "start"


Shape = Area | Stroke | Text


def _rgb(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _listed(points: np.ndarray) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _tag(shape: Shape) -> str:
    """One shape as an SVG element."""
    if isinstance(shape, Text):
        place = f'x="{shape.x:.1f}" y="{shape.y:.1f}" font-size="{shape.size:g}" text-anchor="{shape.anchor}"'
        return f'<text {place} fill="{_rgb(shape.colour)}">{html.escape(shape.text)}</text>'
    points = _listed(shape.points)
    if isinstance(shape, Area):
        rim = ' stroke="#ffffff" stroke-width="0.7"' if shape.opacity == 1 else f' fill-opacity="{shape.opacity:g}"'
        return f'<polygon points="{points}" fill="{_rgb(shape.colour)}"{rim}/>'
    dashes = f' stroke-dasharray="{" ".join(f"{each:g}" for each in shape.dashes)}"' if shape.dashes else ""
    return (
        f'<polyline points="{points}" fill="none" stroke="{_rgb(shape.colour)}" stroke-width="{shape.width:g}"'
        f' stroke-linejoin="round"{dashes}/>'
    )


def svg(shapes: Sequence[Shape], size: tuple[int, int], described: str, alone: bool = False) -> str:
    """An SVG on white, for a page or a file `alone`; `described` is what a screen reader says of it."""
    width, height = size
    namespace = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
    return (
        f'<svg{namespace} role="img" aria-label="{html.escape(described)}"'
        f' viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="{FONT}">'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>{"".join(map(_tag, shapes))}</svg>'
    )


def dashed(points: np.ndarray, dashes: Sequence[float]) -> list[np.ndarray]:
    """The dashes of a line through points (n, 2), each a piece (m, 2); the pattern goes on around corners."""
    along = np.append(0.0, np.cumsum(np.hypot(*np.diff(points, axis=0).T)))
    pieces, start, number = [], 0.0, 0
    while start < along[-1]:
        end = min(start + dashes[number % len(dashes)], along[-1])
        if number % 2 == 0:
            inside = along[(along > start) & (along < end)]
            places = np.concatenate([[start], inside, [end]])
            pieces.append(np.stack([np.interp(places, along, column) for column in points.T], -1))
        start, number = end, number + 1
    return pieces


def png(shapes: Sequence[Shape], size: tuple[int, int]) -> Image.Image:
    """The same picture in pixels, SCALE a unit."""
    zoom = FINE * SCALE
    page = Image.new("RGB", (zoom * size[0], zoom * size[1]), "white")
    draw = ImageDraw.Draw(page)
    for shape in shapes:
        if isinstance(shape, Text):
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
            font = ImageFont.load_default(zoom * shape.size)
            draw.text((zoom * shape.x, zoom * shape.y), shape.text, shape.colour, font, anchor=anchor)
        elif isinstance(shape, Stroke):
            whole = len(shape.dashes) == 0
            for piece in [shape.points] if whole else dashed(shape.points, shape.dashes):
                corners = [tuple(each) for each in zoom * piece]
                draw.line(corners, shape.colour, round(zoom * shape.width), joint="curve")
        else:
            corners = [tuple(each) for each in zoom * shape.points]
            if shape.opacity == 1:
                draw.polygon(corners, shape.colour, outline="white", width=zoom // 2)
            else:
                stencil = Image.new("L", page.size, 0)
                ImageDraw.Draw(stencil).polygon(corners, round(255 * shape.opacity))
                page.paste(shape.colour, (0, 0), stencil)
    return page.resize((SCALE * size[0], SCALE * size[1]), Image.Resampling.LANCZOS)


def save(shapes: Sequence[Shape], size: tuple[int, int], described: str, path: Path) -> list[Path]:
    """Write PATH.svg, with `described` for a screen reader, and PATH.png, and return both."""
    written = [path.with_name(f"{path.name}{kind}") for kind in (".svg", ".png")]
    written[0].write_text(svg(shapes, size, described, alone=True) + "\n")
    png(shapes, size).save(written[1], optimize=True)
    return written
