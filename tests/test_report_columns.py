"""Pages by their columns: every number of a report and of a comparison stands under its own heading, in its own row."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import test_compare
import test_latents
import test_reports
from test_reports import DIGITS, ERRORS, words

from ssl_gen import cli
from ssl_gen.metrics import statistics
from ssl_gen.reports import run_folder
from ssl_gen.reports.charts import curves
from ssl_gen.reports.compare import page as comparing
from ssl_gen.reports.records import MaskRecord, PublishedNumber
from ssl_gen.reports.run import page, sections, training
from ssl_gen.runs import evaluate


def cells_of(line: str) -> list[str]:
    return [words(cell).strip() for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line, re.S)]


def rows_of(text: str, heading: str) -> list[dict[str, str]]:
    """The rows of the one table that has this heading, each as {heading: cell}."""
    tables = [[cells_of(row) for row in re.findall(r"<tr>(.*?)</tr>", each, re.S)] for each in text.split("<table")[1:]]
    ((headers, *rows),) = [each for each in tables if heading in each[0]]
    return [dict(zip(headers, row, strict=True)) for row in rows]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return test_reports.make_run(tmp_path / "run")


def whole(folder: Path) -> str:
    return page.write(folder).read_text(encoding="utf-8")


# A run


def test_each_seed_has_its_own_number_in_the_row_of_its_metric(folder):
    rows = {row["metric"]: row for row in rows_of(whole(folder).split("Oracle (best")[0], "seed 0")}
    summary = statistics.summary(ERRORS)
    error = rows["error (%)"]
    assert [error[f"seed {seed}"] for seed in range(5)] == [f"{each:.2f}" for each in ERRORS]
    assert error["mean ± std (n)"] == f"{summary['mean']:.2f} ± {summary['std']:.2f} (5)"
    assert error["95 % interval"] == "{:.2f} to {:.2f}".format(*summary["ci95"])
    assert [rows["fid_svc"][f"seed {seed}"] for seed in (0, 4)] == ["31.4", "33.3"]


def test_the_introduction_names_each_number_for_what_it_is(folder):
    seen = " ".join(words(sections.introduction(run_folder.read(folder))).split())
    low, high = statistics.summary(ERRORS)["ci95"]
    assert f"(95 % interval {low:.2f} to {high:.2f})" in seen
    assert "1,297 training images of 8 by 8 pixels, 1 channel, in 10 classes; 500 test images, 100 validation" in seen


def test_a_seed_stands_beside_its_own_mask(folder):
    masks = [MaskRecord(f"digits@50-s{seed}", f"{seed}" * 64, 50 + seed, 1_290 + seed) for seed in range(5)]
    test_reports.amend(folder, "run.json", masks=masks)
    test_reports.amend(folder, "final.json", masks=[mask.sha256 for mask in masks])
    expected = [
        {
            "seed": str(seed),
            "mask": f"digits@50-s{seed}",
            "SHA-256 (first 12 digits)": f"{seed}" * 12,
            "visible labels": f"{50 + seed}",
            "images in the pool": f"1,29{seed}",
        }
        for seed in range(5)
    ]
    assert rows_of(whole(folder), "images in the pool") == expected


def test_each_count_of_the_confusion_matrix_stands_in_the_row_and_column_of_its_classes(folder):
    table = whole(folder).split('<table class="confusion">')[1].split("</table>")[0]
    head, *rows = (cells_of(row) for row in re.findall(r"<tr>(.*?)</tr>", table, re.S))
    counts = run_folder.read(folder).final.confusion
    assert head[1:] == DIGITS and [row[0] for row in rows] == DIGITS
    assert [[int(cell) for cell in row[1:]] for row in rows] == counts
    shades = [[int(shade) for shade in re.findall(r'<td class="c(\d+)">', row)] for row in table.split("<tr>")[2:]]
    assert all(np.argmax(shade) == np.argmax(row) for shade, row in zip(shades, counts, strict=True))


def test_errors_from_latents_and_from_pixels_keep_apart(tmp_path):
    errors = {"trees": {"pixels": 7.0, "latents": 3.0}}
    (row,) = rows_of(whole(test_latents.looked_at(tmp_path / "run", errors=errors)), "class told by")
    assert row == {"class told by": "trees", "from latents (error, %)": "3.00", "from pixels (error, %)": "7.00"}


def test_a_curve_is_of_the_split_that_its_legend_names(folder, monkeypatch):
    drawn = {}
    monkeypatch.setattr(curves, "chart", lambda lines, title, *_, **__: drawn.setdefault(title, lines) and "")
    run = run_folder.read(folder)
    training.evaluations(run)
    training.losses(run)
    lines = {line.name: line for line in drawn["error in percent over training steps"]}
    assert (lines["test"].css, lines["validation"].css) == ("first", "second")
    for split, line in lines.items():
        at = {}
        for each in run.lines:
            if f"{split}/error" in each:
                at.setdefault(each["step"], []).append(each[f"{split}/error"])
        assert line.steps.tolist() == sorted(at)
        for edge, of in ((line.mean, np.mean), (line.low, min), (line.high, max)):
            np.testing.assert_allclose(edge, [of(at[step]) for step in sorted(at)])
    (loss,) = drawn["classifier/entropy over training steps"]
    last = [each["classifier/entropy"] for each in run.lines if each["step"] == 2_000 and "phase" in each]
    assert loss.mean[-1] == pytest.approx(np.mean(last))


# Several runs


def entries():
    """Two runs that differ in everything, on the same three masks."""
    one = test_compare.entry("one@50", 50, [9.0, 8.0, 10.0], steps=1_500, seconds=3_600.0, pflop=0.5, precision="p")
    two = test_compare.entry("two@50", 50, [5.0, 7.0, 3.0], steps=200, seconds=7_200.0, pflop=0.25, commit="def")
    agreements = statistics.summary([91.0, 93.0, 95.0])
    number = PublishedNumber("0.91 ± 0.58", "Li et al. 2017", metric="agreement_svc")
    metrics = two.final.metrics | {"agreement_svc": agreements}
    return [one, test_compare.amended(two, metrics=metrics, published=[number])]


def test_a_comparison_puts_each_number_under_its_metric():
    rows = rows_of(comparing.render(entries(), ["error", "agreement_svc"]), "labels")
    assert [(row["run"], row["labels"], row["method"]) for row in rows] == [
        ("one@50", "50", "one"),
        ("two@50", "50", "two"),
    ]
    assert [row["error (%)"] for row in rows] == ["9.00 ± 1.00 (3)", "5.00 ± 2.00 (3)"]
    assert [row["agreement_svc (%)"] for row in rows] == ["-", "93.0 ± 2.0 (3)"]


def test_a_difference_is_of_the_run_minus_the_one_it_stands_against():
    """By -4, -1 and -7."""
    (row,) = rows_of(comparing.differences(entries(), ["error"], None), "against")
    low, high = statistics.paired([5.0, 7.0, 3.0], [9.0, 8.0, 10.0])["ci95"]
    assert row == {
        "run": "two@50",
        "against": "one@50",
        "difference": "-4.00",
        "95 % interval": f"{low:+.2f} to {high:+.2f}",
        "pairs": "3",
        "masks": "3",
        "is it real?": "not shown: the interval holds 0",
    }


def test_what_a_run_cost_stands_under_its_heading():
    rows = rows_of(comparing.cost(entries()), "hours")
    keys = ("run", "seeds", "steps", "hours", "PFLOP", "device", "precision", "commit")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        ("one@50", "3", "1,500", "1", "0.5", "2 cores", "p", "abc"),
        ("two@50", "3", "200", "2", "0.25", "2 cores", "-", "def"),
    ]
    assert "3 in all" in comparing.cost(entries())


def test_a_published_number_stands_beside_ours_of_the_same_metric():
    (row,) = rows_of(comparing.published(entries()), "published")
    assert row == {
        "run": "two@50",
        "metric": "agreement_svc",
        "ours": "93.0 ± 2.0 (3)",
        "published": "0.91 ± 0.58",
        "source": "Li et al. 2017",
        "checked?": "read in the source",
    }


def test_evaluate_prints_a_column_a_run(tmp_path, monkeypatch, capsys):
    found = {"one": {"error": 9.0, "nll": 1.0}, "two": {"error": 5.0}}
    folders = [test_compare.make_run(tmp_path / name, name, 50, [1.0]) for name in found]

    def measured(folder, *_, **__):
        summaries = {name: statistics.summary([value]) for name, value in found[folder.name].items()}
        return test_compare.final(folder.name, 50, [1.0], metrics=summaries)

    monkeypatch.setattr(evaluate, "evaluate", measured)
    assert cli.main(["evaluate", *map(str, folders)]) == 0
    head, _, *rows = (re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines())
    assert head == ["mean ± std (n)", "one", "two"]
    assert rows == [["error", "9.00 (1)", "5.00 (1)"], ["nll", "1.00 (1)", "-"]]
