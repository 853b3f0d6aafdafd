"""The benchmark of graphs: its quick form, as a user starts it."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import graph


@pytest.fixture(scope="module")
def lines():
    """What a Python of its own prints: the benchmark forks, which it must not where JAX runs already."""
    command = [sys.executable, "-m", "benchmarks.graph", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stderr == ""
    return {line["kind"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_every_line_says_what_was_measured_and_where(lines):
    assert list(lines) == ["graph", "spreading", "whole"]
    for line in lines.values():
        assert set(line) >= {"nodes", "pixels", "images", "seconds", "device", "cpu", "cores", "load", "jax"}
        assert line["images"] == "random"
        assert math.isfinite(line["seconds"]) and line["seconds"] > 0


def test_the_seconds_of_the_graph_are_those_of_its_parts(lines):
    line = lines["graph"]
    assert line["nodes"] == graph.QUICK.nodes
    assert line["seconds"] == pytest.approx(sum(line["seconds_of"].values()), rel=1e-2)
    assert set(line["seconds_of"]) == {"neighbours", "graph", "spreading", "poisson"}
    assert (line["target_seconds"], line["target_mib"]) == (180, 2048)


def test_both_sides_of_spreading_name_the_same_classes(lines):
    line = lines["spreading"]
    assert line["disagreement"] <= 0.01
    seconds = line["seconds_of"]
    assert line["ratio"] == pytest.approx(seconds["scikit_learn"] / seconds["ours"], rel=1e-2)


def test_the_full_size_is_that_of_mnist():
    assert graph.FULL.nodes == 70_000
