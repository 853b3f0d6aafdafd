"""Dataclasses as JSON keeps them, and back."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
SHOWN = 60  # characters of a value in a message; ours


def to_plain(value: Any) -> Any:
    """A dataclass, or what holds some -> dicts, lists, text and numbers; paths become text, tuples lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


@functools.cache
def types_of(kind: type) -> dict[str, Any]:
    """The types of a class's fields, by name: found once, for a page reads the records of many runs."""
    return typing.get_type_hints(kind)


def from_plain(kind: type[T], values: Any) -> T:
    """Undo `to_plain` by the types of a dataclass's fields; fields with a default may be absent.

    Raises ValueError, naming the field, where one is missing, unknown or of another type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{kind.__name__} is no JSON object")
    hints = types_of(typing.cast(Any, kind))
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, kind))}
    unknown = [name for name in values if name not in fields]
    optional = {
        name
        for name, field in fields.items()
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    }
    missing = [name for name in fields if name not in values and name not in optional]
    if unknown or missing:
        raise ValueError(f"unknown field {unknown[0]:.60}" if unknown else f"no field {missing[0]}")
    return kind(**{name: revive(name, hints[name], value) for name, value in values.items()})


def revive(name: str, hint: Any, value: Any) -> Any:
    """One value of the type `hint`: a class, a union, a list, tuple or dict of some, a Literal, or anything.

    Raises ValueError where it is none.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is typing.Literal:
        if value not in inner:
            raise ValueError(f"{name} is {shown(value)}, none of {', '.join(map(repr, inner))}")
        return value
    if origin in (typing.Union, types.UnionType):
        for each in inner:
            try:
                return revive(name, each, value)
            except ValueError:
                continue
        raise ValueError(f"{name} is {shown(value)}")
    if hint is type(None):
        if value is not None:
            raise ValueError(f"{name} is {shown(value)}")
        return None
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} is no list")
        kinds = inner if origin is tuple and inner[-1:] != (Ellipsis,) else (inner[0],) * len(value)
        if len(kinds) != len(value):
            raise ValueError(f"{name} has {len(value)} entries, not {len(kinds)}")
        return origin(revive(name, kind, each) for kind, each in zip(kinds, value, strict=True))
    if origin is dict or typing.is_typeddict(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{name} is no JSON object")
        if typing.is_typeddict(hint):
            entries = types_of(hint)
            if entries.keys() != value.keys():
                raise ValueError(f"{name} has {shown(list(value))}, not {', '.join(entries)}")
            return {key: revive(f"{name}.{key}", entries[key], each) for key, each in value.items()}
        return {key: revive(f"{name}.{key}", inner[1], each) for key, each in value.items()} if inner else value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_plain(typing.cast(Any, hint), value)
    if hint is Path:
        if not isinstance(value, str | Path):
            raise ValueError(f"{name} is {shown(value)}, no path")
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name} is too large a number") from None
    if isinstance(hint, type) and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
        raise ValueError(f"{name} is {shown(value)}, no {hint.__name__}")
    return value


def shown(value: Any) -> str:
    """A value in a message: its beginning."""
    words = repr(value)
    return words if len(words) <= SHOWN else f"{words[:SHOWN]} ..."
