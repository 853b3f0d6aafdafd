"""What the replicas of a run are measured against."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ssl_gen.core.machine import cache_folder
from ssl_gen.datasets.dataset import Dataset
from ssl_gen.datasets.store import Store
from ssl_gen.evaluation.features import Extractor
from ssl_gen.evaluation.inference import Compiled, mapped
from ssl_gen.metrics import agreement, frechet
from ssl_gen.types import State, UserError, able

FEWEST, MOST = 1_000, 10_000  # samples whose features are compared, where not asked for otherwise; ours


def cached_features(extractor: Extractor, store: Store) -> np.ndarray:
    """Features (N, F) of real images, kept on disk under a hash of the images and the extractor's name."""
    digest = hashlib.sha256(f"{extractor.name} {(len(store), *store.shape)}".encode())
    for block in store.blocks():
        digest.update(np.ascontiguousarray(block).data)
    path = cache_folder() / "references" / f"{digest.hexdigest()}.npy"
    kept = read_features(path)
    if kept is not None:
        return kept
    features = np.concatenate([mapped(extractor.features, block) for block in store.blocks()])
    beside = path.with_name(f"{path.name}.{os.getpid()}.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(beside, features)
        os.replace(beside, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; set XDG_CACHE_HOME to a folder of yours") from error
    return features


def read_features(path: Path) -> np.ndarray | None:
    """What `cached_features` kept in a file; None where it kept nothing, or the file is broken."""
    try:
        return np.load(path)
    except (OSError, EOFError, ValueError):
        return None


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
