"""The command `ssl-gen`, and the one way out of it.

    0           done
    1           failed: every seed stopped, a process was lost, or a fault of the library
    2           what a user can mend: wrong words, data, settings; a full disk, no memory
    130, 143    stopped: by Ctrl-C, by SIGTERM or SIGHUP

Whatever happens is answered in one line on the error stream.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import shlex
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from typing import Any

from ssl_gen.cli import guard
from ssl_gen.core import failures, signals

USAGE = """usage: ssl-gen COMMAND ...

Semi-supervised image generation: many images, few labels.

commands:
  train METHOD       train with one or several seeds; the same command again resumes
  prepare DATASET    read a large data set before it is trained on, so that each start is quick
  evaluate RUN       measure a finished run again, or by other metrics
  train-features D   train the net whose features compare the images of a data set
  sample RUN         draw images from a run's generator
  latents RUN        look at what a run's latents hold: pictures for its report, and errors
  predict RUN PATH   label images: file, label, probability
  suggest [RUN] PATH which images to label next, and a table to label them in
  review RUN PATH    a page on which to correct what a run guesses of images
  export RUN         weights, model card and programs that need no library of ours
  compare RUN ...    several finished runs on one page: numbers, real differences, samples, cost
  list WHAT          what there is: methods, datasets or metrics

`ssl-gen COMMAND --help` says what each takes, `ssl-gen train METHOD --help` the settings of a method.
`--config FILE.toml` gives a command its settings, --print-config prints them as such a file.
"""

COMMANDS = {  # name -> the module of `cli` that its function stands in
    **dict.fromkeys(
        ("train", "evaluate", "train-features", "sample", "latents", "export", "compare", "list"), "commands"
    ),
    **dict.fromkeys(("predict", "suggest", "review"), "labelling"),
    "prepare": "preparing",
}

FUNCTIONS = {"list": "listing"}  # of those that are not called as their command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if arguments is None:
        if guard.is_guarded(words):
            return guard.watch(words)
        guard.enter()
        hush()
    signals.received.clear()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a stream of a test or a notebook
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names that are no text
    lost = False
    try:
        with signals.stoppable():
            status = run(words)
            sys.stdout.flush()
    except KeyboardInterrupt:
        status = stopped(words)
    except BrokenPipeError:  # `ssl-gen list methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except Exception as error:
        status = stopped(words) if signals.received else answer(error, words)
        lost = failures.in_words(error) == failures.LOST
    # Processes of a run part in order, unless one is lost: jax's service would end this one while it waits for that
    if arguments is None and status and (lost or guard.STREAM not in os.environ):
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)  # threads that still measure are not waited for, those that cannot write complain no more
    return status


def hush() -> None:
    """Threads of libraries print no errors: the thread of the command meets the same ones, and answers them.

    A full disk alone would be 500 lines, of orbax's threads and of tensorstore's.
    """

    def silent(*_: Any) -> None:
        return None

    sys.excepthook, sys.unraisablehook, threading.excepthook = silent, silent, silent


def run(words: Sequence[str]) -> int:
    """Run one command, or say what there is."""
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if words else 2
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS) or COMMANDS
        return say(f"there is no command {words[0]}; did you mean {' or '.join(near)}?", 2)
    module = importlib.import_module(f"ssl_gen.cli.{COMMANDS[words[0]]}")
    status: int = getattr(module, FUNCTIONS.get(words[0], words[0].replace("-", "_")))(words[1:])
    return status


def say(line: str, status: int) -> int:
    """One line on the error stream."""
    with contextlib.suppress(OSError):  # nobody listens
        print(f"ssl-gen: {' '.join(line.split())}", file=sys.stderr, flush=True)
    return status


def stopped(words: Sequence[str]) -> int:
    """The end of a command that a signal stopped where nothing was to be saved first."""
    goes_on = "goes on" if words[:1] == ["train"] else "begins again"
    return say(f"stopped; the same command {goes_on}: {shlex.join(['ssl-gen', *words])}", signals.status())


def answer(error: Exception, words: Sequence[str]) -> int:
    """One line for an error: what a user can mend, what the machine refused, or a fault of the library."""
    from ssl_gen.types import UserError

    if isinstance(error, UserError):
        return say(str(error), 2)
    reason = failures.in_words(error)
    if reason is not None:
        command = shlex.join(["ssl-gen", *words])
        if reason == failures.LOST:
            return say(f"{reason}: {command}", 1)
        return say(f"{reason}; then the same command: {command}", 2)
    kind = f"{type(error).__name__}: {error}"[:300]
    try:
        with tempfile.NamedTemporaryFile("w", prefix="ssl-gen-", suffix=".txt", delete=False) as file:
            file.write("".join(traceback.format_exception(error)))
        where = f"its traceback is in {file.name}"
    except OSError as refused:
        where = f"its traceback could not be kept ({refused.strerror})"
    return say(f"a fault of this program ({kind}); {where}: please report it", 1)
