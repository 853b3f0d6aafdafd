"""Flows drawn from in other ways: what is kept is of the runs that are there, and says what it was made by."""

import json
from types import SimpleNamespace

import pytest

from experiments import sampling, tracked
from experiments.sampling import Study, Way
from ssl_gen.metrics import statistics
from ssl_gen.runs.options import Options

WAYS = {
    f"{run}, steps {steps}": Way("flow", steps, run, {"steps": steps}, ("fid",)) for run in "ab" for steps in (1, 2)
}
STUDY = Study("a_study", "runs", "digits", 50, 2, 10, WAYS, {}, ("fid",))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """study(samples=10) runs the command with --record, and says which runs and settings it measured; runs are logs."""
    for run in "ab":
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "metrics.jsonl").write_text(f"{run}\n")
        (tmp_path / "runs" / run / "final.json").touch()
    calls: list[str] = []

    def load(folder):
        fields = {"states": [], "temperatures": {}, "compiled": None, "check_trained": lambda: None}
        return SimpleNamespace(name=folder.name, sampler=lambda **settings: (folder.name, settings), **fields)

    def measured(compiled, data, states, reference, metrics, sampler):
        calls.append(f"{sampler[0]}{sampler[1]['steps']}")
        return {"fid_pixels_ref=test": statistics.summary([len(calls), len(calls)])}

    monkeypatch.setattr(sampling, "load_run", load)
    monkeypatch.setattr(sampling, "data_of", lambda run, **_: (Options(), None))
    monkeypatch.setattr(sampling, "make_reference", lambda *_: None)
    monkeypatch.setattr(sampling.record, "measure_seeds", measured)
    monkeypatch.setattr(sampling.record, "commit", lambda: "first")
    monkeypatch.setattr(sampling, "HERE", tmp_path)

    def run(**changes):
        calls.clear()
        words = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "kept.json"), "--record"]
        sampling.main(STUDY._replace(**changes), "", words)
        return list(calls)

    return run


def test_what_is_kept_of_a_run_that_is_another_now_is_measured_again(study, tmp_path, capsys):
    assert study() == ["a1", "a2", "b1", "b2"] and study() == []
    (tmp_path / "runs" / "b" / "metrics.jsonl").write_text("trained again\n")
    assert study() == ["b1", "b2"]
    assert "has b, steps 1, b, steps 2 of other runs" in capsys.readouterr().err
    assert study() == [] and study(samples=20) == ["a1", "a2", "b1", "b2"]


def test_what_is_kept_without_its_runs_name_is_measured_again(study, tmp_path):
    study()
    kept = json.loads((tmp_path / "kept.json").read_text())
    (tmp_path / "kept.json").write_text(json.dumps(kept["metrics"]))  # as earlier versions wrote it
    assert study() == ["a1", "a2", "b1", "b2"]


def test_a_record_says_the_commits_that_measured_it_not_the_one_that_wrote_it(study, tmp_path, monkeypatch):
    study()
    monkeypatch.setattr(sampling.record, "commit", lambda: "second")
    study()
    record = tracked.load(tmp_path / "a_study.json")
    assert record.commit == "first" and list(record.metrics["fid"]) == list(WAYS)
    (tmp_path / "runs" / "b" / "metrics.jsonl").write_text("trained again\n")
    study()
    assert tracked.load(tmp_path / "a_study.json").commit == "first; second"


def test_what_was_measured_of_a_run_that_is_gone_stands(study, tmp_path):
    study()
    (tmp_path / "runs" / "b" / "metrics.jsonl").unlink()
    assert study() == []
