"""What can happen to a file, and what a command says and does then."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ssl_gen import cli
from ssl_gen.types import UserError


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def with_a_bit_turned(path: Path) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) * 2 // 3] ^= 4
    path.write_bytes(data)


def removed(path: Path) -> None:
    path.unlink()


DAMAGES = {"emptied": emptied, "halved": halved, "a bit turned": with_a_bit_turned, "removed": removed}


def files_of(folder: Path) -> list[str]:
    """Every file of a folder but its lock, by its path in it."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )


class Answer(NamedTuple):
    """What a command came to."""

    kind: str  # "done", "refused" (a UserError), or the name of any other exception: a traceback
    said: str  # on the error stream, or by the exception

    @property
    def good(self) -> bool:
        """Was it done, or refused in one line?"""
        return self.kind == "done" or (self.kind == "refused" and "\n" not in self.said.strip())


def answer(words: Sequence[object]) -> Answer:
    """Run a command in this process, below the outermost handler of exceptions, which would hide them."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.run([str(word) for word in words])
        except UserError as error:
            return Answer("refused", str(error))
        except Exception as error:
            return Answer(type(error).__name__, str(error))
    return Answer("done", err.getvalue())
