"""Pages in a real browser, on a desk and on a telephone: numbers are seen, nothing sticks out, nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import browser
import numpy as np
import pytest
import test_compare
import test_reports
from PIL import Image

from ssl_gen.metrics import statistics
from ssl_gen.reports import records
from ssl_gen.reports.charts import pictures
from ssl_gen.reports.compare import entries
from ssl_gen.reports.compare import page as comparing
from ssl_gen.reports.run import page

DESK, TELEPHONE = 1280, 400  # CSS pixels
STEPS = (400, 800, 1200, 1600, 2000)  # of pictures drawn during training
READABLE = 10  # CSS pixels, the least height of letters; ours: what browsers call "small" text is 13
NAMES = ("report", "classifier", "training", "comparison", "experiment")
EVERYWHERE = pytest.mark.parametrize("name, width", [(name, width) for name in NAMES for width in (DESK, TELEPHONE)])
FACTS = """(() => {
    document.querySelectorAll("details").forEach(each => each.open = true);
    const root = document.documentElement, small = [], outside = [], parts = [];
    for (const element of document.body.querySelectorAll("*")) {
        if (![...element.childNodes].some(each => each.nodeType === 3 && each.data.trim())) continue;
        const drawn = element instanceof SVGElement;
        const letters = parseFloat(getComputedStyle(element).fontSize) * (drawn ? element.getScreenCTM().a : 1);
        if (letters < LEAST) small.push([letters, element.textContent]);
        const box = drawn && element.getBoundingClientRect(), around = drawn && element.closest("figure");
        const frame = around && around.getBoundingClientRect();
        if (drawn && (box.left < frame.left - 1 || box.right > frame.right + 1)) outside.push(element.textContent);
    }
    for (const each of document.images) parts.push([each.naturalWidth / each.width, each.naturalHeight / each.height]);
    const sides = {viewport: innerWidth, content: root.scrollWidth, room: root.clientWidth};
    return {...sides, text: document.body.innerText, small, outside, parts};
})()""".replace("LEAST", str(READABLE))


class Seen(NamedTuple):
    """A page at one width."""

    facts: dict[str, Any]
    requested: list[str]
    complaints: list[str]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if browser.PROGRAM is None:
        pytest.skip("there is no Chromium on this machine: `apt-get install chromium` brings one")
    with browser.chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A run's report: with samples, without, and with those of training; runs compared; curves. Names are long."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("report", "classifier", "training"):
        run = test_reports.make_run(folder / name)
        small = {test_compare.FID: statistics.summary([0.0123, 0.0119, 0.0131, 0.0125, 0.0127])}
        test_reports.amend(run, "final.json", metrics=test_reports.without_metrics(run) | small)
        with (run / "metrics.jsonl").open("a") as file:
            for step, value in ((100, -0.001234), (200, -0.001238)):  # its ticks are as long as ticks become
                file.write(json.dumps({"step": step, "seed": 0, "classifier/small": value}) + "\n")
    (folder / "classifier" / "samples.png").unlink()
    test_reports.make_over_time(folder / "training", STEPS)
    with (folder / "training" / "metrics.jsonl").open("a") as file:
        for step in STEPS:
            file.write(json.dumps({"step": step, "seed": 0, f"samples/{test_compare.FID}": 50.0 - step / 100}) + "\n")
    written = {name: page.write(folder / name) for name in ("report", "classifier", "training")}
    written["comparison"] = folder / "comparison.html"
    two = [entries.read(folder / name, name) for name in ("report", "classifier")]
    written["comparison"].write_text(comparing.render(two), encoding="utf-8")
    written["experiment"] = folder / "experiment.html"
    runs = [*test_compare.runs(), test_compare.entry("a_method_with_a_long_name@10", 10, [20.0, 21.0, 22.0])]
    written["experiment"].write_text(comparing.render(runs, baseline="floor"), encoding="utf-8")
    return written


@pytest.fixture(scope="module")
def visits(chromium, pages) -> dict[tuple[str, int], Seen]:
    """Every page at both widths."""
    found = {}
    for name, path in pages.items():
        for width in (DESK, TELEPHONE):
            chromium.open(path, width)
            found[name, width] = Seen(chromium.told(FACTS), chromium.requested(), chromium.complaints())
    return found


@pytest.mark.parametrize("width", [DESK, TELEPHONE])
def test_the_numbers_of_the_record_are_seen(visits, pages, width):
    text = visits["report", width].facts["text"]
    final = records.load_final(pages["report"].parent)
    for name, places in {"error": 2, "agreement_svc": 3, "fid_svc": 1, test_compare.FID: 4}.items():
        values = final.metrics[name]["per_seed"]
        assert f"{np.mean(values):.{places}f} ± {np.std(values, ddof=1):.{places}f} (5)" in text
        assert all(f"{value:.{places}f}" in text for value in values)
    assert f"Test error {np.mean(test_reports.ERRORS):.2f} ± {np.std(test_reports.ERRORS, ddof=1):.2f} %" in text
    assert "1,297 training images" in text and "500 test images" in text and "100 validation images" in text
    cells = text.split()
    assert all(str(count) in cells for row in final.confusion for count in row)


@pytest.mark.parametrize("width", [DESK, TELEPHONE])
def test_the_numbers_of_all_runs_are_seen_side_by_side(visits, width):
    text = visits["experiment", width].facts["text"]
    for run in test_compare.runs():
        values = run.final.metrics["error"]["per_seed"]
        assert f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} (3)" in text
    assert "-6.00" in text and "real: lower" in text  # 100 labels, the other method less the floor


@EVERYWHERE
def test_no_page_is_wider_than_its_window(visits, name, width):
    facts = visits[name, width].facts
    assert facts["viewport"] == width
    assert facts["content"] <= facts["room"] <= width


@EVERYWHERE
def test_text_is_large_enough_to_read_and_that_of_a_chart_stays_in_it(visits, name, width):
    facts = visits[name, width].facts
    assert facts["small"] == [] and facts["outside"] == []


@EVERYWHERE
def test_pages_fetch_nothing(visits, pages, name, width):
    seen = visits[name, width]
    assert seen.requested[0] == pages[name].resolve().as_uri()
    assert all(address.startswith("data:image/png;base64,") for address in seen.requested[1:])
    assert seen.complaints == []


@EVERYWHERE
def test_pictures_are_shown_in_whole_parts_of_their_size(visits, name, width):
    expected = {"report": [[1, 1]], "classifier": [], "comparison": [[2, 2]], "experiment": []}
    if name == "training":  # thumbnails are a third in whole pixels
        *small, large = visits[name, width].facts["parts"]
        assert np.abs(np.array(small) - 3).max() < 0.05 and len(small) == len(STEPS) and large == [1, 1]
    else:
        assert visits[name, width].facts["parts"] == expected[name]


def test_a_grid_is_drawn_pixel_for_pixel(chromium, pages):
    with Image.open(pages["report"].parent / "samples.png") as file:
        samples = np.asarray(file.convert("RGB"))
    chromium.open(pages["report"], DESK)
    np.testing.assert_array_equal(chromium.picture(".samples"), samples)


def test_a_grid_at_half_its_size_shows_every_pixel(chromium, pages):
    with Image.open(pages["report"].parent / "samples.png") as file:
        samples = np.asarray(file.convert("RGB"), float)
    height, width, _ = samples.shape
    halved = samples.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    chromium.open(pages["comparison"], DESK)
    shown = chromium.picture(".samples")
    below = halved.shape[0] - pictures.grid(np.zeros((10, 10, 8, 8, 1), np.uint8)).shape[0] // 2  # the titles' strip
    np.testing.assert_allclose(shown[below:], halved[below:], atol=1)


STRIP = """(() => {
    const strip = document.querySelector(".strip"), box = strip.parentElement, texts = [], places = [];
    for (const each of strip.children) {
        const seen = each.querySelector("img").getBoundingClientRect();
        texts.push(each.innerText.trim());
        places.push([seen.left, seen.right, seen.top]);
    }
    box.scrollLeft = 1e6;
    const last = strip.lastChild.getBoundingClientRect().right;
    const right = box.getBoundingClientRect().right;
    return {texts, places, room: box.clientWidth, content: box.scrollWidth, last, right};
})()"""


@pytest.mark.parametrize("width", [DESK, TELEPHONE])
def test_samples_over_time_stand_side_by_side_in_a_box_that_scrolls_to_the_last(chromium, pages, width):
    chromium.open(pages["training"], width)
    found = chromium.told(STRIP)
    assert found["texts"] == [f"step {step:,}" for step in STEPS]
    left, right, top = np.array(found["places"]).T
    assert (left[1:] > right[:-1]).all() and (top == top[0]).all()
    assert (right - left).max() < found["room"] < found["content"]  # one is seen whole, even on a telephone
    assert found["last"] <= found["right"] + 1


def test_a_page_that_is_too_wide_or_fetches_something_would_be_seen(chromium, tmp_path):
    wide = tmp_path / "wide.html"
    wide.write_text(
        '<body><p style="width:500px;font-size:9px">wide</p><img src="http://localhost:9/picture.png"></body>'
    )
    chromium.open(wide, TELEPHONE)
    facts = chromium.told(FACTS)
    assert facts["content"] > facts["room"] and facts["small"] == [[9, "wide"]]
    assert "http://localhost:9/picture.png" in chromium.requested()
