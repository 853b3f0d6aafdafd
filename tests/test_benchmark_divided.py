"""The benchmark of divided convolutions: its line, and that its two ways are two programs."""

from benchmarks import divided, pages
from ssl_gen.core import compiling


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


def test_every_network_is_timed_in_training_and_after_it():
    made = [(line["kind"], line["name"]) for line in divided.lines(pages.TINY, 1)]
    kinds = [kind for kind, _ in made]
    assert kinds == ["step", "seeds", "inference", "inference, beside", "encoder"]
    assert made[2] == ("inference", "airbench: classify")
