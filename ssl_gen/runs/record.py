"""What a run says of itself: a RunRecord before it starts, a FinalRecord when it ends."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssl_gen.core.machine import cores
from ssl_gen.core.plain import to_plain
from ssl_gen.core.precision import of_float32
from ssl_gen.datasets import stratify, summary
from ssl_gen.datasets.dataset import HIDDEN
from ssl_gen.datasets.masking import Mask
from ssl_gen.datasets.reading import Reading
from ssl_gen.evaluation.evaluated import Evaluated, abilities, averaged, measure
from ssl_gen.evaluation.inference import Compiled, probabilities
from ssl_gen.evaluation.reference import Reference
from ssl_gen.methods import METHODS, family
from ssl_gen.metrics import classification, statistics
from ssl_gen.metrics.registry import applicable
from ssl_gen.metrics.statistics import Summary
from ssl_gen.reports.records import (
    FORMAT,
    DataRecord,
    EncoderRecord,
    FinalRecord,
    LabellerRecord,
    MaskRecord,
    PhaseRecord,
    ReadRecord,
    RunRecord,
    Stop,
)
from ssl_gen.runs.cost import images_per_second, pflop, share_of_peak
from ssl_gen.runs.data import Data
from ssl_gen.runs.options import Options
from ssl_gen.training.loop import Outcome
from ssl_gen.training.processes import SINGLE_PROCESS, ProcessGroup
from ssl_gen.types import Method, Precision, State, UserError

LAST = 20  # evaluations in the median; Sohn et al. 2020, arXiv:2001.07685
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


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
    whole, allowed = len(names) or 1, cores()
    counted = f"{whole}" if allowed >= whole else f"{allowed} of {whole}"  # rounding differs: see `core.compiling`
    return f"{counted} cores, {names[0] if names else platform.processor() or platform.machine()}"


def precision(products: Precision = "float32") -> str:
    """How this process multiplies matrices and convolves.

    Where products are cast to bfloat16, float32 is left to few, such as those of spectral norms.
    """
    return of_float32() if products == "float32" else f"{products} (what stays float32: {of_float32()})"


def precisions(group: ProcessGroup, products: Precision = "float32") -> str:
    """`precision` of every process of a run."""
    own = precision(products)
    return " or ".join(dict.fromkeys(group.all_gather(own))) if group.count > 1 else own


def devices(group: ProcessGroup) -> str:
    """`device` of every process of a run, and how many processes, hosts and devices there are."""
    if group.count == 1:
        return device()
    gathered = group.all_gather([platform.node(), jax.local_device_count(), device()])
    nodes, counts, words = zip(*gathered, strict=True)
    hosts = f"{len(set(nodes))} host{'s' if len(set(nodes)) > 1 else ''}"
    kinds = " or ".join(dict.fromkeys(words))
    return f"{group.count} processes on {hosts}, {sum(counts)} devices, each {kinds}"


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
    every: Mapping[str, int],
    encoder: EncoderRecord | None = None,
    labeller: LabellerRecord | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    products: Precision = "float32",
) -> RunRecord:
    """run.json."""
    dataset = data.dataset
    height, width, channels = dataset.spec.shape
    return RunRecord(
        format=FORMAT,
        method=name,
        family=family(name),
        paper=METHODS[name].PAPER,
        config=to_plain(config),
        sampler=to_plain(method.sampler),
        dataset=options.dataset,
        data=DataRecord(
            height=height,
            width=width,
            channels=channels,
            classes=dataset.spec.classes,
            class_names=list(dataset.class_names),
            train=len(dataset.train_labels),
            test=len(dataset.test_labels),
            validation=len(data.validation[1]),
            skipped=list(dataset.skipped),
            sha256=dataset.sha256,
        ),
        labels=options.labels if options.labels == "all" else int(options.labels),
        mask=to_plain(options.mask),
        masks=[describe_mask(mask, options.mask.kind == "suggested") for mask in data.masks],
        seeds=data.seeds,
        options=to_plain(options),
        steps=sum(phase.steps for phase in method.phases),
        phases=[PhaseRecord(phase.name, phase.steps) for phase in method.phases],
        every=dict(every),
        versions={"ssl_gen": version("ssl-gen"), "python": platform.python_version()}
        | {package: version(package) for package in PACKAGES},
        commit=commit(),
        device=devices(group),
        command=command_line(name, config, options),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        encoder=encoder,
        labeller=labeller,
        precision=precisions(group, products),
        products=products,
        read=describe_reading(data),
    )


def describe_mask(mask: Mask, chosen: bool) -> MaskRecord:
    """A mask, and which images it shows the labels of where no seed tells."""
    rows = np.flatnonzero(mask.labels >= 0).tolist() if chosen else None
    return MaskRecord(mask.name, mask.sha256, mask.visible, len(mask.pool), rows)


def describe_reading(data: Data) -> ReadRecord:
    """What was read, for run.json and for the line that says it."""
    dataset, reading = data.dataset, data.dataset.reading or Reading()
    counts = stratify.sizes(dataset.train_labels, len(dataset.class_names)).tolist()
    visible = [int((mask.labels >= 0).sum()) for mask in data.masks]
    return ReadRecord(
        line=summary.line(dataset, len(data.validation[1]), visible),
        warnings=list(reading.warnings),
        labelled=dict(zip(dataset.class_names, counts, strict=True)),
        unlabelled=int((dataset.train_labels == HIDDEN).sum()),
        left_out={why: list(names) for why, names in reading.left_out.items()},
        sizes=dict(reading.sizes),
        modes=dict(reading.modes),
        changes={change: count for change, count in reading.changes.items() if count},
    )


def to_measure(compiled: Compiled, reference: Reference, names: tuple[str, ...] = ()) -> list[str]:
    """The usual metrics of a run, or those named. Raises UserError for one that does not apply."""
    return list(applicable(abilities(compiled.method, reference), names, compiled.method.costly))


def measure_seeds(
    compiled: Compiled,
    data: Data,
    states: Mapping[int, State],
    reference: Reference,
    names: tuple[str, ...] = (),
    sampler: Any = None,
    unmeasured: dict[str, str] | None = None,
) -> dict[str, Summary]:
    """The usual metrics, or those named, of the replicas that did not stop, {full name: summary over all seeds}.

    `sampler`: how samples are drawn, None for the method's own; other settings stand in the names of what they touch.
    Raises UserError for a metric that cannot be had, unless `unmeasured` is there to take the reason.
    """
    chosen = to_measure(compiled, reference, names)
    evaluated = {
        data.seeds[replica]: Evaluated(
            compiled,
            state,
            reference,
            data.masks[replica].labels,
            data.masks[replica].pool,
            data.seeds[replica],
            sampler,
        )
        for replica, state in states.items()
    }
    found = measure(chosen, evaluated, data.seeds, unmeasured)
    return {name: statistics.summary(values) for name, values in found.items()}


def conclude(
    record: RunRecord,
    compiled: Compiled,
    data: Data,
    states: dict[int, State],
    outcome: Outcome,
    lines: Sequence[dict[str, Any]],
    reference: Reference,
    devices: int,
) -> tuple[FinalRecord, list[np.ndarray]]:
    """final.json: the metrics of the replicas that did not stop, and what the log says of the way there.

    devices: as many as trained.

    With it, where there is a classifier, the log-probabilities (T, K) that each of them gives the test images.
    """
    unmeasured: dict[str, str] = {}
    metrics = measure_seeds(compiled, data, states, reference, unmeasured=unmeasured)
    operations = None if compiled.method.fit else pflop(compiled.method, data.dataset.spec.shape)
    seconds, seeds, words = outcome.seconds, len(record.seeds), record.precision or ""
    final = FinalRecord(
        method=record.method,
        dataset=record.dataset,
        labels=record.labels,
        masks=[mask.sha256 for mask in record.masks],
        seeds=record.seeds,
        steps=record.steps,
        seconds=round(seconds, 2),
        pflop=operations,
        # a seed that stopped did not train to the end
        images_per_second=None if outcome.stopped else images_per_second(compiled.method, seeds, seconds),
        share_of_peak=None if outcome.stopped else share_of_peak(operations, seeds, seconds, words, devices),
        metrics=metrics | history(lines, record.seeds, outcome.stopped),
        unmeasured=unmeasured,
        stopped=[Stop(**why) for why in outcome.stopped.values()],
        averaged=averaged(next(iter(states.values()))) if states else [],
        device=record.device,
        precision=record.precision,
        commit=record.commit,
        command=record.command,
    )
    if not (compiled.classify and states):
        return final, []
    labels = data.dataset.test_labels
    try:
        outputs = {
            replica: probabilities(compiled, state, data.dataset.test_images) for replica, state in states.items()
        }
    except UserError as error:
        return dataclasses.replace(final, unmeasured=unmeasured | {"confusion": str(error)}), []
    of_each = range(len(record.seeds))
    shares = [classification.per_class_error(outputs[i], labels) if i in outputs else {} for i in of_each]
    best = [min(each, default=None) for each in curves(lines, record.seeds, outcome.stopped, "test/error")]
    final = dataclasses.replace(
        final,
        confusion=np.sum([classification.confusion(each, labels) for each in outputs.values()], 0).tolist(),
        per_class_error={
            name: statistics.summary([share.get(k) for share in shares])
            for k, name in enumerate(data.dataset.class_names)
        },
        oracle={"error_best_test": statistics.summary(best)},
    )
    return final, list(outputs.values())


def curves(
    lines: Sequence[dict[str, Any]], seeds: Sequence[int], stopped: Mapping[int, Any], name: str
) -> list[list[float]]:
    """One number of every seed over the run; none of a seed that stopped, which counts in no result."""
    return [
        [] if replica in stopped else [line[name] for line in lines if line["seed"] == seed and name in line]
        for replica, seed in enumerate(seeds)
    ]


def history(lines: Sequence[dict[str, Any]], seeds: list[int], stopped: Mapping[int, Any]) -> dict[str, Summary]:
    """The median error of the last 20 evaluations, and the error at the best validation step where there is one."""
    errors = curves(lines, seeds, stopped, "test/error")
    if not any(errors):
        return {}
    found: dict[str, list[float | None]] = {
        f"error_median_last_{LAST}": [float(np.median(each[-LAST:])) if each else None for each in errors]
    }
    chosen = curves(lines, seeds, stopped, "validation/error")
    if any(chosen):
        found["error_validation"] = [each[-1] if each else None for each in chosen]
        found["error_best_validation"] = [
            test[int(np.argmin(validation))] if test else None for test, validation in zip(errors, chosen, strict=True)
        ]
    return {name: statistics.summary(values) for name, values in found.items()}
