"""Grids of samples: the image of each class stands in its column, under its name, by the replica that is asked for."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
from test_evaluation import STATE, Sampler

from ssl_gen import cli
from ssl_gen.datasets.dataset import Dataset
from ssl_gen.evaluation import inference
from ssl_gen.reports.charts import pictures as charts
from ssl_gen.runs import load, pictures
from ssl_gen.types import Method

NAMES = ("ant", "bee", "cat", "dog")


@pytest.fixture(scope="module")
def trained(finished):
    """A run that is there before anything is replaced."""
    return str(finished("m2"))


@pytest.fixture
def saved(monkeypatch):
    """The arguments of every grid that is saved: images, titles, text."""
    found = []

    def save_grid(path, images, titles=None, text=None):
        found.append((images, titles, text))
        path.touch()

    monkeypatch.setattr(charts, "save_grid", save_grid)
    return found


def painted(labels):
    """An image of each label, as bright as its number."""
    return np.broadcast_to(np.asarray(labels, np.uint8)[:, None, None, None], (len(labels), 8, 8, 1))


def painter(state, key, labels, sampler):
    return jnp.broadcast_to(labels[:, None, None, None] / 127.5 - 1, (len(labels), 8, 8, 1))


def draw(path, method, replica=0, **settings):
    """`draw_grid` of a run of two seeds, 4 and 9."""
    images, labels = painted(range(4)), np.arange(4, dtype=np.int32)
    masks = [types.SimpleNamespace(name=f"mask {seed}", sha256=f"{seed}" * 64) for seed in (4, 9)]
    dataset = Dataset("animals", images, labels, images, labels, NAMES)
    data = types.SimpleNamespace(dataset=dataset, seeds=[4, 9], masks=masks)
    pictures.draw_grid(path, inference.compiled(method), data, STATE, replica, "painter", **settings)


def test_a_grid_has_ten_rows_and_in_each_column_the_class_of_its_title(saved, tmp_path):
    method = Method(None, (), painter, conditional=True, sampler=Sampler())
    draw(tmp_path / "samples.png", method, replica=1)
    ((images, titles, text),) = saved
    assert images.shape == (10, 4, 8, 8, 1) and titles == list(NAMES)
    assert all((images[:, k] == k).all() for k in range(4))
    assert text == {"method": "painter", "seed": "9", "mask": "mask 9", "mask_sha256": "9" * 64}
    draw(tmp_path / "small.png", method._replace(conditional=False), rows=4)
    assert saved[1][0].shape == (4, 4, 8, 8, 1) and saved[1][1] is None and saved[1][2]["seed"] == "4"


def test_the_noise_of_a_grid_is_of_the_replicas_own_seed_and_its_setting_is_the_one_asked_for(
    saved, tmp_path, monkeypatch
):
    asked = []

    def draw_samples(compiled, state, labels, seed, sampler):
        asked.append((seed, sampler))
        return painted(labels)

    monkeypatch.setattr(pictures, "draw_samples", draw_samples)
    method = Method(None, (), painter, conditional=True, sampler=Sampler())
    draw(tmp_path / "own.png", method, replica=1)
    draw(tmp_path / "asked.png", method, replica=0, sampler=Sampler(3.0))
    assert asked == [(9, None), (4, Sampler(3.0))]


def test_sample_draws_each_class_in_its_column_by_the_seed_and_replica_asked_for(trained, saved, tmp_path, monkeypatch):
    asked = []

    def painting(self, labels, seed, replica, sampler):
        asked.append((seed, replica, sampler.temperature))
        return painted(labels)

    monkeypatch.setattr(load.Run, "draw", painting)
    words = ["--count", "3", "--seed", "6", "--replica", "1", "--sampler.temperature", "0.5"]
    assert cli.main(["sample", trained, *words, "--out", str(tmp_path / "all.png")]) == 0
    ((images, titles, text),) = saved
    assert images.shape == (3, 10, 8, 8, 1) and titles == [str(k) for k in range(10)]
    assert all((images[:, k] == k).all() for k in range(10))
    assert asked == [(6, 1, 0.5)] and text["seed"] == "1" and text["mask"] == "digits@30-s1"
    assert text["sampler"].startswith("temperature 0.5")


def test_a_file_of_its_own_holds_the_class_of_its_name(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(load.Run, "draw", lambda self, labels, *_: painted(labels))
    assert cli.main(["sample", trained, "--count", "2", "--out", str(tmp_path / "all")]) == 0
    for k in range(10):
        for number in range(2):
            path = tmp_path / "all" / f"{k}_000{number}.png"
            with charts.Image.open(path) as picture:
                assert (np.asarray(picture) == k).all()
            assert charts.read_text(path)["class"] == str(k)
