"""Shares and draws per class: what splitting, holding out and masking have in common."""

from __future__ import annotations

import numpy as np


def generator(seed: int, stream: int = 0) -> np.random.Generator:
    """Random numbers that depend on (seed, stream) alone, on every machine; streams are independent of each other."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(stream,))))


def sizes(labels: np.ndarray, classes: int) -> np.ndarray:
    """labels (N,), negative ones not counted -> images per class (K,)."""
    return np.bincount(labels[labels >= 0], minlength=classes)


def apportion(weights: np.ndarray, count: int) -> np.ndarray:
    """Whole shares (K,) summing to `count`, in proportion to weights (K,), by largest remainder, ties to low classes.

    With whole weights and `count` at most their sum, no share is larger than its weight.
    """
    exact = np.asarray(weights, np.float64) * count / np.sum(weights)
    shares = np.floor(exact + 1e-9).astype(np.int64)  # 1e-9: a quotient that should be whole may come out just below
    order = np.argsort(shares - exact, kind="stable")
    shares[order[: count - shares.sum()]] += 1
    return shares


def draw_rows(labels: np.ndarray, counts: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """labels (N,), counts (K,) at most the class sizes -> sorted rows, `counts[k]` of every class k without repeats."""
    rows = [random.permutation(np.flatnonzero(labels == k))[:count] for k, count in enumerate(counts)]
    return np.sort(np.concatenate(rows))
