"""The words of a command as the dataclass that it takes; what is wrong with them is one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from ssl_gen.cli import settings_file

RunFolder = Annotated[Path, tyro.conf.Positional]


def parse(kind: Any, arguments: Sequence[str], program: str) -> Any:
    """The arguments, and those of --config FILE, as a `kind`; whatever is wrong becomes one line (UserError)."""
    return parse_given(kind, settings_file.given(arguments), program)


def parse_given(
    kind: Any, given: settings_file.Given, program: str, description: str | None = None, apart: tuple[str, ...] = ()
) -> Any:
    """The same of words and a file that are told apart.

    Of the file the tables named in `apart` are left aside. With --print-config the settings are printed instead.
    """
    from ssl_gen.types import UserError

    start = {}
    if given.file:
        values = {key: value for key, value in given.values.items() if key not in apart}
        start["default"] = settings_file.default(kind, values, given.file)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            asked = tyro.cli(kind, args=given.words, prog=program, description=description, **start)
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(one_line(said.getvalue(), program)) from None
    if given.printing:
        print(settings_file.printed(asked), end="")
        raise SystemExit(0)
    return asked


def one_line(message: str, program: str) -> str:
    """What tyro says in a box, in one line: without its rules, its title and the help of the argument."""
    lines = [
        line.strip(" │─╭╮╰╯-") if set(line) <= set(" │─╭╮╰╯-") else line.strip(" │") for line in message.splitlines()
    ]
    body = " ".join(line for line in lines[1:] if line)
    body = re.split(r"Argument helptext:|For full helptext", body)[0].strip()
    return f"{re.sub(' +', ' ', body)} (see {program} --help)"


def parse_with_sampler(kind: Any, arguments: Sequence[str], program: str) -> tuple[Any, dict[str, Any]]:
    """The arguments as a `kind`, and the settings of the sampler of the runs that they name, --sampler.FIELD.

    Raises UserError where runs are of methods whose samplers have other settings.
    """
    given = settings_file.given(arguments)
    asks = any(word.startswith("--sampler") or word in ("-h", "--help") for word in given.words)
    if not asks and "sampler" not in given.values:
        return parse_given(kind, given, program), {}
    from ssl_gen.runs.load import find_runs, sampler_of
    from ssl_gen.types import UserError

    places = named_runs(kind, given, program)
    samplers = [sampler_of(folder) for folder in find_runs(places)] if places else []
    if not samplers or not dataclasses.fields(samplers[0]):
        return parse_given(kind, given, program), {}
    if any(sampler != samplers[0] for sampler in samplers):
        raise UserError("these runs have samplers of different settings: give one at a time")
    field = ("sampler", type(samplers[0]), dataclasses.field(default=samplers[0]))
    extended = dataclasses.make_dataclass(kind.__name__, [field], bases=(kind,), frozen=True)
    extended.__doc__ = kind.__doc__
    asked = parse_given(extended, given, program)
    return asked, dataclasses.asdict(asked.sampler)


def named_runs(kind: Any, given: settings_file.Given, program: str) -> list[Path]:
    """The folders that stand where a `kind` has its runs; where help is asked for, those that hold a run."""
    if not {"-h", "--help"}.isdisjoint(given.words):
        return [Path(word) for word in given.words if (Path(word) / "run.json").is_file()]
    words, rest = iter(given.words), []
    for word in words:
        if not word.startswith("--sampler."):
            rest.append(word)
        elif "=" not in word:
            next(words, None)  # its value
    asked = parse_given(kind, given._replace(words=rest, printing=False), program, apart=("sampler",))
    return list(asked.runs) if hasattr(asked, "runs") else [asked.run]
