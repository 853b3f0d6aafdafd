"""Label masks: which labels are visible and which images are in the unlabelled pool, named and hashed.

A mask is a pure function of its arguments. The number of visible labels and the size of the pool depend on the data,
the budget and the scheme but never on the seed, so that seeds can be trained side by side in one array.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ssl_gen.core.wording import count
from ssl_gen.datasets import stratify
from ssl_gen.datasets.dataset import HIDDEN, OUT_OF_DISTRIBUTION
from ssl_gen.datasets.suggesting import typical_rows
from ssl_gen.types import UserError

Kind = Literal["stratified", "uniform", "long_tailed", "typical", "suggested"]
DROPPED = -3  # inside this module: an image that pool_imbalance takes out of training


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How labels are chosen; the parts compose."""

    # labels a class: equal, by chance, decreasing (these look at the labels that they then hide), of typical images, or
    # of those that an earlier run is least sure of (--suggested-by)
    kind: Kind = "stratified"
    imbalance: float = 1.0  # long_tailed: visible labels of the first (most frequent) class over those of the last
    pool_imbalance: float = 1.0  # images of the first class over those of the last, in the whole pool; 1 leaves it
    noise: float = 0.0  # fraction of the visible labels that are replaced by a wrong class, in [0, 1)
    noise_kind: Literal["symmetric", "class_dependent"] = "symmetric"  # wrong class: any other one, or the next
    missing: tuple[int, ...] = ()  # classes with no visible label: numbers, their names where those are, or from 0
    out_of_distribution: float = 0.0  # fraction of the unlabelled pool that belongs to no class, in [0, 1)
    disjoint: bool = False  # keep the labelled images out of the unlabelled pool, which else holds them too
    seed: int | None = None  # of the one mask that all seeds of a run train on; by default each seed has its own

    def seed_of(self, run: int) -> int:
        """The seed of the mask that the seed `run` trains on."""
        return run if self.seed is None else self.seed

    @property
    def representative(self) -> bool:
        """May the classes be as frequent in the pool as among the labels, as far as the scheme says?"""
        skewed = self.kind == "long_tailed" or self.pool_imbalance != 1
        return not (skewed or self.missing or self.out_of_distribution)


class Mask(NamedTuple):
    """What a run may know of the labels."""

    name: str  # data set, budget, the scheme where it is not the default, the mask's seed: mnist@100-s3
    labels: np.ndarray  # (N,) int32, HIDDEN where not visible
    pool: np.ndarray  # (M,) int32, rows of the unlabelled pool, ascending
    sha256: str  # hex digest over the data's, the visible labels and the pool

    @property
    def visible(self) -> int:
        """Labels; no seed changes their number, nor the pool's."""
        return int((self.labels >= 0).sum())


def make_mask(
    dataset_name: str,
    labels: np.ndarray,
    class_names: Sequence[str],
    budget: int | None,
    scheme: Scheme,
    seed: int,
    data_sha256: str,
    images: np.ndarray | None = None,
    chosen: np.ndarray | None = None,
) -> Mask:
    """The mask with `budget` visible labels in all (None: all there are) of labels (N,), for a run of seed `seed`.

    Labels are 0..K-1, HIDDEN or OUT_OF_DISTRIBUTION. A seed of the scheme's own stands in place of the run's. `typical`
    looks at images (N, H, W, C), and at no label: it chooses those whose pixels `suggesting.typical_rows` would.
    `suggested` is of the rows `chosen` (budget,), ascending.

    In this order: with `pool_imbalance` the images of class k are thinned out to a share of imbalance^(-k / (K - 1));
    visible labels are drawn from those; some are replaced (`noise`); the pool is all of those images, also those whose
    own label is HIDDEN, less the labelled ones if `disjoint`, plus out-of-distribution ones until they are the fraction
    asked for. Classes in `missing` get no visible label, not even by noise, and stay in the pool. Steps draw from
    separate random streams: adding noise does not change which images are labelled. A larger budget need not contain a
    smaller one.

    Raises UserError, one for each: a budget below 1 or above the labels there are; a class with fewer images than its
    share; labels or missing classes out of range; a fraction outside [0, 1); an imbalance that does not fit; a negative
    seed; too few out-of-distribution images.
    Source: exponential long tails, Cui et al. 2019, arXiv:1901.05555, sec. 5.1; noise kinds, Patrini et al. 2017,
    arXiv:1609.03683.
    """
    labels, classes, seed = np.asarray(labels), len(class_names), scheme.seed_of(seed)
    _check(labels, classes, budget, scheme, seed)
    known = _thin(labels, class_names, scheme, stratify.generator(seed, 0))
    if scheme.kind == "suggested":
        assert chosen is not None and len(chosen) == budget, "suggested images are chosen by a run"
        rows = chosen
    else:
        rows = _choose(known, class_names, budget, scheme, stratify.generator(seed, 1), images)
    visible = np.full(len(labels), HIDDEN, np.int32)
    visible[rows] = _add_noise(labels[rows], classes, scheme, stratify.generator(seed, 2))
    pool = _make_pool(labels, known, rows, scheme, stratify.generator(seed, 3))
    digest = hashlib.sha256(f"{data_sha256} {len(labels)} {len(pool)}".encode())
    digest.update(visible.astype("<i4").data)
    digest.update(pool.astype("<i4").data)
    return Mask(mask_name(dataset_name, budget, scheme, seed), visible, pool, digest.hexdigest())


def mask_name(dataset_name: str, budget: int | None, scheme: Scheme, seed: int) -> str:
    """`mnist@100-s3`; what is not the default stands between: `mnist@100-uniform-noise0.2-disjoint-s3`.

    The seed at the end is the mask's, which is that of a run where the scheme has none.
    """
    parts = [f"{dataset_name}@{'all' if budget is None else budget}"]
    for field in dataclasses.fields(scheme):
        value = getattr(scheme, field.name)
        if value == field.default or field.name == "seed":
            continue
        if field.name in ("kind", "noise_kind"):
            parts.append(value)
        elif value is True:
            parts.append(field.name)
        else:
            parts.append(field.name + (",".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"))
    return "-".join([*parts, f"s{scheme.seed_of(seed)}"])


def _check(labels: np.ndarray, classes: int, budget: int | None, scheme: Scheme, seed: int) -> None:
    if seed < 0:
        raise UserError(f"Seed {seed} is negative: give 0 or more.")
    allowed = ((labels >= 0) & (labels < classes)) | (labels == HIDDEN) | (labels == OUT_OF_DISTRIBUTION)
    if not allowed.all():
        raise UserError(
            f"Label {labels[~allowed][0]} is out of range: {classes} classes are numbered 0 to {classes - 1}."
        )
    if budget is not None and budget < 1:
        raise UserError(f"{budget} visible labels: give a positive number, or all.")
    for field in ("noise", "out_of_distribution"):
        if not 0 <= getattr(scheme, field) < 1:
            raise UserError(f"{field} is {getattr(scheme, field)}: it is a fraction and must be in [0, 1).")
    for k in scheme.missing:
        if not 0 <= k < classes:
            raise UserError(f"missing names class {k}: {classes} classes are numbered 0 to {classes - 1}.")
    left = classes - len(set(scheme.missing))
    if left < 1 + (scheme.noise > 0):
        raise UserError(f"{left} of {classes} classes are left with labels: leave at least {1 + (scheme.noise > 0)}.")
    if scheme.kind == "long_tailed" and not 1 < scheme.imbalance < np.inf:
        raise UserError(f"imbalance is {scheme.imbalance}: a long_tailed scheme needs one above 1, such as 10.")
    if scheme.kind != "long_tailed" and scheme.imbalance != 1:
        raise UserError(f"imbalance is {scheme.imbalance} but the scheme is {scheme.kind}: make it long_tailed.")
    if not 1 <= scheme.pool_imbalance < np.inf:
        raise UserError(f"pool_imbalance is {scheme.pool_imbalance}: it must be 1 or more.")


def _tail(classes: int, imbalance: float) -> np.ndarray:
    """(K,) relative frequencies 1, ..., 1 / imbalance, exponentially decreasing (Cui et al. 2019, sec. 5.1)."""
    return np.float64(imbalance) ** (-np.arange(classes) / max(classes - 1, 1))


def _longest(available: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The largest counts (K,) in proportion to weights (K,) that `available` (K,) images allow."""
    return np.floor(np.min(available / weights) * weights + 1e-9).astype(np.int64)


def _thin(labels: np.ndarray, class_names: Sequence[str], scheme: Scheme, random: np.random.Generator) -> np.ndarray:
    """labels (N,) with those that `pool_imbalance` takes out of training marked DROPPED."""
    classes = len(class_names)
    if scheme.pool_imbalance == 1:
        return labels
    counts = _longest(stratify.sizes(labels, classes), _tail(classes, scheme.pool_imbalance))
    if counts.min() < 1:
        raise UserError(
            f"pool_imbalance {scheme.pool_imbalance:g} leaves class {class_names[int(counts.argmin())]} no image: "
            "lower it."
        )
    thinned = np.where(labels >= 0, DROPPED, labels)
    kept = stratify.draw_rows(labels, counts, random)
    thinned[kept] = labels[kept]
    return thinned


def _left(classes: int, scheme: Scheme) -> np.ndarray:
    """The classes that get visible labels, ascending."""
    return np.setdiff1d(np.arange(classes), scheme.missing)


def _choose(
    known: np.ndarray,
    class_names: Sequence[str],
    budget: int | None,
    scheme: Scheme,
    random: np.random.Generator,
    images: np.ndarray | None,
) -> np.ndarray:
    """known (N,) -> the rows whose labels are visible, ascending."""
    classes = len(class_names)
    left = _left(classes, scheme)
    candidates = np.flatnonzero(np.isin(known, left))
    if len(candidates) < max(1, budget or 0):
        wanted = "All labels are" if budget is None else f"{budget} visible labels are"
        raise UserError(f"{wanted} asked for, and there are {len(candidates)}: give a smaller number, or more labels.")
    if budget is None and scheme.kind != "long_tailed":
        return candidates
    if scheme.kind == "uniform":
        return np.sort(random.permutation(candidates)[:budget])
    if scheme.kind == "typical":
        assert images is not None and budget is not None, "typical images are chosen by their pixels"
        seed, none = int(random.integers(2**31)), np.zeros(len(candidates), bool)
        return np.sort(candidates[typical_rows(images[candidates], none, budget, seed)])
    counts = np.zeros(classes, np.int64)
    counts[left], needed = _shares(stratify.sizes(known, classes)[left], budget, scheme, random)
    short = left[stratify.sizes(known, classes)[left] < needed]
    if len(short):
        has, share = np.sum(known == short[0]), needed[np.flatnonzero(left == short[0])[0]]
        raise UserError(
            f"Class {class_names[short[0]]} has {count(has, 'image')}, fewer than its {share} labels: lower the budget."
        )
    return stratify.draw_rows(known, counts, random)


def _shares(
    sizes: np.ndarray, budget: int | None, scheme: Scheme, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """sizes (K,) of the classes with labels -> (labels a class, the most a class could get under any seed), both (K,).

    Classes are held to the latter, so that whether a mask can be made does not depend on the seed.
    """
    if scheme.kind == "stratified" and budget is not None:  # all labels need no shares
        share, remainder = divmod(budget, len(sizes))
        counts = np.full(len(sizes), share)
        counts[random.permutation(len(sizes))[:remainder]] += 1
        return counts, np.full(len(sizes), share + (remainder > 0))
    weights = _tail(len(sizes), scheme.imbalance)
    counts = _longest(sizes, weights) if budget is None else stratify.apportion(weights, budget)
    if counts.min() < 1:
        raise UserError(f"imbalance {scheme.imbalance:g} leaves a class without labels: lower it or raise the budget.")
    return counts, counts


def _add_noise(labels: np.ndarray, classes: int, scheme: Scheme, random: np.random.Generator) -> np.ndarray:
    """Visible labels (L,) -> (L,) with round(noise L) of them replaced by another class that has visible labels."""
    left = _left(classes, scheme)
    rows = random.permutation(len(labels))[: round(scheme.noise * len(labels))]
    shift = random.integers(1, len(left), len(rows)) if scheme.noise_kind == "symmetric" and len(rows) else 1
    noisy = labels.copy()
    noisy[rows] = left[(np.searchsorted(left, labels[rows]) + shift) % len(left)]
    return noisy


def _make_pool(
    labels: np.ndarray, known: np.ndarray, rows: np.ndarray, scheme: Scheme, random: np.random.Generator
) -> np.ndarray:
    """The rows of the unlabelled pool (M,) int32, ascending; `rows` are the labelled ones."""
    inside = (known >= 0) | (known == HIDDEN)
    if scheme.disjoint:
        inside[rows] = False
    others = np.flatnonzero(labels == OUT_OF_DISTRIBUTION)
    count = round(scheme.out_of_distribution / (1 - scheme.out_of_distribution) * inside.sum())
    if count > len(others):
        raise UserError(
            f"out_of_distribution {scheme.out_of_distribution:g} needs {count} images of no class, and there are "
            f"{len(others)}: lower it, or give a larger --out-of-distribution-dataset."
        )
    inside[random.permutation(others)[:count]] = True
    return np.flatnonzero(inside).astype(np.int32)
