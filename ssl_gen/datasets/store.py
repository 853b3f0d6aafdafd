"""The images of a run, and the one way to them: training fetches rows of a store, everything else walks it in blocks.

A store says what each device holds for the whole run (`resident`), what a step is handed beside it (`given`), and turns
the two into a batch inside the compiled step (`fetch`). `Store` keeps all images on every device as uint8 and hands
row numbers over; `StreamedStore` leaves them where they are, in memory or on disk, and hands over the pixels of the
rows, which a few threads read ahead. Rows are a pure function of seed and step in both, so numbers are the same, and a
resumed run needs to know nothing of what was read.
"""

from __future__ import annotations

import dataclasses
import mmap
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from ssl_gen.core.machine import free_memory
from ssl_gen.core.options import choose
from ssl_gen.datasets.batches import Rows
from ssl_gen.datasets.disk import advise
from ssl_gen.types import Array, Batch

Asked = Literal["auto", "device", "stream"]
BLOCK = 4_000  # images that are walked over at a time, a multiple of a batch of inference; ours
AHEAD = 4  # steps that are read ahead; ours
READERS = 2  # threads that read; ours
SHARE = 0.5  # of the free memory of a device that images may take before they are streamed; ours


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

    @property
    def folds(self) -> bool:
        """May several steps be one call, which is handed all they need?"""
        return True

    def blocks(self) -> Iterator[np.ndarray]:
        """All images in order, (up to BLOCK, H, W, C) uint8 at a time."""
        for start in range(0, len(self), BLOCK):
            advise(self.images[start : start + BLOCK], mmap.MADV_WILLNEED)
            yield self.images[start : start + BLOCK]

    def given(self, rows: Rows) -> Any:
        """What a step, or a start, is handed for its rows (...): a tree of arrays with the rows' leading axes."""
        return rows

    def ahead(self, rows: Rows, place: Callable[[Any], Any]) -> Iterator[Any]:
        """What each of the steps of rows (steps, ...) is handed, in order, put by `place` to where it trains."""
        for one in step_by_step(rows):
            yield place(self.given(one))

    def fetch(self, resident: Array, given: Any) -> Batch:
        """What a device holds and what one step is handed -> Batch, scaled to [-1, 1]; inside jit.

        In a data-parallel run the batch is divided over the devices.
        """
        return batch_of(resident[given.labelled], resident[given.unlabelled], given)


def step_by_step(rows: Rows) -> Iterator[Rows]:
    """Rows of some steps (steps, ...) -> those of each (...), in order."""
    return (Rows(*parts) for parts in zip(*rows, strict=True))


class Pixels:
    """Images of rows, read when they are asked for: a process of several asks for those of its own devices alone."""

    def __init__(self, images: np.ndarray, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows  # (N, H, W, C), (..., B)
        self.shape = rows.shape + images.shape[1:]

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        return self.images[self.rows[index[: self.rows.ndim]]][(..., *index[self.rows.ndim :])]

    def read(self) -> np.ndarray:
        """All of them, (..., B, H, W, C) uint8."""
        return np.asarray(self.images[self.rows])


class Read(NamedTuple):
    """What a step of a streamed run is handed."""

    rows: Rows
    labelled: Any  # (..., L, H, W, C) uint8, or Pixels
    unlabelled: Any  # (..., U, H, W, C) uint8, or Pixels


@dataclasses.dataclass(frozen=True)
class StreamedStore(Store):
    """Images that stay where they are, in memory or in a file that is mapped into it."""

    lazy: bool = False  # are the Pixels handed over unread, as several processes want it?

    @property
    def resident(self) -> np.ndarray:
        """Nothing."""
        return np.zeros(0, np.uint8)

    @property
    def folds(self) -> bool:
        """No: the pixels of many steps at once could be as large as the set."""
        return False

    def given(self, rows: Rows) -> Read:
        """The rows and their pixels."""
        parts = (Pixels(self.images, np.asarray(numbers)) for numbers in (rows.labelled, rows.unlabelled))
        return Read(rows, *(part if self.lazy else part.read() for part in parts))

    def ahead(self, rows: Rows, place: Callable[[Any], Any]) -> Iterator[Any]:
        """As of `Store`; AHEAD steps are read and placed by threads while earlier ones train."""

        def ready(one: Rows) -> Any:
            return place(self.given(one))

        waiting: deque[Future] = deque()
        with ThreadPoolExecutor(READERS) as readers:
            for one in step_by_step(rows):
                waiting.append(readers.submit(ready, one))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def fetch(self, resident: Array, given: Read) -> Batch:
        """The pixels that were handed over as a Batch; inside jit."""
        return batch_of(given.labelled, given.unlabelled, given.rows)


def read(given: Any) -> Any:
    """What a step is handed with all of its pixels."""
    return jax.tree.map(lambda leaf: leaf.read() if isinstance(leaf, Pixels) else leaf, given)


def batch_of(labelled: Array, unlabelled: Array, rows: Rows) -> Batch:
    """Pixels (B, H, W, C) uint8 and their rows -> Batch, divided over the devices of a data-parallel run."""
    told = jnp.asarray(rows.unlabelled), jnp.asarray(rows.guesses)
    batch = Batch(scaled(labelled), jnp.asarray(rows.labels), scaled(unlabelled), *told)
    if "data" in jax.sharding.get_abstract_mesh().axis_names:
        batch = jax.lax.with_sharding_constraint(batch, P("data"))
    return batch


def choose_store(images: np.ndarray, asked: Asked = "auto") -> Asked:
    """Where training images (N, H, W, C) uint8 lie: `auto` streams what would take too much of a device's memory.

    Raises UserError on another word.
    """
    if choose("store", asked, ("auto", "device", "stream")) != "auto":
        return asked
    free = free_memory(jax.local_devices()[0])
    return "stream" if free is not None and images.nbytes > SHARE * free else "device"


def open_store(images: np.ndarray, asked: Asked = "auto", several: bool = False) -> Store:
    """The store of training images (N, H, W, C) uint8, as `choose_store` says.

    several: the devices are of several processes, which have agreed on one. Raises UserError on another word.
    """
    if choose_store(images, asked) == "device":
        return Store(images)
    advise(images, mmap.MADV_RANDOM)  # else the system reads up to megabytes around each image
    return StreamedStore(images, lazy=several)


def scaled(images: Any) -> Any:
    """uint8 -> float32 in [-1, 1], on the host or inside jit."""
    return images.astype(jnp.float32) / 127.5 - 1


def pixels(images: Array) -> Array:
    """[-1, 1] -> uint8."""
    return jnp.round((images + 1) * 127.5).astype(jnp.uint8)
