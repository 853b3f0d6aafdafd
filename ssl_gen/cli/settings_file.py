"""Settings of a command in a TOML file, `--config FILE.toml`; `--print-config` writes what such a file holds.

A key is a flag's name with _ for -, a table holds what stands behind a dot: `[config.augmentation]` has the `flip` of
--config.augmentation.flip. Flags beside the file win.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from ssl_gen.core.plain import revive, to_plain

FILE, PRINT = "--config", "--print-config"


class Given(NamedTuple):
    """The words of a command, and what the file that they name holds."""

    words: list[str]  # but for --config and --print-config
    file: Path | None
    values: dict[str, Any]  # of the file, {} without one
    printing: bool  # are settings to be printed?


def given(words: Sequence[str]) -> Given:
    """The words of a command and of its file, which is read once: it may be a pipe, as of the shell's <(...).

    Raises UserError as `named`, and for a file that cannot be read or is no TOML.
    """
    found = named(words)
    return found._replace(values=read(found.file)) if found.file else found


def named(words: Sequence[str]) -> Given:
    """The words of a command and which file they name, unread. Raises UserError where that is none, or several."""
    from ssl_gen.types import UserError

    rest, files = [], []
    each = iter(words)
    for word in each:
        if word == FILE or word.startswith(f"{FILE}="):
            files.append(word.partition("=")[2] if "=" in word else next(each, ""))
        elif word != PRINT:
            rest.append(word)
    if len(files) > 1 or "" in files or any(file.startswith("--") for file in files):
        raise UserError(f"{FILE} takes one file of settings, such as settings.toml")
    return Given(rest, Path(files[0]) if files else None, {}, PRINT in words)


def read(path: Path) -> dict[str, Any]:
    """What a file holds. Raises UserError where it cannot be read or is no TOML."""
    from ssl_gen.types import UserError

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{FILE} {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} is no TOML file: {error}") from error


def default(kind: Any, values: Mapping[str, Any], path: Path) -> Any:
    """A `kind` with the values of a file for its defaults; what it needs and the file lacks is for the words.

    Raises UserError, naming the key, for one that is unknown or of another type.
    """
    from ssl_gen.types import UserError

    try:
        made, used = _made(kind, None, values, "")
        _check_used(values, used, "")
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return made


def _made(kind: Any, given: Any, values: Mapping[str, Any], table: str) -> tuple[Any, set[str]]:
    """A dataclass, from `given` where it is one, with some values changed; and the keys that it has."""
    hints, used, changed = typing.get_type_hints(kind, include_extras=True), set(), {}
    for field in dataclasses.fields(kind):
        hint, inline = _plain(hints[field.name])
        name, value = f"{table}{field.name}", values.get(field.name)
        changed[field.name] = start = _start(field) if given is None else getattr(given, field.name)
        if inline:
            changed[field.name], inner = _made(hint, start, values, table)
            used |= inner
        elif field.name in values:
            used.add(field.name)
            if not dataclasses.is_dataclass(hint):
                changed[field.name] = revive(name, hint, value)
            elif isinstance(value, dict):
                changed[field.name], inner = _made(hint, start, value, f"{name}.")
                _check_used(value, inner, f"{name}.")
            else:
                raise ValueError(f"{name} is no table")
    return kind(**changed), used


def _check_used(values: Mapping[str, Any], used: set[str], table: str) -> None:
    unknown = sorted(values.keys() - used)
    if unknown:
        raise ValueError(f"there is no setting {table}{unknown[0]}")


def _start(field: dataclasses.Field[Any]) -> Any:
    """What a field is unless something is said."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return tyro.MISSING if field.default is dataclasses.MISSING else field.default


def _plain(hint: Any) -> tuple[Any, bool]:
    """A type without what tyro is told of it, and whether its fields stand in the table of what it is a field of."""
    inline = False
    if typing.get_origin(hint) is typing.Annotated:
        hint, *told = typing.get_args(hint)
        inline = any(getattr(each, "name", None) == "" for each in told)
    return hint, inline


def printed(settings: Any) -> str:
    """A dataclass as a file of settings; what is None is left out, and so is the default there."""
    own, tables = _parts(settings)
    return "\n".join([*own, *tables]) + "\n"


def _parts(settings: Any, table: str = "") -> tuple[list[str], list[str]]:
    """The lines of a table, and of those below it."""
    hints = typing.get_type_hints(type(settings), include_extras=True)
    own: list[str] = []
    below: list[str] = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            inline = _plain(hints[field.name])[1]
            name = table if inline else f"{table}{field.name}."
            lines, tables = _parts(value, name)
            own += lines if inline else []
            below += tables if inline else ["", f"[{name[:-1]}]", *lines, *tables]
        elif value is not None:
            own.append(f"{field.name} = {_toml(to_plain(value))}")
    return own, below


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
