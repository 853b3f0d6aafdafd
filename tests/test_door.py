"""The door for Python: `ssl_gen.train` by keywords, and the run that it and `ssl_gen.load` give."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.special

import ssl_gen
from ssl_gen import run
from ssl_gen.methods.adversarial import triple_gan
from ssl_gen.methods.classical import supervised

PAIR = triple_gan.Config(
    steps=7, labelled_batch=4, unlabelled_batch=4, generated_batch=4, classifier_generated=4, latent=4,
    generator_hidden=(4,), discriminator_hidden=(4, 4), classifier_hidden=(4,),
)  # fmt: skip
TINY = supervised.Config(steps=30, labelled_batch=8, hidden=(8,))
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    out = tmp_path_factory.mktemp("pair") / "run"
    return ssl_gen.train("triple_gan", PAIR, dataset="digits", labels=30, seeds=2, steps=4, out=str(out), quiet=True)


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A run with a validation split."""
    out = tmp_path_factory.mktemp("checked") / "run"
    return ssl_gen.train("supervised", TINY, labels=100, seeds=2, validation=200, out=out, quiet=True)


def test_keywords_are_the_options_and_steps_those_of_the_config(pair):
    assert pair.about["options"]["labels"] == "30" and pair.about["seeds"] == [0, 1]
    assert pair.about["config"]["steps"] == pair.final["steps"] == 4
    assert (pair.folder / "report.html").exists() and len(pair.metrics["error"]["per_seed"]) == 2


def test_a_config_and_options_as_objects_give_the_same_run(pair, tmp_path):
    options = ssl_gen.Options(labels="30", seeds=2, out=tmp_path / "run", quiet=True)
    config = triple_gan.Config(**{**PAIR.__dict__, "steps": 4})
    same = ssl_gen.train("triple_gan", config, options)
    assert same.metrics == pair.metrics
    again = ssl_gen.train("triple_gan", config, ssl_gen.Options(labels="99", seeds=2), labels=30, out=tmp_path / "run")
    assert again.final == same.final


def test_a_run_draws_the_class_that_it_is_asked_for(pair):
    images = pair.sample(label=3, count=6, seed=4, replica=1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, run.sample(pair, np.full(6, 3), 4, 1))
    np.testing.assert_array_equal(images, pair.sample(label="3", count=6, seed=4, replica=1))
    np.testing.assert_array_equal(pair.sample(count=12), run.sample(pair, np.arange(12) % 10))


def test_a_run_from_its_folder_is_the_run_that_training_gave(pair):
    back = ssl_gen.load(pair.folder)
    assert back.metrics == pair.metrics
    np.testing.assert_array_equal(back.sample(label=0, count=3), pair.sample(label=0, count=3))
    np.testing.assert_array_equal(back.classify(IMAGES), pair.classify(IMAGES))


def test_without_a_validation_split_there_is_no_temperature(pair):
    assert "temperature" not in pair.final and not pair.calibrated


def test_each_seed_has_the_temperature_of_its_validation_images(checked):
    images, labels = run.load_data(ssl_gen.Options(labels="100", seeds=2, validation=200)).validation
    for state, temperature in zip(checked.states, checked.final["temperature"], strict=True):
        logits = run.evaluation.probabilities(checked.tools, state, images).astype(np.float64)

        def nll(t, logits=logits):
            return -scipy.special.log_softmax(logits / t, -1)[np.arange(len(labels)), labels].mean()

        assert nll(temperature) <= min(nll(t) for t in (1, 0.99 * temperature, 1.01 * temperature))


def test_classifying_scales_each_seed_by_its_temperature(checked):
    assert checked.calibrated
    logits = [run.evaluation.probabilities(checked.tools, state, IMAGES) for state in checked.states]
    parts = [
        scipy.special.softmax(each.astype(np.float64) / t, -1)
        for each, t in zip(logits, checked.final["temperature"], strict=True)
    ]
    np.testing.assert_allclose(checked.classify(IMAGES), np.mean(parts, 0), rtol=1e-6)


def test_a_seed_that_stopped_has_no_say(checked):
    final = {**checked.final, "stopped": [{"seed": 0}], "temperature": [None, checked.final["temperature"][1]]}
    first = checked._replace(final=final)
    alone = {**checked.final, "temperature": checked.final["temperature"][1:]}
    second = checked._replace(about={**checked.about, "seeds": [1]}, states=checked.states[1:], final=alone)
    assert first.calibrated
    np.testing.assert_array_equal(first.classify(IMAGES), second.classify(IMAGES))
    with pytest.raises(ssl_gen.UserError, match="every seed"):
        checked._replace(final={**final, "stopped": [{"seed": 0}, {"seed": 1}]}).classify(IMAGES)


def test_a_seed_that_no_temperature_mends_loses_no_run(tmp_path, monkeypatch):
    """All validation images right: T would be 0."""
    data = run.load_data(ssl_gen.Options(labels="100", validation=200))
    truth = {image.tobytes(): label for image, label in zip(*data.validation, strict=True)}
    real = run.evaluation.probabilities

    def knowing(tools, state, images):
        found = real(tools, state, images)
        for row, image in zip(found, images, strict=True):
            if image.tobytes() in truth:
                row[:] = np.where(np.arange(10) == truth[image.tobytes()], np.log(0.91), np.log(0.01))
        return found

    monkeypatch.setattr(run.evaluation, "probabilities", knowing)
    result = ssl_gen.train("supervised", TINY, labels=100, validation=200, out=tmp_path / "run", quiet=True, steps=4)
    final = json.loads((tmp_path / "run" / "final.json").read_text())
    assert final["temperature"] == [None] and "seed 0: no temperature is best" in final["unmeasured"]["temperature"]
    assert not result.calibrated and np.allclose(result.classify(IMAGES).sum(-1), 1)


WRONG = {
    "an unknown option": ({"lables": 30}, "labels"),
    "a wrong type": ({"seeds": "two"}, "seeds is 'two'"),
    "a wrong choice": ({"replicas": "side by side"}, "auto or loop"),
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


def test_what_a_run_cannot_do_is_answered_in_one_line(pair, checked):
    with pytest.raises(ssl_gen.UserError, match="did you mean"):
        pair.sample(label=10)
    with pytest.raises(ssl_gen.UserError, match="replica one of 0 to 1"):
        pair.sample(replica=2)
    with pytest.raises(ssl_gen.UserError, match="no generator"):
        checked.sample()
    with pytest.raises(ssl_gen.UserError, match=re.escape("uint8 (B, 8, 8, 1), not float64 (5, 8, 8, 1)")):
        pair.classify(IMAGES / 255)
    unlabelled = pair._replace(tools=pair.tools._replace(method=pair.tools.method._replace(conditional=False)))
    with pytest.raises(ssl_gen.UserError, match="obey no label"):
        unlabelled.sample(label=3)


def test_a_run_that_was_stopped_says_how_it_goes_on(pair):
    with pytest.raises(ssl_gen.UserError, match="goes on with it: ssl-gen train triple_gan"):
        _ = pair._replace(final=None).metrics


def test_every_door_opens():
    for name in ssl_gen.__all__:
        assert getattr(ssl_gen, name) is not None
    assert ssl_gen.export.load and Path(ssl_gen.export.__file__).name == "export.py"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ssl_gen.nothing
