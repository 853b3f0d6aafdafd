"""Images on disk: grown one by one, mapped, and chosen from, with little in memory."""

import errno
import mmap
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ssl_gen.core.files import say_once
from ssl_gen.datasets import disk, halfway
from ssl_gen.datasets.dataset import Dataset, hold_out, resize_one, with_out_of_distribution
from ssl_gen.datasets.disk import Growing, blocks, chosen
from ssl_gen.datasets.store import open_store

RANDOM = np.random.default_rng(0)


def drawn(*shape):
    return RANDOM.integers(0, 256, shape, np.uint8)


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """Blocks of a few images, and a cache of one's own."""
    monkeypatch.setattr(disk, "BLOCK", 400)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def on_disk(path, images):
    images.tofile(path)
    return np.memmap(path, np.uint8, "r", shape=images.shape)


@pytest.mark.parametrize("kinds", ["ggg", "rrrrr", "ggggrgr", "rg"])
def test_what_grows_on_disk_is_what_grows_in_memory_grey_until_there_is_colour(kinds, tmp_path):
    images = [drawn(8, 9) if kind == "g" else drawn(8, 9, 3) for kind in kinds]
    memory, file = Growing(None, len(images)), Growing(tmp_path / "half", len(images))
    for image in images:
        memory.append(image)
        file.append(image)
    assert isinstance(file.whole(), np.memmap) and not isinstance(memory.whole(), np.memmap)
    for whole in (memory.whole(), file.whole()):
        assert whole.shape == (len(images), 8, 9, 3 if "r" in kinds else 1)
        for found, image in zip(whole, images, strict=True):
            grey_in_each = np.broadcast_to(image.reshape(8, 9, -1), found.shape)
            np.testing.assert_array_equal(found, grey_in_each)


def test_all_that_came_may_change_its_size_and_more_may_come(tmp_path):
    images = [drawn(8, 9) for _ in range(20)]
    grown = Growing(tmp_path / "half", 21)
    for image in images:
        grown.append(image)
    grown.change(lambda image: resize_one(image, 4, 4))
    grown.append(drawn(4, 4, 3))
    assert grown.whole().shape == (21, 4, 4, 3)
    np.testing.assert_array_equal(grown.whole()[7, :, :, 0], resize_one(images[7], 4, 4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half"]


def test_nothing_that_changes_is_nothing(tmp_path):
    grown = Growing(tmp_path / "half", 3)
    grown.change(lambda image: image)
    assert grown.whole().shape[0] == 0


def test_growing_on_disk_takes_a_fraction_of_the_memory_of_the_images(tmp_path):
    def grow(path):
        grown = Growing(path, 200)
        for _ in range(200):
            grown.append(np.zeros((64, 64, 3), np.uint8))
        return grown.whole()

    def peak(path):
        tracemalloc.start()
        try:
            assert grow(path).nbytes == 200 * 64 * 64 * 3
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(None) > 200 * 64 * 64 * 3 > 10 * peak(tmp_path / "half")


def full_after(writes, monkeypatch):
    """A disk that takes so many more arrays, and then half of one."""
    take, left = disk.write, [writes]

    def write(file, array):
        left[0] -= 1
        if left[0] < 0:
            file.write(array.tobytes()[: array.nbytes // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        take(file, array)

    monkeypatch.setattr(disk, "write", write)


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_disk_that_fills_up_on_the_way_costs_no_image_and_is_said(writes, tmp_path, monkeypatch, capsys):
    say_once.cache_clear()
    full_after(writes, monkeypatch)
    images, grown = [drawn(8, 9) for _ in range(20)], Growing(tmp_path / "half", 20)
    for image in images:
        grown.append(image)
    assert grown.path is None and "No space left on device" in capsys.readouterr().err
    np.testing.assert_array_equal(grown.whole()[..., 0], np.array(images))


def test_a_disk_that_refuses_the_last_images_costs_none(tmp_path, monkeypatch, capsys):
    """There are so few that nothing is written before."""
    say_once.cache_clear()
    monkeypatch.setattr(disk, "BLOCK", 2**20)
    full_after(0, monkeypatch)
    images, grown = [drawn(8, 9) for _ in range(20)], Growing(tmp_path / "half", 20)
    for image in images:
        grown.append(image)
    assert grown.path is not None
    np.testing.assert_array_equal(grown.whole()[..., 0], np.array(images))
    assert grown.path is None and "No space left on device" in capsys.readouterr().err


def test_a_disk_that_fills_up_while_all_change_costs_no_image(tmp_path, monkeypatch):
    images, grown = [drawn(8, 9) for _ in range(20)], Growing(tmp_path / "half", 20)
    for image in images:
        grown.append(image)
    grown.whole()
    full_after(1, monkeypatch)
    grown.change(lambda image: image[:4])
    assert grown.path is None and [path.name for path in tmp_path.iterdir()] == ["half"]
    np.testing.assert_array_equal(grown.whole()[..., 0], np.array(images)[:, :4])


def test_rows_that_lie_one_after_the_other_are_a_view():
    images = drawn(10, 4, 4, 1)
    found = chosen(images, np.arange(10) >= 4)
    assert np.shares_memory(found, images)
    np.testing.assert_array_equal(found, images[4:])


def test_other_rows_of_mapped_images_are_mapped_and_leave_no_name(tmp_path):
    images = on_disk(tmp_path / "images", drawn(50, 4, 4, 3))
    keep = np.arange(50) % 3 > 0
    found = chosen(images, keep)
    assert isinstance(found, np.memmap) and not list((tmp_path / "cache" / "ssl_gen").iterdir())
    np.testing.assert_array_equal(found, np.asarray(images)[keep])
    assert not isinstance(chosen(np.asarray(images).copy(), keep), np.memmap)
    assert len(chosen(images, keep & False)) == 0


def test_without_room_they_are_in_memory(tmp_path, monkeypatch):
    images = on_disk(tmp_path / "images", drawn(50, 4, 4, 3))
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    keep = np.arange(50) % 3 > 0
    found = chosen(images, keep)
    assert not isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, np.asarray(images)[keep])


def test_on_a_disk_that_fills_up_on_the_way_they_are_all_in_memory(tmp_path, monkeypatch):
    images = on_disk(tmp_path / "images", drawn(50, 4, 4, 3))
    full_after(1, monkeypatch)
    keep = np.arange(50) % 3 > 0
    found = chosen(images, keep)
    assert not isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, np.asarray(images)[keep])


def test_a_validation_split_of_mapped_images_leaves_mapped_images(tmp_path):
    images, labels = drawn(40, 4, 4, 1), np.arange(40, dtype=np.int32) % 4
    data = Dataset("d", on_disk(tmp_path / "images", images), labels, images[:4], labels[:4], tuple("abcd"))
    rest, held, _ = hold_out(data, 8)
    assert isinstance(rest.train_images, np.memmap) and len(rest.train_images) == 32 and len(held) == 8
    both = np.concatenate([rest.train_images, held]).reshape(40, -1)
    assert {row.tobytes() for row in both} == {row.tobytes() for row in images.reshape(40, -1)}


def test_blocks_are_all_images_in_order():
    images = drawn(23, 5, 5, 1)
    parts = list(blocks(images))
    assert len(parts) == 2 and len(parts[0]) == 16
    np.testing.assert_array_equal(np.concatenate(parts), images)
    assert list(blocks(images[:0])) == []


def test_images_of_no_class_join_mapped_ones_on_the_disk_and_leave_no_name(tmp_path):
    images, others, labels = drawn(40, 8, 8, 1), drawn(10, 4, 4, 3), np.arange(40, dtype=np.int32) % 4
    other = Dataset("o", on_disk(tmp_path / "others", others), labels[:10], others[:4], labels[:4], tuple("abcd"))
    mapped = Dataset("d", on_disk(tmp_path / "images", images), labels, images[:4], labels[:4], tuple("abcd"))
    memory = mapped._replace(train_images=images)
    found, expected = with_out_of_distribution(mapped, other), with_out_of_distribution(memory, other)
    assert isinstance(found.train_images, np.memmap) and not isinstance(expected.train_images, np.memmap)
    assert not list((tmp_path / "cache" / "ssl_gen").iterdir())
    np.testing.assert_array_equal(found.train_images, expected.train_images)
    np.testing.assert_array_equal(found.train_images[:40], images)
    assert found.sha256 == expected.sha256


def test_a_disk_that_refuses_room_leaves_arrays_in_memory_and_no_file(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    say_once.cache_clear()
    monkeypatch.setattr(disk.os, "posix_fallocate", refuse)
    made = disk.in_folder(tmp_path / "new")((5, 4, 4, 3))
    assert made.shape == (5, 4, 4, 3) and not isinstance(made, np.memmap) and not list((tmp_path / "new").iterdir())
    assert "No space left on device" in capsys.readouterr().err


def flags(path):
    """What Linux notes of each map of a file (man 5 proc): rr is read at random."""
    found, ours = [], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(str(path))
        elif ours and line.startswith("VmFlags:"):
            found.append(set(line.split()[1:]))
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's account of maps")
def test_images_that_are_streamed_are_read_one_by_one_and_others_with_what_follows_them(tmp_path):
    images = drawn(60, 16, 16, 1)
    rows, walked = (on_disk(tmp_path / name, images) for name in ("rows", "walked"))
    store = open_store(rows, "stream")
    open_store(walked, "device")
    (own,), (other,) = flags(tmp_path / "rows"), flags(tmp_path / "walked")
    assert "rr" in own and "rr" not in other
    np.testing.assert_array_equal(np.concatenate(list(store.blocks())), images)
    np.testing.assert_array_equal(np.concatenate(list(blocks(rows))), images)


def test_advice_is_of_part_of_a_map_that_begins_anywhere_and_of_no_other_array(tmp_path):
    images = drawn(600, 5, 5, 1)
    images.tofile(tmp_path / "images")
    part = np.memmap(tmp_path / "images", np.uint8, "r", offset=5_000, shape=(400, 5, 5, 1))[37:301]
    for array in (part, part[:0], part[:, 1:], images, images[3:7], np.frombuffer(b"abc", np.uint8)):
        disk.advise(array, mmap.MADV_WILLNEED)
    np.testing.assert_array_equal(part, images[200 + 37 : 200 + 301])
    assert disk.mapped_from(part) == (tmp_path / "images", 5_000 + 37 * 25) and disk.mapped_from(images) is None


def test_of_files_that_are_no_workshop_s_nothing_is_noted(tmp_path, monkeypatch, capsys):
    """What goes with its process, for instance, whose name is gone already."""
    monkeypatch.setattr(halfway, "NOTED", 0)
    for folder, noted in (("here", []), ("work.part", ["0.json"])):
        array = disk.in_folder(tmp_path / folder, again=True)((7, 2, 2, 1))
        assert [(rows.start, rows.stop) for rows in disk.unfilled("drawing", 3, array)] == [(0, 3), (3, 6), (6, 7)]
        assert [path.name for path in (tmp_path / folder).glob("*.json")] == noted
    assert list(disk.unfilled("drawing", 3, array)) == [] and "7 of 7" in capsys.readouterr().err


def test_a_file_that_is_shorter_than_was_noted_is_begun_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(halfway, "NOTED", 0)
    path, notes, image = tmp_path / "half", tmp_path / "half.json", np.full((8, 9), 5, np.uint8)
    grown = Growing(path, 3, notes)
    for _ in range(3):
        grown.append(image)
    grown.note(lambda: {"files": 3})
    assert Growing(path, 3, notes).before == {"files": 3} and Growing(path, 3, notes).count == 3
    path.write_bytes(path.read_bytes()[:-1])
    assert Growing(path, 3, notes).count == 0 and not Growing(path, 3, notes).before
