"""What a metric is: a measurement of one trained replica, and what its numbers mean.

A metric is one file of this folder, arrays in and numbers out, with a `Metric` at its end, and one line in `registry`.
It knows nothing of models: what it needs of one it asks of `Evaluated`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np


class Number(NamedTuple):
    """What tables and figures must know of one number."""

    unit: str = ""  # "%", "nats", "dB", ...
    better: Literal["lower", "higher", "neither"] = "neither"
    short: str = ""  # over a figure and in its file's name; "": the full name
    decimals: int | None = None  # None: three significant digits
    column: int | None = None  # place among the usual columns of `ssl-gen compare`; None: where it is asked for
    from_zero: bool = False  # is its axis to begin at 0?


class Metric(NamedTuple):
    """One measurement of a replica, or several made together."""

    meaning: str
    needs: tuple[str, ...]  # abilities of the method; `classes`: an extractor that knows them;
    # `out_of_distribution`: images of no class
    measure: Callable[[Evaluated], dict[str, float]]  # full name -> value
    numbers: dict[str, Number]  # by name, without what follows it in a full name
    usual: bool = True  # made at the end of every run; else by `ssl-gen evaluate --metrics`


class Evaluated(Protocol):
    """One replica under measurement. What is costly is made at its first use, once; images are uint8 (B, H, W, C)."""

    @property
    def seed(self) -> int:
        """Of the replica and of its samples."""

    @property
    def classes(self) -> int:
        """K."""

    @property
    def visible(self) -> np.ndarray:
        """(N,) int32: the replica's label mask over the training images, negative where hidden."""

    @property
    def pool(self) -> np.ndarray:
        """(M,) int32: the rows of its unlabelled pool, which may hold labelled images and need not hold all others."""

    @property
    def train_images(self) -> np.ndarray:
        """(N, H, W, C)."""

    @property
    def train_labels(self) -> np.ndarray:
        """(N,) true classes."""

    @property
    def test_images(self) -> np.ndarray:
        """(T, H, W, C)."""

    @property
    def test_labels(self) -> np.ndarray:
        """(T,)."""

    @property
    def log_probabilities(self) -> np.ndarray:
        """(T, K) of the test images."""

    @property
    def first_log_probabilities(self) -> np.ndarray:
        """(T, K) of the test images, by the classifier before its last phase."""

    @property
    def out_of_distribution_log_probabilities(self) -> np.ndarray:
        """(M, K) of images that belong to no class."""

    @property
    def few(self) -> np.ndarray:
        """(100 K, H, W, C): a hundred samples a class."""

    @property
    def few_labels(self) -> np.ndarray:
        """(100 K,) the classes asked for, in `few`."""

    @property
    def many(self) -> np.ndarray:
        """(n, H, W, C): the samples whose features are compared."""

    @property
    def many_labels(self) -> np.ndarray:
        """(n,) the classes asked for, in `many`: each as often as the others."""

    @property
    def features(self) -> np.ndarray:
        """(n, F) of `many`."""

    @property
    def extractor_log_probabilities(self) -> np.ndarray:
        """(n, K) that the extractor gives `many`."""

    @property
    def split(self) -> str:
        """Where the real images that samples are compared with come from: test, or, without one, train."""

    @property
    def reference_features(self) -> np.ndarray:
        """(R, F) of the real images that samples are compared with."""

    @property
    def reference_labels(self) -> np.ndarray:
        """(R,) their classes."""

    @property
    def reference_gaussian(self) -> Any:
        """`frechet.Gaussian` of `reference_features`."""

    @property
    def train_features(self) -> np.ndarray:
        """(N, F) of the training images."""

    @property
    def judge(self) -> Any:
        """An independent classifier of pixels, trained on all labels: see `agreement.judge`."""

    @property
    def judge_accuracy(self) -> float | None:
        """Percent of test images that the judge classifies rightly; None without test images."""

    @property
    def extractor_accuracy(self) -> float | None:
        """Percent of test images that the extractor classifies rightly; None without test images."""

    @property
    def reconstructions(self) -> np.ndarray:
        """(T, H, W, C): the test images, encoded and decoded; a conditional decoder is told the method's own guess."""

    def impute(self, images: np.ndarray, hidden: np.ndarray, start: np.ndarray, passes: int) -> np.ndarray:
        """Images (B, H, W, C) in [-1, 1] whose `hidden` pixels begin as those of `start` and are decoded anew.

        The others stay; start (H, W, C); all float32.
        """

    def log_weights(self, draws: int) -> Iterator[np.ndarray]:
        """Log importance weights of the test images, chunks of draws of latents (up to 10, T) nats."""

    def proxy_log_probabilities(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(T, K) of the test images, by a convnet trained on images (B, H, W, C) with labels (B,) alone."""

    def on_features(self, name: str, compared: bool = True, count: int | None = None) -> str:
        """The full name of a number from features, `compared` with those of real images or not: it carries the
        extractor, the real images and the `count` of what was looked at, by default the number of samples."""
