"""The run folder: who may write to it, what it says it holds, and its growing log."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from ssl_gen.types import UserError

SAME = ("method", "config", "dataset", "data", "labels", "mask", "masks", "seeds", "steps", "every", "encoder")


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


def agree(folder: Path, record: dict) -> None:
    """Write run.json, or check that the run already there is this one; UserError names the first thing that differs."""
    path = folder / "run.json"
    if not path.exists():
        write_json(path, record)
        return
    there = read_json(path)
    wanted = json.loads(json.dumps(record))
    for name in SAME:
        if there.get(name) != wanted[name]:
            what, old, new = difference(name, there.get(name), wanted[name])
            raise UserError(f"{folder} holds a run with {what} {old}, this one has {new}; choose another --out")


def check_alike(records: Sequence[dict]) -> None:
    """Raise UserError where the processes of a run, one record each, were not asked for the same."""
    for index, record in enumerate(records):
        for name in records[0]:
            if record[name] != records[0][name]:
                what, old, new = difference(name, records[0][name], record[name])
                raise UserError(f"process 0 has {what} {old}, process {index} has {new}: start all with one command")


def difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """The innermost entry in which two records differ: its path and both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in [*new, *old] if old.get(key) != new.get(key))
        return difference(f"{name}.{key}", old.get(key), new.get(key))
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        index = next(index for index in range(len(new)) if old[index] != new[index])
        return difference(f"{name}[{index}]", old[index], new[index])
    return name, old, new


class Log:
    """metrics.jsonl: one object a line, flushed, so that a killed run keeps what it had; event files if asked for."""

    def __init__(self, folder: Path, step: int, tensorboard: bool = False) -> None:
        """Open the log for a run that stands at `step`: later lines, written by a run that was killed, are dropped."""
        path = folder / "metrics.jsonl"
        self.lines = [line for line in read_lines(path) if line["step"] <= step]
        beside = path.with_name(path.name + ".part")
        beside.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        os.replace(beside, path)
        self.file: TextIO = open(path, "a")  # noqa: SIM115 (closed by close)
        self.events = folder / "events" if tensorboard else None
        self.writers: dict[int, Any] = {}

    def write(self, step: int, seed: int, **values: Any) -> None:
        """Append one line; a number that is not finite is written as its name, for JSON has none."""
        finite = {key: str(v) if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
        line = {"step": step, "seed": seed, **finite}
        self.lines.append(line)
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        if self.events:
            self.write_events(step, seed, values)

    def write_events(self, step: int, seed: int, values: dict[str, Any]) -> None:
        """The numbers of a line as TensorBoard scalars, a folder a seed; a resumed run overwrites from its step on."""
        from tensorboardX import SummaryWriter

        if seed not in self.writers:
            self.writers[seed] = SummaryWriter(str(self.events / f"seed-{seed}"), purge_step=step)
        for name, value in values.items():
            if not isinstance(value, str):
                self.writers[seed].add_scalar(name, value, step)

    def close(self) -> None:
        """Close all files."""
        self.file.close()
        for writer in self.writers.values():
            writer.close()


class Silence:
    """The log of a process that writes nothing, because another one does."""

    lines = ()

    def write(self, step: int, seed: int, **values: Any) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Nothing is open."""


def read_lines(path: Path) -> list[dict]:
    """The lines of a log, none where there is no file; a last line that was cut off by a kill is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
