"""Damaged files by table: every file x what can happen to it. What is read is what was written, or is refused.

The fast tables stop at the doors that all commands share; the whole one (marker slow) goes through every command.
"""

import collections
import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from damage import DAMAGES, files_of
from finished import RECIPES
from tiny import same

from ssl_gen.core import files
from ssl_gen.reports import records, run_folder
from ssl_gen.runs import export, load
from ssl_gen.runs.train import train
from ssl_gen.types import UserError

RUN = "m2"  # of the recipes: it samples, classifies and was drawn and measured while it trained
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def whole(finished):
    """The run as it was, loaded."""
    return load.load(finished(RUN))


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """Its export."""
    out = tmp_path_factory.mktemp("exported") / "out"
    export.save(finished(RUN), out)
    return out


def refusal(function, *arguments):
    """The one line that something is refused with, None where it is not."""
    try:
        function(*arguments)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
        return str(error)
    return None


def test_a_finished_run_without_its_last_checkpoint_counts_as_not_finished(finished, whole, tmp_path, capsys):
    """It draws and labels with the weights before, and says so; what speaks of the last ones is refused."""
    folder = finished.copy(RUN, tmp_path / "run")
    DAMAGES["halved"](folder / "checkpoints" / "6" / "note" / "metadata")
    loaded, said = load.load(folder), capsys.readouterr().err
    assert said.count("\n") == 2 and "its weights are of step 4" in said and loaded.record.command in said
    assert loaded.final is None and not same(loaded.states[0], whole.states[0])
    assert loaded.draw(np.array([3])).shape == (1, 8, 8, 1) and not loaded.calibrated
    with pytest.raises(UserError, match="is not finished; this goes on with it: ssl-gen train m2"):
        _ = loaded.metrics


def test_a_run_whose_last_checkpoint_is_cut_comes_to_the_same_end(finished, whole, tmp_path, capsys):
    """And so does one with a stray folder that looks like a newer one; what is damaged is left beside."""
    folder = finished.copy(RUN, tmp_path / "run")
    before = {name: (folder / name).read_bytes() for name in ("metrics.jsonl", "samples.png")}
    for file in (folder / "checkpoints" / "6" / "state" / "d").iterdir():
        DAMAGES["halved"](file)
    (folder / "checkpoints" / "999").mkdir()
    result = train(RUN, RECIPES[RUN].config, finished.options(RUN, folder))
    said = capsys.readouterr().err
    assert said.count("the newest that is whole is 4") >= 1 and "made again from the newest whole checkpoint" in said
    assert result.final.metrics == whole.final.metrics and result.final.confusion == whole.final.confusion
    assert all(map(same, load.load(folder).states, whole.states)) and capsys.readouterr().err == ""
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert {path.name for path in (folder / "checkpoints").iterdir()} >= {"6", "6.damaged", "999.damaged"}


def test_a_run_without_any_whole_checkpoint_starts_again(finished, whole, tmp_path, capsys):
    folder = finished.copy(RUN, tmp_path / "run")
    for file in (folder / "checkpoints").glob("*/note/metadata"):
        DAMAGES["a bit turned"](file)
    assert "holds no whole checkpoint" in refusal(load.load, folder)
    result = train(RUN, RECIPES[RUN].config, finished.options(RUN, folder))
    assert "no checkpoint is whole" in capsys.readouterr().err
    assert result.final.metrics == whole.final.metrics and all(map(same, load.load(folder).states, whole.states))


def test_what_was_measured_since_is_kept_when_a_run_is_made_again(finished, tmp_path):
    folder = finished.copy("linear", tmp_path / "run")
    final = records.load_final(folder)
    more = final.metrics | {"of_another_day": final.metrics["error"]}
    records.write(folder / "final.json", dataclasses.replace(final, metrics=more))
    DAMAGES["emptied"](folder / "metrics.jsonl")
    again = train("linear", RECIPES["linear"].config, finished.options("linear", folder)).final
    assert again.metrics == more


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_log_of_a_finished_run_is_as_it_was_or_refused_and_mended(damage, finished, tmp_path, capsys):
    folder = finished.copy("linear", tmp_path / "run")
    log = folder / "metrics.jsonl"
    before = log.read_bytes()
    DAMAGES[damage](log)
    assert f"this mends it: {records.load_run(folder).command}" in refusal(run_folder.read, folder)
    train("linear", RECIPES["linear"].config, finished.options("linear", folder))
    assert "metrics.jsonl is damaged" in capsys.readouterr().err
    assert log.read_bytes() == before and refusal(run_folder.read, folder) is None


def test_the_log_of_a_run_that_goes_on_is_mended_from_its_checkpoint(finished, tmp_path, capsys):
    """A character that is none, in the middle: the lines after it are not dropped."""
    folder = finished.copy(RUN, tmp_path / "run")
    log = folder / "metrics.jsonl"
    before = log.read_bytes()
    log.write_bytes(before[:40] + b"\xff" + before[41:])
    for later in ("final.json", "report.html"):
        (folder / later).unlink()
    result = train(RUN, RECIPES[RUN].config, finished.options(RUN, folder))
    assert "metrics.jsonl is damaged: its lines" in capsys.readouterr().err
    assert log.read_bytes() == before
    assert result.final.metrics == records.load_final(finished(RUN)).metrics


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_report_of_a_finished_run_is_made_again(damage, finished, tmp_path):
    """A kill between final.json and the report left none for ever, or half of one."""
    folder = finished.copy("linear", tmp_path / "run")
    report = folder / "report.html"
    before = report.read_text()
    DAMAGES[damage](report)
    train("linear", RECIPES["linear"].config, finished.options("linear", folder))
    assert report.read_text() == before


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["run.json", "final.json"])
def test_a_damaged_record_is_refused_in_one_line(damage, file, finished, tmp_path):
    folder = finished.copy("linear", tmp_path / "run")
    DAMAGES[damage](folder / file)
    said = [refusal(door, folder) for door in (load.load, run_folder.read)]
    if (damage, file) == ("removed", "final.json"):  # as of a run that has not ended
        assert said == [None, None]
    else:
        assert all(said) and (damage == "removed" or all(file in line for line in said))


@pytest.mark.parametrize("file", ["run.json", "final.json"])
def test_no_bit_of_a_record_turns_unnoticed(file, finished, tmp_path):
    """But those of white space, which mean nothing: 300 of its bits, drawn."""
    folder = finished.copy("linear", tmp_path / "run")
    kind = {"run.json": records.RunRecord, "final.json": records.FinalRecord}[file]
    data, record = (folder / file).read_bytes(), records.load(folder / file, kind)
    for bit in np.random.default_rng(0).integers(0, 8 * len(data), 300):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        (folder / file).write_bytes(changed)
        if refusal(records.load, folder / file, kind) is None:
            assert records.load(folder / file, kind) == record


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_export_is_as_it_was_or_refused(damage, exported, whole, tmp_path):
    back = export.load(exported)
    assert all(np.array_equal(*each) for each in zip(*(files_in(back.states[0], whole.states[0])), strict=True))
    for file in files_of(exported):
        folder = tmp_path / file
        shutil.copytree(exported, folder)
        DAMAGES[damage](folder / file)
        said = refusal(export.load, folder)
        assert said is not None and (file in said or "model.json" in said), file


def files_in(found, wanted):
    """The leaves that an export holds, and those of the run."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    return zip(*((a, b) for a, b in pairs if np.any(np.asarray(a))), strict=True)


def test_a_licence_may_be_filled_in_and_nothing_else(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "out")
    card = json.loads((exported / "model.json").read_text())
    (tmp_path / "out" / "model.json").write_text(json.dumps(card | {"licence": "CC0"}))
    assert export.load(tmp_path / "out").metrics == export.load(exported).metrics
    (tmp_path / "out" / "model.json").write_text(json.dumps(card | {"steps": 7}))
    assert "model.json is damaged, was edited" in refusal(export.load, tmp_path / "out")


def test_what_stands_before_a_file_is_whole_is_the_old_one(tmp_path, monkeypatch):
    """Nothing is left beside it where the disk is full."""
    target = tmp_path / "report.html"
    files.write_whole(target, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_whole(target, b"new")
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


# Hostile records

STRANGE = {
    "a list": b"[]",
    "binary": bytes(range(256)),
    "a number": b"3",
    "null": b"null",
    "text": b'"run"',
    "nothing": b"{}",
    "half": b'{"format": 2, "method": "m2"',
    "brackets": b"[" * 100_000,
    "a number of 5,000 digits": b'{"format": ' + b"9" * 5_000 + b"}",
}
VALUES = [None, "", "x\ny", -1, 0, 10**400, float("nan"), [], [None], {}, {"": 0}, True]


@pytest.mark.parametrize("content", STRANGE)
@pytest.mark.parametrize("file", ["run.json", "final.json", "latents.json", "model.json"])
def test_what_is_no_record_is_refused_in_one_line(file, content, finished, exported, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(exported if file == "model.json" else finished("linear"), folder)
    (folder / file).write_bytes(STRANGE[content])
    door = export.load if file == "model.json" else run_folder.read
    assert file in refusal(door, folder)


def entries(content, path=()):
    """The paths of all entries of a JSON object, those of objects in it too."""
    for name, value in content.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from entries(value, (*path, name))


def changed(content, path, value):
    """A copy of a JSON object with one entry changed."""
    first, *rest = path
    return content | {first: changed(content[first], rest, value) if rest else value}


@pytest.mark.parametrize("file", ["run.json", "final.json"])
def test_an_entry_of_a_record_that_makes_no_sense_is_refused_in_one_line(file, finished, tmp_path):
    """Each entry of each record x twelve values, with a hash that is right: no exception but a UserError."""
    folder = finished.copy(RUN, tmp_path / "run")
    content = {name: value for name, value in files.read_json(folder / file).items() if name != files.SEAL}
    counts = collections.Counter()
    for path in entries(content):
        for value in VALUES:
            (folder / file).write_text(json.dumps(files.sealed(changed(content, path, value))))
            counts[refusal(records.load_both, folder) is None] += 1
    assert counts[False] > 100 and counts[True] > 10, "of some entries any value is one"


NO_CLASSES = {"kind": "convnet", "classes": 0, "width": 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 3}, "has format 3, this ssl_gen reads 2"),
        ({"new_switch": 1}, "unknown field new_switch"),
        ({"data": {"class_names": ["a", "b"]}}, "2 class names for 10 classes"),
        ({"masks": []}, "0 masks for 2 seeds"),
        ({"config": {"new_switch": 1}}, "settings of m2 in the record do not fit this version of ssl_gen"),
        ({"method": "m3"}, "there is no method m3"),
        (
            {"encoder": {"method": "extractor", "config": {"kind": "convnet", "classes": 0, "width": 3}, "steps": 0}},
            "does not know",
        ),
        ({"encoder": {"method": "extractor", "config": {}, "steps": 0}}, "does not know"),
    ],
)
def test_a_run_of_another_version_is_refused_in_one_line(change, words, finished, tmp_path):
    folder = finished.copy(RUN, tmp_path / "run")
    content = files.read_json(folder / "run.json")
    for name, value in change.items():
        inner = isinstance(value, dict) and isinstance(content.get(name), dict)
        content[name] = content[name] | value if inner else value
    files.write_json(folder / "run.json", content)
    (folder / "final.json").unlink()
    assert words in refusal(load.load, folder)


def test_an_edited_record_is_refused_though_every_entry_makes_sense(finished, tmp_path):
    folder = finished.copy("linear", tmp_path / "run")
    content = json.loads((folder / "final.json").read_text())
    content["metrics"]["error"]["mean"] = 0.0
    (folder / "final.json").write_text(json.dumps(content))
    assert "was edited" in refusal(load.load, folder)


def test_records_of_two_runs_in_one_folder_are_refused(finished, tmp_path):
    folder = finished.copy(RUN, tmp_path / "run")
    shutil.copy(finished("linear") / "final.json", folder)
    assert "is of another run" in refusal(load.load, folder)
