"""Which images to label next: the most typical while there are few labels, then the least certain and most diverse.

Typical images, "TypiClust" (Hacohen, Dekel and Weinshall 2022, arXiv:2202.02794, sec. 3): as many clusters as there
will be labels, those without a label first, the largest of them first, and of each the image in the densest place,

    typicality(x) = 1 / mean of |x - x'| over its 20 nearest in its cluster

Uncertain images, "BADGE" (Ash et al. 2020, arXiv:1906.03671, algorithm 1): the gradient of the loss of an image by the
last layer, as if the favourite class were right, is long where the classifier is unsure,

    g(x) = (p(y | x) - e_favourite) (h(x), 1)^T

and k-means++ on g draws images that are long and apart. The paper's h are the classifier's own last features; here they
are any features, centred and scaled to a mean square length of 1.
"""

from __future__ import annotations

import numpy as np

from ssl_gen.types import UserError

NEAREST, SMALLEST = 20, 5  # images of a typicality; of a cluster, below which it is passed over: official code
MOST_CLUSTERS = 500  # official code
WHOLE = 50  # clusters, above which k-means sees batches: official code
BATCH = 5_000  # official code


def typicality(features: np.ndarray, nearest: int) -> np.ndarray:
    """features (N, F), 1 <= nearest < N -> (N,): one over the mean distance to so many others, infinite at copies."""
    from sklearn.neighbors import NearestNeighbors

    distances, _ = NearestNeighbors(n_neighbors=nearest).fit(features).kneighbors()
    with np.errstate(divide="ignore"):
        return 1 / distances.mean(1)


def most_typical(features: np.ndarray) -> int:
    """features (N, F) of one cluster -> the row in its densest place."""
    nearest = min(NEAREST, len(features) // 2)
    return int(typicality(features, nearest).argmax()) if nearest else 0


def clusters(features: np.ndarray, count: int, seed: int) -> np.ndarray:
    """features (N, F) -> (N,), the number of each one's cluster."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    if count <= WHOLE:
        return KMeans(count, n_init=1, random_state=seed).fit_predict(features)
    return MiniBatchKMeans(count, batch_size=BATCH, n_init=3, random_state=seed).fit_predict(features)


def typical_rows(features: np.ndarray, labelled: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """features (N, F), labelled (N,) bool -> the `count` rows to label next, the first first.

    Raises UserError where fewer are unlabelled.
    """
    check_enough(labelled, count)
    features, free = np.asarray(features, np.float32).reshape(len(features), -1), ~labelled
    of = clusters(features, min(labelled.sum() + count, MOST_CLUSTERS, len(np.unique(features, axis=0))), seed)
    sizes, known = np.bincount(of), np.bincount(of[labelled], minlength=of.max() + 1)
    least = min(SMALLEST, len(of) / len(sizes) / 2)  # ours: the half of a mean cluster, of few images
    order = np.lexsort((-sizes, known))
    chosen: list[int] = []
    while len(chosen) < count:
        left = order[np.bincount(of[free], minlength=len(sizes))[order] > 0]
        large = left[sizes[left] >= least]
        for cluster in (large if len(large) else left)[: count - len(chosen)]:
            rows = np.flatnonzero((of == cluster) & free)
            chosen.append(rows[most_typical(features[rows])])
            free[chosen[-1]] = False
    return np.array(chosen)


def last_layer(features: np.ndarray) -> np.ndarray:
    """features (N, F) -> (N, F + 1): centred, of mean square length 1, and the 1 of the bias."""
    centred = np.asarray(features, np.float64).reshape(len(features), -1)
    centred = centred - centred.mean(0)
    length = np.sqrt(np.square(centred).sum(1).mean())
    return np.column_stack([centred / (length if length > 0 else 1.0), np.ones(len(centred))])


def uncertain_rows(
    probabilities: np.ndarray, features: np.ndarray, labelled: np.ndarray, count: int, seed: int = 0
) -> np.ndarray:
    """probabilities (N, K), features (N, F), labelled (N,) bool -> the `count` rows to label next, the first first.

    The longest gradient comes first; where no other is left, the least certain follow. Raises UserError where fewer are
    unlabelled.
    """
    check_enough(labelled, count)
    free = np.flatnonzero(~labelled)
    p, h = np.asarray(probabilities, np.float64)[free], last_layer(features)[free]
    errors = p - np.eye(p.shape[1])[p.argmax(1)]
    lengths = np.square(errors).sum(1) * np.square(h).sum(1)

    def to(row: int) -> np.ndarray:
        """Squared distances |g - g_row|^2: outer products need not be made, their products are products of products."""
        return np.maximum(lengths + lengths[row] - 2 * (errors @ errors[row]) * (h @ h[row]), 0)

    random = np.random.default_rng(seed)
    chosen = [int(lengths.argmax())]
    nearest = to(chosen[0])
    while len(chosen) < count:
        nearest[chosen] = 0
        if nearest.sum() > 0:
            row = int(random.choice(len(free), p=nearest / nearest.sum()))
        else:
            sure = p.max(1)
            sure[chosen] = np.inf
            row = int(sure.argmin())
        chosen.append(row)
        nearest = np.minimum(nearest, to(row))
    return free[chosen]


def check_enough(labelled: np.ndarray, count: int) -> None:
    """Raise UserError where fewer than `count` images have no label, or none is asked for."""
    left = int((~labelled).sum())
    if not left:
        raise UserError("every image is labelled already: there is none to label next")
    if not 1 <= count <= left:
        raise UserError(f"{count} images to label are asked for, and {left} have no label: give 1 to {left}")
