"""Files of a run folder: who may write there, what is written whole, and what shows that it is as it was written.

A hash stands beside what is read again, or in it: a file that was cut, or in which a bit turned, is noticed.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ssl_gen.types import UserError

HALF = re.compile(r"[^.].*\.\d+\.part", re.S)  # what `write_whole` is writing, but for hidden files
SEAL = "sha256"  # the entry of a JSON object that holds the hash of all others


def say(line: str) -> None:
    """Tell the user, on the error stream, what was noticed and got over."""
    tqdm.write(f"ssl-gen: {line}", file=sys.stderr)


@functools.cache
def say_once(line: str) -> None:
    """`say`, but not the same line again."""
    say(line)


@contextlib.contextmanager
def claimed(folder: Path, wait: bool = False, advice: str = "choose another folder with --out") -> Iterator[Path]:
    """Make the run folder and hold it; UserError, with `advice`, where it cannot be written.

    Another process that holds it is waited for, or is an error too.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / ".lock", "w")  # noqa: SIM115 (held while the run lasts)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; {advice}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(f"another process is writing to {folder}; wait for it or choose another --out") from None
        except OSError as error:  # ENOLCK: some network file systems
            raise UserError(f"cannot lock {folder}: {error.strerror}; choose another place with --out") from error
        for half in folder.glob("*.part"):  # what a killed process was writing; others' are theirs, hidden ones too
            if HALF.fullmatch(half.name):
                half.unlink(missing_ok=True)
        yield folder


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it, after a loss of power too.

    Raises OSError, and leaves nothing of its own behind, where it cannot be written.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def sha256(data: bytes) -> str:
    """The hash of a file's content."""
    return hashlib.sha256(data).hexdigest()


def hash_beside(path: Path) -> Path:
    """The file that holds the hash of another one."""
    return path.with_name(f"{path.name}.sha256")


def hash_line(path: Path, data: bytes) -> bytes:
    """What stands in it."""
    return f"{sha256(data)}  {path.name}\n".encode()


def write_hashed(path: Path, data: bytes) -> None:
    """Write a file and, beside it, its SHA-256 as `sha256sum` has it. Raises OSError as `write_whole`."""
    write_whole(path, data)
    write_whole(hash_beside(path), hash_line(path, data))


def read_hashed(path: Path) -> bytes | None:
    """What `write_hashed` wrote; None where it is missing, cannot be read or is not what its hash says."""
    try:
        data, said = path.read_bytes(), hash_beside(path).read_bytes()
    except OSError:
        return None
    return data if said == hash_line(path, data) else None


def sealed(content: dict[str, Any], free: Sequence[str] = ()) -> dict[str, Any]:
    """A JSON object with the hash of its entries among them; `free` are those that a user may change."""
    kept = {name: value for name, value in content.items() if name not in (SEAL, *free)}
    return content | {SEAL: sha256(json.dumps(kept, sort_keys=True).encode())}


def as_json(content: dict[str, Any], free: Sequence[str] = ()) -> bytes:
    """A JSON object, `sealed`, as its file holds it."""
    return (json.dumps(sealed(content, free), indent=1) + "\n").encode()


def write_json(path: Path, content: dict[str, Any], free: Sequence[str] = ()) -> None:
    """Write a JSON object, `sealed`, whole or not at all. Raises OSError."""
    write_whole(path, as_json(content, free))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object as its file has it; UserError where it is missing, cannot be read or is none."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path.parent} holds no {path.name}: it is no run folder, or its run never started") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no text, no JSON, or brackets without an end
        raise UserError(f"{path} is broken ({error}): restore it, or train again with another --out") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no JSON object: restore it, or train again with another --out")
    return content


def check_seal(path: Path, content: dict[str, Any], free: Sequence[str] = ()) -> None:
    """UserError where an entry is not what it was when `sealed`. An object without a hash is as it is."""
    if SEAL in content and sealed(content, free)[SEAL] != content[SEAL]:
        raise UserError(
            f"{path} is damaged, was edited or written by another version of ssl_gen (its SHA-256 differs): restore it"
        )


@contextlib.contextmanager
def writing(path: Path, advice: str = "choose another file with --out") -> Iterator[None]:
    """Within, a file that cannot be written is a UserError that names it and says how to go on."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; {advice}") from error
