"""Pictures: every mode that can lie in a file, level by level against what was written; metadata cost no picture."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_gen.datasets.image_files import DARK, FIRST_FRAME, IGNORED, NARROWED, TURNED, WHITE, Picture, read_picture
from ssl_gen.types import UserError

RANDOM = np.random.default_rng(0)
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)  # every level once
COLOURS = RANDOM.integers(0, 256, (16, 16, 3), np.uint8)
WIDE = (np.arange(256) * 257).reshape(16, 16)  # 0 .. 65535


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth: int, colour: int, samples: np.ndarray, extra: bytes = b"") -> bytes:
    """A PNG by hand: samples (16, 16[, n]) of `depth` bits; colour 0 grey, 2 RGB, 3 palette, 4 and 6 with alpha."""
    flat = samples.reshape(16, -1)
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in flat]
    else:
        shifts = np.arange(depth - 1, -1, -1)
        rows = [np.packbits((row[:, None] >> shifts & 1).astype(np.uint8)).tobytes() for row in flat]
    header = struct.pack(">IIBBBBB", 16, 16, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def over_white(levels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Levels (...) with alpha (...) in 0..255 on a white ground, not rounded."""
    return (levels.astype(float) * alpha + 255.0 * (255 - alpha)) / 255


def palette(colours: np.ndarray, alpha: bytes = b"") -> bytes:
    return chunk(b"PLTE", colours.astype(np.uint8).tobytes()) + (chunk(b"tRNS", alpha) if alpha else b"")


def grey_of(depth: int) -> np.ndarray:
    return RANDOM.integers(0, 1 << depth, (16, 16))


ALPHA = RANDOM.integers(0, 256, (16, 16), np.uint8)
INDEX = RANDOM.integers(0, 4, (16, 16))
FOUR = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]])
GREYS = np.array([[7, 7, 7], [200, 200, 200], [33, 33, 33], [0, 0, 0]])
BITS = {depth: grey_of(depth) for depth in (1, 2, 4)}
WIDE_RGB = RANDOM.integers(0, 1 << 16, (16, 16, 3))

# what is written by hand -> the levels that must come back, and how far they may be off
PNGS = {
    **{f"grey of {d} bits": (png(d, 0, each), each * (255 // ((1 << d) - 1)), 0) for d, each in BITS.items()},
    **{
        f"grey of {d} bits, one level transparent": (
            png(d, 0, each, chunk(b"tRNS", struct.pack(">H", 1))),
            np.where(each == 1, 255, each * (255 // ((1 << d) - 1))),
            0,
        )
        for d, each in BITS.items()
    },
    "grey": (png(8, 0, RAMP), RAMP, 0),
    "grey, one level transparent": (
        png(8, 0, RAMP, chunk(b"tRNS", struct.pack(">H", 5))), np.where(RAMP == 5, 255, RAMP), 0,
    ),
    "grey and alpha": (png(8, 4, np.stack([RAMP, ALPHA], -1)), over_white(RAMP, ALPHA), 1),
    "16-bit grey": (png(16, 0, WIDE), RAMP, 0),
    "16-bit grey, one level transparent": (
        png(16, 0, WIDE, chunk(b"tRNS", struct.pack(">H", 257 * 5))), np.where(RAMP == 5, 255, RAMP), 0,
    ),
    "16-bit grey and alpha": (
        png(16, 4, np.stack([WIDE, ALPHA.astype(int) * 257], -1)), over_white(RAMP, ALPHA), 1,
    ),
    "RGB": (png(8, 2, COLOURS), COLOURS, 0),
    "RGB, one colour transparent": (
        png(8, 2, COLOURS, chunk(b"tRNS", struct.pack(">3H", *COLOURS[3, 4].tolist()))),
        np.where((COLOURS[3, 4] == COLOURS).all(-1)[..., None], 255, COLOURS),
        0,
    ),
    "16-bit RGB": (png(16, 2, WIDE_RGB), WIDE_RGB >> 8, 0),
    "16-bit RGB, one colour transparent": (
        png(16, 2, WIDE_RGB, chunk(b"tRNS", struct.pack(">3H", *WIDE_RGB[3, 4].tolist()))),
        np.where((WIDE_RGB[3, 4] == WIDE_RGB).all(-1)[..., None], 255, WIDE_RGB >> 8),
        0,
    ),
    "RGB and alpha": (
        png(8, 6, np.concatenate([COLOURS, ALPHA[..., None]], -1)), over_white(COLOURS, ALPHA[..., None]), 1,
    ),
    "palette of 2 bits": (png(2, 3, INDEX, palette(FOUR)), FOUR[INDEX], 0),
    "palette of 8 bits": (png(8, 3, INDEX, palette(FOUR)), FOUR[INDEX], 0),
    "palette, partly transparent": (
        png(8, 3, INDEX, palette(FOUR, b"\xff\x00\x80")),
        over_white(FOUR, np.array([255, 0, 128, 255])[:, None])[INDEX],
        1,
    ),
    "palette of greys": (png(8, 3, INDEX, palette(GREYS)), GREYS[INDEX, 0], 0),
    "palette of greys, one transparent": (
        png(8, 3, INDEX, palette(GREYS, b"\xff\x00")), np.array([7, 255, 33, 0])[INDEX], 0,
    ),
}  # fmt: skip


def read(folder: Path, data: bytes, name: str = "x.png") -> Picture:
    (folder / name).write_bytes(data)
    return read_picture(folder / name)


@pytest.mark.parametrize("kind", PNGS)
def test_a_png_of_every_mode_comes_back_level_by_level(kind, tmp_path):
    data, expected, tolerance = PNGS[kind]
    found = read(tmp_path, data).pixels
    assert found.dtype == np.uint8 and found.shape == np.shape(expected)
    assert np.abs(found.astype(float) - expected).max() <= tolerance


SAVED = [
    (mode, kind, options)
    for kind, options in (
        ("PNG", {}), ("BMP", {}), ("GIF", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100}),
    )
    for mode in Image.MODES
]  # fmt: skip


def of_mode(mode: str) -> Image.Image | None:
    """A smooth picture of any of Pillow's modes, which survives JPEG; None where Pillow cannot make it."""
    try:
        if mode.startswith("I;16"):
            return Image.fromarray((WIDE // 2 + 16_384).astype(np.uint16)).convert(mode)
        smooth = np.stack([RAMP, RAMP, RAMP if mode in ("1", "L", "LA", "La", "I", "F") else 255 - RAMP], -1)
        return Image.fromarray(np.ascontiguousarray(smooth)).convert(mode)
    except ValueError:
        return None


def test_every_mode_in_every_format_is_as_pillow_shows_it(tmp_path):
    """Pillow's own conversion to RGB is the other way, but for 16-bit grey, which it clips, and for transparency."""
    tried = 0
    for mode, kind, options in SAVED:
        image, file = of_mode(mode), tmp_path / f"{mode.replace(';', '')}.{kind.lower()}"
        if image is None:
            continue
        try:
            image.save(file, kind, **options)
        except (OSError, KeyError, ValueError):
            continue  # the format has no such mode
        tried += 1
        found = read_picture(file).pixels
        with Image.open(file) as opened:
            opened.load()
            if opened.mode.startswith("I"):
                expected = np.asarray(opened) >> 8
            else:
                expected = np.asarray(opened.convert("RGBA").convert("RGB"))
                alpha = np.asarray(opened.convert("RGBA"))[..., 3:]
                expected = over_white(expected, alpha)
        expected = expected[..., 0] if found.ndim == 2 and expected.ndim == 3 else expected
        assert found.shape == expected.shape and np.abs(found - expected).max() <= 1, (mode, kind)
    assert tried >= 40


@pytest.mark.parametrize("kind", ["gif", "bmp", "png", "webp"])
def test_a_grey_picture_is_grey_in_every_format_that_keeps_it(kind, tmp_path):
    options = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(RAMP).save(tmp_path / f"x.{kind}", **options)
    np.testing.assert_array_equal(read_picture(tmp_path / f"x.{kind}").pixels, RAMP)


@pytest.mark.parametrize("top", [255, 1023, 4095, 16383])
def test_16_bits_that_hold_fewer_are_marked_dark(top, tmp_path):
    assert read(tmp_path, png(16, 0, WIDE * top // 65535)).dark
    assert read(tmp_path, png(16, 2, np.stack([WIDE * top // 65535] * 3, -1))).dark
    assert not read(tmp_path, png(16, 0, WIDE)).dark and not read(tmp_path, png(8, 0, RAMP // 64)).dark


def test_what_was_done_to_a_picture_is_said(tmp_path):
    assert read(tmp_path, png(16, 0, WIDE)).changes == (NARROWED,)
    assert WHITE in read(tmp_path, PNGS["palette, partly transparent"][0]).changes
    frames = [Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)]
    frames[0].save(tmp_path / "x.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert FIRST_FRAME in read_picture(tmp_path / "x.webp").changes
    np.testing.assert_array_equal(read_picture(tmp_path / "x.webp").pixels, COLOURS)


def exif(orientation: int, tag: int = 0x10F, kind: int = 2, content: bytes = b"ab\0\0", count: int = 3) -> bytes:
    entries = struct.pack("<HHHIHH", 2, 0x112, 3, 1, orientation, 0) + struct.pack("<HHI", tag, kind, count) + content
    return b"II*\0" + struct.pack("<I", 8) + entries + bytes(4)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """By the words of EXIF 2.3, tag 274: where the file's first row and first column lie in the scene."""
    turned = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.swapaxes(0, 1), 6: np.rot90(pixels, -1), 7: np.rot90(pixels, 2).swapaxes(0, 1), 8: np.rot90(pixels),
    }  # fmt: skip
    return turned[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(orientation, tmp_path):
    found = read(tmp_path, png(8, 2, COLOURS, chunk(b"eXIf", exif(orientation))))
    np.testing.assert_array_equal(found.pixels, upright(COLOURS, orientation))
    assert (TURNED in found.changes) == (orientation != 1)


ODD_TAGS = [
    (tag, kind, struct.pack("<f", 1.5))
    for tag in (0x10F, 0x110, 0x111, 0x11A, 0x11B, 0x128, 0x201, 0x8769, 0x8825, 0x9286)
    for kind in (0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 99)
]


def test_an_odd_tag_costs_neither_the_picture_nor_its_orientation(tmp_path):
    for tag, kind, content in ODD_TAGS:
        found = read(tmp_path, png(8, 2, COLOURS, chunk(b"eXIf", exif(6, tag, kind, content, 1))))
        np.testing.assert_array_equal(found.pixels, upright(COLOURS, 6), str((tag, kind)))


def jpeg(segments: bytes) -> bytes:
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, "JPEG")
    return file.getvalue()[:2] + segments + file.getvalue()[2:]


def test_metadata_that_cannot_be_parsed_cost_no_png(tmp_path):
    broken = (b"", b"\0", b"x\0\5abc", b"Exif\0\0Exif\0\0", b"x\0\0" + zlib.compress(bytes(2_000_000)), bytes(40))
    kinds = (b"pHYs", b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"tIME", b"zTXt", b"iTXt", b"tEXt", b"eXIf", b"acTL", b"fcTL")
    for kind in kinds:
        for content in broken:
            found = read(tmp_path, png(8, 2, COLOURS, chunk(kind, content)))
            np.testing.assert_array_equal(found.pixels, COLOURS, str((kind, content[:9])))
    wrong_checksum = chunk(b"tEXt", b"a\0b")[:-1] + b"?"
    found = read(tmp_path, png(8, 2, COLOURS, wrong_checksum))
    np.testing.assert_array_equal(found.pixels, COLOURS)
    assert IGNORED in found.changes


BROKEN_SEGMENTS = (b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"MPF\0II*\0" + bytes(8), b"\0" * 30)
BROKEN_SEGMENTS += (b"ICC_PROFILE\0\1\2abc", b"Photoshop 3.0\x008BIM\4\4", b"http://ns.adobe.com/xap/1.0/\0<x")


def test_metadata_that_cannot_be_parsed_cost_no_jpeg(tmp_path):
    expected = read(tmp_path, jpeg(b""), "x.jpg").pixels
    for marker in (*range(0xE0, 0xF0), 0xFE):
        for content in BROKEN_SEGMENTS:
            segment = bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
            found = read(tmp_path, jpeg(segment), "x.jpg")
            np.testing.assert_array_equal(found.pixels, expected, str((hex(marker), content[:9])))


def test_damaged_files_are_refused_in_one_line_or_read(tmp_path):
    """Single bytes changed and files cut short, in every format: no traceback."""
    refused = tried = 0
    for kind in ("png", "jpeg", "gif", "bmp", "webp"):
        file = io.BytesIO()
        Image.fromarray(COLOURS).save(file, kind)
        for _ in range(60):
            data = bytearray(file.getvalue())
            data[RANDOM.integers(len(data))] ^= 1 << RANDOM.integers(8)
            data = data[: RANDOM.integers(len(data))] if RANDOM.random() < 0.5 else data
            tried += 1
            try:
                assert read(tmp_path, bytes(data), f"x.{kind}").pixels.dtype == np.uint8
            except UserError as error:
                assert "\n" not in str(error) and f"x.{kind} cannot be read as an image" in str(error)
                refused += 1
    assert tried == 300 and 100 < refused < 300


def test_the_limit_of_dark_is_a_quarter_of_16_bits():
    assert DARK * 4 == 1 << 16
