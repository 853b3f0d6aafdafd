"""Trackers get the numbers of the log, a run a seed; one that fails costs no run, one that is absent is one line."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import struct
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from finished import RECIPES

from ssl_gen import cli
from ssl_gen.runs import train
from ssl_gen.training import trackers
from ssl_gen.training.log import Log
from ssl_gen.types import UserError

SETTINGS = {"method": "vae", "config": {"latent": 5, "hidden": [4, 4]}, "commit": None}
LINES = [(10, 0, {"loss": 1.5, "fid_pixels_ref=test": 20.0}), (10, 1, {"loss": 2.5}), (20, 0, {"loss": 1.25})]


CREATED = "2026-01-01T00:00:00+00:00"


def written(tmp_path, *names: str, lines=LINES, created=CREATED) -> list[trackers.Guarded]:
    """A log with trackers, some lines in it, closed."""
    opened = list(trackers.opened(names, trackers.About(tmp_path, (0, 1), SETTINGS, created)))
    log = Log(tmp_path, [], opened)
    for step, seed, values in lines:
        log.write(step, seed, phase="main", **values)
    log.close()
    return opened


class StandIn:
    """A package that keeps what it is told."""

    def __init__(self) -> None:
        self.runs: list[StandIn] = []
        self.lines: list[dict] = []
        self.finished, self.broken = False, False

    def init(self, **settings):
        run = StandIn()
        run.settings, run.broken = settings, self.broken
        self.runs.append(run)
        return run

    def define_metric(self, name, step_metric=None):
        pass

    def log(self, values):
        if self.broken:
            raise ConnectionError("the server is gone")
        self.lines.append(values)

    def finish(self):
        self.finished = True


@pytest.fixture
def stand_in(monkeypatch):
    found = StandIn()
    module = types.ModuleType("wandb")
    module.__spec__ = importlib.util.spec_from_loader("wandb", None)
    module.init, module.Settings = found.init, lambda **settings: settings
    monkeypatch.setitem(sys.modules, "wandb", module)
    return found


def test_every_seed_is_a_run_that_gets_its_lines_and_settings(stand_in, tmp_path):
    written(tmp_path, "wandb")
    first, second = stand_in.runs
    assert first.lines == [{"step": 10, "loss": 1.5, "fid_pixels_ref=test": 20.0}, {"step": 20, "loss": 1.25}]
    assert second.lines == [{"step": 10, "loss": 2.5}] and first.finished and second.finished
    assert first.settings["config"] == {**SETTINGS, "seed": 0} and second.settings["config"]["seed"] == 1
    assert first.settings["group"] == tmp_path.name and first.settings["dir"] == tmp_path


@pytest.mark.parametrize(("variable", "mode"), [(None, "offline"), ("WANDB_API_KEY", None), ("WANDB_MODE", None)])
def test_without_an_account_nothing_leaves_the_machine(stand_in, tmp_path, monkeypatch, variable, mode):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "offline")
    written(tmp_path, "wandb")
    assert stand_in.runs[0].settings["mode"] == mode


def test_a_run_that_goes_on_has_the_name_that_it_had_and_a_new_one_in_its_folder_another(tmp_path):
    """And no sign that a filter of MLflow takes for one of its own, whatever the folder is called."""
    folder = tmp_path / 'it\'s \\ "this"'
    first, again, new = (trackers.About(folder, (0, 1), {}, when) for when in (CREATED, CREATED, "2026-01-02"))
    keys = [about.key(seed) for about in (first, again, new) for seed in (0, 1)]
    assert keys[:2] == keys[2:4] and len(set(keys)) == 4 and all(key.isalnum() for key in keys)
    assert first.key(0) != first._replace(folder=tmp_path / "other").key(0)


@pytest.mark.parametrize(
    ("environment", "goes_on"),
    [
        ({}, False),
        ({"WANDB_API_KEY": "x"}, True),
        ({"WANDB_API_KEY": "x", "WANDB_MODE": "offline"}, False),
        ({"WANDB_MODE": "online"}, True),
    ],
)
def test_on_a_server_a_resumed_run_goes_on_and_offline_no_part_takes_the_place_of_another(
    stand_in, tmp_path, monkeypatch, environment, goes_on
):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        written(tmp_path, "wandb")
    asked = [(run.settings.get("id"), run.settings.get("resume")) for run in stand_in.runs]
    assert asked[:2] == asked[2:] and len(set(asked)) == (2 if goes_on else 1)
    assert all((name is not None, resume == "allow") == (goes_on, goes_on) for name, resume in asked)


def test_trackers_are_told_when_a_run_began_not_when_it_goes_on(finished, monkeypatch):
    told, folder = [], finished("supervised")
    monkeypatch.setattr(trackers, "opened", lambda names, about: told.append(about) or [])
    job = train.prepare("supervised", RECIPES["supervised"].config, finished.options("supervised", folder))
    job = job._replace(record=dataclasses.replace(job.record, created="later"))
    train.open_trackers(job)
    assert [about.created for about in told] == [json.loads((folder / "run.json").read_text())["created"]]


def test_a_tracker_that_fails_is_told_of_once_and_costs_no_line(stand_in, tmp_path, capsys):
    stand_in.broken = True
    written(tmp_path, "wandb")
    said = capsys.readouterr().err
    assert said.count("wandb takes no more lines (the server is gone); metrics.jsonl has them all") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == len(LINES)


def test_a_tracker_that_cannot_be_opened_is_one_line(stand_in, tmp_path, monkeypatch):
    def refused(**settings):
        raise PermissionError("no account")

    monkeypatch.setattr(sys.modules["wandb"], "init", refused)
    with pytest.raises(UserError, match=r"wandb cannot be written to \(no account\): mend it, or leave it out"):
        written(tmp_path, "wandb")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("wandb", "wandb", "wandb"), ("mlflow", "mlflow", "mlflow"), ("tensorboard", "tensorboardX", "tensorboard")],
)
def test_one_that_is_not_installed_is_one_line_before_training(tmp_path, monkeypatch, capsys, name, package, extra):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["train", "linear", "--track", name]) == 2
    error = capsys.readouterr().err
    assert error == f"ssl-gen: --track {name} needs {package}: pip install 'ssl-gen[{extra}]'\n"
    assert list(tmp_path.iterdir()) == []


def test_settings_are_flat_and_names_are_allowed_in_mlflow():
    assert dict(trackers.flat(SETTINGS)) == {
        "method": "vae",
        "config.latent": 5,
        "config.hidden": [4, 4],
        "commit": None,
    }
    assert trackers.allowed("test/fid_pixels_ref=test_n=500 (x)") == "test/fid_pixels_ref:test_n:500 -x-"


# The packages themselves


def test_mlflow_holds_every_line_and_a_resumed_run_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow is an extra: pip install 'ssl-gen[mlflow]'")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    written(tmp_path, "mlflow")
    written(tmp_path, "mlflow", lines=[(30, 0, {"loss": 1.0})])
    client = MlflowClient(tracking_uri=(tmp_path / "mlruns").resolve().as_uri())
    (experiment,) = [each for each in client.search_experiments() if each.name == "ssl_gen"]
    runs = {run.data.params["seed"]: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"0", "1"} and runs["0"].info.run_name == f"{tmp_path.name}-seed-0"
    history = client.get_metric_history(runs["0"].info.run_id, "loss")
    assert [(each.step, each.value) for each in history] == [(10, 1.5), (20, 1.25), (30, 1.0)]
    assert runs["0"].data.metrics["fid_pixels_ref:test"] == 20.0 and runs["1"].data.metrics["loss"] == 2.5
    assert runs["0"].data.params["config.latent"] == "5" and runs["0"].info.status == "FINISHED"


def records_of(data: bytes) -> Iterator[bytes]:
    """Those of a file of Weights & Biases: a LevelDB log, blocks of 32 KiB, parts with checksum, length and kind."""
    at, held = 7, b""  # behind the file's own header
    while at + 7 <= len(data):
        if (1 << 15) - at % (1 << 15) < 7:
            at += (1 << 15) - at % (1 << 15)
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        held += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield held
            held = b""


def offline_runs(folder: Path) -> dict[int, list[dict]]:
    """The lines of each seed whose run has ended."""
    from wandb.proto import wandb_internal_pb2

    found = {}
    for file in (folder / "wandb").glob("offline-run-*/*.wandb"):
        lines, seed, ended = [], None, False
        for data in records_of(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            ended = ended or record.WhichOneof("record_type") == "exit"
            if record.WhichOneof("record_type") == "history":
                items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                lines.append({name: value for name, value in items.items() if not name.startswith("_")})
            for item in record.run.config.update if record.WhichOneof("record_type") == "run" else ():
                seed = json.loads(item.value_json) if item.key == "seed" else seed
        if ended:
            found[seed] = lines
    return found


def test_wandb_writes_an_offline_run_a_seed(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is an extra: pip install 'ssl-gen[wandb]'")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    written(tmp_path, "wandb")
    end = time.monotonic() + 60
    while len(found := offline_runs(tmp_path)) < 2:  # a process of its own writes them
        assert time.monotonic() < end, found
        time.sleep(0.2)
    assert found[0] == [{"step": 10, "loss": 1.5, "fid_pixels_ref=test": 20.0}, {"step": 20, "loss": 1.25}]
    assert found[1] == [{"step": 10, "loss": 2.5}]
