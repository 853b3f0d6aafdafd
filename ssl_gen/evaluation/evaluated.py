"""One replica under measurement, and the metrics of all of them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_gen.core import failures
from ssl_gen.core.compiling import jit_inference
from ssl_gen.core.machine import cores
from ssl_gen.evaluation import densities
from ssl_gen.evaluation.inference import (
    Compiled,
    compiled,
    draw_samples,
    encoded_and_decoded,
    everywhere,
    log_weights,
    mapped,
    probabilities,
)
from ssl_gen.evaluation.reference import Reference
from ssl_gen.metrics import frechet, imputation, registry
from ssl_gen.metrics.metric import Metric
from ssl_gen.types import Array, Method, State, UserError, able

SAMPLES_PER_CLASS = 100  # that the judge and the deviation see; ours
THREADS = 8  # replicas measured at a time at most: each may hold a few blocks of distances; ours


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """One replica under measurement, see `metrics.metric`; the costly parts are made at their first use, once."""

    compiled: Compiled
    state: State
    reference: Reference
    visible: np.ndarray  # (N,) int32, the replica's label mask
    pool: np.ndarray  # (M,) int32, rows of its unlabelled pool
    seed: int  # of the replica and of its samples
    sampler: Any = None  # how samples are drawn; None: the method's own

    @property
    def classes(self) -> int:
        return self.reference.dataset.spec.classes

    @property
    def train_images(self) -> np.ndarray:
        return self.reference.dataset.train_images

    @property
    def train_labels(self) -> np.ndarray:
        return self.reference.dataset.train_labels

    @property
    def test_images(self) -> np.ndarray:
        return self.reference.dataset.test_images

    @property
    def test_labels(self) -> np.ndarray:
        return self.reference.dataset.test_labels

    @functools.cached_property
    def log_probabilities(self) -> np.ndarray:
        return probabilities(self.compiled, self.state, self.test_images)

    @functools.cached_property
    def first_log_probabilities(self) -> np.ndarray:
        method = self.compiled.method
        return probabilities(compiled(method._replace(classify=method.classify_first)), self.state, self.test_images)

    @functools.cached_property
    def out_of_distribution_log_probabilities(self) -> np.ndarray:
        return probabilities(self.compiled, self.state, able(self.reference.out_of_distribution))

    @functools.cached_property
    def drawing(self) -> State:
        """The state that samples are drawn from."""

        def shown() -> np.ndarray:
            return self.train_images[densities.shown_rows(self.visible, self.pool)]

        return densities.prepared(self.compiled, self.state, self.sampler, shown)

    @property
    def few_labels(self) -> np.ndarray:
        return np.repeat(np.arange(self.classes), SAMPLES_PER_CLASS)

    @functools.cached_property
    def few(self) -> np.ndarray:
        return draw_samples(self.compiled, self.drawing, self.few_labels, self.seed, self.sampler)

    @property
    def many_labels(self) -> np.ndarray:
        return np.arange(self.reference.count) % self.classes

    @functools.cached_property
    def many(self) -> np.ndarray:
        return draw_samples(self.compiled, self.drawing, self.many_labels, self.seed, self.sampler)

    @functools.cached_property
    def features(self) -> np.ndarray:
        return mapped(self.reference.extractor.features, self.many)

    @functools.cached_property
    def extractor_log_probabilities(self) -> np.ndarray:
        return mapped(able(self.reference.extractor.classify), self.many)

    @property
    def split(self) -> str:
        return self.reference.split

    @property
    def reference_features(self) -> np.ndarray:
        return self.reference.features

    @property
    def reference_labels(self) -> np.ndarray:
        return self.reference.labels

    @property
    def reference_gaussian(self) -> frechet.Gaussian:
        return self.reference.gaussian

    @property
    def train_features(self) -> np.ndarray:
        return self.reference.train_features

    @property
    def judge(self) -> Any:
        return self.reference.judge

    @property
    def judge_accuracy(self) -> float | None:
        return self.reference.judge_accuracy

    @property
    def extractor_accuracy(self) -> float | None:
        return self.reference.extractor_accuracy

    @functools.cached_property
    def reconstructions(self) -> np.ndarray:
        reconstruct = functools.partial(able(self.compiled.reconstruct), everywhere(self.state))
        return mapped(reconstruct, self.test_images)

    def impute(self, images: np.ndarray, hidden: np.ndarray, start: np.ndarray, passes: int) -> np.ndarray:
        state, again = everywhere(self.state), decoding_again(self.compiled.method)

        def decoded(images: Array, hidden: Array) -> Array:
            images = imputation.filled(images, hidden, jnp.asarray(start))
            for _ in range(passes):
                images = again(state, images, hidden)
            return images

        return mapped(decoded, images, hidden)

    def log_weights(self, draws: int) -> Iterator[np.ndarray]:
        return log_weights(self.compiled, self.state, self.test_images, draws, self.seed)

    def proxy_log_probabilities(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return probabilities(*self.reference.fit(images, labels), self.test_images)

    def on_features(self, name: str, compared: bool = True, count: int | None = None) -> str:
        reference = self.reference
        made = f"_ref={reference.split}" if compared else ""
        return f"{name}_{reference.extractor.name}{made}_n={reference.count if count is None else count}"


@functools.cache
def decoding_again(method: Method) -> Callable[[State, Array, Array], Array]:
    """One pass of imputation, compiled: (state, images in [-1, 1], hidden) -> images."""

    def again(state: State, images: Array, hidden: Array) -> Array:
        decoded = encoded_and_decoded(method, state, images)
        return imputation.filled(images, hidden, jnp.clip(decoded, -1, 1))

    return jit_inference(again)


def abilities(method: Method, reference: Reference) -> dict[str, bool]:
    """What a metric may need, and whether this method and what it is measured against have it."""
    able = {need: bool(getattr(method, need)) for need in method._fields}
    return able | {
        "classes": reference.extractor.classify is not None,
        "out_of_distribution": reference.out_of_distribution is not None,
    }


def averaged(state: State) -> list[str]:
    """The players of a state that are measured at their EMA."""
    return [name for name, part in state._asdict().items() if hasattr(part, "ema") and jax.tree.leaves(part.ema)]


def at_a_time() -> int:
    """Replicas to measure side by side: most metrics are numpy's work on the host, and use one core."""
    return min(cores(), THREADS) if jax.local_device_count() == 1 else 1  # programs that share devices can starve


def settings_suffix(sampler: Any, default: Any) -> str:
    """What follows the name of a metric of samples that are drawn with other than the default settings."""
    changed = {
        field.name: getattr(sampler, field.name)
        for field in dataclasses.fields(sampler)
        if getattr(sampler, field.name) != getattr(default, field.name)
    }
    return "".join(
        f"_{name}={value:g}" if isinstance(value, float) else f"_{name}={value}" for name, value in changed.items()
    )


def measured(metric: Metric, evaluated: Evaluated) -> dict[str, float]:
    """The numbers of one metric by full name, which says so where samples were not drawn by the default settings."""
    values = metric.measure(evaluated)
    if evaluated.sampler is None or "sample" not in metric.needs:
        return values
    suffix = settings_suffix(evaluated.sampler, evaluated.compiled.method.sampler)
    return {f"{name}{suffix}": value for name, value in values.items()}


def attempted(metric: Metric, evaluated: Evaluated) -> tuple[dict[str, float], str]:
    """The finite numbers of one metric by full name, and why not all of them could be measured, "" where they were."""
    try:
        values = measured(metric, evaluated)
    except Exception as error:  # of numpy, scikit-learn, XLA on data that nobody thought of: one metric, not a run
        return {}, failures.reason(error)
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    return finite, ", ".join(f"{name} came out as {values[name]}" for name in values if name not in finite)


def measure(
    names: Sequence[str],
    evaluated: Mapping[int, Evaluated],
    seeds: Sequence[int],
    unmeasured: dict[str, str] | None = None,
    metrics: Mapping[str, Metric] = registry.METRICS,
) -> dict[str, list[float | None]]:
    """The named metrics of all replicas, {full name: a value for each of seeds, None for those that stopped}.

    A metric that cannot be had (too few samples, whatever error) or comes out as no finite number raises UserError;
    where `unmeasured` is given, its reason is noted there and the others are measured, so that a long run keeps what
    it has.
    """

    def one(item: tuple[int, Evaluated]) -> tuple[dict[str, float], dict[str, str]]:
        values: dict[str, float] = {}
        reasons: dict[str, str] = {}
        for name in names:
            found, reason = attempted(metrics[name], item[1])
            values |= found
            if reason and unmeasured is None:
                raise UserError(f"{name} could not be measured: seed {item[0]}: {reason}")
            if reason:
                reasons[name] = f"seed {item[0]}: {reason}"
        return values, reasons

    items = list(evaluated.items())
    results = [one(item) for item in items[:1]]  # makes what all share
    with ThreadPoolExecutor(at_a_time()) as pool:
        results += pool.map(one, items[1:])
    found: dict[int, dict[str, float]] = {seed: {} for seed in seeds}
    found |= {seed: values for seed, (values, _) in zip(evaluated, results, strict=True)}
    for _, reasons in results:
        if unmeasured is not None:
            unmeasured |= reasons
    full = dict.fromkeys(name for values in found.values() for name in values)
    return {name: [found[seed].get(name) for seed in seeds] for name in full}
