"""`train --dry-run`: what a run will take, without a step of it."""

import types

import jax
import pytest

from ssl_gen import cli
from ssl_gen.core.machine import cores
from ssl_gen.methods.classical import supervised
from ssl_gen.runs import forecast
from ssl_gen.runs.forecast import Forecast, PhaseCost, held, words
from ssl_gen.runs.options import Options

ASKED = ["supervised", "--labels", "30", "--seeds", "2", "--replicas", "loop", "--steps", "3", "--features", "pixels"]
ASKED += ["--config.labelled-batch", "4", "--config.hidden", "4"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """(what the command printed, its exit status, the folder that it must not make, the forecast)."""
    out, made, said = tmp_path_factory.mktemp("dry") / "run", [], []
    patch = pytest.MonkeyPatch()
    patch.setattr(forecast, "words", lambda found: made.append(found) or words(found))
    patch.setattr("builtins.print", lambda *given, **_: said.append(" ".join(map(str, given))))
    status = cli.main(["train", *ASKED, "--out", str(out), "--dry-run"])
    patch.undo()
    return types.SimpleNamespace(said="\n".join(said), status=status, out=out, forecast=made[0])


def test_nothing_is_trained_or_written(found):
    assert found.status == 0 and not found.out.exists()


def test_parameters_are_those_of_the_layers(found):
    """64 pixels, 4 units with scale and shift of their norm, 10 classes."""
    assert found.forecast.parameters == {"classifier": 64 * 4 + 4 + 4 + 4 * 10 + 10}
    assert f"classifier {64 * 4 + 8 + 50}" in found.said


def test_memory_is_at_least_images_and_the_states_of_both_seeds(found):
    """Adam keeps two numbers beside each, the EMA a third; all are float32."""
    cost = found.forecast
    assert cost.images == 1297 * 64 and cost.phases[0].memory >= cost.images + 2 * cost.state
    assert 4 * 4 * 314 <= cost.state <= 1.1 * 4 * 4 * 314


def test_of_a_state_in_parts_each_device_holds_its_share():
    """Of two devices half of a layer of 64 x 64, of its two moments and of its average; all else is whole."""
    config = supervised.Config(steps=3, labelled_batch=4, hidden=(64,))
    options = Options(labels="30", features="pixels", replicas="loop", data_parallel=2, shard_params=True)
    cost = forecast.forecast("supervised", config, options)
    assert cost.state - cost.part == 4 * 4 * 64 * 64 // 2
    assert "of it on each device" in words(cost)


def test_operations_are_at_least_the_products_of_both_ways(found):
    """A product of 4 images takes 2 operations a weight forward and 4 backward, but for the first layer's input."""
    (phase,) = found.forecast.phases
    products = 4 * (4 * 64 * 4 + 6 * 4 * 10)
    assert (phase.name, phase.steps) == ("main", 3) and products <= phase.operations <= 5 * products
    assert phase.traffic > 0 and "GFLOP" in found.said and "KiB" in found.said


def memory(given, made, overwritten, room):
    return types.SimpleNamespace(
        argument_size_in_bytes=given,
        output_size_in_bytes=made,
        alias_size_in_bytes=overwritten,
        temp_size_in_bytes=room,
    )


def test_what_a_step_overwrites_counts_once_and_seeds_that_wait_count_their_states():
    step = memory(100, 30, 20, 7)
    assert held(step, "vmap", 3, 5) == 100 + 30 - 20 + 7
    assert held(step, "loop", 3, 5) == 100 + 30 - 20 + 2 * 5 + min(3, cores()) * 7
    assert held(None, "vmap", 3, 5) is None


@pytest.mark.parametrize(("limit", "said"), [(None, None), (2**30, "it fits"), (2**20, "it does not fit")])
def test_a_device_that_says_what_it_has_is_compared_with(limit, said):
    cost = Forecast({"a": 1}, 1, 1, 1, 1, [PhaseCost("main", 1, 2**25, None, None)], "1 x chip", "vmap", limit)
    assert ("fit" in words(cost)) == (said is not None) and (said or "main") in words(cost)
    assert "32 MiB" in words(cost) and " - " in words(cost)


def test_a_method_without_steps_has_nothing_to_compile(capsys):
    assert cli.main(["train", "linear", "--labels", "30", "--features", "pixels", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "leave out --dry-run" in said


def test_the_forecast_is_of_this_machine(found):
    assert found.forecast.device == f"{len(jax.local_devices())} x {jax.local_devices()[0].device_kind}"
    assert found.forecast.placement == "loop" and "seeds by loop" in found.said
