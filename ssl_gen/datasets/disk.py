"""Arrays of images that stay on disk: filled one by one, mapped into memory, chosen from without a copy in memory.

numpy reads what is mapped when it is asked for, and the system gives the pages back when it wants the memory: a data
set on disk may be larger than memory.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import mmap
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from ssl_gen.core.files import say, say_once
from ssl_gen.core.machine import cache_folder
from ssl_gen.core.wording import size
from ssl_gen.datasets.halfway import Notes, notes_of, sync

Empty = Callable[[tuple[int, ...]], np.ndarray]  # shape -> an array of uint8 that is to be filled
BLOCK = 2**24  # bytes, about, of images that are in memory at a time; ours
ROWS = 1_000  # images that are made between two looks at the clock; ours
LARGE = 2**27  # bytes of images that are kept, and whose making a bar shows: fewer take a second or two; ours


def blocks(images: np.ndarray, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Images (N, ...), or those of rows (M,), in order, about BLOCK bytes at a time."""
    count, size = max(1, BLOCK // max(1, images[:1].nbytes)), len(images) if rows is None else len(rows)
    for start in range(0, size, count):
        part = slice(start, start + count)
        if rows is None:
            advise(images[part], mmap.MADV_WILLNEED)
        yield images[part if rows is None else rows[part]]


def advise(array: np.ndarray, advice: int) -> None:
    """Tell the system how what an array is mapped from will be read (man 2 madvise); nothing of other arrays."""
    root = _root(array)
    if not isinstance(root.base, mmap.mmap) or not array.nbytes:
        return
    start = _address(array) - _address(root) + root.offset % mmap.ALLOCATIONGRANULARITY
    first = start - start % mmap.PAGESIZE
    root.base.madvise(advice, first, start + array.nbytes - first)


def _root(array: np.ndarray) -> Any:
    """The array that is a whole map, of which this is a part."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def write(file: IO[bytes], array: np.ndarray) -> None:
    """All bytes of an array, in C order. Raises OSError with its reason, which `ndarray.tofile` does not keep."""
    file.write(np.ascontiguousarray(array).data)


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def in_memory(shape: tuple[int, ...]) -> np.ndarray:
    """An `Empty` array."""
    return np.empty(shape, np.uint8)


def in_folder(folder: Path, again: bool = False) -> Empty:
    """Makes `Empty` arrays in files of a folder, mapped; in memory, and says why, where the disk has no room for one.

    The room is taken before anything is written: to write what is mapped on a full disk would end the process.
    again: arrays are numbered as they are made, and one that an earlier process made in that folder is taken as it is.
    """
    numbers = itertools.count()

    def empty(shape: tuple[int, ...]) -> np.ndarray:
        needed, path = int(np.prod(shape)), folder / f"{next(numbers) if again else uuid.uuid4().hex}.u8"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if again and path.exists():
                if needed and path.stat().st_size == needed:
                    return np.memmap(path, np.uint8, "r+", shape=shape)
                path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)  # what was noted of a file that is no more
            left = shutil.disk_usage(folder).free
            if 0 < needed <= left:
                with open(path, "xb") as file:
                    os.posix_fallocate(file.fileno(), 0, needed)
                return np.memmap(path, np.uint8, "r+", shape=shape)
            if needed:
                say_once(f"{folder} has {size(left)} left, and images need {size(needed)}: they are kept in memory")
        except OSError as error:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            say_once(f"cannot write {folder}: {error.strerror}; images are kept in memory; set XDG_CACHE_HOME")
        return in_memory(shape)

    return empty


def beside(images: np.ndarray) -> Empty:
    """Makes `Empty` arrays for what is made of images: of mapped ones in a file that goes with this process."""
    folder = cache_folder()
    if not isinstance(images, np.memmap) or folder is None:
        return in_memory
    make = in_folder(folder)

    def empty(shape: tuple[int, ...]) -> np.ndarray:
        made = make(shape)
        place = mapped_from(made)
        if place is not None:
            place[0].unlink()
        return made

    return empty


def joined(parts: Sequence[np.ndarray], empty: Empty) -> np.ndarray:
    """Images (N_i, H, W, C) of one shape, one part after the other."""
    whole, start = empty((sum(map(len, parts)), *parts[0].shape[1:])), 0
    for block in (block for part in parts for block in blocks(part)):
        whole[start : start + len(block)] = block
        start += len(block)
    return whole


def mapped_from(array: np.ndarray) -> tuple[Path, int] | None:
    """The file that an array is mapped from, row after row, and its first byte there; None for others."""
    root = _root(array)
    if not isinstance(root, np.memmap) or root.filename is None or not array.flags.c_contiguous:
        return None
    return Path(root.filename), root.offset + _address(array) - _address(root)


def unfilled(what: str, step: int, *arrays: np.ndarray) -> Iterator[slice]:
    """Rows of arrays (N, ...) that are to be filled, in order, up to `step` at a time; a bar says how many are.

    Of arrays in the files of a workshop those are passed over, and it is said, that an earlier process filled: what
    is filled must be a function of the row, and the arrays the first that are made there, in the same order.
    """
    files, count = [place[0] for place in map(mapped_from, arrays) if place is not None], len(arrays[0])
    notes = notes_of(files if len(files) == len(arrays) else [])
    first = min(int(notes.read().get("rows", 0)), count)
    if first:
        say(f"{what}: {first:,} of {count:,} images are there already")

    def brought(rows: int) -> dict[str, Any]:
        for file in files:
            sync(file)
        return {"rows": rows}

    large = sum(array.nbytes for array in arrays) >= LARGE
    with tqdm(None, what, count, initial=first, unit=" images", disable=None if large else True) as bar:
        for start in range(first, count, step):
            rows = slice(start, min(start + step, count))
            yield rows
            bar.update(rows.stop - rows.start)
            notes.write(functools.partial(brought, rows.stop))


class Growing:
    """Images (h, w) or (h, w, 3) uint8 that come one by one, in memory or in a file, if the disk takes it.

    expected: how many. They are grey, (N, h, w, 1), until the first in RGB comes, which makes all (N, h, w, 3).
    notes: where it stands how far an earlier process came with that file; `before` is what it said of it.
    """

    def __init__(self, path: Path | None, expected: int, notes: Path | None = None) -> None:
        self.path, self.expected, self.notes = path, expected, Notes(notes)
        self.count = 0
        self.shape: tuple[int, ...] = (0, 0, 1)  # of an image
        self.waiting: list[np.ndarray] = []  # those that are not in the file yet, all without one
        self.before: dict[str, Any] = {}
        noted = self.notes.read()
        filled = noted["count"] * int(np.prod(noted["shape"])) if noted else 0
        if path is not None and filled and path.is_file() and path.stat().st_size >= filled:
            self.count, self.shape, self.before = noted["count"], tuple(noted["shape"]), noted["said"]
            os.truncate(path, filled)

    def note(self, said: Callable[[], dict[str, Any]]) -> None:
        """Note now and then, with what `said` returns, that all so far is there."""

        def content() -> dict[str, Any]:
            self._flush()
            if self.path is None:
                raise OSError(0, "the file takes no more")
            sync(self.path)
            return {"count": self.count, "shape": list(self.shape), "said": said()}

        if self.path is not None and self.count:
            self.notes.write(content)

    def append(self, image: np.ndarray) -> None:
        """One more, of the sides of those before."""
        channels = 3 if image.ndim == 3 or self.shape[2] == 3 else 1
        if not self.count:
            self.shape = (*image.shape[:2], channels)
            self._make_room()
        elif channels != self.shape[2]:
            self.change(lambda earlier: np.repeat(earlier, 3, -1))
        image = image.reshape(*image.shape[:2], -1)
        self.waiting.append(np.repeat(image, channels // image.shape[2], -1))
        self.count += 1
        if self.path and len(self.waiting) * self.waiting[0].nbytes >= BLOCK:
            self._flush()

    def change(self, function: Callable[[np.ndarray], np.ndarray]) -> None:
        """Each image so far becomes function(image), all of one shape."""
        if not self.count:
            return
        earlier, path = self.whole(), self.path
        self.notes.forget()
        self.shape = function(earlier[0]).shape
        if path is not None:
            half = path.with_name(f"{path.name}.changed")
            try:
                with open(half, "wb") as file:
                    for block in blocks(earlier):
                        write(file, np.stack([function(image) for image in block]))
                os.replace(half, path)
                return
            except OSError as error:
                half.unlink(missing_ok=True)
                self._leave(error)
        self.waiting = [function(image) for image in earlier]

    def whole(self) -> np.ndarray:
        """All so far, (N, h, w, C) uint8: mapped where they are in a file."""
        self._flush()
        if self.path is None or not self.count:
            return np.stack(self.waiting) if self.count else np.empty((0, *self.shape), np.uint8)
        return np.memmap(self.path, np.uint8, "r", shape=(self.count, *self.shape))

    def _flush(self) -> None:
        if not self.path or not self.waiting:
            return
        written = self.count - len(self.waiting)
        try:
            with open(self.path, "ab") as file:
                write(file, np.stack(self.waiting))
            self.waiting = []
        except OSError as error:
            whole = np.fromfile(self.path, np.uint8, written * int(np.prod(self.shape)))
            self.waiting = [*whole.reshape(written, *self.shape), *self.waiting]
            self._leave(error)

    def _leave(self, error: OSError) -> None:
        """Go on in memory, and say why: the file takes no more."""
        why = f"cannot write {self.path and self.path.parent}: {error.strerror}"
        say_once(f"{why}; decoded images are kept in memory; set XDG_CACHE_HOME")
        self.path = None

    def _make_room(self) -> None:
        """Grow in memory instead, and say why, where the disk will not hold what is expected, or may not be written."""
        if self.path is None:
            return
        needed = self.expected * int(np.prod(self.shape))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            room = shutil.disk_usage(self.path.parent).free
            if room >= needed:
                self.path.write_bytes(b"")
                return
            left, words = size(room), size(needed)
            say_once(f"{self.path.parent} has {left} left, and decoded images need {words}: they are kept in memory")
            self.path = None
        except OSError as error:
            self._leave(error)


def chosen(images: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """images (N, ...), keep (N,) bool -> those kept, in order; of mapped ones no copy in memory.

    Those that lie one after the other are a view; others are copied into a file that goes with this process, or, where
    the disk does not take it, into memory.
    """
    rows = np.flatnonzero(keep)
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return images[rows[0] : rows[-1] + 1]
    folder = cache_folder()
    if not isinstance(images, np.memmap) or not len(rows) or folder is None:
        return images[keep]
    shape = len(rows), *images.shape[1:]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < np.prod(shape):
            return images[keep]
        with tempfile.TemporaryFile(dir=folder) as file:
            for block in blocks(images, rows):
                write(file, block)
            file.flush()
            return np.memmap(file, np.uint8, "r", shape=shape)
    except OSError:
        return images[keep]
