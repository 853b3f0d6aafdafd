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


def parse(
    kind: Any, arguments: Sequence[str], program: str, description: str | None = None, apart: tuple[str, ...] = ()
) -> Any:
    """The arguments, and those of --config FILE, as a `kind`; whatever is wrong becomes one line (UserError).

    Of the file the tables named in `apart` are left aside. With --print-config the settings are printed instead.
    """
    from ssl_gen.types import UserError

    words, file, printing = settings_file.split(arguments)
    given = {}
    if file:
        values = {key: value for key, value in settings_file.read(file).items() if key not in apart}
        given["default"] = settings_file.default(kind, values, file)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            asked = tyro.cli(kind, args=words, prog=program, description=description, **given)
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(one_line(said.getvalue(), program)) from None
    if printing:
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
    asks = any(word.startswith("--sampler") or word in ("-h", "--help") for word in arguments)
    if not asks and "sampler" not in settings_file.named(arguments):
        return parse(kind, arguments, program), {}
    from ssl_gen.runs.load import find_runs, sampler_of
    from ssl_gen.types import UserError

    places = named_runs(kind, arguments, program)
    samplers = [sampler_of(folder) for folder in find_runs(places)] if places else []
    if not samplers or not dataclasses.fields(samplers[0]):
        return parse(kind, arguments, program), {}
    if any(sampler != samplers[0] for sampler in samplers):
        raise UserError("these runs have samplers of different settings: give one at a time")
    field = ("sampler", type(samplers[0]), dataclasses.field(default=samplers[0]))
    extended = dataclasses.make_dataclass(kind.__name__, [field], bases=(kind,), frozen=True)
    extended.__doc__ = kind.__doc__
    asked = parse(extended, arguments, program)
    return asked, dataclasses.asdict(asked.sampler)


def named_runs(kind: Any, arguments: Sequence[str], program: str) -> list[Path]:
    """The folders that stand where a `kind` has its runs; where help is asked for, those that hold a run."""
    if not {"-h", "--help"}.isdisjoint(arguments):
        return [Path(word) for word in arguments if (Path(word) / "run.json").is_file()]
    words, rest = iter(arguments), []
    for word in words:
        if not word.startswith("--sampler."):
            rest += [word] if word != settings_file.PRINT else []
        elif "=" not in word:
            next(words, None)  # its value
    asked = parse(kind, rest, program, apart=("sampler",))
    return list(asked.runs) if hasattr(asked, "runs") else [asked.run]
