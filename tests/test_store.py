"""Stores: images on a device, fetched by row inside the compiled step, or streamed to it; walked over in blocks."""

import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ssl_gen.core import machine
from ssl_gen.datasets import store
from ssl_gen.datasets.batches import Rows
from ssl_gen.datasets.store import AHEAD, BLOCK, Pixels, Read, Store, StreamedStore, open_store, pixels, read, scaled
from ssl_gen.types import Batch, UserError

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


def steps_of(count):
    """Rows of `count` steps, each of other images."""
    return Rows(*(np.stack([(part + i) % 20 for i in range(count)]) for part in ROWS))


def test_a_streamed_store_holds_nothing_on_a_device_and_comes_to_the_same_batch():
    streamed = StreamedStore(IMAGES)
    assert streamed.resident.nbytes == 0 and not streamed.folds and STORE.folds
    batch = jax.jit(streamed.fetch)(streamed.resident, streamed.given(ROWS))
    for found, expected in zip(batch, fetched(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_steps_are_handed_over_in_order_and_a_few_are_read_before_they_are_asked_for():
    placed, rows = [], steps_of(3 * AHEAD)
    each = StreamedStore(IMAGES).ahead(rows, lambda given: placed.append(threading.get_ident()) or given)
    first = next(each)
    for _ in range(100):
        if len(placed) > AHEAD:
            break
        threading.Event().wait(0.02)
    assert len(placed) == AHEAD + 1 and threading.get_ident() not in placed
    for i, given in enumerate([first, *each]):
        np.testing.assert_array_equal(given.labelled, IMAGES[rows.labelled[i]])
        np.testing.assert_array_equal(given.rows.unlabelled, rows.unlabelled[i])
    assert len(placed) == 3 * AHEAD


def test_what_goes_wrong_in_reading_ahead_is_raised_where_the_step_is_asked_for():
    with pytest.raises(IndexError):
        list(StreamedStore(IMAGES[:10]).ahead(steps_of(2), lambda given: given))


def test_pixels_of_part_of_the_rows_are_read_alone():
    """As a process of several reads those of its own devices."""
    asked = []

    class Counted(np.ndarray):
        def __getitem__(self, index):
            asked.append(np.size(index))
            return super().__getitem__(index)

    rows = np.arange(12).reshape(3, 4)
    part = Pixels(IMAGES.view(Counted), rows)
    assert part.shape == (3, 4, 4, 6, 3)
    whole = slice(None)
    found = part[1:2, 2:4, whole, whole, whole]
    assert asked[0] == 2
    np.testing.assert_array_equal(found, IMAGES[rows[1:2, 2:4]])
    given = StreamedStore(IMAGES, lazy=True).given(ROWS)
    assert isinstance(given, Read) and isinstance(given.labelled, Pixels)
    np.testing.assert_array_equal(read(given).unlabelled, IMAGES[ROWS.unlabelled])


@pytest.mark.parametrize(("free", "kind"), [(None, Store), (2 * IMAGES.nbytes, Store), (IMAGES.nbytes, StreamedStore)])
def test_images_are_streamed_where_they_take_more_than_half_of_a_devices_free_memory(free, kind, monkeypatch):
    monkeypatch.setattr(store, "free_memory", lambda device: free)
    assert type(open_store(IMAGES)) is kind
    assert type(open_store(IMAGES, "device")) is Store and type(open_store(IMAGES, "stream")) is StreamedStore


def test_an_unknown_way_is_named():
    with pytest.raises(UserError, match="store is 'disk'"):
        open_store(IMAGES, "disk")


@pytest.mark.parametrize(
    ("most", "now", "stat", "available", "expected"),
    [
        ("max", "5", None, 100, 100 * 2**10),
        ("2048", "1024", None, 100, 1024),
        ("2048", "1024", "anon 24\nfile 1000\ninactive_file 900\nactive_file 100\n", 100, 1924),  # cgroup v2
        ("2048", "1024", "inactive_file 5\nrss 24\ntotal_inactive_file 900\n", 100, 1924),  # v1
        ("2048", "1024", "inactive_file 4096\n", 100, 2048),  # read a moment later
        ("999999999", "1024", None, 1, 2**10),
        (None, None, None, None, None),
    ],
)
def test_free_memory_of_a_processor_is_that_of_its_machine_or_of_its_container(
    most, now, stat, available, expected, tmp_path, monkeypatch
):
    """The page cache of a container counts as used, and is there to be had: memory.stat says how much."""
    files = {
        "most": most,
        "now": now,
        "memory.stat": stat,
        "meminfo": available and f"MemTotal: 9 kB\nMemAvailable:   {available} kB\n",
    }
    for name, content in files.items():
        if content:
            (tmp_path / name).write_text(content)
    monkeypatch.setattr(machine, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "CONTAINER", [(tmp_path / "most", tmp_path / "now")])
    device = types.SimpleNamespace(memory_stats=lambda: None, platform="cpu")
    assert machine.free_memory(device) == expected


def test_free_memory_of_an_accelerator_is_what_jax_may_have_less_what_it_has():
    stats = {"bytes_limit": 100, "bytes_in_use": 30}
    assert machine.free_memory(types.SimpleNamespace(memory_stats=lambda: stats, platform="gpu")) == 70
    assert machine.free_memory(types.SimpleNamespace(memory_stats=lambda: None, platform="gpu")) is None
