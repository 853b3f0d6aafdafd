"""The store: images in memory as uint8, fetched by row inside the compiled step, or walked over in blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ssl_gen.datasets import store
from ssl_gen.datasets.batches import Rows
from ssl_gen.datasets.store import BLOCK, Store, pixels, scaled
from ssl_gen.types import Batch

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 4, 6, 3), np.uint8)
STORE = Store(IMAGES)
ROWS = Rows(
    np.array([3, 0, 3, 19]),
    np.array([1, 0, 1, 2]),
    np.array([7, 7, 1, 2, 18, 0, 4, 5]),
    np.array([-1, 2, 0, 1, -1, -1, 1, 1]),
)


def fetched(resident=IMAGES, rows=ROWS):
    return jax.jit(STORE.fetch)(resident, rows)


def test_a_store_says_how_many_images_it_has_and_of_which_shape():
    assert len(STORE) == 20 and STORE.shape == (4, 6, 3)


def test_what_a_device_holds_is_every_image_as_it_was_read():
    assert STORE.resident.dtype == np.uint8
    np.testing.assert_array_equal(STORE.resident, IMAGES)


def test_rows_are_fetched_as_a_batch_of_images_from_minus_1_to_1_with_their_visible_labels():
    batch = fetched()
    for found, rows in ((batch.labelled, ROWS.labelled), (batch.unlabelled, ROWS.unlabelled)):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, (IMAGES[rows].astype(np.float64) - 127.5) / 127.5, atol=1e-6)
    np.testing.assert_array_equal(batch.labels, ROWS.labels)
    np.testing.assert_array_equal(batch.guesses, ROWS.guesses)
    assert isinstance(batch, Batch)


def test_a_batch_says_which_images_its_unlabelled_ones_are():
    batch = fetched()
    np.testing.assert_allclose(batch.unlabelled, scaled(IMAGES[np.asarray(batch.rows)]), atol=1e-6)


def test_no_rows_are_an_empty_part_of_a_batch():
    batch = fetched(rows=ROWS._replace(unlabelled=np.zeros(0, np.int32)))
    assert batch.unlabelled.shape == (0, 4, 6, 3) and batch.labelled.shape == (4, 4, 6, 3)


def test_a_batch_is_divided_over_the_devices_of_a_data_parallel_run_and_is_the_same():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        batch = fetched(jax.device_put(IMAGES, NamedSharding(mesh, P())))
    for found, same in zip(batch, fetched(), strict=True):
        assert {shard.data.shape[0] for shard in found.addressable_shards} == {len(same) // 4}
        np.testing.assert_array_equal(found, same)


def test_blocks_are_all_images_in_order_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(store, "BLOCK", 8)
    blocks = list(STORE.blocks())
    assert [len(block) for block in blocks] == [8, 8, 4]
    np.testing.assert_array_equal(np.concatenate(blocks), IMAGES)


def test_a_store_of_nothing_has_no_blocks():
    assert list(Store(IMAGES[:0]).blocks()) == []


def test_a_block_is_a_whole_number_of_batches_of_inference():
    """So that walking in blocks compiles nothing that walking in one piece does not."""
    from ssl_gen.evaluation.inference import BATCH

    assert BLOCK % BATCH == 0


@pytest.mark.parametrize("compiled", [False, True])
def test_every_level_of_grey_is_scaled_and_comes_back(compiled):
    levels = np.arange(256, dtype=np.uint8)
    there, back = (jax.jit(scaled), jax.jit(pixels)) if compiled else (scaled, pixels)
    found = there(levels)
    np.testing.assert_allclose(found, np.linspace(-1, 1, 256), atol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(back(found), levels)
