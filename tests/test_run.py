"""A run from door to door: the folder it leaves, resuming, refusing, stopping."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ssl_gen import run
from ssl_gen.augmentation import Augmentation
from ssl_gen.datasets import masking
from ssl_gen.methods.adversarial import triple_gan
from ssl_gen.methods.classical import supervised
from ssl_gen.reports import pictures
from ssl_gen.setting import Options, feed, load_data
from ssl_gen.training import checkpoints, devices, folder, loop
from ssl_gen.types import UserError

TINY = supervised.Config(steps=12, labelled_batch=4, hidden=(4,))
PAIR = triple_gan.Config(
    steps=4, warm_up=0.5, labelled_batch=4, unlabelled_batch=4, generated_batch=4, classifier_generated=4, latent=4,
    generator_hidden=(4,), discriminator_hidden=(4, 4), classifier_hidden=(4,),
)  # fmt: skip


def options(tmp_path, **changes):
    chosen = {"dataset": "digits", "labels": "30", "seeds": 2, "replicas": "loop", "out": tmp_path / "run"}
    return Options(**chosen | {"quiet": True, "log_every": 2, "evaluate_every": 4, "checkpoint_every": 3} | changes)


def lines(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_a_run_folder_holds_what_it_promises(tmp_path):
    result = run.train("triple_gan", PAIR, options(tmp_path))
    about = json.loads((result.folder / "run.json").read_text())
    final = json.loads((result.folder / "final.json").read_text())
    assert about["method"] == "triple_gan" and about["seeds"] == [0, 1] and about["labels"] == 30
    assert about["config"]["augmentation"] == {**Augmentation().__dict__}
    assert [mask["name"] for mask in about["masks"]] == ["digits@30-s0", "digits@30-s1"]
    assert final["masks"] == [mask["sha256"] for mask in about["masks"]]
    error = final["metrics"]["error"]
    assert len(error["per_seed"]) == 2 and error["mean"] == pytest.approx(np.mean(error["per_seed"]))
    assert {"agreement_svc", "deviation_ratio"} <= set(final["metrics"])
    assert np.sum(final["confusion"]) == 2 * about["data"]["test"]
    text = pictures.read_text(result.folder / "samples.png")
    assert text["mask"] == "digits@30-s0" and text["mask_sha256"] == final["masks"][0]
    assert "<svg" in (result.folder / "report.html").read_text()
    assert (result.folder / "checkpoints" / "4").is_dir()


def test_the_log_has_a_line_for_every_seed_at_every_moment(tmp_path):
    result = run.train("supervised", TINY, options(tmp_path))
    trained = [(line["step"], line["seed"]) for line in lines(result.folder) if "phase" in line]
    stops = sorted({*range(2, 13, 2), *range(3, 13, 3), *range(4, 13, 4)})
    assert trained == [(step, seed) for step in stops for seed in (0, 1)]
    measured = [(line["step"], line["seed"]) for line in lines(result.folder) if "test/error" in line]
    assert measured == [(step, seed) for step in (4, 8, 12) for seed in (0, 1)]


def test_the_same_command_again_trains_nothing(tmp_path):
    first = run.train("supervised", TINY, options(tmp_path))
    before = (first.folder / "metrics.jsonl").stat().st_mtime_ns
    again = run.train("supervised", TINY, options(tmp_path))
    assert again.final == first.final
    assert (first.folder / "metrics.jsonl").stat().st_mtime_ns == before


class Stop(Exception):
    pass


def test_a_run_that_died_goes_on_to_the_same_end(tmp_path, monkeypatch):
    whole = run.train("supervised", TINY, options(tmp_path, out=tmp_path / "whole"))
    write = folder.Log.write

    def dying(self, step, seed, **values):
        write(self, step, seed, **values)
        if step == 8 and seed == 1:
            raise Stop

    monkeypatch.setattr(folder.Log, "write", dying)
    with pytest.raises(Stop):
        run.train("supervised", TINY, options(tmp_path))
    monkeypatch.undo()
    assert lines(tmp_path / "run")[-1]["step"] == 8
    resumed = run.train("supervised", TINY, options(tmp_path))
    assert resumed.final["metrics"] == whole.final["metrics"]
    assert lines(resumed.folder) == lines(whole.folder)


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        (TINY, {"labels": "40"}, ["labels 30", "40"]),
        (TINY, {"mask": masking.Scheme("uniform")}, ["mask.kind stratified", "uniform"]),
        (supervised.Config(steps=12, labelled_batch=4, hidden=(8,)), {}, ["config.hidden[0] 4", "8"]),
        (TINY, {"seeds": 3}, ["masks", "seeds"]),
    ],
)
def test_a_folder_refuses_another_run_in_one_line(tmp_path, config, changes, words):
    run.train("supervised", TINY, options(tmp_path))
    with pytest.raises(UserError) as refused:
        run.train("supervised", config, options(tmp_path, **changes))
    message = str(refused.value)
    assert "\n" not in message and "--out" in message
    assert words[0] in message or words[1] in message


def hold(path, ready, done):
    with folder.claimed(path):
        ready.set()
        done.wait(60)


def test_a_folder_that_another_process_writes_to_is_refused(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "run", ready, done))
    other.start()
    assert ready.wait(60)
    with pytest.raises(UserError, match="another process is writing"):
        run.train("supervised", TINY, options(tmp_path))
    done.set()
    other.join()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file/run"):
        run.train("supervised", TINY, options(tmp_path, out=tmp_path / "file" / "run"))


def test_hidden_labels_change_no_bit_of_a_run():
    data = load_data(Options(dataset="digits", labels="30", seeds=2))
    hidden = np.flatnonzero(data.masks[0].labels < 0)
    labels = data.dataset.train_labels.copy()
    labels[hidden] = np.random.default_rng(0).permutation(labels[hidden])
    other = data._replace(dataset=data.dataset._replace(train_labels=labels))
    method = supervised.make(TINY, data.dataset.spec)
    stretch = loop.Stretch(0, 0, 0, 5)
    first, second = (feed(each, method.phases)(stretch) for each in (data, other))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(other.dataset.train_labels, data.dataset.train_labels)


def test_a_seed_with_nan_stops_and_the_others_go_on(tmp_path, monkeypatch):
    advance_of = devices.make_program

    def poisoned(*arguments, **keywords):
        program = advance_of(*arguments, **keywords)

        def advance(states, phase, rows, steps, active):
            states, metrics = program.advance(states, phase, rows, steps, active)
            if int(states[0].step) >= 6 and active[1]:
                metrics["classifier/supervised"][1] = np.nan
            return states, metrics

        return program._replace(advance=advance)

    monkeypatch.setattr(devices, "make_program", poisoned)
    result = run.train("supervised", TINY, options(tmp_path))
    assert result.final["stopped"] == [{"seed": 1, "step": 6, "metric": "classifier/supervised", "value": "nan"}]
    per_seed = result.final["metrics"]["error"]["per_seed"]
    assert per_seed[0] is not None and per_seed[1] is None
    states = run.load(result.folder).states
    assert int(states[0].step) == 12 and int(states[1].step) == 3  # its last checkpoint lies before the NaN
    assert "nan" in (result.folder / "report.html").read_text().lower()


def test_event_files_are_written_when_asked_for(tmp_path):
    result = run.train("supervised", TINY, options(tmp_path, tensorboard=True))
    assert list((result.folder / "events" / "seed-1").glob("events.*"))


def test_a_validation_budget_is_never_trained_on_and_selects(tmp_path):
    chosen = options(tmp_path, validation=100)
    data = load_data(chosen)
    assert len(data.dataset.train_labels) == 1297 - 100 and len(data.validation[1]) == 100
    metrics = run.train("supervised", TINY, chosen).final["metrics"]
    log = lines(tmp_path / "run")
    for seed in (0, 1):
        curve = [
            (line["validation/error"], line["test/error"])
            for line in log
            if line["seed"] == seed and "test/error" in line
        ]
        best = min(range(len(curve)), key=lambda i: curve[i][0])
        assert metrics["error_best_validation"]["per_seed"][seed] == curve[best][1]


def test_the_best_on_test_is_kept_apart_as_oracle(tmp_path):
    final = run.train("supervised", TINY, options(tmp_path)).final
    assert "error_best_test" not in final["metrics"]
    for seed, best in enumerate(final["oracle"]["error_best_test"]["per_seed"]):
        assert best == min(
            line["test/error"] for line in lines(tmp_path / "run") if line["seed"] == seed and "test/error" in line
        )


def test_a_finished_run_is_measured_again_to_the_same_numbers(tmp_path):
    result = run.train("triple_gan", PAIR, options(tmp_path))
    again = run.evaluate(result.folder)
    for name in ("error", "nll", "agreement_svc", "deviation_ratio"):
        assert again["metrics"][name] == result.final["metrics"][name]


def test_a_run_loaded_from_its_folder_samples_and_predicts(tmp_path):
    loaded = run.load(run.train("triple_gan", PAIR, options(tmp_path)).folder)
    images = run.sample(loaded, np.array([3, 3, 7]))
    assert images.shape == (3, 8, 8, 1) and images.dtype == np.uint8
    np.testing.assert_allclose(run.predict(loaded, images).sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_prints_the_command_and_ends_well(tmp_path, number):
    command = [sys.executable, "-m", "ssl_gen.cli", "train", "supervised", "--labels", "30", "--steps", "200000"]
    command += [
        "--config.hidden",
        "4",
        "--config.labelled-batch",
        "4",
        "--log-every",
        "50",
        "--out",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    log = tmp_path / "run" / "metrics.jsonl"
    deadline = time.time() + 120
    while time.time() < deadline and not (log.exists() and log.stat().st_size):
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "ssl-gen train supervised" in out and "--steps 200000" in out.replace("--config.steps", "--steps")
    kept = checkpoints.open_checkpoints(tmp_path / "run" / "checkpoints")
    assert kept.latest() == json.loads(log.read_text().splitlines()[-1])["step"]
    kept.close()
