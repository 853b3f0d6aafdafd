"""Curves of several records beside each other, by visible labels: figures of rows with the same masks and metrics.

    digits_flow           a flow of guessed labels, its floor on the labelled images alone and its ceiling, beside GANs
    cifar10_jpeg_labels   photographs: a network from scratch beside frozen features of a pretrained one

Command: python -m experiments.figures, which draws docs/NAME_METRIC.svg and .png
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from experiments.table import DOCS, HERE
from experiments.tracked import Tracked, load
from ssl_gen.reports.charts import efficiency
from ssl_gen.reports.compare import entries
from ssl_gen.reports.compare.entries import Entry

WIDE = 8.0  # a metric's largest value over its smallest, above which its axis is logarithmic


class Figure(NamedTuple):
    """What a figure shows, one of each metric."""

    metrics: tuple[str, ...]
    shown: Mapping[str, Mapping[str, str]]  # record -> row -> what its curve is called


FIGURES = {
    "digits_flow": Figure(
        ("fid", "agreement_svc"),
        {
            "digits_flow": {
                "flow_matching": "flow_matching, guessed labels",
                "floor": "flow_matching, labelled images",
                "ceiling": "flow_matching, all labels",
            },
            "digits_label_efficiency": {
                "triple_gan": "triple_gan",
                "generation_floor": "conditional_gan, labelled images",
            },
        },
    ),
    "cifar10_jpeg_labels": Figure(
        ("error",),
        {
            "cifar10_jpeg_frozen": {
                "linear_efficientnet": "linear, frozen EfficientNet-Lite0",
                "poisson_mbo_efficientnet": "poisson_mbo, frozen EfficientNet-Lite0",
            },
            "cifar10_jpeg_label_efficiency": {
                "augmented_floor": "labels alone, from scratch",
                "fixmatch": "fixmatch, from scratch",
                "noisy_student": "noisy_student of linear's guesses",
                "ceiling": "all labels, from scratch",
            },
        },
    ),
}


def points(shown: Mapping[str, Mapping[str, str]]) -> tuple[list[Entry], list[efficiency.Point]]:
    """The rows that are shown, and what they are in a figure."""
    rows: list[Entry] = []
    found: list[efficiency.Point] = []
    for record, names in shown.items():
        tracked = load(HERE / f"{record}.json")
        assert isinstance(tracked, Tracked)
        for name, final in tracked.rows.items():
            method, _, labels = name.rpartition("@")
            if method in names:
                rows.append(Entry(name, final))
                count = labels if labels == "all" else float(labels)
                found.append(efficiency.Point(names[method], count, final.metrics))
    return rows, found


def draw(name: str, folder: Path) -> list[Path]:
    """Write FOLDER/NAME_METRIC.svg and .png, and return their paths."""
    metrics, shown = FIGURES[name]
    rows, found = points(shown)
    written = []
    for short, full in zip(metrics, entries.chosen(rows, metrics), strict=True):
        drawn = efficiency.figure(found, full, log_ratio=WIDE)
        assert drawn is not None, "a record has at least one point"
        written += efficiency.save(drawn, folder / f"{name}_{short}")
    return written


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m experiments.figures", description=__doc__).parse_args()
    print("figures:", *(path.name for name in FIGURES for path in draw(name, DOCS)))
