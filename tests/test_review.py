"""The page on which a person corrects what a run guesses: by keys, by mouse, by finger, and read back by `train`."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import statistics
import time
from pathlib import Path

import browser
import numpy as np
import pytest
import test_suggesting
from PIL import Image

import ssl_gen
from ssl_gen import cli
from ssl_gen.datasets import folders, label_table
from ssl_gen.datasets.folders import load_folder
from ssl_gen.reports import sprites
from ssl_gen.reports.review import page

DESK, TELEPHONE = 1280, 400
CLASSES = ("<b>bold</b>", "cats, dogs", 'say "moo"', "שלום")  # sorted
LEVELS = (20, 90, 160, 230)  # how bright the images of each are
NAMES = ("=sum.png", 'a "b", c.png', "<i>.png", "תמונה.png")  # of unlabelled images, one a class
RANDOM = np.random.default_rng(0)


# Sprites


def decoded(sheet: str) -> np.ndarray:
    head, data = sheet.split(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert head == f"data:image/{picture.format.lower()};base64"
        return np.asarray(picture)


def test_a_small_sprite_holds_every_pixel_where_its_style_says():
    images = list(RANDOM.integers(0, 256, (7, 8, 8, 3), np.uint8))
    sprite = sprites.sprite(images)
    (sheet,) = map(decoded, sprite.sheets)
    for number, image in enumerate(images):
        name, style = sprite.style(number, 8)
        place = dict(part.split(":") for part in style.split(";"))["background-position"]
        x, y = (-int(part.removesuffix("px")) for part in place.split())
        assert name == "sheet0"
        np.testing.assert_array_equal(sheet[y : y + 8, x : x + 8], image)


def test_pictures_of_several_shapes_stand_in_the_middle_of_their_cells_small_ones_enlarged():
    sprite = sprites.sprite([np.full((6, 4), 9, np.uint8), np.full((2, 2), 200, np.uint8)])
    (sheet,) = map(decoded, sprite.sheets)
    grey = sprites.GREY
    np.testing.assert_array_equal(sheet[:6, :6], [[grey, 9, 9, 9, 9, grey]] * 6)
    np.testing.assert_array_equal(sheet[:6, 6:], np.full((6, 6), 200))


def test_a_large_sprite_is_jpeg_in_sheets_whose_cells_keep_out_of_each_other():
    """Black and white cells side by side: where a block is of one alone, JPEG has nothing to smear."""
    images = [np.full((77, 77, 3), 255 * (number % 2), np.uint8) for number in range(700)]
    sprite = sprites.sprite(images)
    assert sprite.cell == 80 and sprite.columns == 25 and len(sprite.sheets) == 2
    assert all(sheet.startswith("data:image/jpeg") for sheet in sprite.sheets)
    first, second = map(decoded, sprite.sheets)
    assert first.shape == (2000, 2000, 3) and second.shape == (240, 2000, 3)  # 75 cells left: three rows
    assert np.abs(first[10:70, 90:150].astype(int) - 255).max() < 3 and first[10:70, 10:70].max() < 3
    assert sprite.style(626, 40)[0] == "sheet1"


def test_large_images_are_shrunk_to_their_thumbnails_and_keep_their_shape():
    assert sprites.thumbnail(np.zeros((400, 200, 3), np.uint8)).shape == (80, 40, 3)
    assert sprites.thumbnail(np.zeros((8, 9, 1), np.uint8)).shape == (8, 9)


def test_the_least_certain_of_each_class_come_first_after_those_to_label_next():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    assert page.order(probabilities, np.array([3, 0])).tolist() == [3, 0, 2, 4, 1]


# The page in a browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if browser.PROGRAM is None:
        pytest.skip("there is no Chromium on this machine: `apt-get install chromium` brings one")
    with browser.chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Images of four brightnesses, six of each labelled, four not; a run on them, and its page."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "pictures").mkdir()
    rows = [["file", "label"]]
    for k, (label, level) in enumerate(zip(CLASSES, LEVELS, strict=True)):
        for number in range(6):
            rows.append([f"{k}{number}.png", label])
            draw(folder / "pictures" / rows[-1][0], level)
        draw(folder / "pictures" / NAMES[k], level)
    with open(folder / "pictures" / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    here = Path.cwd()
    os.chdir(folder)
    try:
        words = ["--dataset", "folder:pictures", "--labels", "all", "--features", "pixels", "--quiet", "--out", "run"]
        assert cli.main(["train", "linear", *words]) == 0
        assert cli.main(["review", "run", "pictures", "--next", "2"]) == 0
    finally:
        os.chdir(here)
    return folder


def draw(path: Path, level: int) -> None:
    Image.fromarray((level + RANDOM.integers(-15, 16, (16, 16, 3))).astype(np.uint8)).save(path)


@pytest.fixture
def opened(chromium, world):
    """The page as at a first visit."""
    chromium.told("onbeforeunload = null, 0")
    visit(chromium, world)
    chromium.told("localStorage.clear(), 0")
    visit(chromium, world)
    return chromium


def visit(chromium, world, width: int = DESK) -> None:
    chromium.told("unsaved = false" if chromium.told("typeof unsaved") != "undefined" else "0")
    chromium.open(world / "review.html", width)


def told(chromium) -> str:
    return chromium.told("document.getElementById('count').textContent")


def active(chromium) -> str:
    return chromium.told("files[active]")


def labels(chromium) -> dict[str, str]:
    """What the table would hold."""
    rows = csv.DictReader(io.StringIO(chromium.told("table()"), newline=""))
    return {row["file"].removeprefix("'"): row["label"] for row in rows}


def tile(name: str) -> str:
    return f'[role="option"][aria-label^={name!r}]'


def go_to(chromium, name: str) -> None:
    """The way of a person at the keyboard, from the first image on."""
    chromium.press("Home")
    for _ in range(28):
        if active(chromium) == name:
            return
        chromium.press("ArrowRight")
    raise AssertionError(f"{name} is not on the page")


def test_keys_label_and_the_next_image_is_active(opened):
    go_to(opened, NAMES[0])
    following = opened.told("files[shown[position[active] + 1]]")
    opened.press("4")
    assert active(opened) == following and labels(opened)[NAMES[0]] == CLASSES[3]
    assert told(opened).startswith("1 changed: 0 confirmed, 1 corrected")
    go_to(opened, NAMES[1])
    opened.press("Enter")
    assert labels(opened)[NAMES[1]] == opened.told(f"classes[best[files.indexOf({NAMES[1]!r})][0]]") == CLASSES[1]
    assert told(opened).startswith("2 changed: 1 confirmed, 1 corrected")


def test_what_was_done_is_undone_and_done_again(opened):
    before = labels(opened)
    go_to(opened, NAMES[2])
    opened.press("1")
    after = labels(opened)
    opened.press("u")
    assert labels(opened) == before and active(opened) == NAMES[2] and told(opened).startswith("0 changed")
    opened.press("r")
    assert labels(opened) == after != before
    opened.press("z", browser.CONTROL)
    assert labels(opened) == before


def test_a_label_that_was_there_can_be_taken_away_and_corrected(opened):
    go_to(opened, "00.png")
    opened.press("0")
    go_to(opened, "01.png")
    opened.press("2")
    assert (labels(opened)["00.png"], labels(opened)["01.png"]) == ("", CLASSES[1])


def test_many_are_selected_by_shift_and_labelled_at_once(opened):
    opened.press("Home")
    chosen = opened.told("shown.slice(0, 4).map(i => files[i])")
    for _ in range(3):
        opened.press("ArrowRight", browser.SHIFT)
    assert "4 selected" in told(opened)
    opened.press("3")
    assert [labels(opened)[name] for name in chosen] == [CLASSES[2]] * 4 and "selected" not in told(opened)
    opened.press("u")
    assert told(opened).startswith("0 changed")


def test_a_group_is_selected_by_a_key_and_by_its_title_and_nothing_by_escape(opened):
    opened.press("End")
    size = opened.told("place(active).section.images.length")
    opened.press("a", browser.CONTROL)
    assert f"{size} selected" in told(opened)
    opened.press("Escape")
    assert "selected" not in told(opened)
    opened.mouse(".title")  # those to label next
    assert "2 selected" in told(opened)


def test_arrows_walk_rows_and_from_group_to_group(opened):
    opened.press("Home")
    opened.press("ArrowDown")
    assert opened.told("sections.indexOf(place(active).section)") == 1
    opened.press("ArrowUp")
    assert opened.told("position[active]") == 0
    opened.press("End")
    assert opened.told("position[active]") == 27


def test_a_click_selects_and_a_drag_to_a_class_or_a_group_labels(opened):
    first, second = (f'[id="image{opened.told(f"shown[{n}]")}"]' for n in (0, 1))
    names = opened.told("shown.slice(0, 2).map(i => files[i])")
    opened.mouse(first)
    opened.mouse(second, modifiers=browser.CONTROL)
    assert "2 selected" in told(opened)
    opened.mouse(first, '#classes [data-label="0"]')
    assert [labels(opened)[name] for name in names] == [CLASSES[0]] * 2
    opened.mouse(second, '.group[data-label="1"]')
    assert [labels(opened)[name] for name in names] == [CLASSES[0], CLASSES[1]]
    assert opened.told("document.getElementById('ghost')") is None


def test_a_finger_selects_images_and_labels_them(opened, world):
    opened.ask("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        visit(opened, world, TELEPHONE)
        names = opened.told("shown.slice(0, 2).map(i => files[i])")
        opened.tap(f'[id="image{opened.told("shown[0]")}"]')
        opened.tap(f'[id="image{opened.told("shown[1]")}"]')
        assert "2 selected" in told(opened)
        opened.tap('#classes [data-label="3"]')
        assert [labels(opened)[name] for name in names] == [CLASSES[3]] * 2
        sides = opened.told("[innerWidth, document.documentElement.scrollWidth]")
        assert sides == [TELEPHONE, TELEPHONE]
    finally:
        opened.ask("Emulation.setTouchEmulationEnabled", enabled=False)


def test_filters_show_a_class_a_state_and_a_range_of_certainty(opened):
    def chosen(**values: str) -> list[str]:
        for name, value in values.items():
            field = f"document.getElementById({name!r})"
            opened.told(f"{field}.value = {value!r}, {field}.dispatchEvent(new Event('input')), 0")
        return opened.told("shown.map(i => files[i])")

    every = chosen()
    assert sorted(chosen(state="open")) == sorted(NAMES)
    assert chosen(state="changed") == [] and opened.told("!document.getElementById('empty').hidden")
    guessed = chosen(**{"state": "all", "class": "1"})
    assert len(guessed) == opened.told("best.filter(each => each[0] === 1).length")
    shares = opened.told("Object.fromEntries(files.map((name, i) => [name, shares[i][0]]))")
    limit = 100 * statistics.median(shares.values())
    few = chosen(**{"class": "all", "to": f"{limit:.2f}"})
    assert set(few) == {name for name in every if shares[name] <= float(f"{limit:.2f}") / 100} and 5 < len(few) < 25


def test_what_was_labelled_is_there_at_the_next_visit(opened, world):
    go_to(opened, NAMES[0])
    opened.press("2")
    kept = labels(opened)
    visit(opened, world)
    assert "1 change of an earlier visit taken up" in told(opened) and labels(opened) == kept
    opened.press("u")
    assert told(opened).startswith("0 changed")


def test_names_of_any_kind_are_text_on_the_page_and_nothing_is_fetched(opened, world):
    buttons = opened.told("[...document.querySelectorAll('#classes [data-label] bdi')].map(each => each.textContent)")
    assert buttons == [*CLASSES, "no label"]
    assert opened.told("document.querySelectorAll('main b b, main i, aside b').length") == 0
    assert all(url.startswith(("file:", "data:image/")) for url in opened.requested()) and opened.complaints() == []


def test_the_saved_table_is_read_back_by_train(opened, world, tmp_path, monkeypatch):
    corrected = {"00.png": CLASSES[3], NAMES[0]: CLASSES[0], NAMES[1]: CLASSES[2], NAMES[3]: CLASSES[3]}
    for name, label in corrected.items():
        go_to(opened, name)
        opened.press(str(CLASSES.index(label) + 1))
    saved = opened.downloaded(tmp_path, "#save", "labels.csv")
    assert "saved: put labels.csv into pictures" in told(opened)
    expected = {f"{k}{n}.png": label for k, label in enumerate(CLASSES) for n in range(6)} | corrected
    expected[NAMES[2]] = None
    assert label_table.read_table(saved) == expected
    (tmp_path / "pictures").mkdir()
    for image in (world / "pictures").glob("*.png"):
        (tmp_path / "pictures" / image.name).write_bytes(image.read_bytes())
    saved.rename(tmp_path / "pictures" / "labels.csv")
    monkeypatch.chdir(tmp_path)
    data = load_folder("pictures", "pictures", None)
    assert data.class_names == CLASSES
    assert sum(len(part[part >= 0]) for part in (data.train_labels, data.test_labels)) == 27
    words = ["--dataset", "folder:pictures", "--labels", "all", "--features", "pixels", "--quiet", "--out", "run"]
    assert cli.main(["train", "linear", *words]) == 0


# For those who hear the page


AXE = os.environ.get("AXE_CORE")  # the axe.min.js of the npm package axe-core


@pytest.mark.parametrize("width", [DESK, TELEPHONE])
@pytest.mark.parametrize("dark", [False, True])
def test_an_audit_by_axe_finds_nothing(chromium, world, width, dark):
    if not AXE:
        pytest.skip("AXE_CORE names no axe.min.js: `npm install axe-core` brings one")
    visit(chromium, world)
    chromium.open(world / "review.html", width, dark=dark)
    chromium.told(Path(AXE).read_text() + ";0")
    script = "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.map(each => "
    script += "[each.id, each.nodes.map(node => node.html + node.failureSummary)]))"
    answer = chromium.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
    assert answer["result"]["value"] == []


def test_every_part_has_a_role_and_a_name(opened):
    """As the browser tells them to a screen reader."""
    opened.press("Home")
    nodes = opened.ask("Accessibility.getFullAXTree")["nodes"]
    heard = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and "role" in node
    ]
    for role in ("button", "listbox", "option", "combobox", "spinbutton", "group", "status", "complementary"):
        named = [name for kind, name in heard if kind == role]
        assert named and (role == "status" or all(named)), role
    options = [name for kind, name in heard if kind == "option"]
    first = opened.told("files[shown[0]]")
    assert any(name.startswith(f"{first}: ") and " % certain" in name for name in options)
    listbox = next(node for node in nodes if node.get("role", {}).get("value") == "listbox")
    properties = {each["name"]: each["value"].get("value") for each in listbox["properties"]}
    assert properties["multiselectable"] is True and properties["focused"] is True
    assert opened.told("document.getElementById('list').getAttribute('aria-activedescendant')") == opened.told(
        "`image${active}`"
    )
    assert opened.told("document.querySelector('.current').getAttribute('aria-setsize')") == "28"


def test_the_keyboard_alone_reaches_every_control(opened):
    reached = set()
    for _ in range(40):
        opened.press("Tab")
        reached.add(opened.told("document.activeElement.id || document.activeElement.textContent"))
    assert {"list", "save", "class", "state", "from", "to", "help"} <= reached
    assert any(CLASSES[1] in name for name in reached)


# 5,000 images


def processor_time(chromium) -> float:
    """Seconds that the page's own thread has worked, whatever else the machine does."""
    return {each["name"]: each["value"] for each in chromium.ask("Performance.getMetrics")["metrics"]}["TaskDuration"]


@pytest.mark.slow
def test_five_thousand_images_load_in_seconds_and_keys_are_answered_at_once(chromium, tmp_path):
    """As smooth as photographs, and of the largest size. By the clock it depends on the machine, and is printed."""
    number, keys = 5_000, ["5", "ArrowDown", "PageDown", "u", "3", "End", "Home", "ArrowRight"] * 3
    coarse = RANDOM.integers(0, 256, (number, 8, 8, 3), np.uint8)
    images = [np.asarray(Image.fromarray(each).resize((80, 80), Image.Resampling.BICUBIC)) for each in coarse]
    probabilities = RANDOM.dirichlet(np.ones(10), number)
    rows = page.order(probabilities, np.arange(50))
    shown = page.Guessed([f"{row:04d}.jpg" for row in rows], images, probabilities[rows], [page.NONE] * number, 50)
    path = tmp_path / "review.html"
    path.write_text(page.render("p", "r", [f"class {k}" for k in range(10)], shown, {}, True), encoding="utf-8")
    chromium.told("typeof unsaved === 'undefined' || (unsaved = false), 0")
    chromium.ask("Performance.enable", timeDomain="threadTicks")
    start = time.monotonic()
    chromium.open(path, DESK)
    loaded, worked = time.monotonic() - start, processor_time(chromium)
    assert 40 < chromium.told("document.querySelectorAll('[role=option]').length") < 200
    watch = "times = []; addEventListener('keydown', event => requestAnimationFrame(() => setTimeout(() => "
    chromium.told(watch + "times.push(performance.now() - event.timeStamp))), true); 0")
    before = processor_time(chromium)
    for done, key in enumerate(keys, 1):
        chromium.press(key)
        while chromium.told("times.length") < done:
            time.sleep(0.01)
    answered, times = (processor_time(chromium) - before) / len(keys), chromium.told("times")
    print(f"{path.stat().st_size / 1e6:.1f} MB; loaded in {loaded:.2f} s, of work {worked:.2f} s")
    print(f"a key in {statistics.median(times):.0f} ms, of work {1000 * answered:.0f} ms")
    assert 40 < chromium.told("document.querySelectorAll('[role=option]').length") < 200
    assert 0.01 < worked < 3 and 0.0005 < answered < 0.1


# What cannot be reviewed


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        (None, ["run", "empty"], "empty holds no readable image"),
        (None, ["run", "nowhere"], "nowhere is no folder"),
        (None, ["nowhere", "pictures"], "there is no run folder nowhere"),
        (None, ["run", "pictures", "--out", "mine.html"], "mine.html is there and not as ssl-gen wrote it"),
        (None, ["run", "pictures", "--next", "-1"], "--next is -1"),
        (None, ["run", "pictures", "--most", "0"], "--most is 0"),
        ("00.png,dragon", ["run", "other"], "00.png is labelled 'dragon', which is no class of run (<b>"),
        ("other.png,a", ["run", "other"], "names 'other.png', which is not in other"),
        ("split", ["run", "other"], "other has a test/, which is not to be reviewed: give its train/ alone"),
    ],
)
def test_what_cannot_be_reviewed_is_one_line(world, tmp_path, monkeypatch, capsys, change, words, said):
    monkeypatch.chdir(tmp_path)
    for name in ("run", "pictures"):
        (tmp_path / name).symlink_to(world / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine.html").write_text("a person's")
    folders = ["other"] if change != "split" else [f"other/{part}/a" for part in ("train", "test")]
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        draw(tmp_path / folder / "00.png", 99)
    if change not in (None, "split"):
        (tmp_path / "other" / "labels.csv").write_text(f"file,label\n{change}\n")
    capsys.readouterr()
    assert cli.main(["review", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert (tmp_path / "mine.html").read_text() == "a person's"


def test_the_folder_is_walked_once(world, tmp_path, monkeypatch):
    def act():
        ssl_gen.review(world / "run", world / "pictures", tmp_path / "review.html", next=2)

    assert test_suggesting.scanned(monkeypatch, world / "pictures", act) == [world / "pictures"]


def held(path: Path) -> dict:
    """What a page is given."""
    return json.loads(path.read_text(encoding="utf-8").split('id="data">')[1].split("</script>")[0])


def test_each_image_of_the_page_has_its_own_guesses_label_and_picture(world):
    """Classes by their number in the run; of each image the three likeliest, the likeliest first."""
    data, run = held(world / "review.html"), ssl_gen.load(world / "run")
    assert tuple(data["classes"]) == CLASSES == tuple(run.record.data.class_names)
    files, images, _ = folders.read_to_fit(world / "pictures", run.record.data.spec.shape, False)
    rows = [[file.name for file in files].index(name) for name in data["files"]]
    probabilities = run.classify(images)[rows]
    best = np.argsort(-probabilities, 1, kind="stable")[:, :3]
    assert data["best"] == best.tolist() and len({each[0] for each in data["best"]}) == len(CLASSES)
    np.testing.assert_allclose(data["shares"], np.take_along_axis(probabilities, best, 1), atol=6e-5)
    expected = [int(name[0]) if name[0].isdecimal() else page.NONE for name in data["files"]]
    assert data["given"] == expected and expected.count(page.NONE) == len(NAMES)
    assert data["next"] == 2 and data["given"][:2] == [page.NONE] * 2
    text = (world / "review.html").read_text(encoding="utf-8")
    sheet = decoded(re.search(r"data:image/[a-z]+;base64,[^\")]*", text)[0]).astype(int)
    cell = data["cell"]
    for number, row in enumerate(rows):
        y, x = divmod(number, data["columns"])
        middle = sheet[y * cell + cell // 4 : y * cell + 3 * cell // 4, x * cell + cell // 4 : x * cell + 3 * cell // 4]
        assert abs(middle.mean() - images[row].mean()) < 8


def test_of_many_images_the_least_certain_are_shown_and_no_label_is_lost(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(world)
    assert (
        cli.main(["review", "run", "pictures", "--most", "10", "--next", "3", "--out", str(tmp_path / "few.html")]) == 0
    )
    said = capsys.readouterr().out
    assert "the 10 least certain of 28 images to review" in said and "24 labels there already" in said
    data = held(tmp_path / "few.html")
    assert len(data["files"]) == 10 and data["next"] == 3
    labelled = [name for name, k in zip(data["files"], data["given"], strict=True) if k >= 0]
    assert len(labelled) + len(data["elsewhere"]) == 24
    assert not {name for name, _ in data["elsewhere"]} & set(data["files"])


def test_the_loop_from_python(world, tmp_path, monkeypatch):
    monkeypatch.chdir(world)
    table = ssl_gen.suggest("pictures", 3, "run").save(tmp_path / "suggest.csv")
    assert len([label for label in label_table.read_table(table).values() if label is None]) == 3
    found = ssl_gen.review("run", "pictures", tmp_path / "page.html")
    assert found.page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>") and found.shown == found.images == 28
