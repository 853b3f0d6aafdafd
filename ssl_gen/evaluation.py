"""A state -> images, probabilities, features, {metric: value}; what a method cannot do is left out, never zero.

Everything runs in batches of one fixed size, divided over this process's devices, so each function of a method is
compiled once and the devices share the work.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssl_gen.datasets.dataset import Dataset
from ssl_gen.features import Extractor
from ssl_gen.metrics import agreement, frechet
from ssl_gen.training.devices import cache_folder
from ssl_gen.training.placements import cores, largest_divisor
from ssl_gen.types import BEFORE, Array, Key, Method, State, Tree, UserError

BATCH = 500  # images a call
DRAWS = 10  # of latents a call
SAMPLES_PER_CLASS = 100  # that the judge and the deviation see; ours
THREADS = 8  # replicas measured at a time at most: each may hold a few blocks of distances; ours
FEWEST, MOST = 1_000, 10_000  # samples whose features are compared, where not asked for otherwise; ours


class Tools(NamedTuple):
    """A method's functions, compiled."""

    method: Method
    classify: Callable[[State, Array], Array] | None
    sample: Callable[[State, Key, Array], Array] | None
    reconstruct: Callable[[State, Array, Array], Array] | None  # images (B, H, W, C) uint8, labels (B,) -> the same
    log_weights: Callable[[State, Array, Array], Array] | None  # keys (DRAWS,), images (B, H, W, C) -> (DRAWS, B)


def scaled(images: Array) -> Array:
    """uint8 -> float32 in [-1, 1], on the host or inside jit."""
    return images.astype(jnp.float32) / 127.5 - 1


def pixels(images: Array) -> Array:
    """[-1, 1] -> uint8."""
    return jnp.round((images + 1) * 127.5).astype(jnp.uint8)


def sampling_key(seed: int | Array, row: int) -> Key:
    """The key of the batch of samples that begins with number `row`, of the noise `seed`."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), BEFORE - 1), row)


def compiled(method: Method) -> Tools:
    """The functions of a method, ready for many calls, on uint8 images."""

    def classify(state: State, images: Array) -> Array:
        return method.classify(state, scaled(images))

    def sample(state: State, key: Key, labels: Array) -> Array:
        return pixels(method.sample(state, key, labels))

    def reconstruct(state: State, images: Array, labels: Array) -> Array:
        return pixels(method.decode(state, method.encode(state, scaled(images)), labels))

    def log_weights(state: State, keys: Array, images: Array) -> Array:  # vmap: encoded once for all draws
        return jax.vmap(method.log_weight, (None, 0, None))(state, keys, scaled(images))

    return Tools(
        method,
        method.classify and jax.jit(classify),
        method.sample and jax.jit(sample),
        jax.jit(reconstruct) if method.encode and method.decode else None,
        method.log_weight and jax.jit(log_weights),
    )


def in_batches(count: int) -> Iterator[tuple[np.ndarray, int]]:
    """Indices (BATCH,) that cover 0 .. count - 1, the last one repeated to fill up, and how many are new."""
    for start in range(0, count, BATCH):
        yield np.minimum(np.arange(start, start + BATCH), count - 1), min(BATCH, count - start)


def shared(batch: np.ndarray) -> Array:
    """A batch, divided over as many of this process's devices as divide it."""
    return jax.device_put(batch, placement(PartitionSpec("data")))


def everywhere(tree: Tree) -> Tree:
    """A copy of a state on every device that `shared` uses."""
    return jax.device_put(tree, placement(PartitionSpec()))


def placement(spec: PartitionSpec) -> NamedSharding:
    """Where something lies on this process's devices."""
    devices = jax.local_devices()
    return NamedSharding(Mesh(np.array(devices[: largest_divisor(BATCH, len(devices))]), ("data",)), spec)


def mapped(function: Callable[..., Array], *arrays: np.ndarray) -> np.ndarray:
    """function on arrays (N, ...), a batch at a time -> (N, ...)."""
    parts = [
        np.asarray(function(*(shared(array[rows]) for array in arrays)))[:new]
        for rows, new in in_batches(len(arrays[0]))
    ]
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def probabilities(tools: Tools, state: State, images: np.ndarray) -> np.ndarray:
    """Log-probabilities (B, K) of images (B, H, W, C) uint8. Raises UserError for a method without a classifier."""
    if tools.classify is None:
        raise UserError("this method has no classifier: `ssl-gen list methods` says what each one can do")
    return mapped(functools.partial(tools.classify, everywhere(state)), images)


def draw(tools: Tools, state: State, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """One image (H, W, C) uint8 for each of labels (B,). Raises UserError for a method without a generator."""
    if tools.sample is None:
        raise UserError("this method has no generator: `ssl-gen list methods` says what each one can do")
    state, labels, parts = everywhere(state), np.asarray(labels, np.int32), []
    for rows, new in in_batches(len(labels)):
        key = everywhere(sampling_key(seed, rows[0]))
        parts.append(np.asarray(tools.sample(state, key, shared(labels[rows])))[:new])
    return np.concatenate(parts)


def log_weights(tools: Tools, state: State, images: np.ndarray, samples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Log importance weights of images (B, H, W, C) uint8 in chunks of draws of latents, (up to DRAWS, B) nats."""
    state, base = everywhere(state), jax.random.fold_in(jax.random.key(seed), BEFORE - 2)

    @jax.jit
    def keys(first: int, row: int) -> Array:
        return jax.vmap(lambda draw: jax.random.fold_in(jax.random.fold_in(base, draw), row))(first + jnp.arange(DRAWS))

    for first in range(0, samples, DRAWS):
        parts = [
            np.asarray(tools.log_weights(state, everywhere(keys(first, rows[0])), shared(images[rows])))[:, :new]
            for rows, new in in_batches(len(images))
        ]
        yield np.concatenate(parts, 1)[: samples - first]


def remembered(extractor: Extractor, images: np.ndarray) -> np.ndarray:
    """Features (N, F) of real images, kept on disk under a hash of the images and the extractor's name."""
    digest = hashlib.sha256(f"{extractor.name} {images.shape}".encode())
    digest.update(np.ascontiguousarray(images))
    path = cache_folder() / "references" / f"{digest.hexdigest()}.npy"
    if path.exists():
        return np.load(path)
    features = mapped(extractor.features, images)
    beside = path.with_name(f"{path.name}.{os.getpid()}.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(beside, features)
        os.replace(beside, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; set XDG_CACHE_HOME to a folder of yours") from error
    return features


@dataclasses.dataclass(frozen=True)
class Reference:
    """What every replica is measured against; the costly parts are made at their first use, once."""

    dataset: Dataset
    extractor: Extractor
    fit: Callable[[np.ndarray, np.ndarray], tuple[Tools, State]]  # images, labels -> a classifier trained on them
    foreign: np.ndarray | None = None  # (M, H, W, C) uint8, images of no class
    samples: int | None = None  # whose features are compared

    @property
    def split(self) -> str:
        """Where the real images come from: the test split, or, of a data set without one, the training split."""
        return "test" if len(self.dataset.test_labels) else "train"

    @property
    def labels(self) -> np.ndarray:
        """(R,) classes of the real images."""
        return getattr(self.dataset, f"{self.split}_labels")

    @property
    def count(self) -> int:
        """Samples whose features are compared, a multiple of the number of classes."""
        classes = self.dataset.spec.classes
        wanted = self.samples or min(max(len(self.labels), FEWEST), MOST)
        return max(wanted - wanted % classes, classes)

    @functools.cached_property
    def features(self) -> np.ndarray:
        """(R, F) of the real images."""
        return remembered(self.extractor, getattr(self.dataset, f"{self.split}_images"))

    @functools.cached_property
    def train_features(self) -> np.ndarray:
        """(N, F) of the training images."""
        return remembered(self.extractor, self.dataset.train_images)

    @functools.cached_property
    def gaussian(self) -> frechet.Gaussian:
        """Of the real images' features."""
        return frechet.gaussian([self.features])

    @functools.cached_property
    def judge(self) -> Any:
        """The independent classifier of pixels."""
        return agreement.judge(self.dataset.train_images, self.dataset.train_labels)


@dataclasses.dataclass(frozen=True)
class Subject:
    """One replica under measurement; the costly parts are made at their first use, once."""

    tools: Tools
    state: State
    reference: Reference
    visible: np.ndarray  # (N,) int32, the replica's label mask
    seed: int  # of its samples

    @functools.cached_property
    def log_probabilities(self) -> np.ndarray:
        """(T, K) of the test images."""
        return probabilities(self.tools, self.state, self.reference.dataset.test_images)

    @property
    def asked(self) -> np.ndarray:
        """(100 K,) the classes asked for, in `few`."""
        return np.repeat(np.arange(self.reference.dataset.spec.classes), SAMPLES_PER_CLASS)

    @functools.cached_property
    def few(self) -> np.ndarray:
        """(100 K, H, W, C) uint8, a hundred samples a class."""
        return draw(self.tools, self.state, self.asked, self.seed)

    @property
    def many_asked(self) -> np.ndarray:
        """(n,) the classes asked for, in `many`: each as often as the others."""
        return np.arange(self.reference.count) % self.reference.dataset.spec.classes

    @functools.cached_property
    def many(self) -> np.ndarray:
        """(n, H, W, C) uint8, the samples whose features are compared."""
        return draw(self.tools, self.state, self.many_asked, self.seed)

    @functools.cached_property
    def features(self) -> np.ndarray:
        """(n, F) of `many`."""
        return mapped(self.reference.extractor.features, self.many)

    @functools.cached_property
    def seen(self) -> np.ndarray:
        """(n, K) log-probabilities that the extractor gives `many`."""
        return mapped(self.reference.extractor.classify, self.many)


def averaged(state: State) -> list[str]:
    """The players of a state that are measured at the running mean of their params."""
    return [name for name, part in state._asdict().items() if hasattr(part, "ema") and jax.tree.leaves(part.ema)]


def at_a_time() -> int:
    """Replicas to measure side by side: most metrics are numpy's work on the host, and use one core."""
    return min(cores(), THREADS) if jax.local_device_count() == 1 else 1  # programs that share devices can starve


def measure(
    names: Sequence[str],
    measures: Mapping[str, Callable[[Subject], dict[str, float]]],
    subjects: Mapping[int, Subject],
    seeds: Sequence[int],
    unmeasured: dict[str, str] | None = None,
) -> dict[str, list[float | None]]:
    """The named metrics of all replicas, {full name: a value for each of seeds, None for those that stopped}.

    A metric that cannot be had (too few samples, a broken cache) raises UserError; where `unmeasured` is given, its
    reason is noted there and the others are measured, so that a long run keeps what it has.
    """

    def one(item: tuple[int, Subject]) -> tuple[dict[str, float], dict[str, str]]:
        values, reasons = {}, {}
        for name in names:
            try:
                values |= measures[name](item[1])
            except UserError as error:
                if unmeasured is None:
                    raise
                reasons[name] = f"seed {item[0]}: {error}"
        return values, reasons

    items = list(subjects.items())
    results = [one(item) for item in items[:1]]  # makes what all share
    with ThreadPoolExecutor(at_a_time()) as pool:
        results += pool.map(one, items[1:])
    found = {seed: {} for seed in seeds} | {seed: values for seed, (values, _) in zip(subjects, results, strict=True)}
    for _, reasons in results:
        if unmeasured is not None:
            unmeasured |= reasons
    full = dict.fromkeys(name for values in found.values() for name in values)
    return {name: [found[seed].get(name) for seed in seeds] for name in full}
