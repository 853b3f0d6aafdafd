"""The growing log of a run folder, metrics.jsonl, and the trackers that are told the same where they are asked for."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_gen.core.files import say, write_whole
from ssl_gen.training.trackers import Guarded


def text_of(lines: Sequence[dict[str, Any]]) -> bytes:
    """What metrics.jsonl holds."""
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


class Log:
    """metrics.jsonl: one object a line, flushed, so that a killed run keeps what it had; then the trackers."""

    def __init__(self, folder: Path, lines: Sequence[dict[str, Any]], trackers: Sequence[Guarded] = ()) -> None:
        """Open the log of a run that goes on after `lines`, which its checkpoint has kept.

        What a killed run wrote after them is dropped, and a file that does not begin with them is written again. Raises
        OSError where it cannot be written.
        """
        path = folder / "metrics.jsonl"
        self.lines, text = list(lines), text_of(lines)
        there = path.read_bytes() if path.is_file() else b""
        if not there.startswith(text):
            say(f"{path} is damaged: its lines up to the newest whole checkpoint are written again from there")
        write_whole(path, text)
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        self.trackers = trackers

    def write(self, step: int, seed: int, **values: Any) -> None:
        """Append one line; a number that is not finite is written as its name, for JSON has none. Raises OSError."""
        finite = {key: str(v) if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
        line = {"step": step, "seed": seed, **finite}
        self.lines.append(line)
        text = text_of([line])
        if self.file.write(text) < len(text):  # of a full disk: the rest of the line had no room
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        numbers = {name: value for name, value in values.items() if not isinstance(value, str)}
        for tracker in self.trackers:
            tracker.write(step, seed, numbers)

    def close(self) -> None:
        """Close all files."""
        self.file.close()
        for tracker in self.trackers:
            tracker.close()


class NullLog:
    """The log of a process that writes nothing, because another one does."""

    lines: Sequence[dict[str, Any]] = ()

    def write(self, step: int, seed: int, **values: Any) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Nothing is open."""
