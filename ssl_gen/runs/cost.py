"""What training cost: images a second, and the share of what the chips can do."""

from __future__ import annotations

import jax

from ssl_gen.core import chips
from ssl_gen.types import Method


def images_per_second(method: Method, seeds: int, seconds: float) -> float | None:
    """Training images that all seeds together were shown in a second, each as often as it came; None without steps.

    All that training waits for counts: compilation, evaluators, checkpoints.
    """
    images = sum(phase.steps * (phase.labelled + phase.unlabelled) for phase in method.phases)
    return seeds * images / seconds if images and seconds > 0 and not method.fit else None


def share_of_peak(operations: float | None, seeds: int, seconds: float, words: str, shared: int) -> float | None:
    """Operations (10^15 a seed) a second over what the devices in use can do (`core/chips.py`), at a `precision`.

    shared: devices that share a batch. Seconds are those of `images_per_second`. None where the chip is not known, or
    no operations.
    """
    peak = chips.peak(jax.devices()[0].device_kind, words)
    if operations is None or peak is None or seconds <= 0:
        return None
    return seeds * operations * 1e15 / (seconds * peak * min(jax.device_count(), seeds * shared))
