"""Which images to label next: the densest of each group, the unsure and diverse, and a table that is read back."""

import csv
import os
import types

import numpy as np
import pytest
from PIL import Image

from ssl_gen import cli
from ssl_gen.datasets import label_table, sources, suggesting
from ssl_gen.datasets.masking import Scheme, make_mask
from ssl_gen.runs import suggestions
from ssl_gen.runs.suggestions import suggest
from ssl_gen.types import ImageSpec, UserError

RANDOM = np.random.default_rng(0)
CENTRES = 100.0 * np.eye(5)[:, :4]
GROUPS = np.repeat(np.arange(5), [40, 30, 24, 12, 4])
POINTS = (CENTRES[GROUPS] + RANDOM.normal(size=(110, 4))).astype(np.float32)
NONE = np.zeros(110, bool)


def densest(rows, nearest=20):
    """The row whose mean distance to its nearest among `rows` is smallest, by all distances."""
    distances = np.linalg.norm(POINTS[rows][:, None] - POINTS[rows], axis=-1)
    nearest = min(nearest, len(rows) // 2)
    return rows[np.sort(distances, 1)[:, 1 : nearest + 1].mean(1).argmin()]


# The most typical


def test_typicality_is_one_over_the_mean_distance_to_the_nearest_others():
    line = np.array([[0.0], [1.0], [3.0], [7.0]])
    np.testing.assert_allclose(suggesting.typicality(line, 2), [1 / 2, 1 / 1.5, 1 / 2.5, 1 / 5])


def test_each_group_gives_its_densest_image_the_largest_group_first():
    """The group of 4 images is below the 5 that a cluster needs; nothing is labelled twice."""
    found = suggesting.typical_rows(POINTS, NONE, 5)
    assert found[:4].tolist() == [densest(np.flatnonzero(group == GROUPS)) for group in range(4)]
    assert len(set(found.tolist())) == 5 and GROUPS[found[4]] == 0


def test_groups_that_have_a_label_come_last():
    labelled = NONE.copy()
    labelled[[0, 1, 45]] = True  # of the groups 0 and 1
    found = suggesting.typical_rows(POINTS, labelled, 2)
    assert GROUPS[found].tolist() == [2, 3]


def test_small_groups_are_labelled_where_nothing_else_is_left():
    labelled = GROUPS < 4
    assert sorted(suggesting.typical_rows(POINTS, labelled, 4)) == [106, 107, 108, 109]


def test_copies_of_one_image_are_no_obstacle():
    assert sorted(suggesting.typical_rows(np.ones((6, 3)), np.zeros(6, bool), 6)) == list(range(6))


# The least certain


PROBABILITIES = RANDOM.dirichlet(np.ones(3), 30)
FEATURES = RANDOM.normal(2.0, 3.0, (30, 5))


def gradients(probabilities, features):
    """Of the last layer's weights and bias by the cross entropy of the favourite class, written out."""
    h = (features - features.mean(0)) / np.sqrt(np.square(features - features.mean(0)).sum(1).mean())
    errors = probabilities - np.eye(3)[probabilities.argmax(1)]
    return np.einsum("nk,nf->nkf", errors, np.column_stack([h, np.ones(len(h))])).reshape(len(h), -1)


def test_the_longest_gradient_comes_first():
    first = suggesting.uncertain_rows(PROBABILITIES, FEATURES, np.zeros(30, bool), 1)
    assert first.tolist() == [np.linalg.norm(gradients(PROBABILITIES, FEATURES), axis=1).argmax()]


def test_the_others_are_drawn_as_k_means_plus_plus_draws_centres():
    """In proportion to the squared distance to the nearest chosen, of gradients that are written out."""
    g, random = gradients(PROBABILITIES, FEATURES), np.random.default_rng(4)
    expected = [int(np.linalg.norm(g, axis=1).argmax())]
    while len(expected) < 8:
        squares = np.square(g[:, None] - g[expected]).sum(-1).min(1)
        squares[expected] = 0
        expected.append(int(random.choice(30, p=squares / squares.sum())))
    assert suggesting.uncertain_rows(PROBABILITIES, FEATURES, np.zeros(30, bool), 8, seed=4).tolist() == expected


def test_labelled_images_are_not_suggested_and_sure_ones_last():
    """Sure images have one gradient, 0, which is drawn once at most while others are left."""
    probabilities = PROBABILITIES.copy()
    probabilities[:20] = np.eye(3)[0]
    labelled = np.arange(30) >= 26
    found = suggesting.uncertain_rows(probabilities, FEATURES, labelled, 10)
    assert set(found[:7]) > set(range(20, 26)) and set(found[7:]) < set(range(20)) and len(set(found)) == 10


@pytest.mark.parametrize("count", [0, 111])
def test_more_than_there_are_is_refused(count):
    with pytest.raises(UserError, match=f"{count} images to label are asked for, and 110 have no label"):
        suggesting.typical_rows(POINTS, NONE, count)


def test_where_every_image_is_labelled_none_is_suggested():
    for rows in (lambda: suggesting.typical_rows(POINTS, ~NONE, 1),
                 lambda: suggesting.uncertain_rows(PROBABILITIES, FEATURES, np.ones(30, bool), 1)):  # fmt: skip
        with pytest.raises(UserError, match="every image is labelled already: there is none to label next"):
            rows()


# Masks


def test_a_mask_of_typical_images_shows_the_labels_of_those_that_are_suggested():
    images = np.clip(POINTS[:, None, :, None] + 50, 0, 255).astype(np.uint8)
    masks = [make_mask("set", GROUPS, tuple("abcde"), 4, Scheme("typical"), seed, "", images) for seed in (0, 1, 0)]
    rows = np.flatnonzero(masks[0].labels >= 0)
    assert sorted(GROUPS[rows]) == [0, 1, 2, 3] and len(masks[0].pool) == 110
    np.testing.assert_array_equal(masks[0].labels[rows], GROUPS[rows])
    assert masks[0].sha256 == masks[2].sha256 and masks[1].name == "set@4-typical-s1"


# The command


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Ten dark and ten bright pictures, none labelled."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for number in range(20):
        level = 40 if number % 2 else 200
        noise = np.random.default_rng(number).integers(-20, 20, (16, 16, 3))
        Image.fromarray((level + noise).astype(np.uint8)).save(tmp_path / "pictures" / f"{number:02d}.png")
    return tmp_path / "pictures"


def rows_of(table):
    with open(table, newline="") as handle:
        return list(csv.DictReader(handle))


def filled(table, count):
    """The first rows of a table as a person labels them."""
    rows = rows_of(table)
    for row in rows[:count]:
        row["label"] = "dark" if int(row["file"][:2]) % 2 else "bright"
    with open(table, "w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_a_folder_without_a_label_is_labelled_trained_on_and_asked_again(pictures, capsys):
    assert cli.main(["suggest", "pictures", "--count", "6", "--out", "pictures/labels.csv"]) == 0
    assert "6 images to label in pictures/labels.csv, the most typical" in capsys.readouterr().out
    rows = rows_of(pictures / "labels.csv")
    assert sorted(int(row["file"][:2]) % 2 for row in rows) == [0, 0, 0, 1, 1, 1]
    assert all(row["label"] == row["guess"] == "" for row in rows)
    assert (
        cli.main(["suggest", "pictures", "--count", "8", "--out", "pictures/labels.csv"]) == 0
    )  # none is labelled yet
    assert len(rows_of(pictures / "labels.csv")) == 8
    assert cli.main(["suggest", "pictures", "--count", "6", "--out", "pictures/labels.csv"]) == 0
    filled(pictures / "labels.csv", 6)
    assert len(label_table.read_table(pictures / "labels.csv")) == 6
    assert (
        cli.main(["train", "linear", "--dataset", "folder:pictures", "--labels", "all", "--quiet", "--out", "run"]) == 0
    )
    assert cli.main(["suggest", "run", "pictures", "--count", "3"]) == 0
    rows = rows_of("suggest.csv")
    assert all(row["label"] == "" and row["guess"] in ("dark", "bright") for row in rows[:3])
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows[:3])
    assert [row["label"] for row in rows[3:]].count("dark") == 3 and len(rows) == 9
    assert not {row["file"] for row in rows[:3]} & {row["file"] for row in rows[3:]}


def test_folders_of_classes_and_of_unlabelled_images_are_known(pictures):
    for folder, numbers in {"dark": (1, 3), "bright": (0, 2), "Unlabelled": range(4, 20)}.items():
        (pictures / folder).mkdir()
        for number in numbers:
            (pictures / f"{number:02d}.png").rename(pictures / folder / f"{number:02d}.png")
    found = suggest(pictures, 2)
    assert all(file.startswith("Unlabelled/") for file in found.files)
    assert found.labelled == {
        f"{k}/{n:02d}.png": k for k, n in (("bright", 0), ("bright", 2), ("dark", 1), ("dark", 3))
    }


def test_of_a_folder_with_train_and_test_the_table_belongs_into_train(pictures, capsys):
    for number in range(20):
        place = pictures / "test" if number < 4 else pictures / "train"
        place /= ("dark" if number % 2 else "bright") if number < 8 else "unlabelled"
        place.mkdir(parents=True, exist_ok=True)
        (pictures / f"{number:02d}.png").rename(place / f"{number:02d}.png")
    assert cli.main(["suggest", "pictures", "--count", "3", "--out", "pictures/train/labels.csv"]) == 0
    rows = rows_of(pictures / "train" / "labels.csv")
    assert [row["file"].startswith("unlabelled/") for row in rows] == [True] * 3 + [False] * 4
    for row in rows[:3]:
        row["label"] = "dark"
    with open(pictures / "train" / "labels.csv", "w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    data = sources.load("folder:pictures")
    assert (data.train_labels >= 0).sum() == 7 and len(data.test_labels) == 4


def test_a_guess_is_the_runs_favourite_class_of_its_own_file(tmp_path, monkeypatch):
    """Images say their row by their brightness, files are named in another order, and half of them have a label."""
    probabilities = np.random.default_rng(1).dirichlet(np.ones(3), 20)
    names = [f"{7 * row % 20:02d}.png" for row in range(20)]
    for row, name in enumerate(names):
        Image.fromarray(np.full((16, 16, 3), 10 * row, np.uint8)).save(tmp_path / name)
    labels = "".join(f"{names[row]},eel\n" for row in range(0, 20, 2))
    (tmp_path / "labels.csv").write_text(f"file,label\n{labels}")
    classes = ["eel", "cat", "ant"]
    run = types.SimpleNamespace(
        record=types.SimpleNamespace(data=types.SimpleNamespace(class_names=classes, spec=ImageSpec(16, 16, 3, 3))),
        compiled=types.SimpleNamespace(method=types.SimpleNamespace(encode=None)),
        classify=lambda images: probabilities[np.round(images[:, 0, 0, 0] / 10).astype(int)],
    )
    monkeypatch.setattr(suggestions, "load", lambda path: run)
    found = suggest(tmp_path, 6, "run")
    asked = [probabilities[names.index(file)] for file in found.files]
    assert found.guesses == [(classes[p.argmax()], p.max()) for p in asked] and len({g for g, _ in found.guesses}) == 3
    assert all(names.index(file) % 2 for file in found.files)
    assert found.labelled == {names[row]: "eel" for row in range(0, 20, 2)}
    rows = rows_of(found.save(tmp_path / "suggest.csv"))
    assert [(row["file"], row["guess"], row["probability"]) for row in rows[:6]] == [
        (file, guess, f"{share:.4f}") for file, (guess, share) in zip(found.files, found.guesses, strict=True)
    ]


def scanned(monkeypatch, root, act):
    """The folders whose entries are listed while something is done, of `root` and below."""
    seen, scandir = [], os.scandir
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", lambda folder=".": seen.append(folder) or scandir(folder))
        act()
    return sorted(folder for folder in seen if str(folder).startswith(str(root)))


def test_the_folders_are_walked_once(pictures, monkeypatch):
    for folder, numbers in {"dark": (1, 3), "unlabelled": range(4, 20)}.items():
        (pictures / folder).mkdir()
        for number in numbers:
            (pictures / f"{number:02d}.png").rename(pictures / folder / f"{number:02d}.png")
    for number in (0, 2):
        (pictures / f"{number:02d}.png").unlink()
    found = scanned(monkeypatch, pictures, lambda: suggest(pictures, 2))
    assert found == [pictures, pictures / "dark", pictures / "unlabelled"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["pictures", "--count", "21"], "21 images to label are asked for, and 20 have no label: give 1 to 20"),
        (["pictures", "--count", "0"], "--count is 0"),
        (["pictures", "--count", "1", "--size", "0"], "sides must be 8 to 128"),
        (["pictures", "--count", "1", "--size", "-5"], "sides must be 8 to 128"),
        (["run", "pictures", "more"], "give the folder of images"),
        (["nowhere", "pictures", "--count", "1"], "there is no run folder nowhere"),
        (["pictures", "--count", "1", "--out", "mine.csv"], "mine.csv"),
        (["pictures", "--count", "1", "--features", "none.safetensors"], "there is no none.safetensors"),
    ],
)
def test_what_cannot_be_suggested_is_one_line(pictures, capsys, words, said):
    (pictures.parent / "mine.csv").write_text("a person's")
    assert cli.main(["suggest", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert (pictures.parent / "mine.csv").read_text() == "a person's"
