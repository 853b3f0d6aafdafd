"""Whatever a stranger's table, folder or arrays hold: what is read back is what was written, or one line refuses it."""

import collections
import csv
import io
import tempfile
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ssl_gen.datasets.dataset import HIDDEN, Dataset
from ssl_gen.datasets.label_table import read_table
from ssl_gen.datasets.sources import load
from ssl_gen.types import UserError

WORDS = [
    "cat",
    "Cat",
    "maple, red",
    'the "big" one',
    "unlabelled",
    "Unlabeled",
    "-1",
    "nan",
    "None",
    "?",
    "",
    " ",
    "NULL",
]
WORDS += [
    "unknown",
    "n/a",
    "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
    "cafe\N{COMBINING ACUTE ACCENT}",
    "01",
    "1",
    "a\nb",
]
LABELS = st.one_of(st.sampled_from(WORDS), st.text(max_size=12))
often = settings(
    max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
seldom = settings(often, max_examples=40)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("stranger")


def one_line(error: UserError) -> bool:
    return len(str(error).splitlines()) == 1


def composed(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip()).strip()


def is_plain(text: str) -> bool:
    """Has it nothing that must be escaped?"""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def agrees(written: list[str], read: list[str | None]) -> bool:
    """Are plain names read as written, the same names the same, others others?"""
    pairs = [(composed(a), b) for a, b in zip(written, read, strict=True) if b is not None]
    forward, back = dict(pairs), {b: a for a, b in pairs}
    same = all(forward[a] == b and back[b] == a for a, b in pairs)
    return same and all(a == b for a, b in pairs if is_plain(a))


@often
@given(st.lists(LABELS, min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_labels_in_a_table_are_read_as_written_or_refused(place, labels, ending, marked):
    file = io.StringIO(newline="")
    table = csv.writer(file, lineterminator=ending)
    table.writerow(["file", "label"])
    table.writerows([f"{i}.png", label] for i, label in enumerate(labels))
    (place / "labels.csv").write_bytes(file.getvalue().encode("utf-8-sig" if marked else "utf-8"))
    try:
        found = read_table(place / "labels.csv")
    except UserError as error:
        assert one_line(error)
        return
    assert list(found) == [f"{i}.png" for i in range(len(labels))]
    assert agrees(labels, list(found.values()))
    assert any(found.values())


@often
@given(
    st.lists(st.lists(LABELS, max_size=4), max_size=6), st.sampled_from(["file,label", "label,file", "file,label,x"])
)
def test_rows_without_quotes_keep_their_number_of_fields_or_are_refused(place, rows, header):
    lines = [",".join(fields) for fields in rows if is_plain("".join(fields))]
    (place / "labels.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    try:
        found = read_table(place / "labels.csv")
    except UserError as error:
        assert one_line(error)
        return
    columns = header.split(",")
    kept = [line for line in lines if line.replace(",", "").strip()]
    assert len(found) == len(kept)  # no row was merged with another, cut or dropped
    assert all(line.count(",") < len(columns) or '"' in line for line in kept)


@often
@given(st.binary(max_size=60))
def test_any_bytes_are_a_table_or_refused(place, data):
    (place / "labels.csv").write_bytes(b"file,label\na.png,cat\n" + data)
    try:
        assert read_table(place / "labels.csv")["a.png"] == "cat"
    except UserError as error:
        assert one_line(error)


FILE_NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
FOLDERS = st.one_of(st.sampled_from([word for word in WORDS if word and "/" not in word]), FILE_NAMES)


@seldom
@given(st.dictionaries(FOLDERS.filter(lambda name: name.strip(".")), st.integers(2, 4), min_size=1, max_size=4))
def test_folders_are_read_as_the_classes_they_are_named_or_refused(place, folders):
    with tempfile.TemporaryDirectory(dir=place) as root:
        level = 0
        for name, count in folders.items():
            Path(root, name).mkdir()
            for i in range(count):
                level += 1
                Image.fromarray(np.full((8, 8), level, np.uint8)).save(Path(root, name, f"{i}.png"))
        try:
            data = load(f"folder:{root}", keep_copies=True)
        except UserError as error:
            assert one_line(error)
            return
    counts = collections.Counter(data.class_names[k] for k in (*data.train_labels, *data.test_labels) if k != HIDDEN)
    written = {composed(name): count for name, count in folders.items() if not name.startswith(".")}
    plain = {name: count for name, count in written.items() if is_plain(name)}
    hidden = int((data.train_labels == HIDDEN).sum())
    assert {name: count for name, count in counts.items() if name in plain}.items() <= plain.items()
    passed = sum(map(len, data.reading.left_out.values()))
    assert counts.total() + hidden + passed == sum(folders.values())  # every picture is somewhere


DTYPES = st.sampled_from([np.uint8, np.int8, np.int32, np.int64, np.uint64, np.float32, bool])
SOME_LABELS = st.one_of(
    st.integers(-3, 4), st.sampled_from([2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**63 - 1, -(2**31) - 1, 255, 256])
)
KEYS = [*("train_images", "train_labels", "test_images", "test_labels", "x_train", "y_train", "x_test", "y_test")]
EXTRA = [
    *("unlabelled_images", "unlabeled_images", "x_unlabelled", "Unlabeled", "extra", "train_image", "classes", "x")
]


@often
@given(st.lists(SOME_LABELS, min_size=6, max_size=6), DTYPES, st.sampled_from([KEYS[:4], KEYS[4:]]))
def test_labels_of_arrays_are_read_as_written_or_refused(place, labels, dtype, keys):
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8), np.uint8)
    try:
        train = np.array([*labels, 0, 1]).astype(dtype)
    except OverflowError:
        return
    np.savez(place / "x.npz", **dict(zip(keys, (images, train, images[::-1], np.array([0, 1] * 4)), strict=True)))
    try:
        data = load(f"npz:{place / 'x.npz'}", keep_copies=True)
    except UserError as error:
        assert one_line(error)
        return
    np.testing.assert_array_equal(data.train_labels.astype(object), train.astype(object))
    np.testing.assert_array_equal(data.train_images[..., 0], images)


@often
@given(st.sets(st.sampled_from([*KEYS, *EXTRA]), max_size=8), st.booleans())
def test_no_array_is_dropped(place, keys, whole):
    keys = keys | set(KEYS[:4]) if whole else keys
    random = np.random.default_rng(0)
    made = {
        key: np.arange(8) % 2
        if "labels" in key or key.startswith("y_")
        else random.integers(0, 256, (8, 8, 8), np.uint8)
        for key in sorted(keys)
    }
    np.savez(place / "x.npz", **made)
    try:
        data = load(f"npz:{place / 'x.npz'}")
    except UserError as error:
        assert one_line(error)
        return
    images = sum(len(array) for key, array in made.items() if array.ndim == 3)
    assert len(data.train_images) + len(data.test_images) == images


@often
@given(st.data())
def test_damaged_arrays_are_read_as_they_were_or_refused(place, data):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)
    np.savez(
        place / "x.npz",
        train_images=images,
        train_labels=[0, 1, 0, 1],
        test_images=images[::-1],
        test_labels=[0, 1] * 2,
    )
    found = bytearray((place / "x.npz").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        found[data.draw(st.integers(0, len(found) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (place / "x.npz").write_bytes(found[: data.draw(st.sampled_from([len(found), len(found) // 2]))])
    try:
        read = load(f"npz:{place / 'x.npz'}", keep_copies=True)
    except UserError as error:
        assert one_line(error)
        return
    np.testing.assert_array_equal(read.train_images[..., 0], images)


def test_an_archive_that_lies_about_its_size_is_refused(tmp_path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 28, 28), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for key in KEYS[:4]:
            archive.writestr(f"{key}.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(UserError, match="it is damaged"):
        load(f"npz:{tmp_path / 'x.npz'}")


def pictures(root: Path, names: list[str]) -> None:
    for level, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(level).integers(0, 256, (8, 8), np.uint8)).save(root / name)


def test_a_table_may_name_files_in_folders(tmp_path):
    pictures(tmp_path, ["a/0.png", "a/1.png", "b/0.png", "b/1.png", "b/2.png"])
    (tmp_path / "labels.csv").write_text(
        "file,label,probability\na/0.png,x,1\n./a/1.png,y,1\nb/0.png,x,1\nb/1.png,y,1\n"
    )
    data: Dataset = load(f"folder:{tmp_path}")
    assert data.class_names == ("x", "y") and (data.train_labels == HIDDEN).sum() == 1


def test_a_table_finds_a_file_whose_name_is_typed_in_another_form_of_unicode_or_in_other_bytes(tmp_path):
    names = [unicodedata.normalize("NFD", f"\N{LATIN SMALL LETTER E WITH ACUTE}{i}.png") for i in range(4)]
    pictures(tmp_path, [*names, "caf\udce9.png"])
    rows = [f"{unicodedata.normalize('NFC', name)},{'ab'[i % 2]}" for i, name in enumerate(names)]
    (tmp_path / "Labels.CSV").write_text("\n".join(["File, Label", *rows, r"caf\xe9.png,a"]) + "\n", encoding="utf-8")
    data = load(f"folder:{tmp_path}")
    assert len(data.train_labels) + len(data.test_labels) == 5 and HIDDEN not in data.train_labels


@pytest.mark.parametrize("word", ["Unlabelled", "UNLABELED", "unlab", "None", "nan", "-1"])
def test_a_folder_of_any_word_for_no_label_is_unlabelled(word, tmp_path):
    pictures(tmp_path, [f"{c}/{i}.png" for c in ("cat", "dog", word) for i in range(3)])
    data = load(f"folder:{tmp_path}")
    assert data.class_names == ("cat", "dog") and (data.train_labels == HIDDEN).sum() == 3


def test_labels_beyond_int32_are_no_other_class(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)
    labels = np.array([0, 1, 2**32 + 1, 0])
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=labels, test_images=images, test_labels=[0, 1, 0, 1])
    with pytest.raises(UserError, match=f"a label {2**32 + 1}, beyond int32"):
        load(f"npz:{tmp_path / 'x.npz'}")


@pytest.mark.parametrize(
    ("name", "meant"), [("pics", "folder:pics"), ("x.npz", "npz:x.npz"), ("./pics", "folder:./pics")]
)
def test_a_path_without_its_kind_is_answered_with_it(name, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path, ["pics/cat/0.png"])
    np.savez("x.npz", a=1)
    with pytest.raises(UserError, match=f"is there: did you mean {meant}?"):
        load(name)
