"""Run the rows of a table, print it, and keep its record: what every experiment file calls.

An experiment is data: ROWS, BASELINE, METRICS. Runs resume and finished ones are read, so a table can be made in
pieces.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssl_gen import run
from ssl_gen.reports import records, tables
from ssl_gen.setting import Options
from ssl_gen.training import devices

HERE = Path(__file__).parent
TINY_STEPS = 20  # with --tiny: enough to pass through every part


class Row(NamedTuple):
    """One line of a table: a method, its settings, its data."""

    method: str
    config: Any
    options: Options  # `encoder` is the name of another row
    metrics: tuple[str, ...] = ()  # measured besides the usual ones


def shrunk(row: Row) -> Row:
    """The row with few steps (where it has any) and two seeds, to see that the file works."""
    few = {"steps": TINY_STEPS} if hasattr(row.config, "steps") else {}
    options = dataclasses.replace(row.options, seeds=2)
    return row._replace(config=dataclasses.replace(row.config, **few), options=options, metrics=())


def train(rows: Mapping[str, Row], folder: Path, data_dir: Path | None = None) -> dict[str, dict[str, Any]]:
    """final.json of every row that could be finished, by name; a signal ends the process where it stands."""
    finals = {}
    for name, row in rows.items():
        started = time.perf_counter()
        encoder = row.options.encoder and folder / row.options.encoder
        options = dataclasses.replace(row.options, out=folder / name, data_dir=data_dir, encoder=encoder)
        result = run.train(row.method, row.config, options)
        if result.final is None:
            print("stopped; the same command goes on")
            raise SystemExit(0)
        if not all(matching(metric, result.final["metrics"]) for metric in row.metrics):
            run.evaluate(folder / name, row.metrics)
        finals[name] = records.finished(folder / name)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    return finals


def matching(metric: str, names: Iterable[str]) -> list[str]:
    """The full names of a metric: its own, or those that go on with the features and numbers it was made with."""
    return [name for name in names if name == metric or re.fullmatch(rf"{metric}_(.*n=)?\d+", name)]


def layout(
    finals: Mapping[str, dict[str, Any]], baseline: str | None, metrics: Sequence[str], report: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: the name, then what `tables.comparison` says, with or without the path of the report.

    baseline: the row that the others, on the same masks, are paired with; None where the masks differ.
    """
    number = None if baseline is None else list(finals).index(baseline)
    measured = dict.fromkeys(name for final in finals.values() for name in final["metrics"])
    full = [name for metric in metrics for name in matching(metric, measured) or [metric]]
    headers, rows = tables.comparison(list(finals.values()), number, full)
    headers = [f"paired to {baseline} [95 %]" if header.startswith("error - ") else header for header in headers]
    keep = [i for i, header in enumerate(headers) if header != "method" and (report or header != "report")]
    return ["run", *(headers[i] for i in keep)], [
        [name, *(row[i] for i in keep)] for name, row in zip(finals, rows, strict=True)
    ]


def main(name: str, rows: Mapping[str, Row], baseline: str | None, metrics: Sequence[str], title: str) -> None:
    """The command: python -m experiments.NAME [--tiny] [--only ROW] [--data-dir DIR] [--record]."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{name}", description=title)
    parser.add_argument("--tiny", action="store_true", help=f"{TINY_STEPS} steps and two seeds, to see that it works")
    parser.add_argument("--only", choices=list(rows), help="this row alone, without the table")
    parser.add_argument("--out", type=Path, help=f"where the runs go; by default runs/{name}")
    parser.add_argument("--data-dir", type=Path, help="where raw or prepared data lie, for sets that need it")
    parser.add_argument("--record", action="store_true", help=f"write the results to experiments/{name}.json")
    asked = parser.parse_args()
    devices.keep_compiled()
    started = time.perf_counter()
    chosen = {asked.only: rows[asked.only]} if asked.only else dict(rows)
    chosen = {key: shrunk(row) for key, row in chosen.items()} if asked.tiny else chosen
    folder = asked.out or Path("runs") / (f"{name}-tiny" if asked.tiny else name)
    print(title, flush=True)
    finals = train(chosen, folder, asked.data_dir)
    if asked.only:
        return
    print(f"\n{tables.text_table(*layout(finals, baseline, metrics))}")
    print(f"\n{time.perf_counter() - started:.0f} s in all")
    if asked.record:
        (HERE / f"{name}.json").write_text(json.dumps(tracked(finals, baseline, metrics), indent=1) + "\n")


def tracked(finals: Mapping[str, dict[str, Any]], baseline: str | None, metrics: Sequence[str]) -> dict[str, Any]:
    """What is kept in the repository of a table: the records without what holds paths of this machine."""
    here = ("report", "command")  # the experiment's file is the command
    kept = {name: {key: value for key, value in final.items() if key not in here} for name, final in finals.items()}
    return {"baseline": baseline, "metrics": list(metrics), "rows": kept}
