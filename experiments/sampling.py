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
from experiments.tracked import Numbers, load
from ssl_gen.core.plain import to_plain
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


def measure(study: Study, folder: Path, kept: Path, data_dir: Path | None) -> Measured:
    """What can be measured of a study, with what stands in the file `kept`, which grows way by way.

    Runs that are not finished are passed over, and said in one line. Raises UserError where one stopped.
    """
    ways = ways_of(study)
    found: Measured = json.loads(kept.read_text()) if kept.exists() else {}
    known = {key for values in found.values() for key in values}
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
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(found))
    return in_order(study, found)


def together(study: Study, found: Measured, earlier: Numbers | None) -> Numbers:
    """The record of what was measured and, of other ways, of what was recorded, each with where it was made.

    Raises UserError where there is neither.
    """
    old = {} if earlier is None else earlier.metrics
    metrics = in_order(study, {name: {**old.get(name, {}), **found.get(name, {})} for name in study.shown})
    if not metrics:
        raise UserError(f"nothing to record: train {study.of} first")
    cells = [(name, key, each) for name, values in metrics.items() for key, each in values.items()]
    kept = [name in old and old[name].get(key) == each for name, key, each in cells]
    made = [(earlier.device, earlier.commit)] if earlier is not None and any(kept) else []
    made += [] if all(kept) else [(record.device(), record.commit())]
    device, commit = (
        "; ".join(dict.fromkeys("; ".join(map(str, each)).split("; "))) for each in zip(*made, strict=True)
    )
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
            path.write_text(json.dumps(to_plain(together(study, found, tracked)), indent=1) + "\n")
        return
    if tracked is None:
        raise UserError(f"experiments/{name}.json is not there: measure with --record")
    draw(study, tracked, DOCS)
