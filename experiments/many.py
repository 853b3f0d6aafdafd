"""Rows of many experiments side by side on one machine until a time is up: for an accelerator lent for minutes.

    python -m experiments.many LIST --seconds 460 --workers 16 --out DIR [-- ARGUMENTS]

A line of LIST is `EXPERIMENT ROW [AFTER]`, `#` begins a comment; a row waits for the row AFTER of its experiment, whose
guesses or latents it learns. Each is `python -m experiments.EXPERIMENT --only ROW --out DIR/EXPERIMENT ARGUMENTS` in a
process of its own (`-- --data-dir DATA --precision float32`, say), taken from the top of the list as one ends. Some
seconds before the time is up those that run are asked to stop, and keep their state; what still runs then is killed.
The same command goes on. Ctrl-C and SIGTERM end them likewise, and a second one kills them. Memory of a GPU is taken as
it is needed, so that processes share it. What a row prints is in DIR/EXPERIMENT.ROW.log, what became of it in
DIR/many.log.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ssl_gen.core import signals

SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # of a GPU's memory
GRACE = 20.0  # s that rows have to keep their state; ours: a call of 100 steps, a checkpoint and a report
POLL = 0.1  # s between looks at what runs


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
    """Jobs, from the top; one that waits for a row that failed or is not listed is never given."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.left, self.done = list(jobs), set[tuple[str, str]]()

    def take(self) -> Job | None:
        """The next job that waits for nothing; None where there is none now."""
        ready = (job for job in self.left if job.after is None or (job.experiment, job.after) in self.done)
        job = next(ready, None)
        if job is not None:
            self.left.remove(job)
        return job

    def end(self, job: Job, well: bool) -> None:
        """A job ended."""
        if well:
            self.done.add((job.experiment, job.row))


class Running(NamedTuple):
    """A job at work."""

    job: Job
    process: subprocess.Popen[bytes]
    began: float


def start(job: Job, out: Path, arguments: Sequence[str]) -> Running:
    """Begin a job, in a group of processes of its own: a signal to this one is passed on once, not heard twice."""
    command = [sys.executable, "-m", f"experiments.{job.experiment}", "--only", job.row]
    command += ["--out", str(out / job.experiment), *arguments]
    with open(out / f"{job.experiment}.{job.row}.log", "w") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | SHARED,
            process_group=0,
        )
    return Running(job, process, time.monotonic())


def kill(running: Sequence[Running]) -> None:
    """End jobs, and what they began, at once."""
    for each in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(each.process.pid, signal.SIGKILL)
    for each in running:
        each.process.wait()


def work(
    queue: Queue,
    workers: int,
    begin: Callable[[Job], Running],
    say: Callable[[Running, str], None],
    until: float,
    grace: float,
    asked: Callable[[], int] = lambda: 0,
) -> None:
    """Run jobs, `workers` at a time, until there are none or the time is up; none is left running.

    asked: how many signals have asked to stop by now.
    """
    running: list[Running] = []
    asking = until - grace  # when those that run are asked to stop
    told = False
    try:
        while True:
            now = time.monotonic()
            if asked() and not told:
                asking, until = min(asking, now), min(until, now + grace)
            if now >= asking and not told:
                told = True
                for each in running:
                    each.process.terminate()
            if now >= until or asked() > 1:
                kill(running)
            for each in [each for each in running if each.process.poll() is not None]:
                running.remove(each)
                status = each.process.returncode
                queue.end(each.job, status == 0)
                cut = status == signals.AGAIN or told
                say(each, "done" if status == 0 else "cut off" if cut else f"failed with {status}")
            while not told and len(running) < workers and (job := queue.take()) is not None:
                running.append(begin(job))
            if not running:
                return
            time.sleep(POLL)
    finally:
        kill(running)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path, help="a file of rows")
    parser.add_argument("--seconds", type=float, required=True, help="after which nothing runs any more")
    parser.add_argument(
        "--grace",
        type=float,
        default=GRACE,
        help=f"seconds of these that rows have to keep their state: {GRACE:.0f}, at most half of all",
    )
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
    until = time.monotonic() + asked.seconds

    def say(ended: Running, how: str) -> None:
        took = time.monotonic() - ended.began
        with open(asked.out / "many.log", "a") as log:
            print(f"{ended.job.experiment} {ended.job.row}: {how} after {took:.0f} s", file=log)

    with signals.counted() as stops:
        begin = functools.partial(start, out=asked.out, arguments=arguments)
        work(queue, asked.workers, begin, say, until, min(asked.grace, asked.seconds / 2), stops)
    if stops():
        raise SystemExit(signals.status())


if __name__ == "__main__":
    main()
