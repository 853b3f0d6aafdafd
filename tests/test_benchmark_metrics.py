"""The benchmark of metrics: its quick form, as a user starts it."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import metrics

COMMON = {"kind", "samples", "width", "threads", "numpy", "scipy", "seconds", "memory_mib"}
COMMON |= {"device", "cpu", "cores", "load", "jax"}


SCRIPT = """
import runpy, sys
sys.argv[1:] = ["--quick"]
runpy.run_module("benchmarks.metrics", run_name="__main__", alter_sys=True)

import numpy
from benchmarks.metrics import alone, growth

def grow():
    return growth(lambda: numpy.ones(2**24)), growth(lambda: numpy.ones(2**20))

print(*alone(grow))
"""


@pytest.fixture(scope="module")
def printed():
    """What a Python of its own prints: the benchmark forks, which it must not where JAX runs already."""
    root, one_thread = Path(__file__).parents[1], os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # several wait in circles
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=one_thread)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def lines(printed):
    return {line["kind"]: line for line in map(json.loads, printed[:-1])}


def assert_positive(*numbers):
    assert all(math.isfinite(number) and number > 0 for number in numbers)


def test_every_line_says_what_was_measured_and_where(lines):
    assert list(lines) == ["fid", "prdc", "kid"]
    for line in lines.values():
        assert set(line) >= COMMON
        assert line["samples"] == metrics.QUICK.samples and line["threads"]["OPENBLAS_NUM_THREADS"] == "1"
        assert_positive(line["seconds"])
        assert math.isfinite(line["memory_mib"])


def test_the_frechet_line_compares_with_the_matrix_square_root(lines):
    line = lines["fid"]
    seconds = line["seconds_of"]
    assert_positive(line["ratio"], *seconds.values())
    assert line["ratio"] == pytest.approx(seconds["sqrtm"] / seconds["distance"], rel=1e-2)
    assert line["value"] == pytest.approx(line["sqrtm_value"], rel=1e-3)
    matrix = 8 * metrics.QUICK.width**2 / 2**20  # MiB
    assert line["memory_matrices"] == pytest.approx(line["memory_mib"] / matrix, rel=1e-2)
    assert (line["target_seconds"], line["target_ratio"], line["target_matrices"]) == (12, 5, 3)


def test_the_line_of_neighbourhoods_compares_with_the_package(lines):
    line = lines["prdc"]
    assert_positive(line["ratio"])
    assert line["ratio"] == pytest.approx(line["seconds_of"]["package"] / line["seconds_of"]["prdc"], rel=1e-2)
    assert line["limit_mib"] == 1024


def test_the_full_size_is_that_of_the_targets():
    assert metrics.FULL[:3] == (10_000, 2048, 512)


def test_growth_is_what_a_call_holds_beyond_all_before(printed):
    first, second = map(float, printed[-1].split())
    assert first == pytest.approx(128, abs=8)  # 2**24 numbers of 8 bytes, in MiB
    assert second < 4  # of the 8 MiB that were held before
