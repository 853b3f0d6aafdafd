"""Runs from several machines become one record, and those that do not belong together are refused in one line."""

import dataclasses
import json
import shutil
import types
from pathlib import Path

import pytest
import test_compare

from experiments import collect, label_efficiency, table
from experiments.table import Row
from ssl_gen.core import files
from ssl_gen.methods.classical import linear
from ssl_gen.metrics import statistics
from ssl_gen.runs.options import Options
from ssl_gen.types import UserError

LINEAR = Row("linear", linear.Config(), Options(dataset="digits", seeds=2, features="random", quiet=True))
ROWS = label_efficiency.spread({"augmented_floor": LINEAR, "other": LINEAR}, (20, 50), {"ceiling": LINEAR})
EXPERIMENT = types.SimpleNamespace(ROWS=ROWS, BASELINE="augmented_floor", METRICS=())


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """All rows, in one folder."""
    folder = tmp_path_factory.mktemp("trained")
    table.train(ROWS, folder)
    return folder


@pytest.fixture
def machines(trained, tmp_path) -> list[Path]:
    """The same rows, on two machines."""
    for number, name in enumerate(ROWS):
        shutil.copytree(trained / name, tmp_path / f"machine {number % 2}" / name)
    return [tmp_path / "machine 0", tmp_path / "machine 1"]


def amend(path: Path, **changes) -> None:
    files.write_json(path, files.read_json(path) | changes)


def gathered(folders: list[Path], experiment=EXPERIMENT) -> list[str]:
    return [entry.name for entry in collect.collect("experiment", experiment, folders)]


def test_the_record_of_several_folders_is_that_of_one(trained, machines, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(collect, "find_experiment", lambda name: EXPERIMENT)
    for number, folders in enumerate(([trained], machines, [*machines, machines[0]])):
        place = tmp_path / f"record {number}"
        place.mkdir()
        collect.main(
            ["experiment", *map(str, folders), "--out", str(place / "a.json"), "--page", str(place / "b.html")]
        )
    texts = [(tmp_path / f"record {number}" / "a.json").read_text() for number in range(3)]
    assert texts[0] == texts[1] == texts[2] and str(tmp_path) not in texts[0]
    record = json.loads(texts[0])
    assert list(record["rows"]) == list(ROWS) and record["baseline"] == "augmented_floor"
    assert all(row["setting"] == table.fingerprint(ROWS[name]) for name, row in record["rows"].items())
    assert (tmp_path / "record 0" / "experiment_error.svg").exists()

    assert "2 comparisons" in (tmp_path / "record 0" / "b.html").read_text()
    assert "paired to augmented_floor" in capsys.readouterr().out


def test_what_is_missing_is_named(machines):
    (machines[0] / "other@20" / "final.json").unlink(missing_ok=True)
    (machines[1] / "other@20" / "final.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match="not finished in any folder: other@20; run them"):
        gathered(machines)
    with pytest.raises(UserError, match="there is no folder"):
        gathered([*machines, machines[0] / "nowhere"])


def test_a_row_of_another_config_is_refused(machines):
    changed = dataclasses.replace(LINEAR.config, l2=2.0)
    rows = ROWS | {"other@20": ROWS["other@20"]._replace(config=changed)}
    experiment = types.SimpleNamespace(ROWS=rows, BASELINE="augmented_floor", METRICS=())
    with pytest.raises(UserError, match=r"other@20\.config\.l2 1\.0, the experiment has 2\.0"):
        gathered(machines, experiment)


def test_a_tiny_run_is_refused(machines):
    rows = {name: row._replace(options=dataclasses.replace(row.options, seeds=5)) for name, row in ROWS.items()}
    with pytest.raises(UserError, match=r"options\.seeds 2, the experiment has 5"):
        gathered(machines, types.SimpleNamespace(ROWS=rows, BASELINE=None, METRICS=()))


def test_a_run_of_another_commit_is_refused(machines):
    amend(machines[0] / "ceiling@all" / "run.json", commit="another")
    with pytest.raises(UserError, match=r"ceiling@all and augmented_floor@20 do not .* their commit is another and"):
        gathered(machines)


def test_a_run_of_other_masks_is_refused(machines):
    path = next(machine / "other@50" / "run.json" for machine in machines if (machine / "other@50").exists())
    masks = json.loads(path.read_text())["masks"]
    amend(path, masks=[masks[0], {**masks[1], "sha256": "f" * 64}])
    amend(path.with_name("final.json"), masks=[masks[0]["sha256"], "f" * 64])
    with pytest.raises(UserError, match=r"other@50 and augmented_floor@50 do not .* their mask of seed 1 is ffff"):
        gathered(machines)


def test_a_run_of_other_images_is_refused(machines):
    path = next(machine / "other@50" / "run.json" for machine in machines if (machine / "other@50").exists())
    amend(path, data=json.loads(path.read_text())["data"] | {"sha256": "f" * 64})
    with pytest.raises(UserError, match=r"other@50 and augmented_floor@20 do not .* their data is ffff"):
        gathered(machines)


def test_a_row_that_was_run_twice_with_other_numbers_is_refused(machines):
    name = next(iter(ROWS))
    shutil.copytree(machines[0] / name, machines[1] / name)
    assert gathered(machines) == list(ROWS)  # a copy is the same run
    amend(machines[1] / name / "final.json", seconds=1e6)
    with pytest.raises(UserError, match=f"{name} was run twice"):
        gathered(machines)


def test_numbers_from_other_features_are_refused():
    one, other = (
        test_compare.entry(name, 10, [], metrics={f"fid_{features}_ref=test_n=100": statistics.summary([1.0])})
        for name, features in (("a@10", "x-1"), ("b@10", "y-2"))
    )
    with pytest.raises(UserError, match="fid was measured in different ways"):
        collect.check_features([one, other], ("fid",))
    collect.check_features([one], ("fid", "cas"))


def test_an_experiment_that_is_not_there_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        collect.main(["nowhere", "folder"])
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.count("\n") == 1 and "digits_label_efficiency" in said
