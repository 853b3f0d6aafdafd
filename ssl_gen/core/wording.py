"""Numbers in sentences."""

from __future__ import annotations


def count(number: int, noun: str, ending: str = "s") -> str:
    """1, 'seed' -> '1 seed'; 1300, 'image' -> '1,300 images'."""
    return f"{number:,} {noun}{'' if number == 1 else ending}"


def size(count: int) -> str:
    """Bytes, in the unit that leaves a whole number something to say: 2048 -> '2 KiB'; 20 * 2^20 -> '20 MiB'."""
    return f"{count / 2**20:,.0f} MiB" if count >= 10 * 2**20 else f"{count / 2**10:,.0f} KiB"
