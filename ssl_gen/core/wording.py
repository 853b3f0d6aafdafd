"""Numbers in sentences."""

from __future__ import annotations


def count(number: int, noun: str, ending: str = "s") -> str:
    """1, 'seed' -> '1 seed'; 1300, 'image' -> '1,300 images'."""
    return f"{number:,} {noun}{'' if number == 1 else ending}"
