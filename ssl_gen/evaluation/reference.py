"""What the replicas of a run are measured against."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ssl_gen.core.files import read_hashed, say_once, write_hashed
from ssl_gen.core.machine import cache_folder
from ssl_gen.core.precision import arithmetic
from ssl_gen.datasets.dataset import Dataset
from ssl_gen.datasets.store import Store
from ssl_gen.evaluation.features import Extractor
from ssl_gen.evaluation.inference import Compiled, mapped
from ssl_gen.metrics import agreement, frechet
from ssl_gen.types import State, able

FEWEST, MOST = 1_000, 10_000  # samples whose features are compared, where not asked for otherwise; ours


UNKEPT: dict[str, np.ndarray] = {}  # features that could not be written to the disk


def cached_features(extractor: Extractor, store: Store) -> np.ndarray:
    """Features (N, F) of real images, kept on disk under a hash of all that they depend on.

    That is the images, the extractor's name, and the backend and precision of products. Where they cannot be kept there
    they are kept in memory, and what is broken there is made again.
    """
    digest = hashlib.sha256(f"{extractor.name} {(len(store), *store.shape)} {arithmetic()}".encode())
    for block in store.blocks():
        digest.update(np.ascontiguousarray(block).data)
    key, folder = digest.hexdigest(), cache_folder()
    if key in UNKEPT:
        return UNKEPT[key]
    path = folder and folder / "references" / f"{key}.npy"
    kept = path and read_hashed(path)
    if kept:
        return np.load(io.BytesIO(kept))
    features = np.concatenate([mapped(extractor.features, block) for block in store.blocks()])
    if path is None or not written(path, features):
        UNKEPT[key] = features
    return features


def written(path: Path, features: np.ndarray) -> bool:
    """Write an array and its hash; False where there is no room for it, or no right."""
    encoded = io.BytesIO()
    np.save(encoded, features)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_hashed(path, encoded.getvalue())
    except OSError as error:
        say_once(
            f"cannot write {path.parent}: {error.strerror}; features of real images stay in memory; "
            "set XDG_CACHE_HOME to a folder of yours"
        )
        return False
    return True


@dataclasses.dataclass(frozen=True)
class Reference:
    """What every replica is measured against; the costly parts are made at their first use, once."""

    dataset: Dataset
    extractor: Extractor
    fit: Callable[[np.ndarray, np.ndarray], tuple[Compiled, State]]  # images, labels -> a classifier trained on them
    out_of_distribution: np.ndarray | None = None  # (M, H, W, C) uint8, images of no class
    samples: int | None = None  # whose features are compared

    @property
    def split(self) -> str:
        """Where the real images come from: the test split, or, of a data set without one, the training split."""
        return "test" if len(self.dataset.test_labels) else "train"

    @property
    def images(self) -> np.ndarray:
        """(R, H, W, C) uint8, the real images that samples are compared with."""
        return self.dataset.test_images if self.split == "test" else self.dataset.train_images

    @property
    def labels(self) -> np.ndarray:
        """(R,) their classes."""
        return self.dataset.test_labels if self.split == "test" else self.dataset.train_labels

    @property
    def count(self) -> int:
        """Samples whose features are compared, a multiple of the number of classes."""
        classes = self.dataset.spec.classes
        wanted = self.samples or min(max(len(self.labels), FEWEST), MOST)
        return max(wanted - wanted % classes, classes)

    @functools.cached_property
    def features(self) -> np.ndarray:
        """(R, F) of the real images."""
        return cached_features(self.extractor, Store(self.images))

    @functools.cached_property
    def train_features(self) -> np.ndarray:
        """(N, F) of the training images."""
        return cached_features(self.extractor, Store(self.dataset.train_images))

    @functools.cached_property
    def gaussian(self) -> frechet.Gaussian:
        """Of the real images' features."""
        return frechet.gaussian([self.features])

    @functools.cached_property
    def judge(self) -> Any:
        """The independent classifier of pixels."""
        return agreement.judge(self.dataset.train_images, self.dataset.train_labels)

    @functools.cached_property
    def judge_accuracy(self) -> float | None:
        """Percent of test images that the judge classifies rightly; None without test images."""
        images, labels = self.dataset.test_images, self.dataset.test_labels
        return agreement.agreement(self.judge, images, labels) if len(labels) else None

    @functools.cached_property
    def extractor_accuracy(self) -> float | None:
        """Percent of test images that the extractor classifies rightly; None without test images."""
        images, labels = self.dataset.test_images, self.dataset.test_labels
        if not len(labels):
            return None
        return float(100 * (mapped(able(self.extractor.classify), images).argmax(-1) == labels).mean())
