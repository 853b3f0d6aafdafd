"""The growing log of a run folder, metrics.jsonl, and event files where they are asked for."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from ssl_gen.types import UserError


def check_events() -> None:
    """Raise UserError where event files are asked for and their writer is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise UserError("--tensorboard needs tensorboardX: pip install 'ssl-gen[tensorboard]'")


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
            self.write_events(self.events, step, seed, values)

    def write_events(self, folder: Path, step: int, seed: int, values: dict[str, Any]) -> None:
        """The numbers of a line as TensorBoard scalars, a folder a seed; a resumed run overwrites from its step on."""
        from tensorboardX import SummaryWriter  # its absence was answered by `check_events`

        if seed not in self.writers:
            self.writers[seed] = SummaryWriter(str(folder / f"seed-{seed}"), purge_step=step)
        for name, value in values.items():
            if not isinstance(value, str):
                self.writers[seed].add_scalar(name, value, step)

    def close(self) -> None:
        """Close all files."""
        self.file.close()
        for writer in self.writers.values():
            writer.close()


class NullLog:
    """The log of a process that writes nothing, because another one does."""

    lines: Sequence[dict[str, Any]] = ()

    def write(self, step: int, seed: int, **values: Any) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Nothing is open."""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, none where there is no file; a last line that was cut off by a kill is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
