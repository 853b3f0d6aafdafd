"""Run the rows of a table, print it, write its page, and keep its record: what every experiment file calls.

An experiment is data: ROWS, BASELINE, METRICS, and PUBLISHED where there are published numbers to stand beside. Runs
resume and finished ones are read, so a table can be made in pieces, and in several processes at once: `--only ROW`, or
`--index I --of N` for the elements of an array job, then once without either for the table. With `--distributed`
several processes, started by the same command, train each row together.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssl_gen import run
from ssl_gen.reports import compare, records, tables
from ssl_gen.reports.tables import matching
from ssl_gen.setting import Options
from ssl_gen.training import devices, hosts
from ssl_gen.types import UserError

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
AGAIN = 75  # exit status of an element of an array that a signal stopped; EX_TEMPFAIL, else it would count as done
TINY_STEPS = 20  # with --tiny: enough to pass through every part
# Options that say where and how a row runs, and change no number
WHERE = ("out", "data_dir", "replicas", "data_parallel", "distributed", "checkpoint_every", "tensorboard", "quiet")


class Row(NamedTuple):
    """One line of a table: a method, its settings, its data."""

    method: str
    config: Any
    options: Options  # `encoder` is the name of another row
    metrics: tuple[str, ...] = ()  # measured besides the usual ones


class Published(NamedTuple):
    """A number that the authors of a method, or others, printed."""

    value: str  # as printed, "0.91 ± 0.58"
    source: str
    verified: bool = True  # it was read there; False: from memory, marked wherever it is shown
    metric: str = "error"


def of_numbers(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of all options those that numbers depend on; of a run whose latents are seen, its row."""
    kept = {key: value for key, value in options.items() if key not in (*WHERE, "encoder")}
    return kept | ({"encoder": Path(options["encoder"]).name} if options["encoder"] else {})


def setting(row: Row) -> dict[str, Any]:
    """All of a row that its numbers depend on, as JSON keeps it; not where it runs or writes."""
    options = of_numbers(dataclasses.asdict(row.options))
    return json.loads(json.dumps({"method": row.method, "config": dataclasses.asdict(row.config), "options": options}))


def fingerprint(row: Row) -> str:
    """The first digits of the SHA-256 of a row's setting."""
    return hashlib.sha256(json.dumps(setting(row), sort_keys=True).encode()).hexdigest()[:12]


def shrunk(row: Row) -> Row:
    """The row with few steps (where it has any) and two seeds, to see that the file works."""
    few = {"steps": TINY_STEPS} if hasattr(row.config, "steps") else {}
    options = dataclasses.replace(row.options, seeds=2)
    return row._replace(config=dataclasses.replace(row.config, **few), options=options, metrics=())


class Place(NamedTuple):
    """What a command says of where all its rows run."""

    data_dir: Path | None = None
    data_parallel: int | None = None  # None: each row's own
    team: hosts.Team = hosts.ALONE
    interrupted: int = 0  # exit status of what a signal stopped


ONE_PROCESS = Place()


def placed(name: str, row: Row, folder: Path, place: Place) -> Options:
    """The options of a row with where it runs; a row that is fitted in one go runs in one process, on one device."""
    encoder = row.options.encoder and folder / row.options.encoder
    options = dataclasses.replace(row.options, out=folder / name, data_dir=place.data_dir, encoder=encoder)
    if not hasattr(row.config, "steps"):
        return options
    count = row.options.data_parallel if place.data_parallel is None else place.data_parallel
    return dataclasses.replace(options, distributed=place.team.count > 1, data_parallel=count)


def train(rows: Mapping[str, Row], folder: Path, place: Place = ONE_PROCESS) -> dict[str, dict[str, Any]]:
    """final.json of every row, by name; a signal ends the process where it stands.

    Of a team the first process alone measures, and has them all; the others come back with {}, when it has.
    """
    finals = {}
    for name, row in rows.items():
        started = time.perf_counter()
        options = placed(name, row, folder, place)
        if not (place.team.first or options.distributed):
            continue
        result = run.train(row.method, row.config, options)
        if result.final is None:
            print("stopped; the same command goes on")
            raise SystemExit(place.interrupted)
        if not place.team.first:
            continue
        if not all(matching(metric, result.final["metrics"]) for metric in row.metrics):
            run.evaluate(folder / name, row.metrics)
        finals[name] = records.finished(folder / name)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    place.team.gather(None)  # nobody leaves while another one works: jax would take it for lost
    return finals


def layout(
    finals: Mapping[str, dict[str, Any]], baseline: str | None, metrics: Sequence[str], report: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: the name, then what `tables.comparison` says, with or without the path of the report.

    baseline: the row that the others, on the same masks, are paired with, or the METHOD of rows METHOD@LABELS, each
    paired with those of as many labels; None where the masks differ.
    """
    number = list(finals).index(baseline) if baseline in finals else None
    measured = dict.fromkeys(name for final in finals.values() for name in final["metrics"])
    full = [name for metric in metrics for name in matching(metric, measured) or [metric]]
    headers, rows = tables.comparison(list(finals.values()), number, full)
    paired = f"paired to {baseline} [95 %]"
    headers = [paired if header.startswith("error - ") else header for header in headers]
    if baseline is not None and number is None:
        if not any(name.startswith(f"{baseline}@") for name in finals):
            raise ValueError(f"the baseline {baseline} is no row: there are {', '.join(finals)}")
        place = headers.index("error (%)") + 1
        headers.insert(place, paired)
        for final, row in zip(finals.values(), rows, strict=True):
            other = f"{baseline}@{final['labels']}"
            row.insert(place, tables.difference(final, finals[other]) if other in finals else tables.MISSING)
    if any("published" in final for final in finals.values()):
        place = headers.index("time")
        headers.insert(place, "published")
        for final, row in zip(finals.values(), rows, strict=True):
            row.insert(place, printed(final["published"]) if "published" in final else tables.MISSING)
    keep = [i for i, header in enumerate(headers) if header != "method" and (report or header != "report")]
    return ["run", *(headers[i] for i in keep)], [
        [name, *(row[i] for i in keep)] for name, row in zip(finals, rows, strict=True)
    ]


def printed(numbers: Sequence[Mapping[str, Any]]) -> str:
    """Published numbers in a cell of a table; those from memory are marked."""
    return "; ".join(f"{each['value']}{'' if each['verified'] else ' (unverified)'}" for each in numbers)


def pick(rows: Mapping[str, Row], only: str | None, index: int | None, of: int | None) -> dict[str, Row]:
    """The rows that a process is to run: all, one by name, or every `of`-th from the `index`-th. Raises UserError."""
    if only is not None:
        if only not in rows or index is not None:
            raise UserError(f"--only takes one row, and no --index: {', '.join(rows)}")
        return {only: rows[only]}
    if index is None:
        if of is not None:
            raise UserError("--of needs --index")
        return dict(rows)
    count = len(rows) if of is None else of
    if not 0 <= index < count:
        raise UserError(f"--index is 0 to {count - 1}, not {index}")
    return dict(list(rows.items())[index::count])


def held(name: str, rows: Mapping[str, Row]) -> dict[str, dict[str, Any]]:
    """The rows that were recorded with the settings they have now, and with the metrics they ask for.

    experiments/NAME.json comes first, then the other records: rows of one fingerprint are one run, whatever they are
    called there.
    """
    paths = sorted(HERE.glob("*.json"), key=lambda path: (path.stem != name, path.stem))
    recorded = [final for path in paths for final in json.loads(path.read_text()).get("rows", {}).values()]
    found = {}
    for key, row in rows.items():
        wanted = fingerprint(row)
        same = [final for final in recorded if final.get("setting") == wanted]
        full = [final for final in same if all(matching(metric, final["metrics"]) for metric in row.metrics)]
        if full:
            found[key] = {field: value for field, value in full[0].items() if field != "published"}
    return found


def parse(name: str, rows: Mapping[str, Row], title: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command asks for."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{name}", description=title)
    parser.add_argument("--tiny", action="store_true", help=f"{TINY_STEPS} steps and two seeds, to see that it works")
    parser.add_argument("--only", metavar="ROW", help=f"this row alone, without the table: {', '.join(rows)}")
    parser.add_argument("--index", type=int, help=f"this row alone by its number, 0 to {len(rows) - 1}")
    parser.add_argument("--of", type=int, help="with --index I: the I-th, the (I + N)-th ... row, for N processes")
    parser.add_argument("--missing", action="store_true", help="train only what no record in experiments/ holds")
    parser.add_argument(
        "--finished",
        action="store_true",
        help="train nothing: the table of finished rows, with --missing and recorded ones",
    )
    parser.add_argument("--out", type=Path, help=f"where the runs go; by default runs/{name}")
    parser.add_argument("--data-dir", type=Path, help="where raw or prepared data lie, for sets that need it")
    parser.add_argument("--data-parallel", type=int, metavar="D", help="devices that share each batch of every row")
    parser.add_argument("--distributed", action="store_true", help="as of `ssl-gen train METHOD --help`")
    parser.add_argument("--record", action="store_true", help=f"write the results to experiments/{name}.json")
    return parser.parse_args(arguments)


def main(
    name: str,
    rows: Mapping[str, Row],
    baseline: str | None,
    metrics: Sequence[str],
    title: str,
    published: Mapping[str, Published] | None = None,
    tiny: Mapping[str, Row] | None = None,
    arguments: Sequence[str] | None = None,
) -> None:
    """The command: python -m experiments.NAME, see `parse`; what the user did wrong is one line and status 2.

    published: by the name of a row; tiny: the rows of --tiny, by default all of them with few steps.
    """
    asked = parse(name, rows, title, arguments)
    devices.keep_compiled()
    if asked.tiny:
        rows = {key: shrunk(row) for key, row in rows.items()} if tiny is None else tiny
    folder = asked.out or Path("runs") / (f"{name}-tiny" if asked.tiny else name)
    started = time.perf_counter()
    try:
        finals = held(name, rows) if asked.missing else {}
        if asked.finished:
            rows = {key: row for key, row in rows.items() if key in finals or (folder / key / "final.json").exists()}
        chosen = pick(rows, asked.only, asked.index, asked.of)
        if asked.finished and asked.distributed:
            raise UserError("--finished trains nothing: leave out --distributed")
        team = hosts.join() if asked.distributed else hosts.ALONE
        if team.first:
            print(title, flush=True)
        wanted = {key: row for key, row in chosen.items() if key not in finals}
        with team.failing_together():
            place = Place(asked.data_dir, asked.data_parallel, team, 0 if asked.index is None else AGAIN)
            new = train(wanted, folder, place)
        if asked.only is not None or asked.index is not None or not team.first:
            return
        finals = {key: (new if key in new else finals)[key] for key in rows}
        with_published(finals, published or {})
        print(f"\n{tables.text_table(*layout(finals, baseline, metrics))}")
        entries = [entry(key, final, folder) for key, final in finals.items()]
        page = compare.render(entries, shown(finals, metrics), baseline, title)
    except UserError as error:
        raise SystemExit(stopped(name, error)) from None
    (folder / "report.html").write_text(page, encoding="utf-8")
    print(f"\n{time.perf_counter() - started:.0f} s in all; report: {folder / 'report.html'}")
    if asked.record:
        record(name, finals, rows, baseline, metrics)


def shown(finals: Mapping[str, dict[str, Any]], metrics: Sequence[str]) -> list[str]:
    """Of error and the table's metrics those that any row has."""
    measured = {name for final in finals.values() for name in final["metrics"]}
    return [metric for metric in ("error", *metrics) if matching(metric, measured)]


def stopped(name: str, error: UserError) -> int:
    """Say on the error stream what is wrong; the exit status."""
    print(f"{name}: {error}", file=sys.stderr)
    return 2


def with_published(finals: Mapping[str, dict[str, Any]], published: Mapping[str, Published]) -> None:
    """Put published numbers into the records of their rows."""
    for key, number in published.items():
        if key in finals:
            finals[key]["published"] = [number._asdict()]


def entry(name: str, final: dict[str, Any], folder: Path) -> compare.Entry:
    """A row for the page, with its samples unless it comes from the record."""
    if "report" not in final:
        return compare.Entry(name, final)
    return compare.read(folder / name, name)._replace(final=final)


def record(
    name: str,
    finals: Mapping[str, dict[str, Any]],
    rows: Mapping[str, Row],
    baseline: str | None,
    metrics: Sequence[str],
    path: Path | None = None,
) -> None:
    """Write experiments/NAME.json and, where the rows make curves, figures into docs; or all beside another `path`."""
    docs = DOCS if path is None else path.parent
    path = HERE / f"{name}.json" if path is None else path
    path.write_text(json.dumps(tracked(finals, rows, baseline, metrics), indent=1) + "\n")
    entries = [compare.Entry(key, final) for key, final in finals.items()]
    if all("@" in key for key in rows):
        full = compare.chosen(entries, shown(finals, metrics))
        print("figures:", *(figure.name for figure in compare.draw(entries, full, docs, name)))


def tracked(
    finals: Mapping[str, dict[str, Any]], rows: Mapping[str, Row], baseline: str | None, metrics: Sequence[str]
) -> dict[str, Any]:
    """What is kept in the repository of a table: the records without what holds paths of this machine."""
    here = ("report", "command")  # the experiment's file is the command
    kept = {
        name: {key: value for key, value in final.items() if key not in here} | {"setting": fingerprint(rows[name])}
        for name, final in finals.items()
    }
    return {"baseline": baseline, "metrics": list(metrics), "rows": kept}
