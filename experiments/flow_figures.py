"""A flow of guessed labels beside a GAN, by visible labels: figures of two records, with the same masks and features.

From `digits_flow`: flow_matching, its floor on the labelled images alone, its ceiling; from `digits_label_efficiency`:
triple_gan, and the conditional GAN on the labelled images alone.

Command: python -m experiments.flow_figures, which draws docs/digits_flow_METRIC.svg and .png
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from experiments.table import DOCS, HERE
from experiments.tracked import Tracked, load
from ssl_gen.reports.charts import efficiency
from ssl_gen.reports.compare import entries
from ssl_gen.reports.compare.entries import Entry

SHOWN: Mapping[str, Mapping[str, str]] = {  # record -> row -> what its curve is called
    "digits_flow": {
        "flow_matching": "flow_matching, guessed labels",
        "floor": "flow_matching, labelled images",
        "ceiling": "flow_matching, all labels",
    },
    "digits_label_efficiency": {"triple_gan": "triple_gan", "generation_floor": "conditional_gan, labelled images"},
}
METRICS = ("fid", "agreement_svc")
WIDE = 8.0  # a metric's largest value over its smallest, above which its axis is logarithmic


def points() -> tuple[list[Entry], list[efficiency.Point]]:
    """The rows that are shown, and what they are in a figure."""
    rows: list[Entry] = []
    found: list[efficiency.Point] = []
    for record, names in SHOWN.items():
        tracked = load(HERE / f"{record}.json")
        assert isinstance(tracked, Tracked)
        for name, final in tracked.rows.items():
            method, _, labels = name.rpartition("@")
            if method in names:
                rows.append(Entry(name, final))
                count = labels if labels == "all" else float(labels)
                found.append(efficiency.Point(names[method], count, final.metrics))
    return rows, found


def draw(folder: Path) -> list[Path]:
    """Write FOLDER/digits_flow_METRIC.svg and .png, and return their paths."""
    rows, found = points()
    written = []
    for short, full in zip(METRICS, entries.chosen(rows, METRICS), strict=True):
        shown = efficiency.figure(found, full, log_ratio=WIDE)
        assert shown is not None, "a record has at least one point"
        written += efficiency.save(shown, folder / f"digits_flow_{short}")
    return written


if __name__ == "__main__":
    print("figures:", *(path.name for path in draw(DOCS)))
