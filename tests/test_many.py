"""Rows of many experiments, side by side until a time is up."""

import importlib
import os
import signal
import subprocess
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
    for well in (True, False):
        queue = Queue(read(LIST))
        first, second = queue.take(), queue.take()
        assert first and second and (first.row, second.row) == ("labeller", "floor")
        queue.end(second, True)
        assert queue.take() is None
        queue.end(first, well)
        found = queue.take()
        assert (found and found.row) == ("guessed" if well else None)


CODE = """
import os, signal, sys, time
row = sys.argv[2]
print(sys.argv[1:], os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"], flush=True)
if row == "keeps":  # its state, and says so, as a row of a table does
    signal.signal(signal.SIGTERM, lambda *_: (print("kept", flush=True), sys.exit(75)))
if row == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if row in ("keeps", "deaf"):
    print(os.getpid(), flush=True)
    time.sleep(60)
sys.exit(3 * (row == "bad"))
"""


@pytest.fixture
def experiments(tmp_path, monkeypatch):
    """Two experiments, whose commands write what they were told, fail or sleep."""
    package = tmp_path / "experiments"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("one", "two"):
        (package / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def lines(folder):
    """What became of the rows, sorted, without the seconds."""
    return sorted(line.rpartition(" after ")[0] for line in (folder / "many.log").read_text().splitlines())


def is_alive(log):
    """Is the process that said its number in a log still there?"""
    number = next(int(line) for line in log.read_text().splitlines() if line.isdecimal())
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_row_is_run_by_its_own_command_and_what_became_of_it_is_said(experiments):
    (experiments / "list").write_text("one keeps\none a\ntwo b a\ntwo bad\ntwo c bad\ntwo b keeps\none d a\n")
    started = time.monotonic()
    many.main(["list", "--seconds", "4", "--workers", "3", "--out", "runs", "--", "--precision", "float32"])
    assert time.monotonic() - started < 30
    assert lines(experiments / "runs") == ["one a: done", "one d: done", "one keeps: cut off", "two bad: failed with 3"]
    told = (experiments / "runs" / "one.d.log").read_text()
    assert told == "['--only', 'd', '--out', 'runs/one', '--precision', 'float32'] false\n"


def test_before_the_time_is_up_rows_may_keep_their_state_and_when_it_is_none_is_left(experiments):
    (experiments / "list").write_text("one keeps\none deaf\n")
    started = time.monotonic()
    many.main(["list", "--seconds", "3", "--grace", "1.5", "--out", "runs"])
    assert 3 <= time.monotonic() - started < 30
    assert "kept" in (experiments / "runs" / "one.keeps.log").read_text()
    assert not any(is_alive(experiments / "runs" / f"one.{row}.log") for row in ("keeps", "deaf"))


@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_ends_the_rows_too_and_a_second_one_at_once(times, experiments):
    (experiments / "list").write_text("one keeps\none deaf\n")
    command = [sys.executable, many.__file__, "list", "--seconds", "60", "--grace", "2" if times == 1 else "25"]
    logs = [experiments / "runs" / f"one.{row}.log" for row in ("keeps", "deaf")]
    path = f"{experiments}{os.pathsep}{Path(many.__file__).parents[1]}"
    with subprocess.Popen([*command, "--out", "runs"], env=os.environ | {"PYTHONPATH": path}) as process:
        try:
            end = time.monotonic() + 30
            while not all(log.exists() and log.read_text().count("\n") == 2 for log in logs):
                assert time.monotonic() < end
                time.sleep(0.05)
            for _ in range(times):
                process.send_signal(signal.SIGTERM)
                time.sleep(0.5)
            assert process.wait(20) == 143
        finally:
            process.kill()
    assert "kept" in logs[0].read_text() and not any(is_alive(log) for log in logs)
    assert lines(experiments / "runs") == ["one deaf: cut off", "one keeps: cut off"]


def test_a_list_that_is_none_is_one_line(tmp_path, capsys):
    (tmp_path / "list").write_text("one\n")
    for path in (tmp_path / "list", tmp_path / "absent"):
        with pytest.raises(SystemExit) as stopped:
            many.main([str(path), "--seconds", "1"])
        assert stopped.value.code == 2 and sys.executable not in capsys.readouterr().err
