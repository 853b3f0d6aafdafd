"""`--labeller RUN`: an earlier run's guesses for methods that learn them, and no label that is hidden from both."""

import itertools
import json

import jax
import numpy as np
import pytest
from PIL import Image
from tiny import numbers, same

from ssl_gen import cli
from ssl_gen.core.plain import from_plain
from ssl_gen.datasets.batches import UNTOLD
from ssl_gen.datasets.masking import Scheme
from ssl_gen.methods.diffusion import flow_matching
from ssl_gen.reports import records
from ssl_gen.runs import labeller, load, train
from ssl_gen.runs.data import feed, load_data
from ssl_gen.runs.options import Options
from ssl_gen.training.segments import Segment
from ssl_gen.types import UserError

CONFIG = flow_matching.Config(steps=2, labelled_batch=4, unlabelled_batch=4, widths=(8,))


@pytest.fixture(scope="module")
def options(finished):
    """What a run is asked for that learns the guesses of `linear`, a run of 30 labels and two seeds."""
    return Options(labels="30", seeds=2, features="pixels", samples=50, labeller=str(finished("linear")), quiet=True)


@pytest.fixture(scope="module")
def data(options):
    return load_data(options)


@pytest.fixture(scope="module")
def learnt(options, tmp_path_factory):
    """The folder of a run that learnt guesses."""
    out = tmp_path_factory.mktemp("learnt") / "run"
    return train.train("flow_matching", CONFIG, changed(options, out=out, seeds=1, evaluators=())).folder


def changed(options, **changes):
    return from_plain(Options, {**vars(options), **changes})


def method(unlabelled="guessed"):
    return flow_matching.make(flow_matching.Config(unlabelled=unlabelled), load_data(Options(labels="30")).spec)


def tables(options, data, unlabelled="guessed"):
    """What each seed is told."""
    return labeller.told(method(unlabelled), data, labeller.open_labeller(options, data))


def probabilities(finished, data):
    """Of the classifier of each seed, (N, K)."""
    run = load.load(finished("linear"))
    scaled = data.dataset.train_images.astype(np.float32) / 127.5 - 1
    return [np.exp(np.asarray(run.compiled.method.classify(state, scaled))) for state in run.states]


def test_a_hidden_label_is_the_classifiers_guess_and_a_visible_one_stands(options, data, finished):
    for found, mask, expected in zip(tables(options, data), data.masks, probabilities(finished, data), strict=True):
        hidden = mask.labels < 0
        np.testing.assert_array_equal(found[~hidden], mask.labels[~hidden])
        np.testing.assert_array_equal(found[hidden], expected.argmax(-1)[hidden])
        assert 0.05 < (found != data.dataset.train_labels).mean() < 0.7  # guesses, not the labels themselves


def test_a_guess_that_is_not_confident_is_none(options, data, finished):
    asked = changed(options, confident=0.6)
    for found, mask, expected in zip(tables(asked, data), data.masks, probabilities(finished, data), strict=True):
        hidden = mask.labels < 0
        unsure = expected.max(-1) < 0.6
        assert 0 < (hidden & unsure).sum() < hidden.sum()
        np.testing.assert_array_equal(found == UNTOLD, hidden & unsure)


def test_labels_are_drawn_from_the_probabilities_where_that_is_asked_for(options, data, finished):
    asked = changed(options, guesses="drawn", confident=0.6)
    for found, mask, expected in zip(tables(asked, data), data.masks, probabilities(finished, data), strict=True):
        hidden = mask.labels < 0
        np.testing.assert_array_equal(found[~hidden], np.eye(10)[mask.labels[~hidden]])
        kept = np.where(expected.max(-1, keepdims=True) < 0.6, 0, expected)
        np.testing.assert_allclose(found[hidden], kept[hidden], atol=1e-5)


def test_with_null_only_visible_labels_are_told_and_with_left_out_nothing_is(data, options):
    asked = changed(options, labeller=None)
    for found, mask in zip(tables(asked, data, "null"), data.masks, strict=True):
        np.testing.assert_array_equal(found, mask.labels)
    assert tables(asked, data, "left_out") is None


def test_guesses_that_are_the_true_labels_make_the_run_with_all_labels(data, options):
    """A step sees its rows and nothing else, and they are the same: of labels in the mask none is among them."""
    ceiling = load_data(changed(options, labels="all", labeller=None))
    segment, phases = Segment(0, 0, 5, 9), method().phases
    truth = [data.dataset.train_labels.astype(np.int32)] * 2
    found, expected = (
        feed(data, phases, truth)(segment),
        feed(ceiling, phases, labeller.told(method(), ceiling, None))(segment),
    )
    assert found.labelled.size == found.labels.size == 0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (expected.guesses >= 0).all()


def test_a_run_says_whose_guesses_it_learnt_comes_back_and_is_the_same_run_again(learnt, options):
    record = records.load_run(learnt)
    assert record.labeller.method == "linear" and record.labeller.guesses == "favourite"
    assert "--labeller" in record.command and "path" not in json.dumps(vars(record.labeller))
    run = load.load(learnt)
    assert run.sample(3, count=2).shape == (2, 8, 8, 1)
    again = train.train("flow_matching", CONFIG, changed(options, out=learnt, seeds=1, evaluators=()))
    assert again.final == run.final
    assert same(load.load(learnt).states[0].field.params, run.states[0].field.params)
    assert all(np.isfinite(leaf).all() for leaf in numbers(jax.tree.leaves(run.states[0].field.params)))


@pytest.mark.parametrize("changes", [{"guesses": "drawn"}, {"confident": 0.5}], ids=str)
def test_a_folder_of_some_guesses_refuses_others(learnt, options, changes):
    with pytest.raises(UserError, match="labeller"):
        train.train("flow_matching", CONFIG, changed(options, out=learnt, seeds=1, evaluators=(), **changes))


def test_a_labeller_of_other_labels_data_or_seeds_would_leak_and_is_refused(options):
    for changes in ({"labels": "40"}, {"seeds": 3}, {"mask": Scheme(seed=5)}, {"mask": Scheme(kind="uniform")}):
        with pytest.raises(UserError, match="the run of --labeller saw other labels"):
            train.prepare("flow_matching", CONFIG, changed(options, **changes))
    with pytest.raises(UserError, match="the run of --labeller was trained on other data"):
        train.prepare("flow_matching", CONFIG, changed(options, validation=100))


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """The folder of a labeller that saw the same images at 12 x 12 pixels."""
    out = tmp_path_factory.mktemp("larger") / "run"
    asked = Options(labels="30", seeds=2, size=12, features="pixels", out=out, quiet=True)
    return train.train("linear", None, asked).folder


def test_a_labeller_guesses_on_the_images_at_its_own_size(options, data, larger):
    asked = changed(options, labeller=str(larger))
    opened = labeller.open_labeller(asked, data)
    run, seen = load.load(larger), load_data(changed(options, size=12, labeller=None)).dataset.train_images
    assert seen.shape[1:] == (12, 12, 1) and opened.record.height == 12
    for replica, (found, mask) in enumerate(zip(tables(asked, data), data.masks, strict=True)):
        expected = run.log_probabilities(replica, seen).argmax(-1)
        np.testing.assert_array_equal(found, np.where(mask.labels < 0, expected, mask.labels))


def test_a_labeller_of_another_size_may_see_no_other_labels_or_data(options, larger):
    asked = changed(options, labeller=str(larger))
    for changes, match in (
        ({"labels": "40"}, "saw other labels"),
        ({"mask": Scheme(seed=5)}, "saw other labels"),
        ({"validation": 100}, "trained on other data"),
        ({"missing_pixels": 0.1}, "trained on other data"),
    ):
        with pytest.raises(UserError, match=match):
            train.prepare("flow_matching", CONFIG, changed(asked, **changes))


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_a_labeller_of_a_size_at_which_other_images_are_left_out_is_refused(tmp_path):
    """A chequered training image is a copy of a test image at 8 x 8 pixels, and none at 16 x 16."""
    rng, pictures = np.random.default_rng(0), tmp_path / "pictures"
    for split, name, number in itertools.product(("train", "test"), ("cat", "dog"), range(12)):
        save(pictures / split / name / f"{number}.png", rng.integers(0, 256, (16, 16), np.uint8))
    flat = rng.integers(64, 192, (8, 8)).repeat(2, 0).repeat(2, 1)
    save(pictures / "test" / "cat" / "flat.png", flat.astype(np.uint8))
    chequers = 60 * (-1) ** np.indices((16, 16)).sum(0)
    asked = Options(dataset=f"folder:{pictures}", labels="8", size=16, features="pixels", quiet=True)

    def opened(name):
        train.train("linear", None, changed(asked, out=tmp_path / name))
        small = changed(asked, size=8, labeller=str(tmp_path / name))
        return labeller.open_labeller(small, load_data(small))

    assert opened("before").record.height == 16
    save(pictures / "train" / "cat" / "3.png", (flat + chequers).astype(np.uint8))
    with pytest.raises(UserError, match="leaves out other images"):
        opened("after")


def test_a_seed_alone_takes_its_own_guesses(options, data):
    alone = changed(options, seeds=1, first_seed=1)
    np.testing.assert_array_equal(tables(alone, load_data(alone))[0], tables(options, data)[1])


def complaint(capsys, method, *arguments):
    """The one line that a mistake is answered with."""
    capsys.readouterr()
    assert cli.main(["train", method, "--labels", "30", *(str(argument) for argument in arguments)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("ssl-gen: "), said
    return said


def test_what_does_not_go_with_a_labeller_is_answered_in_one_line(finished, capsys, tmp_path):
    flow, given = "flow_matching", ("--labeller", finished("linear"))
    out = ("--seeds", "2", "--out", tmp_path / "run")
    assert "supervised with these settings takes none" in complaint(capsys, "supervised", *given, *out)
    for name in ("edm", "mean_flow", "r3gan"):
        assert f"{name} learns labels that an earlier run guessed: give --labeller RUN" in complaint(capsys, name, *out)
        assert "takes none" in complaint(capsys, name, *given, "--config.unlabelled", "left_out", *out)
    assert "dual_pseudo_training with these settings takes none" in complaint(
        capsys, "dual_pseudo_training", *given, *out
    )
    null = ("--config.unlabelled", "null")
    assert "takes none" in complaint(capsys, flow, *given, *null, *out)
    assert "give --labeller RUN" in complaint(capsys, flow, *out)
    assert "of --labeller RUN: give it" in complaint(capsys, flow, *null, "--confident", "0.9", *out)
    assert "--confident is 2" in complaint(capsys, flow, *given, "--confident", "2", *out)
    assert "no classifier" in complaint(capsys, flow, "--labeller", finished("pca"), *out)
    assert "there is no run folder" in complaint(capsys, flow, "--labeller", tmp_path / "none", *out)
    assert "leave out --mask.disjoint" in complaint(capsys, flow, *null, "--mask.disjoint", *out)
    assert not (tmp_path / "run").exists()
