"""Large data sets as they came out of their readers, kept on disk: read, drawn and checked once, not at each start.

    kept/SLOT.json                 names, account and SHA-256 of the set; where its arrays lie, with a SHA-256 a block
    kept/SLOT-train_images.u8 ...  arrays, row after row, nothing else; those that lie in another file stay there

A slot is a place and how it is read (`Origin`): of each one set is kept, the latest. It counts while the files that it
was read from have the names, sizes and times of change that they had. What is kept is trusted while its own files have
theirs: then a few blocks of it are read and hashed at each start, the labels among them; else all of them. So what
writes to a file is noticed, and a bit that turns on a disk in a block that nobody looked at is not, until that block's
turn comes or `ssl-gen prepare --verify` reads them all. What is not as it was written is said, and made again. Where a
process is killed while it makes a set, the next goes on with its images (`halfway`).
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_gen.core.files import check_seal, read_json, say, say_once, sha256, write_json
from ssl_gen.core.machine import cache_folder
from ssl_gen.core.wording import size
from ssl_gen.datasets.dataset import Dataset, Known
from ssl_gen.datasets.disk import Empty, blocks, in_folder, in_memory, mapped_from, write
from ssl_gen.datasets.halfway import moving, sync, workshop
from ssl_gen.datasets.reading import Reading
from ssl_gen.types import UserError

FORMAT = 1  # of these files, and of all that lies between a source and its data set: one more where pixels change
LOOKED_AT = 4  # blocks of each array that are hashed at a start; ours
ARRAYS = {"train_images": "u1", "train_labels": "<i4", "test_images": "u1", "test_labels": "<i4"}


class Origin(NamedTuple):
    """Where a large data set comes from."""

    place: str  # and how it is read
    stamp: str = ""  # of its files


def stamp_of(root: Path, files: Iterable[Path], passed: Iterable[Path] = ()) -> str:
    """Names, sizes and moments of change of files, hashed: another one where any was changed, added or taken away.

    Names are those below `root`, by whatever path that is given. passed: paths there of which the names count alone.
    """
    names = "\0".join(str(path.relative_to(root)) for path in passed)
    digest = hashlib.sha256(names.encode(errors="surrogateescape"))
    for file in files:
        digest.update(f"\0{file.relative_to(root)}\0{_state(file)}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _state(file: Path) -> list[int]:
    """Size, and when content and inode were changed last: nobody sets the latter by hand. A file gone has none."""
    try:
        found = file.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def through(origin: Origin | None, make: Callable[[Empty], Dataset]) -> Dataset:
    """The data set of an origin: what is kept of it, or else what `make` makes, kept. None: it is not to be kept.

    make: is told how to get arrays for the images it makes.
    """
    folder = cache_folder()
    if origin is None or folder is None:
        return make(in_memory)
    found = read(origin)
    if found is not None:
        return found
    made_there = f"{_slot(origin)}-{sha256(f'{FORMAT} {origin.stamp}'.encode())[:16]}"
    with workshop(folder / "kept", made_there, "the data set is not kept") as bench:
        return make(in_memory) if bench is None else _keep(origin, make(in_folder(bench, again=True)), bench)


def read(origin: Origin, every: bool = False) -> Dataset | None:
    """What is kept of an origin, None where nothing is, or not as it was written, which is said.

    every: read all of it, not a few blocks.
    """
    folder = cache_folder()
    account = folder and _account(folder, origin)
    if folder is None or account is None or not account.is_file():
        return None
    try:
        content = read_json(account)
        check_seal(account, content)
        if content["format"] != FORMAT or content["stamp"] != origin.stamp:
            return None
        arrays = [_mapped(folder, content["arrays"][name], kind) for name, kind in ARRAYS.items()]
        moved = [
            _check(folder, content["arrays"][name], array, every) for name, array in zip(ARRAYS, arrays, strict=True)
        ]
        reading = Reading.of_plain(content["reading"])
        train, labels, test, test_labels = arrays
        names, skipped = tuple(content["class_names"]), tuple(content["skipped"])
        dataset = Dataset("", train, labels, test, test_labels, names, skipped, reading)
        dataset = dataset._replace(known=Known(content["dataset"], dataset.hashed))
    except (OSError, ValueError, KeyError, TypeError, UserError):
        say(f"what is kept of {origin.place} was cut or changed since it was written: it is read again from its source")
        with contextlib.suppress(OSError):
            account.unlink()  # another look, at other blocks, might not see it
        return None
    if any(moved):  # all blocks were found to be right
        with contextlib.suppress(OSError):
            write_json(account, content)
    return dataset


def where(origin: Origin) -> Path | None:
    """The account of what is kept of an origin; None where nothing is."""
    folder = cache_folder()
    account = folder and _account(folder, origin)
    return account if account is not None and account.is_file() else None


def _account(folder: Path, origin: Origin) -> Path:
    return folder / "kept" / f"{_slot(origin)}.json"


def _slot(origin: Origin) -> str:
    return sha256(origin.place.encode(errors="surrogateescape"))[:32]


def _mapped(folder: Path, kept: dict[str, Any], kind: str) -> np.ndarray:
    shape = tuple(kept["shape"])
    if not all(shape):
        return np.empty(shape, kind)
    array = np.memmap(folder / kept["file"], kind, "r", kept["offset"], shape)
    return array if kind == "u1" else np.array(array)  # labels are read at once


def _check(folder: Path, kept: dict[str, Any], array: np.ndarray, every: bool) -> bool:
    """Raises ValueError where an array is not as it was; True where its file was touched since, which it then notes."""
    state = _state(folder / kept["file"])
    touched = state != kept["state"]
    parts = list(_blocks(array))
    if len(parts) != len(kept["blocks"]):
        raise ValueError("there are fewer blocks, or more")
    chosen = list(range(len(parts)))
    if not (every or touched or len(parts) <= LOOKED_AT):
        chosen = [0, *random.sample(chosen[1:-1], LOOKED_AT - 2), len(parts) - 1]
    if any(_hash(array[parts[i]]) != kept["blocks"][i] for i in chosen):
        raise ValueError("a SHA-256 differs")
    kept["state"] = state
    return touched


def _blocks(array: np.ndarray) -> Iterator[slice]:
    """The rows of each block, of which no more than one is read at a time."""
    start = 0
    for block in blocks(array):
        yield slice(start, start + len(block))
        start += len(block)


def _hash(block: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(block).data).hexdigest()


def _keep(origin: Origin, dataset: Dataset, bench: Path) -> Dataset:
    """The data set, kept and mapped from where it is kept; as it is, which is said, where the disk does not take it.

    All of it is hashed where it was made: who is killed meanwhile goes on from there. Then it is moved, unless another
    process has kept the same meanwhile: then that is taken.
    """
    folder = bench.parent.parent
    account = _account(folder, origin)
    dataset = dataset._replace(
        **{name: getattr(dataset, name).astype(kind, copy=False) for name, kind in ARRAYS.items()}
    )
    try:
        places = [_place(getattr(dataset, name), kind, bench) for name, kind in ARRAYS.items()]
        dataset = dataset.hash_known()
        hashes = [[_hash(block) for block in blocks(getattr(dataset, name))] for name in ARRAYS]
        for file, _ in places:
            if file.parent == bench:
                sync(file)
        with moving(account.parent):
            there = read(origin)
            if there is not None:
                return there
            kept: dict[str, dict[str, Any]] = {}
            for name, (file, offset), each in zip(ARRAYS, places, hashes, strict=True):
                if file.parent == bench:
                    file = file.replace(account.with_name(f"{account.stem}-{name}.u8"))
                inside = file.is_relative_to(folder)
                kept[name] = {
                    "file": str(file.relative_to(folder) if inside else file),
                    "offset": offset,
                    "shape": list(getattr(dataset, name).shape),
                    "state": _state(file),
                    "blocks": each,
                }
            content = {
                "format": FORMAT,
                "stamp": origin.stamp,
                "class_names": list(dataset.class_names),
                "skipped": list(dataset.skipped),
                "reading": (dataset.reading or Reading()).plain(),
                "dataset": dataset.sha256,
                "arrays": kept,
            }
            write_json(account, content)
        train, labels, test, test_labels = (_mapped(folder, kept[name], kind) for name, kind in ARRAYS.items())
    except OSError as error:
        say_once(f"cannot write {folder / 'kept'}: {error.strerror}; the data set is not kept; set XDG_CACHE_HOME")
        return dataset
    made = dataset._replace(train_images=train, train_labels=labels, test_images=test, test_labels=test_labels)
    return made._replace(known=Known(dataset.sha256, made.hashed))


def _place(array: np.ndarray, kind: str, bench: Path) -> tuple[Path, int]:
    """The file that an array is mapped from and its first byte there; of others a new file of its rows."""
    place = mapped_from(array)
    if place is None or (place[0].parent == bench and place[0].stat().st_size != array.nbytes):
        return _written(array, kind, bench), 0
    return place


def _written(array: np.ndarray, kind: str, bench: Path) -> Path:
    """A new file of an array's rows. Raises OSError where there is no room, before it writes."""
    left = shutil.disk_usage(bench).free
    if left < array.nbytes:
        raise OSError(0, f"it has {size(left)} left, and {size(array.nbytes)} are needed")
    path = bench / f"{uuid.uuid4().hex}.u8"
    with open(path, "xb") as file:
        for block in blocks(array):
            write(file, np.ascontiguousarray(block, kind))
    return path
