"""Two processes train one run together and leave the folder of one; run as a program, this file is one of them.

What they agree on in Python is tested with threads in the place of processes.
"""

import contextlib
import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from finished import RECIPES
from tiny import flags_of_one_device, same

from experiments import table
from ssl_gen import cli
from ssl_gen.datasets import store as stores
from ssl_gen.methods.classical import linear, supervised
from ssl_gen.reports.records import check_alike, common
from ssl_gen.runs import load, train
from ssl_gen.runs.options import Options
from ssl_gen.training import processes
from ssl_gen.training.mesh import make_mesh
from ssl_gen.training.processes import SINGLE_PROCESS, FailedElsewhere, ProcessGroup
from ssl_gen.types import UserError

CONFIG = supervised.Config(steps=12, labelled_batch=4, hidden=(4,))
OPTIONS = Options(
    labels="30", seeds=2, samples=20, features="pixels", log_every=2, evaluate_every=4, checkpoint_every=4, quiet=True
)
WORDS = ["train", "supervised", "--labels=30", "--seeds=2", "--config.hidden=4", "--config.labelled-batch=4"]
WORDS += ["--steps=12", "--log-every=2", "--evaluate-every=4", "--checkpoint-every=4", "--samples=20"]
WORDS += ["--features=pixels", "--quiet", "--replicas=vmap"]  # the seeds are spread over the processes
MOVED = "train supervised --labels=30 --seeds=1 --replicas=loop --steps=50 --config.labelled-batch=4 --log-every=1"
MOVED += " --config.hidden=64 --evaluate-every=25 --checkpoint-every=10 --samples=20 --features=pixels --quiet"
PATIENCE = 600  # s until two processes are taken to hang; ours, for they need 30 s of a core, which may be shared


def options(folder, **changes):
    return dataclasses.replace(OPTIONS, out=folder, **changes)


# One process of two


def disturbed(change):
    """`make_replicas`, whose programs call change(step, sums of metrics) after every call."""
    make = train.make_replicas

    def disturbing(*arguments, **keywords):
        program = make(*arguments, **keywords)

        def advance(states, *given):
            states, sums = program.advance(states, *given)
            sums = {name: value.copy() for name, value in sums.items()}  # JAX's own cannot be changed
            change(int(program.stack(states).step[0]), sums)
            return states, sums

        return program._replace(advance=advance)

    return disturbing


def command(words, change):
    """Exit status and outputs of a command, whose training `change` disturbs."""
    undisturbed, out, err = train.make_replicas, io.StringIO(), io.StringIO()
    train.make_replicas = disturbed(change)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main(words)
    finally:
        train.make_replicas = undisturbed
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


def nothing(step, metrics):
    """All goes well."""


def at(stop):
    """A signal comes at a step."""

    def signalled(step, metrics):
        if step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    return signalled


def poisoned(step, metrics):
    """The second seed breaks at step 10."""
    if step >= 10:
        metrics["classifier/supervised"][1] = np.nan


def process(folder, index):
    """What each of the two processes does: a table, then a run that is cut off and goes on; and keeps what came out."""
    rows = {
        "whole": table.Row("supervised", CONFIG, OPTIONS),
        "fitted": table.Row("linear", linear.Config(), Options(labels="30", features="pixels")),
    }
    asked, out = ["--distributed", "--data-parallel=2", f"--out={folder / 'table'}"], io.StringIO()
    with contextlib.redirect_stdout(out):
        table.main("experiment", rows, None, (), "A title", arguments=asked)

    def poisoned_here(step, metrics):
        if index == 0:  # the other one does not see it
            poisoned(step, metrics)

    def moved(stop, by, *more):
        words = [*MOVED.split(), "--distributed", "--data-parallel=2", f"--out={folder / 'moved'}", *more]
        return command(words, at(stop) if index == by else nothing)["status"]

    words = [*WORDS, "--distributed", f"--out={folder / 'cut'}"]
    found = {"table": out.getvalue(), "cut": command(words, at(6) if index == 1 else nothing)}
    found["resumed"] = command([*words, "--store=stream"], poisoned_here)
    found["moved"] = [moved(24, 0), moved(37, 1, "--shard-params")]
    (folder / f"{index}.json").write_text(json.dumps(found))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(index, port):
    """One device for each process, and the way to the other one."""
    meeting = {processes.COORDINATOR: f"127.0.0.1:{port}", processes.COUNT: "2", processes.INDEX: str(index)}
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return os.environ | meeting | {"XLA_FLAGS": flags_of_one_device(), "PYTHONPATH": path}


def moved(folder, stop, *more):
    """The exit status of the run of 50 steps, here, from where it is until a signal comes at step `stop`."""
    return command([*MOVED.split(), f"--out={folder}", *more], at(stop) if stop else nothing)["status"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder in which two processes worked, and what each of them found."""
    folder, port = tmp_path_factory.mktemp("pair"), free_port()
    assert moved(folder / "moved", 11) == 143
    started = [
        subprocess.Popen([sys.executable, __file__, str(folder), str(index)], env=environment(index, port))
        for index in (0, 1)
    ]
    deadline = time.monotonic() + PATIENCE
    try:
        while None in (ended := [each.poll() for each in started]) and not any(ended):
            assert time.monotonic() < deadline, "two processes hang"
            time.sleep(0.1)
        assert ended == [0, 0]
    finally:
        for each in started:
            each.kill()
            each.wait()
    return folder, [json.loads((folder / f"{index}.json").read_text()) for index in (0, 1)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The folder of the row in this process, on one device."""
    folder = tmp_path_factory.mktemp("one") / "run"
    train.train("supervised", CONFIG, options(folder, replicas="loop"))
    return folder


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    """The folder of the run that is cut off, in this process, which nothing cuts off."""
    folder = tmp_path_factory.mktemp("stacked") / "run"
    assert command([*WORDS, f"--out={folder}"], poisoned)["status"] == 0
    return folder


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def final(folder):
    return json.loads((folder / "final.json").read_text())


def device(folder):
    return json.loads((folder / "run.json").read_text())["device"]


def test_two_processes_leave_the_folder_of_one(pair, one):
    """They differ by no more than 12 steps make of rounding (1e-7 a sum), or by one of 500 test images."""
    folder = pair[0] / "table" / "whole"
    for line, expected in zip(lines(folder), lines(one), strict=True):
        assert line.keys() == expected.keys() and (line["step"], line["seed"]) == (expected["step"], expected["seed"])
        for name in line.keys() - {"step", "seed", "phase", "test/error"}:
            np.testing.assert_allclose(line[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
        assert line.get("test/error", 0) == pytest.approx(expected.get("test/error", 0), abs=0.2001)
    nll, expected = (final(each)["metrics"]["nll"]["per_seed"] for each in (folder, one))
    np.testing.assert_allclose(nll, expected, rtol=1e-4)
    assert {path.name for path in folder.iterdir()} == {path.name for path in one.iterdir()}
    assert device(folder).startswith("2 processes on 1 host, 2 devices, each ")
    assert "--distributed" in json.loads((folder / "run.json").read_text())["command"]


def test_the_states_of_both_are_read_by_one(pair, one):
    together, alone = load.load(pair[0] / "table" / "whole"), load.load(one)
    for state, expected in zip(together.states, alone.states, strict=True):
        assert jax.tree.structure(state) == jax.tree.structure(expected)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), state, expected)


def test_an_experiment_trains_a_row_in_both_and_prints_once(pair):
    folder, found = pair
    assert "A title" in found[0]["table"] and not found[1]["table"]
    assert not device(folder / "table" / "fitted").startswith("2 processes")


def test_a_signal_to_one_stops_both_and_both_go_on_to_the_end_of_a_run_that_was_not_cut(pair, stacked):
    """Bit for bit: seeds that are spread over processes tell each other nothing while they train.

    They go on with images that are streamed, where they lay on the devices before.
    """
    folder, found = pair[0] / "cut", pair[1]
    for each in found:
        assert each["cut"]["status"] == 143 and each["resumed"]["status"] == 0
    assert "the same command goes on" in found[0]["cut"]["out"] and "report:" in found[0]["resumed"]["out"]
    assert not found[1]["cut"]["out"] and not found[1]["resumed"]["out"]
    assert [line for line in lines(folder) if "phase" in line] == [line for line in lines(stacked) if "phase" in line]
    assert same(load.load(folder).states, load.load(stacked).states)
    np.testing.assert_allclose(
        final(folder)["metrics"]["nll"]["per_seed"][0], final(stacked)["metrics"]["nll"]["per_seed"][0], rtol=1e-5
    )


def test_the_states_are_kept_at_the_step_at_which_a_signal_stopped_both(pair):
    assert (pair[0] / "cut" / "checkpoints" / "6").is_dir()


def test_a_seed_that_is_nan_on_the_first_process_stops_on_both(pair):
    folder, found = pair[0] / "cut", pair[1]
    stopped = [{"seed": 1, "step": 10, "metric": "classifier/supervised", "value": "nan"}]
    assert final(folder)["stopped"] == stopped and final(folder)["metrics"]["nll"]["per_seed"][1] is None
    assert "seed 1 stopped at step 10" in found[0]["resumed"]["out"]


@pytest.fixture(scope="module")
def unmoved(tmp_path_factory):
    """The losses of the run of 50 steps on one device, which nothing stops."""
    folder = tmp_path_factory.mktemp("unmoved") / "run"
    assert moved(folder, None) == 0
    return losses(folder)


def losses(folder):
    """The training losses of a log, (steps,)."""
    return np.array([line["classifier/supervised"] for line in lines(folder) if "phase" in line])


def test_a_run_moves_from_one_device_to_four_and_to_two_in_parts_and_whole(unmoved, tmp_path):
    folder = tmp_path / "run"
    moves = [(17,), (28, "--data-parallel=4", "--shard-params"), (39, "--data-parallel=2"), (45,)]
    assert [moved(folder, *move) for move in moves] == [143] * 4
    assert moved(folder, None, "--data-parallel=2", "--shard-params") == 0
    np.testing.assert_allclose(losses(folder), unmoved, rtol=1e-4)


def test_a_run_moves_from_one_process_to_two_and_back(pair, unmoved):
    """A signal to one of the two stops both, where each holds all that is learnt and where each holds a part."""
    folder, found = pair
    assert [each["moved"] for each in found] == [[143, 143]] * 2
    assert moved(folder / "moved", None) == 0
    np.testing.assert_allclose(losses(folder / "moved"), unmoved, rtol=1e-4)


# What processes agree on, in threads


class Store:
    """The key-value store of jax's coordination service."""

    def __init__(self):
        self.values, self.changed = {}, threading.Condition()
        self.end = time.monotonic() + 60

    def key_value_set(self, name, value):
        with self.changed:
            self.values[name] = value
            self.changed.notify_all()

    def key_value_delete(self, name):
        with self.changed:
            del self.values[name]

    def blocking_key_value_get(self, name, timeout_ms):
        assert time.monotonic() < self.end, "two threads hang"
        with self.changed:
            if not self.changed.wait_for(lambda: name in self.values, timeout_ms / 1000):
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: GetKeyValue() timed out")
            return self.values[name]


@pytest.fixture
def store(monkeypatch):
    made = Store()
    monkeypatch.setattr(processes, "client", lambda: made)
    return made


@pytest.fixture
def together(store, monkeypatch):
    """together(act) -> what act(group), or its error, comes to in each of two processes that meet at once."""
    here = threading.local()
    monkeypatch.setattr(train, "join", lambda: here.group)

    def run(act):
        def of(group):
            here.group = group
            return act(group)

        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(of, ProcessGroup(index, 2)) for index in (0, 1)]
        return [future.exception() or future.result() for future in futures]

    return run


def test_every_process_gathers_the_values_of_all_in_order(together):
    found = together(lambda group: [group.all_gather([group.index, number]) for number in range(3)])
    assert found[0] == found[1] == [[[0, number], [1, number]] for number in range(3)]


def test_what_all_have_read_leaves_the_store(together, store):
    together(lambda group: [group.all_gather("x" * 1000) for _ in range(10)])
    assert sorted(store.values) == [processes.key(9, 0), processes.key(9, 1)]


def test_what_the_first_makes_is_made_once_and_told_to_all(together):
    made = []

    def make(index):
        made.append(index)
        return {"from": index}

    assert together(lambda group: group.broadcast(lambda: make(group.index))) == [{"from": 0}] * 2
    assert made == [0]


def test_a_process_waits_as_long_as_another_works(together, monkeypatch):
    monkeypatch.setattr(processes, "POLL_MS", 10)

    def act(group):
        time.sleep(0.2 * group.index)
        return group.all_gather(group.index)

    assert together(act) == [[0, 1]] * 2


@pytest.mark.parametrize(
    ("error", "said"),
    [(UserError("no such data"), "no such data"), (ValueError("broken\nin two"), "ValueError: broken in two")],
)
def test_an_error_of_one_is_one_line_of_the_other(together, error, said):
    def act(group):
        with group.failing_together():
            if group.index == 1:
                raise error
            group.all_gather(None)

    first, second = together(act)
    assert isinstance(first, FailedElsewhere) and str(first) == f"process 1 failed: {said}" and second is error


def test_processes_that_are_asked_for_different_runs_are_both_told_so(together, tmp_path):
    def act(group):
        train.train("supervised", CONFIG, options(tmp_path / "run", distributed=True, seeds=group.index + 1))

    found = together(act)
    assert all(isinstance(each, UserError) and "\n" not in str(each) for each in found)
    assert all("process 0 has masks" in str(each) for each in found) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["store", "accumulate", "remat"])
def test_what_decides_the_compiled_step_is_the_same_in_all(name):
    """Else each process compiles another program, and they wait for each other."""
    values = {"store": ("auto", "stream"), "accumulate": (1, 2), "remat": (False, True)}[name]
    record = train.prepare("supervised", CONFIG, options(None)).record
    records = [common(dataclasses.replace(record, options=record.options | {name: value})) for value in values]
    with pytest.raises(UserError, match=f"process 0 has {name} {values[0]}, process 1 has {values[1]}: start all"):
        check_alike(records)


@pytest.mark.parametrize(("free", "kind"), [((None, 1), "StreamedStore"), ((None, None), "Store")])
def test_all_stream_their_images_where_one_has_too_little_memory_for_them(free, kind, together, monkeypatch):
    """Here a process is a thread, with devices of its own memory."""
    mine = threading.local()
    monkeypatch.setattr(stores, "free_memory", lambda device: mine.free)
    monkeypatch.setattr(train, "make_replicas", lambda *_, **__: SimpleNamespace(init=lambda *_: None))
    job = train.prepare("supervised", CONFIG, options(None))

    def act(group):
        mine.free = free[group.index]
        return train.begin(job._replace(group=group), 1).store

    assert [type(found).__name__ for found in together(act)] == [kind] * 2


def test_a_folder_with_another_run_is_refused_by_both(together, finished, tmp_path):
    folder = finished.copy("supervised", tmp_path / "run")
    changed = finished.options("supervised", folder, distributed=True, labels="40")
    first, second = together(lambda group: train.train("supervised", RECIPES["supervised"].config, changed))
    assert isinstance(first, UserError) and "holds a run with labels 30" in str(first)
    assert isinstance(second, FailedElsewhere) and str(second) == f"process 0 failed: {first}"


def test_a_finished_run_is_read_by_both_and_told_by_the_first(together, finished, tmp_path):
    folder = finished.copy("supervised", tmp_path / "run")
    asked = finished.options("supervised", folder, distributed=True)
    found = together(lambda group: train.train("supervised", RECIPES["supervised"].config, asked))
    assert found[0].final == found[1].final == load.load(folder).final
    assert [each.is_main for each in found] == [True, False]


def test_a_group_of_one_talks_to_nobody():
    assert SINGLE_PROCESS.all_gather({"a": (1,)}) == [{"a": (1,)}] and SINGLE_PROCESS.broadcast(lambda: 3) == 3


def test_what_is_shared_keeps_every_bit():
    tree = {"key": jax.random.key(3), "zero": jax.numpy.array([-0.0, np.nan]), "step": jax.numpy.array(7)}
    found = processes.broadcast_tree(tree, tree)
    assert (jax.random.key_data(found["key"]) == jax.random.key_data(tree["key"])).all() and found["step"] == 7
    assert np.signbit(found["zero"][0]) and np.isnan(found["zero"][1]) and found["step"].dtype == np.int32


# Wrong settings


def devices(*counts):
    """As many devices as these of processes 0, 1, ..."""
    return [SimpleNamespace(process_index=index, id=i) for index, count in enumerate(counts) for i in range(count)]


@pytest.mark.parametrize("counts", [(1, 1), (2, 2)])
def test_a_process_that_would_have_nothing_to_do_is_refused(counts):
    with pytest.raises(UserError, match=r"2 processes cannot share --seeds 2 .*make --data-parallel a multiple of 2"):
        make_mesh(2, 1, devices(*counts), "loop")
    with pytest.raises(UserError, match="2 processes cannot share --seeds 3 "):
        make_mesh(3, 1, devices(*counts), "vmap")


def test_more_devices_than_all_processes_have_are_refused():
    with pytest.raises(UserError, match="needs as many devices; the 2 processes have 4"):
        make_mesh(1, 8, devices(2, 2), "loop")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({processes.INDEX: "0"}, f"{processes.COORDINATOR} is not set"),
        ({processes.COORDINATOR: "host:1", processes.INDEX: "0"}, f"{processes.COUNT} is not set"),
        (
            {processes.COORDINATOR: "host", processes.COUNT: "2", processes.INDEX: "0"},
            "is HOST:PORT of process 0, not host",
        ),
        ({processes.COORDINATOR: "host:1", processes.COUNT: "2", processes.INDEX: "2"}, "0 to N - 1, not 2 and 2"),
        ({processes.COORDINATOR: "host:1", processes.COUNT: "two", processes.INDEX: "0"}, "not two and 0"),
    ],
)
def test_what_the_environment_says_is_complete_or_refused(monkeypatch, given, said):
    for name in (processes.COORDINATOR, processes.COUNT, processes.INDEX):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as refused:
        processes.by_hand()
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_an_address_alone_is_left_to_jax(monkeypatch):
    for name in (processes.COUNT, processes.INDEX):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(processes.COORDINATOR, "host:1")
    assert processes.by_hand() == {}


def test_jax_that_is_in_use_already_is_one_line(tmp_path):
    jax.devices()
    with pytest.raises(UserError, match=r"does not find the other processes \(.*before any JAX calls") as refused:
        train.train("supervised", None, Options(distributed=True, out=tmp_path / "run"))
    assert "\n" not in str(refused.value)


def test_a_method_fitted_in_one_go_is_not_distributed(together, tmp_path):
    found = together(lambda group: train.train("linear", None, Options(distributed=True, out=tmp_path / "run")))
    assert all(isinstance(each, UserError) and "leave out --distributed" in str(each) for each in found)


def test_what_the_processes_are_asked_for_together_is_refused_by_both_before_they_train(together, tmp_path):
    found = together(
        lambda group: train.train("supervised", CONFIG, options(tmp_path / "run", distributed=True, replicas="pmap"))
    )
    assert "use vmap or loop" in str(found[0]) and "use vmap or loop" in str(found[1])


if __name__ == "__main__":
    process(Path(sys.argv[1]), int(sys.argv[2]))
