"""A run from door to door: the folder it leaves, resuming, refusing, stopping."""

import contextlib
import dataclasses
import itertools
import json
import re
import shlex
import shutil
import signal
import sys
import types

import jax
import numpy as np
import pytest
from finished import RECIPES
from fragile import fragile
from tiny import same

from ssl_gen import cli
from ssl_gen.augmentation import Augmentation
from ssl_gen.core import files, signals
from ssl_gen.core.plain import from_plain, to_plain
from ssl_gen.datasets import masking
from ssl_gen.datasets.batches import Rows
from ssl_gen.methods import METHODS
from ssl_gen.methods.classical import supervised
from ssl_gen.metrics import classification, statistics
from ssl_gen.metrics.metric import Metric
from ssl_gen.metrics.registry import METRICS
from ssl_gen.reports import records
from ssl_gen.reports.charts import pictures
from ssl_gen.reports.records import FinalRecord, PartRecord, RunRecord, Stop
from ssl_gen.runs import evaluate, load, record, train
from ssl_gen.runs.data import load_data
from ssl_gen.training import calls, checkpoints, loop
from ssl_gen.training.processes import SINGLE_PROCESS
from ssl_gen.training.segments import Segment
from ssl_gen.types import UserError

TINY = RECIPES["supervised"].config


def lines(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_a_run_folder_holds_what_it_promises(finished):
    folder = finished("m2")
    about, final = (json.loads((folder / name).read_text()) for name in ("run.json", "final.json"))
    assert about["method"] == "m2" and about["seeds"] == [0, 1] and about["labels"] == 30
    assert {kind: about["data"][kind] for kind in ("train", "test", "validation", "height", "width", "channels")} == {
        "train": 1_297 - 100, "test": 500, "validation": 100, "height": 8, "width": 8, "channels": 1,
    }  # fmt: skip
    assert [(mask["visible"], mask["pool"]) for mask in about["masks"]] == [(30, 1_297 - 100)] * 2
    assert about["data"]["class_names"] == list("0123456789")
    counts = np.bincount(load_data(finished.options("m2", folder)).dataset.train_labels).tolist()
    assert about["read"]["labelled"] == dict(zip("0123456789", counts, strict=True)) and counts != counts[::-1]
    assert about["config"]["augmentation"] == {**Augmentation().__dict__}
    assert about["sampler"] == {"temperature": 1.0, "latents": "prior"}
    assert [mask["name"] for mask in about["masks"]] == ["digits@30-s0", "digits@30-s1"]
    assert about["precision"] == final["precision"] == "default (float32)"
    assert "products in precision default (float32)" in (folder / "report.html").read_text()
    assert 1e-9 < final["pflop"] < 1e-6  # 6 steps of 8 images, two dense layers of 4 units, both ways: 1e5 and more
    shown = 2 * 6 * 8  # of two seeds
    assert final["images_per_second"] == pytest.approx(shown / final["seconds"], rel=0.02)  # hundredths of a second
    text = (folder / "report.html").read_text()
    assert "PFLOP a seed" in text and re.search(r"seed, [\d.,]+ images a second\.", text)
    assert final["masks"] == [mask["sha256"] for mask in about["masks"]]
    error = final["metrics"]["error"]
    assert len(error["per_seed"]) == 2 and error["mean"] == pytest.approx(np.mean(error["per_seed"]))
    assert {"agreement_svc", "deviation_ratio"} <= set(final["metrics"])
    assert np.sum(final["confusion"]) == 2 * about["data"]["test"]
    text = pictures.read_text(folder / "samples.png")
    assert text["mask"] == "digits@30-s0" and text["mask_sha256"] == final["masks"][0]
    assert "<svg" in (folder / "report.html").read_text()
    assert (folder / "checkpoints" / "6").is_dir()


def test_the_log_has_a_line_for_every_seed_at_every_moment(finished):
    log = lines(finished("supervised"))
    trained = [(line["step"], line["seed"]) for line in log if "phase" in line]
    stops = sorted({*range(2, 13, 2), *range(3, 13, 3), *range(4, 13, 4)})
    assert trained == [(step, seed) for step in stops for seed in (0, 1)]
    measured = [(line["step"], line["seed"]) for line in log if "test/error" in line]
    assert measured == [(step, seed) for step in (4, 8, 12) for seed in (0, 1)]


def test_the_same_command_again_trains_nothing(finished, tmp_path, monkeypatch):
    folder = finished.copy("supervised", tmp_path / "run")
    before, first = (folder / "metrics.jsonl").stat().st_mtime_ns, records.load_final(folder)
    monkeypatch.setattr(train, "make_reference", None)  # it measures nothing either, and makes nothing to measure by
    again = train.train("supervised", TINY, finished.options("supervised", folder))
    assert again.final == first and again.folder == folder
    assert (folder / "metrics.jsonl").stat().st_mtime_ns == before


class Died(BaseException):
    """No error: the end of a process."""


def die():
    raise Died


@pytest.fixture
def at_step_8(monkeypatch):
    """A metric for `--evaluators moment:8`: what it holds happens at step 8, once."""
    acts = []

    def measure(evaluated):
        if acts:
            acts.pop()()
        return {"moment": 0.0}

    monkeypatch.setitem(METRICS, "moment", Metric("of the test", ("classify",), measure, {}, usual=False))
    return acts


def with_a_moment(out):
    """The command of the run `supervised`, with something that happens at step 8."""
    words = "train supervised --labels 30 --seeds 2 --replicas loop --quiet --steps 12 --config.labelled-batch 4 "
    words += "--config.hidden 4 --log-every 2 --evaluate-every 4 --checkpoint-every 3 --evaluators error moment:8 --out"
    return [*words.split(), str(out)]


def undisturbed(path):
    """The lines of a log without those of the moment."""
    return [{name: value for name, value in line.items() if "moment" not in name} for line in lines(path)]


def test_a_run_that_died_goes_on_to_the_same_end(at_step_8, finished, tmp_path):
    whole = finished("supervised")
    at_step_8.append(die)
    with pytest.raises(Died):
        cli.main(with_a_moment(tmp_path / "run"))
    assert lines(tmp_path / "run")[-1]["step"] == 8 and not (tmp_path / "run" / "final.json").exists()
    assert cli.main(with_a_moment(tmp_path / "run")) == 0
    assert records.load_final(tmp_path / "run").metrics == records.load_final(whole).metrics
    assert undisturbed(tmp_path / "run") == lines(whole)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_a_signal_saves_prints_the_command_and_ends_well(at_step_8, finished, capsys, tmp_path, number, status):
    """And the command that it prints goes on to the end of a run that was not disturbed."""
    handlers = [signal.getsignal(each) for each in signals.STOPPING]
    at_step_8.append(lambda: signal.raise_signal(number))
    assert cli.main(with_a_moment(tmp_path / "run")) == status
    assert [signal.getsignal(each) for each in signals.STOPPING] == handlers
    out = capsys.readouterr().out
    assert "ssl-gen train supervised" in out and "--steps 12" in out.replace("--config.steps", "--steps")
    kept = checkpoints.newest_whole(tmp_path / "run" / "checkpoints")
    assert kept.step == 8 and kept.log == lines(tmp_path / "run")
    assert records.load_final(tmp_path / "run") is None and (tmp_path / "run" / "report.html").exists()
    assert cli.main(shlex.split(out.strip().split("ssl-gen ")[1])) == 0
    assert records.load_final(tmp_path / "run").metrics == records.load_final(finished("supervised")).metrics
    assert undisturbed(tmp_path / "run") == lines(finished("supervised"))


def interrupted(acts, out):
    """The run `supervised`, stopped at step 8 by a signal."""
    acts.append(lambda: signal.raise_signal(signal.SIGTERM))
    assert cli.main(with_a_moment(out)) == 143
    return out


@pytest.fixture
def stopping(monkeypatch):
    """stopping(n): training makes one step a call and hears a signal at its n-th look for one; None: never."""
    monkeypatch.setattr(calls, "CALL", 0.0)

    def at(number):
        @contextlib.contextmanager
        def looked():
            looks = itertools.count(1)
            yield lambda: next(looks) == number

        monkeypatch.setattr(loop, "interruptible", looked)

    return at


@pytest.mark.parametrize("mode", ["loop", "vmap"])
def test_a_signal_waits_for_no_segment_and_the_log_is_the_same(stopping, mode, finished, tmp_path):
    """Of 12 steps between two lines 2 are made, then 5, then the rest; means over all of them are the same bits."""
    every = {"log_every": 12, "evaluate_every": 12, "checkpoint_every": 12, "replicas": mode}

    def trained(folder):
        return train.train("supervised", TINY, finished.options("supervised", folder, **every)).final

    stopping(None)
    whole = trained(tmp_path / "whole")
    for look, step in ((2, 2), (5, 7)):
        stopping(look)
        assert trained(tmp_path / "run") is None
        kept = checkpoints.newest_whole(tmp_path / "run" / "checkpoints")
        assert kept.step == step and kept.note["cut"]["since"] == 0 and kept.log == []
    stopping(None)
    assert trained(tmp_path / "run").metrics == whole.metrics
    assert lines(tmp_path / "run") == lines(tmp_path / "whole") and len(lines(tmp_path / "run")) == 4
    assert "cut" not in note_of(tmp_path / "run")


@pytest.mark.parametrize(("active", "end"), [([True, True], 6), ([True, False], 3)])
def test_a_segment_in_which_a_seed_breaks_is_not_cut(active, end):
    """Else the checkpoint that it goes back to would be the broken one."""
    rows = Rows(*(np.zeros((4, 2, 1), np.int32) for _ in Rows._fields))

    def step(states, phase, rows, steps, active, sums=None):
        assert steps == len(rows.labels) == 1
        return states + 1, {"loss": np.array([1.0, np.nan], np.float32)}

    program = types.SimpleNamespace(advance=step)
    every_step = calls.Calls(SINGLE_PROCESS, lambda: True)
    every_step.learn = lambda steps, seconds: None
    states, at, _ = calls.advance(program, Segment(0, 0, 2, 6), rows, 0, active, calls.Cut(0), every_step)
    assert (states, at) == (end - 2, end)


def test_the_first_call_of_a_phase_makes_one_step():
    """However many those of the phase before make in two seconds."""
    made = []

    def step(states, phase, rows, steps, active, sums=None):
        made.append((phase, steps))
        return states, {}

    program = types.SimpleNamespace(advance=step)
    paced = calls.Calls(SINGLE_PROCESS, lambda: False)
    paced.learn = lambda steps, seconds: setattr(paced, "steps", 10)
    for segment in (Segment(0, 0, 0, 8), Segment(0, 0, 8, 16), Segment(1, 16, 16, 24)):
        rows = Rows(*(np.zeros((8, 1, 1), np.int32) for _ in Rows._fields))
        calls.advance(program, segment, rows, None, [True], None, paced)
    assert made == [(0, 1), (0, 7), (0, 8), (1, 1), (1, 7)]


def test_calls_are_as_long_as_two_seconds_hold():
    paced = calls.Calls(SINGLE_PROCESS, lambda: False)
    assert paced.steps == 1
    for steps, seconds, then in ((1, 30.0, 1), (1, 0.5, 4), (4, 1.0, 8), (8, 4.0, 4)):
        paced.learn(steps, seconds)
        assert paced.steps == then


def test_what_a_cut_segment_came_to_is_kept_to_the_last_bit():
    values = np.array([0.1, 1e-45, -0.0, 3e38], np.float32)
    cut = calls.Cut(7, {"loss": values, "count": np.array([1, 2, 3, 4], np.int32)})
    again = calls.cut_of(json.loads(json.dumps(cut.note())))
    assert again.since == 7 and again.sums["loss"].tobytes() == values.tobytes()
    assert again.sums["count"].dtype == np.int32 and again.sums["count"].tolist() == [1, 2, 3, 4]


def note_of(folder):
    return checkpoints.newest_whole(folder / "checkpoints").note


OTHERS = {
    "--labels 40": "labels 30, this one has 40",
    "--mask.kind uniform": "mask.kind stratified, this one has uniform",
    "--mask.seed 1": "mask.seed None, this one has 1",
    "--first-seed 1": "masks[0].name digits@30-s0, this one has digits@30-s1",
    "--config.learning-rate 0.5": "this one has 0.5",
}


def test_checkpoints_say_which_run_they_are_of_where_run_json_is_lost(at_step_8, finished, capsys, tmp_path):
    """States of another mask, seed or setting have the same shapes. What is refused leaves the folder as it was."""
    folder = interrupted(at_step_8, tmp_path / "run")
    about, note = json.loads((folder / "run.json").read_text()), note_of(folder)
    assert [mask["sha256"] for mask in note["masks"]] == [mask["sha256"] for mask in about["masks"]]
    assert all(note[name] == about[name] for name in ("data", "labels", "seeds", "steps"))
    (folder / "run.json").unlink()
    for words, said in OTHERS.items():
        assert cli.main([*with_a_moment(folder), *words.split()]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and said in error and "choose another --out" in error, error
        assert not (folder / "run.json").exists() and note_of(folder) == note
    assert cli.main(with_a_moment(folder)) == 0
    assert json.loads((folder / "run.json").read_text())["masks"] == about["masks"]
    assert records.load_final(folder).metrics == records.load_final(finished("supervised")).metrics


def elsewhere(folder, device, commit, monkeypatch):
    """Go on with the run `supervised` on another machine, with other code; its final.json."""
    with monkeypatch.context() as patch:
        patch.setattr(record, "device", lambda: device)
        patch.setattr(record, "commit", lambda: commit)
        assert cli.main(with_a_moment(folder)) == 0
    return records.load_final(folder)


@pytest.mark.parametrize("earlier", [False, True], ids=["", "checkpoints of an earlier version"])
def test_a_run_that_went_on_elsewhere_names_each_machine_and_commit(
    at_step_8, finished, tmp_path, monkeypatch, earlier
):
    here = records.load_final(finished("supervised"))
    with monkeypatch.context() as patch:
        if earlier:
            save_without_identity(patch)
        folder = interrupted(at_step_8, tmp_path / "run")
    final = elsewhere(folder, "1 x Other", "c0ffee", monkeypatch)
    said, versions = here.precision, records.load_run(folder).versions
    assert final.parts == [
        PartRecord(0, here.device, here.commit, said, versions),
        PartRecord(8, "1 x Other", "c0ffee", said, versions),
    ]
    assert (final.device, final.commit) == (f"{here.device}; 1 x Other", f"{here.commit}; c0ffee")
    assert final.precision == said and final.metrics == here.metrics
    about = json.loads((folder / "run.json").read_text())
    assert (about["device"], about["commit"]) == (here.device, here.commit)  # of where it began
    page = (folder / "report.html").read_text()
    assert f"Device: {final.device}" in page and f"commit {final.commit}" in page


def test_a_run_that_went_on_where_it_began_names_it_once(at_step_8, finished, tmp_path, monkeypatch):
    folder = interrupted(at_step_8, tmp_path / "run")
    here = records.load_final(finished("supervised"))
    final = elsewhere(folder, here.device, here.commit, monkeypatch)
    assert final.parts is None and (final.device, final.commit) == (here.device, here.commit)
    assert "parts" not in json.loads((folder / "final.json").read_text())
    assert note_of(folder)["parts"] == to_plain([records.part(0, records.load_run(folder))])


def test_a_part_that_left_no_checkpoint_is_none(finished):
    """Nor is one after whose start the run was taken up again, from a checkpoint before it."""
    begun = records.load_run(finished("supervised"))
    first = records.part(0, begun)
    second, third = (dataclasses.replace(begun, commit=each) for each in ("second", "third"))
    parts = records.parts({}, 6, begun, second)
    assert parts == [first, dataclasses.replace(first, step=6, commit="second")]
    note = {"parts": to_plain(parts)}
    assert records.parts(note, 9, begun, second) == parts
    for step in (3, 6):
        assert records.parts(note, step, begun, third) == [first, dataclasses.replace(first, step=step, commit="third")]
    assert records.parts(note, 6, begun, begun) == [first]
    assert records.parts(note, 0, begun, third) == records.parts(None, 0, begun, third) == [
        dataclasses.replace(first, commit="third")
    ]  # fmt: skip
    newer = dataclasses.replace(begun, versions=begun.versions | {"jax": "99"})
    assert records.parts({}, 6, begun, newer) == [first, records.part(6, newer)]


def test_a_run_is_not_read_with_the_record_of_another(finished, tmp_path):
    """Weights say nothing of most settings: without the note beside them they would fit."""
    folder = shutil.copytree(finished("supervised"), tmp_path / "run")
    mine = records.load_run(folder)
    rate = mine.config["learning_rate"]
    other = dataclasses.replace(mine, config=mine.config | {"learning_rate": 0.5})
    records.write(folder / "run.json", other)
    with pytest.raises(
        UserError, match=rf"run\.json is of another run .* by config\.learning_rate \(0\.5, theirs {rate}\)"
    ):
        load.load(folder)
    moved = dataclasses.replace(mine, commit="c0ffee", device="1 x Other")
    records.write(folder / "run.json", moved)
    assert load.load(folder).final is not None


def test_of_two_chips_no_share_of_a_peak_is_told(finished):
    final = dataclasses.replace(records.load_final(finished("supervised")), share_of_peak=0.25)
    one, same_chip, other = (PartRecord(step, f"1 x {chip}", None, "TF32") for step, chip in enumerate("AAB"))
    assert records.in_parts(final, [one]) == final
    again = records.in_parts(final, [one, dataclasses.replace(same_chip, commit="c0ffee")])
    assert (again.share_of_peak, again.device, again.commit) == (0.25, "1 x A", "not known; c0ffee")
    assert records.in_parts(final, [one, other]).share_of_peak is None
    assert records.in_parts(final, [one, dataclasses.replace(same_chip, precision="bfloat16")]).share_of_peak is None


def save_without_identity(patch):
    """Checkpoints as those of earlier versions, which did not say of which run they are."""
    save = checkpoints.Checkpoints.save
    patch.setattr(checkpoints.Checkpoints, "save", lambda kept, *given: save(kept._replace(identity={}), *given))


def test_checkpoints_beside_the_record_of_another_run_are_refused(at_step_8, finished, tmp_path):
    folder = interrupted(at_step_8, tmp_path / "run")
    other = finished.options("supervised", folder, labels="40", evaluators=("error", "moment:8"))
    records.write(folder / "run.json", train.prepare("supervised", TINY, other).record)
    with pytest.raises(UserError, match=r"holds a run with labels 30, this one has 40; choose another --out$"):
        train.train("supervised", TINY, other)


def test_checkpoints_that_do_not_say_of_which_run_they_are_go_on_by_run_json_alone(
    at_step_8, finished, capsys, tmp_path
):
    """Those of earlier versions."""
    with pytest.MonkeyPatch.context() as patch:
        save_without_identity(patch)
        folder = interrupted(at_step_8, tmp_path / "run")
    assert note_of(folder).keys() == {"seconds", "stopped"}
    about = (folder / "run.json").rename(tmp_path / "run.json")
    assert cli.main(with_a_moment(folder)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "lost its run.json" in said and "restore it or choose another --out" in said
    about.rename(folder / "run.json")
    assert cli.main(with_a_moment(folder)) == 0 and "masks" in note_of(folder)
    assert undisturbed(folder) == lines(finished("supervised"))


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        (TINY, {"labels": "40"}, ["labels 30", "40"]),
        (TINY, {"mask": masking.Scheme("uniform")}, ["mask.kind stratified", "uniform"]),
        (supervised.Config(steps=12, labelled_batch=4, hidden=(8,)), {}, ["config.hidden[0] 4", "8"]),
        (TINY, {"seeds": 3}, ["masks", "seeds"]),
    ],
)
def test_a_folder_refuses_another_run_in_one_line(finished, tmp_path, config, changes, words):
    folder = finished.copy("supervised", tmp_path / "run")
    with pytest.raises(UserError) as refused:
        train.train("supervised", config, finished.options("supervised", folder, **changes))
    message = str(refused.value)
    assert "\n" not in message and "--out" in message
    assert words[0] in message or words[1] in message


def test_a_folder_that_another_process_writes_to_is_refused(finished, tmp_path):
    with files.claimed(tmp_path / "run"), pytest.raises(UserError, match="another process is writing"):
        train.train("supervised", TINY, finished.options("supervised", tmp_path / "run"))


def test_what_a_killed_process_was_writing_is_removed_and_nothing_that_another_writes(tmp_path):
    """`sample` writes into a run folder without holding it, under a hidden name; a user may keep parts of his own."""
    folder = tmp_path / "run"
    folder.mkdir()
    others = {".ssl-gen-0123456789abcdef0123456789abcdef.part", ".hidden.12.part", "movie.part", "notes.v2.part"}
    for name in (*others, "final.json.123.part", "report.html.4567.part"):
        (folder / name).write_text("")
    with files.claimed(folder):
        assert {path.name for path in folder.iterdir()} == others | {".lock"}


def test_a_folder_that_cannot_be_written_is_named(finished, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file/run"):
        train.train("supervised", TINY, finished.options("supervised", tmp_path / "file" / "run"))


def test_hidden_labels_change_no_bit_of_a_run(finished, tmp_path):
    """Permuting them all gives the same states after training, and the same losses and errors on the way."""
    job = train.prepare("m2", RECIPES["m2"].config, finished.options("m2", tmp_path / "run", samples=100))
    labels = job.data.dataset.train_labels.copy()
    hidden = np.flatnonzero((job.data.masks[0].labels < 0) & (job.data.masks[1].labels < 0))
    labels[hidden] = np.random.default_rng(0).permutation(labels[hidden])
    assert (labels != job.data.dataset.train_labels).sum() > 1000
    data = job.data._replace(dataset=job.data.dataset._replace(train_labels=labels))
    with files.claimed(job.target):
        records.agree(job.target, job.record)
        train.train_claimed(job._replace(data=data, asked=[each for each in job.asked if each.name == "error"]))
    before, after = (load.load(folder).states for folder in (finished("m2"), tmp_path / "run"))
    assert all(same(a, b) for a, b in zip(before, after, strict=True))
    told = [[line for line in lines(f) if "phase" in line] for f in (finished("m2"), tmp_path / "run")]
    assert told[0] == told[1]
    errors = [
        [line[name] for line in lines(folder) if name in line]
        for folder in (finished("m2"), tmp_path / "run")
        for name in ("test/error", "validation/error")
    ]
    assert errors[:2] == errors[2:] and errors[0]


def test_a_seed_with_nan_stops_and_the_others_go_on(finished, tmp_path, monkeypatch):
    """It is left as in its last checkpoint, which lies before the NaN; the other is that of a run without it."""
    seen = {}

    def keep(evaluated):
        seen.setdefault(evaluated.seed, []).append(jax.tree.map(np.array, evaluated.state))
        return {"moment": 0.0}

    monkeypatch.setitem(METRICS, "moment", Metric("of the test", ("classify",), keep, {}, usual=False))
    monkeypatch.setitem(METHODS, "fragile", fragile(supervised, "classifier/supervised", seed=1, step=5))
    options = finished.options("supervised", tmp_path / "run", evaluators=("error", "moment:3"))
    result = train.train("fragile", TINY, options)
    assert result.final.stopped == [Stop(seed=1, step=6, metric="classifier/supervised", value="nan")]
    final, alone = result.final, [line for line in lines(result.folder) if line["seed"] == 0]
    per_seed = final.metrics["error"]["per_seed"]
    assert per_seed[0] is not None and per_seed[1] is None
    assert all(
        each["per_seed"][0] is not None and each["per_seed"][1] is None for each in final.per_class_error.values()
    )
    assert [line["step"] for line in lines(result.folder) if line["seed"] == 1 and "test/error" in line] == [4]
    best = min(line["test/error"] for line in alone if "test/error" in line)
    assert final.oracle["error_best_test"]["per_seed"] == [best, None]
    assert np.sum(final.confusion) == 500 and final.images_per_second is None
    states, healthy = load.load(result.folder).states, load.load(finished("supervised")).states
    assert len(seen[0]) == 4 and same(states[0], seen[0][3]) and same(states[0], healthy[0])
    assert len(seen[1]) == 1 and same(states[1], seen[1][0]) and not same(states[1], healthy[1])
    assert "nan" in (result.folder / "report.html").read_text().lower()


def test_a_run_of_which_a_seed_had_stopped_goes_on_to_the_end_of_one_that_was_not_cut(
    at_step_8, finished, tmp_path, monkeypatch
):
    """Where both are advanced side by side, so that the first must be told apart and put back after every segment."""
    monkeypatch.setitem(METHODS, "fragile", fragile(supervised, "classifier/supervised", seed=0, step=5))

    def run(name):
        changes = {"replicas": "vmap", "evaluators": ("error", "moment:8")}
        return train.train("fragile", TINY, finished.options("supervised", tmp_path / name, **changes))

    whole = run("whole")
    at_step_8.append(lambda: signal.raise_signal(signal.SIGTERM))
    assert run("cut").final is None
    assert note_of(tmp_path / "cut")["stopped"] == {"0": dataclasses.asdict(whole.final.stopped[0])}
    cut = run("cut")
    assert cut.final.stopped == whole.final.stopped == [Stop(0, 6, "classifier/supervised", "nan")]
    assert cut.final.metrics == whole.final.metrics and lines(cut.folder) == lines(whole.folder)
    one, other = (load.load(each.folder) for each in (whole, cut))
    assert all(map(same, one.states, other.states)) and not same(*one.states)
    test = load_data(finished.options("supervised", tmp_path)).dataset
    shares = classification.per_class_error(other.log_probabilities(1, test.test_images), test.test_labels)
    found = [each["per_seed"] for each in cut.final.per_class_error.values()]
    assert found == [[None, share] for share in shares.values()], "the place of the one that stopped is the first"


def test_event_files_are_written_when_asked_for(finished, tmp_path):
    result = train.train("supervised", TINY, finished.options("supervised", tmp_path / "run", tensorboard=True))
    assert list((result.folder / "events" / "seed-1").glob("events.*"))


def test_event_files_without_their_writer_are_refused_before_training(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match="tensorboardX: pip install"):
        train.train("supervised", TINY, finished.options("supervised", tmp_path / "run", tensorboard=True))
    assert not (tmp_path / "run").exists()


def test_a_validation_budget_is_never_trained_on_and_selects(finished):
    folder = finished("calibrated")
    data = load_data(finished.options("calibrated", folder))
    assert len(data.dataset.train_labels) == 1297 - 200 and len(data.validation[1]) == 200
    metrics, log = records.load_final(folder).metrics, lines(folder)
    for seed in (0, 1):
        curve = [
            (line["validation/error"], line["test/error"])
            for line in log
            if line["seed"] == seed and "test/error" in line
        ]
        best = min(range(len(curve)), key=lambda i: curve[i][0])
        assert metrics["error_best_validation"]["per_seed"][seed] == curve[best][1]


def test_the_best_on_test_is_kept_apart_as_oracle(finished):
    final = records.load_final(finished("supervised"))
    assert "error_best_test" not in final.metrics
    for seed, best in enumerate(final.oracle["error_best_test"]["per_seed"]):
        assert best == min(
            line["test/error"]
            for line in lines(finished("supervised"))
            if line["seed"] == seed and "test/error" in line
        )


def test_the_confusion_matrix_and_the_errors_by_class_are_those_of_the_test_images(finished):
    """True class by predicted class, summed over the seeds; and each class's own error, seed by seed."""
    run, data = load.load(finished("supervised")), load_data(finished.options("supervised", finished("supervised")))
    labels = data.dataset.test_labels
    guesses = [run.log_probabilities(replica, data.dataset.test_images).argmax(1) for replica in (0, 1)]
    counts = np.zeros((10, 10), int)
    for each in guesses:
        np.add.at(counts, (labels, each), 1)
    assert run.final.confusion == counts.tolist() and (counts != counts.T).any()
    for k in range(10):
        expected = [100 * (each[labels == k] != k).mean() for each in guesses]
        assert run.final.per_class_error[str(k)]["per_seed"] == pytest.approx(expected)


def test_a_finished_run_is_measured_again_to_the_same_numbers(finished, tmp_path):
    folder = finished.copy("m2", tmp_path / "run")
    before = records.load_final(folder)
    again = evaluate.evaluate(folder)
    for name in ("error", "nll", "agreement_svc", "deviation_ratio", "fid_pixels_ref=test_n=200"):
        assert again.metrics[name] == before.metrics[name]
    assert again == records.load_final(folder)


def test_a_run_loaded_from_its_folder_samples_and_predicts(finished):
    loaded = load.load(finished("m2"))
    images = loaded.draw(np.array([3, 3, 7]))
    assert images.shape == (3, 8, 8, 1) and images.dtype == np.uint8
    np.testing.assert_allclose(loaded.classify(images).sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", ["supervised", "m2", "linear_on_pca"])
def test_records_are_read_back_equal_to_what_was_written(name, finished):
    folder = finished(name)
    for file, kind in (("run.json", RunRecord), ("final.json", FinalRecord)):
        read = records.load(folder / file, kind)
        assert from_plain(kind, to_plain(read)) == read
        assert files.sealed(records.to_json(read)) == json.loads((folder / file).read_text())


def test_the_record_of_a_run_is_the_one_made_before_it_started(finished, tmp_path):
    options = finished.options("supervised", finished("supervised"))
    job, kept = train.prepare("supervised", TINY, options), records.load_run(finished("supervised"))
    differ = ("created", "commit", "versions")  # where the checkout changes under the tests
    before, after = ({k: v for k, v in to_plain(each).items() if k not in differ} for each in (job.record, kept))
    assert before == after


@pytest.mark.parametrize("name", ["supervised", "linear_on_pca"])
def test_a_seed_alone_comes_to_what_it_comes_to_among_others(name, finished, tmp_path):
    options = finished.options(name, tmp_path / "run", first_seed=1, seeds=1)
    alone = train.train(RECIPES[name].method, RECIPES[name].config, options)
    several, about = records.load_final(finished(name)), records.load_run(alone.folder)
    assert alone.final.seeds == [1] == about.seeds and alone.final.masks == several.masks[1:]
    assert [mask.name for mask in about.masks] == ["digits@30-s1"] and "--first-seed 1" in about.command
    for metric, found in alone.final.metrics.items():
        assert found["per_seed"] == several.metrics[metric]["per_seed"][1:], metric
    assert {line["seed"] for line in lines(alone.folder)} == {1}
    again = evaluate.evaluate(alone.folder, ("error",))
    assert again.metrics["error"] == alone.final.metrics["error"]


def measuring(monkeypatch, values, reasons=None, before=lambda: None):
    """`evaluate` finds these values, and these reasons for what it cannot measure."""

    def found(compiled, data, states, reference, names, sampler, unmeasured):
        before()
        unmeasured |= reasons or {}
        return {name: statistics.summary(each) for name, each in values.items()}

    monkeypatch.setattr(evaluate, "measure_seeds", found)


def test_what_another_process_measured_meanwhile_is_kept(finished, tmp_path, monkeypatch):
    folder = finished.copy("supervised", tmp_path / "run")

    def meanwhile():
        final = records.load_final(folder)
        records.write(
            folder / "final.json", dataclasses.replace(final, metrics=final.metrics | {"x": final.metrics["error"]})
        )

    measuring(monkeypatch, {"nll": [1.0, 2.0]}, before=meanwhile)
    found = evaluate.evaluate(folder, ("nll",))
    assert found.metrics["nll"]["per_seed"] == [1.0, 2.0] and found.metrics["x"] == found.metrics["error"]
    assert records.load_final(folder) == found


def test_a_metric_that_cannot_be_had_costs_itself_alone_and_its_reason_goes_when_it_can(
    finished, tmp_path, monkeypatch
):
    folder = finished.copy("supervised", tmp_path / "run")
    measuring(monkeypatch, {"error": [3.0, 4.0]}, {"nll": "seed 0: too few"})
    usual = evaluate.evaluate(folder)
    assert usual.metrics["error"]["mean"] == 3.5 and usual.unmeasured == {"nll": "seed 0: too few"}
    measuring(monkeypatch, {"error": [5.0, 5.0]}, {"nll": "seed 1: too few"})
    with pytest.raises(UserError, match="nll could not be measured: seed 1: too few"):
        evaluate.evaluate(folder, ("error", "nll"))
    kept = records.load_final(folder)
    assert kept.metrics["error"]["mean"] == 5 and kept.unmeasured == {"nll": "seed 1: too few"}
    measuring(monkeypatch, {"nll": [1.0, 1.0]})
    assert evaluate.evaluate(folder, ("nll",)).unmeasured == {}


def test_a_run_that_cannot_be_written_is_refused_before_it_is_measured(finished, tmp_path, monkeypatch):
    folder = finished.copy("supervised", tmp_path / "run")
    (folder / ".lock").unlink(missing_ok=True)
    (folder / ".lock").mkdir()
    measuring(monkeypatch, {}, before=lambda: pytest.fail("it was measured"))
    with pytest.raises(UserError, match=r"cannot write to .*; copy the run to a place"):
        evaluate.evaluate(folder, ("error",))


def test_several_seeds_of_one_mask_are_recorded_as_that(finished, tmp_path):
    options = finished.options("supervised", tmp_path / "run", mask=masking.Scheme(seed=1))
    result = train.train("supervised", TINY, options)
    about, several = records.load_run(result.folder), records.load_final(finished("supervised"))
    assert [mask.name for mask in about.masks] == ["digits@30-s1"] * 2 and about.seeds == [0, 1]
    assert result.final.masks == [several.masks[1]] * 2 and "--mask.seed 1" in about.command
    first, second = result.final.metrics["error"]["per_seed"]
    assert second == several.metrics["error"]["per_seed"][1] and first != several.metrics["error"]["per_seed"][0]
    assert "all on one mask" in (result.folder / "report.html").read_text()
    assert "each with its own mask" in (finished("supervised") / "report.html").read_text()
    with pytest.raises(UserError, match=r"mask\.seed 1, this one has 0"):
        records.agree(result.folder, dataclasses.replace(about, mask=about.mask | {"seed": 0}))


def test_a_run_recorded_before_masks_had_seeds_goes_on(finished, tmp_path):
    folder = finished.copy("supervised", tmp_path / "run")
    about = json.loads((folder / "run.json").read_text())
    del about["mask"]["seed"], about["options"]["mask"]["seed"], about["options"]["first_seed"], about["sha256"]
    (folder / "run.json").write_text(json.dumps(about))
    again = train.train("supervised", TINY, finished.options("supervised", folder))
    assert again.final == records.load_final(finished("supervised"))


def as_version_0_1(folder, number):
    """The records of a run as version 0.1 wrote them, in format 1; before that, none was said."""
    new = ("sampler", "encoder", "format")
    run = {key: value for key, value in json.loads((folder / "run.json").read_text()).items() if key not in new}
    del run["options"]["evaluators"]
    run |= {} if number is None else {"format": number}
    final = {key: value for key, value in json.loads((folder / "final.json").read_text()).items() if key != "format"}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "final.json").write_text(json.dumps(final))


COMMANDS = {
    "train": "train supervised --labels 30 --seeds 2 --steps 12 --config.labelled-batch 4 --config.hidden 4 "
    "--replicas loop --log-every 2 --evaluate-every 4 --checkpoint-every 3 --quiet --out RUN",
    "evaluate": "evaluate RUN",
    "sample": "sample RUN",
    "sample with a setting": "sample RUN --sampler.temperature 0.5",
    "predict": "predict RUN .",
    "export": "export RUN --out out",
    "compare": "compare RUN RUN",
    "latents": "latents RUN",
    "use as encoder": "train linear --encoder RUN",
}


@pytest.mark.parametrize("number", [None, 1])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_folder_of_version_0_1_is_refused_in_one_line(command, number, finished, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = finished.copy("supervised", tmp_path / "run")
    as_version_0_1(folder, number)
    before = {path: path.read_bytes() for path in folder.glob("*") if path.is_file() and path.name != ".lock"}
    assert cli.main(COMMANDS[command].replace("RUN", str(folder)).split()) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "run.json has format 1" in said and "train again" in said
    assert before == {path: path.read_bytes() for path in before}


def test_a_start_that_is_refused_does_not_keep_its_folder(finished, tmp_path):
    def options(labelled_batch):
        config = dataclasses.replace(TINY, steps=2, labelled_batch=labelled_batch)
        return config, finished.options("supervised", tmp_path / "run", seeds=1, data_parallel=3, evaluators=())

    with pytest.raises(UserError, match="3"):
        train.train("supervised", *options(4))
    assert (tmp_path / "run" / "run.json").exists()
    assert train.train("supervised", *options(6)).final is not None
    with pytest.raises(UserError, match="choose another --out"):
        train.train("supervised", *options(3))


def test_samples_that_cannot_be_drawn_cost_no_run(finished, tmp_path, monkeypatch, capsys):
    def refuse(*given):
        raise ValueError("latents that are not all finite")

    monkeypatch.setattr("ssl_gen.runs.pictures.draw_grid", refuse)
    options = finished.options("gan", tmp_path / "run", evaluators=("samples:4",))
    for _ in range(2):  # the second time it is finished
        final = train.train("gan", RECIPES["gan"].config, options).final
        assert final.unmeasured == {"samples.png": "ValueError: latents that are not all finite"}
    assert capsys.readouterr().out.count("no samples were drawn at step 4") == 1
    assert "samples.png could not be drawn: ValueError" in (tmp_path / "run" / "report.html").read_text()
