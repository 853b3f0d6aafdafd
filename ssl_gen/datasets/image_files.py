"""One picture from a file of any mode: its levels as the file has them, upright, grey or RGB."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssl_gen.datasets.names import readable
from ssl_gen.types import UserError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")  # Pillow's names: no other decoder is ever run on a user's file
ORIENTATION = 0x0112  # the tag of EXIF that says how the camera was held
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MODES = {"1": "grey", "L": "grey", "LA": "grey with transparency", "P": "palette", "RGBA": "RGB with transparency"}
DARK = 1 << 14  # a 16-bit picture with no level from here on holds 8-, 10-, 12- or 14-bit data, or a moonless night
LARGEST_BYTES = 1 << 29  # of a file that is read again without its metadata; ours
# Pieces of a PNG that its pixels need, and markers of a JPEG that they do not: EXIF, colour profiles, comments.
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
JPEG_METADATA = (*range(0xE1, 0xEE), 0xEF, 0xFE)

# What was done to a picture, as it is said.
TURNED = "turned upright"
WHITE = "transparent parts made white"
NARROWED = "16 bits made 8"
FIRST_FRAME = "only the first frame taken"
IGNORED = "metadata that cannot be read ignored"
T = TypeVar("T")


class Picture(NamedTuple):
    """A decoded file."""

    pixels: np.ndarray  # grey (h, w) or RGB (h, w, 3) uint8
    mode: str  # as the file has it: RGB, palette, 16-bit grey
    changes: tuple[str, ...]  # what was done to it
    dark: bool  # 16-bit, and uses only the lower levels


def read_picture(path: Path) -> Picture:
    """The picture in a file, upright, over white where it is transparent.

    Metadata that cannot be read cost the orientation at most. Raises UserError, naming it, for an unreadable file.
    """
    first: Exception | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata and large pictures
        for source in _sources(path):
            # A decoder on a stranger's bytes may raise anything: TypeError and KeyError were met, not only OSError.
            try:
                picture = _decode(source)
            except Exception as error:
                first = first or error
            else:
                return picture if first is None else picture._replace(changes=(*picture.changes, IGNORED))
    raise UserError(
        f"{readable(path)} cannot be read as an image ({_reason(first, path)}): mend or remove it, or leave it out "
        "with --skip-unreadable."
    ) from first


def _sources(path: Path) -> Iterator[Path | io.BytesIO]:
    """The file, then its bytes without metadata but EXIF, then without any."""
    yield path
    try:
        data = path.read_bytes() if path.stat().st_size <= LARGEST_BYTES else b""
    except OSError:
        return
    for exif in (True, False):
        stripped = _stripped(data, exif)
        if stripped is not None:
            yield io.BytesIO(stripped)


def _reason(error: Exception | None, path: Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is empty" if not path.stat().st_size else f"no {', '.join(FORMATS)} inside"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(readable(str(error)).split()) or type(error).__name__


def _decode(source: Path | io.BytesIO) -> Picture:
    with Image.open(source, formats=FORMATS) as opened:
        raw = str(opened.tile[0].args) if opened.tile else ""  # as the bytes lie in the file, before Pillow converts
        opened.load()
        deep = opened.mode.startswith("I") or raw.endswith(";16B")
        changes = [NARROWED] if deep else []
        if opened.has_transparency_data:
            changes.append(WHITE)
        flat, highest = _flattened(opened, raw)
        mode = MODES.get(opened.mode, opened.mode)
        if deep:
            mode = "16-bit grey" if flat.mode == "L" else "16-bit RGB"
        turn = _metadata(lambda: UPRIGHT.get(opened.getexif().get(ORIENTATION, 1)), changes)
        if turn is not None:
            flat = flat.transpose(turn)
            changes.append(TURNED)
        if _metadata(lambda: getattr(opened, "is_animated", False), changes):
            changes.append(FIRST_FRAME)
    return Picture(np.asarray(flat), mode, tuple(changes), deep and highest < DARK)


def _metadata(read: Callable[[], T], changes: list[str]) -> T | None:
    """What `read` gives; None, and a word of it, where the metadata cannot be parsed."""
    try:
        return read()
    except Exception:  # a parser of a stranger's bytes may raise anything, and the pixels are whole
        if IGNORED not in changes:
            changes.append(IGNORED)
        return None


def _flattened(image: Image.Image, raw: str) -> tuple[Image.Image, int]:
    """A loaded image -> (mode L or RGB over white, its highest level in 16 bits, 0 for one of 8).

    Grey is told by the pixels: palettes, WebP and 16-bit grey with transparency have no mode of it, RGB may hold it.
    """
    key = image.info.get("transparency")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip at 255
        wide = np.asarray(image)
        upper = np.where(wide == key, 255, wide >> 8) if isinstance(key, int) else wide >> 8
        return Image.fromarray(upper.astype(np.uint8)), int(wide.max(initial=0))
    highest = 0
    if raw.endswith(";16B"):  # Pillow keeps the upper byte
        highest = int(np.asarray(image)[..., :3].max(initial=0)) << 8 | 0xFF
        if isinstance(key, tuple):
            pixels = np.array(image)
            pixels[np.all(pixels == np.array(key) >> 8, -1)] = 255
            return _without_colour(Image.fromarray(pixels)), highest
    if raw in ("L;2", "L;4") and isinstance(key, int):  # Pillow compares the file's level with the one it stretched
        image.info["transparency"] = key * (0x55 if raw == "L;2" else 0x11)
    grey = image.mode in ("L", "LA", "La", "1")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        flat = Image.alpha_composite(white, image.convert("RGBA")).convert("L" if grey else "RGB")
    else:
        flat = image.convert("L" if grey else "RGB")
    return _without_colour(flat), highest


def _without_colour(image: Image.Image) -> Image.Image:
    """RGB whose channels are equal in every pixel -> L; anything else as it is."""
    pixels = np.asarray(image)
    return Image.fromarray(pixels[..., 0]) if image.mode == "RGB" and np.all(pixels == pixels[..., :1]) else image


def _stripped(data: bytes, exif: bool) -> bytes | None:
    """A PNG or JPEG without its metadata (EXIF kept with `exif`); None for other formats, and where it is damaged."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _stripped_png(data, (*PIXEL_CHUNKS, b"eXIf") if exif else PIXEL_CHUNKS)
        if data.startswith(b"\xff\xd8"):
            return _stripped_jpeg(data, JPEG_METADATA[1:] if exif else JPEG_METADATA)
    except struct.error:
        return None
    return None


def _stripped_png(data: bytes, kept: tuple[bytes, ...]) -> bytes:
    """The signature and the chunks that are kept; each is length, name, content, checksum (PNG 1.2, sec. 3.2)."""
    parts, at = [data[:8]], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] in kept:
            parts.append(data[at : at + 12 + length])
        at += 12 + length
    return b"".join(parts)


def _stripped_jpeg(data: bytes, dropped: tuple[int, ...]) -> bytes:
    """All but the segments that are dropped, up to the scan; each is marker, length, content (ITU-T T.81, B.1.1)."""
    parts, at = [data[:2]], 2
    while True:
        marker, code, length = struct.unpack_from(">BBH", data, at)
        if marker != 0xFF or code == 0xDA:  # start of scan
            return b"".join([*parts, data[at:]])
        if code == 0xFF:  # a marker may be padded
            at += 1
            continue
        if code not in dropped:
            parts.append(data[at : at + 2 + length])
        at += 2 + length
