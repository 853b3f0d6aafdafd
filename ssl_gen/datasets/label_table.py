"""labels.csv: which file has which class. Every row is understood or refused by its number, none is guessed at."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from ssl_gen.core.cells import from_cell
from ssl_gen.datasets.names import class_of, readable
from ssl_gen.types import UserError

TABLE = "labels.csv"  # in any case
COLUMNS = ("file", "label")


def read_table(path: Path, blank: bool = False) -> dict[str, str | None]:
    """labels.csv -> {file as it is written, relative to the table's folder: class name, None for no label}.

    Further columns are allowed; a name keeps the spaces around it, which a file's may have. Raises UserError, with the
    number of the line, for what is no such table, and where no file has a label, unless `blank` says that none need.
    """
    labels: dict[str, str | None] = {}
    shown = readable(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as opened:
            table = csv.reader(opened, strict=True)
            header = [name.strip().casefold() for name in next(table, [])]
            if any(header.count(name) != 1 for name in COLUMNS):
                raise UserError(f"{shown} must begin with a line naming the columns: file,label, each once.")
            file_column, label_column = (header.index(name) for name in COLUMNS)
            for row in table:
                where = f"{shown}, line {table.line_num}"
                if not any(map(str.strip, row)):
                    continue
                if len(row) > len(header):
                    raise UserError(
                        f"{where} has {len(row)} fields, the header {len(header)}: put a name that holds a comma in "
                        "double quotes."
                    )
                if len(row) <= max(file_column, label_column) or not row[file_column].strip():
                    raise UserError(f"{where}: a file name and a label are needed.")
                name = _normal(from_cell(row[file_column]))
                if name in labels:
                    raise UserError(f"{where}: {name!r} is listed twice.")
                labels[name] = class_of(from_cell(row[label_column].strip()), where)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{shown} cannot be read as a table in UTF-8 ({error}).") from error
    except OSError as error:
        raise UserError(f"{shown} cannot be read: {error.strerror}.") from error
    if not (blank or any(labels.values())):
        raise UserError(f"{shown} gives no file a label: without labelled images there are no classes.")
    return labels


def _normal(name: str) -> str:
    """A relative path as it is looked up: ./a.png is a.png."""
    return readable(PurePosixPath(name))
