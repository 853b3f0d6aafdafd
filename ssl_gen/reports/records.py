"""Reading a run folder: its json files, metrics.jsonl and samples.png, as files and nothing more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_gen.types import UserError

FORMAT = 1  # of run.json
RUN_KEYS = ("method", "family", "paper", "config", "dataset", "data", "labels", "mask", "masks", "seeds", "steps")
RUN_KEYS += ("phases", "versions", "commit", "device", "command", "created")
FINAL_KEYS = ("method", "dataset", "labels", "masks", "seeds", "steps", "seconds", "metrics", "device", "commit")
LATENTS_KEYS = ("split", "images", "latents", "replica", "pictures", "errors", "left_out")
PLACES = ("step", "seed", "phase")  # what a line of metrics.jsonl says besides its numbers


class Run(NamedTuple):
    """What a run folder holds."""

    folder: Path
    record: dict[str, Any]  # run.json
    lines: list[dict[str, Any]]  # metrics.jsonl, in the order written
    final: dict[str, Any] | None  # final.json; None while the run has not finished
    samples: Path | None  # samples.png; None where the method draws none
    latents: dict[str, Any] | None  # latents.json; None where `ssl-gen latents` did not look at them


def _load(path: Path) -> dict[str, Any]:
    """A JSON object; raises UserError."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): restore it or train again") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path} is no JSON object: restore it or train again")
    return loaded


def _complete(path: Path, loaded: dict[str, Any], required: Sequence[str]) -> dict[str, Any]:
    """The object if it has the required keys; raises UserError."""
    missing = [key for key in required if key not in loaded]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}: it was not written by this version of ssl_gen")
    return loaded


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, numbers as floats and nulls left out; raises UserError for a damaged line."""
    text = path.read_text(encoding="utf-8")
    # A run killed while writing leaves half a line at the end: what has no newline yet was never written whole.
    whole = text[: text.rfind("\n") + 1]
    lines = []
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            line = json.loads(text)
            values = {name: float(v) for name, v in line.items() if name not in PLACES and v is not None}
            lines.append({"step": line["step"], "seed": line["seed"], **values})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}, line {number} is damaged ({error!r}): remove the line") from error
    return lines


def read(folder: str | Path) -> Run:
    """Everything in a run folder; raises UserError where it is no run folder or one of its files is damaged."""
    folder = Path(folder)
    record = folder / "run.json"
    if not record.is_file():
        raise UserError(f"{folder} is no run folder (it has no run.json): give the --out of `ssl-gen train`")
    loaded = _complete(record, _load(record), ("format",))
    if loaded["format"] != FORMAT:
        raise UserError(
            f"{record} has format {loaded['format']}, this ssl_gen reads {FORMAT}: use the one that wrote it"
        )
    metrics, final, samples = folder / "metrics.jsonl", folder / "final.json", folder / "samples.png"
    latents = folder / "latents.json"
    return Run(
        folder,
        _complete(record, loaded, RUN_KEYS),
        _lines(metrics) if metrics.is_file() else [],
        _complete(final, _load(final), FINAL_KEYS) if final.is_file() else None,
        samples if samples.is_file() else None,
        _complete(latents, _load(latents), LATENTS_KEYS) if latents.is_file() else None,
    )


def finished(folder: str | Path) -> dict[str, Any]:
    """final.json of a run folder plus `report`, the path of its report.html or None; raises UserError if unfinished."""
    run = read(folder)
    if run.final is None:
        raise UserError(f"{run.folder} has no final.json, the run has not finished: resume it with its own command")
    report = run.folder / "report.html"
    return {**run.final, "report": str(report) if report.is_file() else None}


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


def stopped(run: Run) -> list[dict[str, Any]]:
    """The seeds that stopped for a number that is not finite: {"seed", "step", "metric", "value"} each.

    From final.json; while there is none, from the first such number each seed logged.
    """
    if run.final is not None:
        return list(run.final["stopped"]) if "stopped" in run.final else []
    first: dict[int, dict[str, Any]] = {}
    for line in run.lines:
        for name, value in line.items():
            if name not in PLACES and not np.isfinite(value) and line["seed"] not in first:
                first[line["seed"]] = {"seed": line["seed"], "step": line["step"], "metric": name, "value": str(value)}
    return list(first.values())
