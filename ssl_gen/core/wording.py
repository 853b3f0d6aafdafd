"""Numbers and names in sentences."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: int, noun: str, ending: str = "s") -> str:
    """1, 'seed' -> '1 seed'; 1300, 'image' -> '1,300 images'."""
    return f"{number:,} {noun}{'' if number == 1 else ending}"


def size(count: int) -> str:
    """Bytes, in the unit that leaves a whole number something to say: 2048 -> '2 KiB'; 20 * 2^20 -> '20 MiB'."""
    return f"{count / 2**20:,.0f} MiB" if count >= 10 * 2**20 else f"{count / 2**10:,.0f} KiB"


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names and how many there are beside them: cat, dog, owl and 7 more."""
    first, rest = ", ".join(names[:most]), len(names) - most
    return first if rest <= 0 else f"{first} and {rest} more"


def own_kind(dataset: str) -> str:
    """`folder` or `npz` of a data set that is a user's own images, "" of another's name."""
    kind, colon, _ = dataset.partition(":")
    return kind if colon and kind in ("folder", "npz") else ""
