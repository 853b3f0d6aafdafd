"""Runs from several machines become one record, and those that do not belong together are refused in one line."""

import dataclasses
import json
import shutil
import types
from pathlib import Path

import pytest
import test_compare

from experiments import collect, label_efficiency, table, tracked
from experiments.table import Row
from ssl_gen.core import files
from ssl_gen.methods.classical import linear
from ssl_gen.metrics import statistics
from ssl_gen.reports import tables
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


@pytest.fixture
def recorded(trained, tmp_path, monkeypatch) -> Path:
    """experiments/experiment.json with all rows, in a folder of its own."""
    monkeypatch.setattr(table, "HERE", tmp_path / "records")
    monkeypatch.setattr(collect, "find_experiment", lambda name: EXPERIMENT)
    table.HERE.mkdir()
    path = table.HERE / "experiment.json"
    collect.main(["experiment", str(trained), "--out", str(path)])
    return path


def test_rows_are_put_into_a_record_as_they_come(trained, recorded, tmp_path):
    """A row that is run again replaces its own numbers alone, and needs not be of the others' commit."""
    before = json.loads(recorded.read_text())
    again = tmp_path / "again"
    for name in ("other@20", "other@50"):
        shutil.copytree(trained / name, again / name)
        amend(again / name / "run.json", commit="another")
        amend(again / name / "final.json", commit="another", seconds=123.0)
    collect.main(["experiment", str(again), "--missing", "--only", "other@20", "--out", str(recorded)])
    after = json.loads(recorded.read_text())
    assert list(after["rows"]) == list(ROWS) and after["baseline"] == "augmented_floor"
    assert after["rows"]["other@20"]["seconds"] == 123.0 and after["rows"]["other@20"]["commit"] == "another"
    unchanged = [name for name in ROWS if name != "other@20"]
    assert [after["rows"][name] for name in unchanged] == [before["rows"][name] for name in unchanged]
    collect.main(["experiment", str(again), "--missing", "--out", str(recorded)])
    assert json.loads(recorded.read_text())["rows"]["other@50"]["seconds"] == 123.0


def test_stale_rows_and_those_not_yet_run_may_be_missing(trained, recorded, tmp_path):
    record = json.loads(recorded.read_text())
    stale = {**record["rows"]["other@50"], "stale": "before something", "setting": "another"}
    old = {
        key: each for key, each in record["rows"]["ceiling@all"].items() if key != "setting"
    }  # before there were any
    recorded.write_text(json.dumps({**record, "baseline": None, "rows": {"other@50": stale, "ceiling@all": old}}))
    shutil.copytree(trained / "other@20", tmp_path / "again" / "other@20")
    collect.main(["experiment", str(tmp_path / "again"), "--missing", "--out", str(recorded)])
    after = json.loads(recorded.read_text())
    assert (
        list(after["rows"]) == ["other@20", "other@50", "ceiling@all"]
        and after["rows"]["other@50"]["stale"] == "before something"
    )
    assert after["baseline"] is None  # no row is of it yet


def test_what_was_measured_with_other_features_has_a_column_of_its_own(trained, recorded, tmp_path):
    again = tmp_path / "again" / "other@20"
    shutil.copytree(trained / "other@20", again)
    record = json.loads(recorded.read_text())
    for features, place in (
        ("x-1", record["rows"]["other@50"]),
        ("y-2", final := files.read_json(again / "final.json")),
    ):
        place["metrics"][f"fid_{features}_ref=test_n=100"] = place["metrics"]["error"]
    files.write_json(again / "final.json", final)
    recorded.write_text(json.dumps(record))
    experiment = types.SimpleNamespace(ROWS=ROWS, BASELINE="augmented_floor", METRICS=("fid",))
    entries = collect.add("experiment", experiment, [again.parent])
    headers, lines = tracked.layout(entries, "augmented_floor", ("fid",))
    columns = [headers.index(f"fid_{features}_ref=test_n=100") for features in ("x-1", "y-2")]
    cells = {line[0]: [line[place] for place in columns] for line in lines}
    assert cells["other@50"][1] == cells["other@20"][0] == tables.MISSING
    assert tables.MISSING not in (cells["other@50"][0], cells["other@20"][1])


def test_a_row_with_other_masks_than_the_recorded_ones_is_refused(trained, recorded, tmp_path, capsys):
    again = tmp_path / "again" / "other@20"
    shutil.copytree(trained / "other@20", again)
    masks = json.loads((again / "run.json").read_text())["masks"]
    amend(again / "run.json", masks=[masks[0], {**masks[1], "sha256": "f" * 64}])
    amend(again / "final.json", masks=[masks[0]["sha256"], "f" * 64])
    with pytest.raises(SystemExit):
        collect.main(["experiment", str(again.parent), "--missing"])
    assert "have other masks of seed 1: ffff" in capsys.readouterr().err.replace("\n", " ")


def test_what_cannot_be_put_in_is_one_line(trained, recorded, capsys):
    for asked, said in (
        (["--missing", "--only", "nowhere"], "experiment has no row nowhere"),
        (["--only", "other@20"], "give --missing too"),
    ):
        with pytest.raises(SystemExit) as end:
            collect.main(["experiment", str(trained), *asked])
        error = capsys.readouterr().err
        assert end.value.code == 2 and error.count("\n") == 1 and said in error


def test_a_run_with_another_precision_is_the_row_unless_the_row_says_one(machines):
    path = next(machine / "other@50" / "run.json" for machine in machines if (machine / "other@50").exists())
    amend(path, options=json.loads(path.read_text())["options"] | {"precision": "bfloat16"})
    assert gathered(machines) == list(ROWS)
    options = dataclasses.replace(LINEAR.options, labels="50", precision="float32")
    asking = types.SimpleNamespace(
        ROWS=ROWS | {"other@50": LINEAR._replace(options=options)}, BASELINE=None, METRICS=()
    )
    with pytest.raises(UserError, match=r"options\.precision bfloat16, the experiment has float32"):
        gathered(machines, asking)


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
