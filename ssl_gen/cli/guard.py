"""A process of a `--distributed` run under the eyes of a small one, which says in a line why the machine ended it.

Where a process of a run is lost, jax's service ends the others from native code, with SIGABRT and a stack, and no
handler of Python's can come before (a callback in Python is a `std::bad_cast` in jaxlib 0.10). So the command works in
a child, whose native error stream the parent reads; Python's own goes where it went, and shows its progress bar.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence

from ssl_gen.core import failures, signals

STREAM = "SSL_GEN_ERROR_STREAM"  # in the environment of the child: the descriptor that the parent writes errors to
SERVICE = re.compile(r"[EF]\d{4} .*(coordination|distributed service)", re.I)  # how jax's service begins to complain
SET_PARENT_DEATH_SIGNAL = 1  # of Linux's prctl


def is_guarded(words: Sequence[str]) -> bool:
    """Is this a command that needs a parent and has none?"""
    if words[:1] != ["train"] or STREAM in os.environ:
        return False
    return "--distributed" in words or ("--no-distributed" not in words and _is_distributed_by_file(words))


def _is_distributed_by_file(words: Sequence[str]) -> bool:
    """Does the file of `--config` say so? One that is no regular file is not looked at: a pipe is read once."""
    if not any(word.partition("=")[0] == "--config" for word in words):
        return False  # without a look at what reads such files
    from ssl_gen.cli import settings_file
    from ssl_gen.types import UserError

    try:
        file = settings_file.named(words).file
        return file is not None and file.is_file() and settings_file.read(file).get("distributed") is True
    except UserError:
        return False  # the command itself will say what is wrong


def enter() -> None:
    """In the child: Python's errors go to the parent's stream; it dies with its parent."""
    descriptor = os.environ.get(STREAM)
    if descriptor is None or not descriptor.isdecimal():
        return
    sys.stderr = os.fdopen(int(descriptor), "w", buffering=1, errors="backslashreplace")
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def watch(words: Sequence[str]) -> int:
    """Run a command in a child, and return its exit status; signals are passed on to it."""
    errors = os.dup(sys.stderr.fileno())
    child = subprocess.Popen(
        [sys.executable, "-m", "ssl_gen.cli", *words],
        stderr=subprocess.PIPE,
        pass_fds=(errors,),
        env=os.environ | {STREAM: str(errors)},
        process_group=0,  # Ctrl-C reaches it through us alone: a second one would act at once
        errors="replace",
    )
    os.close(errors)
    for number in signals.STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _frame: child.send_signal(number))
    held: list[str] = []
    with contextlib.suppress(OSError):
        for line in child.stderr or ():
            if held or SERVICE.match(line):
                held.append(line)
            else:
                print(line, end="", file=sys.stderr, flush=True)
    status = child.wait()
    if status == -signal.SIGABRT and held:
        print(f"ssl-gen: {failures.LOST}", file=sys.stderr, flush=True)
        return 1
    if status <= 0:  # else the child has said in its line what the service complains of
        print("".join(held), end="", file=sys.stderr, flush=True)
    return status if status >= 0 else 128 - status
