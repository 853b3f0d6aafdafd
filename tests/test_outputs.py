"""Files that a command writes: named apart, whole, and never in place of a user's."""

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_gen import cli
from ssl_gen.core import cells, names, outputs
from ssl_gen.datasets import label_table, sources
from ssl_gen.runs import load, predictions
from ssl_gen.types import UserError

# Names

ODD = ["A+", "A-", "a-", "A--0", "B", "b", "\u00e9", "e\u0301", "/", "..", "\udcff", "\u732b", "\uff21+", ""]
ODD += ["x" * 300, "x" * 299 + "y"]


def test_names_made_fit_for_files_never_merge():
    files = names.file_names(ODD)
    assert len({names.folded(each) for each in files}) == len(ODD)
    for each in files:
        assert "/" not in each and len(each.encode()) < 200


def test_a_name_that_is_fit_stays_as_it_is():
    assert names.file_names(["cat", "dog", "T-shirt/top"]) == ["cat", "dog", "T-shirt-top"]


CLASSES = {  # what is asked for, of which classes -> which it is, None: refused
    ("cat", ("cat", "dog")): 0,
    ("1", ("cat", "dog")): 1,
    ("2", ("cat", "dog")): None,
    ("3", tuple("0123456789")): 3,
    ("1", ("01", "02", "03")): None,
    ("01", ("01", "02", "03")): 0,
    ("0", ("01", "02", "03")): None,
    ("1", ("1", "2", "3")): 0,
    ("0", ("1", "2", "3")): None,
    ("1", ("cat", "7")): None,
    ("7", ("cat", "7")): 1,
    ("-1", ("cat", "dog")): None,
    ("\u0661", ("cat", "dog")): None,
    ("1.0", ("cat", "dog")): None,
    ("9" * 5000, ("cat", "dog")): None,
    (1, ("cat", "dog")): 1,
    (3, tuple("0123456789")): 3,
    (1, ("01", "02", "03")): None,
}


@pytest.mark.parametrize(("asked", "classes"), CLASSES)
def test_a_number_is_a_name_first(asked, classes):
    expected = CLASSES[asked, classes]
    if expected is None:
        with pytest.raises(UserError, match="did you mean"):
            load.find_class(asked, classes, True)
    else:
        assert load.find_class(asked, classes, True) == expected


def test_a_number_is_answered_with_the_name_that_is_that_number():
    with pytest.raises(UserError, match=r"did you mean 01\?"):
        load.find_class("1", ("01", "02", "03"), True)


# Cells

TEXTS = ["=1+1", "+1", "-1", "@x", "\tx", "'=1", "''=1", "'", "a=b", "", "cat", "'cat", "=", "-"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_cell_is_no_formula_and_reads_back_as_it_was(text):
    assert cells.from_cell(cells.to_cell(text)) == text
    assert not cells.to_cell(text).startswith(("=", "+", "-", "@", "\t"))


def test_cells_that_were_written_by_hand_are_as_they_stand():
    assert [cells.from_cell(cell) for cell in ("=1", "-a.png", "'cat")] == ["=1", "-a.png", "'cat"]


def test_a_table_of_predictions_is_read_back_as_labels(tmp_path):
    files, classes = ["-a.png", "b,c.png", "=d.png", 'e".png'], ["+1", "cat, grey"]
    for file in files:
        Image.new("L", (8, 8)).save(tmp_path / file, "PNG")
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.04, 0.96]])
    assert predictions.write_table(tmp_path / "labels.csv", files, classes, probabilities, False, 0.7) == 3
    expected = {"-a.png": "+1", "b,c.png": "cat, grey", "=d.png": None, 'e".png': "cat, grey"}
    assert label_table.read_table(tmp_path / "labels.csv") == expected


def test_names_in_a_table_are_those_from_the_folder(tmp_path):
    files = [tmp_path / "a.png", tmp_path / "in" / "b.png"]
    assert predictions.relative(files, tmp_path) == ["a.png", "in/b.png"]
    (tmp_path / "a.png").write_bytes(b"")
    assert predictions.relative(files[:1], tmp_path / "a.png") == ["a.png"]


# Places


def put(path, text="mine"):
    with outputs.replacing(path) as target:
        target.write_text(text)


def test_what_was_written_may_be_written_again(tmp_path):
    for text in ("one", "two"):
        outputs.check_free([tmp_path / "in" / "file"])
        put(tmp_path / "in" / "file", text)
    assert (tmp_path / "in" / "file").read_text() == "two" and len(list((tmp_path / "in").iterdir())) == 1


def test_what_a_user_wrote_or_changed_is_not_overwritten_unasked(tmp_path):
    theirs, changed = tmp_path / "theirs", tmp_path / "changed"
    theirs.write_text("by hand")
    put(changed)
    changed.write_text("mine, corrected")
    for path in (theirs, changed):
        with pytest.raises(UserError, match="--overwrite"):
            outputs.check_free([tmp_path / "free", path])
        outputs.check_free([path], overwrite=True)


def test_a_link_of_a_users_is_followed_and_kept(tmp_path):
    (tmp_path / "far").write_text("by hand")
    (tmp_path / "link").symlink_to(tmp_path / "far")
    with pytest.raises(UserError, match="--overwrite"):
        outputs.check_free([tmp_path / "link"])
    put(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "far").read_text() == "new"


PLACES = {
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "a pipe": (os.mkfifo, "no regular file"),
    "a name that is too long": (lambda path: None, "too long"),
    "a file for a folder": (lambda path: path.parent.write_text(""), "cannot write"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_cannot_be_written_is_one_line_before_the_work(place, tmp_path):
    make, said = PLACES[place]
    path = {"a name that is too long": tmp_path / ("x" * 300), "a file for a folder": tmp_path / "y" / "x"}.get(
        place, tmp_path / "x"
    )
    make(path)
    with pytest.raises(UserError, match=said):
        outputs.check_free([path], overwrite=True)


def test_without_a_home_files_are_written_and_taken_for_a_users(tmp_path, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    put(tmp_path / "file")
    with pytest.raises(UserError, match="--overwrite"):
        outputs.check_free([tmp_path / "file"])


def test_an_error_while_writing_leaves_the_old_file_and_no_part(tmp_path):
    put(tmp_path / "file", "old")
    with pytest.raises(UserError, match="No space left"), outputs.replacing(tmp_path / "file") as target:
        target.write_text("new")
        raise OSError(28, os.strerror(28))
    assert (tmp_path / "file").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


# Commands

OUT = {  # command -> the file that a user may have there
    "predict RUN PICTURES --out OUT/labels.csv": "labels.csv",
    "sample RUN --count 1 --out OUT/grid.png": "grid.png",
    "sample RUN --count 1 --label 3 --out OUT": "3_0000.png",
    "export RUN --out OUT": "model.json",
    "compare RUN --out OUT/compare.html": "compare.html",
}


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pictures" / "in").mkdir(parents=True)
    for number, place in enumerate(("a.png", "in/b.png", "=c.png")):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / place)
    return tmp_path / "pictures"


@pytest.mark.parametrize("command", OUT)
def test_a_command_overwrites_its_own_file_and_no_other(command, finished, pictures, tmp_path, capsys):
    out, file = tmp_path / "out", tmp_path / "out" / OUT[command]
    words = [
        word.replace("RUN", str(finished("m2"))).replace("PICTURES", str(pictures)).replace("OUT", str(out))
        for word in command.split()
    ]
    assert cli.main(words) == 0 and file.is_file()
    assert cli.main(words) == 0
    file.write_bytes(b"by hand")
    capsys.readouterr()
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert str(file) in said.err and "--overwrite" in said.err and said.err.count("\n") == 1 and not said.out
    assert file.read_bytes() == b"by hand"
    assert cli.main([*words, "--overwrite"]) == 0 and file.read_bytes() != b"by hand"


def test_predictions_do_not_lie_where_labels_do_unless_they_are_asked_to(finished, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("file,label\na.png,cat\n")
    assert cli.main(["predict", str(finished("m2")), str(pictures), "--confident", "1"]) == 0
    assert (tmp_path / "labels.csv").read_text() == "file,label\na.png,cat\n"
    rows = list(csv.DictReader(io.StringIO((tmp_path / "predictions.csv").read_text())))
    assert [row["file"] for row in rows] == ["'=c.png", "a.png", "in/b.png"] and not any(row["label"] for row in rows)


def test_predict_gives_each_file_the_favourite_of_the_runs_own_probabilities(finished, tmp_path):
    """Digits under names in no order; the run's two seeds are of one mind about some."""
    images = sources.load("digits").test_images[:40]
    (tmp_path / "pictures" / "in").mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(
            tmp_path / "pictures" / ("in" if number % 3 else "") / f"{7 * number % 40}.png"
        )
    run, rows = load.load(finished("linear")), {}
    for name, words in {"all": [], "sure": ["--confident", "0.6"]}.items():
        out = tmp_path / f"{name}.csv"
        assert cli.main(["predict", str(run.folder), str(tmp_path / "pictures"), "--out", str(out), *words]) == 0
        rows[name] = list(csv.DictReader(out.open()))
    files = [Image.open(tmp_path / "pictures" / row["file"]) for row in rows["all"]]
    found = run.classify(np.stack([np.asarray(file)[..., None] for file in files]))
    sure, guesses = found.max(1) >= 0.6, [run.record.data.class_names[k] for k in found.argmax(1)]
    assert 5 < sum(sure) < 35 and len(set(guesses)) > 5  # so that this test can tell
    for each in rows.values():
        assert [row["probability"] for row in each] == [f"{row.max():.4f}" for row in found]
    assert [row["label"] for row in rows["all"]] == guesses
    assert [row["label"] for row in rows["sure"]] == [a if b else "" for a, b in zip(guesses, sure, strict=True)]


def test_latents_leave_a_picture_that_is_not_theirs(finished, tmp_path, capsys):
    run = finished.copy("pca", tmp_path / "run")
    assert cli.main(["latents", str(run), "--count", "30"]) == 0 == cli.main(["latents", str(run), "--count", "30"])
    Image.new("L", (8, 8)).save(run / "latents_map.png")
    assert cli.main(["latents", str(run), "--count", "30"]) == 2
    assert "latents_map.png" in capsys.readouterr().err
