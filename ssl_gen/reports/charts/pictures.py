"""Grids of images, and other pictures, as small, crisp PNG files that say in their text which run they belong to."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin, UnidentifiedImageError

from ssl_gen.core.files import write_whole
from ssl_gen.types import UserError

SIDE = 900  # pixels, the longer side of a grid that is scaled by itself; ours: fits a page and a README
PAPER = 255  # the gaps and the strip of titles are white
COLUMNS = "columns"  # the key in the PNG's text under which the column titles stand, as a JSON list


def grid(images: np.ndarray, scale: int | None = None, gap: int = 2) -> np.ndarray:
    """images uint8 (R, K, H, W, C) -> one picture uint8 (H', W', C), each pixel a square of `scale` pixels.

    White gaps of `gap` pixels stand around and between the images. Without `scale` it is the largest that keeps the
    longer side within 900 pixels, and at least 1. Raises ValueError for another shape, type or scale.
    """
    if images.ndim != 5 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3):
        raise ValueError(f"a grid takes uint8 (R, K, H, W, 1 or 3), not {images.dtype} {images.shape}")
    rows, columns, height, width, channels = images.shape
    if scale is None:
        scale = max(1, min(((SIDE - gap) // columns - gap) // width, ((SIDE - gap) // rows - gap) // height))
    if scale < 1 or gap < 0:
        raise ValueError(f"scale must be at least 1 and gap at least 0, not {scale} and {gap}")
    images = images.repeat(scale, axis=2).repeat(scale, axis=3)
    edges = ((0, 0), (0, 0), (gap, 0), (gap, 0), (0, 0))
    tiles = np.pad(images, edges, constant_values=PAPER)
    picture = tiles.transpose(0, 2, 1, 3, 4).reshape(rows * tiles.shape[2], columns * tiles.shape[3], channels)
    return np.pad(picture, ((0, gap), (0, gap), (0, 0)), constant_values=PAPER)


def fitted(title: str, width: int) -> tuple[str, ImageFont.FreeTypeFont | ImageFont.ImageFont]:
    """The title and a font in which it fits `width` pixels: smaller first, then shortened."""
    for size in (14, 12, 10):
        font = ImageFont.load_default(size)
        if font.getlength(title) <= width:
            return title, font
    return cut(title, font, width), font


def cut(title: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """The title, shortened until it fits `width` pixels."""
    if font.getlength(title) <= width:
        return title
    while title and font.getlength(title + "…") > width:
        title = title[:-1]
    return title + "…"


def _titled(picture: Image.Image, titles: Sequence[str], gap: int) -> Image.Image:
    """The picture below a strip with one centred title a column."""
    strip = 20
    page = Image.new(picture.mode, (picture.width, picture.height + strip), "white")
    page.paste(picture, (0, strip))
    draw = ImageDraw.Draw(page)
    pitch = (picture.width - gap) / len(titles)
    for column, title in enumerate(titles):
        text, font = fitted(readable(title), int(pitch) - 2)
        draw.text((gap / 2 + (column + 0.5) * pitch, strip / 2), text, fill="black", font=font, anchor="mm")
    return page


def save_grid(
    path: str | Path,
    images: np.ndarray,
    column_titles: Sequence[str] | None = None,
    text: dict[str, str] | None = None,
    scale: int | None = None,
    gap: int = 2,
) -> Path:
    """Write the `grid` of images uint8 (R, K, H, W, C) as a PNG, with a title over each column where given.

    `text` goes into the PNG's text, such as {"mask": "digits@50-s0"}; so do the titles, as a JSON list under "columns".
    Raises ValueError for a wrong shape and where the titles are not one a column.
    """
    array = grid(images, scale, gap)
    picture = Image.fromarray(array[:, :, 0] if array.shape[-1] == 1 else array)
    notes = dict(text) if text is not None else {}
    if column_titles is not None:
        if len(column_titles) != images.shape[1]:
            raise ValueError(f"{len(column_titles)} titles for {images.shape[1]} columns: give one a column")
        picture = _titled(picture, column_titles, gap)
        notes[COLUMNS] = json.dumps(list(column_titles))
    return save(path, picture, notes)


def save(path: str | Path, picture: Image.Image, text: dict[str, str]) -> Path:
    """Write a picture as a PNG with `text` in it, whole or not at all."""
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, readable(value))
    encoded = io.BytesIO()
    picture.save(encoded, "PNG", optimize=True, pnginfo=info)
    write_whole(Path(path), encoded.getvalue())
    return Path(path)


def readable(text: str) -> str:
    """Text without the bytes of a file's name that are no UTF-8, which no picture can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_whole(path: Path) -> bool:
    """Is it a PNG, whole, every part of it as its checksum says?"""
    try:
        check(path)
    except UserError:
        return False
    return True


def check(path: Path) -> None:
    """Raise UserError for what is no whole PNG; each part of one has a checksum."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            picture.verify()
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises SyntaxError for a broken chunk
        said = "cannot identify image" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{path} is damaged ({said}): remove it, or draw it again with `ssl-gen sample`") from error
    if data[-8:-4] != b"IEND":  # which `verify` does not ask for
        raise UserError(f"{path} is damaged (it is cut): remove it, or draw it again with `ssl-gen sample`")


def size(path: str | Path) -> tuple[int, int]:
    """Width and height of a picture in pixels."""
    with Image.open(path) as picture:
        return picture.size


def is_ours(path: str | Path) -> bool:
    """Does a picture say which run it belongs to?"""
    try:
        return "mask" in read_text(path)
    except UserError:
        return False


def read_text(path: str | Path) -> dict[str, str]:
    """The text that `save` wrote into a PNG; raises UserError for what is no whole PNG."""
    check(Path(path))
    with Image.open(path, formats=["PNG"]) as picture:
        assert isinstance(picture, PngImagePlugin.PngImageFile)
        return dict(picture.text)
