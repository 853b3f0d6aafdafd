"""What do steps and guidance cost? The flows of `digits_flow` with 50 labels, drawn from in other ways, 5 masks.

    steps       1 to 50 of them: `flow_matching` by Euler's and by Heun's method, which looks twice in a step, `edm` by
                Heun's, which looks once in the last, and `mean_flow`, against how often the network is looked at
    guidance    1 (none) to 5, `flow_matching` as it is drawn from otherwise, 20 steps by Heun's method: what is gained
                in obedience (agreement) stands beside what is lost (FID, and C_T, below -3 where samples are copies)

Nothing is trained: the runs of `digits_flow` are read. Samples are as many as there, 1,000 a mask.

Command: python -m experiments.digits_sampling [--record], after python -m experiments.digits_flow; 15 minutes of one
idle core. `figures` in place of it draws the tracked record anew into docs/.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.digits_flow import FIVE
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

NAME = "digits_sampling"
STEPS = (1, 2, 5, 10, 20, 50)
GUIDANCE = (1.0, 1.5, 2.0, 3.0, 5.0)
WIDE = 20.0  # a metric's largest value over its smallest, above which its axis is logarithmic
SHOWN = ("fid", "agreement_svc", "copying_labelled")


class Way(NamedTuple):
    """One way to draw from a run."""

    curve: str
    place: float  # along the figure
    run: str
    sampler: Mapping[str, Any]
    metrics: tuple[str, ...]


def solved(run: str, solver: str, last: int) -> dict[str, Way]:
    """Ways of a solver that looks twice in each step, but `last` times in the last, or once in each."""
    each = 2 if solver == "heun" else 1
    return {
        f"{run}, {solver}, steps {steps}": Way(
            f"{run}, {solver}",
            each * (steps - 1) + last,
            f"{run}@50",
            {"steps": steps, "solver": solver},
            ("fid",),
        )
        for steps in STEPS
    }


BY_STEPS = {
    **solved("flow_matching", "euler", 1),
    **solved("flow_matching", "heun", 2),
    **solved("edm", "heun", 1),
    **{
        f"mean_flow, steps {steps}": Way("mean_flow", steps, "mean_flow@50", {"steps": steps}, ("fid",))
        for steps in STEPS
    },
}
BY_GUIDANCE = {
    f"guidance {guidance:g}": Way(
        "flow_matching", guidance, "flow_matching@50", {"guidance": guidance}, ("fid", "agreement_svc", "copying")
    )
    for guidance in GUIDANCE
}
FIGURES = (
    ("steps", BY_STEPS, ("fid",), "looks at the network"),
    ("guidance", BY_GUIDANCE, SHOWN, "guidance"),
)


def measure(folder: Path, ways: Mapping[str, Way], kept: Path) -> dict[str, dict[str, Summary]]:
    """{metric: {way: summary over the seeds}}, those in the file `kept` as they stand there; it grows way by way.

    Raises UserError where a run is not there or not trained.
    """
    found: dict[str, dict[str, Summary]] = json.loads(kept.read_text()) if kept.exists() else {}
    known = {key for values in found.values() for key in values}
    for name in dict.fromkeys(way.run for key, way in ways.items() if key not in known):
        run = load_run(folder / name)
        run.check_trained()
        states = {replica: run.states[replica] for replica in run.temperatures}
        options, data = data_of(run)
        reference = make_reference(data, options)
        for key, way in ways.items():
            if way.run == name and key not in known:
                sampler = run.sampler(**way.sampler)
                measured = record.measure_seeds(run.compiled, data, states, reference, way.metrics, sampler)
                summaries = {tables.parsed(full).number: summary for full, summary in measured.items()}
                for metric in SHOWN:
                    if metric in summaries:
                        found.setdefault(metric, {})[key] = summaries[metric]
                        print(f"{key}, {metric}: {tables.measured('', summaries[metric])}", flush=True)
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(found))
    return {metric: {key: values[key] for key in ways if key in values} for metric, values in found.items()}


def draw(numbers: Numbers, folder: Path) -> list[Path]:
    """Write the figures of a record as FOLDER/digits_sampling_WHAT_METRIC.svg and .png, and return their paths."""
    written = []
    for what, ways, metrics, against in FIGURES:
        for metric in metrics:
            values = numbers.metrics[metric]
            points = [
                efficiency.Point(way.curve, way.place, {metric: values[key]})
                for key, way in ways.items()
                if key in values
            ]
            shown = efficiency.figure(points, metric, against, WIDE)
            assert shown is not None, "a record has at least one point"
            written += efficiency.save(shown, folder / f"{NAME}_{what}_{metric}")
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("measure", "figures"), default="measure")
    parser.add_argument("--runs", type=Path, default=Path("runs/digits_flow"), help="where those of digits_flow are")
    parser.add_argument(
        "--out", type=Path, default=Path(f"runs/{NAME}.json"), help="what is measured so far; it goes on"
    )
    parser.add_argument("--record", action="store_true", help=f"write the results to experiments/{NAME}.json")
    asked = parser.parse_args(arguments)
    path = HERE / f"{NAME}.json"
    if asked.what == "measure":
        cache.keep_compiled()
        found = measure(asked.runs, BY_STEPS | BY_GUIDANCE, asked.out)
        made = (record.device(), record.commit())
        seeds = list(range(FIVE.seeds))
        numbers = Numbers("digits", 1_000, 50, seeds, "drawn with", *made, metrics=found)
        if asked.record:
            path.write_text(json.dumps(to_plain(numbers), indent=1) + "\n")
        return
    tracked = load(path) if path.exists() else None
    if not isinstance(tracked, Numbers):
        raise UserError(f"experiments/{NAME}.json is not there: measure with --record")
    draw(tracked, DOCS)


if __name__ == "__main__":
    main()
