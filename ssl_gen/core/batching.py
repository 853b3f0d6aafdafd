"""Batches that are judged together, and what a data-parallel run divides over its devices and brings together."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ssl_gen.types import Array, Tree


def shard_batch(x: Array, axis: int = 0) -> Array:
    """Mark a batch made inside a step (noise, drawn labels) as one that a data-parallel run divides over its devices.

    x (B, ...), or B on another axis, -> x. Batches that come from outside are divided already; outside a data-parallel
    run this does nothing.
    """
    if devices_of_a_batch() is None:
        return x
    return jax.lax.with_sharding_constraint(x, jax.sharding.PartitionSpec(*[None] * axis, "data"))


def devices_of_a_batch() -> int | None:
    """How many devices divide a batch; None outside a data-parallel run."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape["data"] if "data" in mesh.axis_names else None


def cut(x: Array, parts: int) -> Array:
    """x (B, ...) -> (parts, B / parts, ...), where `parts` divides B: image i parts + j is in part j.

    So each device of a data-parallel run has its share of every part, and no image moves.
    """
    return shard_batch(jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0), axis=1)


def joined(x: Array) -> Array:
    """Undo `cut`: (parts, B / parts, ...) -> (B, ...)."""
    return shard_batch(jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]))


def gather_variables(variables: Tree) -> Tree:
    """Bring a network's variables, of which each device of a data-parallel run may hold a part, together where it runs.

    Its images then stay where they are: left alone, the compiler may move these instead. Gradients come out whole too.
    Outside a data-parallel run this does nothing.
    """
    if devices_of_a_batch() is None:
        return variables
    return jax.lax.with_sharding_constraint(variables, jax.sharding.PartitionSpec())


def interleave(*batches: Array) -> Array:
    """Batches of sizes B, m B, n B, ... -> one of (1 + m + n + ...) B, so that batch norm sees them together.

    Each image of the first brings its share of the others, so a data-parallel run needs to move nothing.
    Raises ValueError where a size is no multiple of the first.
    """
    first = batches[0].shape[0]
    if any(batch.shape[0] % first for batch in batches):
        raise ValueError(f"batch sizes must be multiples of the first: {[batch.shape[0] for batch in batches]}")
    groups = [batch.reshape(first, -1, *batch.shape[1:]) for batch in batches]
    return jnp.concatenate(groups, 1).reshape(-1, *batches[0].shape[1:])


def repeated(batch: Array, times: int) -> Array:
    """Each of a batch so many times, one beside the other: (B, ...) -> (B times, ...)."""
    return interleave(*[batch] * times)


def separate(outputs: Array, sizes: tuple[int, ...]) -> tuple[Array, ...]:
    """Undo `interleave`: outputs (sum of sizes, ...) -> one array for each batch size."""
    groups = outputs.reshape(sizes[0], -1, *outputs.shape[1:])
    ends = [sum(sizes[: i + 1]) // sizes[0] for i in range(len(sizes))]
    return tuple(part.reshape(-1, *outputs.shape[1:]) for part in jnp.split(groups, ends[:-1], axis=1))


def passes(step: Array, size: int, images: int) -> Array:
    """How often each of the `size` images of step number `step` was drawn before, where every one comes once an epoch.

    step () int32, `images` an epoch -> (size,) int32, as `datasets.batches` draws them; step * size is below 2^31.
    """
    return (step * size + jnp.arange(size)) // images
