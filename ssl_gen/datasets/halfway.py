"""Long work on disk: where it lies while it is made, how far it has come, and how a process goes on with another's.

    FOLDER/NAME.part/            what is being made; a process that was killed leaves it, and the next goes on with it
    FOLDER/NAME.part/.lock       held by the one that works there
    FOLDER/NAME.part/*.json      how far it has come

What is noted is on the disk before the note is: also after a loss of power no image counts that is not there.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ssl_gen.core.files import check_seal, read_json, say_once, write_json
from ssl_gen.types import UserError

NOTED = 5.0  # seconds, at least, from one note of how far work has come to the next; ours
PART = ".part"  # of the name of a workshop
LEFT = 7 * 24 * 3600.0  # seconds after which work that nobody went on with is removed; ours


class Notes:
    """How far work has come, in a JSON file beside it, written now and then; without a path nothing is noted."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.last = path, time.monotonic()

    def read(self) -> dict[str, Any]:
        """What was noted last; empty where nothing is, or not as it was written."""
        if self.path is None or not self.path.is_file():
            return {}
        try:
            content = read_json(self.path)
            check_seal(self.path, content)
        except UserError:
            return {}
        return content

    def write(self, content: Callable[[], dict[str, Any]]) -> None:
        """Note what `content` returns, which first brings to the disk what it speaks of; not all too often."""
        if self.path is None or time.monotonic() - self.last < NOTED:
            return
        try:
            write_json(self.path, content())
        except OSError as error:
            say_once(f"cannot write {self.path}: {error.strerror}; after a cut this begins anew")
        self.last = time.monotonic()

    def forget(self) -> None:
        """What was noted holds no longer."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def notes_of(files: Sequence[Path]) -> Notes:
    """How far files of a workshop are filled, which stands beside the first; of others nothing is noted."""
    inside = bool(files) and all(file.parent.suffix == PART for file in files)
    return Notes(files[0].with_suffix(".json") if inside else None)


@contextlib.contextmanager
def moving(folder: Path) -> Iterator[None]:
    """Within, no other process moves what it made into a folder: who comes later sees what is there, and takes it.

    To replace a file that another process has mapped can end that process, on a network file system. Without locks
    (some of these have none) nobody waits.
    """
    with open(folder / ".lock", "w") as handle:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def sync(file: Path) -> None:
    """Bring what was written to a file, or into a map of it, to the disk."""
    with open(file, "rb+") as opened:
        os.fsync(opened.fileno())


@contextlib.contextmanager
def workshop(folder: Path, name: str, lost: str) -> Iterator[Path | None]:
    """A folder for what is being made, gone afterwards, but not after Ctrl-C or a kill: the next of that name goes on.

    Where another process works under that name it is a folder of its own, which nobody goes on with. None, and `lost`
    says what that means, where none can be made.
    """
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            made = _locked(folder / f"{name}{PART}", held)
            if made is None:
                made = Path(tempfile.mkdtemp(PART, f"{platform.node()}-{os.getpid()}-", folder))
        except OSError as error:
            say_once(f"cannot write {folder}: {error.strerror}; {lost}; set XDG_CACHE_HOME")
            yield None
            return
        _remove_left(folder)
        try:
            yield made.resolve()
        except Exception:
            shutil.rmtree(made, ignore_errors=True)
            raise
        shutil.rmtree(made, ignore_errors=True)


def _locked(path: Path, held: contextlib.ExitStack) -> Path | None:
    """A folder that is ours while `held`; None where it is another's, or (some network file systems) none can be."""
    path.mkdir(exist_ok=True)
    handle = held.enter_context((path / ".lock").open("w"))
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return None
    os.utime(path)
    return path


def _remove_left(folder: Path) -> None:
    """Work of this machine's processes that are no more, where nobody goes on with it, and work left for long."""
    for left in folder.glob(f"{glob.escape(platform.node())}-*{PART}"):
        if not Path("/proc", left.name.split("-")[-2]).is_dir() and Path("/proc/self").is_dir():
            shutil.rmtree(left, ignore_errors=True)
    for left in folder.glob(f"*{PART}"):
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            old = time.time() - max(entry.stat().st_mtime for entry in (left, *left.iterdir())) > LEFT
            if old and (left / ".lock").is_file() and _locked(left, held):
                shutil.rmtree(left, ignore_errors=True)
