"""The images of a run, and the one way to them: training fetches rows of a store, everything else walks it in blocks.

A store says what each device holds for the whole run (`resident`), and turns that and one step's rows into a batch
inside the compiled step (`fetch`). This one keeps all images on every device as uint8.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from ssl_gen.datasets.batches import Rows
from ssl_gen.types import Array, Batch

BLOCK = 4_000  # images that are walked over at a time, a multiple of a batch of inference; ours


@dataclasses.dataclass(frozen=True)
class Store:
    """Images in memory."""

    images: np.ndarray  # (N, H, W, C) uint8

    def __len__(self) -> int:
        """N."""
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of an image."""
        return self.images.shape[1:]

    @property
    def resident(self) -> np.ndarray:
        """What each device holds for the whole run, (N, H, W, C) uint8."""
        return self.images

    def blocks(self) -> Iterator[np.ndarray]:
        """All images in order, (up to BLOCK, H, W, C) uint8 at a time."""
        for start in range(0, len(self), BLOCK):
            yield self.images[start : start + BLOCK]

    def fetch(self, resident: Array, rows: Rows) -> Batch:
        """What a device holds and one step's rows -> Batch, scaled to [-1, 1]; inside jit.

        In a data-parallel run the batch is divided over the devices.
        """
        labelled, unlabelled = scaled(resident[rows.labelled]), scaled(resident[rows.unlabelled])
        told = jnp.asarray(rows.unlabelled), jnp.asarray(rows.guesses)
        batch = Batch(labelled, jnp.asarray(rows.labels), unlabelled, *told)
        if "data" in jax.sharding.get_abstract_mesh().axis_names:
            batch = jax.lax.with_sharding_constraint(batch, P("data"))
        return batch


def scaled(images: Any) -> Any:
    """uint8 -> float32 in [-1, 1], on the host or inside jit."""
    return images.astype(jnp.float32) / 127.5 - 1


def pixels(images: Array) -> Array:
    """[-1, 1] -> uint8."""
    return jnp.round((images + 1) * 127.5).astype(jnp.uint8)
