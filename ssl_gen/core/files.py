"""Files of a run folder: who may write there, and JSON that is written whole."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssl_gen.types import UserError


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Make the run folder and hold it; UserError where it cannot be written or another process holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / ".lock", "w")  # noqa: SIM115 (held while the run lasts)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another folder with --out") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is writing to {folder}; wait for it or choose another --out") from None
        except OSError as error:  # ENOLCK: some network file systems
            raise UserError(f"cannot lock {folder}: {error.strerror}; choose another place with --out") from error
        yield folder


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(beside, path)


def read_json(path: Path) -> Any:
    """The content of a JSON file; UserError where it is missing or broken."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path.parent} holds no {path.name}: it is no run folder, or its run never started") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is broken ({error}); train again with another --out") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within, a file that cannot be written is a UserError that names it."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another file with --out") from error
