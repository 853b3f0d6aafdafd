"""Decoded images of a folder, kept on disk: large folders are decoded once, not at each command.

    decoded/KEY.u8      images (N, H, W, C) uint8, row after row, nothing else
    decoded/KEY.json    their shape, which files they are, what their reader met, a SHA-256 a block

KEY is a hash of the files' bytes, in order, and of what decodes them: a folder may be moved, and one whose files
changed has another key. What is cut or damaged is made again, and where there is no room nothing is kept: that costs
time and no result.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from ssl_gen.core.files import check_seal, read_json, say, say_once, write_json
from ssl_gen.core.machine import cache_folder
from ssl_gen.core.wording import size
from ssl_gen.datasets.reading import Counts, Reading
from ssl_gen.types import UserError

FORMAT = 1  # of these files, and of how a folder becomes images: one more where pixels change
FEWEST = 1_000  # files of a folder that is kept: fewer are decoded in a second or two; ours
BLOCK = 2**24  # bytes, about, of images with a hash of their own; ours


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
        images = np.memmap(_pixels(folder, key), np.uint8, "r", shape=tuple(content["shape"]))
        if _pixels(folder, key).stat().st_size != images.nbytes or _hashes(images) != content["blocks"]:
            raise ValueError("a SHA-256 differs")
        kept, unread, met = content["kept"], content["unread"], content["reading"]
        sizes, modes, changes = (Counts(met[name]) for name in ("sizes", "modes", "changes"))
        reading = Reading({}, sizes, modes, changes, list(met["warnings"]), met["dark"])
    except (OSError, ValueError, KeyError, TypeError, UserError):
        say(f"{_pixels(folder, key)} was cut or changed since it was written: the folder is decoded again")
        return None
    return Decoded(images, kept, unread, reading)


def write(key: str, decoded: Decoded) -> None:
    """Keep what was decoded; where there is no room or no right, say so before anything is written, and do not."""
    folder = _folder()
    if folder is None:
        return
    reading = decoded.reading
    content = {
        "shape": list(decoded.images.shape),
        "kept": decoded.kept,
        "unread": decoded.unread,
        "reading": {
            "sizes": dict(reading.sizes),
            "modes": dict(reading.modes),
            "changes": dict(reading.changes),
            "warnings": reading.warnings,
            "dark": reading.dark,
        },
        "blocks": _hashes(decoded.images),
    }
    half = _pixels(folder, key).with_name(f"{key}.{os.getpid()}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(folder).free
        if room < decoded.images.nbytes:
            needed, left = size(decoded.images.nbytes), size(room)
            say_once(f"{folder} has {left} left, and decoded images need {needed}: they are decoded at each command")
            return
        with open(half, "wb") as file:
            decoded.images.tofile(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(half, _pixels(folder, key))
        write_json(_account(folder, key), content)
    except OSError as error:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)
        say_once(f"cannot write {folder}: {error.strerror}; decoded images are not kept; set XDG_CACHE_HOME")


def _folder() -> Path | None:
    folder = cache_folder()
    return folder and folder / "decoded"


def _pixels(folder: Path, key: str) -> Path:
    return folder / f"{key}.u8"


def _account(folder: Path, key: str) -> Path:
    return folder / f"{key}.json"


def _blocks(images: np.ndarray) -> Iterator[np.ndarray]:
    """Images in order, about BLOCK bytes at a time."""
    count = max(1, BLOCK // max(1, images[:1].nbytes))
    for start in range(0, len(images), count):
        yield images[start : start + count]


def _hashes(images: np.ndarray) -> list[str]:
    """SHA-256 of each block."""
    return [hashlib.sha256(np.ascontiguousarray(block).data).hexdigest() for block in _blocks(images)]
