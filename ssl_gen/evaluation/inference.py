"""A state -> images, probabilities, latents' weights; what a method cannot do is None, never zero.

Everything runs in batches of one fixed size, divided over this process's devices, so each function of a method is
compiled once and the devices share the work.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssl_gen.core import keys
from ssl_gen.core.compiling import jit_inference
from ssl_gen.datasets.batches import UNTOLD
from ssl_gen.datasets.store import pixels, scaled
from ssl_gen.training.mesh import largest_divisor
from ssl_gen.types import Array, Key, Method, State, Tree, UserError, able

BATCH = 500  # images a call
DRAWS = 10  # of latents a call


class Compiled(NamedTuple):
    """A method's functions, compiled; images are uint8."""

    method: Method
    classify: Callable[[State, Array], Array] | None
    sample: Callable[[State, Key, Array, Any], Array] | None
    reconstruct: Callable[[State, Array], Array] | None  # images (B, H, W, C) -> the same, encoded and decoded
    log_weights: Callable[[State, Key, Array, Array], Array] | None  # key of what is observed, keys (DRAWS,), images
    # (B, H, W, C) -> (DRAWS, B)
    posterior: Callable[[State, Array], Array] | None  # images (B, H, W, C) -> means and variances of latents (B, 2 Z)


def sampling_key(seed: int | Array, row: int) -> Key:
    """The key of the batch of samples that begins with number `row`, of the noise `seed`."""
    return jax.random.fold_in(keys.stream(seed, keys.SAMPLES), row)


def encoded_and_decoded(method: Method, state: State, images: Array) -> Array:
    """Images (B, H, W, C) in [-1, 1] -> the same, by way of their latents.

    The class that a conditional decoder is told is the method's own guess: nobody has the true one of a new image. Of a
    method that makes no guesses it is told none.
    """
    labels = jnp.full(len(images), UNTOLD if method.conditional else 0, jnp.int32)
    if method.conditional and method.classify:
        labels = method.classify(state, images).argmax(-1)
    return able(method.decode)(state, able(method.encode)(state, images), labels)


def compiled(method: Method) -> Compiled:
    """The functions of a method, ready for many calls, on uint8 images."""

    def classify(state: State, images: Array) -> Array:
        return able(method.classify)(state, scaled(images))

    def sample(state: State, key: Key, labels: Array, sampler: Any) -> Array:
        return pixels(able(method.sample)(state, key, labels, sampler))

    def reconstruct(state: State, images: Array) -> Array:
        return pixels(encoded_and_decoded(method, state, scaled(images)))

    def log_weights(state: State, observed: Key, draws: Array, images: Array) -> Array:
        each = jax.vmap(able(method.log_weight), (None, None, 0, None))  # encoded once for all draws
        return each(state, observed, draws, scaled(images))

    def posterior(state: State, images: Array) -> Array:
        return jnp.concatenate(able(method.posterior)(state, scaled(images)), -1)

    return Compiled(
        method,
        jit_inference(classify) if method.classify else None,
        jit_inference(sample, static_argnums=3) if method.sample else None,
        jit_inference(reconstruct) if method.encode and method.decode else None,
        jit_inference(log_weights) if method.log_weight else None,
        jit_inference(posterior) if method.posterior else None,
    )


def in_batches(count: int) -> Iterator[tuple[np.ndarray, int]]:
    """Indices (BATCH,) that cover 0 .. count - 1, the last one repeated to fill up, and how many are new."""
    for start in range(0, count, BATCH):
        yield np.minimum(np.arange(start, start + BATCH), count - 1), min(BATCH, count - start)


def shared(batch: np.ndarray) -> Array:
    """A batch, divided over as many of this process's devices as divide it."""
    return jax.device_put(batch, placement(PartitionSpec("data")))


def everywhere(tree: Tree) -> Tree:
    """A copy of a state on every device that `shared` uses."""
    return jax.device_put(tree, placement(PartitionSpec()))


def placement(spec: PartitionSpec) -> NamedSharding:
    """Where something lies on this process's devices."""
    devices = jax.local_devices()
    return NamedSharding(Mesh(np.array(devices[: largest_divisor(BATCH, len(devices))]), ("data",)), spec)


def mapped(function: Callable[..., Array], *arrays: np.ndarray) -> np.ndarray:
    """function on arrays (N, ...), a batch at a time -> (N, ...)."""
    parts = [
        np.asarray(function(*(shared(array[rows]) for array in arrays)))[:new]
        for rows, new in in_batches(len(arrays[0]))
    ]
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def probabilities(compiled: Compiled, state: State, images: np.ndarray) -> np.ndarray:
    """Log-probabilities (B, K) of images (B, H, W, C) uint8.

    Raises UserError for a method without a classifier, and where it gives NaN, whose greatest would be some class.
    """
    if compiled.classify is None:
        raise UserError("this method has no classifier: `ssl-gen list methods` says what each one can do")
    found = mapped(functools.partial(compiled.classify, everywhere(state)), images)
    broken = int(np.isnan(found).any(-1).sum())
    if broken:
        raise UserError(f"{broken} of {len(found)} images have class scores that are NaN: the network is broken")
    return found


def draw_samples(
    compiled: Compiled, state: State, labels: np.ndarray, seed: int = 0, sampler: Any = None
) -> np.ndarray:
    """One image (H, W, C) uint8 for each of labels (B,); `sampler` None is the method's own.

    Raises UserError for a method without a generator.
    """
    if compiled.sample is None:
        raise UserError("this method has no generator: `ssl-gen list methods` says what each one can do")
    sampler = compiled.method.sampler if sampler is None else sampler
    state, labels, parts = everywhere(state), np.asarray(labels, np.int32), []
    for rows, new in in_batches(len(labels)):
        key = everywhere(sampling_key(seed, rows[0]))
        parts.append(np.asarray(compiled.sample(state, key, shared(labels[rows]), sampler))[:new])
    return np.concatenate(parts)


def log_weights(
    compiled: Compiled, state: State, images: np.ndarray, samples: int, seed: int = 0
) -> Iterator[np.ndarray]:
    """Log importance weights of images (B, H, W, C) uint8 in chunks of draws of latents, (up to DRAWS, B) nats.

    `seed` is the run's own: it says how each image is binarised or dequantised, once for all draws.
    """
    if compiled.log_weights is None:
        raise UserError("this method has no likelihood: `ssl-gen list methods` says what each one can do")
    state, base = everywhere(state), keys.stream(seed, keys.LATENTS)
    observed = everywhere(keys.stream(seed, keys.OBSERVED))

    @jax.jit
    def draws(first: int, row: int) -> Array:
        return jax.vmap(lambda draw: jax.random.fold_in(jax.random.fold_in(base, draw), row))(first + jnp.arange(DRAWS))

    for first in range(0, samples, DRAWS):
        parts = [
            np.asarray(compiled.log_weights(state, observed, everywhere(draws(first, rows[0])), shared(images[rows])))[
                :, :new
            ]
            for rows, new in in_batches(len(images))
        ]
        yield np.concatenate(parts, 1)[: samples - first]
