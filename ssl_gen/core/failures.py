"""What fails outside the library, in words: a full disk, no memory, no locks, a process that is lost.

Errors of checkpoints come wrapped, from threads and from native code: the whole chain of causes is looked through, and
the text of what has no error number.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

MEND = {  # error number -> what a user can do about it
    errno.ENOSPC: "free some, or choose another place with --out",
    errno.EDQUOT: "free some, or choose another place with --out",
    errno.ENOLCK: "this file system keeps no locks: choose another place with --out",
    errno.EROFS: "choose another place with --out",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.ENAMETOOLONG: "choose a shorter name with --out",
}
MEMORY = "memory is used up: take smaller batches, fewer --seeds or --samples, --replicas loop or a smaller --size"
MEMORY_SIGNS = re.compile(r"out of memory|RESOURCE_EXHAUSTED.*alloc|bad_alloc|Unable to allocate", re.I | re.S)
LOST_SIGNS = re.compile(r"coordination service|heartbeat|connection (reset|closed) by peer|Gloo", re.I)
LOST = "another process of the run is lost, or never came: start all again with the same command, which goes on"
NUMBERED = re.compile(r"os_error_code='(\d+)'")  # of tensorstore
LOCAL_FILE = re.compile(r'local file "([^"]+)"')  # likewise


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised for, and those of a group."""
    seen: set[int] = set()
    left = [error]
    while left:
        each = left.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inner = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        left += [other for other in (*inner, each.__cause__, each.__context__) if other is not None]


def reason(error: Exception) -> str:
    """One line for any error, of one metric or one picture, which is not to cost a run."""
    from ssl_gen.types import UserError  # brings jax, which the command line goes without until it is needed

    if isinstance(error, UserError):
        return str(error)
    return in_words(error) or f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def in_words(error: BaseException) -> str | None:
    """One line of what the machine refused and how to go on; None for any other error, a fault of the library."""
    for each in chain(error):
        text = " ".join(str(each).split())
        if isinstance(each, MemoryError) or MEMORY_SIGNS.search(text):
            return MEMORY
        if numbered := NUMBERED.search(text):
            place = LOCAL_FILE.search(text)
            return refused(int(numbered[1]), place[1] if place else None)
        if isinstance(each, OSError) and each.errno is not None:
            return refused(each.errno, each.filename)
        if LOST_SIGNS.search(text):
            return LOST
    return None


def refused(number: int, place: object) -> str:
    """An error number and the file it is about, in words."""
    if number == errno.ENOMEM:
        return MEMORY
    said = os.strerror(number)
    words = said if place is None else f"{os.fsdecode(place) if isinstance(place, bytes) else place}: {said}"
    return f"{words}; {MEND[number]}" if number in MEND else words
