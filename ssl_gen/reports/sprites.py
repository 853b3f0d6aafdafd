"""Many small pictures as a few large ones, in which a page shows a window each: one file holds them, one style rule a
sheet shows them, and no picture is decoded before one of its sheet is seen.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

CELL = 80  # pixels, the largest side of a thumbnail; a whole number of JPEG's blocks; ours
SHEET = 2_048  # pixels, the largest side of a sheet: every telephone decodes that; ours
BLOCK = 8  # pixels: JPEG errs within blocks of so many, so that cells of whole blocks keep out of each other
LOSSLESS = 1 << 22  # bytes of pixels, up to which a sprite is PNG; ours
QUALITY = 85  # of JPEG; ours
GREY = 127  # of what a picture leaves free of its cell


class Sprite(NamedTuple):
    """Pictures in sheets of `columns` x `columns` cells, the first in the first row of the first sheet."""

    cell: int  # pixels
    columns: int
    sheets: list[str]  # data URIs

    @property
    def capacity(self) -> int:
        """Cells of a sheet."""
        return self.columns**2

    def rules(self) -> str:
        """A style rule a sheet, `.sheet0`, `.sheet1`, ..."""
        return "\n".join(f".sheet{i}{{background-image:url({sheet})}}" for i, sheet in enumerate(self.sheets))

    def style(self, number: int, side: int) -> tuple[str, str]:
        """The class and the style of an element that shows one picture `side` x `side` CSS pixels large."""
        place = number % self.capacity
        x, y = place % self.columns * side, place // self.columns * side
        size = f"width:{side}px;height:{side}px;background-size:{self.columns * side}px auto"
        return f"sheet{number // self.capacity}", f"{size};background-position:-{x}px -{y}px"


def thumbnail(image: np.ndarray, side: int = CELL) -> np.ndarray:
    """image uint8 (h, w), (h, w, 1) or (h, w, 3) -> the same, shrunk to fit into `side` x `side` if it is larger."""
    image = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    if max(image.shape[:2]) <= side:
        return image
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def sprite(images: Sequence[np.ndarray]) -> Sprite:
    """Thumbnails -> a sprite: each in the middle of its cell, small ones enlarged by a whole number.

    PNG where that is small, else JPEG. Raises ValueError for no image.
    """
    if not images:
        raise ValueError("a sprite needs an image")
    cell = max(max(image.shape[:2]) for image in images)
    colour = any(image.ndim == 3 for image in images)
    lossless = len(images) * cell**2 * (3 if colour else 1) <= LOSSLESS
    cell = cell if lossless else -(-cell // BLOCK) * BLOCK
    columns = min(SHEET // cell, int(np.ceil(len(images) ** 0.5)))
    parts = [images[start : start + columns**2] for start in range(0, len(images), columns**2)]
    return Sprite(cell, columns, [_encoded(_sheet(part, cell, columns, colour), lossless) for part in parts])


def stacked(images: Sequence[np.ndarray]) -> tuple[np.ndarray, int, int]:
    """Thumbnails -> all of them in one picture, uint8 (H, W) or (H, W, 3), the side of its cells, cells in a row."""
    cell = max(max(image.shape[:2]) for image in images)
    columns = int(np.ceil(len(images) ** 0.5))
    return _sheet(images, cell, columns, any(image.ndim == 3 for image in images)), cell, columns


def _sheet(images: Sequence[np.ndarray], cell: int, columns: int, colour: bool) -> np.ndarray:
    """Up to columns^2 pictures, row by row; rows that would be empty are left out."""
    rows = -(-len(images) // columns)
    sheet = np.full((rows * cell, columns * cell, 3), GREY, np.uint8)
    for place, image in enumerate(images):
        times = max(1, cell // max(image.shape[:2]))
        large = image.repeat(times, 0).repeat(times, 1)
        height, width = large.shape[:2]
        y, x = place // columns * cell + (cell - height) // 2, place % columns * cell + (cell - width) // 2
        sheet[y : y + height, x : x + width] = large if large.ndim == 3 else large[..., None]
    return sheet if colour else sheet[..., 0]


def _encoded(sheet: np.ndarray, lossless: bool) -> str:
    """A data URI."""
    held, kind = io.BytesIO(), "png" if lossless else "jpeg"
    settings = {"optimize": True} if lossless else {"quality": QUALITY, "subsampling": 0, "optimize": True}
    Image.fromarray(sheet).save(held, kind, **settings)
    return f"data:image/{kind};base64,{base64.b64encode(held.getvalue()).decode('ascii')}"
