"""A run folder, read: its records, what it logged, where its pictures are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_gen.core.files import sha256
from ssl_gen.reports import tested
from ssl_gen.reports.records import FinalRecord, LatentsRecord, RunRecord, Stop, load, load_both
from ssl_gen.types import UserError

PLACES = ("step", "seed", "phase")  # what a line of metrics.jsonl says besides its numbers


class Run(NamedTuple):
    """What a run folder holds."""

    folder: Path
    record: RunRecord
    lines: list[dict[str, Any]]  # metrics.jsonl, in the order written
    final: FinalRecord | None  # None while the run has not finished
    samples: Path | None  # samples.png; None where the method draws none
    latents: LatentsRecord | None  # None where `ssl-gen latents` did not run
    over_time: list[tuple[int, Path]]  # samples/STEP.png, by step
    tested: tested.Tested | None = (
        None  # test images to show; None where nothing classifies, or an older version trained
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, numbers as floats and nulls left out; raises UserError for a damaged line."""
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): the run's own command writes it again") from error
    # A run killed while writing leaves half a line at the end: what has no newline yet was never written whole.
    whole = text[: text.rfind("\n") + 1]
    lines = []
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            line = json.loads(text)
            values = {name: float(v) for name, v in line.items() if name not in PLACES and v is not None}
            phase = {"phase": line["phase"]} if "phase" in line else {}  # of training; what is measured has none
            lines.append({"step": line["step"], "seed": line["seed"], **phase, **values})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}, line {number} is damaged ({error!r}): remove the line") from error
    return lines


def read(folder: str | Path) -> Run:
    """Everything in a run folder; raises UserError where it is no run folder or one of its files is damaged."""
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise UserError(f"{folder} is no run folder (it has no run.json): give the --out of `ssl-gen train`")
    metrics, samples, latents = folder / "metrics.jsonl", folder / "samples.png", folder / "latents.json"
    record, final = load_both(folder)
    if final is not None and not has_whole_log(folder, final):
        raise UserError(f"{metrics} is not as the run left it (its SHA-256 differs); this mends it: {record.command}")
    return Run(
        folder,
        record,
        _lines(metrics) if metrics.is_file() else [],
        final,
        samples if samples.is_file() else None,
        load(latents, LatentsRecord) if latents.is_file() else None,
        sorted((int(path.stem), path) for path in (folder / "samples").glob("*.png") if path.stem.isdecimal()),
        tested.read(folder),
    )


def has_whole_log(folder: Path, final: FinalRecord) -> bool:
    """Is metrics.jsonl as it was when the run ended? Where final.json has no hash of it nothing can be said against."""
    path = folder / "metrics.jsonl"
    return final.log is None or (path.is_file() and sha256(path.read_bytes()) == final.log)


def finished(run: Run) -> FinalRecord:
    """What a run came to; raises UserError where it has not finished."""
    if run.final is None:
        raise UserError(f"{run.folder} has no final.json, the run has not finished: resume it with its own command")
    return run.final


def names(lines: Sequence[dict[str, Any]]) -> list[str]:
    """The names of all numbers in metrics.jsonl, in order of appearance."""
    return list(dict.fromkeys(name for line in lines for name in line if name not in PLACES))


def curve(lines: Sequence[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """One number over time: steps (T,) int and values (S, T), NaN where a seed has none; seeds and steps ascend.

    Where a resumed run wrote a step twice the later line counts, because the resumed state is the one that lives on.
    """
    found = {(line["seed"], line["step"]): line[name] for line in lines if name in line}
    seeds, steps = (sorted({place[axis] for place in found}) for axis in (0, 1))
    values = np.array([[found.get((seed, step), np.nan) for step in steps] for seed in seeds])
    return np.array(steps, int), values.reshape(len(seeds), len(steps))


def stopped(run: Run) -> list[Stop]:
    """The seeds that stopped for a number that is not finite.

    From final.json; while there is none, from the first such number that each seed logged in training. One that an
    evaluator found stops nobody.
    """
    if run.final is not None:
        return run.final.stopped
    first: dict[int, Stop] = {}
    for line in (line for line in run.lines if "phase" in line):
        for name, value in line.items():
            if name not in PLACES and not np.isfinite(value) and line["seed"] not in first:
                first[line["seed"]] = Stop(line["seed"], line["step"], name, str(value))
    return list(first.values())
