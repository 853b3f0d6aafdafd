"""Records of runs become tables, pictures and one page, and nothing is lost, invented or let through on the way."""

from __future__ import annotations

import ast
import base64
import html
import json
import re
import time
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from ssl_gen.core import files
from ssl_gen.core.plain import to_plain
from ssl_gen.metrics import statistics
from ssl_gen.reports import records, run_folder, tables
from ssl_gen.reports.charts import curves, pictures, style
from ssl_gen.reports.compare import columns, entries
from ssl_gen.reports.compare import page as comparing
from ssl_gen.reports.compare.entries import Entry
from ssl_gen.reports.records import DataRecord, FinalRecord, MaskRecord, PhaseRecord, RunRecord, Stop
from ssl_gen.reports.run import page
from ssl_gen.types import UserError

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ERRORS = [5.21, 4.83, 6.12, 5.54, 5.02]
TERMS = [f"{player}/{term}" for player in ("classifier", "discriminator", "generator") for term in ("loss", "entropy")]
TERMS += ["classifier/supervised", "discriminator/fake"]
TERMS += [f"{player}/gradient_norm" for player in ("classifier", "discriminator", "generator")]
TERMS += ["learning_rate"]


def run_record(seeds: int, steps: int, names: list[str]) -> RunRecord:
    return RunRecord(
        format=records.FORMAT,
        method="triple_gan",
        family="adversarial",
        paper="Li et al. 2017, arXiv:1703.02291",
        config={"latent": 100, "learning_rate": 3e-4, "hidden": [500, 500], "classifier": {"dropout": 0.5}},
        sampler={"temperature": 0.75},
        dataset="digits",
        data=DataRecord(8, 8, 1, len(names), names, train=1297, test=500, validation=100, skipped=[], sha256="d" * 64),
        labels=50,
        mask={"scheme": "stratified", "noise": 0.0, "pool_holds_labelled": True},
        masks=[MaskRecord(f"digits@50-s{seed}", f"{seed}" * 64, visible=50, pool=1297) for seed in range(seeds)],
        seeds=list(range(seeds)),
        options={"dataset": "digits"},
        steps=steps,
        phases=[PhaseRecord("warm_up", steps * 3 // 20), PhaseRecord("main", steps - steps * 3 // 20)],
        every={"log": 100},
        versions={"jax": "0.10.2", "python": "3.12.1"},
        commit="0123456789abcdef0123456789abcdef01234567",
        device="2 x cpu (AMD EPYC)",
        command="ssl-gen train triple_gan --dataset digits --labels 50 --seeds 5 --steps 2000 --out runs/triple_gan",
        created="2026-11-20T10:00:00+00:00",
    )


def metric_lines(seeds: int, steps: int, lines: int, rng: np.random.Generator) -> list[dict]:
    written = []
    for step in range(steps // lines, steps + 1, steps // lines):
        for seed in range(seeds):
            decay = np.exp(-step / steps * 5)
            values = {name: (0.02 + (k + 1) * decay) * rng.lognormal(0, 0.2) for k, name in enumerate(TERMS)}
            written.append({"step": step, "seed": seed, "phase": "main", **values})
            error = 5 + 85 * decay + rng.normal() * 0.6
            fid = {"test/fid_svc": 20 + 200 * decay + rng.normal()}
            written.append({"step": step, "seed": seed, "test/error": error, "validation/error": error + 1.5, **fid})
    return written


def final_record(run: RunRecord, rng: np.random.Generator) -> FinalRecord:
    seeds = len(run.seeds)
    confusion = np.diag(rng.integers(40, 50, 10)) * seeds + rng.integers(0, 3, (10, 10)) * rng.integers(0, 6, (10, 10))
    return FinalRecord(
        method=run.method,
        dataset=run.dataset,
        labels=run.labels,
        masks=[mask.sha256 for mask in run.masks],
        seeds=run.seeds,
        steps=run.steps,
        seconds=21.3,
        metrics={
            "error": statistics.summary(ERRORS[:seeds]),
            "agreement_svc": statistics.summary([0.913, 0.921, 0.897, 0.934, 0.902][:seeds]),
            "fid_svc": statistics.summary([31.4, 29.8, 35.1, 30.2, 33.3][:seeds]),
        },
        device=run.device,
        commit=run.commit,
        command=run.command,
        confusion=confusion.tolist(),
        oracle={"error_best_test": statistics.summary([4.41, 4.22, 5.03, 4.87, 4.6][:seeds])},
    )


def save_lines(folder: Path, lines: Sequence[dict]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def make_run(folder: Path, seeds: int = 5, steps: int = 2000, lines: int = 20, names: list[str] = DIGITS) -> Path:
    """A run folder as training leaves it."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    run = run_record(seeds, steps, names)
    records.write(folder / "run.json", run)
    save_lines(folder, metric_lines(seeds, steps, lines, rng))
    records.write(folder / "final.json", final_record(run, rng))
    images = rng.integers(0, 256, (10, 10, 8, 8, 1), dtype=np.uint8)
    pictures.save_grid(folder / "samples.png", images, names, {"mask": run.masks[0].name})
    return folder


def make_over_time(folder: Path, steps: Sequence[int] = (400, 800, 1200, 1600, 2000)) -> None:
    """Grids drawn during training, each of another brightness."""
    (folder / "samples").mkdir()
    for number, step in enumerate(steps):
        images = np.full((4, 10, 8, 8, 1), 40 * number, np.uint8)
        pictures.save_grid(folder / "samples" / f"{step}.png", images, DIGITS)


def amend(folder: Path, name: str, **changes) -> None:
    """Change fields of a record, hash and all; None takes one out."""
    content = files.read_json(folder / name) | changes
    files.write_json(folder / name, {key: to_plain(value) for key, value in content.items() if value is not None})


def without_metrics(folder: Path, *names: str) -> dict:
    """The metrics of a run's final.json but for some."""
    metrics = json.loads((folder / "final.json").read_text())["metrics"]
    return {name: values for name, values in metrics.items() if name not in names}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def written(folder: Path) -> str:
    return page.write(folder).read_text(encoding="utf-8")


def words(text: str) -> str:
    """What a reader sees of a page: no tags, no style sheet, no entities."""
    return html.unescape(re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>|<wbr>", "", text, flags=re.S)))


class Tags(HTMLParser):
    """All opening tags with their attributes; fails where tags are not closed in their order."""

    EMPTY = ("meta", "img", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


# The page


def test_the_numbers_of_the_final_record_are_on_the_page(folder):
    seen = words(written(folder))
    low, high = scipy.stats.t.interval(0.95, 4, loc=np.mean(ERRORS), scale=scipy.stats.sem(ERRORS))
    assert f"{np.mean(ERRORS):.2f} ± {np.std(ERRORS, ddof=1):.2f} (5)" in seen
    assert f"{low:.2f} to {high:.2f}" in seen
    assert all(f" {error:.2f} " in seen for error in ERRORS)
    assert "triple_gan on digits, 50 visible labels, 5 seeds" in seen
    assert "21 s" in seen


def test_the_page_holds_what_repeats_the_run(folder):
    seen, run = words(written(folder)), run_folder.read(folder).record
    assert run.command in seen and re.search(r"temperature\s+0\.75", seen)
    assert re.search(r"classifier\.dropout\s+0\.5", seen) and "[500, 500]" in seen and "0.10.2" in seen
    assert all(mask.name in seen and mask.sha256[:12] in seen for mask in run.masks)
    assert run.commit[:12] in seen and run.device in seen and run.paper in seen


def test_the_page_asks_nothing_of_the_network(folder):
    text = written(folder)
    assert "http://" not in text and "https://" not in text and "@import" not in text and "url(" not in text
    for tag, attributes in Tags(text).found:
        assert tag not in ("script", "link", "iframe", "object")
        assert "href" not in attributes
        assert attributes.get("src", "data:").startswith("data:")


def test_the_samples_are_inside_the_page(folder):
    source = next(attributes["src"] for tag, attributes in Tags(written(folder)).found if tag == "img")
    start = "data:image/png;base64,"
    assert source.startswith(start)
    assert base64.b64decode(source.removeprefix(start)) == (folder / "samples.png").read_bytes()


def test_the_samples_name_their_classes_and_their_mask(folder):
    seen = words(written(folder))
    assert "One class a column, from left to right: " + ", ".join(DIGITS) in seen
    assert "mask: digits@50-s0" in seen


def test_an_unconditional_grid_names_no_classes(folder):
    pictures.save_grid(folder / "samples.png", np.zeros((10, 10, 8, 8, 1), np.uint8))
    seen = words(written(folder))
    assert "One class a column" not in seen and "Samples" in seen


def test_a_metric_that_is_absent_is_absent(folder):
    metrics = without_metrics(folder, "agreement_svc")
    amend(folder, "final.json", metrics=metrics, oracle=None, confusion=None)
    (folder / "samples.png").unlink()
    seen = words(written(folder))
    assert not any(absent in seen for absent in ("agreement_svc", "Oracle", "Confusion", "Samples"))
    assert "fid_svc" in seen


def test_a_pure_generator_has_a_page_without_errors(folder):
    metrics = without_metrics(folder, "error", "agreement_svc")
    amend(folder, "final.json", metrics=metrics, oracle=None, confusion=None)
    lines = metric_lines(5, 2000, 20, np.random.default_rng(0))
    save_lines(folder, [line for line in lines if "test/error" not in line])
    amend(folder, "run.json", labels=0)
    seen = words(written(folder))
    assert "Test error" not in seen and "error (%)" not in seen and "0 visible labels" in seen
    assert "fid_svc" in seen and "gradient_norm" in seen


def test_a_classical_method_that_takes_no_steps_has_a_page(folder):
    amend(folder, "run.json", steps=0, phases=[])
    amend(folder, "final.json", steps=0)
    (folder / "metrics.jsonl").write_text('{"step": 0, "seed": 0, "test/error": 9.0}\n')
    seen = words(written(folder))
    assert "Fitted to 1,297 training images" in seen and "Error (%) over training steps" in seen


def test_the_oracle_is_marked_as_no_result(folder):
    seen = words(written(folder))
    assert seen.index("Oracle (best on test): not a result") < seen.index("error_best_test")
    assert seen.index("agreement_svc") < seen.index("Oracle")


def test_an_unfinished_run_has_a_page_that_says_so(folder):
    (folder / "final.json").unlink()
    seen = words(written(folder))
    assert "This run has not finished: 2,000 of 2,000 steps are on record." in seen
    assert "Results" not in seen and "During training" in seen


def test_a_run_that_has_just_begun_has_a_page(folder):
    for name in ("final.json", "metrics.jsonl", "samples.png"):
        (folder / name).unlink()
    seen = words(written(folder))
    assert "0 of 2,000 steps" in seen and "Label masks" in seen and "Losses" not in seen


def test_a_line_cut_short_by_a_kill_is_left_out(folder):
    before = run_folder.read(folder).lines
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2100, "seed": 0, "cla')
    assert run_folder.read(folder).lines == before


def test_a_damaged_line_is_named(folder):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2100,\n')
    with pytest.raises(UserError, match="line 201 is damaged"):
        page.write(folder)


def test_one_seed_has_no_spread(tmp_path):
    text = written(make_run(tmp_path / "run", seeds=1))
    seen = words(text)
    assert "5.21 (1)" in seen and "One seed, so no band." in seen and "±  (" not in seen
    assert not any("band" in attributes.get("class", "").split() for _, attributes in Tags(text).found)


def test_a_change_of_phase_is_drawn_and_told(folder):
    text = written(folder)
    assert "Dashed rule at step 300: warm_up ends, main begins." in words(text)
    assert {a["x1"] for _, a in Tags(text).found if a.get("class") == "boundary"} == {"15.00%"}


def test_several_seeds_have_a_band(folder):
    text = written(folder)
    assert any("band" in attributes.get("class", "").split() for _, attributes in Tags(text).found)
    assert "Band: lowest to highest seed" in words(text)


def test_a_run_without_validation_has_no_validation_curve(folder):
    lines = [line for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())]
    for line in lines:
        line.pop("validation/error", None)
    save_lines(folder, lines)
    text = written(folder)
    assert "validation</span>" not in text and "test</span>" in text


def test_a_stopped_seed_is_a_warning_and_a_dash(folder):
    metrics = {"error": statistics.summary([5.0, 4.0, None, 6.0, 5.0])} | without_metrics(folder, "error")
    stopped = [Stop(2, 300, "classifier/supervised", "nan")]
    amend(folder, "final.json", metrics=metrics, stopped=stopped)
    seen = words(written(folder))
    assert "Seed 2 stopped at step 300: classifier/supervised became nan." in seen
    assert seen.index("Seed 2 stopped") < seen.index("Results")
    assert re.search(r"5\.00 ± 0\.82 \(4\).*?5\.00\s+4\.00\s+-\s+6\.00\s+5\.00", seen)


def test_an_unfinished_run_tells_which_seed_stopped(folder):
    (folder / "final.json").unlink()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2100, "seed": 3, "phase": "main", "generator/loss": NaN}\n')
    assert "Seed 3 stopped at step 2,100: generator/loss became nan." in words(written(folder))


def test_a_number_of_an_evaluator_that_is_not_finite_stops_no_seed(folder):
    (folder / "final.json").unlink()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2100, "seed": 3, "test/elbo_n=500": "nan"}\n')
    assert run_folder.stopped(run_folder.read(folder)) == [] and "stopped" not in words(written(folder))


def test_skipped_files_are_named(folder):
    data = to_plain(run_folder.read(folder).record.data) | {"skipped": ["cats/broken.png: truncated"]}
    amend(folder, "run.json", data=data)
    seen = words(written(folder))
    assert "1 file could not be read and was skipped" in seen and "cats/broken.png: truncated" in seen


def test_hostile_text_is_escaped(tmp_path):
    hostile = "<script>alert('x')</script>\"><img src=http://evil.example/x>"
    folder = make_run(tmp_path / "run", names=[hostile, *DIGITS[1:]])
    amend(
        folder, "run.json", command=hostile, paper=hostile, device=hostile, config={hostile: hostile}, dataset=hostile
    )
    amend(folder, "final.json", metrics=without_metrics(folder) | {hostile: statistics.summary([1.0] * 5)})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"step": 2100, "seed": 0, hostile: 1.0, f"{hostile}/x": 2.0, f"test/{hostile}": 2.0}) + "\n"
        )
    text = written(folder)
    assert hostile in words(text)
    tags = Tags(text).found
    assert "script" not in {tag for tag, _ in tags}
    assert [attributes["src"][:5] for tag, attributes in tags if tag == "img"] == ["data:"]


def test_the_confusion_matrix_shows_every_count(folder):
    text = written(folder)
    table = text[text.index('<table class="confusion">') :]
    table = table[: table.index("</table>")]
    counts = [int(count) for count in re.findall(r"<td[^>]*>(\d+)</td>", table)]
    assert np.array_equal(np.reshape(counts, (10, 10)), run_folder.read(folder).final.confusion)
    assert all(name in table for name in DIGITS)


def test_many_classes_become_a_list_of_confusions(folder):
    names = [f"class {k}" for k in range(50)]
    counts = np.diag(np.full(50, 9))
    counts[7, 31] = 5
    data = to_plain(run_folder.read(folder).record.data) | {"classes": 50, "class_names": names}
    amend(folder, "run.json", data=data)
    amend(folder, "final.json", confusion=counts.tolist())
    assert re.search(r"class 7\s+class 31\s+5", words(written(folder)))


@pytest.mark.parametrize("ends", [style.LIGHT, style.DARK])
def test_the_counts_are_readable_on_every_shade(ends):
    for level in range(style.LEVELS + 1):
        lighter, darker = sorted(map(style.luminance, style.shade(level, ends)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # WCAG 2.1, level AA


def test_a_long_run_makes_a_small_page_quickly(tmp_path):
    folder = make_run(tmp_path / "run", lines=200)
    assert len(run_folder.read(folder).lines) == 5 * 200 * 2
    start = time.perf_counter()
    path = page.write(folder)
    assert time.perf_counter() - start < 2
    assert path.stat().st_size < 1.5e6


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        page.write(tmp_path)


def test_a_record_of_another_format_is_refused(folder):
    for name in ("run.json", "final.json"):
        amend(folder, name, format=1)
        with pytest.raises(UserError, match=rf"{name} has format 1, this ssl_gen reads 2"):
            page.write(folder)
        amend(folder, name, format=2)


def test_a_record_that_lacks_a_key_is_refused(folder):
    (folder / "final.json").write_text('{"format": 2, "method": "triple_gan"}')
    with pytest.raises(UserError, match=r"final\.json is no FinalRecord of this ssl_gen \(no field dataset\)"):
        page.write(folder)


def test_reports_know_files_alone():
    allowed = ("reports", "metrics", "core.files", "core.plain", "core.wording", "types")
    paths = list(Path(records.__file__).parent.rglob("*.py"))
    assert len(paths) > 15
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert all(
                name.removeprefix("ssl_gen.").startswith(allowed) for name in modules if name.startswith("ssl_gen")
            )
            assert not any(name.split(".")[0] in ("jax", "flax", "optax") for name in modules)


# Records


def test_a_record_is_read_as_it_was_written(folder):
    run = run_folder.read(folder)
    assert run.record == run_record(5, 2000, DIGITS)
    path = folder / "again.json"
    records.write(path, run.final)
    assert path.read_text() == (folder / "final.json").read_text()
    assert not {"temperature", "published", "setting"} & set(json.loads(path.read_text()))  # absent, not null


def test_what_an_older_record_lacks_has_its_default():
    kept = to_plain(final_record(run_record(2, 10, DIGITS), np.random.default_rng(0)))
    lacking = ("format", "unmeasured", "averaged", "command", "confusion")
    found = records.from_plain(FinalRecord, {key: kept[key] for key in kept if key not in lacking})
    assert (found.unmeasured, found.averaged, found.command, found.confusion) == ({}, [], "", None)
    assert found.metrics == kept["metrics"]


# During training


def test_samples_over_time_stand_in_order_and_small_before_those_of_the_finished_run(folder):
    make_over_time(folder, (1200, 400, 2000, 10_000))
    text = written(folder)
    assert re.findall(r"<figcaption>step ([\d,]+)</figcaption>", text) == ["400", "1,200", "2,000", "10,000"]
    pages = Tags(text)
    shown = [attributes for tag, attributes in pages.found if tag == "img"]
    assert [attributes["alt"] for attributes in shown[:4]] == [
        f"samples at step {step}" for step in ("400", "1,200", "2,000", "10,000")
    ]
    for attributes, step in zip(shown, (400, 1200, 2000, 10_000), strict=False):
        size = pictures.size(folder / "samples" / f"{step}.png")
        assert (int(attributes["width"]), int(attributes["height"])) == (size[0] // 3, size[1] // 3)
        data = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
        assert data == (folder / "samples" / f"{step}.png").read_bytes()
    assert len(shown) == 5 and int(shown[4]["width"]) == pictures.size(folder / "samples.png")[0]
    assert '<div class="scroll"><div class="strip"><figure>' in text
    assert words(text).count("Samples ") == 1


def test_an_unfinished_run_shows_its_samples_over_time(folder):
    (folder / "final.json").unlink()
    (folder / "samples.png").unlink()
    make_over_time(folder, (400, 800))
    text = written(folder)
    assert [tag for tag, _ in Tags(text).found].count("img") == 2 and "Samples" in words(text)


def test_a_damaged_picture_of_training_is_named(folder):
    make_over_time(folder, (400,))
    path = folder / "samples" / "400.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"400\.png is damaged"):
        page.write(folder)


def test_whatever_evaluators_logged_has_a_curve_with_its_unit_and_is_no_loss(folder):
    features = "imagenet/64x64-convnet-3f9a81c0_ref=test_n=1000"  # a name may hold a slash
    logged = {f"samples/fid_{features}": 30.0, "test/elbo_n=500": -90.0, "samples/agreement_svc": 80.0}
    with (folder / "metrics.jsonl").open("a") as file:
        for step in (100, 200):
            file.write(json.dumps({"step": step, "seed": 0, **logged}) + "\n")
    seen = words(written(folder))
    training, losses = seen[seen.index("During training") : seen.index("Samples")], seen[seen.index("Losses") :]
    for name in (f"fid_{features} samples", "elbo_n=500 (nats) test", "agreement_svc (%) samples"):
        assert name in " ".join(training.split())
    assert not any(name in losses for name in ("64x64", "elbo", "agreement"))


# Curves


def test_a_curve_has_a_row_a_seed_and_gaps_where_a_seed_has_nothing():
    lines = [{"step": 20, "seed": 1, "a": 4.0}, {"step": 10, "seed": 0, "a": 1.0}, {"step": 20, "seed": 0, "b": 9.0}]
    steps, values = run_folder.curve(lines, "a")
    assert steps.tolist() == [10, 20]
    np.testing.assert_array_equal(values, [[1, np.nan], [np.nan, 4]])


def test_the_later_of_two_lines_counts():
    _, values = run_folder.curve([{"step": 10, "seed": 0, "a": 1.0}, {"step": 10, "seed": 0, "a": 2.0}], "a")
    assert values.tolist() == [[2.0]]


def test_line_and_band_are_mean_and_extremes_over_the_seeds_there_are():
    line = curves.line("a", "first", np.array([1, 2, 3]), np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.inf]]))
    assert (line.steps.tolist(), line.mean.tolist()) == ([1, 2], [2, 2])
    assert (line.low.tolist(), line.high.tolist()) == ([1, 2], [3, 2])


def test_thinning_keeps_the_spikes_and_the_mean():
    values = np.ones((2, 1000))
    values[1, 617] = 50.0
    line = curves.line("a", "first", np.arange(1, 1001), values, points=100)
    assert len(line.steps) == 100 and line.steps[-1] == 1000
    assert line.high.max() == 50 and line.low.min() == 1
    assert line.mean.mean() == pytest.approx(values.mean())


@pytest.mark.parametrize("low, high", [(0, 90), (0.013, 0.0171), (-3, 2.5), (1e-9, 3e-9), (0, 2_000_000)])
def test_ticks_are_few_round_and_inside(low, high):
    ticks = curves.ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert low - 1e-12 <= min(ticks) and max(ticks) <= high + 1e-12
    sizes = np.diff(ticks)
    assert np.allclose(sizes, sizes[0], rtol=1e-6)
    assert f"{sizes[0]:.3e}"[:5] in ("1.000", "2.000", "5.000")


@pytest.mark.parametrize(
    "value, text",
    [(0, "0"), (500, "500"), (20000, "20k"), (1500000, "1.5M"), (0.25, "0.25"), (1e-5, "1e-5"), (0.00025, "2.5e-4")],
)
def test_ticks_are_written_short(value, text):
    assert curves.short(value) == text


def test_what_spans_decades_is_logarithmic_and_an_error_never():
    line = curves.line("a", "first", np.arange(1, 4), np.array([[100.0, 1.0, 0.01]]))
    assert curves.axis([line], from_zero=False).log
    vertical = curves.axis([line], from_zero=True)
    assert not vertical.log and vertical.low == 0
    assert curves.axis([line], from_zero=False).place(1.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (0.25, 16.0, ["0.5", "1", "2", "5", "10"]),  # one or two powers of ten alone would be too few
        (0.3, 0.9, ["0.5"]),
        (0.05, 30.0, ["0.1", "1", "10"]),
        (1e-7, 1e3, ["1e-7", "1e-4", "0.1", "100"]),
    ],
)
def test_a_logarithmic_axis_is_marked_at_powers_of_ten_or_between_them(low, high, marks):
    values = np.array([[low, high]])
    line = curves.line("a", "", np.array([1, 2]), values)
    vertical = curves.axis([line], from_zero=False, log_ratio=2)
    assert vertical.log and [text for _, text in vertical.ticks] == marks
    assert vertical.place(np.array([low, high])) == pytest.approx([0, 1])


def test_a_constant_curve_is_drawn():
    line = curves.line("a", "first", np.array([5]), np.array([[3.0]]))
    picture = curves.chart([line], "a", 100)
    assert "nan" not in picture and 'points="1000.0,50.0 1000.0,50.0"' in picture


# Tables


def finished(method: str, per_seed: list, report: Path | None = None, **changes) -> Entry:
    made = {"metrics": {"error": statistics.summary(per_seed)}, "dataset": "digits"}
    made |= {"masks": [f"hash {seed}" for seed in range(len(per_seed))]} | changes
    where = {"labels": 50, "seeds": [0, 1, 2], "steps": 10, "seconds": 21.2, "device": "cpu", "commit": None}
    return Entry(method, FinalRecord(method=method, **where, **made), report=report)


def test_a_comparison_shows_the_paired_difference_and_its_interval():
    floor, better = finished("linear", [9.0, 8.0, 10.0]), finished("triple_gan", [5.0, 5.0, 5.0])
    headers, rows = columns.comparison([floor, better], baseline=0)
    interval = scipy.stats.ttest_rel([5.0, 5.0, 5.0], [9.0, 8.0, 10.0]).confidence_interval(0.95)
    assert headers == ["method", "labels", "error (%)", "error - linear [95 %]", "time", "report"]
    assert rows[0] == ["linear", "50", "9.00 ± 1.00 (3)", "-", "21 s", "-"]
    assert rows[1][2:4] == ["5.00 ± 0.00 (3)", f"-4.00 [{interval.low:+.2f}, {interval.high:+.2f}]"]


def test_runs_on_other_masks_have_no_paired_difference():
    runs = [
        finished("linear", [9.0, 8.0, 9.0]),
        finished("triple_gan", [5.0, 5.0, 5.0], masks=["three", "other", "masks"]),
    ]
    with pytest.raises(ValueError, match="triple_gan and linear were not trained on the same label masks"):
        columns.comparison(runs, baseline=0)
    assert [row[0] for row in columns.comparison(runs)[1]] == ["linear", "triple_gan"]


def test_a_missing_metric_is_a_dash():
    metrics = {"fid": statistics.summary([12.34, 13.1])}
    generator = finished("gan", [], metrics=metrics, report=Path("runs/gan/report.html"))
    _, rows = columns.comparison([generator, finished("linear", [0.0])], metrics=["fid"])
    assert rows[0] == ["gan", "50", "-", "12.7 ± 0.5 (2)", "21 s", "runs/gan/report.html"]
    assert rows[1] == ["linear", "50", "0.00 (1)", "-", "21 s", "-"]


def test_a_record_that_says_what_training_cost_makes_a_column_and_the_others_a_dash():
    counted, older = finished("gan", [9.0], pflop=0.30214), finished("linear", [0.0])
    headers, rows = columns.comparison([counted, older])
    assert headers[-3:] == ["PFLOP", "time", "report"]
    assert [row[-3] for row in rows] == ["0.302", "-"]
    assert "PFLOP" not in columns.comparison([older])[0]
    assert ">0.302</td>" in comparing.cost([counted, older]) and "PFLOP" not in comparing.cost([older])


def test_a_stopped_seed_leaves_its_pair():
    runs = [finished("linear", [9.0, 8.0, 10.0]), finished("vae", [5.0, None, 7.0])]
    expected = statistics.paired([5.0, 7.0], [9.0, 10.0])
    assert columns.comparison(runs, baseline=0)[1][1][3].startswith(f"{expected['difference']:+.2f} [")


def test_data_sets_are_named_where_they_differ():
    headers, rows = columns.comparison([finished("vae", [1.0]), finished("vae", [1.0], dataset="mnist")])
    assert headers[1] == "dataset" and [row[1] for row in rows] == ["digits", "mnist"]


def test_a_finished_run_brings_the_path_of_its_page(folder):
    assert entries.read(folder, "run").report is None
    path = page.write(folder)
    assert entries.read(folder, "run").report == path
    assert columns.comparison([entries.read(folder, "run")])[1][0][-1] == str(path)


def test_an_unfinished_run_cannot_be_compared(folder):
    (folder / "final.json").unlink()
    with pytest.raises(UserError, match="has not finished"):
        entries.read(folder, "run")


def test_a_text_table_is_aligned():
    table = tables.text_table(["method", "error"], [["linear", "12.30"], ["triple_gan", "5.1"], ["gan", None]])
    assert table.splitlines() == [
        "method      error",
        "----------  -----",
        "linear      12.30",
        "triple_gan    5.1",
        "gan             -",
    ]


def test_a_markdown_table_keeps_its_cells():
    table = tables.markdown_table(["a|b", "n"], [["x\ny", 1], ["z", None]])
    assert table.splitlines() == ["| a\\|b | n |", "| --- | ---: |", "| x y | 1 |", "| z | - |"]


def test_a_ragged_table_is_refused():
    with pytest.raises(ValueError, match="one cell a header"):
        tables.text_table(["a", "b"], [["1"]])


@pytest.mark.parametrize(
    "cell, side", [("5.34 ± 0.51 (5)", "---:"), ("0.10.2", "---"), ("3fa9", "---"), ("1,297", "---:")]
)
def test_hashes_and_versions_are_no_numbers(cell, side):
    assert tables.markdown_table(["a"], [[cell]]).splitlines()[1] == f"| {side} |"


def test_a_table_without_rows_is_its_header():
    assert tables.text_table(["a", "b"], []).splitlines() == ["a  b", "-  -"]


@pytest.mark.parametrize(
    "seconds, text",
    [(0.42, "0.4 s"), (9.96, "10 s"), (21.3, "21 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7499, "2 h 05 min")],
)
def test_a_duration_is_written_in_two_units_at_most(seconds, text):
    assert tables.duration(seconds) == text


@pytest.mark.parametrize(
    "name, value, text",
    [("error", 0.9349, "0.93"), ("fid", 31.44, "31.4"), ("fid", 1234.4, "1234"), ("kid", 0.01234, "0.0123")],
)
def test_a_number_has_the_digits_that_mean_something(name, value, text):
    assert tables.number(value, tables.decimals(name, value)) == text


def test_every_error_of_a_run_has_two_decimals_and_its_unit():
    for name in ("error", "error_median_last_20", "error_validation", "error_best_validation", "error_best_test"):
        assert tables.decimals(name, 12.345) == 2 and tables.headed(name) == f"{name} (%)"
    assert tables.decimals("balanced_error", 12.345) == 1  # three digits
    assert tables.headed("balanced_error") == "balanced_error (%)" and tables.headed("nll") == "nll (nats)"
    assert tables.headed("no_metric_of_ours") == "no_metric_of_ours"


def test_a_small_number_is_not_rounded_to_zero():
    assert tables.number(0.000012, 4) == "1.2e-05"
    assert tables.number(None, 2) == "-"


# Pictures


def test_a_grid_places_every_pixel():
    images = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 5, 3), dtype=np.uint8)
    picture, scale, gap = pictures.grid(images, scale=3, gap=2), 3, 2
    assert picture.shape == (2 * (4 * scale + gap) + gap, 3 * (5 * scale + gap) + gap, 3)
    expected = np.full(picture.shape, 255, np.uint8)
    for row in range(2):
        for column in range(3):
            top, left = gap + row * (4 * scale + gap), gap + column * (5 * scale + gap)
            for y in range(4 * scale):
                for x in range(5 * scale):
                    expected[top + y, left + x] = images[row, column, y // scale, x // scale]
    np.testing.assert_array_equal(picture, expected)


@pytest.mark.parametrize("side", [8, 28, 32, 64])
def test_a_grid_of_ten_by_ten_fits_a_page(side):
    picture = pictures.grid(np.zeros((10, 10, side, side, 1), np.uint8))
    assert 600 <= picture.shape[1] <= 900


def test_a_grid_of_large_images_is_never_scaled_down():
    assert pictures.grid(np.zeros((1, 2, 1000, 1000, 1), np.uint8), gap=0).shape == (1000, 2000, 1)


@pytest.mark.parametrize("images", [np.zeros((1, 1, 2, 2, 1)), np.zeros((1, 2, 2, 1), np.uint8)])
def test_what_is_no_grid_is_refused(images):
    with pytest.raises(ValueError, match="a grid takes uint8"):
        pictures.grid(images)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_saved_grid_is_the_grid_and_says_what_it_is(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4, channels), dtype=np.uint8)
    path = pictures.save_grid(tmp_path / "grid.png", images, text={"mask": "mnist@100-s3"})
    with Image.open(path) as picture:
        saved = np.asarray(picture).reshape(*picture.size[::-1], channels)
    np.testing.assert_array_equal(saved, pictures.grid(images))
    assert pictures.read_text(path) == {"mask": "mnist@100-s3"}


def test_a_damaged_picture_is_named(folder):
    path = folder / "samples.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"samples\.png is damaged"):
        page.write(folder)


def test_titles_stand_above_the_grid_and_in_the_text(tmp_path):
    images, titles = np.zeros((2, 3, 4, 4, 1), np.uint8), ["cat", "Hündin", "a very long name of a class"]
    path = pictures.save_grid(tmp_path / "grid.png", images, titles, scale=15)
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    grid = pictures.grid(images, 15)[:, :, 0]
    np.testing.assert_array_equal(pixels[-len(grid) :], grid)
    strip, pitch = pixels[: -len(grid)], 62
    assert all((strip[:, k * pitch + 2 : (k + 1) * pitch] < 128).any() for k in range(3))
    assert json.loads(pictures.read_text(path)["columns"]) == titles


def test_a_title_a_column(tmp_path):
    with pytest.raises(ValueError, match="2 titles for 3 columns"):
        pictures.save_grid(tmp_path / "grid.png", np.zeros((1, 3, 4, 4, 1), np.uint8), ["a", "b"])
