"""Finished runs side by side: the page says which differences are real, figures put each number in its place."""

from __future__ import annotations

import base64
import dataclasses
import html
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from experiments import tracked
from ssl_gen import cli
from ssl_gen.metrics import statistics
from ssl_gen.reports import records, tables
from ssl_gen.reports.charts import drawing, efficiency, pictures, scatter
from ssl_gen.reports.compare import columns, page, pairs
from ssl_gen.reports.compare import entries as compared
from ssl_gen.reports.compare.entries import Entry
from ssl_gen.reports.records import DataRecord, FinalRecord, MaskRecord, PublishedNumber, RunRecord, Stop
from ssl_gen.types import UserError

FID = "fid_random-convnet-0123abcd_ref=test_n=100"
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=y>'


def final(method: str, labels: int | str, errors: list, **changes) -> FinalRecord:
    """final.json; the masks of seed s are those of all methods with as many labels."""
    made = FinalRecord(
        method=method,
        dataset="digits",
        labels=labels,
        masks=[f"{labels}-{seed}" for seed in range(len(errors))],
        seeds=list(range(len(errors))),
        steps=1_000,
        seconds=1_800.0,
        metrics={"error": statistics.summary(errors)},
        device="2 cores",
        commit="abc",
    )
    return dataclasses.replace(made, **changes)


def entry(name: str, labels: int | str, errors: list, **changes) -> Entry:
    return Entry(name, final(name.split("@")[0], labels, errors, **changes))


def amended(entry: Entry, **changes) -> Entry:
    """An entry with other fields in its final.json."""
    return entry._replace(final=dataclasses.replace(entry.final, **changes))


def runs() -> list[Entry]:
    """Two methods with three numbers of labels, and a ceiling."""
    floor = {10: [30.0, 34.0, 32.0], 100: [12.0, 10.0, 11.0], 1_000: [5.0, 4.0, 6.0]}
    better = {10: [29.0, 35.0, 32.5], 100: [6.0, 5.0, 4.0], 1_000: [4.0, 3.5, 4.5]}
    return [
        *(entry(f"floor@{labels}", labels, errors) for labels, errors in floor.items()),
        *(entry(f"better@{labels}", labels, errors) for labels, errors in better.items()),
        entry("ceiling@all", "all", [2.0, 1.0, 1.5]),
    ]


@pytest.fixture
def experiment() -> list[Entry]:
    return runs()


def words(text: str) -> str:
    """What a reader sees of a page."""
    return html.unescape(re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>|<wbr>", "", text, flags=re.S)))


class Tags(HTMLParser):
    """All opening tags with their attributes and the tags around them; fails where tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict, list[tuple[str, str]]]] = []
        self.open: list[tuple[str, str]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "img", "wbr"):
            self.open.append((tag, dict(attrs).get("class") or ""))

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs), list(self.open)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag


def make_run(folder: Path, method: str, labels: int | str, errors: list, images: str = "d" * 64) -> Path:
    """A finished run's folder, with samples."""
    folder.mkdir(parents=True)
    made = final(method, labels, errors)
    data = DataRecord(8, 8, 1, 2, ["a", "b"], train=9, test=9, validation=0, skipped=[], sha256=images)
    shared = {key: getattr(made, key) for key in ("method", "dataset", "labels", "seeds", "steps", "device", "commit")}
    empty = {"config": {}, "sampler": {}, "mask": {}, "options": {}, "phases": [], "every": {}}
    empty["masks"] = [MaskRecord(f"{made.dataset}@{labels}", sha256, 1, 9) for sha256 in made.masks]
    created = f"2026-01-01T00:00:0{len(method) % 10}"
    words = {"family": "f", "paper": "p", "command": "", "created": created, "versions": {}}
    records.write(folder / "run.json", RunRecord(format=records.FORMAT, data=data, **shared, **empty, **words))
    records.write(folder / "final.json", made)
    pictures.save_grid(folder / "samples.png", np.full((2, 2, 8, 8, 1), 7, np.uint8))
    return folder


# Which differences are real


def test_a_difference_is_that_of_the_masks_both_saw():
    three, two = entry("a", 50, [5.0, 7.0, 9.0]), entry("b", 50, [4.0, 4.0])
    expected = statistics.paired([5.0, 7.0], [4.0, 4.0])
    assert pairs.paired(three, two, "error") == expected and expected["n"] == 2
    swapped = entry("b", 50, [4.0, 4.0], masks=["50-1", "50-0"])  # the same hashes with other seeds
    assert pairs.paired(three, swapped, "error") is None


def test_runs_on_other_labels_are_not_paired():
    assert pairs.pairs([entry("a", 50, [1.0, 2.0]), entry("a", 100, [1.0, 2.0])]) == []


def test_real_is_what_the_t_test_calls_significant():
    source = np.random.default_rng(0)
    said = set()
    for shift in (0.0, 0.5, 4.0, -4.0):
        a, b = source.normal(shift, 1, 6), source.normal(0, 1, 6)
        result = pairs.paired(entry("a", 50, a.tolist()), entry("b", 50, b.tolist()), "error")
        test = scipy.stats.ttest_rel(a, b)
        expected = "not shown" if test.pvalue >= 0.05 else "real: higher" if test.statistic > 0 else "real: lower"
        assert pairs.verdict(result, "error").startswith(expected)
        said.add(expected)
    assert said == {"not shown", "real: higher", "real: lower"}


def test_one_pair_tells_nothing():
    result = pairs.paired(entry("a", 50, [1.0]), entry("b", 50, [9.0]), "error")
    assert pairs.verdict(result, "error") == "one pair: cannot be told"


def test_a_table_says_how_many_comparisons_it_makes_and_how_many_hold_together():
    """Of the differences -6 +- 1, -2 +- 1 and 0 +- 1 over four masks the t test calls the first two real, and only the
    first by less than a third of its 5 %: p = 0.002, 0.04 and 1."""
    spread = [-1.0, 1.0, -1.0, 1.0]
    floor = entry("floor", 50, [10.0, 10.0, 10.0, 10.0])
    others = [
        entry(name, 50, [10 + shift + each for each in spread]) for name, shift in zip("abc", (-6, -2, 0), strict=True)
    ]
    results = [pairs.error_difference(each, floor) for each in others]
    found = [scipy.stats.ttest_1samp([shift + each for each in spread], 0).pvalue for shift in (-6, -2, 0)]
    assert [p < 0.05 for p in found] == [True, True, False] and [3 * p < 0.05 for p in found] == [True, False, False]
    said = pairs.together(results)
    assert said.startswith("3 comparisons, each at 95 %") and "2 of the intervals exclude 0, 1 if all" in said
    assert "(Bonferroni: 98.33 % each)" in said and said in words(page.render([floor, *others], baseline="floor"))
    assert tracked.comparisons([floor, *others], "floor") == said
    assert tracked.comparisons([floor, *others], None) == pairs.together([]) == ""


def test_a_run_with_some_of_anothers_masks_is_paired_on_those():
    """Five seeds beside ten, in any order of seeds."""
    ten, five = entry("a", 20, [float(i) for i in range(10)]), entry("b", 20, [4.0, 3.0, 2.5, 1.0, 0.0])
    five = amended(five, seeds=[4, 3, 2, 1, 0], masks=[f"20-{seed}" for seed in (4, 3, 2, 1, 0)])
    found = pairs.error_difference(five, ten)
    assert found["n"] == 5 and found["difference"] == pytest.approx(0.1)
    assert pairs.difference(five, ten).startswith("+0.10 [")


def test_several_seeds_of_one_mask_are_pairs_of_one_mask():
    """Seeds 0 and 2 have both numbers, and a run's own masks are as many as its seeds."""
    one = [entry(name, 50, [5.0, 6.0, 9.0], masks=["50-6"] * 3) for name in "ab"]
    one[1] = amended(one[1], metrics={"error": statistics.summary([4.0, None, 4.5])})
    assert pairs.paired(*one, "error") == statistics.paired([5.0, 9.0], [4.0, 4.5])
    assert pairs.masks_of(*one, "error") == 1
    own = [entry(name, 50, [5.0, 6.0, 9.0]) for name in "ab"]
    assert pairs.masks_of(*own, "error") == 3
    shown = words(page.differences(one, ["error"], None))
    assert re.search(r"2\s+1\s+(real|not shown)", shown) and "of one mask alone" in shown


@pytest.mark.parametrize(
    ("metric", "of_higher", "of_lower"),
    [("error", "worse", "better"), ("agreement_svc", "better", "worse"), (FID, "worse", "better")],
)
def test_which_side_is_better_is_known_of_the_metric(metric, of_higher, of_lower):
    assert pairs.verdict(statistics.paired([5.0, 6.0, 7.1], [1.0, 2.0, 3.0]), metric) == f"real: higher, {of_higher}"
    assert pairs.verdict(statistics.paired([1.0, 2.0, 3.0], [5.0, 6.0, 7.1]), metric) == f"real: lower, {of_lower}"


def test_where_no_side_is_better_none_is_told():
    for metric in ("deviation_ratio", "copying_labelled_x_n=10", "a_metric_that_nobody_knows"):
        assert pairs.verdict(statistics.paired([5.0, 6.0, 7.1], [1.0, 2.0, 3.0]), metric) == "real: higher"


def test_where_all_pairs_differ_alike_nothing_tells_whether_it_is_real():
    alike = statistics.paired([2.4, 2.6, 3.2], [2.2, 2.4, 3.0])  # by 0.2, but for the last bits
    assert alike["std"] > 0
    assert pairs.verdict(alike, "error") == "all pairs differ alike: cannot be told"
    assert not statistics.excludes_zero(alike) and "0 of the intervals exclude 0" in pairs.together([alike, alike])
    assert pairs.verdict(statistics.paired([5.0, 6.0], [5.0, 6.0]), "error") == "not shown: the interval holds 0"


def test_a_name_is_taken_apart_only_where_it_ends_with_the_rows_labels():
    assert [entry(name, 50, [1.0]).method for name in ("floor@50", "mine@monday", "mine@10")] == [
        "floor",
        "mine",
        "mine",
    ]
    assert amended(entry("mine@monday", 50, [1.0]), method="linear").method == "linear"
    assert amended(entry("a@b@50", 50, [1.0]), method="linear").method == "a@b"


def test_with_a_baseline_each_run_meets_the_one_on_its_own_masks(experiment):
    found = [(a.name, b.name) for a, b in pairs.pairs(experiment, "floor")]
    assert found == [("better@10", "floor@10"), ("better@100", "floor@100"), ("better@1000", "floor@1000")]


def test_a_metric_that_the_baseline_lacks_is_compared_among_those_that_have_it(experiment):
    for number, name in enumerate(("drawn", "drawn_too")):
        metrics = {FID: statistics.summary([5.0 + number, 6.0 + 1.1 * number, 7.5 + 0.9 * number])}
        experiment.append(entry(f"{name}@10", 10, [1.0, 2.0, 3.0], metrics=metrics))
    seen = words(page.differences(experiment, ["error", FID], "floor"))
    assert re.search(r"drawn_too@10\s+drawn@10\s+\+1\.00 .*? real: higher", seen)
    assert "4 comparisons" in seen


def test_few_runs_are_compared_in_all_pairs_and_many_with_the_first():
    few = [entry(name, 50, [1.0, 2.0]) for name in "abc"]
    assert [(a.name, b.name) for a, b in pairs.pairs(few)] == [("b", "a"), ("c", "a"), ("c", "b")]
    many = [entry(f"run {k}", 50, [1.0, 2.0]) for k in range(pairs.ALL_PAIRS + 1)]
    assert [(a.name, b.name) for a, b in pairs.pairs(many)] == [(each.name, "run 0") for each in many[1:]]


def test_a_baseline_that_is_no_run_is_one_line():
    with pytest.raises(UserError, match="no run is called other: there are a"):
        pairs.pairs([entry("a", 50, [1.0])], "other")


# The page


def test_the_page_says_what_is_real_what_it_cost_and_what_was_published(experiment):
    number = PublishedNumber("0.91 ± 0.58", "Li et al. 2017", verified=False)
    experiment[4] = amended(experiment[4], published=[number])
    seen = words(page.render(experiment, baseline="floor"))
    low, high = scipy.stats.ttest_rel([6.0, 5.0, 4.0], [12.0, 10.0, 11.0]).confidence_interval(0.95)
    assert f"{low:+.2f} to {high:+.2f}" in seen
    assert re.search(r"better@100\s+floor@100\s+-6\.00\s+\S+ to \S+\s+3\s+3\s+real: lower", seen)
    assert re.search(r"better@10\s+floor@10\s+\+0\.17 .*? not shown", seen)
    assert "3 comparisons" in seen and "5.00 ± 1.00 (3)" in seen
    assert "3.5 in all" in seen  # seven runs of half an hour
    assert re.search(r"better@100\s+error\s+5\.00 ± 1\.00 \(3\)\s+0\.91 ± 0\.58\s+Li et al\. 2017\s+UNVERIFIED", seen)


def test_nothing_on_the_page_is_wider_than_a_telephone_but_in_a_box_that_scrolls(tmp_path, experiment):
    run = make_run(tmp_path / "run", "better", 100, [1.0, 2.0])
    experiment[4] = experiment[4]._replace(samples=run / "samples.png")
    text = page.render(experiment, baseline="floor")
    tags = Tags(text).found
    assert {"table", "img", "svg"} <= {tag for tag, _, _ in tags}
    for tag, _, around in tags:
        if tag in ("table", "img"):
            assert ("div", "scroll") in around
        if tag == "svg":
            assert ("div", "figures") in around
    sheet = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    assert ".scroll{overflow-x:auto;max-width:100%" in sheet and ".figures svg{display:block;width:100%" in sheet
    assert "minmax(min(420px,100%),1fr)" in sheet


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(experiment):
    text = page.render([*experiment, entry(HOSTILE, 100, [1.0, 2.0, 3.0])], title=HOSTILE)
    assert "http:" not in text and "https:" not in text and HOSTILE in words(text)
    for tag, attributes, _ in Tags(text).found:
        assert tag not in ("script", "link", "iframe") and "onerror" not in attributes
        assert attributes.get("src", "data:").startswith("data:")


def test_a_grid_stands_in_the_row_of_its_method_and_the_column_of_its_labels(tmp_path):
    runs = [make_run(tmp_path / f"{m}@{n}", m, n, [1.0, 2.0]) for m, n in (("a", 50), ("a", "all"), ("b", "all"))]
    entries = [compared.read(run, run.name) for run in runs]
    part = page.samples(entries)
    rows = re.findall(r"<tr>(.*?)</tr>", part, re.S)
    assert re.findall(r"<th scope=\"col\">(.*?)</th>", rows[0]) == ["50 labels", "all labels"]
    assert [cell.count("<img") for cell in re.findall(r"<td>(.*?)</td>", rows[1], re.S)] == [1, 1]
    assert [cell.count("<img") for cell in re.findall(r"<td>(.*?)</td>", rows[2], re.S)] == [0, 1]
    shown = base64.b64decode(re.search(r"base64,([^\"]*)", part)[1])
    assert shown == (runs[0] / "samples.png").read_bytes()


def test_runs_that_are_not_alike_are_warned_of(tmp_path):
    runs = [make_run(tmp_path / "a", "a", 50, [1.0]), make_run(tmp_path / "b", "b", 50, [1.0], images="e" * 64)]
    entries = [compared.read(run, run.name) for run in runs]
    entries[1] = amended(entries[1], commit="other")
    seen = words(page.warnings(entries))
    assert "2 commits: abc, other" in seen and "The images called digits are not the same in all runs" in seen
    assert page.warnings(entries[:1]) == ""


def test_runs_of_two_precisions_are_warned_of_and_those_that_do_not_say_it_are_not():
    old, one, other = (
        entry(name, 50, [1.0, 2.0], precision=of) for name, of in zip("abc", (None, "x", "y"), strict=True)
    )
    assert "precisions" not in page.warnings([old, one]) and ">-<" in page.cost([old, one])
    assert "of 2 precisions: x, y" in page.warnings([old, one, other]) and ">y<" in page.cost([other])


def test_a_seed_that_stopped_is_warned_of(experiment):
    stopped = amended(experiment[0], stopped=[Stop(1, 2_000, "generator/loss", "nan")])
    assert "floor@10: seed 1 stopped at step 2,000; it counts in no number." in words(page.warnings([stopped]))


def test_the_usual_metrics_stand_in_their_order_with_their_units(experiment):
    names = ["nll", "coverage_x_ref=test_n=9", "agreement_svc", FID, f"{FID}_temperature=0.5", "error"]
    measured = {name: statistics.summary([1.0, 2.0, 3.0]) for name in names}
    known = [amended(experiment[0], metrics=measured)]
    assert compared.chosen(known) == ["error", "agreement_svc", FID, "coverage_x_ref=test_n=9"]
    assert compared.chosen(known, ["fid_temperature=0.5"]) == [f"{FID}_temperature=0.5"]
    headers, _ = columns.table(known, compared.chosen(known))
    assert headers == ["run", "labels", "error (%)", "agreement_svc (%)", FID, "coverage_x_ref=test_n=9", "method"]


def test_a_metric_is_found_by_its_short_name_alone():
    names = [FID, FID.replace("fid_", "fid_infinity_"), "cas_convnet_n=100", "cas_and_labelled_convnet_n=100"]
    names += ["kid_x_n=10", "kid_standard_error_x_n=10"]
    assert [tables.matching(name, names) for name in ("fid", "cas", "kid")] == [[FID], [names[2]], [names[4]]]
    assert tables.matching("fid_infinity", names) == [names[1]]


def test_a_metric_that_no_run_has_is_one_line(experiment):
    with pytest.raises(UserError, match="no run has cas: measure it with `ssl-gen evaluate RUN --metrics cas`"):
        compared.chosen(experiment, ["error", "cas"])


def test_folders_of_one_name_are_told_apart_by_those_above(tmp_path):
    folders = [tmp_path / "x" / "run", tmp_path / "y" / "run", tmp_path / "y" / "other"]
    assert compared.names_of(folders) == ["x/run", "y/run", "y/other"]
    assert compared.names_of(folders[1:]) == ["run", "other"]


def test_the_command_writes_the_page_of_a_folder_of_runs(tmp_path, capsys):
    for name, errors in (("one", [5.0, 6.0]), ("other", [1.0, 2.0])):
        make_run(tmp_path / "runs" / name, name, 50, errors)
    assert cli.main(["compare", str(tmp_path / "runs"), "--out", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().out
    assert "5.50 ± 0.71 (2)" in said and str(tmp_path / "page.html") in said
    assert "2 runs compared" in words((tmp_path / "page.html").read_text())


def test_the_command_answers_a_mistake_with_one_line(tmp_path, capsys):
    run = make_run(tmp_path / "run", "one", 50, [5.0])
    assert cli.main(["compare", str(run), "--metrics", "cas", "--out", str(tmp_path / "page.html")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.main(["compare", str(run), "--out", str(run / "final.json" / "page.html")]) == 2
    assert "cannot write" in capsys.readouterr().err
    (run / "final.json").unlink()
    assert cli.main(["compare", str(run)]) == 2
    assert "has not finished" in capsys.readouterr().err


# Curves over labels


def test_a_figure_puts_each_number_in_its_place(experiment):
    figure = efficiency.figure(page.points(experiment), "error")
    strokes = [shape for shape in figure.shapes if isinstance(shape, drawing.Stroke)]
    marks = [tuple(shape.points.mean(0)) for shape in figure.shapes if _is_marker(shape)]
    floor = next(stroke.points for stroke in strokes if len(stroke.points) == 3)
    # ten, a hundred, a thousand: equal steps on a logarithmic axis
    assert np.allclose(np.diff(floor[:, 0]), np.diff(floor[:, 0])[0])
    # from zero to 5 % above the highest mask, 35
    top, height = efficiency.TOP, efficiency.PLOT
    assert np.allclose(floor[:, 1], top + height * (1 - np.array([32.0, 11.0, 5.0]) / (35 * 1.05)))
    assert all(any(np.allclose(mark, place, atol=1.0) for mark in marks) for place in floor)
    ceiling = next(
        stroke.points for stroke in strokes if len(stroke.points) == 2 and stroke.dashes and stroke.width == 1.5
    )
    assert np.allclose(ceiling[:, 1], top + height * (1 - 1.5 / (35 * 1.05)))
    assert ceiling[0, 0] == efficiency.LEFT and ceiling[1, 0] == efficiency.WIDTH - efficiency.RIGHT


def _is_marker(shape: drawing.Shape) -> bool:
    return isinstance(shape, drawing.Area) and shape.opacity == 1


def test_a_band_reaches_from_the_lowest_to_the_highest_mask(experiment):
    figure = efficiency.figure(page.points(experiment), "error")
    band = next(shape.points for shape in figure.shapes if isinstance(shape, drawing.Area) and shape.opacity < 1)
    height = efficiency.TOP + efficiency.PLOT * (1 - np.array([34, 12, 6, 4, 10, 30]) / (35 * 1.05))
    assert np.allclose(band[:, 1], height)


def test_curves_differ_in_colour_shape_and_dashes_and_keep_them_in_every_figure(experiment):
    for point in experiment[3:6]:
        point.final.metrics[FID] = statistics.summary([1.0, 2.0, 3.0])
    known = page.points(experiment)
    looks = efficiency.looks(known)
    floor, better = looks["floor", False], looks["better", False]
    assert floor.colour != better.colour and floor.dashes != better.dashes and len(floor.corners) != len(better.corners)
    many = [efficiency.Point(f"method {k}", 10, {}) for k in range(scatter.SYMBOLS)]
    assert len({(look.colour, look.dashes, look.corners.tobytes()) for look in efficiency.looks(many).values()}) == 35
    fid = efficiency.figure(known, FID)
    assert [line.name for line in fid.lines] == ["better"]  # the second method, in its own colour
    assert {shape.colour for shape in fid.shapes if _is_marker(shape)} == {better.colour}


def test_all_that_is_drawn_lies_within_the_figure(experiment):
    many = [
        entry(f"a method with a very long name, number {k}@{n}", n, [9.0 + k, 7.0]) for k in range(9) for n in (10, 20)
    ]
    for entries in (experiment, many):
        figure = efficiency.figure(page.points(entries), "error")
        for shape in figure.shapes:
            places = np.array([[shape.x, shape.y]]) if isinstance(shape, drawing.Text) else shape.points
            assert (places >= 0).all() and (places <= figure.size).all()
    texts = [shape.text for shape in figure.shapes if isinstance(shape, drawing.Text)]
    assert sum(text.startswith("a method") for text in texts) == 9


def test_runs_that_make_no_curve_have_no_figure(experiment):
    assert page.figures(experiment[:1], ["error"]) == []
    twice = [*experiment, entry("floor@10", 10, [1.0, 2.0])]  # differs in something else than labels
    assert page.figures(twice, ["error"]) == []
    assert len(page.figures(experiment, ["error", FID])) == 1


def test_a_figure_is_told_in_words(experiment):
    said = efficiency.described(efficiency.figure(page.points(experiment), "error"))
    assert "floor: 32 at 10, 11 at 100, 5 at 1000; " in said and said.endswith("ceiling: 1.5 at all.")


def test_a_figure_is_named_by_its_number_and_by_other_settings_of_the_sampler():
    assert efficiency.short(FID) == "fid" and efficiency.short("cas_convnet_n=100") == "cas"
    assert efficiency.short(f"{FID}_temperature=0.5") == "fid_temperature=0.5"
    assert efficiency.short("iwae_5000") == "iwae_5000"  # has no shorter name


def test_figures_are_written_as_svg_and_png(tmp_path, experiment):
    written = page.draw(experiment, ["error"], tmp_path, "digits")
    assert [path.name for path in written] == ["digits_error.svg", "digits_error.png"]
    root = ElementTree.parse(written[0]).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"floor", "better", "ceiling", "visible labels", "error (%)", "10", "100", "1000"} <= texts
    with Image.open(written[1]) as picture:
        assert picture.size == tuple(drawing.SCALE * int(root.get(side)) for side in ("width", "height"))
        pixels = np.asarray(picture.convert("RGB"))
    for k in range(2):  # the curves' own colours are there
        assert (pixels == scatter.COLOURS[k]).all(-1).any()


def test_dashes_cover_their_share_of_a_line_and_go_around_corners():
    points = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0]])
    pieces = drawing.dashed(points, (3, 2))
    lengths = [np.hypot(*np.diff(piece, axis=0).T).sum() for piece in pieces]
    assert np.allclose(lengths, 3) and len(pieces) == 4
    assert np.allclose(pieces[2], [[10, 0], [10, 3]])
    corner = drawing.dashed(points, (12, 1))[0]
    assert np.allclose(corner, [[0, 0], [10, 0], [10, 2]])
