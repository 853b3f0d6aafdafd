"""The experiments run, and README says what their records say."""

import dataclasses
import importlib
import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from experiments import (
    cifar10_jpeg_ten_masks,
    digits_bad_gan,
    digits_demo,
    digits_dual_sources,
    digits_flow,
    digits_sampling,
    digits_sources,
    figures,
    mnist_barred_sevens,
    mnist_flow,
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
from ssl_gen.datasets.masking import Scheme
from ssl_gen.evaluation import features
from ssl_gen.methods import METHODS
from ssl_gen.metrics import statistics
from ssl_gen.networks.pretrained.sources import PACKAGES
from ssl_gen.reports import records
from ssl_gen.reports.compare import entries as compared
from ssl_gen.reports.compare import page as comparing
from ssl_gen.reports.compare.entries import Entry
from ssl_gen.runs import train
from ssl_gen.runs.data import load_data
from ssl_gen.runs.options import Options
from ssl_gen.types import ImageSpec, UserError

ROOT = Path(__file__).parents[1]
TABLES = [path.stem for path in sorted((ROOT / "experiments").glob("*.py")) if "ROWS = " in path.read_text()]
RECORDS = sorted((ROOT / "experiments").glob("*.json"))
MARKED = [path for path in RECORDS if '"setting"' in path.read_text()]  # whose rows have fingerprints


def test_of_rows_of_several_machines_each_says_which_it_was(monkeypatch):
    made = tracked.load(table.HERE / "digits_demo.json")
    assert list(dict.fromkeys(final.device for final in made.rows.values())) == ["2 cores, Intel(R) Xeon(R) Processor"]
    assert "| on |" not in readme.block("digits_demo")
    elsewhere = dataclasses.replace(made.rows["floor"], device="1 x NVIDIA H200")
    moved = dataclasses.replace(made, rows=made.rows | {"floor": elsewhere})
    monkeypatch.setattr(readme, "load", lambda path: moved)
    drawn = readme.block("digits_demo")
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in drawn.splitlines() if line.startswith("| ")}
    assert lines["run"].endswith("| time | on |")
    assert [lines[name].removesuffix(" |")[-1] for name in made.rows] == ["a", "b", "b", "b"]
    said = ", precision default (float32)"
    assert f"a: 1 x NVIDIA H200{said}; b: 2 cores, Intel(R) Xeon(R) Processor{said}, commit" in drawn


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


def test_labels_of_sevens_are_moved_and_nothing_else():
    options = Options(dataset="digits", labels="50", seeds=2, first_seed=9, mask=Scheme(seed=mnist_barred_sevens.MASK))
    data = load_data(options)
    shown, labels = data.masks[0].labels, data.dataset.train_labels
    sevens, hidden = np.flatnonzero(shown == 7), np.flatnonzero((labels == 7) & (shown < 0))
    assert mnist_barred_sevens.moved(data, ()) is data
    first, second = mnist_barred_sevens.moved(data, (hidden[3], hidden[1])).masks
    changed = np.flatnonzero(first.labels != shown)
    assert first is second and sorted(changed) == sorted([*sevens[:2], hidden[1], hidden[3]])
    assert first.labels[hidden[[1, 3]]].tolist() == [7, 7] and (first.pool == data.masks[0].pool).all()
    assert first.sha256 != data.masks[0].sha256
    with pytest.raises(AssertionError, match="hidden sevens"):
        mnist_barred_sevens.moved(data, (sevens[0],))


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


def test_ten_masks_of_photographs_train_side_by_side_in_half_precision(tmp_path):
    name, row = "airbench@40", cifar10_jpeg_ten_masks.TINY["airbench@40"]
    assert cifar10_jpeg_ten_masks.ROWS[name].options.seeds == 10
    few = dataclasses.replace(row.options, evaluators=())
    row = row._replace(config=dataclasses.replace(row.config, steps=2), options=few)
    (entry,) = table.train({name: row}, tmp_path).values()
    assert entry.final.seeds == [0, 1] and len(set(entry.final.masks)) == 2
    assert entry.final.precision.startswith("bfloat16")
    assert row.options.replicas == "vmap"


def test_the_two_networks_of_ten_masks_differ_in_nothing_else():
    for row in cifar10_jpeg_ten_masks.ROWS.values():
        plain = cifar10_jpeg_ten_masks.ROWS["wide_resnet@40"]
        assert dataclasses.replace(row.config, network="wide_resnet", width=32) == plain.config
        assert dataclasses.replace(row.options, labels="40") == plain.options


def test_every_source_of_two_methods_is_switched_alike():
    gan, flow = digits_sources.ROWS, digits_dual_sources.ROWS
    assert list(gan) == list(flow) and len({table.fingerprint(row) for row in flow.values()}) == len(flow)
    for name, row in flow.items():
        switches = [f"from_{source}" for source in ("labels", "guesses", "samples")]
        assert [getattr(row.config, each) for each in switches] == [
            getattr(gan[name].config, each) for each in switches
        ]
        assert row.options.labels == gan[name].options.labels
    assert table.fingerprint(flow["all"]) == table.fingerprint(digits_flow.ROWS["dual_pseudo_training@20"])


def test_discriminators_that_tell_classes_apart_share_sizes_batches_rate_and_length():
    rows = [digits_bad_gan.ROWS[name] for name in ("sgan", "feature_matching", "bad_gan", "without_pull_away")]
    for name in digits_bad_gan.SHARED:
        assert len({getattr(row.config, name) for row in rows}) == 1
    assert {row.config.network for row in rows} == {"mlp"}


@pytest.mark.parametrize("module", [digits_flow, mnist_flow])
def test_an_unconditional_flow_is_measured_by_no_label(module):
    row = module.ROWS["unconditional@all"]
    assert not METHODS[row.method].make(row.config, ImageSpec(8, 8, 1, 10)).conditional and not row.metrics
    assert dataclasses.replace(row.config, unlabelled="guessed", label_dropout=0.1) == module.FLOW


def a_study(steps, guidance):
    """Of a run that is there, and of one that is not."""
    ways = {f"steps {n}": sampling.Way("flow", n, "flow", {"steps": n}, ("fid",)) for n in steps}
    ways |= {"later": sampling.Way("later", 1, "later", {"steps": 1}, ("fid",))}
    guided = {f"guidance {w:g}": sampling.Way("flow", w, "flow", {"guidance": w}, ("fid", "copying")) for w in guidance}
    return sampling.Study("a_study", "an_experiment", "digits", 50, 2, 50, ways, guided, ("fid", "copying_labelled"))


@pytest.fixture
def drawn_from(tmp_path, monkeypatch):
    """Its folder of finished runs, without a network: every way to draw comes to the same numbers."""
    for name in ("HERE", "DOCS"):
        monkeypatch.setattr(sampling, name, tmp_path)
    run = types.SimpleNamespace(check_trained=lambda: None, states={}, temperatures={}, compiled=None, sampler=dict)
    names = {"fid": "fid_some_ref=test_n=50", "copying": "copying_labelled_some_ref=test_n=50"}

    def measured(_compiled, _data, _states, _reference, metrics, _sampler):
        return {names[metric]: statistics.summary([1.0, 2.0]) for metric in metrics}

    monkeypatch.setattr(sampling.cache, "keep_compiled", lambda: None)
    monkeypatch.setattr(sampling, "load_run", lambda _folder: run)
    monkeypatch.setattr(sampling, "data_of", lambda _run: (Options(), None))
    monkeypatch.setattr(sampling, "make_reference", lambda _data, _options: None)
    monkeypatch.setattr(sampling.record, "measure_seeds", measured)
    monkeypatch.setattr(sampling.record, "commit", lambda: "first")
    (tmp_path / "runs" / "flow").mkdir(parents=True)
    (tmp_path / "runs" / "flow" / "final.json").touch()
    return tmp_path


def test_what_can_be_measured_is_recorded_and_drawn_and_the_rest_is_named(drawn_from, monkeypatch, capsys):
    runs, record = drawn_from / "runs", drawn_from / "a_study.json"
    sampling.main(a_study((1, 2), ()), None, ["--record", "--runs", str(runs), "--out", str(drawn_from / "kept.json")])
    assert f"passed over, not finished in {runs}: later\n" in capsys.readouterr().out
    first = json.loads(record.read_text())
    assert {name: list(ways) for name, ways in first["metrics"].items()} == {"fid": ["steps 1", "steps 2"]}
    sampling.main(a_study((1, 2), (1.0,)), None, ["figures"])
    assert {path.name for path in drawn_from.glob("*.svg")} == {"a_study_steps_fid.svg"}
    # elsewhere, where no run is but what was measured of another way: the record keeps its own, and says both places
    monkeypatch.setattr(sampling.record, "commit", lambda: "second")
    kept = {"fid": {"guidance 1": statistics.summary([3.0, 5.0])}}
    made = {"guidance 1": ("a run that is elsewhere", "second", first["device"])}
    (drawn_from / "other.json").write_text(json.dumps({"metrics": kept, "made": made}))
    there = ["--record", "--runs", "absent", "--out", str(drawn_from / "other.json")]
    for _ in range(2):  # and stays as it is where nothing is new
        sampling.main(a_study((1, 2), (1.0,)), None, there)
        after = json.loads(record.read_text())
        assert list(after["metrics"]["fid"]) == ["steps 1", "steps 2", "guidance 1"]
        assert after["metrics"]["fid"] == first["metrics"]["fid"] | kept["fid"]
        assert after["commit"] == "first; second" and after["device"] == first["device"]


def test_a_study_of_which_nothing_is_there_is_one_line(drawn_from):
    with pytest.raises(UserError, match="nothing to record: train an_experiment first"):
        sampling.main(a_study((1,), ()), None, ["--record", "--runs", "absent", "--out", str(drawn_from / "kept.json")])


def test_an_experiment_resumes_what_is_finished(trained):
    folder, first = trained["floor"]
    assert table.train({"floor": SHRUNK["floor"]}, folder) == first
