"""Every placement trains the same replicas, folded or not, and says so where it cannot."""

import jax
import numpy as np
import pytest
from tiny import IMAGES, STEPS, first_rows, numbers, some_rows, tiny

from ssl_gen import run
from ssl_gen.methods.classical import supervised
from ssl_gen.setting import Options
from ssl_gen.training import devices
from ssl_gen.training.devices import choose, make_program
from ssl_gen.training.placements import largest_divisor
from ssl_gen.types import UserError

METHOD = tiny("supervised").method
ROWS = some_rows(METHOD, 0, 0, STEPS, seeds=4)


def trained(mode, data_parallel=1, fold=False):
    program = make_program(METHOD, IMAGES, 4, mode, data_parallel, longest=STEPS, fold=fold)
    states = program.init(range(4), first_rows(4))
    states, metrics = program.advance(states, 0, ROWS, STEPS, [True] * 4)
    return program.stack(states), metrics


@pytest.fixture(scope="module")
def reference():
    return trained("loop")


@pytest.mark.parametrize("mode", ["loop", "vmap", "pmap"])
def test_a_fold_is_the_plain_loop(mode, reference):
    for one, other in zip(numbers(reference), numbers(trained(mode, fold=True)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("mode", "fold"), [("vmap", False), ("vmap", True), ("loop", True)])
def test_replicas_and_batches_are_divided_at_once(mode, fold, reference):
    states, metrics = trained(mode, data_parallel=2, fold=fold)
    for one, other in zip(numbers(reference[0]), numbers(states), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["classifier/supervised"], reference[1]["classifier/supervised"], rtol=1e-4)


def test_metrics_are_means_over_the_steps():
    program = make_program(METHOD, IMAGES, 1, "loop", longest=STEPS)
    states, one_by_one = program.init([0], first_rows()), []
    for step in range(STEPS):
        states, metrics = program.advance(states, 0, some_rows(METHOD, 0, step, 1), 1, [True])
        one_by_one.append(metrics["classifier/supervised"][0])
    _, whole = program.advance(program.init([0], first_rows()), 0, some_rows(METHOD, 0, 0, STEPS), STEPS, [True])
    assert whole["classifier/supervised"][0] == pytest.approx(np.mean(one_by_one), rel=1e-6)


def test_a_replica_that_is_not_active_stays_where_it_is():
    program = make_program(METHOD, IMAGES, 2, "loop", longest=STEPS)
    rows = some_rows(METHOD, 0, 0, STEPS, seeds=2)
    states, _ = program.advance(program.init([0, 1], first_rows(2)), 0, rows, STEPS, [True, False])
    assert [int(program.replica(states, i).step) for i in range(2)] == [STEPS, 0]


@pytest.mark.parametrize("mode", ["vmap", "pmap"])
def test_a_whole_run_ends_with_the_same_numbers_in_every_placement(mode, tmp_path):
    def final(placement):
        options = Options(labels="30", seeds=2, replicas=placement, out=tmp_path / placement, quiet=True)
        return run.train("supervised", supervised.Config(steps=6, labelled_batch=4, hidden=(4,)), options).final

    one, other = final("loop")["metrics"], final(mode)["metrics"]
    np.testing.assert_allclose(one["nll"]["per_seed"], other["nll"]["per_seed"], rtol=1e-4)


class Fake:
    def __init__(self, platform):
        self.platform = platform


@pytest.mark.parametrize(
    ("platform", "count", "replicas", "data_parallel", "placement"),
    [
        ("cpu", 1, 5, 1, "loop"),
        ("gpu", 1, 5, 1, "vmap"),
        ("gpu", 4, 5, 1, "pmap"),
        ("tpu", 8, 1, 1, "vmap"),
        ("gpu", 4, 4, 2, "vmap"),
        ("cpu", 4, 1, 4, "loop"),
    ],
)
def test_the_placement_is_chosen_by_devices_and_seeds(platform, count, replicas, data_parallel, placement):
    assert choose("auto", replicas, data_parallel, [Fake(platform)] * count) == placement


def test_seeds_of_several_processes_are_stacked_over_a_mesh_for_pmap_stays_within_one():
    assert choose("auto", 4, 1, [Fake("gpu")] * 4, several=True) == "vmap"
    with pytest.raises(UserError, match="use vmap or loop"):
        make_program(METHOD, IMAGES, 2, "pmap", several=True)


@pytest.mark.parametrize(("number", "limit", "expected"), [(6, 4, 3), (5, 4, 1), (8, 4, 4), (3, 8, 3)])
def test_replicas_spread_over_as_many_devices_as_divide_them(number, limit, expected):
    assert largest_divisor(number, limit) == expected


def test_too_many_devices_and_odd_batches_are_refused():
    with pytest.raises(UserError, match=f"this machine has {jax.local_device_count()}"):
        make_program(METHOD, IMAGES, 1, "loop", data_parallel=64)
    with pytest.raises(UserError, match="pmap"):
        make_program(METHOD, IMAGES, 2, "pmap", data_parallel=2)
    with pytest.raises(UserError, match="labelled_batch 4"):
        devices.check_divisible(METHOD, 3)
