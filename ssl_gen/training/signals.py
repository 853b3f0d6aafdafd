"""Signals that ask a run to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Within, SIGTERM and Ctrl-C raise a flag, and act the second time; outside the main thread nothing changes."""
    seen = []

    def notice(number: int, _frame: object) -> None:
        seen.append(number)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    try:
        before = {number: signal.signal(number, notice) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # signals belong to the main thread
        before = {}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
