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
from typing import Any, NamedTuple, get_args

from experiments import tracked
from ssl_gen.augmentation import Augmentation
from ssl_gen.core.plain import from_plain, to_plain
from ssl_gen.core.precision import Asked
from ssl_gen.core.signals import AGAIN
from ssl_gen.datasets.masking import Scheme
from ssl_gen.methods.adversarial import feature_matching, triple_gan
from ssl_gen.methods.classical import linear, mlp, supervised
from ssl_gen.methods.self_training import meta_pseudo_labels, noisy_student, pseudo_label
from ssl_gen.methods.variational import adversarial_autoencoder, m2, stacked_m1_m2, vae, vae_gan
from ssl_gen.networks.pretrained.sources import PACKAGES
from ssl_gen.reports import tables
from ssl_gen.reports.compare import entries as compared
from ssl_gen.reports.compare import page
from ssl_gen.reports.compare.entries import Entry
from ssl_gen.reports.records import PublishedNumber, RunRecord, difference, load_run, to_json
from ssl_gen.reports.tables import matching
from ssl_gen.runs.catalogue import has_steps
from ssl_gen.runs.evaluate import evaluate
from ssl_gen.runs.options import Options
from ssl_gen.runs.train import train as train_run
from ssl_gen.training import cache
from ssl_gen.training.processes import SINGLE_PROCESS, ProcessGroup, join
from ssl_gen.types import UserError

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
# Records whose curves docs show, one a row; `experiments.figures` draws those of several records
DRAWN = ("digits_label_efficiency", "digits_suggest", "mnist_label_efficiency", "mnist_suggest")
TINY_STEPS = 20  # with --tiny: enough to pass through every part
# Options that say where and how a row runs, and change no number
WHERE: tuple[str, ...] = ("out", "data_dir", "replicas", "data_parallel", "store", "distributed", "checkpoint_every")
WHERE += ("accumulate", "remat", "shard_params", "evaluators", "tensorboard", "track", "quiet")
# Options that name another run: in a Row a row above it, or a packaged encoder
EARLIER = ("encoder", "labeller", "suggested_by")
DENSITIES = tuple(each.Config for each in (adversarial_autoencoder, m2, stacked_m1_m2, vae, vae_gan))
# Settings that are younger than records, at the values that change nothing: with them a row is the one it was before
LATER: Mapping[type, Mapping[str, Any]] = {
    Augmentation: {"shift": 0},
    supervised.Config: {"optimizer": "adam", "lookahead": 0, "label_smoothing": 0.0, "alternating_flip": False},
    **{each: {"views": 1, "augmentation": Augmentation()} for each in (linear.Config, mlp.Config)},
    pseudo_label.Config: {"optimizer": "adam"},
    feature_matching.Config: {"generator_width": 128, "dropout": (0.2, 0.5, 0.5)},  # of conv networks alone
    noisy_student.Config: {"first_teacher": "labelled", "unlabelled_weight": 1.0},
    meta_pseudo_labels.Config: {"sharpened_mask": False, "label_smoothing": 0.0},
    triple_gan.Config: {
        "warm_up_balance": None,
        "warm_up_rate": None,
        "decayed": "everything",
        "alignment": False,
        "memory": 128,
    },
    **{each: {"latents": "prior"} for each in DENSITIES},
    Options: {"first_seed": 0, "keep_copies": False, "labeller": None, "guesses": "favourite", "confident": 0.0}
    | {"encoder_size": None},
    Scheme: {"seed": None},
}


class Row(NamedTuple):
    """One line of a table: a method, its settings, its data."""

    method: str
    config: Any
    options: Options  # those of EARLIER are names of other rows, or `encoder` one of `sources.PACKAGES`
    metrics: tuple[str, ...] = ()  # measured besides the usual ones


def like(config: type, other: Any, names: Sequence[str], **own: Any) -> Any:
    """A method's settings: those named of another method's that it has too, and its own."""
    fields = {field.name for field in dataclasses.fields(config)}
    return config(**{name: getattr(other, name) for name in names if name in fields} | own)


def of_numbers(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of all options those that numbers depend on; of a run whose latents or guesses are seen, its row."""
    without = [] if options.get("labeller") else ["guesses", "confident"]  # of nothing
    without += ["precision"] if options.get("precision", "auto") == "auto" else []  # the record says what it was
    kept = {key: value for key, value in options.items() if key not in (*WHERE, *EARLIER, *without)}
    return kept | {key: Path(options[key]).name for key in EARLIER if options.get(key)}


def setting(row: Row) -> dict[str, Any]:
    """All of a row that its numbers depend on, as JSON keeps it; not where it runs or writes."""
    options = of_numbers(settled(row.options))
    return {"method": row.method, "config": settled(row.config), "options": options}


def settled(value: Any) -> Any:
    """`to_plain` without the settings in LATER that stand at their value there."""
    if not dataclasses.is_dataclass(value):
        return to_plain(value)
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    later = LATER.get(type(value), {})
    return {key: settled(each) for key, each in fields.items() if key not in later or each != later[key]}


def fingerprint(row: Row) -> str:
    """The first digits of the SHA-256 of a row's setting."""
    return hashlib.sha256(json.dumps(setting(row), sort_keys=True).encode()).hexdigest()[:12]


def shrunk(row: Row) -> Row:
    """The row with few steps (where it has any) and two seeds, to see that the file works."""
    few = {"steps": TINY_STEPS} if has_steps(row.config) else {}
    options = dataclasses.replace(row.options, seeds=2)
    return row._replace(config=dataclasses.replace(row.config, **few), options=options, metrics=())


class Place(NamedTuple):
    """What a command says of where all its rows run."""

    data_dir: Path | None = None
    data_parallel: int | None = None  # None: each row's own
    precision: Asked | None = None  # likewise
    group: ProcessGroup = SINGLE_PROCESS


ONE_PROCESS = Place()


def placed(name: str, row: Row, folder: Path, place: Place) -> Options:
    """The options of a row with where it runs; a row that is fitted in one go runs in one process, on one device."""
    named = {key: getattr(row.options, key) for key in EARLIER}
    earlier: dict[str, Any] = {
        key: other if other is None or other in PACKAGES else str(folder / other) for key, other in named.items()
    }
    options = dataclasses.replace(row.options, out=folder / name, data_dir=place.data_dir, **earlier)
    if not has_steps(row.config):
        return options
    own = row.options
    return dataclasses.replace(
        options,
        distributed=place.group.count > 1,
        data_parallel=own.data_parallel if place.data_parallel is None else place.data_parallel,
        precision=place.precision or own.precision,
    )


def train(rows: Mapping[str, Row], folder: Path, place: Place = ONE_PROCESS) -> dict[str, Entry]:
    """Every row's finished run, by name; a signal ends the process, with `AGAIN`, where it stands.

    Of several processes the main one alone measures, and has them all; the others come back with {}, when it has.
    """
    entries = {}
    for name, row in rows.items():
        started = time.perf_counter()
        options = placed(name, row, folder, place)
        if not (place.group.is_main or options.distributed):
            continue
        result = train_run(row.method, row.config, options)
        if result.final is None:
            print("stopped; the same command goes on")
            raise SystemExit(AGAIN)
        if not place.group.is_main:
            continue
        if not all(matching(metric, result.final.metrics) for metric in row.metrics):
            evaluate(folder / name, row.metrics)
        entries[name] = compared.read(folder / name, name)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    place.group.all_gather(None)  # nobody leaves while another one works: jax would take it for lost
    return entries


def check_setting(name: str, row: Row, place: Path, run: RunRecord) -> None:
    """Raise UserError where a run is not the row that the experiment has now, `--precision` aside."""
    options = of_numbers(to_plain(row.options))
    wanted = {"method": row.method, "config": to_plain(row.config), "options": options}
    made = of_numbers(to_plain(from_plain(Options, run.options)))  # settings younger than the run at their defaults
    if row.options.precision == "auto":
        made.pop("precision", None)  # the record says it
    there = {"method": run.method, "config": run.config, "options": made}
    if there != wanted:
        what, old, new = difference(name, there, wanted)
        raise UserError(f"{place} was run with {what} {old}, the experiment has {new}: run it again")


def read(rows: Mapping[str, Row], folder: Path) -> dict[str, Entry]:
    """Every row's finished run, by name; nothing is trained, and what is not whole is read as far as it is.

    Metrics that a row asks for and lacks are measured where its checkpoint is there. Raises UserError where a run is
    not the row that the experiment has now.
    """
    entries = {}
    for name, row in rows.items():
        entries[name] = compared.read(folder / name, name)
        check_setting(name, row, folder / name, load_run(folder / name))
        if all(matching(metric, entries[name].final.metrics) for metric in row.metrics):
            continue
        try:
            evaluate(folder / name, row.metrics)
        except UserError as error:
            print(f"{name}: not all is measured: {error}", flush=True)
        entries[name] = compared.read(folder / name, name)
    return entries


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


def held(name: str, rows: Mapping[str, Row]) -> dict[str, Entry]:
    """The rows that were recorded with the settings they have now, and with the metrics they ask for.

    experiments/NAME.json comes first, then the other records: rows of one fingerprint are one run, whatever they are
    called there.
    """
    paths = sorted(HERE.glob("*.json"), key=lambda path: (path.stem != name, path.stem))
    records = [tracked.load(path) for path in paths]
    recorded = [final for each in records if isinstance(each, tracked.Tracked) for final in each.rows.values()]
    recorded = [final for final in recorded if not final.stale]
    found = {}
    for key, row in rows.items():
        wanted = fingerprint(row)
        same = [final for final in recorded if final.setting == wanted]
        full = [final for final in same if all(matching(metric, final.metrics) for metric in row.metrics)]
        if full:
            found[key] = Entry(key, dataclasses.replace(full[0], published=None))
    return found


def spared(rows: Mapping[str, Row], known: Mapping[str, Entry]) -> dict[str, Entry]:
    """Of the rows that are known those that need not be trained: no row that must be learns from them."""
    needed: set[str | None] = set()
    for name, row in reversed(list(rows.items())):  # a row is named by those below it
        if name not in known or name in needed:
            needed |= {getattr(row.options, key) for key in EARLIER}
    return {name: entry for name, entry in known.items() if name not in needed}


def recorded(name: str, rows: Mapping[str, Row]) -> dict[str, Entry]:
    """The rows that experiments/NAME.json has: of today's settings, marked as stale, or older than settings in rows."""
    path = HERE / f"{name}.json"
    record = tracked.load(path) if path.exists() else None
    there = record.rows if isinstance(record, tracked.Tracked) else {}
    return {
        key: Entry(key, dataclasses.replace(final, published=None))
        for key, final in there.items()
        if key in rows and (final.stale or final.setting in (None, fingerprint(rows[key])))
    }


def paired(baseline: str | None, entries: Sequence[Entry]) -> str | None:
    """The baseline, or None where no row is of it yet."""
    names = {part for entry in entries for part in (entry.name, entry.name.rpartition("@")[0])}
    return baseline if baseline in names else None


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
        help="train nothing: the table of finished rows, with --missing and recorded ones, stale ones among them",
    )
    parser.add_argument("--out", type=Path, help=f"where the runs go; by default runs/{name}")
    parser.add_argument("--data-dir", type=Path, help="where raw or prepared data lie, for sets that need it")
    parser.add_argument("--data-parallel", type=int, metavar="D", help="devices that share each batch of every row")
    parser.add_argument("--precision", choices=get_args(Asked), help="of products, of every row; records say it")
    parser.add_argument("--distributed", action="store_true", help="as of `ssl-gen train METHOD --help`")
    parser.add_argument("--record", action="store_true", help=f"write the results to experiments/{name}.json")
    return parser.parse_args(arguments)


def main(
    name: str,
    rows: Mapping[str, Row],
    baseline: str | None,
    metrics: Sequence[str],
    title: str,
    published: Mapping[str, PublishedNumber] | None = None,
    tiny: Mapping[str, Row] | None = None,
    arguments: Sequence[str] | None = None,
) -> None:
    """The command: python -m experiments.NAME, see `parse`; what the user did wrong is one line and status 2.

    published: by the name of a row; tiny: the rows of --tiny, by default all of them with few steps.
    """
    asked = parse(name, rows, title, arguments)
    cache.keep_compiled()
    if asked.tiny:
        rows = {key: shrunk(row) for key, row in rows.items()} if tiny is None else tiny
    folder = asked.out or Path("runs") / (f"{name}-tiny" if asked.tiny else name)
    started = time.perf_counter()
    try:
        known = held(name, rows) if asked.missing else {}
        if asked.finished:
            done = {key for key in rows if (folder / key / "final.json").exists()}
            old = recorded(name, rows) if asked.missing else {}
            known |= {key: entry for key, entry in old.items() if key not in done | known.keys()}
            rows = {key: row for key, row in rows.items() if key in known or key in done}
            if not rows:
                raise UserError(f"no row is finished in {folder}: give the --out that they were made with")
        else:
            known = spared(rows, known)
        chosen = pick(rows, asked.only, asked.index, asked.of)
        if asked.finished and asked.distributed:
            raise UserError("--finished trains nothing: leave out --distributed")
        group = join() if asked.distributed else SINGLE_PROCESS
        if group.is_main:
            print(title, flush=True)
        wanted = {key: row for key, row in chosen.items() if key not in known}
        with group.failing_together():
            place = Place(asked.data_dir, asked.data_parallel, asked.precision, group)
            new = read(wanted, folder) if asked.finished else train(wanted, folder, place)
        if asked.only is not None or asked.index is not None or not group.is_main:
            return
        entries = with_published([(known | new)[key] for key in rows], published or {})
        baseline = paired(baseline, entries)
        print(f"\n{tables.text_table(*tracked.layout(entries, baseline, metrics))}")
        print(tracked.comparisons(entries, baseline))
        rendered = page.render(entries, shown(entries, metrics), baseline, title)
    except UserError as error:
        raise SystemExit(stopped(name, error)) from None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(rendered, encoding="utf-8")
    print(f"\n{time.perf_counter() - started:.0f} s in all; report: {folder / 'report.html'}")
    if asked.record:
        record(name, entries, rows, baseline, metrics)


def shown(entries: Sequence[Entry], metrics: Sequence[str]) -> list[str]:
    """Of error and the table's metrics those that any row has."""
    measured = {name for entry in entries for name in entry.final.metrics}
    return [metric for metric in ("error", *metrics) if matching(metric, measured)]


def stopped(name: str, error: UserError) -> int:
    """Say on the error stream what is wrong; the exit status."""
    print(f"{name}: {error}", file=sys.stderr)
    return 2


def with_published(entries: Sequence[Entry], published: Mapping[str, PublishedNumber]) -> list[Entry]:
    """The rows with the numbers that were published of them."""
    return [
        entry._replace(final=dataclasses.replace(entry.final, published=[published[entry.name]]))
        if entry.name in published
        else entry
        for entry in entries
    ]


def record(
    name: str,
    entries: Sequence[Entry],
    rows: Mapping[str, Row],
    baseline: str | None,
    metrics: Sequence[str],
    path: Path | None = None,
) -> None:
    """Write experiments/NAME.json and, of those in DRAWN, figures into docs.

    All beside another `path`, where one is given, with figures where entries of several numbers of labels make curves.
    """
    docs, drawn = (DOCS, name in DRAWN) if path is None else (path.parent, True)
    path = HERE / f"{name}.json" if path is None else path
    path.write_text(json.dumps(to_be_tracked(entries, rows, baseline, metrics), indent=1) + "\n")
    counts = {entry.name.rpartition("@")[2] for entry in entries} - {"all"}
    if drawn and all("@" in key for key in rows) and len(counts) > 1:
        full = compared.chosen(entries, shown(entries, metrics))
        print("figures:", *(figure.name for figure in page.draw(entries, full, docs, name)))


def to_be_tracked(
    entries: Sequence[Entry], rows: Mapping[str, Row], baseline: str | None, metrics: Sequence[str]
) -> dict[str, Any]:
    """What is kept in the repository of a table: the records without what holds paths of this machine."""
    kept = {}
    for entry in entries:
        final = entry.final
        if not final.stale:  # else it has the settings and the code of then
            final = dataclasses.replace(final, setting=fingerprint(rows[entry.name]))
        kept[entry.name] = to_json(final)
        del kept[entry.name]["command"]  # it holds a path; the experiment's file is the command
    return {"baseline": baseline, "metrics": list(metrics), "rows": kept}
