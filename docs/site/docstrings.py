"""griffe, which reads the API's docstrings without importing anything: they become HTML, fields a table.

Here a field is documented by the comment on its line, or by those right above it; so are constants of modules.
"""

from __future__ import annotations

import html
import inspect
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from docs.site.equations import prose, render

BESIDE = "  # "  # before a comment on a line of code


class Docstrings(griffe.Extension):
    """Every docstring of a package rendered, once all of it has been read."""

    def on_package(self, *, pkg: Any, **_: Any) -> None:
        finish(pkg)


def finish(place: Any) -> None:
    """Render the docstrings of a module or a class and of what is in it."""
    members = [member for member in place.members.values() if not member.is_alias]
    for member in members:
        if member.is_module or member.is_class:
            finish(member)
        elif member.is_function and member.docstring:
            member.docstring.value = render(inspect.cleandoc(member.docstring.value))
    values = [member for member in members if member.is_attribute and "property" not in member.labels]
    for value in values:  # they stand in the table
        value.docstring = None
    for member in members:
        if member.is_attribute and member not in values and member.docstring:
            member.docstring.value = render(inspect.cleandoc(member.docstring.value))
    text = render(inspect.cleandoc(place.docstring.value)) if place.docstring else ""
    shown = [value for value in values if not value.name.startswith("_")]
    if text:
        place.docstring.value = text + "\n\n" + table(shown)


def table(values: list[Any]) -> str:
    """Fields or constants with their comments; those without one are left out where any has one."""
    said = [(value, comment_of(value)) for value in values]
    rows = [
        f"<tr><td><code>{value.name}</code><br>{kind(value)}</td><td>{prose(comment)}</td></tr>"
        for value, comment in said
        if comment or value.parent.is_class
    ]
    return f'<div class="prose-last"><table><tbody>{"".join(rows)}</tbody></table></div>' if rows else ""


def kind(value: Any) -> str:
    """The type of a field and its default, or the value of a constant, as code."""
    parts = [str(part) for part in (value.annotation, value.value) if part is not None]
    text = " = ".join(parts)
    return f"<code>{html.escape(text, quote=False)}</code>" if len(text) < 80 else ""


def comment_of(value: Any) -> str:
    """The comment beside a definition with the lines that go on with it, or, where there is none, those above it."""
    lines = value.module.lines_collection[value.module.filepath]
    beside = [line.split(BESIDE, 1)[1] for line in lines[value.lineno - 1 : value.endlineno] if BESIDE in line]
    if not beside:
        return " ".join(reversed(comments(reversed(lines[: value.lineno - 1]))))
    below = comments(iter(lines[value.endlineno :]))
    after = lines[value.endlineno + len(below) :][:1]
    owned = not after or BESIDE in after[0] or ":" not in after[0]  # else they are of the definition below
    return " ".join(beside + (below if owned else []))


def comments(lines: Iterator[str]) -> list[str]:
    """The lines of comment at the beginning of some lines, without their marks."""
    own = itertools.takewhile(lambda line: line.strip().startswith("# "), lines)
    return [line.strip()[2:] for line in own]
