"""Settings that do not fit together, answered in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssl_gen.types import UserError


def choose(option: str, value: str, choices: Sequence[str]) -> str:
    """The value itself; raises UserError where it is none of the choices."""
    if value not in choices:
        raise UserError(f"{option} is {value!r}: choose one of {', '.join(choices)}")
    return value


def check_multiples(config: Any, of: str, *names: str) -> None:
    """Raise UserError where a named batch size of a config is no multiple of another, as `interleave` needs."""
    for name in names:
        size, first = getattr(config, name), getattr(config, of)
        if size % first:
            raise UserError(f"{name} {size} is no multiple of {of} {first}: change one of them")
