"""Evaluators: what is measured and drawn during training, where it is kept and shown, and that it changes nothing."""

import json
import shutil

import numpy as np
import pytest
from finished import RECIPES
from fragile import fragile
from PIL import Image
from tiny import same

from ssl_gen import cli
from ssl_gen.methods import METHODS
from ssl_gen.methods.adversarial import gan
from ssl_gen.metrics.metric import Metric
from ssl_gen.metrics.registry import METRICS
from ssl_gen.reports import records
from ssl_gen.reports.charts import pictures
from ssl_gen.runs import evaluate, evaluators, load, record, train
from ssl_gen.runs.data import load_data
from ssl_gen.runs.pictures import SMALL_GRID
from ssl_gen.training.segments import Every
from ssl_gen.types import UserError

FID = "samples/fid_pixels_ref=test_n=1000"
ELBO = "test/elbo_n=500"


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def moments(folder, name):
    """(step, seed) of every line of the log with this number."""
    return [(line["step"], line["seed"]) for line in lines(folder) if name in line]


def drawn(folder):
    """The pictures of a run by step, in bytes."""
    return {int(path.stem): path.read_bytes() for path in (folder / "samples").iterdir()}


def test_a_generator_without_a_classifier_draws_pictures_at_five_moments(finished):
    folder = finished("gan")
    assert sorted(drawn(folder)) == [2, 4, 6, 8, 10]
    assert len(set(drawn(folder).values())) == 5  # it learns
    for step in drawn(folder):
        text = pictures.read_text(folder / "samples" / f"{step}.png")
        assert text["method"] == "gan" and text["mask"] == "digits@30-s0"
    assert moments(folder, "test/error") == []


def test_the_report_shows_the_pictures_over_time(finished):
    page = (finished("gan") / "report.html").read_text()
    shown = [page.index(f"<figcaption>step {step}</figcaption>") for step in (2, 4, 6, 8, 10)]
    assert shown == sorted(shown) and page.count("<img") == 5 + 1


def test_the_last_picture_is_the_beginning_of_the_samples_of_the_finished_run(finished):
    """The same images, of which a grid shows more."""
    run, folder = load.load(finished("gan")), finished("gan")
    images = run.draw(np.tile(np.arange(10), SMALL_GRID)).reshape(SMALL_GRID, 10, 8, 8, 1)
    again = pictures.save_grid(folder.parent / "gan.png", images, None, pictures.read_text(folder / "samples.png"))
    assert again.read_bytes() == drawn(folder)[10]


def test_what_is_asked_for_is_logged_at_its_moments_under_its_name(finished):
    folder = finished("m2")
    both = [(step, seed) for step in (2, 4, 6) for seed in (0, 1)]
    assert moments(folder, FID) == both and moments(folder, ELBO) == both
    every_step = [(step, seed) for step in range(1, 7) for seed in (0, 1)]
    assert moments(folder, "test/error") == moments(folder, "validation/error") == every_step
    assert sorted(drawn(folder)) == [3, 6]
    page = (folder / "report.html").read_text()
    assert "fid_pixels_ref=test_n=1000 over training steps" in page and "elbo_n=500" in page


def test_few_samples_are_the_first_of_those_of_the_finished_run(finished, tmp_path, monkeypatch):
    seen = []

    def keep(evaluated):
        seen.append(np.array(evaluated.many))
        return {"kept": 0.0}

    monkeypatch.setitem(METRICS, "kept", Metric("of the test", ("sample",), keep, {}, usual=False))
    monkeypatch.setattr(evaluators, "FEW_SAMPLES", 50)
    folder = finished.copy("m2", tmp_path / "run")
    job = train.prepare("m2", RECIPES["m2"].config, finished.options("m2", folder, evaluators=("kept:6",)))
    (during,) = evaluators.make(job.asked, folder, "m2", job.compiled, job.data, job.reference())
    for replica, state in enumerate(load.load(folder).states):
        assert during.measure(6, replica, state) == {"samples/kept": 0.0}
    evaluate.evaluate(folder, ("kept",))
    assert [len(each) for each in seen] == [50, 50, 200, 200]
    for few, of_the_end in zip(seen[:2], seen[2:], strict=True):
        np.testing.assert_array_equal(few, of_the_end[:50])
    assert not np.array_equal(*seen[:2])


def test_the_bound_of_few_test_images_is_that_of_the_finished_run_which_has_as_many(finished):
    final = records.load_final(finished("m2")).metrics
    last = [line[ELBO] for line in lines(finished("m2")) if line["step"] == 6 and ELBO in line]
    assert last == final["elbo"]["per_seed"]


def test_the_errors_of_the_log_are_those_of_the_split_that_they_name(finished):
    run, data = load.load(finished("m2")), load_data(finished.options("m2", finished("m2")))
    last = [line for line in lines(run.folder) if line["step"] == 6 and "test/error" in line]
    assert [line["seed"] for line in last] == [0, 1]
    for replica, line in enumerate(last):
        for split, (images, labels) in {
            "test": (data.dataset.test_images, data.dataset.test_labels),
            "validation": data.validation,
        }.items():
            guesses = run.log_probabilities(replica, images).argmax(1)
            assert line[f"{split}/error"] == pytest.approx(100 * (guesses != labels).mean())
        assert line["test/error"] == run.metrics["error"]["per_seed"][replica]
    assert all(line["test/error"] != line["validation/error"] for line in last)  # so that this test can tell


@pytest.fixture
def several(finished):
    """A run, its data as if its seeds were 4 and 9, and what it is measured against."""
    run, options = load.load(finished("m2")), finished.options("m2", finished("m2"))
    data = load_data(options)._replace(seeds=[4, 9])
    return run, data, evaluate.make_reference(data, options)


def test_each_seed_is_measured_at_the_end_with_its_own_state_mask_and_seed(several, monkeypatch):
    run, data, reference = several
    seen = {}
    monkeypatch.setattr(record, "measure", lambda names, evaluated, seeds, unmeasured: seen.update(evaluated) or {})
    sampler = run.sampler(temperature=0.5)
    record.measure_seeds(run.compiled, data, {1: run.states[1], 0: run.states[0]}, reference, ("error",), sampler)
    assert set(seen) == {4, 9} and all(each.sampler is sampler for each in seen.values())
    for replica, seed in enumerate((4, 9)):
        assert seen[seed].seed == seed and seen[seed].state is run.states[replica]
        assert seen[seed].visible is data.masks[replica].labels and seen[seed].pool is data.masks[replica].pool
    assert not np.array_equal(data.masks[0].labels, data.masks[1].labels)


def test_each_seed_is_measured_on_the_way_with_its_own_state_mask_and_seed(several, tmp_path, monkeypatch):
    """Samples are few and the real images all; a bound is of few test images."""
    run, data, reference = several
    monkeypatch.setattr(evaluators, "FEW_IMAGES", 120)
    monkeypatch.setattr(evaluators, "attempted", lambda metric, evaluated: seen.append(evaluated) or ({"a": 1.0}, ""))
    asked, seen = [evaluators.Asked("fid", 2), evaluators.Asked("elbo", 2)], []
    made = evaluators.make(asked, tmp_path, "m2", run.compiled, data, reference)
    found = [evaluator.measure(2, 1, run.states[1]) for evaluator in made]
    assert found == [{"samples/a": 1.0}, {"test/a_n=120": 1.0}]
    for each in seen:
        assert each.seed == 9 and each.state is run.states[1]
        assert each.visible is data.masks[1].labels and each.pool is data.masks[1].pool
    fid, elbo = seen
    assert len(fid.many_labels) == 1_000 and fid.test_images is data.dataset.test_images
    rows = evaluators.few_rows(data.dataset.test_labels, 10)
    np.testing.assert_array_equal(elbo.test_images, data.dataset.test_images[rows])
    np.testing.assert_array_equal(elbo.test_labels, data.dataset.test_labels[rows])


def test_the_record_says_how_often_each_ran(finished):
    every = records.load_run(finished("m2")).every
    assert every == {"log": 6, "evaluate": 1, "checkpoint": 2, "fid": 2, "elbo": 2, "samples": 3}


def test_without_a_number_all_but_the_error_come_at_five_moments_at_which_the_error_is_measured():
    every = Every(log=100, evaluate=2000, checkpoint=5000)
    words = ("error", "samples", "fid", "elbo:300")
    asked = [tuple(each) for each in evaluators.parse(words, 50_000, every)]
    assert asked == [("error", 2000), ("samples", 10_000), ("fid", 10_000), ("elbo", 300)]
    asked = evaluators.parse(("samples",), 12, Every(2, 4, 3))
    assert asked == [("samples", 4)]
    assert evaluators.parse(("error:7",), 12, Every(2, 4, 3)) == [("error", 7)]


def test_the_error_is_measured_as_often_as_it_is_asked_for(finished, tmp_path):
    options = finished.options("supervised", tmp_path / "run", evaluators=("error:6",), evaluate_every=None)
    train.train("supervised", RECIPES["supervised"].config, options)
    assert moments(tmp_path / "run", "test/error") == [(step, seed) for step in (6, 12) for seed in (0, 1)]


def test_evaluators_change_no_bit_of_what_is_learnt(finished, tmp_path):
    options = finished.options("m2", tmp_path / "run", evaluators=())
    result = train.train("m2", RECIPES["m2"].config, options)
    assert not (result.folder / "samples").exists()
    assert not any(name.startswith(("test/", "samples/")) for line in lines(result.folder) for name in line)
    without, with_them = load.load(result.folder).states, load.load(finished("m2")).states
    assert all(same(a, b) for a, b in zip(without, with_them, strict=True))
    before, after = records.load_final(finished("m2")).metrics, result.final.metrics
    assert {name: before[name] for name in after} == after
    assert all("error_" in name for name in before.keys() - after.keys())


def test_a_run_that_is_resumed_has_the_same_pictures_and_lines(finished, tmp_path):
    """It was killed a step after its checkpoint of step 4, while it drew the picture of step 6."""
    name, step = "m2", 4
    whole, folder = finished(name), finished.copy(name, tmp_path / "run")
    for file in ("final.json", "samples.png", "report.html"):
        (folder / file).unlink()
    for path in (folder / "checkpoints").iterdir():
        if path.name.isdecimal() and int(path.name) > step:
            shutil.rmtree(path)
    picture = folder / "samples" / "6.png"
    picture.write_bytes(picture.read_bytes()[:40])
    kept = [line for line in lines(folder) if line["step"] <= step + 1]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept) + '{"step": 6')
    train.train(name, RECIPES[name].config, finished.options(name, folder))
    assert lines(folder) == lines(whole) and drawn(folder) == drawn(whole)
    assert (folder / "samples.png").read_bytes() == (whole / "samples.png").read_bytes()
    assert records.load_final(folder).metrics == records.load_final(whole).metrics


def test_other_evaluators_are_another_run(finished, tmp_path):
    folder = finished.copy("gan", tmp_path / "run")
    with pytest.raises(UserError, match="every") as refused:
        train.train("gan", RECIPES["gan"].config, finished.options("gan", folder, evaluators=("samples:5",)))
    assert "\n" not in str(refused.value) and "--out" in str(refused.value)


def test_pictures_are_those_of_the_first_seed_that_goes_on(finished, tmp_path, monkeypatch):
    """The first seed stops at step 4 of 10, so the second draws from there on."""
    monkeypatch.setitem(METHODS, "fragile", fragile(gan, "discriminator/real", seed=0, step=3))
    options = finished.options("gan", tmp_path / "run", seeds=2, evaluators=("samples:2",))
    result = train.train("fragile", RECIPES["gan"].config, options)
    masks = {step: pictures.read_text(result.folder / "samples" / f"{step}.png")["mask"] for step in (2, 4, 6, 8, 10)}
    assert masks == {2: "digits@30-s0"} | dict.fromkeys((4, 6, 8, 10), "digits@30-s1")
    first = [np.asarray(Image.open(folder / "samples" / "2.png")) for folder in (result.folder, finished("gan"))]
    np.testing.assert_array_equal(*first)


def test_a_metric_that_cannot_be_had_stops_no_run(finished, tmp_path, monkeypatch, capsys):
    """It is said once; the rest of the run is as without it."""

    def measure(evaluated):
        raise UserError("3 samples are too few")

    monkeypatch.setitem(METRICS, "few", Metric("of the test", ("classify",), measure, {}, usual=False))
    options = finished.options("supervised", tmp_path / "run", evaluators=("error", "few:4"))
    result = train.train("supervised", RECIPES["supervised"].config, options)
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if "few" in line] == ["few was not measured at step 4: 3 samples are too few"]
    assert lines(result.folder) == lines(finished("supervised"))
    assert result.final.metrics == records.load_final(finished("supervised")).metrics


WRONG = {
    "an unknown name": ("gan", "fids", "there is no evaluator fids"),
    "no number of steps": ("gan", "fid:", "NAME or NAME:STEPS"),
    "steps that are no number": ("gan", "fid:often", "NAME or NAME:STEPS"),
    "no steps": ("gan", "fid:0", "a number of steps above 0"),
    "steps below 0": ("gan", "samples:-3", "a number of steps above 0"),
    "half a step": ("gan", "samples:2.5", "a number of steps above 0"),
    "a bound of a method without one": ("gan", "elbo", "elbo does not apply, for want of log_weight"),
    "classes of a method without them": ("gan", "agreement_svc:2", "does not apply, for want of conditional"),
    "errors of a method without a classifier": ("gan", "nll", "nll does not apply, for want of classify"),
    "samples of a method without a generator": ("supervised", "fid", "fid does not apply, for want of sample"),
    "strangers without their data set": ("supervised", "auroc", "for want of out_of_distribution"),
    "the same twice": ("gan", "fid:2 fid:3", "names fid twice"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_evaluator_is_answered_in_one_line_before_training_starts(mistake, capsys, tmp_path):
    method, evaluator, words = WRONG[mistake]
    words_given = f"train {method} --labels 30 --steps 4 --quiet --out {tmp_path}/run --evaluators {evaluator}"
    assert cli.main(words_given.split()) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and words in said
    assert not (tmp_path / "run").exists()


def test_what_few_images_are_measured_on_has_every_class_though_a_folders_come_class_by_class():
    labels = np.repeat([0, 1, 2], [600, 300, 900])
    rows = evaluators.few_rows(labels, 3)
    assert np.bincount(labels[rows]).tolist() == [167, 83, 250] and len(set(rows.tolist())) == 500
    np.testing.assert_array_equal(rows, evaluators.few_rows(labels, 3))
    np.testing.assert_array_equal(evaluators.few_rows(labels[:500], 3), range(500))
    assert evaluators.few_rows(labels[:0], 3).shape == (0,)
