"""Files that a command writes for its user: whole or not at all, and nothing of the user's is overwritten.

A file is ours when its content is: the hash of all that was written is kept in the user's cache. What a user made, or
changed by hand since, is not in it. Where the cache is lost or cannot be written, files of ours are taken for a user's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ssl_gen.core.files import writing
from ssl_gen.core.machine import cache_folder
from ssl_gen.types import UserError


def ledger() -> Path | None:
    """Hashes of files that were written, one a line; None for a user without a home."""
    folder = cache_folder()
    return folder and folder / "written"


def digest(path: Path) -> str:
    """Of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_ours(path: Path) -> bool:
    """Was a file written by us, and is it as it was written?"""
    kept = ledger()
    try:
        return kept is not None and digest(path) in kept.read_text().split()
    except OSError:
        return False


def check_free(
    paths: Iterable[Path], overwrite: bool = False, known: Callable[[Path], bool] = lambda path: False
) -> None:
    """Raise UserError, before any work is done, where a file cannot be written or is there and is not ours.

    known: says of other files that they may go.
    """
    folders: dict[Path, Path] = {}
    for path in paths:
        with writing(path):
            if path.is_dir():
                raise UserError(f"{path} is a folder: give a file with --out")
            if path.exists() and not path.is_file():
                raise UserError(f"{path} is no regular file: give another with --out")
            if path.exists() and not overwrite and not (known(path) or is_ours(path)):
                raise UserError(
                    f"{path} is there and not as ssl-gen wrote it: give another place with --out, or --overwrite it"
                )
            folders.setdefault(path.resolve().parent, path)
    for folder, path in folders.items():
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write to, which takes the place of `path` once it is whole; `check_free` was asked before."""
    path = path.resolve()  # a link stays one
    beside = path.with_name(f".ssl-gen-{uuid.uuid4().hex}.part")  # of this file alone
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield beside
            with open(beside, "rb") as file:
                os.fsync(file.fileno())
            written = digest(beside)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    kept = ledger()
    if kept is not None:
        with contextlib.suppress(OSError):  # then it is taken for a user's
            kept.parent.mkdir(parents=True, exist_ok=True)
            with open(kept, "a") as lines:
                lines.write(f"{written}\n")
