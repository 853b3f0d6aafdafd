"""What a run says of itself: run.json before it starts, final.json when it ends."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import os
import platform
import shlex
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssl_gen import evaluation, measurements
from ssl_gen.methods import METHODS, family
from ssl_gen.metrics import classification, statistics
from ssl_gen.setting import Data, Options
from ssl_gen.training import folder, hosts, loop
from ssl_gen.types import Method, State

FORMAT = 1  # of run.json
LAST = 20  # evaluations in the median; Sohn et al. 2020, arXiv:2001.07685


def commit() -> str | None:
    """The commit of the checkout this package is in, with + where files differ from it.

    Outside a checkout (a container's image, a copy without its history) what SSL_GEN_COMMIT says, else None.
    """
    here = Path(__file__).parent
    try:
        run = functools.partial(subprocess.run, cwd=here, capture_output=True, text=True, check=True)
        revision = run(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        return revision + ("+" if run(["git", "status", "--porcelain", "--untracked-files=no"]).stdout else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("SSL_GEN_COMMIT") or None


def version(package: str) -> str:
    """Of an installed package; a checkout on the path alone, as on a machine without a network, has none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def device() -> str:
    """The accelerators, or the processor, in words."""
    kinds = [d.device_kind for d in jax.local_devices()]
    if kinds[0] != "cpu":
        return f"{len(kinds)} x {kinds[0]}"
    info = Path("/proc/cpuinfo")
    names = [
        line.split(":")[1].strip()
        for line in (info.read_text() if info.exists() else "").splitlines()
        if "model name" in line
    ]
    return f"{len(names) or 1} cores, {names[0] if names else platform.processor() or platform.machine()}"


def devices(team: hosts.Team) -> str:
    """`device` of every process of a run, and how many processes, hosts and devices there are."""
    if team.count == 1:
        return device()
    told = team.gather([platform.node(), jax.local_device_count(), device()])
    nodes, counts, words = zip(*told, strict=True)
    return (
        f"{team.count} processes on {len(set(nodes))} host{'s' if len(set(nodes)) > 1 else ''}, {sum(counts)} devices, "
        f"each {' or '.join(dict.fromkeys(words))}"
    )


def command_line(name: str, config: Any, options: Options) -> str:
    """The command that makes this run: what differs from the defaults."""
    words = ["ssl-gen", "train", name]

    def add(prefix: str, value: Any, default: Any) -> None:
        for field in dataclasses.fields(value):
            new, old = getattr(value, field.name), getattr(default, field.name)
            flag = f"{prefix}{field.name.replace('_', '-')}"
            if dataclasses.is_dataclass(new):
                add(f"{flag}.", new, old)
            elif new == old:
                continue
            elif isinstance(new, bool):
                words.append(f"--{flag}" if new else f"--{prefix}no-{field.name.replace('_', '-')}")
            else:
                words.extend([f"--{flag}", *map(str, new if isinstance(new, tuple) else (new,))])

    add("", options, Options())
    add("config.", config, type(config)())
    return shlex.join(words)


def describe(
    name: str,
    config: Any,
    options: Options,
    data: Data,
    method: Method,
    every: loop.Every,
    team: hosts.Team = hosts.ALONE,
) -> dict:
    """run.json."""
    spec = data.dataset.spec
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "format": FORMAT,
        "method": name,
        "family": family(name),
        "paper": METHODS[name].PAPER,
        "config": dataclasses.asdict(config),
        "dataset": options.dataset,
        "data": {
            **spec._asdict(),
            "class_names": list(data.dataset.class_names),
            "train": len(data.dataset.train_labels),
            "test": len(data.dataset.test_labels),
            "validation": len(data.validation[1]),
            "skipped": list(data.dataset.skipped),
            "sha256": data.dataset.sha256,
        },
        "labels": options.labels if options.labels == "all" else int(options.labels),
        "mask": dataclasses.asdict(options.mask),
        "masks": [
            {"name": m.name, "sha256": m.sha256, "visible": int((m.labels >= 0).sum()), "pool": len(m.pool)}
            for m in data.masks
        ],
        "seeds": list(range(options.seeds)),
        "options": {
            key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(options).items()
        },
        "steps": sum(phase.steps for phase in method.phases),
        "phases": [{"name": phase.name, "steps": phase.steps} for phase in method.phases],
        "every": every._asdict(),
        "versions": {"ssl_gen": version("ssl-gen"), "python": platform.python_version()}
        | {package: version(package) for package in packages},
        "commit": commit(),
        "device": devices(team),
        "command": command_line(name, config, options),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def common(about: dict) -> dict[str, Any]:
    """What must be the same in all processes of a run: what its numbers depend on, and how they divide the work."""
    placing = {name: about["options"][name] for name in ("replicas", "data_parallel")}
    return {name: about[name] for name in folder.SAME} | placing | {"versions": about["versions"]}


def measure(
    about: dict,
    tools: evaluation.Tools,
    data: Data,
    states: dict[int, State],
    reference: evaluation.Reference,
    names: tuple[str, ...] = (),
    unmeasured: dict[str, str] | None = None,
) -> dict[str, dict]:
    """The usual metrics, or those named, of the seeds that did not stop, {full name: summary over all seeds}.

    Raises UserError for a metric that cannot be had, unless `unmeasured` is there to take the reason.
    """
    chosen = measurements.applicable(tools.method, reference, names)
    subjects = {
        seed: evaluation.Subject(tools, state, reference, data.masks[seed].labels, seed)
        for seed, state in states.items()
    }
    measures = {name: measurements.METRICS[name].measure for name in chosen}
    found = evaluation.measure(chosen, measures, subjects, about["seeds"], unmeasured)
    return {name: statistics.summary(values) for name, values in found.items()}


def conclude(
    about: dict,
    tools: evaluation.Tools,
    data: Data,
    states: dict[int, State],
    outcome: loop.Outcome,
    lines: list[dict],
    reference: evaluation.Reference,
) -> dict[str, Any]:
    """final.json: the metrics of the seeds that did not stop, and what the log says of the way there."""
    unmeasured = {}
    metrics = measure(about, tools, data, states, reference, unmeasured=unmeasured)
    final = {
        **{key: about[key] for key in ("method", "dataset", "labels")},
        "masks": [mask["sha256"] for mask in about["masks"]],
        **{key: about[key] for key in ("seeds", "steps")},
        "seconds": round(outcome.seconds, 2),
        "metrics": metrics | history(lines, about["seeds"], outcome.stopped),
        "unmeasured": unmeasured,
        "stopped": list(outcome.stopped.values()),
        "averaged": evaluation.averaged(next(iter(states.values()))) if states else [],
        **{key: about[key] for key in ("device", "commit", "command")},
    }
    if tools.classify and states:
        labels = data.dataset.test_labels
        outputs = [evaluation.probabilities(tools, state, data.dataset.test_images) for state in states.values()]
        final["confusion"] = np.sum([classification.confusion(each, labels) for each in outputs], 0).tolist()
        shares = [classification.per_class_error(each, labels) for each in outputs]
        final["per_class_error"] = {
            name: statistics.summary([share.get(k) for share in shares])
            for k, name in enumerate(data.dataset.class_names)
        }
        best = [min(curve(lines, seed, "test/error"), default=None) for seed in about["seeds"]]
        final["oracle"] = {"error_best_test": statistics.summary(best)}
    return final


def curve(lines: list[dict], seed: int, name: str) -> list[float]:
    """One number of one seed over the run."""
    return [line[name] for line in lines if line["seed"] == seed and name in line]


def history(lines: list[dict], seeds: list[int], stopped: dict[int, dict]) -> dict[str, dict]:
    """The median error of the last 20 evaluations, and the error at the best validation step where there is one."""
    alive = [i not in stopped for i in range(len(seeds))]
    errors = [curve(lines, seed, "test/error") if ok else [] for seed, ok in zip(seeds, alive, strict=True)]
    if not any(errors):
        return {}
    found = {f"error_median_last_{LAST}": [float(np.median(each[-LAST:])) if each else None for each in errors]}
    chosen = [curve(lines, seed, "validation/error") for seed in seeds]
    if any(chosen):
        found["error_validation"] = [each[-1] if each and ok else None for each, ok in zip(chosen, alive, strict=True)]
        found["error_best_validation"] = [
            test[int(np.argmin(validation))] if test else None for test, validation in zip(errors, chosen, strict=True)
        ]
    return {name: statistics.summary(values) for name, values in found.items()}
