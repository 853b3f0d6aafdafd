"""Put the runs of an experiment that lie in several folders, from several machines or processes, into one record.

    python -m experiments.collect NAME FOLDER [FOLDER ...] [--missing] [--only ROW] [--out FILE] [--page FILE]

Each FOLDER is the `--out` of `python -m experiments.NAME`. The record is what `--record` writes where all runs lie in
one folder: experiments/NAME.json, or FILE, with its figures. Runs that do not belong together are refused in one line:
of other settings than the experiment has now, of other images, labels or masks, of other commits, or measured with
other features; so is a record with rows missing. With `--missing` rows are put in as they come, one or some at a time:
the others stay as they are recorded, stale ones among them, with the commits that they have. What was measured with
other features than theirs, such as ones trained on another processor, has a column of its own.
"""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import table, tracked
from experiments.table import HERE, Row
from ssl_gen.core.plain import from_plain
from ssl_gen.reports import run_folder, tables
from ssl_gen.reports.compare import entries as compared
from ssl_gen.reports.compare import page
from ssl_gen.reports.compare.entries import Entry
from ssl_gen.reports.records import FinalRecord, RunRecord
from ssl_gen.runs.options import Options
from ssl_gen.types import UserError


def find(rows: Mapping[str, Row], folders: Sequence[Path], spared: Collection[str] = ()) -> dict[str, Path]:
    """The folder of every row's finished run.

    Raises UserError for rows without one, but for those spared, and for a row made twice.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}: give the --out of the experiment")
    found: dict[str, Path] = {}
    for name in rows:
        # The same folder may be given twice, and machines may share one.
        places = dict.fromkeys((folder / name).resolve() for folder in folders)
        finished = [place for place in places if (place / "final.json").is_file()]
        if len(finished) > 1 and len({(place / "final.json").read_bytes() for place in finished}) > 1:
            raise UserError(f"{name} was run twice, in {finished[0]} and {finished[1]}: give only one of them")
        found |= {name: finished[0]} if finished else {}
    missing = [name for name in rows if name not in found and name not in spared]
    if missing:
        raise UserError(f"not finished in any folder: {', '.join(missing)}; run them with --only ROW")
    return found


def images_of(options: Options) -> tuple[Any, ...]:
    """What decides which images a run sees; by design some are held out, lose pixels or have strangers among them."""
    read = (options.dataset, options.size, options.keep_copies, options.validation)
    return (*read, options.missing_pixels, options.out_of_distribution_dataset)


class Different(NamedTuple):
    """Two rows that say something else of what must be the same."""

    row: str
    other: str
    what: str
    value: Any
    others: Any


def first_different(known: Iterable[tuple[str, str, tuple[Any, ...], Any]]) -> Different | None:
    """The first of (row, what is said, of what, value) that is not what an earlier row says; None where all agree."""
    first: dict[tuple[Any, ...], tuple[str, Any]] = {}
    for row, what, place, value in known:
        other, others = first.setdefault(place, (row, value))
        if value != others:
            return Different(row, other, what, value, others)
    return None


def masks_of(
    row: str, options: Options, images: Any, about: RunRecord | FinalRecord, masks: Sequence[str]
) -> Iterator[tuple[str, str, tuple[Any, ...], str]]:
    """What a row says of its masks, which images, number of labels, scheme and seed decide, unless a run chose them."""
    if options.mask.kind != "suggested":
        for seed, mask in zip(about.seeds, masks, strict=True):
            yield row, f"mask of seed {seed}", ("mask", images, about.labels, options.mask, seed), mask


def check_together(name: str, runs: Mapping[str, run_folder.Run]) -> None:
    """Raise UserError where runs are of different commits or images, or of different masks for as many labels."""

    def known() -> Iterator[tuple[str, str, tuple[Any, ...], Any]]:
        for key, run in runs.items():
            about, options = run.record, from_plain(Options, run.record.options)
            yield key, "commit", ("commit",), about.commit
            yield key, "data", ("data", *images_of(options)), about.data.sha256
            yield from masks_of(key, options, about.data.sha256, about, [mask.sha256 for mask in about.masks])

    found = first_different(known())
    if found is not None:
        raise UserError(
            f"{name}: {found.row} and {found.other} do not belong together: their {found.what} is {found.value} and "
            f"{found.others}; run one of them again"
        )


def check_features(entries: Sequence[Entry], metrics: Sequence[str]) -> None:
    """Raise UserError where a metric was made with several features, references or counts."""
    for metric in metrics:
        full = {each: entry.name for entry in entries for each in tables.matching(metric, entry.final.metrics)}
        if len(full) > 1:
            said = ", ".join(f"{each} in {key}" for each, key in full.items())
            raise UserError(f"{metric} was measured in different ways: {said}; `ssl-gen evaluate` measures again")


def check_masks(name: str, rows: Mapping[str, Row], entries: Mapping[str, Entry]) -> None:
    """Raise UserError where rows of one data set, number of labels and scheme have other masks for the same seed."""
    found = first_different(
        said
        for key, (_, final, *_) in entries.items()
        for said in masks_of(key, rows[key].options, images_of(rows[key].options), final, final.masks)
    )
    if found is not None:
        what = found.what.replace("mask", "masks", 1)
        raise UserError(f"{name}: {found.row} and {found.other} have other {what}: {found.value} and {found.others}")


def collect(name: str, module: Any, folders: Sequence[Path]) -> list[Entry]:
    """The finished runs of an experiment's rows, in its order. Raises UserError where they do not make one record."""
    places = find(module.ROWS, folders)
    runs = read(module.ROWS, places)
    check_together(name, runs)
    entries = [compared.read(place, key) for key, place in places.items()]
    check_features(entries, module.METRICS)
    return entries


def add(name: str, module: Any, folders: Sequence[Path], only: Sequence[str] = ()) -> list[Entry]:
    """The finished runs of some rows (all that there are, or those named) and, of the others, what is recorded.

    In the experiment's order. Raises UserError where a named row is not finished, is not the row that the experiment
    has now, or has other masks than the others.
    """
    rows: Mapping[str, Row] = module.ROWS
    strange = [key for key in only if key not in rows]
    if strange:
        raise UserError(f"{name} has no row {strange[0]}: there are {', '.join(rows)}")
    places = find({key: rows[key] for key in only or rows}, folders, spared=() if only else rows)
    read(rows, places)
    entries = table.recorded(name, rows) | {key: compared.read(place, key) for key, place in places.items()}
    check_masks(name, rows, entries)
    return [entries[key] for key in rows if key in entries]


def read(rows: Mapping[str, Row], places: Mapping[str, Path]) -> dict[str, run_folder.Run]:
    """What was run. Raises UserError where it is not the row that the experiment has now."""
    runs = {key: run_folder.read(place) for key, place in places.items()}
    for key, run in runs.items():
        table.check_setting(key, rows[key], places[key], run.record)
    return runs


def find_experiment(name: str) -> Any:
    """The module of an experiment that has rows. Raises UserError."""
    known = [path.stem for path in sorted(HERE.glob("*.py")) if re.search(r"^ROWS\s*=", path.read_text(), re.M)]
    if name not in known:
        raise UserError(f"there is no experiment {name} with rows: there are {', '.join(known)}")
    return importlib.import_module(f"experiments.{name}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; what the user did wrong is one line and status 2."""
    parser = argparse.ArgumentParser(prog="python -m experiments.collect", description=__doc__.split("\n")[0])
    parser.add_argument("name", help="of the experiment, such as mnist_label_efficiency")
    parser.add_argument("folders", nargs="+", type=Path, help="where its runs lie, each the --out of a call of it")
    parser.add_argument("--missing", action="store_true", help="rows that lie in no folder stay as they are recorded")
    parser.add_argument("--only", metavar="ROW", action="append", help="with --missing: put in this row; repeatable")
    parser.add_argument("--out", type=Path, help="the record; by default experiments/NAME.json, figures in docs")
    parser.add_argument("--page", type=Path, help="also write the page that compares all rows")
    asked = parser.parse_args(arguments)
    try:
        if asked.only and not asked.missing:
            raise UserError("--only leaves the other rows as they are recorded: give --missing too")
        module = find_experiment(asked.name)
        found = add(asked.name, module, asked.folders, asked.only or ()) if asked.missing else None
        entries = collect(asked.name, module, asked.folders) if found is None else found
        entries = table.with_published(entries, module.PUBLISHED if hasattr(module, "PUBLISHED") else {})
        baseline = table.paired(module.BASELINE, entries)
        rendered = page.render(entries, table.shown(entries, module.METRICS), baseline, asked.name)
    except UserError as error:
        raise SystemExit(table.stopped("collect", error)) from None
    print(tables.text_table(*tracked.layout(entries, baseline, module.METRICS)))
    if asked.page is not None:
        asked.page.write_text(rendered, encoding="utf-8")
    table.record(asked.name, entries, module.ROWS, baseline, module.METRICS, asked.out)


if __name__ == "__main__":
    main()
