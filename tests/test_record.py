"""What a run says of where it came from."""

import shutil
import subprocess
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen.networks.convolution import AT_ONCE, convolve
from ssl_gen.runs import cost, record
from ssl_gen.types import Method, Phase


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The package in a folder outside any checkout."""
    monkeypatch.setattr(record, "__file__", str(tmp_path / "record.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("SSL_GEN_COMMIT", raising=False)
    return tmp_path


def test_outside_a_checkout_the_environment_says_the_commit(elsewhere, monkeypatch):
    assert record.commit() is None
    monkeypatch.setenv("SSL_GEN_COMMIT", "0123456789ab")
    assert record.commit() == "0123456789ab"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_checkout_says_its_commit_whatever_the_environment_says(elsewhere, monkeypatch):
    monkeypatch.setenv("SSL_GEN_COMMIT", "0123456789ab")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), (*identity, "commit", "-q", "--allow-empty", "-m", "First")):
        subprocess.run(["git", *words], cwd=elsewhere, check=True)
    command = ["git", "rev-parse", "HEAD"]
    head = subprocess.run(command, cwd=elsewhere, check=True, capture_output=True, text=True).stdout
    assert record.commit() == head[:12]


class Device(NamedTuple):
    platform: str
    compute_capability: str = ""


@pytest.mark.parametrize(
    ("device", "override", "means"),
    [
        (Device("cpu"), "", "default (float32)"),
        (Device("tpu"), "", "default (bfloat16)"),
        (Device("gpu", "9.0"), "", "default (TF32)"),
        (Device("gpu", "12.0"), "", "default (TF32)"),
        (Device("gpu", "9.0"), "0", "default (float32)"),
        (Device("gpu", "7.5"), "", "default (float32)"),
        (Device("gpu", "gfx942"), "", "default"),
    ],
)
def test_jaxs_own_precision_means_what_the_device_makes_of_it(device, override, means, monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    monkeypatch.setattr(record.jax, "local_devices", lambda: [device])
    assert record.precision() == means
    with jax.default_matmul_precision("highest"):
        assert record.precision() == "highest"


def test_on_a_processor_products_are_of_float32_as_the_record_says():
    """1 + 2^-20 squared needs 20 bits of mantissa: TF32 has 10, bfloat16 7."""
    a = jnp.full((8, 8), 1 + 2.0**-20)
    assert record.precision() == "default (float32)"
    np.testing.assert_allclose(a @ a, 8 * (1 + 2.0**-19), rtol=2e-7)


def test_processes_that_multiply_differently_are_all_named():
    group = types.SimpleNamespace(count=3, all_gather=lambda _: ["highest", "default (TF32)", "highest"])
    assert record.precisions(group) == "highest or default (TF32)"


def test_a_checkout_that_is_not_installed_has_no_version():
    assert record.version("jax")[0].isdigit() and record.version("no-such-package") == "not installed"


def evaluations(seed, errors, validation):
    """The lines of a seed's log, each evaluation after one of training."""
    for step, (error, validated) in enumerate(zip(errors, validation, strict=True)):
        yield {"step": step, "seed": seed, "phase": "train", "classifier/supervised": 1.0}
        yield {"step": step, "seed": seed, "test/error": error} | (
            {} if validated is None else {"validation/error": validated}
        )


SQUARES = [float(k * k) for k in range(1, 21)]
LATE = [0.0] * 5 + SQUARES[::2] + SQUARES[1::2]  # 25 evaluations, the median of the last 20 is between 10^2 and 11^2
VALIDATED = [30.0] * 11 + [3.0] + [20.0] * 12 + [9.0]


@pytest.mark.parametrize("stopped", [0, 1])
def test_the_way_there_by_hand(stopped):
    """Of two seeds, one of which stopped after 7 evaluations that were better than all of the other's."""
    seeds = [5, 3]
    ended, broken = seeds[1 - stopped], seeds[stopped]
    lines = [*evaluations(ended, LATE, VALIDATED), *evaluations(broken, [-1.0] * 7, [-1.0] * 7)]
    found = record.history(lines, seeds, {stopped: {}})
    # the best validation step is the 12th, where the test error is that of the 7th odd number
    expected = {"error_median_last_20": 110.5, "error_validation": 9.0, "error_best_validation": 13.0**2}
    assert {name: each["per_seed"] for name, each in found.items()} == {
        name: [None, value] if stopped == 0 else [value, None] for name, value in expected.items()
    }
    both = record.history(lines, seeds, {})["error_median_last_20"]["per_seed"]
    assert sorted(both) == [-1.0, 110.5]


def test_the_way_there_without_a_validation_split_or_an_error_says_no_more_than_it_can():
    lines = list(evaluations(0, LATE, [None] * 25))
    assert record.history(lines, [0], {}).keys() == {"error_median_last_20"}
    assert record.history(lines, [0], {0: {}}) == {} == record.history([], [0], {})


def test_a_share_of_the_peak_is_of_all_seeds_on_the_devices_they_use(monkeypatch):
    """Two seeds of 2 PFLOP in 10 s are 0.4 PFLOP a second; two H100 make 1.9788 in bfloat16, four as much for two."""
    monkeypatch.setattr(cost.jax, "devices", lambda: [types.SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")])
    words = "bfloat16 (what stays float32: default (TF32))"
    assert cost.share_of_peak(2.0, 2, 10.0, words, 2) == pytest.approx(0.4 / (2 * 0.9894))
    assert cost.share_of_peak(2.0, 2, 10.0, words, 4) == pytest.approx(0.4 / (4 * 0.9894))
    assert cost.share_of_peak(2.0, 1, 10.0, "default (TF32)", 1) == pytest.approx(0.2 / 0.4947)
    assert cost.share_of_peak(None, 2, 10.0, words, 1) is None
    monkeypatch.setattr(cost.jax, "devices", lambda: [types.SimpleNamespace(device_kind="cpu")])
    assert cost.share_of_peak(2.0, 2, 10.0, "default (float32)", 1) is None


def test_images_a_second_are_those_of_all_phases_and_seeds():
    """10 steps of 3 + 4 images and 5 of 2, of two seeds, in 8 s."""
    phases = Phase("one", 10, 3, 4, None), Phase("two", 5, 2, 0, None)
    assert cost.images_per_second(Method(None, phases), 2, 8.0) == 2 * (10 * 7 + 5 * 2) / 8
    assert cost.images_per_second(Method(None, phases, fit=print), 2, 8.0) is None
    assert cost.images_per_second(Method(None, ()), 2, 8.0) is None


def test_the_cost_of_training_is_that_of_every_phases_step_as_often_as_it_is_taken():
    """A product of 5 x 5 matrices is 2 * 5^3 operations; a step of the second phase has two."""

    def of(products):
        def step(state, key, step, batch):
            for _ in range(products):
                state = state @ state
            return state, {"loss": jax.numpy.float32(0)}

        return step

    phases = (Phase("one", 3, 1, 0, of(1)), Phase("two", 7, 1, 0, of(2)))
    method = Method(lambda key, batch: jax.numpy.eye(5), phases)
    assert cost.pflop(method, (8, 8, 1)) == pytest.approx((3 + 2 * 7) * 2 * 5**3 / 1e15)


def test_the_cost_of_convolutions_is_counted_for_the_whole_batch():
    """1 x 1 pixels, C to F channels: 2 C F operations a pixel for what comes out, and as many for the gradient."""
    images, channels, features = 4 * AT_ONCE, 3, 5

    def step(state, key, step, batch):
        def loss(kernel):
            return convolve(batch.labelled, kernel, 1).sum()

        return state - jax.grad(lambda kernel: loss(kernel) ** 2)(state), {"loss": jax.numpy.float32(0)}

    method = Method(lambda key, batch: jax.numpy.ones((1, 1, channels, features)), (Phase("one", 1, images, 0, step),))
    outputs = images * 8 * 8 * features
    expected = (2 * 2 * channels + 1) * outputs  # that are summed
    assert 1e15 * cost.pflop(method, (8, 8, channels)) == pytest.approx(expected, rel=0.001)


def test_a_loop_costs_as_much_as_its_turns_written_out():
    """XLA counts a loop's body once. Loops in loops, backward, computed again, and over parts of a batch."""

    def of(products):
        def step(state, key, step, batch):
            slope = jax.grad(lambda weights: (products(weights) ** 2).sum())(state)
            return state - slope, {"loss": jax.numpy.float32(0)}

        return cost.flop(Method(lambda key, batch: jax.numpy.eye(40), ()), Phase("one", 1, 1, 0, step), (8, 8, 1))

    def turns(count, advance, x):
        return jax.lax.fori_loop(0, count, lambda _, x: advance(x), x)

    def written_out(count, advance, x):
        for _ in range(count):
            x = advance(x)
        return x

    def nested(repeat):
        return lambda weights: repeat(3, lambda x: repeat(4, jax.checkpoint(lambda x: x @ weights), x), weights)

    assert of(nested(turns)) == pytest.approx(of(nested(written_out)), rel=0.1)  # beside products: sums and counters

    def parts(weights):
        return weights.reshape(4, 10, 40)

    whole = of(lambda weights: jax.vmap(lambda part: part @ weights)(parts(weights)))
    assert of(lambda weights: jax.lax.map(lambda part: part @ weights, parts(weights))) == pytest.approx(whole, rel=0.1)


def test_the_history_of_a_run_is_of_its_last_evaluations_and_of_the_best_of_validation():
    """Three seeds, the second of which stopped; 30 evaluations, of which the median takes the last 20."""
    test = np.random.default_rng(0).uniform(1, 90, (3, 30))
    validation = np.random.default_rng(1).uniform(1, 90, (3, 30))
    lines = [
        {"step": step, "seed": seed, "test/error": test[i, step], "validation/error": validation[i, step]}
        for step in range(30)
        for i, seed in enumerate((4, 5, 6))
    ]
    found = record.history([{"step": 0, "seed": 4, "phase": "main"}, *lines], [4, 5, 6], {1: {"seed": 5}})
    assert {name: summary["per_seed"] for name, summary in found.items()} == {
        "error_median_last_20": [float(np.median(test[0, 10:])), None, float(np.median(test[2, 10:]))],
        "error_validation": [validation[0, -1], None, validation[2, -1]],
        "error_best_validation": [test[0, validation[0].argmin()], None, test[2, validation[2].argmin()]],
    }
    plain = [{key: value for key, value in line.items() if not key.startswith("validation")} for line in lines]
    assert set(record.history(plain, [4, 5, 6], {})) == {"error_median_last_20"}
    assert record.history([], [4, 5, 6], {}) == {}
