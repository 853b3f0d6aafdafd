"""A state -> images, probabilities and {metric: value}; what a method cannot do is left out, never zero.

Everything runs in batches of one fixed size, so each function of a method is compiled once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_gen.datasets.dataset import Dataset
from ssl_gen.metrics import agreement, classification, diversity
from ssl_gen.types import BEFORE, Array, Key, Method, State, UserError

BATCH = 500  # images a call
SAMPLES_PER_CLASS = 100  # for the metrics of generation; ours


class Tools(NamedTuple):
    """A method's functions, compiled."""

    method: Method
    classify: Callable[[State, Array], Array] | None
    sample: Callable[[State, Key, Array], Array] | None


class Subject(NamedTuple):
    """One replica and the data it is measured on; the costly parts are made once."""

    tools: Tools
    state: State
    dataset: Dataset
    log_probabilities: np.ndarray | None  # (T, K) of the test images
    samples: np.ndarray | None  # (K * SAMPLES_PER_CLASS, H, W, C) uint8
    asked: np.ndarray | None  # (K * SAMPLES_PER_CLASS,) the classes asked for
    judge: Callable[[], object]  # the independent classifier, trained at the first call


class Metric(NamedTuple):
    """One measurement: what it says, what a method must be able to do, and how it is made."""

    meaning: str
    needs: tuple[str, ...]
    measure: Callable[[Subject], float]


def compiled(method: Method) -> Tools:
    """The functions of a method, ready for many calls."""

    def classify(state: State, images: Array) -> Array:
        return method.classify(state, images.astype(jnp.float32) / 127.5 - 1)

    def sample(state: State, key: Key, labels: Array) -> Array:
        return jnp.round((method.sample(state, key, labels) + 1) * 127.5).astype(jnp.uint8)

    return Tools(method, method.classify and jax.jit(classify), method.sample and jax.jit(sample))


def in_batches(count: int) -> Iterator[tuple[np.ndarray, int]]:
    """Indices (BATCH,) that cover 0 .. count - 1, the last one repeated to fill up, and how many are new."""
    for start in range(0, count, BATCH):
        yield np.minimum(np.arange(start, start + BATCH), count - 1), min(BATCH, count - start)


def probabilities(tools: Tools, state: State, images: np.ndarray) -> np.ndarray:
    """Log-probabilities (B, K) of images (B, H, W, C) uint8. Raises UserError for a method without a classifier."""
    if tools.classify is None:
        raise UserError("this method has no classifier: `ssl-gen list methods` says what each one can do")
    parts = [np.asarray(tools.classify(state, images[rows]))[:new] for rows, new in in_batches(len(images))]
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def draw(tools: Tools, state: State, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """One image (H, W, C) uint8 for each of labels (B,). Raises UserError for a method without a generator."""
    if tools.sample is None:
        raise UserError("this method has no generator: `ssl-gen list methods` says what each one can do")
    labels, parts = np.asarray(labels, np.int32), []
    for rows, new in in_batches(len(labels)):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), BEFORE - 1), rows[0])
        parts.append(np.asarray(tools.sample(state, key, labels[rows]))[:new])
    return np.concatenate(parts)


def deviation_ratio(subject: Subject) -> float:
    """Within-class deviation of the samples over that of the real training images."""
    classes = subject.dataset.spec.classes
    real = diversity.within_class_deviation(subject.dataset.train_images, subject.dataset.train_labels, classes)
    return diversity.within_class_deviation(subject.samples, subject.asked, classes) / real


METRICS = {
    "error": Metric(
        "test error, percent",
        ("classify",),
        lambda s: classification.error(s.log_probabilities, s.dataset.test_labels),
    ),
    "nll": Metric(
        "negative log-likelihood of the test labels, nats",
        ("classify",),
        lambda s: classification.negative_log_likelihood(s.log_probabilities, s.dataset.test_labels),
    ),
    "agreement_svc": Metric(
        "percent of 100 samples a class in which an SVC trained on all labels sees the class asked for",
        ("sample", "conditional"),
        lambda s: agreement.agreement(s.judge(), s.samples, s.asked),
    ),
    "deviation_ratio": Metric(
        "within-class pixel deviation of 100 samples a class over that of real training images",
        ("sample", "conditional"),
        deviation_ratio,
    ),
}


def applicable(method: Method, names: tuple[str, ...] = ()) -> list[str]:
    """The metrics a method can be measured by, all or those named. Raises UserError for one it cannot."""
    possible = [name for name, metric in METRICS.items() if all(getattr(method, need) for need in metric.needs)]
    for name in names:
        if name not in possible:
            raise UserError(f"metric {name} does not apply to this method; these do: {', '.join(possible)}")
    return list(names) or possible


def measure(
    tools: Tools, state: State, dataset: Dataset, judge: Callable[[], object], names: list[str], seed: int
) -> dict[str, float]:
    """The named metrics of one replica; samples are drawn with `seed`."""
    needs = {need for name in names for need in METRICS[name].needs}
    asked = np.repeat(np.arange(dataset.spec.classes), SAMPLES_PER_CLASS) if "sample" in needs else None
    subject = Subject(
        tools,
        state,
        dataset,
        probabilities(tools, state, dataset.test_images) if "classify" in needs else None,
        None if asked is None else draw(tools, state, asked, seed),
        asked,
        judge,
    )
    return {name: METRICS[name].measure(subject) for name in names}
