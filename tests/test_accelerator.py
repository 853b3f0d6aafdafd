"""The benchmark of accelerators: its tiny form, as a user starts it, and what it does with a block that goes wrong."""

import contextlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from tiny import flags_of_one_device

import benchmarks
from benchmarks import accelerator, step
from ssl_gen.core import chips
from ssl_gen.graphs import build
from ssl_gen.metrics import frechet, manifold

ROOT = Path(__file__).parents[1]

# After the benchmark itself, blocks of which one is slow, one fails and one takes its process down.
PROGRAM = """
import json, os, sys, time
import benchmarks
from benchmarks import accelerator, step

accelerator.main()

def slow(scale):
    yield {"name": "first", "seconds": 1 / 3}
    time.sleep(600)

def wrong(scale):
    raise ValueError("no such chip")
    yield

def lost(scale):
    os._exit(7)
    yield

def block(name, rows, limit):
    came = []
    accelerator.BLOCKS[name] = accelerator.Block(60, rows)
    line = accelerator.block_line(name, accelerator.TINY, limit, lambda line: came.append(len(line["rows"])))
    return {"ended": line["ended"], "rows": line["rows"], "came": came[-1:]}

found = {"slow": block("slow", slow, 15), "wrong": block("wrong", wrong, 300), "lost": block("lost", lost, 300)}
open(sys.argv[-1] + ".fragile", "w").write(json.dumps(found))
"""


class Found(NamedTuple):
    lines: dict  # of the blocks, as printed
    written: dict  # the file
    fragile: dict
    done: subprocess.CompletedProcess


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a Python of its own prints and writes: the benchmark forks, which it must not where JAX runs already."""
    out = tmp_path_factory.mktemp("accelerator") / "rows.json"
    command = [sys.executable, "-c", PROGRAM, "--tiny", "--out", str(out)]
    alone = os.environ | {"XLA_FLAGS": flags_of_one_device()}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=alone)
    lines = {line["block"]: line for line in map(json.loads, filter(lambda x: x[0:1] == "{", done.stdout.splitlines()))}
    return Found(lines, json.loads(out.read_text()), json.loads(Path(f"{out}.fragile").read_text()), done)


def test_every_block_is_measured_to_its_end_in_the_order_of_the_page(found):
    lines = found.lines
    assert list(lines) == list(accelerator.BLOCKS)
    assert {name: line["ended"] for name, line in lines.items()} == dict.fromkeys(accelerator.BLOCKS, "whole")
    for line in lines.values():
        assert {"device", "cpu", "cores", "load", "jax"} <= set(line)
        assert all(math.isfinite(row["seconds"]) and row["seconds"] > 0 for row in line["rows"] if "skipped" not in row)


def test_each_block_is_a_table_and_each_row_was_said_as_it_came(found):
    lines, done = found.lines, found.done
    for name, line in lines.items():
        assert f"{name}: whole" in done.stdout
        assert done.stderr.count(f"\n{name} ") + done.stderr.startswith(f"{name} ") == len(line["rows"])


def test_the_file_holds_what_was_printed(found):
    lines, written = found.lines, found.written
    assert written["lines"] == list(lines.values()) and "commit" in written


def test_rates_are_those_of_the_seconds(found):
    lines = found.lines
    product = lines["chip"]["rows"][0]
    assert product["tflops"] == pytest.approx(2 * accelerator.TINY.side**3 / product["seconds"] / 1e12, rel=1e-3)
    one, two = lines["seeds"]["rows"]
    assert (one["seeds"], two["seeds"], one["times"]) == (1, 2, 1)
    assert two["times"] == pytest.approx(two["seconds"] / one["seconds"], rel=1e-2)
    assert two["tflops"] * two["times"] == pytest.approx(2 * one["tflops"], rel=1e-2)  # twice the work in that time


def test_pytorch_stands_beside_or_it_is_said_why_not(found):
    lines = found.lines
    last = lines["gan"]["rows"][-1]
    assert "pip install" in last.get("skipped", "pip install") and ("skipped" in last or last["ratio"] > 0)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for what moves it."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(step.time, "perf_counter", lambda: now.seconds)
    return now


class Trainer:
    """Compiles for 9 s; then a call waits for a second and a step takes a hundredth."""

    def __init__(self, clock):
        self.clock, self.calls = clock, []

    def __call__(self, steps):
        self.clock.seconds += (0 if self.calls else 9) + 1 + steps / 100
        self.calls.append(steps)


def test_what_a_call_waits_for_is_shared_by_its_steps(clock):
    train, scale = Trainer(clock), accelerator.FULL
    each, compiling = accelerator.seconds_of_steps(train, scale._replace(seconds=20.2))
    assert train.calls == [1, 1] + [20] * scale.repeats
    assert each == pytest.approx(1 / 20 + 0.01) and compiling == pytest.approx(9)
    accelerator.seconds_of_steps(train, scale._replace(seconds=1e6))
    assert train.calls[-1] == step.LONGEST


def test_steps_of_pytorch_are_timed_as_ours_are(clock, monkeypatch):
    """The same seconds of a call and of a step are the same rate: a ratio of 1."""
    train, scale = Trainer(clock), accelerator.TINY._replace(seconds=50)
    torch = SimpleNamespace(__version__="0", autocast=lambda *_, **__: contextlib.nullcontext(), bfloat16=None)
    twins = SimpleNamespace(torch=torch, DEVICE=SimpleNamespace(type="cpu"), as_it_is=None, trainer=lambda *_: train)
    twins.feature_matching = twins.conditional_gan = lambda *_: None
    monkeypatch.setattr(benchmarks, "twins", twins, raising=False)
    monkeypatch.setitem(sys.modules, "benchmarks.twins", twins)
    monkeypatch.setattr(accelerator, "no_twins", lambda: None)

    def row(name, method, data, scale, products, keep):
        keep(None)
        return {"seconds": accelerator.seconds_of_steps(Trainer(clock), scale)[0]}

    monkeypatch.setattr(accelerator, "step_row", row)
    ours, theirs = accelerator.gan_rows(scale)
    assert theirs["ratio"] == pytest.approx(1) and theirs["seconds"] == pytest.approx(ours["seconds"])


def test_the_time_of_a_metric_is_not_that_of_drawing_what_it_measures(clock, monkeypatch):
    def features(samples, width):
        clock.seconds += 100
        return np.zeros((samples, width)), np.zeros((samples, width))

    def measure(*_):
        clock.seconds += 1

    monkeypatch.setattr(accelerator, "features", features)
    for module, name in ((frechet, "fid"), (manifold, "prdc"), (build, "neighbours")):
        monkeypatch.setattr(module, name, measure)
    assert [row["seconds"] for row in accelerator.metric_rows(accelerator.TINY)] == [1, 1, 1]


def test_a_block_that_is_slow_fails_or_dies_costs_itself_alone(found):
    slow, wrong, lost = (found.fragile[name] for name in ("slow", "wrong", "lost"))
    assert slow == {
        "ended": "stopped at its limit of 15 s",
        "rows": [{"name": "first", "seconds": 0.3333}],
        "came": [1],
    }
    assert wrong["ended"] == "ValueError: no such chip" and "no such chip" in found.done.stderr
    assert lost["ended"] == "its process died with status 7"


def test_all_blocks_together_end_within_nine_minutes():
    assert sum(block.seconds for block in accelerator.BLOCKS.values()) <= accelerator.TOTAL <= 9 * 60


def test_the_peak_is_that_of_the_precision_and_none_where_the_chip_is_not_known():
    assert chips.peak("NVIDIA H100 80GB HBM3", "bfloat16") == pytest.approx(989.4e12)
    assert chips.peak("NVIDIA H100 80GB HBM3", "default (TF32)") == pytest.approx(494.7e12)
    assert chips.peak("NVIDIA H100 80GB HBM3", "highest") == pytest.approx(66.9e12)
    assert chips.peak("Tesla T4", "bfloat16") is None
    assert chips.peak("NVIDIA H100 80GB HBM3", "BF16_BF16_F32_X9") is None
    assert chips.peak("cpu", "default (float32)") is None


def test_tensor_cores_multiply_faster_the_fewer_bits_they_keep():
    for chip in chips.CHIPS.values():
        rates = [rate for rate in (chip.float32, chip.tf32, chip.bfloat16) if rate is not None]
        assert rates and rates == sorted(rates) and chip.memory > 0 and chip.source
