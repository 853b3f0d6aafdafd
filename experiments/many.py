"""Rows of many experiments side by side on one machine until a time is up: for an accelerator lent for minutes.

    python -m experiments.many LIST --seconds 460 --workers 16 --out DIR [-- ARGUMENTS]

A line of LIST is `EXPERIMENT ROW [AFTER]`, `#` begins a comment; a row waits for the row AFTER of its experiment, whose
guesses or latents it learns. Each is `python -m experiments.EXPERIMENT --only ROW --out DIR/EXPERIMENT ARGUMENTS` in a
process of its own (`-- --data-dir DATA --precision float32`, say), taken from the top of the list by the next worker
that is free, and ended when the time is up: the same command goes on. Memory of a GPU is taken as it is needed, so that
processes share it. What a row prints is in DIR/EXPERIMENT.ROW.log, what became of it in DIR/many.log.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # of a GPU's memory


class Job(NamedTuple):
    """A row of an experiment, and the row that it waits for."""

    experiment: str
    row: str
    after: str | None


def read(text: str) -> list[Job]:
    """The jobs of a list. Raises ValueError for a line that is none."""
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    for number, words in enumerate(lines, 1):
        if words and len(words) not in (2, 3):
            raise ValueError(f"line {number} is not EXPERIMENT ROW [AFTER]: {' '.join(words)}")
    return [Job(words[0], words[1], words[2] if len(words) == 3 else None) for words in lines if words]


class Queue:
    """Jobs that workers take from the top; one that waits for a row that failed or is not listed is never given."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.left, self.done = list(jobs), set[tuple[str, str]]()
        self.running: set[tuple[str, str]] = set()
        self.change = threading.Condition()

    def take(self, until: float) -> Job | None:
        """The next job that waits for nothing; None where none will come, or at the time `until`."""
        with self.change:
            while time.monotonic() < until:
                ready = (job for job in self.left if job.after is None or (job.experiment, job.after) in self.done)
                job = next(ready, None)
                if job is not None:
                    self.left.remove(job)
                    self.running.add((job.experiment, job.row))
                    return job
                if not self.left or not self.running:
                    return None
                self.change.wait(until - time.monotonic())
        return None

    def end(self, job: Job, well: bool) -> None:
        """A job ended."""
        with self.change:
            self.running.discard((job.experiment, job.row))
            if well:
                self.done.add((job.experiment, job.row))
            self.change.notify_all()


def work(queue: Queue, out: Path, arguments: Sequence[str], until: float, say: threading.Lock) -> None:
    """One worker: jobs until there are none or the time is up."""
    while (job := queue.take(until)) is not None:
        name, began = f"{job.experiment}.{job.row}", time.monotonic()
        command = [sys.executable, "-m", f"experiments.{job.experiment}", "--only", job.row]
        command += ["--out", str(out / job.experiment), *arguments]
        with open(out / f"{name}.log", "w") as log:
            try:
                left = max(until - began, 0.0)
                status = subprocess.run(
                    command, stdout=log, stderr=log, env=os.environ | SHARED, timeout=left
                ).returncode
                how = "done" if status == 0 else f"failed with {status}"
            except subprocess.TimeoutExpired:
                how = "cut off"
        queue.end(job, how == "done")
        with say, open(out / "many.log", "a") as log:
            print(f"{job.experiment} {job.row}: {how} after {time.monotonic() - began:.0f} s", file=log, flush=True)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path, help="a file of rows")
    parser.add_argument("--seconds", type=float, required=True, help="after which all are ended")
    parser.add_argument("--workers", type=int, default=8, help="rows at a time")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where the runs go")
    words = list(sys.argv[1:] if given is None else given)
    end = words.index("--") if "--" in words else len(words)
    asked, arguments = parser.parse_args(words[:end]), words[end + 1 :]
    try:
        queue = Queue(read(asked.list.read_text()))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    asked.out.mkdir(parents=True, exist_ok=True)
    until, say = time.monotonic() + asked.seconds, threading.Lock()
    settings = queue, asked.out, arguments, until, say
    workers = [threading.Thread(target=work, args=settings) for _ in range(asked.workers)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()


if __name__ == "__main__":
    main()
