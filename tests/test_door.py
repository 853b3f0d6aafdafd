"""The door for Python: `ssl_gen.train` by keywords, and the run that it and `ssl_gen.load` give."""

import dataclasses
import importlib
import json
import re
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from finished import RECIPES

import ssl_gen
from ssl_gen.evaluation import inference
from ssl_gen.methods import METHODS
from ssl_gen.methods.classical import linear, supervised
from ssl_gen.reports.records import Stop
from ssl_gen.runs.data import load_data

TINY = supervised.Config(steps=7, labelled_batch=4, hidden=(4,))
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def keywords(tmp_path_factory):
    """A run that was asked for by keywords."""
    out = tmp_path_factory.mktemp("keywords") / "run"
    return ssl_gen.train("supervised", TINY, dataset="digits", labels=30, seeds=2, steps=4, out=str(out), quiet=True)


@pytest.fixture
def pair(finished):
    """A run of two seeds that samples by class and classifies."""
    return ssl_gen.load(finished("m2"))


@pytest.fixture
def checked(finished):
    """A run with a validation split."""
    return ssl_gen.load(finished("calibrated"))


def test_keywords_are_the_options_and_steps_those_of_the_config(keywords):
    assert keywords.record.options["labels"] == "30" and keywords.record.seeds == [0, 1]
    assert keywords.record.config["steps"] == keywords.final.steps == 4
    assert (keywords.folder / "report.html").exists() and len(keywords.metrics["error"]["per_seed"]) == 2


def test_a_config_and_options_as_objects_give_the_same_run(keywords, tmp_path):
    options = ssl_gen.Options(labels="30", seeds=2, out=tmp_path / "run", quiet=True)
    config = dataclasses.replace(TINY, steps=4)
    same = ssl_gen.train("supervised", config, options)
    assert same.metrics == keywords.metrics
    again = ssl_gen.train("supervised", config, ssl_gen.Options(labels="99", seeds=2), labels=30, out=tmp_path / "run")
    assert again.final == same.final


def test_a_run_draws_the_class_that_it_is_asked_for(pair):
    images = pair.sample(label=3, count=6, seed=4, replica=1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, pair.draw(np.full(6, 3), 4, 1))
    np.testing.assert_array_equal(images, pair.sample(label="3", count=6, seed=4, replica=1))
    np.testing.assert_array_equal(pair.sample(count=12), pair.draw(np.arange(12) % 10))


def test_a_run_from_its_folder_is_the_run_that_training_gave(keywords, pair, finished):
    back = ssl_gen.load(keywords.folder)
    assert back.metrics == keywords.metrics and back.record == keywords.record
    np.testing.assert_array_equal(back.classify(IMAGES), keywords.classify(IMAGES))
    again = ssl_gen.train("m2", RECIPES["m2"].config, finished.options("m2", pair.folder))
    np.testing.assert_array_equal(again.sample(label=0, count=3), pair.sample(label=0, count=3))


def test_without_a_validation_split_there_is_no_temperature(keywords):
    assert keywords.final.temperature is None and not keywords.calibrated
    assert "temperature" not in json.loads((keywords.folder / "final.json").read_text())


def test_each_seed_has_the_temperature_of_its_validation_images(checked):
    images, labels = load_data(ssl_gen.Options(labels="100", seeds=2, validation=200)).validation
    for state, temperature in zip(checked.states, checked.final.temperature, strict=True):
        logits = inference.probabilities(checked.compiled, state, images).astype(np.float64)

        def nll(t, logits=logits):
            return -scipy.special.log_softmax(logits / t, -1)[np.arange(len(labels)), labels].mean()

        assert nll(temperature) <= min(nll(t) for t in (1, 0.99 * temperature, 1.01 * temperature))


def test_classifying_scales_each_seed_by_its_temperature(checked):
    assert checked.calibrated
    logits = [inference.probabilities(checked.compiled, state, IMAGES) for state in checked.states]
    parts = [
        scipy.special.softmax(each.astype(np.float64) / t, -1)
        for each, t in zip(logits, checked.final.temperature, strict=True)
    ]
    np.testing.assert_allclose(checked.classify(IMAGES), np.mean(parts, 0), rtol=1e-6)


def test_a_seed_that_stopped_has_no_say(checked):
    stops, temperatures = [Stop(seed, 3, "loss", "nan") for seed in (0, 1)], checked.final.temperature
    final = dataclasses.replace(checked.final, stopped=stops[:1], temperature=[None, temperatures[1]])
    first = checked._replace(final=final)
    alone = dataclasses.replace(checked.final, temperature=temperatures[1:])
    record = dataclasses.replace(checked.record, seeds=[1])
    second = checked._replace(record=record, states=checked.states[1:], final=alone)
    assert first.calibrated
    np.testing.assert_array_equal(first.classify(IMAGES), second.classify(IMAGES))
    with pytest.raises(ssl_gen.UserError, match="every seed"):
        checked._replace(final=dataclasses.replace(final, stopped=stops)).classify(IMAGES)


def knowing(module, images, labels):
    """The method of `module`, but these images it classifies right, and no image with much confidence."""
    flat, truth = images.reshape(len(images), -1), np.eye(10)[labels]

    def make(config, spec):
        method = module.make(config, spec)

        def classify(state, batch):
            known = (np.float32(flat)[None] == ((batch + 1) * 127.5).round().reshape(len(batch), 1, -1)).all(-1)
            sure = jnp.log(jnp.where(known @ truth > 0, 0.91, 0.01))
            return jnp.where(known.any(-1, keepdims=True), sure, method.classify(state, batch))

        return method._replace(classify=classify)

    found = types.ModuleType(module.__name__, module.__doc__)
    found.Config, found.State, found.PAPER, found.make = module.Config, module.State, module.PAPER, make
    return found


def test_a_seed_that_no_temperature_mends_loses_no_run(tmp_path, monkeypatch):
    """All validation images right: T would be 0."""
    validation = load_data(ssl_gen.Options(labels="100", validation=200)).validation
    monkeypatch.setitem(METHODS, "supervised", knowing(supervised, *validation))
    result = ssl_gen.train("supervised", TINY, labels=100, validation=200, out=tmp_path / "run", quiet=True, steps=4)
    final = json.loads((tmp_path / "run" / "final.json").read_text())
    assert final["temperature"] == [None] and "seed 0: no temperature is best" in final["unmeasured"]["temperature"]
    assert not result.calibrated and np.allclose(result.classify(IMAGES).sum(-1), 1)


WRONG = {
    "an unknown option": ({"lables": 30}, "labels"),
    "a wrong type": ({"seeds": "two"}, "seeds is 'two'"),
    "a wrong choice": ({"replicas": "side by side"}, "'auto' or 'loop'"),
    "no such budget": ({"labels": "few"}, "few"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_keyword_is_answered_in_one_line(mistake, tmp_path):
    fields, words = WRONG[mistake]
    with pytest.raises(ssl_gen.UserError, match=words) as raised:
        ssl_gen.train("supervised", TINY, **{"out": tmp_path / "run", **fields})
    assert "\n" not in str(raised.value) and not (tmp_path / "run").exists()


def test_steps_of_a_method_that_has_none_and_unknown_methods_are_refused():
    with pytest.raises(ssl_gen.UserError, match="fitted in one go"):
        ssl_gen.train("linear", steps=5)
    with pytest.raises(ssl_gen.UserError, match="triple_gan"):
        ssl_gen.train("tripel_gan")


def test_a_method_of_ones_own_is_trained_and_loaded_by_its_name(tmp_path, monkeypatch):
    """A file outside the package, here a copy of one that is in it."""
    (tmp_path / "mine.py").write_text(Path(linear.__file__).read_text())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ssl_gen.METHODS, "mine", importlib.import_module("mine"))
    run = ssl_gen.train("mine", dataset="digits", labels=30, out=tmp_path / "run", quiet=True)
    assert (run.record.method, run.record.family) == ("mine", "mine")
    assert ssl_gen.load(tmp_path / "run").classify(IMAGES).shape == (5, 10)


def test_what_a_run_cannot_do_is_answered_in_one_line(pair, checked, finished):
    with pytest.raises(ssl_gen.UserError, match="did you mean"):
        pair.sample(label=10)
    with pytest.raises(ssl_gen.UserError, match="give one of 0 to 1"):
        pair.sample(replica=2)
    with pytest.raises(ssl_gen.UserError, match="no generator"):
        checked.sample()
    with pytest.raises(ssl_gen.UserError, match=re.escape("uint8 (B, 8, 8, 1), not float64 (5, 8, 8, 1)")):
        pair.classify(IMAGES / 255)
    with pytest.raises(ssl_gen.UserError, match="obey no label"):
        ssl_gen.load(finished("gan")).sample(label=3)


def test_a_run_that_was_stopped_says_how_it_goes_on(pair):
    with pytest.raises(ssl_gen.UserError, match="goes on with it: ssl-gen train m2"):
        _ = pair._replace(final=None).metrics


def test_every_door_opens():
    for name in ssl_gen.__all__:
        assert getattr(ssl_gen, name) is not None
    assert ssl_gen.export.load and Path(ssl_gen.export.__file__).name == "export.py"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ssl_gen.nothing
