"""The benchmark of divided convolutions: its line, and that its two ways are two programs."""

from benchmarks import divided
from benchmarks.pages import Case
from ssl_gen.core import compiling
from ssl_gen.methods.classical import supervised
from ssl_gen.types import ImageSpec

# a network that compiles in no time: numbers are not looked at here
DENSE = Case("supervised", supervised.Config(network="mlp", labelled_batch=8), ImageSpec(8, 8, 1, 10), 1)


def test_a_ratio_is_the_median_of_calls_made_in_turn(monkeypatch):
    times = {"plain": [2.0, 4.0, 9.0], "divided": [1.0, 3.0, 3.0]}
    monkeypatch.setattr(divided, "interleaved", lambda calls, rounds: times)
    line = divided.line("step", "some", {}, rounds=3)
    assert line["ratio"] == 0.5 and line["seconds"] == {"plain": 4.0, "divided": 3.0}
    assert {"device", "cpu", "cores", "load", "jax"} <= line.keys()


def test_the_compiler_is_told_of_no_core_and_of_many():
    told = []
    divided.both_ways(lambda: lambda: told.append(compiling.cores()))
    assert told[0] < 1 and told[1] > 1_000
    assert compiling.compiler_options("cpu", False, 1) == ({} if compiling.cores() == 1 else compiling.DIVIDED)


def test_every_network_is_timed_in_training_and_after_it(monkeypatch):
    monkeypatch.setattr(divided, "ENCODER", "not_there.safetensors")  # a line that says so
    made = list(divided.lines({"dense": DENSE}, 1))
    assert [line["kind"] for line in made] == ["step", "seeds", "inference", "inference, beside", "encoder"]
    assert made[2]["name"] == "dense: classify" and "not_there" in made[4]["skipped"]
