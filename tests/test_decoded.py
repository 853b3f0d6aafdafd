"""Large folders are decoded once: what is kept is known by content, checked, and made again where it is not whole."""

import json
import shutil
import types

import numpy as np
import pytest
from PIL import Image
from test_folders import picture, read, two_classes

from ssl_gen.core.files import say_once
from ssl_gen.datasets import decoded, disk, folders, halfway, kept


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, in which folders of ten files count as large, and of whose data sets nothing else is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded, "FEWEST", 10)
    monkeypatch.setattr(kept, "through", lambda origin, make: make(disk.in_memory))
    monkeypatch.setattr(disk, "BLOCK", 3 * 10 * 12 * 3)  # three pictures
    say_once.cache_clear()
    return tmp_path / "cache" / "ssl_gen" / "decoded"


@pytest.fixture
def decodings(monkeypatch):
    """The files that were decoded, in order."""
    seen = []
    decode = folders.read_picture
    monkeypatch.setattr(folders, "read_picture", lambda path: seen.append(path) or decode(path))
    return seen


def assert_same(a, b):
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.class_names == b.class_names and a.skipped == b.skipped and a.reading == b.reading


def test_a_folder_is_decoded_once_and_read_to_the_same_bytes_and_account(tmp_path, decodings):
    root = two_classes(tmp_path / "pictures")
    picture(root / "cat" / "grey.png", 50, mode="L")
    picture(root / "dog" / "large.png", 51, size=(40, 30))
    first = read(root)
    assert len(decodings) == 12 and first.reading.sizes["40 x 30"] == 1
    assert_same(read(root), first)
    assert len(decodings) == 12


def test_it_is_known_by_its_bytes_wherever_it_lies(tmp_path, decodings):
    first = read(two_classes(tmp_path / "pictures"))
    shutil.copytree(tmp_path / "pictures", tmp_path / "moved")
    np.testing.assert_array_equal(read(tmp_path / "moved").train_images, first.train_images)
    assert len(decodings) == 10


def test_another_size_is_decoded_for_itself(tmp_path, decodings):
    root = two_classes(tmp_path / "pictures")
    assert read(root).train_images.shape[1:3] == (12, 10) and read(root, size=8).train_images.shape[1:3] == (8, 8)
    assert len(decodings) == 20


def test_a_file_that_changed_is_seen_and_so_are_two_that_changed_places(tmp_path, decodings):
    root = two_classes(tmp_path / "pictures")
    read(root)
    new = picture(root / "cat" / "3.png", 999)
    data = read(root)
    assert len(decodings) == 20
    assert any((image == new).all() for image in (*data.train_images, *data.test_images))
    one, other = ((root / "cat" / name).read_bytes() for name in ("0.png", "1.png"))
    (root / "cat" / "0.png").write_bytes(other)
    (root / "cat" / "1.png").write_bytes(one)
    read(root)
    assert len(decodings) == 30


def test_files_that_cannot_be_read_are_named_again(tmp_path, decodings):
    root = two_classes(tmp_path / "pictures")
    (root / "cat" / "x.png").write_bytes(b"no picture")
    first = read(root, skip_unreadable=True)
    assert first.skipped == ("cat/x.png",)
    assert_same(read(root, skip_unreadable=True), first)
    assert len(decodings) == 11


def cut(path):
    path.write_bytes(path.read_bytes()[:-2])  # more than the line's end


def turned(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def longer(path):
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize("damage", [cut, turned, longer])
@pytest.mark.parametrize("kind", ["u8", "json"])
def test_what_was_cut_or_changed_is_made_again_and_said_in_a_line(kind, damage, tmp_path, cache, decodings, capsys):
    root = two_classes(tmp_path / "pictures")
    first = read(root)
    (file,) = cache.glob(f"*.{kind}")
    whole = file.read_bytes()
    damage(file)
    assert_same(read(root), first)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "was cut or changed" in said and len(decodings) == 20
    assert file.read_bytes() == whole
    read(root)
    assert len(decodings) == 20


def test_each_block_has_a_hash_of_its_own(tmp_path, cache):
    read(two_classes(tmp_path / "pictures"))
    (account,) = cache.glob("*.json")
    assert len(json.loads(account.read_text())["blocks"]) == 4  # ten pictures, three at a time


def test_where_there_is_no_room_it_is_said_before_anything_is_written(tmp_path, cache, decodings, capsys, monkeypatch):
    root = two_classes(tmp_path / "pictures")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1024))
    first = read(root)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "1 KiB left, and decoded images need 4 KiB" in said
    assert not list(cache.iterdir()) and not isinstance(first.train_images, np.memmap)
    assert_same(read(root), first)


def test_where_nothing_may_be_written_it_is_said_and_costs_nothing_else(tmp_path, cache, capsys):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder would be")
    data = read(two_classes(tmp_path / "pictures"))
    said = capsys.readouterr().err
    assert len(data.train_labels) == 8 and said.count("\n") == 1 and "XDG_CACHE_HOME" in said


def test_few_files_are_not_kept(tmp_path, cache):
    read(two_classes(tmp_path / "pictures", count=4))
    assert not cache.exists()


def test_what_another_reader_met_is_added(tmp_path):
    root = two_classes(tmp_path / "pictures")
    Image.new("RGBA", (10, 12), (0, 0, 0, 0)).save(root / "dog" / "clear.png")
    first = read(root)
    assert first.reading.modes["RGB with transparency"] == 1 and first.reading.warnings == read(root).reading.warnings


def test_what_another_process_decoded_meanwhile_is_taken_and_not_replaced(tmp_path, monkeypatch, cache):
    """It may have it mapped: on a network file system a file that goes ends who reads it."""
    root, own, inside = two_classes(tmp_path / "pictures"), folders.read_picture, []

    def decode(path):
        monkeypatch.setattr(folders, "read_picture", own)
        inside.append(read(root))
        (file,) = cache.glob("*.u8")
        inside.append(file.stat().st_ino)
        return own(path)

    monkeypatch.setattr(folders, "read_picture", decode)
    assert_same(read(root), inside[0])
    (file,) = cache.glob("*.u8")
    assert file.stat().st_ino == inside[1]


@pytest.mark.parametrize("files", [4, 9, 13])
def test_where_a_process_was_killed_the_next_goes_on(tmp_path, monkeypatch, decodings, capsys, files):
    """Among the files one that is no image, one in grey, one larger; all become 32 x 32 where the larger one comes."""
    root = two_classes(tmp_path / "pictures", 7)
    (root / "cat" / "1.png").write_bytes(b"no image")
    picture(root / "cat" / "3.png", 50, mode="L")
    picture(root / "dog" / "0.png", 51, size=(240, 30))
    monkeypatch.setattr(decoded, "FEWEST", 10**6)
    whole = read(root, skip_unreadable=True)
    monkeypatch.setattr(decoded, "FEWEST", 10)
    monkeypatch.setattr(halfway, "NOTED", 0)
    own = folders.read_picture

    def cut(path):
        if len(decodings) == files:
            raise KeyboardInterrupt
        return own(path)

    decodings.clear()
    monkeypatch.setattr(folders, "read_picture", cut)
    with pytest.raises(KeyboardInterrupt):
        read(root, skip_unreadable=True)
    monkeypatch.setattr(folders, "read_picture", own)
    decodings.clear()
    assert_same(read(root, skip_unreadable=True), whole)
    assert len(decodings) == 14 - files and f"{files} of 14 files are there already" in capsys.readouterr().err
