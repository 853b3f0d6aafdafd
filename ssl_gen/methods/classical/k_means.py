"""k-means: clusters of all images, each named by the visible labels in it, or begun from them.

Arthur and Vassilvitskii 2007, "k-means++: The Advantages of Careful Seeding", SODA (seeding "k-means++"); Basu,
Banerjee and Mooney 2002, "Semi-supervised Clustering by Seeding", ICML, its Seeded-KMeans (seeding "labels"). Lloyd's
iteration is scikit-learn's, whose sums on more than two threads may differ by rounding from call to call.

    min_(c, a) sum_i |x_i - c_(a_i)|^2

k-means++: the labels only name clusters. As many clusters as classes: one to one, so that most visible labels are right
(Hungarian matching); more: each by the majority of the labels in it, clusters without one like the nearest that has
one. labels: one cluster a class, begun at the mean of its labelled images, and named so; clusters may wander.

p(y | x) is the sum of p(c | x) over clusters named y, p(c | x) in proportion to exp(-|x - c|^2 / (2 s^2)), s^2 the mean
variance of a feature within clusters: a mixture of round Gaussians, ours. Features are pixels in [-1, 1], or latents,
as they come: nothing is standardised.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from ssl_gen.core.options import choose
from ssl_gen.losses.classification import log_shares
from ssl_gen.types import Array, Images, ImageSpec, Key, Labels, Method, UserError

PAPER = "Arthur and Vassilvitskii 2007, SODA"
Seeding = Literal["k-means++", "labels"]
LEAST = 1e-12  # of s^2, where every cluster is one image, or many that are alike; ours


@dataclasses.dataclass(frozen=True)
class Config:
    seeding: Seeding = "k-means++"  # where centres begin
    clusters: int = 0  # C; 0 stands for one a class
    restarts: int = 10  # of k-means++, the best is kept; ours
    iterations: int = 300  # of Lloyd at most; scikit-learn's default


class State(NamedTuple):
    centres: np.ndarray  # (C, F)
    names: np.ndarray  # (C,) int32, the class of each cluster
    variance: np.float32  # () s^2, of a feature within a cluster


def squared_distances(features: Array | np.ndarray, centres: np.ndarray) -> Array:
    """(B, F), (C, F) -> (B, C)."""
    squares = jnp.square(features).sum(-1)[:, None] + jnp.square(centres).sum(-1) - 2 * features @ centres.T
    return jnp.maximum(squares, 0.0)


def name_clusters(clusters: np.ndarray, labels: np.ndarray, centres: np.ndarray, classes: int) -> np.ndarray:
    """Clusters (L,) and labels (L,) of the labelled images, centres (C, F), C >= K -> the class of each cluster (C,).

    C = K: the one-to-one names under which most labels are right; C > K: majority, see above.
    """
    counts = np.zeros((len(centres), classes), np.int64)
    np.add.at(counts, (clusters, labels), 1)
    if len(centres) == classes:
        return linear_sum_assignment(-counts)[1].astype(np.int32)
    known = np.flatnonzero(counts.sum(1))
    nearest = known[np.asarray(squared_distances(centres, centres[known])).argmin(1)]
    nearest[known] = known
    return counts.argmax(1)[nearest].astype(np.int32)


def class_means(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """features (L, F), labels (L,) -> (K, F). Raises UserError where a class has no label."""
    missing = sorted(set(range(classes)) - set(labels.tolist()))
    if missing:
        raise UserError(f"seeding labels needs a label of every class, class {missing[0]} has none: use k-means++")
    return np.stack([features[labels == label].mean(0) for label in range(classes)])


def make(config: Config, spec: ImageSpec) -> Method:
    """k-means on images of `spec`, or on latents. Raises UserError on settings that do not go together."""
    choose("seeding", config.seeding, get_args(Seeding))
    count = config.clusters or spec.classes
    if count < spec.classes or (config.seeding == "labels" and count != spec.classes):
        least = "exactly" if config.seeding == "labels" else "at least"
        raise UserError(f"clusters is {count}: seeding {config.seeding} takes {least} {spec.classes}, one a class")

    def fit(key: Key, labelled: Images, labels: Labels, unlabelled: Images) -> State:
        from sklearn.cluster import KMeans

        known = labelled.reshape(len(labelled), -1)
        features = np.concatenate([labelled, unlabelled]).reshape(len(labelled) + len(unlabelled), -1)
        if len(features) < count:
            raise UserError(f"{count} clusters of {len(features)} images: choose fewer clusters, or give more images")
        seeded = config.seeding == "labels"
        init, restarts = (class_means(known, labels, count), 1) if seeded else ("k-means++", config.restarts)
        seed = int(jax.random.bits(key))
        found = KMeans(count, init=init, n_init=restarts, max_iter=config.iterations, random_state=seed).fit(features)
        centres = found.cluster_centers_.astype(np.float32)
        names = name_clusters(found.labels_[: len(known)], labels, centres, spec.classes)
        names = np.arange(count, dtype=np.int32) if seeded else names
        return State(centres, names, np.float32(max(found.inertia_ / features.size, LEAST)))

    def classify(state: State, images: Array) -> Array:
        squares = squared_distances(jnp.reshape(images, (len(images), -1)), state.centres)
        parts = jax.nn.softmax(-squares / (2 * state.variance))
        return log_shares(parts @ jax.nn.one_hot(state.names, spec.classes))

    return Method(None, (), classify=classify, fit=fit)
