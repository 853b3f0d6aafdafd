"""Decoded images of a folder, kept on disk: large folders are decoded once, not at each command.

    decoded/KEY.u8      images (N, H, W, C) uint8, row after row, nothing else
    decoded/KEY.json    their shape, which files they are, what their reader met, a SHA-256 a block of `disk`

KEY is a hash of the files' bytes, in order, and of what decodes them: a folder may be moved, and one whose files
changed has another key. Images are written as they are decoded, and mapped when they are read: a folder may be larger
than memory. What is cut or damaged is made again, and where there is no room nothing is kept: that costs time and no
result.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from ssl_gen.core.files import check_seal, read_json, say, say_once, write_json
from ssl_gen.core.machine import cache_folder
from ssl_gen.datasets.disk import Growing, blocks
from ssl_gen.datasets.halfway import moving, sync, workshop
from ssl_gen.datasets.reading import Reading
from ssl_gen.types import UserError

FORMAT = 1  # of these files, and of how a folder becomes images: one more where pixels change
FEWEST = 1_000  # files of a folder that is kept: fewer are decoded in a second or two; ours


class Decoded(NamedTuple):
    """What a folder's files come to."""

    images: np.ndarray  # (N, H, W, C) uint8
    kept: list[int]  # (N) numbers of the files that they are
    unread: list[int]  # numbers of the files that cannot be read
    reading: Reading  # what was met, files left out by their place aside


def key_of(files: Sequence[Path], setting: str) -> str | None:
    """The key of the files decoded with a setting; None for few files, and where one cannot be read."""
    if len(files) < FEWEST:
        return None
    digest = hashlib.sha256(f"{FORMAT} {PIL.__version__} {setting}".encode())
    try:
        for file in files:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    except OSError:
        return None
    return digest.hexdigest()


def read(key: str) -> Decoded | None:
    """What was kept under a key; None where there is nothing, or it is not as it was written, which is said."""
    folder = _folder()
    if folder is None or not _account(folder, key).is_file():
        return None
    try:
        content = read_json(_account(folder, key))
        check_seal(_account(folder, key), content)
        images = _mapped(folder, key, tuple(content["shape"]))
        if _pixels(folder, key).stat().st_size != images.nbytes or _hashes(images) != content["blocks"]:
            raise ValueError("a SHA-256 differs")
        kept, unread = content["kept"], content["unread"]
        reading = Reading.of_plain({"left_out": {}} | content["reading"])  # which older accounts do not have
    except (OSError, ValueError, KeyError, TypeError, UserError):
        say(f"{_pixels(folder, key)} was cut or changed since it was written: the folder is decoded again")
        with contextlib.suppress(OSError):
            _account(folder, key).unlink()
        return None
    return Decoded(images, kept, unread, reading)


@contextlib.contextmanager
def growing(key: str | None, files: int) -> Iterator[Growing]:
    """Images of as many files, on disk where they will have a key, else in memory; nothing is left of a failure.

    A process that was killed leaves what it decoded: the next goes on with it.
    """
    folder = _folder() if key else None
    if folder is None or key is None:
        yield Growing(None, files)
        return
    with workshop(folder, key, "decoded images are kept in memory") as bench:
        yield Growing(bench and bench / "images.u8", files, bench and bench / "images.json")


def keep(key: str, decoded: Decoded, grown: Growing) -> Decoded:
    """Give what was decoded on disk its name and account; the same, mapped there. In memory it stays as it is.

    Where another process has kept the same meanwhile, that is mapped.
    """
    folder = _folder()
    if folder is None or grown.path is None:
        return decoded
    content = {
        "shape": list(decoded.images.shape),
        "kept": decoded.kept,
        "unread": decoded.unread,
        "reading": decoded.reading.plain(),
        "blocks": _hashes(decoded.images),
    }
    try:
        sync(grown.path)
        with moving(folder):
            there = read(key)
            if there is not None:
                return there
            os.replace(grown.path, _pixels(folder, key))
            decoded = decoded._replace(images=_mapped(folder, key, decoded.images.shape))
            write_json(_account(folder, key), content)
    except OSError as error:
        say_once(f"cannot write {folder}: {error.strerror}; decoded images are not kept; set XDG_CACHE_HOME")
    return decoded


def _folder() -> Path | None:
    folder = cache_folder()
    return folder and folder / "decoded"


def _pixels(folder: Path, key: str) -> Path:
    return folder / f"{key}.u8"


def _mapped(folder: Path, key: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(_pixels(folder, key), np.uint8, "r", shape=shape)


def _account(folder: Path, key: str) -> Path:
    return folder / f"{key}.json"


def _hashes(images: np.ndarray) -> list[str]:
    """SHA-256 of each block."""
    return [hashlib.sha256(np.ascontiguousarray(block).data).hexdigest() for block in blocks(images)]
