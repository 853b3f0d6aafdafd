"""The one walk over files: what is an image, what is passed over and why, for training and predict alike."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_gen.datasets.folders import read_to_fit
from ssl_gen.datasets.layout import first_look
from ssl_gen.datasets.sources import load
from ssl_gen.datasets.walk import (
    BROKEN_LINK,
    CLOSED,
    IN_HIDDEN,
    NO_IMAGE,
    READ_ALREADY,
    SPECIAL,
    SYSTEM_FILE,
    Walk,
    walk,
)
from ssl_gen.types import UserError


def picture(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(level).integers(0, 256, (9, 9, 3), np.uint8)).save(path)
    return path


def names(root: Path, found: Walk) -> tuple[list[str], dict[str, list[str]]]:
    def below(paths: list[Path]) -> list[str]:
        return [os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace") for path in paths]

    return below(found.images), {why: below(paths) for why, paths in found.passed.items()}


@pytest.mark.parametrize(
    ("files", "kinds"),
    [
        (("cat/0.png", "dog/0.JPG", "notes/read.me"), ["cat", "dog"]),
        (("train/cat/0.png", "train/dog/0.png", "test/cat/0.png", "test/dog/0.png"), ["cat", "dog"]),
        (("0.png", "labels.csv"), ["labels.csv"]),
        (("docs/0.png", "src/code.py"), []),
        (("labels.csv", "code.py"), []),
        (("a/b/0.png", "c/d/0.png"), []),
        ((), []),
    ],
)
def test_a_first_look_tells_a_folder_of_pictures_from_others(files, kinds, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("never opened")
    assert first_look(tmp_path) == kinds
    assert first_look(tmp_path / "nowhere") == []


def pipe(path: Path) -> None:
    os.mkfifo(path)


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.path.relpath(path))  # the length of an absolute one is limited


ZOO = {  # what is put beside a.png -> what is found of it
    "b.PNG": (lambda p: picture(p.with_suffix(".png")).rename(p), "image"),
    "b.JPeG": (lambda p: picture(p.with_suffix(".jpg")).rename(p), "image"),
    "b.jfif": (lambda p: picture(p.with_suffix(".jpg")).rename(p), "image"),
    "sub/b.png": (picture, "image"),
    "b c \N{SNOWMAN}.png": (picture, "image"),
    "caf\udce9.png": (picture, "image"),
    "line\nbreak.png": (picture, "image"),
    "link.png": (lambda p: p.symlink_to("a.png"), "image"),
    ".b.png": (picture, SYSTEM_FILE),
    "._a.png": (lambda p: p.write_bytes(b"\0\5\x16\7"), SYSTEM_FILE),
    "Thumbs.db": (lambda p: p.write_bytes(b"x"), SYSTEM_FILE),
    "DESKTOP.INI": (lambda p: p.write_bytes(b"x"), SYSTEM_FILE),
    ".thumbnails/b.png": (picture, IN_HIDDEN),
    "__MACOSX/b.png": (picture, IN_HIDDEN),
    "@eaDir/deep/er/b.png": (picture, IN_HIDDEN),
    "b.tif": (lambda p: Image.new("RGB", (9, 9)).save(p), NO_IMAGE),
    "notes.txt": (lambda p: p.write_text("x"), NO_IMAGE),
    "b": (lambda p: p.write_bytes(b"x"), NO_IMAGE),
    "b.png.part": (lambda p: p.write_bytes(b"x"), NO_IMAGE),
    "nowhere.png": (lambda p: p.symlink_to("/nowhere/b.png"), BROKEN_LINK),
    "self.png": (lambda p: p.symlink_to("self.png"), BROKEN_LINK),
    "loop": (lambda p: p.symlink_to("."), READ_ALREADY),
    "pipe.png": (pipe, SPECIAL),
    "zero.png": (lambda p: p.symlink_to("/dev/zero"), SPECIAL),
    "socket.png": (bound, SPECIAL),
}


def put(root: Path, name: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    ZOO[name][0](root / name)


@pytest.mark.parametrize("name", ZOO)
def test_each_kind_of_file_is_found_or_passed_over_with_its_reason(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    put(tmp_path, name)
    shown = os.fsencode(name).decode("utf-8", "backslashreplace")
    images, passed = names(tmp_path, walk(tmp_path))
    kind = ZOO[name][1]
    assert (sorted(images), passed) == (
        (sorted(["a.png", shown]), {}) if kind == "image" else (["a.png"], {kind: [shown]})
    )


def test_a_linked_folder_is_entered_once_and_by_its_own_name_where_it_has_one(tmp_path):
    picture(tmp_path / "elsewhere" / "b.png")
    picture(tmp_path / "here" / "z" / "a.png")
    (tmp_path / "here" / "a").symlink_to("z")
    (tmp_path / "here" / "linked").symlink_to("../elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to("../here")
    images, passed = names(tmp_path / "here", walk(tmp_path / "here"))
    assert images == ["linked/b.png", "z/a.png"] and passed == {READ_ALREADY: ["a", "linked/back"]}


def test_folders_that_link_to_each_other_are_each_read_once(tmp_path):
    """Twelve folders with links to all: paths through them without a repeat are more than ten to the eighth."""
    for i in range(12):
        picture(tmp_path / str(i) / "a.png", i)
        for j in range(12):
            (tmp_path / str(i) / f"to{j}").symlink_to(f"../{j}")
    found = walk(tmp_path)
    assert len(found.images) == 12 and len(found.passed[READ_ALREADY]) == 144


@pytest.fixture
def stranger():
    """A user who may not read what is root's; a test of permissions as root says nothing."""
    if os.geteuid() == 0:
        os.seteuid(54321)
        yield
        os.seteuid(0)
    else:
        yield


@pytest.fixture
def closed(tmp_path):
    picture(tmp_path / "cat" / "a.png")
    picture(tmp_path / "dog" / "b.png")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(0o755)
    (tmp_path / "dog").chmod(0)
    return tmp_path


def test_a_folder_that_cannot_be_opened_is_named_by_training_and_predict(closed, stranger):
    for act in (lambda: load(f"folder:{closed}"), lambda: read_to_fit(closed, (9, 9, 3), False), lambda: walk(closed)):
        with pytest.raises(UserError, match=f"{closed / 'dog'} cannot be opened"):
            act()
    assert names(closed, walk(closed, skip_unreadable=True)) == (["cat/a.png"], {CLOSED: ["dog"]})
    assert read_to_fit(closed, (9, 9, 3), True)[2].left_out == {CLOSED: ["dog"]}


def test_a_path_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "p.png")
    for act in (lambda: read_to_fit(tmp_path / "p.png", (9, 9, 3), False), lambda: load(f"npz:{tmp_path / 'p.png'}")):
        with pytest.raises(UserError, match=r"p\.png"):
            act()


def zoo_folder(root: Path, random: np.random.Generator) -> dict[str, list[str]]:
    """Two classes and some of the zoo in each; returns what was put where, by kind."""
    put_in: dict[str, list[str]] = {}
    for k, name in enumerate(("cat", "dog")):
        for i in range(3):
            picture(root / name / f"_{i}.png", 10 * k + i + 1)
        for creature in random.permutation(list(ZOO))[:4]:
            if ZOO[creature][1] not in ("image", READ_ALREADY) and not (root / name / creature).exists():
                put(root / name, creature)
                put_in.setdefault(ZOO[creature][1], []).append(f"{name}/{creature}")
    return put_in


@pytest.mark.parametrize("seed", range(40))
def test_a_folder_of_odd_things_is_read_whole_or_refused_by_name_and_never_hangs(seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put_in = zoo_folder(tmp_path / "zoo", np.random.default_rng(seed))
    (tmp_path / "zoo").mkdir(exist_ok=True)
    asked = [path for kind, paths in put_in.items() if kind not in (SYSTEM_FILE, IN_HIDDEN) for path in paths]
    if asked:
        with pytest.raises(UserError, match="is no image") as refused:
            load("folder:zoo")
        assert any(path in str(refused.value) for path in asked) and "\n" not in str(refused.value)
    data = load("folder:zoo", skip_unreadable=True)
    assert len(data.train_labels) + len(data.test_labels) == 6 and data.skipped == tuple(sorted(asked))
    found = read_to_fit(Path("zoo"), (9, 9, 3), False)
    assert len(found[0]) == 6
    for account in (data.reading.left_out, found[2].left_out):
        assert {why: sorted(paths) for why, paths in account.items()} == {k: sorted(v) for k, v in put_in.items()}
