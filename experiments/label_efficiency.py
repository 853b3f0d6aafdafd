"""What the label-efficiency experiments share: rows METHOD@LABELS, their tiny form, their command.

A method is trained with each number of labels, on the masks that all methods share at that number; a ceiling, or a
generator that looks at no label, is one row METHOD@all and a horizontal rule in the figures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import table
from experiments.table import Row
from ssl_gen.networks.pretrained.sources import PACKAGES
from ssl_gen.reports.records import PublishedNumber
from ssl_gen.runs.catalogue import has_steps
from ssl_gen.runs.options import Options

BASELINE = "augmented_floor"
TINY_COUNTS = 2  # numbers of labels with --tiny
TINY_SAMPLES = 100  # images drawn for the metrics with --tiny, where measuring takes longer than training


def spread(methods: Mapping[str, Row], counts: Sequence[int], references: Mapping[str, Row]) -> dict[str, Row]:
    """The rows of methods with each number of labels, then those of references with all; `options.labels` is set.

    A row that learns another one's guesses or latents, which its options name without labels, learns those of as many.
    """
    budgets = {name: [str(count) for count in counts] for name in methods} | {name: ["all"] for name in references}
    return {
        f"{name}@{labels}": row._replace(options=_with(row.options, labels))
        for name, row in {**methods, **references}.items()
        for labels in budgets[name]
    }


def _with(options: Options, labels: str) -> Options:
    """Options with so many labels, of their own and of the rows that they name."""
    named = {key: getattr(options, key) for key in table.EARLIER}
    rows: dict[str, Any] = {
        key: f"{name}@{labels}" for key, name in named.items() if name is not None and name not in PACKAGES
    }
    return dataclasses.replace(options, labels=labels, **rows)


def tiny(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Few steps, two seeds and the two smallest numbers of labels, on bundled digits with features that are at hand."""
    counts = sorted({int(name.rpartition("@")[2]) for name in rows if not name.endswith("@all")})[:TINY_COUNTS]
    kept = {"all", *map(str, counts)}
    few = {name: table.shrunk(row) for name, row in rows.items() if name.rpartition("@")[2] in kept}
    return {name: row._replace(options=_here(row)) for name, row in few.items()}


def _here(row: Row) -> Options:
    """A row's options on bundled digits."""
    options = dataclasses.replace(row.options, dataset="digits", features="random", samples=TINY_SAMPLES)
    if options.encoder in PACKAGES:
        options = dataclasses.replace(options, encoder="random", encoder_size=None)
    if not has_steps(row.config):
        return options  # what takes no steps has none to count
    every = table.TINY_STEPS
    return dataclasses.replace(options, log_every=every, evaluate_every=every, checkpoint_every=every)


def main(
    name: str,
    rows: Mapping[str, Row],
    metrics: Sequence[str],
    title: str,
    published: Mapping[str, PublishedNumber],
    baseline: str = BASELINE,
) -> None:
    """The command of a label-efficiency experiment."""
    table.main(name, rows, baseline, metrics, title, published, tiny(rows))
