"""The experiments run, and README says what their records say."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import digits_demo, readme, table
from ssl_gen.methods import METHODS

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / "experiments").glob("*.json"))


def test_the_tables_of_readme_are_those_of_the_records():
    text = readme.README.read_text()
    assert readme.BLOCK.search(text) and readme.filled(text) == text


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_says_where_its_numbers_come_from_and_holds_no_path(path):
    tracked = json.loads(path.read_text())
    for final in tracked["rows"].values():
        assert final["commit"] and final["device"] and final["seconds"] and final["seeds"] and final["masks"]
        assert len(final["metrics"]["error"]["per_seed"]) == len(final["seeds"])
    assert not re.search(r"/(tmp|home|root|work|Users)/", path.read_text())


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


@pytest.mark.slow
def test_the_demo_runs_in_its_tiny_form(tmp_path):
    command = [sys.executable, "-m", "experiments.digits_demo", "--tiny", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for row in digits_demo.ROWS:
        assert row in done.stdout and (tmp_path / row / "report.html").exists()


def test_an_experiment_resumes_what_is_finished(tmp_path, monkeypatch, capsys):
    floor = table.shrunk(digits_demo.ROWS["floor"])
    first = table.train({"floor": floor}, tmp_path)
    again = table.train({"floor": floor}, tmp_path)
    assert first == again
