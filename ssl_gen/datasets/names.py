"""Names that people give: made comparable and printable, and told from the words that mean "no label"."""

from __future__ import annotations

import difflib
import math
import os
import re
import unicodedata
from collections.abc import Sequence

from ssl_gen.types import UserError

# Letters alone, small: "Un-labelled", "no_label" and "<NaN>" are found too. "" is a blank.
NO_LABEL = (
    "unlabelled",
    "unlabeled",
    "unlab",
    "nolabel",
    "nolabels",
    "notlabelled",
    "notlabeled",
    "nan",
    "none",
    "null",
)
# What may mean a class as well as none.
AMBIGUOUS = (
    *("unknown", "na", "nil", "missing", "undefined", "unclassified", "unsorted", "unassigned", "unannotated"),
    *("untagged", "blank", "labelled", "labeled", "label", "labels"),
)
ALIKE = 0.85  # of difflib: "unlabled" is meant as unlabelled; ours
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories of what breaks a line or cannot be written


def readable(name: str | os.PathLike[str]) -> str:
    """A name, or a path, from the disk or from a table as text of one line that compares equal however it was typed.

    Composed (NFC: a Mac writes é as e and an accent); bytes that are no UTF-8 and control characters are escaped
    (`caf\\xe9`), so that every name can be printed and written.
    """
    text = os.fspath(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in UNPRINTABLE else c
        for c in unicodedata.normalize("NFC", text)
    )


def class_of(word: str, where: str) -> str | None:
    """The class that a word names; None where it means "no label".

    Raises UserError, naming `where` it stands, for a word that may mean either.
    """
    name = readable(word.strip()).strip()
    folded = unicodedata.normalize("NFKC", name).casefold().replace("\N{MINUS SIGN}", "-")
    letters = re.sub(r"[\W_]+", "", folded)
    number = _number(folded)
    if not name or set(folded) == {"?"} or letters in NO_LABEL or (number is not None and _no_class(number)):
        return None
    negative = number is not None and number < 0 and number.is_integer()
    misspelt = letters.startswith("unlabel") or difflib.get_close_matches(letters, NO_LABEL[:2], 1, ALIKE)
    if negative or misspelt or letters in AMBIGUOUS or set(folded) <= set("-._"):
        raise UserError(
            f"{where}: {name!r} may mean a class or no label: write unlabelled if it means none, or another name, "
            f"such as 'class {name}', if it is one."
        )
    return name


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _no_class(number: float) -> bool:
    """Is it a number that stands for no label: -1, or no number at all?"""
    return number == -1 or math.isnan(number)


def check_distinct(names: Sequence[str], where: str) -> None:
    """Raises UserError where two of the names read the same."""
    first: dict[str, str] = {}
    for name in names:
        same = first.setdefault(readable(name), name)
        if same != name:
            raise UserError(
                f"{where} has two entries that both read {readable(name)!r}, in other bytes: rename one of them."
            )


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
