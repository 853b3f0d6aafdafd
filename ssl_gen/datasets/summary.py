"""The line that says what was read, before training starts."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import numpy as np

from ssl_gen.core.wording import count
from ssl_gen.datasets.dataset import HIDDEN, OUT_OF_DISTRIBUTION, Dataset
from ssl_gen.datasets.names import readable, some
from ssl_gen.datasets.reading import Reading

NAMED = 20  # classes, or kinds of size and mode, that the line names; the rest are counted


def listed(counts: Mapping[str, int]) -> str:
    """'RGB (80), grey (3)': the commonest first."""
    ranked = [(name, n) for name, n in collections.Counter(counts).most_common() if n]
    return some([f"{name} ({n:,})" for name, n in ranked], NAMED)


def said_of_left_out(left_out: Mapping[str, Sequence[str]]) -> str:
    """'2 files left out: 1 unreadable (a.png), 1 hidden or system (.b)': the first few of each kind by name."""
    total = sum(map(len, left_out.values()))
    if not total:
        return "nothing left out"
    parts = [f"{len(names):,} {why} ({some(names)})" for why, names in left_out.items()]
    return f"{count(total, 'file')} left out: {', '.join(parts)}"


def line(dataset: Dataset, validation: int = 0, visible: Sequence[int] = ()) -> str:
    """What was read, in one line: classes, images, sizes and modes, what cannot be tested, was changed or left out.

    validation: images held out of training; visible (S,): labels that each seed sees.
    """
    reading = dataset.reading or Reading()
    counts = np.bincount(dataset.train_labels[dataset.train_labels >= 0], minlength=len(dataset.class_names))
    classes = [f"{name} ({count:,})" for name, count in zip(dataset.class_names, counts, strict=True)]
    hidden = int((dataset.train_labels == HIDDEN).sum())
    strangers = int((dataset.train_labels == OUT_OF_DISTRIBUTION).sum())
    height, width, channels = dataset.train_images.shape[1:]
    train = f"{len(dataset.train_labels):,} training images, {counts.sum():,} labelled, {hidden:,} unlabelled"
    train += f", {strangers:,} of no class" if strangers else ""
    train += f" (each seed sees {' or '.join(f'{n:,}' for n in sorted(set(visible)))} labels)" if visible else ""
    tests = f"{len(dataset.test_labels):,} test"
    tested = set(dataset.test_labels.tolist())
    untested = [name for k, name in enumerate(dataset.class_names) if k not in tested]
    if tested and untested:
        tests += f", none of {some(untested, NAMED)}, which no error counts"
    found = f" from files of {listed(reading.sizes)} in {listed(reading.modes)}" if reading.sizes else ""
    changes = listed(reading.changes) or "nothing resized or converted"
    return (
        f"read {readable(dataset.name)}: {count(len(classes), 'class', 'es')}, "
        f"labelled: {some(classes, NAMED)}; {train}; {validation:,} validation, {tests}; "
        f"{width} x {height} {'RGB' if channels == 3 else 'grey'}{found}; {changes}; "
        f"{said_of_left_out(reading.left_out)}"
    )
