"""Two processes train one run together and leave the folder of one; run as a program, this file is one of them."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import table
from ssl_gen import cli, run
from ssl_gen.methods.classical import supervised
from ssl_gen.setting import Options
from ssl_gen.training import devices, hosts
from ssl_gen.types import UserError

TOGETHER = ["--distributed", "--data-parallel", "2"]
WORDS = ["train", "supervised", "--labels=30", "--seeds=2", "--config.hidden=4", "--config.labelled-batch=4"]
WORDS += ["--steps=12", "--log-every=2", "--evaluate-every=4", "--checkpoint-every=4", "--samples=20", "--quiet"]
PATIENCE = 600  # s until two processes are taken to hang; ours, for they need 40 s of a core, which may be shared


# One process


def disturbed(change):
    """`devices.make_program`, whose programs call change(step, metrics) after every stretch."""
    make = devices.make_program

    def disturbing(*arguments, **keywords):
        program = make(*arguments, **keywords)

        def advance(states, phase, rows, steps, active):
            states, metrics = program.advance(states, phase, rows, steps, active)
            change(int(program.replica(states, 0).step), metrics)
            return states, metrics

        return program._replace(advance=advance)

    return disturbing


def command(words, change=None):
    """Exit status and outputs of a command, whose training `change` disturbs."""
    undisturbed, out, err = devices.make_program, io.StringIO(), io.StringIO()
    if change:
        devices.make_program = disturbed(change)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main(words)
    finally:
        devices.make_program = undisturbed
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


def process(folder, index):
    """What each of the two processes does; the outcomes, for the test to look at."""

    def terminated(step, metrics):
        if step == 6 and index == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def poisoned(step, metrics):  # the first alone sees it
        if step >= 6 and index == 0:
            metrics["classifier/supervised"][1] = np.nan

    def words(name, *more):
        return [*WORDS, *TOGETHER, f"--out={folder / name}", *more]

    found = {"whole": command(words("whole")), "again": command(words("whole"))}
    found["cut"] = command(words("cut"), terminated)
    found["resumed"] = command(words("cut"))
    found["nan"] = command(words("nan"), poisoned)
    found["spread"] = command([*WORDS, "--distributed", "--replicas=vmap", f"--out={folder / 'spread'}"])
    found["pmap"] = command([*WORDS, "--distributed", "--replicas=pmap", f"--out={folder / 'pmap'}"])
    found["idle"] = command([*WORDS, "--distributed", "--replicas=loop", f"--out={folder / 'idle'}"])
    found["differ"] = command(words("differ", f"--seeds={index + 1}"))
    found["other run"] = command(words("whole", "--labels=40"))
    row = table.Row("supervised", supervised.Config(steps=4, labelled_batch=4, hidden=(4,)), Options(labels="30"))
    linear = table.Row("linear", run.find_method("linear").Config(), Options(labels="30"))
    asked = ["--distributed", "--data-parallel=2", f"--out={folder / 'table'}"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        table.main("experiment", {"row": row, "linear": linear}, None, (), "A title", arguments=asked)
    found["table"] = {"out": out.getvalue()}
    (folder / f"{index}.json").write_text(json.dumps(found))


# The tests


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(index, port):
    """One device for each process, and the way to the other one."""
    flags = "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=1"
    meeting = {hosts.COORDINATOR: f"127.0.0.1:{port}", hosts.COUNT: "2", hosts.INDEX: str(index)}
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return os.environ | meeting | {"XLA_FLAGS": flags, "PYTHONPATH": path}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder in which two processes worked, and what each of them found."""
    folder, port = tmp_path_factory.mktemp("pair"), free_port()
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
    """The folder of the same run in this process, on one device."""
    folder = tmp_path_factory.mktemp("one") / "run"
    assert cli.main([*WORDS, "--replicas=loop", f"--out={folder}"]) == 0
    return folder


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def final(folder):
    return json.loads((folder / "final.json").read_text())


def alike(folder, other):
    """Do two runs differ by no more than 12 steps make of rounding (1e-7 a sum), or one of 500 test images?"""
    for line, same in zip(lines(folder), lines(other), strict=True):
        assert line.keys() == same.keys() and (line["step"], line["seed"]) == (same["step"], same["seed"])
        for name in line.keys() - {"step", "seed", "phase", "test/error"}:
            np.testing.assert_allclose(line[name], same[name], rtol=1e-4, atol=1e-5, err_msg=name)
        assert line.get("test/error", 0) == pytest.approx(same.get("test/error", 0), abs=0.2001)
    nll, same = (final(each)["metrics"]["nll"]["per_seed"] for each in (folder, other))
    np.testing.assert_allclose(nll, same, rtol=1e-4)


def test_two_processes_leave_the_folder_of_one(pair, one):
    folder, found = pair
    alike(folder / "whole", one)
    assert {path.name for path in (folder / "whole").iterdir()} == {path.name for path in one.iterdir()}
    assert found[0]["whole"]["status"] == found[1]["whole"]["status"] == 0
    assert "report:" in found[0]["whole"]["out"] and not found[1]["whole"]["out"]
    about = json.loads((folder / "whole" / "run.json").read_text())
    assert about["device"].startswith("2 processes on 1 host, 2 devices, each ")
    assert "--distributed" in about["command"]


def test_the_states_of_both_are_read_by_one(pair, one):
    loaded, alone = run.load(pair[0] / "whole"), run.load(one)
    for state, same in zip(loaded.states, alone.states, strict=True):
        assert jax.tree.structure(state) == jax.tree.structure(same)
        assert (jax.random.key_data(state.key) == jax.random.key_data(same.key)).all() and int(state.step) == 12


def test_a_signal_to_one_stops_both_at_the_same_step_and_both_go_on_to_the_same_end(pair):
    folder, found = pair
    for each in found:
        assert each["cut"]["status"] == each["resumed"]["status"] == 0
    assert "the same command goes on" in found[0]["cut"]["out"]
    assert lines(folder / "cut") == lines(folder / "whole")
    assert final(folder / "cut")["metrics"] == final(folder / "whole")["metrics"]
    assert found[0]["again"]["out"] == found[0]["whole"]["out"]  # a finished run is read


def test_a_seed_that_is_nan_on_the_first_process_stops_on_both(pair):
    folder, found = pair
    stopped = [{"seed": 1, "step": 6, "metric": "classifier/supervised", "value": "nan"}]
    assert final(folder / "nan")["stopped"] == stopped
    assert [each["nan"]["status"] for each in found] == [0, 0]
    assert [int(state.step) for state in run.load(folder / "nan").states] == [12, 4]


def test_seeds_are_spread_over_processes(pair, one):
    alike(pair[0] / "spread", one)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pmap", ["use vmap or loop", "use vmap or loop"]),
        ("idle", ["make --data-parallel a multiple of 2", "make --data-parallel a multiple of 2"]),
        ("differ", ["process 0 has masks", "process 0 has masks"]),
        ("other run", ["holds a run with labels 30", "process 0 failed: "]),
    ],
)
def test_what_is_wrong_is_one_line_on_both(pair, name, said):
    for found, words in zip(pair[1], said, strict=True):
        assert found[name]["status"] == 2 and words in found[name]["err"] and found[name]["err"].count("\n") == 1


def test_an_experiment_trains_a_row_in_both_and_prints_once(pair):
    folder, found = pair
    assert "A title" in found[0]["table"]["out"] and not found[1]["table"]["out"]
    assert json.loads((folder / "table" / "row" / "run.json").read_text())["device"].startswith("2 processes")
    assert not json.loads((folder / "table" / "linear" / "run.json").read_text())["device"].startswith("2 processes")


# Wrong settings


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({hosts.INDEX: "0"}, f"{hosts.COORDINATOR} is not set"),
        ({hosts.COORDINATOR: "host:1", hosts.INDEX: "0"}, f"{hosts.COUNT} is not set"),
        ({hosts.COORDINATOR: "host", hosts.COUNT: "2", hosts.INDEX: "0"}, "is HOST:PORT of process 0, not host"),
        ({hosts.COORDINATOR: "host:1", hosts.COUNT: "2", hosts.INDEX: "2"}, "0 to N - 1, not 2 and 2"),
        ({hosts.COORDINATOR: "host:1", hosts.COUNT: "two", hosts.INDEX: "0"}, "not two and 0"),
    ],
)
def test_what_the_environment_says_is_complete_or_refused(monkeypatch, given, said):
    for name in (hosts.COORDINATOR, hosts.COUNT, hosts.INDEX):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as refused:
        hosts.by_hand()
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_an_address_alone_is_left_to_jax(monkeypatch):
    for name in (hosts.COUNT, hosts.INDEX):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(hosts.COORDINATOR, "host:1")
    assert hosts.by_hand() == {}


def test_jax_that_is_in_use_already_is_one_line(tmp_path):
    jax.devices()
    with pytest.raises(UserError, match=r"does not find the other processes \(.*before any JAX calls") as refused:
        run.train("supervised", None, Options(distributed=True, out=tmp_path / "run"))
    assert "\n" not in str(refused.value)


def test_a_method_fitted_in_one_go_is_not_distributed(tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, "join", lambda: hosts.ALONE)
    with pytest.raises(UserError, match="leave out --distributed"):
        run.train("linear", None, Options(distributed=True, out=tmp_path / "run"))


def test_a_team_of_one_talks_to_nobody():
    assert hosts.ALONE.gather({"a": (1,)}) == [{"a": (1,)}] and hosts.ALONE.told(lambda: 3) == 3


def test_what_is_shared_keeps_every_bit():
    tree = {"key": jax.random.key(3), "zero": jax.numpy.array([-0.0, np.nan]), "step": jax.numpy.array(7)}
    found = hosts.share(tree, tree)
    assert (jax.random.key_data(found["key"]) == jax.random.key_data(tree["key"])).all() and found["step"] == 7
    assert np.signbit(found["zero"][0]) and np.isnan(found["zero"][1]) and found["step"].dtype == np.int32


if __name__ == "__main__":
    process(Path(sys.argv[1]), int(sys.argv[2]))
