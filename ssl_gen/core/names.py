"""Names that a user gave, made fit for files; two that differ stay two."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

LONGEST = 100  # bytes of a name of ours, so that what is added to it still fits the 255 of a file system


def plain(name: str) -> str:
    """A name without what cannot stand in a file's; one that is long is cut and carries a hash of all of it."""
    words = re.sub(r"[^\w.-]+", "-", name)
    if len(words.encode(errors="replace")) <= LONGEST:
        return words
    short = words.encode(errors="replace")[: LONGEST - 9].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}"


def folded(name: str) -> str:
    """What a file system may take for the same name: it may know no case, and compose letters and accents."""
    return unicodedata.normalize("NFKC", name).casefold()


def file_names(names: Sequence[str]) -> list[str]:
    """The plain form of each name; those that would be one carry the name's number, from 0."""
    found = [plain(name) for name in names]
    forms = [folded(each) for each in found]
    taken = {form for form in forms if forms.count(form) == 1}
    for number, form in enumerate(forms):
        if form not in taken and forms.count(form) > 1:
            numbered = f"{found[number]}-{number}"
            while folded(numbered) in taken:
                numbered += f"-{number}"
            taken.add(folded(numbered))
            found[number] = numbered
    return found


def numbered(number: int, names: Sequence[str]) -> int:
    """Which of `names` a number means: the name that is this number, or, where none is, the one at its place.

    One that is none of the names comes back as it is.
    """
    numbers = [int(name) if is_number(name) else None for name in names]
    return numbers.index(number) if number in numbers else number


def is_number(name: str) -> bool:
    """Is a name a whole number, 7 or 007?"""
    return re.fullmatch(r"[0-9]{1,100}", name) is not None
