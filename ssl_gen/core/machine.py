"""What this process may use of its machine."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_gen.core.files import say_once

if TYPE_CHECKING:
    import jax

MEMORY = Path("/proc/meminfo")  # of Linux; man 5 proc
# what a container may have, and has: Linux, cgroup-v2.rst and cgroup-v1/memory.rst
CONTAINER = [
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(device: jax.Device) -> int | None:
    """Bytes that a device has left for jax, a processor those of its machine or container; None where nothing says."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if device.platform != "cpu":
        return None
    numbers = [(_number(most), _number(now), _given_back(now.with_name("memory.stat"))) for most, now in CONTAINER]
    left = [most - max(now - back, 0) for most, now, back in numbers if most and now]
    found = re.search(r"MemAvailable:\s+(\d+) kB", MEMORY.read_text()) if MEMORY.is_file() else None
    return min([*left, int(found[1]) * 2**10] if found else left, default=None)


def _number(file: Path) -> int:
    """What stands in a file; 0 where it is not there or says "max"."""
    try:
        said = file.read_text().strip()
    except OSError:
        return 0
    return int(said) if said.isdecimal() else 0


def _given_back(file: Path) -> int:
    """Bytes of files that a container has read and the system gives back when it wants memory: they count as used."""
    try:
        said = file.read_text()
    except OSError:
        return 0
    # total_: of cgroup v1, with the groups below, as the number in use is; v2 has no other
    found = re.search(r"^total_inactive_file (\d+)$", said, re.M) or re.search(r"^inactive_file (\d+)$", said, re.M)
    return int(found[1]) if found else 0


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
