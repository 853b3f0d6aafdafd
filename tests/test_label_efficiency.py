"""Label-efficiency experiments: rows say their labels, processes share them out, tables pair them by masks."""

import dataclasses
import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from experiments import (
    cifar10_jpeg_label_efficiency,
    cifar10_jpeg_ten_masks,
    digits_flow,
    digits_label_efficiency,
    label_efficiency,
    mnist_flow,
    mnist_label_efficiency,
    table,
    tracked,
)
from experiments.table import Row
from ssl_gen.core import signals
from ssl_gen.datasets import sources
from ssl_gen.datasets.masking import Scheme
from ssl_gen.methods import METHODS
from ssl_gen.methods.classical import linear
from ssl_gen.metrics import statistics
from ssl_gen.reports.compare.entries import Entry
from ssl_gen.reports.records import FinalRecord, PublishedNumber
from ssl_gen.runs import fit
from ssl_gen.runs.data import load_data
from ssl_gen.runs.options import Options
from ssl_gen.training import processes
from ssl_gen.types import ImageSpec, UserError

ROOT = Path(__file__).parents[1]
BOTH = [digits_label_efficiency, mnist_label_efficiency]
ALL = [
    *BOTH,
    cifar10_jpeg_label_efficiency,
    cifar10_jpeg_ten_masks,
    digits_flow,
    mnist_flow,
]  # that have a tiny form with curves
COMMAND = re.compile(r'python -m experiments\."\$EXPERIMENT" --index "\$\w+" --of "\$COUNT" --out "\$OUT"')
LINEAR = Row("linear", linear.Config(), Options(dataset="digits", seeds=2, features="random", quiet=True))


def entry(name: str, labels: int | str, errors: list, **changes) -> Entry:
    made = {"method": "linear", "dataset": "digits", "labels": labels, "seeds": [0, 1], "seconds": 1.0, "steps": 0}
    made |= {"masks": [f"{labels}-0", f"{labels}-1"], "metrics": {"error": statistics.summary(errors)}}
    return Entry(name, FinalRecord(**made, device="cpu", commit="abc", **changes))


@pytest.mark.parametrize("module", BOTH, ids=lambda module: module.__name__)
def test_a_row_is_named_by_its_method_and_its_labels(module):
    for name, row in module.ROWS.items():
        method, _, labels = name.rpartition("@")
        assert method and row.options.labels == labels
    curves = {name.rpartition("@")[0] for name in module.ROWS if not name.endswith("@all")}
    for method in curves:
        assert [f"{method}@{count}" in module.ROWS for count in module.COUNTS] == [True] * len(module.COUNTS)
    assert module.BASELINE in curves and set(module.PUBLISHED) <= set(module.ROWS)


@pytest.mark.parametrize(
    ("module", "own"),
    [
        (digits_label_efficiency, {"triple_gan", "triple_gan_ceiling"}),
        (mnist_label_efficiency, {"gan_self_training", "adversarial_autoencoder"}),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_every_family_stands_between_its_floor_and_its_ceiling(module, own):
    used = {name.rpartition("@")[0]: row for name, row in module.ROWS.items()}
    names = {"floor", "augmented_floor", "fixmatch", "label_spreading", "generation_floor"}
    assert set(used) == names | {"ceiling", "generation_ceiling", "unconditional"} | own
    assert used["generation_floor"].config.steps == used["generation_ceiling"].config.steps
    assert used["floor"].config.augmentation != used["augmented_floor"].config.augmentation
    assert used["ceiling"].config.network == used["augmented_floor"].config.network
    assert used["ceiling"].config.augmentation == used["augmented_floor"].config.augmentation


def test_rows_with_as_many_labels_share_their_masks():
    rows = digits_label_efficiency.ROWS
    hashes = {name: [mask.sha256 for mask in load_data(row.options).masks] for name, row in rows.items()}
    for count in digits_label_efficiency.COUNTS:
        of_count = [hashes[name] for name in rows if name.endswith(f"@{count}")]
        assert len(of_count) == 6 and all(each == of_count[0] for each in of_count)
        assert len(set(of_count[0])) == 5
    assert hashes["floor@10"] != hashes["floor@20"]


@pytest.mark.parametrize("module", ALL, ids=lambda module: module.__name__)
def test_every_row_of_the_tiny_form_has_options_that_its_method_takes(module):
    for row in label_efficiency.tiny(module.ROWS).values():
        fit.check_options(row.method, METHODS[row.method].make(row.config, ImageSpec(8, 8, 1, 10)), row.options)


@pytest.mark.parametrize("module", ALL, ids=lambda module: module.__name__)
def test_the_tiny_form_is_on_bundled_digits_and_has_a_curve(module):
    rows = label_efficiency.tiny(module.ROWS)
    assert {row.options.dataset for row in rows.values()} == {"digits"}
    assert {row.options.features for row in rows.values()} == {"random"}
    references = {"all"} if any(name.endswith("@all") for name in module.ROWS) else set()
    assert {name.rpartition("@")[2] for name in rows} == {*map(str, module.COUNTS[:2])} | references
    assert all(row.config.steps == table.TINY_STEPS for row in rows.values() if hasattr(row.config, "steps"))
    images = len(sources.load("digits").train_images)
    assert all(row.options.labels == "all" or int(row.options.labels) < images for row in rows.values())


def test_processes_of_an_array_share_the_rows_out():
    rows = digits_label_efficiency.ROWS
    for count in (1, 4, len(rows), len(rows) + 3):
        shares = [list(table.pick(rows, None, index, count)) for index in range(count)]
        assert sorted(name for share in shares for name in share) == sorted(rows)
    assert list(table.pick(rows, None, 3, None)) == [list(rows)[3]]
    assert list(table.pick(rows, "floor@20", None, None)) == ["floor@20"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("other", None, None), "--only takes one row"),
        ((None, 4, 4), "--index is 0 to 3, not 4"),
        ((None, -1, 4), "--index is 0 to 3, not -1"),
        ((None, None, 4), "--of needs --index"),
    ],
)
def test_a_share_that_is_not_there_is_one_line(asked, said):
    with pytest.raises(UserError, match=said):
        table.pick(digits_label_efficiency.ROWS, *asked)


def test_a_table_pairs_each_row_with_the_baseline_on_its_own_masks():
    errors = {"floor@10": [20.0, 22.0], "better@10": [10.0, 11.0], "floor@20": [9.0, 9.0], "better@20": [9.5, 9.1]}
    entries = [entry(name, int(name.split("@")[1]), values) for name, values in errors.items()]
    published = [PublishedNumber("0.5", "x", verified=False)]
    entries.append(entry("ceiling@all", "all", [1.0, 1.0], published=published))
    headers, rows = tracked.layout(entries, "floor", (), report=False)
    assert headers == ["run", "labels", "error (%)", "paired to floor [95 %]", "published", "time"]
    cells = [row[3].split(" ")[0] for row in rows]
    assert cells == ["-", "-10.50", "-", "+0.30", "-"]
    assert [row[4] for row in rows] == ["-"] * 4 + ["0.5 (unverified)"]
    with pytest.raises(ValueError, match="the baseline other is no row"):
        tracked.layout(entries, "other", ())


def test_the_fingerprint_of_a_row_is_that_of_its_numbers_not_of_its_place():
    moved = LINEAR._replace(
        options=dataclasses.replace(
            LINEAR.options, out=Path("x"), data_dir=Path("y"), evaluators=("error",), quiet=False
        )
    )
    assert table.fingerprint(moved) == table.fingerprint(LINEAR)
    for changed in (
        LINEAR._replace(options=dataclasses.replace(LINEAR.options, labels="51")),
        LINEAR._replace(options=dataclasses.replace(LINEAR.options, seeds=3)),
        LINEAR._replace(options=dataclasses.replace(LINEAR.options, first_seed=3)),
        LINEAR._replace(options=dataclasses.replace(LINEAR.options, mask=Scheme(seed=0))),
        LINEAR._replace(options=dataclasses.replace(LINEAR.options, encoder="autoencoder")),
        LINEAR._replace(config=dataclasses.replace(LINEAR.config, l2=2.0)),
    ):
        assert table.fingerprint(changed) != table.fingerprint(LINEAR)


def test_options_that_came_after_a_record_are_in_its_fingerprint_only_where_they_say_something():
    """So that rows that were recorded before are still found."""
    plain = table.setting(LINEAR)["options"]
    assert not {"first_seed"} & set(plain) and "seed" not in plain["mask"]
    said = LINEAR._replace(options=dataclasses.replace(LINEAR.options, first_seed=3, mask=Scheme(seed=0)))
    plain = table.setting(said)["options"]
    assert plain["first_seed"] == 3 and plain["mask"]["seed"] == 0


def test_an_experiment_ends_in_a_table_a_page_and_a_record_with_figures(tmp_path, monkeypatch, capsys):
    for name in ("HERE", "DOCS"):
        monkeypatch.setattr(table, name, tmp_path)
    monkeypatch.setattr(table, "DRAWN", ("experiment",))
    monkeypatch.setattr(table.cache, "keep_compiled", lambda: None)
    rows = label_efficiency.spread({"augmented_floor": LINEAR, "other": LINEAR}, (20, 50), {"ceiling": LINEAR})
    published = {"other@20": PublishedNumber("1.0", "someone")}
    call = ["experiment", rows, "augmented_floor", (), "A title", published]
    for index in range(2):  # two machines, say
        table.main(*call, arguments=["--index", str(index), "--of", "2", "--out", str(tmp_path / "runs")])
    assert not (tmp_path / "runs" / "report.html").exists()
    trained = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/final.json")}
    assert {path.parent.name for path in trained} == set(rows)
    table.main(*call, arguments=["--out", str(tmp_path / "runs"), "--record"])
    assert {path: path.stat().st_mtime_ns for path in trained} == trained  # read, not run again
    assert "paired to augmented_floor" in capsys.readouterr().out
    page = (tmp_path / "runs" / "report.html").read_text()
    assert "Label efficiency" in page and "someone" in page
    assert {path.name for path in tmp_path.glob("experiment*")} == {
        "experiment.json",
        "experiment_error.svg",
        "experiment_error.png",
    }
    monkeypatch.setattr(table, "DRAWN", ())
    (tmp_path / "experiment_error.svg").unlink()
    table.main(*call, arguments=["--out", str(tmp_path / "runs"), "--record"])
    assert not (tmp_path / "experiment_error.svg").exists()  # of what docs do not show
    # what the record holds need not be run again, what was changed since must
    assert set(table.held("experiment", rows)) == set(rows)
    rows["other@20"] = LINEAR._replace(config=dataclasses.replace(LINEAR.config, l2=2.0))
    assert set(table.held("experiment", rows)) == set(rows) - {"other@20"}
    # nor what another record holds, unless it lacks a metric that is asked for
    (tmp_path / "experiment.json").rename(tmp_path / "another.json")
    assert set(table.held("experiment", rows)) == set(rows) - {"other@20"}
    assert not any(entry.final.published for entry in table.held("experiment", rows).values())
    rows["ceiling@all"] = LINEAR._replace(options=rows["ceiling@all"].options, metrics=("cas",))
    assert set(table.held("experiment", rows)) == set(rows) - {"other@20", "ceiling@all"}
    rows["ceiling@all"] = rows["ceiling@all"]._replace(metrics=())
    shutil.rmtree(tmp_path / "runs")
    table.main("experiment", rows, None, (), "A title", arguments=["--missing", "--out", str(tmp_path / "again")])
    assert [path.parent.name for path in tmp_path.glob("again/*/final.json")] == ["other@20"]


def test_a_mistake_is_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as end:
        table.main("experiment", {"a@10": LINEAR}, None, (), "A title", arguments=["--index", "7"])
    assert end.value.code == 2
    assert capsys.readouterr().err == "experiment: --index is 0 to 0, not 7\n"


# Clusters


def test_the_slurm_script_is_bash_and_calls_the_experiment():
    path = ROOT / "experiments" / "slurm.sbatch"
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True).returncode == 0
    text = path.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("srun ")]
    assert COMMAND.search(line) and "SLURM_ARRAY_TASK_ID" in text
    arrays = re.findall(r"--array=0-(\d+).*slurm\.sbatch (\w+)", text)
    assert len(arrays) == 2
    for last, name in arrays:
        assert int(last) + 1 == len(importlib.import_module(f"experiments.{name}").ROWS)


@pytest.mark.parametrize(("status", "queued_again"), [(0, False), (75, True), (2, False)])
def test_the_slurm_script_queues_again_what_a_signal_stopped(status, queued_again, tmp_path):
    said = tmp_path / "said"
    for program, does in {"srun": f"exit {status}", "scontrol": f'echo "$@" > {said}'}.items():
        (tmp_path / program).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / program).chmod(0o755)
    element = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "34", "SLURM_ARRAY_JOB_ID": "812"}
    script = ["bash", str(ROOT / "experiments" / "slurm.sbatch"), "digits_label_efficiency", "/shared/runs"]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert subprocess.run(script, env=os.environ | element | {"PATH": path}).returncode == status
    assert (said.read_text() if said.exists() else None) == ("requeue 812_3\n" if queued_again else None)


@pytest.mark.parametrize("name", ["jobset", "jobset_hosts"])
def test_a_pod_that_a_signal_stopped_is_replaced_and_does_not_count_as_failed(name):
    made = yaml.safe_load((ROOT / "experiments" / f"{name}.yaml").read_text())
    job = made["spec"]["replicatedJobs"][0]["template"]["spec"]
    by_status, by_condition = job["podFailurePolicy"]["rules"]
    assert by_status == {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [signals.AGAIN]}}
    assert by_condition == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    assert job["template"]["spec"]["restartPolicy"] == "Never", "Kubernetes takes the policy with no other"


def test_the_job_set_is_an_indexed_job_that_calls_the_experiment():
    made = yaml.safe_load((ROOT / "experiments" / "jobset.yaml").read_text())
    assert made["kind"] == "JobSet" and made["apiVersion"].startswith("jobset.x-k8s.io/")
    job = made["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert job["completionMode"] == "Indexed" and "$JOB_COMPLETION_INDEX" in container["command"][-1]
    rows = importlib.import_module(f"experiments.{environment['EXPERIMENT']}").ROWS
    assert job["completions"] == int(environment["COUNT"]) == len(rows)
    assert COMMAND.search(container["command"][-1])
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert environment["OUT"] in mounts


def test_the_slurm_script_says_how_a_row_is_spread_over_hosts():
    text = (ROOT / "experiments" / "slurm.sbatch").read_text()
    ((last, nodes, tasks, each, gpus, name, devices),) = re.findall(
        r"--array=0-(\d+) --nodes=(\d+) --ntasks=(\d+) --ntasks-per-node=(\d+) --gpus-per-node=(\d+) "
        r"experiments/slurm\.sbatch \\\n#\s+(\w+) .* --distributed --data-parallel (\d+)\n",
        text,
    )
    assert int(last) + 1 == len(importlib.import_module(f"experiments.{name}").ROWS)
    assert int(nodes) * int(each) == int(tasks) == int(devices) and each == gpus  # jax gives a task of Slurm one GPU


def test_the_job_set_of_several_hosts_tells_each_pod_who_it_is():
    made = yaml.safe_load((ROOT / "experiments" / "jobset_hosts.yaml").read_text())
    (replicated,) = made["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    values = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    fields = {
        each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in container["env"] if "value" not in each
    }
    rows = importlib.import_module(f"experiments.{values['EXPERIMENT']}").ROWS
    assert replicated["replicas"] == int(values["COUNT"]) == len(rows)
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] == int(values[processes.COUNT])
    assert values[processes.COORDINATOR].startswith(f"$(JOBSET)-{replicated['name']}-$(ROW)-0.$(JOBSET):")
    assert fields[processes.INDEX] == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert fields["ROW"] == "metadata.annotations['jobset.sigs.k8s.io/job-index']"
    order = [each["name"] for each in container["env"]]  # a variable is known to those below it
    assert max(order.index("JOBSET"), order.index("ROW")) < order.index(processes.COORDINATOR)
    asked = table.parse("experiment", rows, "", container["command"][-1].split("--out")[1].split()[1:])
    assert COMMAND.search(container["command"][-1])
    assert asked.distributed and asked.data_parallel % job["completions"] == 0
