"""What `digits_sampling` and `mnist_sampling` share: trained flows drawn from in other ways; nothing is trained.

steps       1 to 50 of them, against how often the network is looked at: Euler's method looks once in a step, Heun's
            twice, `edm`'s Heun once in the last; `mean_flow` once
guidance    1 (none) to 5, `flow_matching` as it is drawn from otherwise, 20 steps by Heun's method: what is gained
            in obedience (agreement) stands beside what is lost (FID, and C_T, below -3 where samples are copies)

Runs that are not there yet are passed over and named: what there is can be measured, recorded and drawn, the rest
later.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.table import DOCS, HERE
from experiments.tracked import Numbers, joined, load, save
from ssl_gen.core.files import say, sha256, write_whole
from ssl_gen.metrics.statistics import Summary
from ssl_gen.reports import tables
from ssl_gen.reports.charts import efficiency
from ssl_gen.runs import record
from ssl_gen.runs.evaluate import make_reference
from ssl_gen.runs.load import data_of
from ssl_gen.runs.load import load as load_run
from ssl_gen.training import cache
from ssl_gen.types import UserError

STEPS = (1, 2, 5, 10, 20, 50)
GUIDANCE = (1.0, 1.5, 2.0, 3.0, 5.0)
Measured = dict[str, dict[str, Summary]]  # metric -> way -> summary over the seeds
WIDE = 20.0  # a metric's largest value over its smallest, above which its axis is logarithmic


class Way(NamedTuple):
    """One way to draw from a run."""

    curve: str
    place: float  # along the figure
    run: str
    sampler: Mapping[str, Any]
    metrics: tuple[str, ...]


class Study(NamedTuple):
    """Runs of one experiment, drawn from in other ways."""

    name: str  # of this experiment, its record and its figures
    of: str  # the experiment whose runs are read
    dataset: str
    labels: int
    seeds: int
    samples: int  # of each seed and way
    steps: Mapping[str, Way]
    guidance: Mapping[str, Way]
    shown: tuple[str, ...]  # metrics, of which fid stands in both figures, the others beside guidance


def stepped(method: str, run: str, solver: str | None, last: int) -> dict[str, Way]:
    """Ways of a solver that looks twice in each step (Heun's) or once, but `last` times in the last step."""
    each = 2 if solver == "heun" else 1
    curve = f"{method}, {solver}" if solver else method
    chosen = {"solver": solver} if solver else {}
    return {
        f"{curve}, steps {steps}": Way(curve, each * (steps - 1) + last, run, {"steps": steps, **chosen}, ("fid",))
        for steps in STEPS
    }


def guided(method: str, run: str, metrics: tuple[str, ...]) -> dict[str, Way]:
    return {f"guidance {by:g}": Way(method, by, run, {"guidance": by}, metrics) for by in GUIDANCE}


def ways_of(study: Study) -> dict[str, Way]:
    """All of them."""
    return {**study.steps, **study.guidance}


def in_order(study: Study, found: Measured) -> Measured:
    """What was measured of the study's ways, in its order; a metric that no way has is left out."""
    metrics = [metric for metric in study.shown if metric in found]
    ordered = {
        metric: {key: found[metric][key] for key in ways_of(study) if key in found[metric]} for metric in metrics
    }
    return {metric: values for metric, values in ordered.items() if values}


class Made(NamedTuple):
    """Where the numbers of a way come from."""

    of: str  # `source` of the run and the way
    commit: str | None
    device: str


class Kept(NamedTuple):
    """What is measured so far."""

    metrics: Measured  # metric -> way -> summary over the seeds
    made: dict[str, Made]  # way ->


def source(study: Study, way: Way, folder: Path) -> str | None:
    """The hash of a run's log and of how it is drawn from; None where there is no such run."""
    log = folder / way.run / "metrics.jsonl"
    asked = [study.samples, dict(way.sampler), way.metrics]
    return sha256(log.read_bytes() + json.dumps(asked, sort_keys=True).encode()) if log.is_file() else None


def read(path: Path, study: Study, folder: Path) -> Kept:
    """What a file keeps of the runs in `folder`; all of a run that is not there (any more).

    Ways of other runs, or that are drawn otherwise now, are named and left out.
    """
    content = json.loads(path.read_text()) if path.exists() else {}
    made = {key: Made(*values) for key, values in content.get("made", {}).items()}
    ways = ways_of(study)
    now = {key: source(study, ways[key], folder) for key in made if key in ways}
    left = {key: each for key, each in made.items() if now.get(key, each.of) in (None, each.of)}
    metrics = content["metrics"] if "made" in content else content  # as it was: nothing says of which runs
    old = {key for values in metrics.values() for key in values} - left.keys()
    if old:
        say(f"{path} has {', '.join(sorted(old))} of other runs, or does not say of which: measured again")
    return Kept(
        {name: {key: each for key, each in values.items() if key in left} for name, values in metrics.items()}, left
    )


def measure(study: Study, folder: Path, kept: Path, data_dir: Path | None) -> Kept:
    """What can be measured of a study, with what `read` has of the file `kept`, which grows way by way.

    Runs that are not finished are passed over, and said in one line. Raises UserError where one stopped.
    """
    ways = ways_of(study)
    found, made = read(kept, study, folder)
    known = set(made)
    wanted = list(dict.fromkeys(way.run for key, way in ways.items() if key not in known))
    absent = [name for name in wanted if not (folder / name / "final.json").exists()]
    if absent:
        print(f"passed over, not finished in {folder}: {', '.join(absent)}", flush=True)
    for name in wanted:
        if name in absent:
            continue
        run = load_run(folder / name)
        run.check_trained()
        states = {replica: run.states[replica] for replica in run.temperatures}
        options, data = data_of(run, **({} if data_dir is None else {"data_dir": str(data_dir)}))
        reference = make_reference(data, dataclasses.replace(options, samples=study.samples))
        for key, way in ways.items():
            if way.run == name and key not in known:
                sampler = run.sampler(**way.sampler)
                measured = record.measure_seeds(run.compiled, data, states, reference, way.metrics, sampler)
                summaries = {tables.parsed(full).number: summary for full, summary in measured.items()}
                for metric in study.shown:
                    if metric in summaries:
                        found.setdefault(metric, {})[key] = summaries[metric]
                        print(f"{key}, {metric}: {tables.measured('', summaries[metric])}", flush=True)
                made[key] = Made(str(source(study, way, folder)), record.commit(), record.device())
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_whole(kept, json.dumps(Kept(found, made)._asdict()).encode())
    return Kept(in_order(study, found), made)


def together(study: Study, measured: Kept, earlier: Numbers | None) -> Numbers:
    """The record of what was measured and, of other ways, of what was recorded, and where each of it was made.

    Raises UserError where there is neither.
    """
    old, found = {} if earlier is None else earlier.metrics, measured.metrics
    metrics = in_order(study, {name: {**old.get(name, {}), **found.get(name, {})} for name in study.shown})
    if not metrics:
        raise UserError(f"nothing to record: train {study.of} first")
    cells = [(name, key, each) for name, values in metrics.items() for key, each in values.items()]
    new = [key for name, key, each in cells if old.get(name, {}).get(key) != each]
    made = [(measured.made[key].device, str(measured.made[key].commit)) for key in new]
    if earlier is not None and len(new) < len(cells):
        made = [(earlier.device, str(earlier.commit)), *made]
    device, commit = (joined(each) for each in zip(*made, strict=True))
    seeds = list(range(study.seeds))
    return Numbers(study.dataset, study.samples, study.labels, seeds, "drawn with", device, commit, metrics)


def draw(study: Study, numbers: Numbers, folder: Path) -> list[Path]:
    """Write the figures of a record as FOLDER/NAME_WHAT_METRIC.svg and .png, and return their paths."""
    written = []
    for what, ways, metrics, against in (
        ("steps", study.steps, study.shown[:1], "looks at the network"),
        ("guidance", study.guidance, study.shown, "guidance"),
    ):
        for metric in metrics:
            values = numbers.metrics.get(metric, {})
            points = [
                efficiency.Point(way.curve, way.place, {metric: values[key]})
                for key, way in ways.items()
                if key in values
            ]
            shown = efficiency.figure(points, metric, against, WIDE)
            if shown is not None:  # else none of it is measured yet
                written += efficiency.save(shown, folder / f"{study.name}_{what}_{metric}")
    return written


def main(study: Study, description: str | None, arguments: Sequence[str] | None = None) -> None:
    """The command: measure what is not measured yet, or draw the tracked record anew."""
    name = study.name
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("measure", "figures"), default="measure")
    parser.add_argument("--runs", type=Path, default=Path(f"runs/{study.of}"), help=f"where those of {study.of} are")
    parser.add_argument(
        "--out", type=Path, default=Path(f"runs/{name}.json"), help="what is measured so far; it goes on"
    )
    parser.add_argument("--data-dir", type=Path, help="where the data lie now, if not where the runs had them")
    parser.add_argument("--record", action="store_true", help=f"write the results to experiments/{name}.json")
    asked = parser.parse_args(arguments)
    path = HERE / f"{name}.json"
    recorded = load(path) if path.exists() else None
    tracked = recorded if isinstance(recorded, Numbers) else None
    if asked.what == "measure":
        cache.keep_compiled()
        found = measure(study, asked.runs, asked.out, asked.data_dir)
        if asked.record:
            save(path, together(study, found, tracked))
        return
    if tracked is None:
        raise UserError(f"experiments/{name}.json is not there: measure with --record")
    draw(study, tracked, DOCS)
