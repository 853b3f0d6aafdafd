"""Rows of many experiments, side by side until a time is up."""

import importlib
import sys
import time
from pathlib import Path

import pytest

from experiments import many
from experiments.many import Job, Queue, read

LIST = """# what learns guesses comes after what guesses
flow labeller
flow floor   # at any time
flow guessed labeller
"""


def test_a_list_is_rows_that_may_wait_for_another():
    assert read(LIST) == [
        Job("flow", "labeller", None),
        Job("flow", "floor", None),
        Job("flow", "guessed", "labeller"),
    ]
    with pytest.raises(ValueError, match="line 2 is not EXPERIMENT ROW"):
        read("a b\nc\n")


@pytest.mark.parametrize(("name", "least"), [("accelerator_rows", 60), ("accelerator_ten_masks", 6)])
def test_a_list_for_an_accelerator_is_of_rows_that_there_are(name, least):
    jobs = read((Path(many.__file__).parent / f"{name}.txt").read_text())
    assert len(jobs) == len({(job.experiment, job.row) for job in jobs}) >= least
    for job in jobs:
        rows = importlib.import_module(f"experiments.{job.experiment}").ROWS
        assert job.row in rows
        waits = {rows[job.row].options.labeller, rows[job.row].options.encoder} - {None}
        assert waits <= {job.after}, job


def test_a_row_is_given_when_what_it_waits_for_is_done_and_never_when_that_failed():
    later = time.monotonic() + 60
    for well in (True, False):
        queue = Queue(read(LIST))
        first, second = queue.take(later), queue.take(later)
        assert (first.row, second.row) == ("labeller", "floor")
        queue.end(second, True)
        queue.end(first, well)
        found = queue.take(later)
        assert (found and found.row) == ("guessed" if well else None)


def test_nothing_is_given_when_the_time_is_up():
    assert Queue(read(LIST)).take(time.monotonic()) is None


@pytest.fixture
def experiments(tmp_path, monkeypatch):
    """Two experiments, whose commands write what they were told, fail or sleep."""
    package = tmp_path / "experiments"
    package.mkdir()
    code = "import os, sys, time\nrow = sys.argv[2]\nprint(sys.argv[1:], os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'])\n"
    code += "time.sleep(60 * (row == 'slow'))\nsys.exit(3 * (row == 'bad'))\n"
    for name in ("one", "two"):
        (package / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_every_row_is_run_by_its_own_command_and_what_became_of_it_is_said(experiments):
    (experiments / "list").write_text("one slow\none a\ntwo b a\ntwo bad\ntwo c bad\none d a\n")
    started = time.monotonic()
    many.main(["list", "--seconds", "5", "--workers", "3", "--out", "runs", "--", "--precision", "float32"])
    assert time.monotonic() - started < 30
    said = sorted(
        line.rpartition(" after ")[0] for line in (experiments / "runs" / "many.log").read_text().splitlines()
    )
    assert said == ["one a: done", "one d: done", "one slow: cut off", "two bad: failed with 3"]
    told = (experiments / "runs" / "one.d.log").read_text()
    assert told == "['--only', 'd', '--out', 'runs/one', '--precision', 'float32'] false\n"


def test_a_list_that_is_none_is_one_line(tmp_path, capsys):
    (tmp_path / "list").write_text("one\n")
    for path in (tmp_path / "list", tmp_path / "absent"):
        with pytest.raises(SystemExit) as stopped:
            many.main([str(path), "--seconds", "1"])
        assert stopped.value.code == 2 and sys.executable not in capsys.readouterr().err
