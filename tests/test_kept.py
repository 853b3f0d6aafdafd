"""Large data sets are read once and kept: mapped at later starts, which look at a few blocks and compute nothing."""

import json
import os
import platform
import re
import time
import types

import numpy as np
import pytest
from test_folders import picture, two_classes

from ssl_gen import cli
from ssl_gen.core.files import say_once
from ssl_gen.datasets import decoded, disk, folders, halfway, kept, shapes, sources
from ssl_gen.datasets.dataset import Dataset, hold_out
from ssl_gen.datasets.sources import load
from ssl_gen.types import UserError

NAME = "shapes:8:60"
IMAGE = 8 * 8 * 3


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, in which few images are many, three to a block."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(disk, "LARGE", 1)
    monkeypatch.setattr(decoded, "FEWEST", 10)
    monkeypatch.setattr(disk, "BLOCK", 3 * IMAGE)
    say_once.cache_clear()
    return tmp_path / "cache" / "ssl_gen" / "kept"


@pytest.fixture
def drawings(monkeypatch):
    """How many images each drawing was of."""
    counts = []
    draw = shapes.draw
    monkeypatch.setattr(
        shapes, "draw", lambda shape, of, *size: counts.append(len(of.radius)) or draw(shape, of, *size)
    )
    return counts


@pytest.fixture
def hashed(monkeypatch):
    """The blocks that were hashed."""
    seen = []
    own = kept._hash
    monkeypatch.setattr(kept, "_hash", lambda block: seen.append(block) or own(block))
    return seen


def file_of(cache, array="train_images"):
    (found,) = cache.glob(f"*-{array}.u8")
    return found


def in_memory(found):
    """A copy that no file changes."""
    return found._replace(train_images=np.array(found.train_images), test_images=np.array(found.test_images))


def assert_same(a, b):
    for one, other in zip(a.hashed[1:], b.hashed[1:], strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert (a.name, a.class_names, a.skipped, a.reading) == (b.name, b.class_names, b.skipped, b.reading)
    assert a.sha256 == b.sha256


def test_what_is_drawn_once_is_mapped_from_then_on_and_is_the_same(drawings, monkeypatch):
    first, second = load(NAME), load(NAME)
    assert sum(drawings) == 60 + 12
    assert isinstance(first.train_images, np.memmap) and isinstance(second.train_images, np.memmap)
    monkeypatch.setattr(disk, "LARGE", 2**27)
    small = load(NAME)
    assert not isinstance(small.train_images, np.memmap)
    for found in (first, second):
        assert_same(found, small)


def test_a_later_start_computes_no_hash_over_all_and_knows_the_right_one(hashed):
    first = load(NAME)
    hashed.clear()
    found = load(NAME)
    assert all(a is b for a, b in zip(first.known.of, first.hashed, strict=True))
    assert found.known.sha256 == found._replace(known=None).sha256
    images = [block for block in hashed if block.ndim == 4]
    assert len(images) == 2 * kept.LOOKED_AT and len(hashed) == len(images) + 2 * 1  # and both arrays of labels
    assert len(found.train_images) / 3 == 20


def test_a_set_made_of_one_that_is_known_has_a_hash_of_its_own():
    found = load(NAME)
    rest, *_ = hold_out(found, 10)
    fewer = found._replace(train_labels=found.train_labels[:-1], train_images=found.train_images[:-1])
    renamed = found._replace(class_names=tuple("abcdefghij"))
    hashes = {each.sha256 for each in (found, rest, fewer, renamed)}
    assert len(hashes) == 4 and found._replace(name="other").sha256 == found.sha256
    assert rest.hash_known().sha256 == rest.sha256 == Dataset("x", *rest[1:6]).sha256


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def turned(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def longer(path):
    path.write_bytes(path.read_bytes() + b"x")


def gone(path):
    path.unlink()


@pytest.mark.parametrize("damage", [cut, turned, gone])
@pytest.mark.parametrize("array", [*kept.ARRAYS, None])
def test_what_was_cut_or_changed_is_said_in_a_line_and_made_again(array, damage, cache, drawings, capsys):
    first = in_memory(load(NAME))
    if array is None and damage is gone:
        pytest.skip("without an account nothing is kept")
    file = next(cache.glob("*.json")) if array is None else file_of(cache, array)
    damage(file)
    assert_same(load(NAME), first)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "shapes:8:60 was cut or changed" in said and sum(drawings) == 2 * 72
    load(NAME)
    assert sum(drawings) == 2 * 72 and not capsys.readouterr().err


def test_bytes_after_the_last_image_change_none_and_are_looked_into(cache, drawings, hashed):
    load(NAME)
    longer(file_of(cache))
    hashed.clear()
    load(NAME)
    assert sum(drawings) == 72 and len(hashed) == 20 + kept.LOOKED_AT + 2


def test_a_file_that_was_touched_is_read_whole_once(cache, hashed, drawings):
    load(NAME)
    os.utime(file_of(cache))
    for blocks in (20, kept.LOOKED_AT):
        hashed.clear()
        load(NAME)
        assert len(hashed) == blocks + kept.LOOKED_AT + 2
    assert sum(drawings) == 72


def test_a_bit_that_turns_on_the_disk_is_found_where_a_start_looks_and_by_verifying(cache, monkeypatch, capsys):
    """It leaves size and times as they were."""
    monkeypatch.setattr(kept, "_state", lambda file: [1])
    monkeypatch.setattr(kept.random, "sample", lambda blocks, count: [3, 4])
    sha256 = load(NAME).sha256
    turned(file_of(cache))  # in block 10
    assert load(NAME).sha256 == sha256 and not capsys.readouterr().err
    assert cli.main(["prepare", NAME, "--verify"]) == 0
    said = capsys.readouterr()
    assert "was cut or changed" in said.err and "as it was written" not in said.out
    assert cli.main(["prepare", NAME, "--verify"]) == 0
    said = capsys.readouterr()
    assert not said.err and "as it was written, all of it: 14 KiB" in said.out and sha256 in said.out
    turned(file_of(cache))
    monkeypatch.setattr(kept.random, "sample", lambda blocks, count: [10, 4])
    load(NAME)
    assert "was cut or changed" in capsys.readouterr().err


def test_a_small_set_is_prepared_in_a_moment_and_nothing_is_kept(monkeypatch, capsys, cache):
    monkeypatch.setattr(disk, "LARGE", 2**27)
    assert cli.main(["prepare", NAME]) == 0
    said = capsys.readouterr().out
    assert "60 training images" in said and "nothing is kept of it" in said and not cache.exists()


def test_without_room_it_is_said_before_anything_is_written(cache, monkeypatch, capsys):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1024))
    found = load(NAME)
    said = capsys.readouterr().err.splitlines()
    assert not isinstance(found.train_images, np.memmap) and not list(cache.iterdir())
    assert any("1 KiB left" in line and "11 KiB" in line for line in said)
    assert_same(load(NAME), found)


def test_where_nothing_may_be_written_it_is_said_and_costs_nothing_else(cache, capsys):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder would be")
    found = load(NAME)
    said = capsys.readouterr().err
    assert len(found.train_images) == 60 and said.count("\n") == 1 and "XDG_CACHE_HOME" in said


def test_what_could_not_be_made_leaves_nothing_nor_does_a_process_that_was_killed(cache, monkeypatch):
    def broken(*_):
        raise UserError("no")

    monkeypatch.setattr(shapes, "draw", broken)
    here = platform.node()
    for name in (f"{here}-999999999-x", f"{here}-{os.getpid()}-x", "elsewhere-999999999-x"):
        (cache / f"{name}.part").mkdir(parents=True)
    with pytest.raises(UserError):
        load(NAME)
    assert {path.name for path in cache.iterdir()} == {f"{here}-{os.getpid()}-x.part", "elsewhere-999999999-x.part"}


# Folders


@pytest.fixture
def root(tmp_path):
    return two_classes(tmp_path / "pictures")


def of(root, **options):
    return load(f"folder:{root}", **options)


def test_of_a_folder_that_is_as_it_was_no_picture_is_opened(root, monkeypatch):
    first = of(root)
    monkeypatch.setattr(decoded, "key_of", None)
    monkeypatch.setattr(folders, "read_picture", None)
    assert_same(of(root), first)
    assert_same(load(f"folder:{root.name}", root.parent), first._replace(name=f"folder:{root.name}"))
    monkeypatch.chdir(root.parent)
    assert_same(load(f"folder:{root.name}"), first._replace(name=f"folder:{root.name}"))
    assert_same(of(root), first)


def test_a_picture_that_changed_came_went_or_has_another_name_is_seen(root):
    hashes = [of(root).sha256]
    picture(root / "cat" / "3.png", 999)
    hashes.append(of(root).sha256)
    picture(root / "cat" / "9.png", 998)
    hashes.append(of(root).sha256)
    (root / "dog" / "1.png").unlink()
    hashes.append(of(root).sha256)
    (root / "dog").rename(root / "fox")
    hashes.append(of(root).sha256)
    assert len(set(hashes)) == 5


def test_a_change_that_leaves_size_and_time_of_writing_is_seen(root):
    file = root / "cat" / "3.png"
    first, before = of(root), file.stat()
    data = bytearray((root / "cat" / "2.png").read_bytes())
    file.write_bytes(bytes(data))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert of(root).sha256 != first.sha256


def test_a_label_in_the_table_that_changed_is_seen(tmp_path):
    root = tmp_path / "flat"
    root.mkdir()
    for i in range(12):
        picture(root / f"{i}.png", i)
    (root / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(12)))
    first = of(root)
    (root / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,{'ba'[i % 2]}\n" for i in range(12)))
    assert of(root).sha256 != first.sha256


def test_what_is_read_another_way_is_another_set_and_both_are_kept(root, monkeypatch, cache):
    first, small = of(root), of(root, size=8)
    assert len(list(cache.glob("*.json"))) == 2
    monkeypatch.setattr(sources, "_read", None)
    assert_same(of(root), first)
    assert_same(of(root, size=8), small)


def test_images_in_the_order_of_the_decoded_folder_are_kept_there_alone(tmp_path, cache):
    root = tmp_path / "split"
    for part in ("train", "test"):
        two_classes(root / part)
    found = of(root)
    (account,) = cache.glob("*.json")
    arrays = json.loads(account.read_text())["arrays"]
    assert not list(cache.glob("*images.u8")) and isinstance(found.train_images, np.memmap)
    assert all(re.match(r"decoded/\w+\.u8$", arrays[name]["file"]) for name in ("train_images", "test_images"))
    assert_same(of(root), found)


# Arrays


def saved(path, save=np.savez, **changes):
    random = np.random.default_rng(0)
    arrays = {"train_images": (60, 8, 8, 3), "test_images": (12, 8, 8, 3), "unlabelled_images": (9, 8, 8, 3)}
    arrays = {name: random.integers(0, 256, shape, np.uint8) for name, shape in arrays.items()}
    arrays |= {"train_labels": np.arange(60) % 3, "test_labels": np.arange(12) % 3}
    save(path, **arrays | changes)
    return arrays | changes


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_a_large_file_go_onto_the_disk_and_the_file_is_not_opened_again(save, tmp_path, monkeypatch, cache):
    arrays = saved(tmp_path / "a.npz", save)
    first = load(f"npz:{tmp_path / 'a.npz'}")
    both = np.concatenate([arrays["train_images"], arrays["unlabelled_images"]])
    np.testing.assert_array_equal(first.train_images, both)
    np.testing.assert_array_equal(first.test_images, arrays["test_images"])
    assert isinstance(first.train_images, np.memmap) and len(list(cache.glob("*.json"))) == 1
    monkeypatch.setattr(np, "load", None)
    assert_same(load(f"npz:{tmp_path / 'a.npz'}"), first)
    monkeypatch.undo()


def test_a_file_of_arrays_that_was_saved_again_is_read_again(tmp_path):
    arrays = saved(tmp_path / "a.npz")
    first = load(f"npz:{tmp_path / 'a.npz'}")
    saved(tmp_path / "a.npz", train_images=arrays["train_images"] ^ 1)
    assert load(f"npz:{tmp_path / 'a.npz'}").sha256 != first.sha256


def test_a_bit_that_turned_in_a_file_of_arrays_is_damage(tmp_path):
    arrays = saved(tmp_path / "a.npz")
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[data.index(arrays["train_images"].tobytes()) + 5_000] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(UserError, match="it is damaged"):
        load(f"npz:{tmp_path / 'a.npz'}")


def test_parts_are_joined_in_order():
    parts = [np.full((n, 8, 8, 3), n, np.uint8) for n in (2, 7, 0, 4)]
    np.testing.assert_array_equal(disk.joined(parts, disk.in_memory), np.concatenate(parts))


# tensorflow-datasets


def test_a_set_of_array_records_is_told_by_the_files_beside_its_account(tmp_path):
    version = tmp_path / "birds" / "1.0.0"
    version.mkdir(parents=True)
    (version / "birds-train.array_record").write_bytes(bytes(100))
    asked = sources.ask("birds", tmp_path, None, False, False)
    assert sources.origin(asked) is None  # not prepared to its end
    (version / "dataset_info.json").write_text("{}")
    first = sources.origin(asked)
    assert first == sources.origin(asked) and str(tmp_path / "birds") in first.place
    (version / "birds-train.array_record").write_bytes(bytes(101))
    assert sources.origin(asked).place == first.place and sources.origin(asked).stamp != first.stamp


def test_a_name_that_is_a_folder_of_pictures_is_no_set_of_array_records(tmp_path):
    (tmp_path / "pictures" / "a" / "b" / "c").mkdir(parents=True)
    assert sources.origin(sources.ask("pictures", tmp_path, None, False, False)) is None


# A process that is killed on the way


@pytest.fixture
def noted(monkeypatch):
    """Work is noted after each ten images, not after seconds."""
    monkeypatch.setattr(halfway, "NOTED", 0)
    monkeypatch.setattr(shapes, "ROWS", 10)


def cut_after(monkeypatch, module, name, times):
    """Ctrl-C comes when a function is called once more than so many times."""
    own, left = getattr(module, name), iter(range(times))

    def called(*arguments, **options):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return own(*arguments, **options)

    monkeypatch.setattr(module, name, called)
    with pytest.raises(KeyboardInterrupt):
        load(NAME)
    monkeypatch.setattr(module, name, own)


@pytest.mark.parametrize(
    ("module", "name", "times", "there"),
    [
        (shapes, "draw", 35, 30),  # in the fourth ten of training images: each is of ten shapes
        (shapes, "draw", 65, 60),  # in the first ten of tests
        (kept, "_hash", 0, 72),  # when all is drawn
    ],
)
def test_a_cut_set_goes_on_where_it_was(cache, noted, drawings, monkeypatch, capsys, module, name, times, there):
    cut_after(monkeypatch, module, name, times)
    (left,) = cache.glob("*.part")
    assert {path.suffix for path in left.iterdir()} <= {"", ".u8", ".json"}
    drawings.clear()
    found = load(NAME)
    assert sum(drawings) == 72 - there and "images are there already" in capsys.readouterr().err
    assert not list(cache.glob("*.part"))
    monkeypatch.setattr(disk, "LARGE", 2**27)
    assert_same(found, load(NAME))


def test_what_was_noted_of_other_files_or_damaged_is_not_gone_on_with(cache, noted, drawings, monkeypatch):
    cut_after(monkeypatch, shapes, "draw", 35)
    (note,) = cache.glob("*.part/0.json")
    note.write_text(note.read_text().replace("30", "50"))
    drawings.clear()
    load(NAME)
    assert sum(drawings) == 72


def test_where_another_process_makes_the_same_set_each_makes_its_own(cache, noted, monkeypatch, drawings):
    own = shapes.draw

    def draw(*arguments):
        monkeypatch.setattr(shapes, "draw", own)
        inside.append(load(NAME))
        files.extend(file_of(cache, array).stat().st_ino for array in kept.ARRAYS)
        return own(*arguments)

    inside, files = [], []
    monkeypatch.setattr(shapes, "draw", draw)
    assert_same(load(NAME), inside[0])
    # what the other has mapped is not replaced: on a network file system that would end it
    assert [file_of(cache, array).stat().st_ino for array in kept.ARRAYS] == files
    assert sum(drawings) == 2 * 72 and not list(cache.glob("*.part"))


def test_work_that_nobody_goes_on_with_is_removed_after_a_week(cache, noted, monkeypatch):
    cut_after(monkeypatch, shapes, "draw", 35)
    load("shapes:8:70")
    (left,) = cache.glob("*.part")
    monkeypatch.setattr(halfway.time, "time", lambda own=time.time: own() + halfway.LEFT + 60)
    load("shapes:8:80")
    assert not list(cache.glob("*.part")), left
