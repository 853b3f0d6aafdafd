"""The experiments run, and README says what their records say."""

import dataclasses
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import (
    digits_demo,
    digits_sampling,
    figures,
    mnist_orderings,
    mnist_sampling,
    readme,
    sampling,
    table,
    tracked,
)
from ssl_gen.core import signals
from ssl_gen.core.plain import to_plain
from ssl_gen.datasets import sources
from ssl_gen.evaluation import features
from ssl_gen.methods import METHODS
from ssl_gen.networks.pretrained.sources import PACKAGES
from ssl_gen.reports import records
from ssl_gen.reports.compare import entries as compared
from ssl_gen.reports.compare import page as comparing
from ssl_gen.reports.compare.entries import Entry
from ssl_gen.runs import train

ROOT = Path(__file__).parents[1]
TABLES = [path.stem for path in sorted((ROOT / "experiments").glob("*.py")) if "ROWS = " in path.read_text()]
RECORDS = sorted((ROOT / "experiments").glob("*.json"))
MARKED = [path for path in RECORDS if '"setting"' in path.read_text()]  # whose rows have fingerprints


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.stem)
def test_the_tables_of_a_page_are_those_of_the_records(page):
    text = page.read_text()
    assert readme.BLOCK.search(text) and readme.filled(text) == text


@pytest.mark.parametrize("name", table.DRAWN)
def test_the_figures_in_docs_are_those_of_the_records(name, tmp_path):
    record = tracked.load(ROOT / "experiments" / f"{name}.json")
    entries = [Entry(row, final) for row, final in record.rows.items()]
    full = compared.chosen(entries, table.shown(entries, record.metrics))
    drawn = [path for path in comparing.draw(entries, full, tmp_path, name) if path.suffix == ".svg"]
    assert {path.name for path in drawn} == {path.name for path in (ROOT / "docs").glob(f"{name}_*.svg")}
    assert all(path.read_bytes() == (ROOT / "docs" / path.name).read_bytes() for path in drawn)


STUDIES = {study.name: study for study in (digits_sampling.STUDY, mnist_sampling.STUDY)}


def drawn_of(name, folder):
    if name in STUDIES:
        return sampling.draw(STUDIES[name], tracked.load(ROOT / "experiments" / f"{name}.json"), folder)
    return figures.draw(name, folder)


@pytest.mark.parametrize("name", [*STUDIES, *figures.FIGURES])
def test_figures_that_are_not_of_one_table_are_those_of_the_records(name, tmp_path):
    written = drawn_of(name, tmp_path)
    drawn = [path for path in written if path.suffix == ".svg"]
    assert {path.name for path in drawn} == {path.name for path in (ROOT / "docs").glob(f"{name}_*.svg")}
    assert all(path.read_bytes() == (ROOT / "docs" / path.name).read_bytes() for path in drawn)


def test_every_record_of_an_experiment_stands_in_a_page():
    shown = {match[2] for page in readme.PAGES for match in readme.BLOCK.finditer(page.read_text())}
    assert shown == {path.stem for path in RECORDS} - {"mnist_orderings"}  # that one is told in words


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_says_where_its_numbers_come_from_and_holds_no_path(path):
    content = json.loads(path.read_text())
    assert "rows" in content or (content["commit"] and content["device"] and content["metrics"])
    for final in content.get("rows", {}).values():
        assert final["commit"] and final["device"] and final["seconds"] and final["seeds"] and final["masks"]
        assert final["metrics"]
        assert all(len(values["per_seed"]) == len(final["seeds"]) for values in final["metrics"].values())
    assert not re.search(r"/(tmp|home|root|work|Users)/", path.read_text())


@pytest.mark.parametrize("path", MARKED, ids=lambda path: path.stem)
def test_a_record_that_is_made_again_of_the_same_runs_is_the_same(path):
    record = tracked.load(path)
    rows = importlib.import_module(f"experiments.{path.stem}").ROWS
    entries = [Entry(name, final) for name, final in record.rows.items()]
    again = table.to_be_tracked(entries, rows, record.baseline, record.metrics)
    there = json.loads(path.read_text())
    for name, row in again["rows"].items():
        assert row.pop("format") == 2
        # rows of the first version lack lists that were empty
        lacking = [key for key in ("unmeasured", "averaged") if not row[key] and key not in there["rows"][name]]
        recorded = {key: value for key, value in there["rows"][name].items() if key != "format"}
        assert {key: value for key, value in row.items() if key not in lacking} == recorded
    assert list(again["rows"]) == list(there["rows"]) and again["metrics"] == there["metrics"]


@pytest.mark.parametrize("kind", table.LATER, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_setting_younger_than_the_records_makes_another_row_only_where_it_changes_something(kind):
    off = table.LATER[kind]
    value = dataclasses.replace(kind(), **off)
    before = {key: each for key, each in to_plain(value).items() if key not in off}
    assert off and len(before) + len(off) == len(dataclasses.fields(kind))
    assert {key: each for key, each in table.settled(value).items() if key in before} == table.settled(value)
    for key in off:
        assert table.settled(dataclasses.replace(value, **{key: "another"}))[key] == "another"


@pytest.mark.parametrize("name", TABLES)
def test_the_rows_of_a_table_are_of_methods_that_exist_and_learn_of_an_earlier_row(name):
    rows = importlib.import_module(f"experiments.{name}").ROWS
    for place, row in enumerate(rows.values()):
        assert isinstance(row.config, METHODS[row.method].Config)
        named = {getattr(row.options, option) for option in table.EARLIER} - {None, *PACKAGES}
        assert named <= set(list(rows)[:place])


def test_a_column_is_found_by_the_beginning_of_its_name():
    names = ["fid_a-b_ref=test_n=100", "fid_infinity", "iwae_5000", "iwae_5000_bits_per_dimension", "nll"]
    assert table.matching("fid", names) == ["fid_a-b_ref=test_n=100"]
    assert table.matching("iwae", names) == ["iwae_5000"]
    assert table.matching("nll", names) == ["nll"] and table.matching("kid", names) == []


def test_the_rows_of_the_demo_share_masks_augmentation_and_network():
    rows = digits_demo.ROWS
    assert {row.method for row in rows.values()} <= set(METHODS)
    assert {row.options.seeds for row in rows.values()} == {5}
    floor, method = rows["augmented_floor"].config, rows["triple_gan"].config
    assert floor.augmentation == method.augmentation
    assert (floor.network, floor.width, floor.dropout) == (
        method.classifier_network,
        method.classifier_width,
        method.dropout,
    )


def test_metrics_order_corrupted_thinned_and_copied_images():
    dataset = sources.load("digits")
    found = mnist_orderings.measure(dataset, features.find_extractor("random", dataset.spec, "digits", ""))
    fid = found["fid"]
    for kind, strengths in (("blurred", mnist_orderings.BLURS), ("noisy", mnist_orderings.NOISES)):
        values = [fid["test images"], *(fid[f"{kind} {strength}"] for strength in strengths)]
        assert values == sorted(values)
    assert fid["noisy 1.0"] < fid["noise alone"]
    coverage = list(found["coverage"].values())
    assert coverage == sorted(coverage, reverse=True)
    for kind in ("labelled", "unlabelled"):
        scores, ratios = found[f"copying_{kind}"], found[f"nearest_ratio_{kind}"]
        assert scores[f"copies of {kind} images"] < -3 < scores["new images"]
        assert ratios[f"copies of {kind} images"] < 0.1 < 0.9 < ratios["new images"]


@pytest.mark.slow
def test_the_demo_runs_in_its_tiny_form(tmp_path):
    command = [sys.executable, "-m", "experiments.digits_demo", "--tiny", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for row in digits_demo.ROWS:
        assert row in done.stdout and (tmp_path / row / "report.html").exists()


SHRUNK = {name: table.shrunk(digits_demo.ROWS[name]) for name in ("floor", "augmented_floor", "ceiling", "triple_gan")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Of two rows of the demo, the folder that each was trained in, alone, and what that gave."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("floor", "augmented_floor")}
    return {name: (folder, table.train({name: SHRUNK[name]}, folder)) for name, folder in folders.items()}


def test_a_table_can_be_made_of_the_rows_that_are_finished(trained, capsys):
    folder, _ = trained["floor"]
    capsys.readouterr()
    table.main("digits_demo", SHRUNK, None, (), "a title", arguments=["--finished", "--out", str(folder)])
    printed = capsys.readouterr().out
    assert "floor" in printed and "triple_gan" not in printed


def test_a_table_of_finished_rows_trains_nothing_though_their_checkpoints_are_gone(trained, tmp_path, capsys):
    folder = shutil.copytree(trained["floor"][0], tmp_path / "copied")
    shutil.rmtree(folder / "floor" / "checkpoints")
    before = (folder / "floor" / "final.json").read_bytes()
    run = records.load_run(folder / "floor")
    older = {name: value for name, value in run.options.items() if name != "encoder_size"}  # which came later
    records.write(folder / "floor" / "run.json", dataclasses.replace(run, options=older))
    rows = {"floor": SHRUNK["floor"]._replace(metrics=("nearest_ratio",))}
    asked = ["--finished", "--out", str(folder)]
    table.main("digits_demo", rows, None, (), "a title", arguments=asked)
    printed = capsys.readouterr().out
    assert "floor: not all is measured: " in printed and "error" in printed
    assert (folder / "floor" / "final.json").read_bytes() == before and not (folder / "floor" / "checkpoints").exists()
    other = dataclasses.replace(rows["floor"].options, labels="60")
    with pytest.raises(SystemExit, match="2"):
        table.main("digits_demo", {"floor": rows["floor"]._replace(options=other)}, None, (), "", arguments=asked)
    assert "was run with floor.options.labels 50, the experiment has 60" in capsys.readouterr().err


def test_a_table_of_no_finished_row_is_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        table.main("digits_demo", SHRUNK, None, (), "a title", arguments=["--finished", "--out", str(tmp_path / "new")])
    assert f"no row is finished in {tmp_path / 'new'}" in capsys.readouterr().err


def test_with_missing_the_table_of_finished_rows_has_those_of_the_record(trained, tmp_path, monkeypatch, capsys):
    rows = {name: SHRUNK[name] for name in ("floor", "augmented_floor", "ceiling")}
    (folder, _), (_, earlier) = trained["floor"], trained["augmented_floor"]
    monkeypatch.setattr(table, "HERE", tmp_path)
    table.record("some", list(earlier.values()), rows, None, (), tmp_path / "some.json")
    arguments = ["--finished", "--missing", "--out", str(folder)]
    capsys.readouterr()
    table.main("some", rows, None, (), "a title", arguments=arguments)
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert {"floor", "augmented_floor"} <= set(lines) and "ceiling" not in lines


def test_what_a_row_to_be_trained_learns_of_is_trained_though_it_is_recorded():
    options = digits_demo.FIFTY
    named = {
        "latents": options,
        "guesses": dataclasses.replace(options, encoder="latents"),
        "flow": dataclasses.replace(options, labeller="guesses"),
        "other": options,
    }
    rows = {name: digits_demo.ROWS["floor"]._replace(options=options) for name, options in named.items()}
    recorded = {name: Entry(name, None) for name in rows}
    assert table.spared(rows, recorded) == recorded
    del recorded["flow"]
    assert set(table.spared(rows, recorded)) == {"other"}


@pytest.mark.parametrize("asked", [["--only", "floor"], ["--index", "0"], []])
def test_a_row_that_a_signal_stopped_is_not_taken_for_done(asked, tmp_path, monkeypatch):
    """`many` would start what learns from it; a script would go on to the table."""
    monkeypatch.setattr(table, "train_run", lambda *_: train.Result(tmp_path, None, ""))
    with pytest.raises(SystemExit) as stopped:
        table.main("digits_demo", SHRUNK, None, (), "a title", arguments=[*asked, "--out", str(tmp_path)])
    assert stopped.value.code == signals.AGAIN == 75


def test_an_experiment_resumes_what_is_finished(trained):
    folder, first = trained["floor"]
    assert table.train({"floor": SHRUNK["floor"]}, folder) == first
