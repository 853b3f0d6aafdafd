"""What this process may use of its machine."""

from __future__ import annotations

import os
from pathlib import Path

from ssl_gen.core.files import say_once


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path | None:
    """Where things are kept that can be made again: XDG_CACHE_HOME/ssl_gen, in the user's home; None without one.

    What cannot be kept there is made again each time: that costs time and no result.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given or Path.home() / ".cache") / "ssl_gen"
    except RuntimeError:  # a user without an entry in /etc/passwd, as some clusters have them
        say_once("there is no home folder to keep features and programs in; set XDG_CACHE_HOME to a folder of yours")
        return None
