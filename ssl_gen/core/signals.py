"""Signals that ask a process to stop, and how it ends for them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN = 75  # exit status of a part of a table that a signal stopped: EX_TEMPFAIL, else it would count as done
received: list[int] = []  # of `STOPPING`, by this process, in order: signals are a process's, not a run's


class Stopped(KeyboardInterrupt):
    """A signal came where nothing is to be saved first."""


def status() -> int:
    """The exit status of a process that was stopped: 130 for Ctrl-C, 143 for all else, as for SIGTERM."""
    return 143 if received and received[-1] != signal.SIGINT else 130


@contextlib.contextmanager
def _handled(act: Callable[[int], None]) -> Iterator[None]:
    """Within, `act` gets the number of each signal that asks to stop, but for those that the process is to ignore.

    Outside the main thread, to which signals belong, nothing changes.
    """

    def notice(number: int, _frame: object) -> None:
        received.append(number)
        act(number)

    before = {}
    with contextlib.suppress(ValueError):  # outside the main thread
        for number in STOPPING:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # nohup; a handler that is not Python's
                before[number] = signal.signal(number, notice)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within, a signal raises `Stopped` wherever the process is."""

    def stop(number: int) -> None:
        raise Stopped(signal.Signals(number).name)

    with _handled(stop):
        yield


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Within, a signal raises a flag, and acts the second time."""
    seen: list[int] = []

    def flag(number: int) -> None:
        seen.append(number)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    with _handled(flag):
        yield lambda: bool(seen)


@contextlib.contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """Within, signals are counted, and do nothing else."""
    seen: list[int] = []
    with _handled(seen.append):
        yield lambda: len(seen)
