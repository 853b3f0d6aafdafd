"""Labels on a graph of 70,000 images: neighbours, spreading and Poisson learning, in seconds and memory.

    python -m benchmarks.graph [--quick] [--data-dir DIR] [--record]     one JSON line per measurement; many minutes

    graph      MNIST, train and test together, where --data-dir has it, otherwise random pixels of the same size: the
               exact 10-nearest-neighbour graph, then `spread_labels` and `poisson` from 100 labels; `seconds` is their
               sum, each measured once, after a call on few images that compiles what does not depend on their number
    spreading  beside scikit-learn, on fewer images: `spread_labels` and the fit of LabelSpreading on the same weights
               until each is within the same tolerance, as each counts it; interleaved; `ratio` is scikit-learn's
               seconds over ours, `disagreement` the part of the images that are named differently
    whole      LabelSpreading(kernel="knn") from pixels on all images, once: its neighbours and 30 iterations

Every line comes from a process of its own. Its `memory_mib` is by how much the measured work raises ru_maxrss, the most
that the process has held, from where the images are in place. Compare lines where `load` is low.
"""

from __future__ import annotations

import argparse
import functools
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from benchmarks.metrics import growth, medians
from benchmarks.step import alone, machine, rounded, say
from ssl_gen.datasets import sources
from ssl_gen.graphs import build, solve

SECONDS, MIB = 180, 2048  # targets of `graph`; ours
NEIGHBOURS, LABELS, CLASSES = 10, 100, 10
ALPHA, TOLERANCE = 0.9, 1e-3  # of both sides; scikit-learn's default tolerance
RECORD = Path(__file__).with_suffix(".json")


class Scale(NamedTuple):
    """How much is measured."""

    nodes: int
    compared: int  # nodes, beside scikit-learn
    repeats: int  # timed calls


FULL = Scale(70_000, 10_000, 3)
QUICK = Scale(400, 300, 3)


def images(count: int, data_dir: Path | None) -> np.ndarray:
    """(N, 784) float32 in [-1, 1]."""
    if data_dir is None:
        pixels = np.random.default_rng(0).integers(0, 256, (count, 784), np.uint8)
    else:
        mnist = sources.load("mnist", data_dir)
        pixels = np.concatenate([mnist.train_images, mnist.test_images])[:count].reshape(-1, 784)
    features = pixels.astype(np.float32)
    features /= 127.5
    features -= 1
    return features


def some_labels(count: int) -> tuple[np.ndarray, np.ndarray]:
    """One-hot labels (N, K) of the first images, class after class: the work does not depend on which; where (N,)."""
    where = np.arange(count) < LABELS
    return np.eye(CLASSES, dtype=np.float32)[np.arange(count) % CLASSES] * where[:, None], where


def timed(seconds: dict[str, float], name: str, call: Callable[[], Any]) -> Any:
    """What a call returns; its seconds are noted."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    seconds[name] = time.perf_counter() - start
    return result


def from_images(features: np.ndarray, seconds: dict[str, float]) -> None:
    """All that a graph method does once, with the seconds of each part."""
    targets, where = some_labels(len(features))
    indices, distances = timed(seconds, "neighbours", lambda: build.neighbours(features, NEIGHBOURS))
    graph = timed(seconds, "graph", lambda: build.build(indices, distances, "gaussian"))
    timed(seconds, "spreading", lambda: solve.spread_labels(graph, targets, 0.99))
    timed(seconds, "poisson", lambda: solve.poisson(graph, jnp.asarray(targets), where))


def about(kind: str, nodes: int, data_dir: Path | None) -> dict[str, Any]:
    """What was measured."""
    return {"kind": kind, "nodes": nodes, "pixels": 784, "images": "mnist" if data_dir else "random"}


def graph_line(scale: Scale, data_dir: Path | None) -> dict[str, Any]:
    """The whole way from images to labels."""
    features = images(scale.nodes, data_dir)
    seconds: dict[str, float] = {}
    from_images(features[:200], {})
    memory = growth(lambda: from_images(features, seconds))
    numbers = {"seconds": sum(seconds.values()), "memory_mib": memory}
    targets = {"seconds_of": rounded(seconds), "target_seconds": SECONDS, "target_mib": MIB}
    return about("graph", scale.nodes, data_dir) | rounded(numbers) | targets | machine()


def spreading_line(scale: Scale, data_dir: Path | None) -> dict[str, Any]:
    """Spreading on given weights beside scikit-learn."""
    from sklearn.semi_supervised import LabelSpreading

    features = images(scale.compared, data_dir)
    targets, where = some_labels(len(features))
    graph = build.build(*build.neighbours(features, NEIGHBOURS), "gaussian")
    weights = scipy.sparse.csr_matrix((graph.weights, (graph.rows, graph.columns)), (len(features),) * 2)
    labels = np.where(where, targets.argmax(1), -1)

    def scikit() -> np.ndarray:
        model = LabelSpreading(kernel=lambda x, y: weights.copy(), alpha=ALPHA, max_iter=1000, tol=TOLERANCE)
        return model.fit(features, labels).label_distributions_

    calls: dict[str, Callable[[], Any]] = {
        "ours": functools.partial(solve.spread_labels, graph, targets, ALPHA, TOLERANCE),
        "scikit_learn": scikit,
    }
    seconds = medians(calls, scale.repeats)
    different = np.asarray(calls["ours"]()).argmax(1) != scikit().argmax(1)
    numbers = {"seconds": seconds["ours"], "ratio": seconds["scikit_learn"] / seconds["ours"]}
    numbers |= {"disagreement": float(different.mean())}
    return (
        about("spreading", scale.compared, data_dir) | rounded(numbers) | {"seconds_of": rounded(seconds)} | machine()
    )


def whole_line(scale: Scale, data_dir: Path | None) -> dict[str, Any]:
    """scikit-learn's own way from images to labels, with its own graph and default settings otherwise."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.semi_supervised import LabelSpreading

    features = images(scale.nodes, data_dir)
    seconds: dict[str, float] = {}
    targets, where = some_labels(scale.nodes)
    labels = np.where(where, targets.argmax(1), -1)
    model = LabelSpreading(kernel="knn", n_neighbors=NEIGHBOURS + 1)

    def fit() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # its limit of iterations is part of what is measured
            timed(seconds, "whole", lambda: model.fit(features, labels).label_distributions_)

    numbers = {"memory_mib": growth(fit), "seconds": seconds["whole"], "iterations": model.n_iter_}
    return about("whole", scale.nodes, data_dir) | rounded(numbers) | machine()


def lines(scale: Scale, data_dir: Path | None) -> Iterator[dict[str, Any]]:
    """All measurements, in the order of this page."""
    for line in (graph_line, spreading_line, whole_line):
        yield alone(line, scale, data_dir)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few images, to see that it runs")
    parser.add_argument("--data-dir", type=Path, help="where MNIST lies; random pixels without it")
    parser.add_argument("--record", action="store_true", help="write the lines to benchmarks/graph.json")
    asked = parser.parse_args()
    say(lines(QUICK if asked.quick else FULL, asked.data_dir), RECORD if asked.record else None)


if __name__ == "__main__":
    main()
