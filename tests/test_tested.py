"""Test images in the report: behind each cell of the confusion matrix, the wrong ones, the least certain."""

import re
import shutil

import browser
import numpy as np
import pytest
import test_reports
import test_review

from ssl_gen.reports import tested
from ssl_gen.reports.run import page
from ssl_gen.runs.evaluate import evaluate
from ssl_gen.types import UserError

# Two seeds, five images of classes 0, 0, 1, 1, 2; the favourites of each seed stand in its rows.
FIRST = np.array([[0.9, 0.1, 0.0], [0.3, 0.6, 0.1], [0.2, 0.8, 0.0], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6]]) + 1e-9
SECOND = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.9, 0.0], [0.9, 0.1, 0.0], [0.3, 0.3, 0.4]]) + 1e-9
LABELS = np.array([0, 0, 1, 1, 2])


@pytest.fixture
def chosen():
    return tested.choose([np.log(FIRST), np.log(SECOND)], LABELS)


IMAGES = np.repeat(10 * np.arange(5, dtype=np.uint8), 64).reshape(5, 8, 8, 1)  # each of another level


def test_wrong_images_come_first_then_the_least_certain(chosen):
    """Means: 0.85 right, 0.45 for class 0 and for 1 (0 is first), 0.85 right, 0.75 wrong, 0.5 right."""
    assert [each.row for each in chosen[:3]] == [3, 1, 4] and {each.row for each in chosen} == set(range(5))
    wrong = next(each for each in chosen if each.row == 3)
    assert (wrong.label, wrong.guesses, wrong.guess, wrong.share) == (1, [0, 0], 0, 0.75)


def test_an_image_stands_in_the_cell_of_every_seeds_guess(chosen, tmp_path):
    tested.write(tmp_path, chosen, IMAGES)
    found = tested.read(tmp_path)
    rows = lambda numbers: [found.images[number].row for number in numbers]  # noqa: E731
    assert rows(found.cell(0, 1)) == [1] and rows(found.cell(0, 0)) == [0, 1]  # of two seeds before of one
    assert rows(found.cell(1, 0)) == [3] and found.cell(2, 0) == []
    assert rows(found.wrong()) == [3] and rows(found.unsure()) == [1, 4, 3, 0, 2]


def test_of_many_images_every_cell_has_its_share():
    random = np.random.default_rng(0)
    outputs, labels = np.log(random.dirichlet(np.ones(10), 20_000)), random.integers(0, 10, 20_000)
    found = tested.choose([outputs], labels)
    assert len(found) == tested.MOST
    cells = {(each.label, each.guess) for each in found}
    assert len(cells) == 100


def test_the_pictures_are_those_of_the_test_set(chosen, tmp_path):
    tested.write(tmp_path, chosen, IMAGES)
    sprite = tested.read(tmp_path).sprite
    (sheet,) = map(test_review.decoded, sprite.sheets)
    for number, each in enumerate(chosen):
        y, x = divmod(number, sprite.columns)
        assert (sheet[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] == 10 * each.row).all()


@pytest.fixture
def folder(tmp_path):
    """A run's folder whose confusion matrix is that of the images above, of the classes zero, one, two."""
    run = test_reports.make_run(tmp_path / "run")
    found = tested.choose([np.log(FIRST), np.log(SECOND)], LABELS)
    tested.write(run, found, IMAGES)
    counts = np.zeros((10, 10), int)
    counts[:3, :3] = [[3, 1, 0], [2, 2, 0], [0, 0, 2]]
    test_reports.amend(run, "final.json", confusion=counts.tolist())
    return run


def test_a_cell_opens_its_images_and_a_cell_without_images_opens_nothing(folder):
    text = page.write(folder).read_text(encoding="utf-8")
    for true, predicted in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 2)):
        assert f'href="#cell-{true}-{predicted}"' in text and f'id="cell-{true}-{predicted}"' in text
    assert text.count('href="#cell-') == text.count('class="cell"') == 5
    tags = test_reports.Tags(text).found
    assert "script" not in {tag for tag, _ in tags}
    assert "one, taken for zero, 75\xa0%" in test_reports.words(text)


def test_a_number_opens_the_images_of_its_own_row_and_column(folder):
    """Two of class one were taken for zero, one of class zero for one."""
    text = page.write(folder).read_text(encoding="utf-8")
    links = dict(re.findall(r'<a href="#cell-(\d-\d)" aria-label="([^"]*)">\d+</a>', text))
    assert links["1-0"] == "2: one taken for zero, show images" and links["0-1"] == "1: zero taken for one, show images"
    table = text.split('<table class="confusion">')[1].split("</table>")[0]
    row = table.split("<tr>")[3].split("<td")[1:]  # of class one
    assert 'href="#cell-1-0"' in row[0] and ">2</a>" in row[0] and 'href="#cell-1-1"' in row[1]
    opened = text.split('id="cell-1-0"')[1].split("</section>")[0]
    assert opened.startswith("><h3>one, taken for zero</h3>") and 'aria-label="test image 3"' in opened


def test_without_such_images_the_report_is_as_before(tmp_path):
    text = page.write(test_reports.make_run(tmp_path / "run")).read_text(encoding="utf-8")
    assert "#cell-" not in text and "Least certain" not in text


def test_a_damaged_picture_is_one_line(folder):
    (folder / tested.PICTURE).write_bytes(b"")
    assert not tested.is_whole(folder)
    with pytest.raises(UserError, match=r"tested.png is missing or damaged: `ssl-gen evaluate` makes it again"):
        page.write(folder)


def test_a_click_on_a_number_shows_the_images_behind_it(folder, tmp_path):
    if browser.PROGRAM is None:
        pytest.skip("there is no Chromium on this machine: `apt-get install chromium` brings one")
    path = page.write(folder)
    with browser.chromium(tmp_path / "profile") as chromium:
        chromium.open(path, 400)
        seen = "getComputedStyle(document.getElementById('cell-1-0')).display"
        assert chromium.told(seen) == "none"
        chromium.told("document.querySelector('[href=\"#cell-1-0\"]').scrollIntoView({block: 'center'}), 0")
        chromium.mouse('[href="#cell-1-0"]')
        assert chromium.told(seen) == "block"
        assert (chromium.picture("#cell-1-0 .thumbnail") == 30).all()  # image 3
        chromium.mouse("#cell-1-0 a")
        assert chromium.told(seen) == "none" and chromium.complaints() == []
        assert chromium.told("[innerWidth, document.documentElement.scrollWidth]") == [400, 400]


def test_a_run_with_a_classifier_has_them_and_evaluating_brings_them_back(finished, tmp_path):
    run = shutil.copytree(finished("linear"), tmp_path / "run")
    before = tested.read(run)
    record = test_reports.run_folder.read(run)
    assert before is not None and record.final.metrics["error"]["mean"] > 0 and before.wrong()
    (run / tested.RECORD).unlink()
    evaluate(run, ("error",))
    assert tested.read(run).images == before.images
    assert 'href="#cell-' in (run / "report.html").read_text(encoding="utf-8")
