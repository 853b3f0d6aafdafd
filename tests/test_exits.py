"""One way out of every command: one line, and a status that says which kind of end it was."""

import dataclasses
import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ssl_gen import cli
from ssl_gen.cli import commands, guard
from ssl_gen.core import failures, files, signals
from ssl_gen.evaluation import evaluated
from ssl_gen.metrics.metric import Metric
from ssl_gen.reports.records import Stop
from ssl_gen.runs import load, train
from ssl_gen.types import UserError


def chained(inner):
    """An error as libraries wrap it."""
    outer = ValueError("while saving")
    outer.__cause__ = inner
    return outer


TENSORSTORE = (
    'RESOURCE_EXHAUSTED: Error writing local file "/x/checkpoints/2": Failed to write 380675 bytes to file 6: '
    "No space left on device [os_error_code='28']"
)
ENDS = {  # what is raised -> the status and a word of the line
    "what a user can mend": (UserError("give --out"), 2, "give --out"),
    "two lines of it": (UserError("give\n  --out"), 2, "give --out"),
    "a full disk": (OSError(errno.ENOSPC, "", "/x/y"), 2, "/x/y: No space left"),
    "a full disk of tensorstore": (ValueError(TENSORSTORE), 2, "/x/checkpoints/2: No space left"),
    "a full disk, wrapped": (chained(OSError(errno.ENOSPC, "")), 2, "No space left"),
    "a full disk, in a group": (ExceptionGroup("both", [ValueError(TENSORSTORE)]), 2, "No space left"),
    "a quota": (OSError(errno.EDQUOT, ""), 2, "quota"),
    "no locks": (OSError(errno.ENOLCK, ""), 2, "keeps no locks"),
    "a disk that is only read": (OSError(errno.EROFS, "", b"/x"), 2, "/x: Read-only"),
    "a file that is not allowed": (PermissionError(errno.EACCES, "", "/x"), 2, "permissions"),
    "too many files": (OSError(errno.EMFILE, ""), 2, "ulimit"),
    "a disk that is broken": (OSError(errno.EIO, "", "/x"), 2, "Input/output"),
    "no memory": (MemoryError(), 2, "smaller batches"),
    "no memory of the system": (OSError(errno.ENOMEM, ""), 2, "smaller batches"),
    "no memory of a device": (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5"), 2, "is used up"),
    "no memory of numpy": (chained(MemoryError("Unable to allocate 7 TiB")), 2, "memory is used up"),
    "a lost process": (RuntimeError("UNAVAILABLE: heartbeat of task 1"), 1, "another process"),
    "a fault of the library": (KeyError("x"), 1, "traceback is in"),
    "a fault that says nothing": (AssertionError(), 1, "please report"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "the same command"),
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_one_line_and_a_status(end, monkeypatch, capsys):
    error, status, word = ENDS[end]

    def raising(words):
        raise error

    monkeypatch.setattr(commands, "evaluate", raising)
    assert cli.main(["evaluate", "a b"]) == status
    said = capsys.readouterr()
    assert said.err.startswith("ssl-gen: ") and said.err.count("\n") == 1 and word in said.err and not said.out
    if status != 1 and not isinstance(error, UserError):
        assert "ssl-gen evaluate 'a b'" in said.err


def test_the_traceback_of_a_fault_is_kept(monkeypatch, capsys):
    monkeypatch.setattr(commands, "evaluate", lambda words: {}["the missing key"])
    cli.main(["evaluate"])
    file = Path(re.search(r"traceback is in (\S+):", capsys.readouterr().err)[1])
    assert "the missing key" in file.read_text() and "Traceback" in file.read_text()
    file.unlink()


@pytest.mark.parametrize("number", signals.STOPPING)
def test_a_signal_anywhere_is_one_line_with_the_command_that_goes_on(number, monkeypatch, capsys):
    def struck(words):
        signal.raise_signal(number)
        time.sleep(5)

    handlers = [signal.getsignal(each) for each in signals.STOPPING]
    monkeypatch.setattr(commands, "train", struck)
    assert cli.main(["train", "gan"]) == (130 if number == signal.SIGINT else 143)
    said = capsys.readouterr().err
    assert said == "ssl-gen: stopped; the same command goes on: ssl-gen train gan\n"
    assert [signal.getsignal(each) for each in signals.STOPPING] == handlers


def test_an_error_that_a_signal_made_is_its_end(monkeypatch, capsys):
    """As where native code turns it into an error of its own."""

    def struck(words):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise RuntimeError("INTERNAL: CpuCallback error") from error

    monkeypatch.setattr(commands, "evaluate", struck)
    assert cli.main(["evaluate"]) == 143 and capsys.readouterr().err.count("\n") == 1


def test_a_signal_that_a_process_is_to_ignore_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.stoppable():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_error_of_no_machine_has_no_words():
    assert failures.in_words(ValueError("x")) is None and failures.in_words(OSError("no number")) is None


def test_errors_that_name_each_other_in_a_circle_end():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__context__ = second, first
    assert failures.in_words(first) is None


def test_a_folder_without_locks_is_named(monkeypatch, tmp_path):
    def refusing(handle, what):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", refusing)
    with pytest.raises(UserError, match=r"cannot lock .*No locks available"), files.claimed(tmp_path / "run"):
        pass


def test_names_that_are_no_text_are_printed_all_the_same():
    program = "import sys; from ssl_gen import cli; cli.main(['x\\udcff']); print('\\udcff'); sys.exit(0)"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "\\udcff" in done.stdout and done.stderr.count("\n") == 1


# What cannot be measured


def of(values):
    """A metric that gives these, or raises them."""

    def measure(replica):
        if isinstance(values, BaseException):
            raise values
        return values

    return Metric("of the test", (), measure, {})


@dataclasses.dataclass
class Replica:
    sampler: None = None


UNMEASURED = {
    "a wrong input": (UserError("two are needed"), {"odd": "seed 0: two are needed"}),
    "an error of a library": (ValueError("class\n missing"), {"odd": "seed 0: ValueError: class missing"}),
    "a division by zero": (ZeroDivisionError("by zero"), {"odd": "seed 0: ZeroDivisionError: by zero"}),
    "no memory": (MemoryError(), {"odd": f"seed 0: {failures.MEMORY}"}),
    "NaN": ({"odd_a": 1.0, "odd_b": float("nan")}, {"odd": "seed 0: odd_b came out as nan"}),
    "infinity": ({"odd_a": 1.0, "odd_b": np.float32("inf")}, {"odd": "seed 0: odd_b came out as inf"}),
}  # fmt: skip


@pytest.mark.parametrize("case", UNMEASURED)
def test_what_goes_wrong_in_a_metric_costs_that_metric_alone(case):
    values, reasons = UNMEASURED[case]
    metrics, unmeasured = {"odd": of(values), "good": of({"good": 2.0})}, {}
    found = evaluated.measure(["odd", "good"], {0: Replica()}, [0], unmeasured, metrics)
    assert unmeasured == reasons and found["good"] == [2.0] and "odd_b" not in found
    with pytest.raises(UserError, match="could not be measured"):
        evaluated.measure(["odd"], {0: Replica()}, [0], None, metrics)


# What is not trained


@pytest.fixture
def pair(finished):
    return load.load(finished("m2"))


def stopped(run, *seeds):
    """The run, had these seeds stopped."""
    stops = [Stop(seed, 3, "loss", "nan") for seed in seeds]
    return run._replace(final=dataclasses.replace(run.final, stopped=stops))


def test_the_first_seed_that_did_not_stop_is_shown_unasked(pair):
    half = stopped(pair, 0)
    assert half.trained_replica() == 1
    np.testing.assert_array_equal(half.sample(label=3, count=2), pair.sample(label=3, count=2, replica=1))
    with pytest.raises(UserError, match=r"replica 0 .* stopped while it trained: choose one of 1"):
        half.sample(label=3, count=2, replica=0)


@pytest.mark.parametrize("broken", ["every seed stopped", "no step was trained"])
def test_what_is_not_trained_is_not_shown(pair, broken):
    run = stopped(pair, 0, 1) if broken == "every seed stopped" else pair._replace(final=None, step=0)
    said = "every seed of" if broken == "every seed stopped" else "not trained yet; this goes on with it: ssl-gen train"
    with pytest.raises(UserError, match=said):
        run.sample(count=1)
    with pytest.raises(UserError, match=said):
        run.classify(np.zeros((1, 8, 8, 1), np.uint8))


def test_a_seed_that_stopped_in_a_run_that_goes_on_has_no_say(pair):
    half = pair._replace(final=None, step=4, broken=(1,))
    assert half.trained_replica() == 0 and list(half.temperatures) == [0]


@pytest.mark.parametrize(("stops", "status"), [([], 0), ([0], 0), ([0, 1], 1)])
def test_a_run_whose_every_seed_stopped_failed(pair, stops, status, monkeypatch, capsys):
    result = train.Result(pair.folder, stopped(pair, *stops).final, "")
    monkeypatch.setattr(train, "train", lambda *arguments: result)
    assert cli.main(["train", "m2"]) == status
    assert capsys.readouterr().out.count("stopped at step") == len(stops)


def test_weights_that_are_not_finite_are_seen(pair):
    state = pair.states[0]
    assert train.finite(state)
    name = next(name for name in state._fields if hasattr(getattr(state, name), "params"))
    player = getattr(state, name)
    broken = player._replace(params={**player.params, "x": np.array([np.nan])})
    assert not train.finite(state._replace(**{name: broken}))


def test_a_disk_without_room_for_checkpoints_is_refused_before_training(monkeypatch, tmp_path):
    usage = type("Usage", (), {"free": 999})
    monkeypatch.setattr(train.shutil, "disk_usage", lambda folder: usage)
    train.check_room(tmp_path, {"a": np.zeros(124, np.float32)})
    with pytest.raises(UserError, match="checkpoints need"):
        train.check_room(tmp_path, {"a": np.zeros(125, np.float32)})


# What the machine refuses while a run trains


def test_a_full_disk_says_from_which_step_the_command_goes_on(tmp_path):
    record = type("Record", (), {"command": "ssl-gen train gan"})
    job = type("Job", (), {"target": tmp_path, "record": record})
    for step in ("0", "20", "100", "120.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
    with pytest.raises(UserError, match=r"No space left .* from step 100: ssl-gen train gan$"), train.resumable(job):
        raise ValueError(TENSORSTORE)
    with pytest.raises(KeyError), train.resumable(job):
        raise KeyError("a fault stays one")


# Processes of a run


NATIVE = (
    "E1127 1 coordination_service.cc:1549] The following tasks are unhealthy\n1\n"
    "F1127 1 client.h:80] Terminating process because the JAX distributed service detected fatal errors.\n    @ 0x7f\n"
)


def test_a_lost_process_is_one_line_without_a_native_stack(tmp_path):
    """A child that ends as jax's service ends it, under the eyes of its parent."""
    child = "import os, sys; from ssl_gen.cli import guard; guard.enter(); print('a bar', file=sys.stderr); "
    child += f"os.write(2, {NATIVE!r}.encode()); os.abort()"
    parent = "import subprocess, sys; from ssl_gen.cli import guard; start = subprocess.Popen; "
    parent += f"guard.subprocess.Popen = lambda words, **rest: start([sys.executable, '-c', {child!r}], **rest); "
    parent += "sys.exit(guard.watch(['train', 'gan', '--distributed']))"
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr == f"a bar\nssl-gen: {failures.LOST}\n"


def test_a_run_whose_file_says_that_it_is_of_several_processes_is_guarded(tmp_path):
    files = {"one": "distributed = false\n", "several": "distributed = true\nseeds = 2\n", "broken": "distributed =\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = {name: guard.is_guarded(["train", "gan", "--config", str(tmp_path / name)]) for name in (*files, "absent")}
    assert found == {"one": False, "several": True, "broken": False, "absent": False}
    several = f"--config={tmp_path / 'several'}"
    assert guard.is_guarded(["train", "gan", several]) and not guard.is_guarded(["sample", "run", several])
    assert not guard.is_guarded(["train", "gan", several, "--no-distributed"])
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for ever
    assert not guard.is_guarded(["train", "gan", "--config", str(tmp_path / "pipe")])


def test_only_a_run_of_several_processes_is_guarded(monkeypatch):
    assert guard.is_guarded(["train", "gan", "--distributed"]) and not guard.is_guarded(["train", "gan"])
    monkeypatch.setenv(guard.STREAM, "5")
    assert not guard.is_guarded(["train", "gan", "--distributed"])
