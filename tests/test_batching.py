"""Batches that are judged together and taken apart again, and batches made inside a step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from ssl_gen.core.batching import cut, interleave, joined, separate, shard_batch


def numbered(first, count):
    """Images (count, 2, 2, 1), every pixel of which is the image's number."""
    return jnp.broadcast_to(jnp.arange(first, first + count, dtype=jnp.float32)[:, None, None, None], (count, 2, 2, 1))


@pytest.mark.parametrize("sizes", [(3,), (3, 3), (2, 8, 4), (4, 4, 12), (1, 5, 2)])
def test_separate_undoes_interleave(sizes):
    batches = [numbered(100 * i, size) for i, size in enumerate(sizes)]
    for part, batch in zip(separate(interleave(*batches), sizes), batches, strict=True):
        np.testing.assert_array_equal(part, batch)


def test_interleaved_batches_hold_each_image_once():
    mixed = interleave(numbered(0, 2), numbered(10, 4), numbered(20, 6))
    assert mixed.shape == (12, 2, 2, 1)
    assert sorted(mixed[:, 0, 0, 0].tolist()) == [0, 1, *range(10, 14), *range(20, 26)]
    assert bool((mixed == mixed[:, :1, :1]).all())  # no image is torn apart


def test_each_image_of_the_first_batch_brings_its_share_of_the_others():
    mixed = interleave(jnp.array([0, 1]), jnp.array([10, 11, 12, 13]), jnp.array([20, 21]))
    assert mixed.tolist() == [0, 10, 11, 20, 1, 12, 13, 21]


@pytest.mark.parametrize("sizes", [(2, 3), (4, 2), (2, 4, 5)])
def test_sizes_that_are_no_multiples_of_the_first_are_refused(sizes):
    with pytest.raises(ValueError, match=f"multiples of the first.*{sizes[-1]}"):
        interleave(*(numbered(0, size) for size in sizes))


def test_a_part_has_every_so_many_th_image_and_joined_parts_are_the_batch():
    batch = numbered(0, 6)
    assert cut(batch, 3)[..., 0, 0, 0].tolist() == [[0, 3], [1, 4], [2, 5]]
    np.testing.assert_array_equal(joined(cut(batch, 3)), batch)


def test_a_batch_is_left_as_it_is_outside_a_data_parallel_run():
    batch = numbered(0, 3)
    assert shard_batch(batch) is batch


def test_a_batch_made_inside_a_step_is_divided_over_the_devices_of_a_data_parallel_run():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        noise = jax.jit(lambda key: shard_batch(jax.random.normal(key, (8, 3))))(jax.random.key(0))
    assert {shard.data.shape for shard in noise.addressable_shards} == {(2, 3)}
