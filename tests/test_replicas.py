"""Every placement trains the same replicas, folded or not, and says so where it cannot."""

import dataclasses
import functools
import re
import types
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from fragile import fragile
from jax.sharding import PartitionSpec as P
from tiny import SPEC, STEPS, STORE, batch_of, first_rows, numbers, same, some_rows, tiny

from ssl_gen.core.batching import shard_batch
from ssl_gen.datasets.batches import Rows
from ssl_gen.datasets.store import StreamedStore
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.methods import METHODS
from ssl_gen.reports.records import Stop
from ssl_gen.runs import cost, load, train
from ssl_gen.runs.options import Options
from ssl_gen.training import replicas
from ssl_gen.training.checkpoints import open_checkpoints
from ssl_gen.training.mesh import evenly, idle, largest_divisor, part_of
from ssl_gen.training.replicas import choose_placement, make_replicas
from ssl_gen.types import Array, Method, Phase, UserError


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = STEPS


class State(NamedTuple):
    """All kinds of what a method learns: by gradient, by data-dependent start and by a running mean."""

    weights: Array  # (H W C, K)
    scale: Array  # ()
    mean: Array  # (H W C,)


def make(config, spec):
    """Softmax regression on noisy images, the least to compile: test_conformance.py has the methods of the library."""

    def flat(state, images):
        return images.reshape(len(images), -1) * state.scale - state.mean

    def init(key, batch):
        weights = jax.random.normal(key, (batch.labelled[0].size, spec.classes))
        return State(weights, 1 / batch.labelled.std(), batch.unlabelled.mean(0).reshape(-1))

    def step(state, key, step, batch):
        noise = shard_batch(jax.random.normal(key, batch.labelled.shape))
        images = flat(state, batch.labelled + 0.1 * noise)
        loss, gradient = jax.value_and_grad(lambda weights: cross_entropy(images @ weights, batch.labels))(
            state.weights
        )
        mean = 0.9 * state.mean + 0.1 * batch.unlabelled.mean(0).reshape(-1)
        return State(state.weights - gradient / (1.0 + step), state.scale, mean), {"loss": loss}

    def classify(state, images):
        return jax.nn.log_softmax(flat(state, images) @ state.weights)

    return Method(init, (Phase("main", config.steps, 4, 8, step),), classify=classify)


METHOD = make(Config(), SPEC)
ROWS = some_rows(METHOD, 0, 0, STEPS, seeds=4)


def trained(mode, data_parallel=1, fold=False, store=STORE, seeds=4):
    program = make_replicas(METHOD, store, seeds, mode, data_parallel, longest=STEPS, fold=fold)
    states = program.init(range(seeds), first_rows(seeds))
    rows = ROWS if seeds == 4 else some_rows(METHOD, 0, 0, STEPS, seeds=seeds)
    states, metrics = program.advance(states, 0, rows, STEPS, [True] * seeds)
    return program.stack(states), metrics


@pytest.fixture(scope="module")
def reference():
    return trained("loop")


@pytest.fixture(scope="module")
def single():
    """One replica in the plain loop: its placement, and a copy of its first states for each test."""
    program = make_replicas(METHOD, STORE, 1, "loop", longest=STEPS)
    stacked = program.stack(program.init([0], first_rows()))
    return program, lambda: program.place(stacked)


@pytest.mark.parametrize("mode", ["loop", "vmap", "pmap"])
def test_a_fold_is_the_plain_loop(mode, reference):
    for one, other in zip(numbers(reference), numbers(trained(mode, fold=True)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("seeds", [5, 7])
def test_seeds_that_do_not_divide_over_devices_train_as_in_a_loop(seeds, fold):
    """Five on three of four devices, seven on four: the last has one fewer, and none comes of what fills its place."""
    program = make_replicas(METHOD, STORE, seeds, "pmap", longest=STEPS, fold=fold)
    (one, one_metrics), (other, metrics) = trained("loop", seeds=seeds), trained("pmap", fold=fold, seeds=seeds)
    for x, y in zip(numbers(one), numbers(other), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], one_metrics["loss"], rtol=1e-4)
    assert metrics["loss"].shape == (seeds,) and other.step.tolist() == [STEPS] * seeds
    again = program.place(other)
    assert same(program.stack(again), other)
    last = [program.replica(again, i).weights for i in (seeds - 2, seeds - 1)]
    assert same(last, list(other.state.weights[-2:])) and not same(*last)


@pytest.mark.parametrize(("mode", "fold"), [("vmap", False), ("vmap", True), ("loop", True)])
def test_replicas_and_batches_are_divided_at_once(mode, fold, reference):
    states, metrics = trained(mode, data_parallel=2, fold=fold)
    for one, other in zip(numbers(reference[0]), numbers(states), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], reference[1]["loss"], rtol=1e-4)


@pytest.mark.parametrize(("mode", "data_parallel"), [("loop", 1), ("loop", 2), ("vmap", 1), ("vmap", 2), ("pmap", 1)])
def test_streamed_images_train_as_those_on_the_device(mode, data_parallel, reference):
    streamed = trained(mode, data_parallel, fold=True, store=StreamedStore(STORE.images))
    for one, other in zip(numbers(reference), numbers(streamed), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


# What is learnt, in parts

NETWORK = tiny("supervised", network="mlp", hidden=(64, 64)).method  # a network, its optimiser's state and its EMA
NETWORK_ROWS = some_rows(NETWORK, 0, 0, STEPS, seeds=2)


def network_trained(program):
    """(the first states of two replicas of `NETWORK`, given away, and those after some steps)."""
    before = program.init(range(2), first_rows(2))
    after, _ = program.advance(before, 0, NETWORK_ROWS, STEPS, [True] * 2)
    return before, after


@pytest.fixture(scope="module")
def whole():
    """Stacked states that were trained whole, on one device."""
    program = make_replicas(NETWORK, STORE, 2, "loop", longest=STEPS)
    return program.stack(network_trained(program)[1])


@pytest.fixture(scope="module", params=[("loop", False), ("vmap", True)], ids=["loop", "vmap"])
def in_parts(request):
    """(placement, states before and after) of states that two devices share."""
    mode, fold = request.param
    program = make_replicas(NETWORK, STORE, 2, mode, 2, longest=STEPS, fold=fold, shard=True)
    return program, *network_trained(program)


def held(states):
    """Bytes that each device holds of the states."""
    found = {}
    for leaf in jax.tree.leaves(states):
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            for shard in leaf.addressable_shards:
                found[shard.device] = found.get(shard.device, 0) + shard.data.nbytes
    return found


def test_a_state_in_parts_trains_as_a_whole_one(in_parts, whole):
    program, _, after = in_parts
    for one, other in zip(numbers(whole), numbers(program.stack(after)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_state_in_parts_stays_in_parts_and_is_written_over(in_parts):
    program, before, after = in_parts
    copies = make_replicas(NETWORK, STORE, 2, program.mode, 2, longest=STEPS).place(program.stack(after))
    (all_of_it,), (part,) = set(held(copies).values()), set(held(after).values())
    assert part < 0.6 * all_of_it
    for leaf, new, placed in zip(
        *map(jax.tree.leaves, (before, after, program.place(program.stack(after)))), strict=True
    ):
        assert new.sharding.is_equivalent_to(placed.sharding, new.ndim)
        assert leaf.is_deleted() or leaf.size <= 2  # the optimiser's settings, which no step reads


def test_a_state_in_parts_is_handed_out_whole_and_placed_again_bit_for_bit(in_parts):
    program, _, after = in_parts
    assert all(
        leaf.is_fully_replicated for leaf in jax.tree.leaves(program.replica(after, 1)) if program.mode == "loop"
    )
    assert same(program.replica(after, 1), jax.tree.map(lambda leaf: leaf[1], program.stack(after).state))
    assert same(program.stack(program.place(program.stack(after))), program.stack(after))


def test_with_a_state_in_parts_its_leaves_move_between_devices_and_no_images(in_parts):
    program, _, after = in_parts
    text = program.lower(after, 0, Rows(*(part[0] for part in NETWORK_ROWS))).compile().as_text()
    assert "all-to-all" not in text and "collective-permute" not in text
    gathered = re.findall(r"= f32\[([\d,]+)\]\S* all-gather\(", text)
    kernels = {(64, 64)} if program.mode == "loop" else {(1, 64, 64)}  # of the one seed that a device has
    assert {tuple(map(int, shape.split(","))) for shape in gathered} == kernels


@pytest.mark.parametrize(
    ("shape", "devices", "axes"),
    [
        ((3, 3, 64, 128), 4, P(None, None, None, "data")),
        ((512, 64), 4, P("data")),
        ((509, 64), 4, P(None, "data")),  # the largest that four divide
        ((64, 64), 2, P("data")),
        ((64, 63), 2, P()),  # 4,032 numbers
        ((4_096,), 8, P("data")),
        ((65, 65), 2, P()),
        ((), 2, P()),
    ],
)
def test_a_leaf_is_divided_along_its_largest_axis_that_the_devices_divide(shape, devices, axes):
    assert part_of(shape, devices) == axes


def test_metrics_are_added_up_over_the_steps(single):
    program, begin = single
    states, one_by_one = begin(), []
    for step in range(STEPS):
        states, metrics = program.advance(states, 0, some_rows(METHOD, 0, step, 1), 1, [True])
        one_by_one.append(metrics["loss"][0])
    _, whole = program.advance(begin(), 0, some_rows(METHOD, 0, 0, STEPS), STEPS, [True])
    assert whole["loss"][0] == pytest.approx(np.sum(one_by_one), rel=1e-6)


@pytest.mark.parametrize("mode", ["loop", "vmap", "pmap"])
@pytest.mark.parametrize("fold", [False, True])
def test_steps_in_two_calls_are_those_of_one_to_the_last_bit(mode, fold):
    """The sums of metrics, too, where the second call goes on with those of the first."""
    program = make_replicas(METHOD, STORE, 4, mode, longest=STEPS, fold=fold)
    whole, once = program.advance(program.init(range(4), first_rows(4)), 0, ROWS, STEPS, [True] * 4)
    states, sums, at = program.init(range(4), first_rows(4)), None, 0
    for count in (1, STEPS - 1):
        part = Rows(*(each[at : at + count] for each in ROWS))
        states, sums = program.advance(states, 0, part, count, [True] * 4, sums)
        at += count
    assert same(program.stack(states), program.stack(whole))
    assert sums.keys() == once.keys() and all(sums[name].tobytes() == once[name].tobytes() for name in once)


def test_a_step_is_the_methods_own_with_the_noise_of_its_number_and_its_seed(reference):
    """Written out: state_(t+1) = step(state_t, fold_in(key(seed), t), t, batch_t)."""
    program = make_replicas(METHOD, STORE, 4, "loop", longest=STEPS)
    state = program.replica(program.init(range(4), first_rows(4)), 2)
    one_step = jax.jit(METHOD.phases[0].step)
    for t in range(STEPS):
        state, _ = one_step(
            state, jax.random.fold_in(jax.random.key(2), t), t, batch_of(Rows(*(part[t, 2] for part in ROWS)))
        )
    expected = jax.tree.map(lambda leaf: leaf[2], reference[0].state)
    for one, other in zip(numbers(expected), numbers(state), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_replica_counts_its_updates_and_keeps_the_key_of_its_seed(reference):
    assert reference[0].step.tolist() == [STEPS] * 4
    assert same(reference[0].key, jax.vmap(jax.random.key)(np.arange(4)))


def test_a_replica_that_is_not_active_stays_where_it_is():
    program = make_replicas(METHOD, STORE, 2, "loop", longest=STEPS)
    rows = some_rows(METHOD, 0, 0, STEPS, seeds=2)
    before = program.init([0, 1], first_rows(2))
    still = program.stack(before).state
    states, _ = program.advance(before, 0, rows, STEPS, [True, False])
    stacked = program.stack(states)
    assert stacked.step.tolist() == [STEPS, 0]
    assert same(jax.tree.map(lambda leaf: leaf[1], stacked.state), jax.tree.map(lambda leaf: leaf[1], still))


@pytest.mark.parametrize("mode", ["vmap", "pmap"])
def test_what_is_stacked_is_placed_again_bit_for_bit(mode):
    program = make_replicas(METHOD, STORE, 4, mode, longest=STEPS)
    stacked = program.stack(program.init(range(4), first_rows(4)))
    states = program.place(stacked)
    assert same(program.stack(states), stacked)
    assert same(program.replica(states, 3), jax.tree.map(lambda leaf: leaf[3], stacked.state))


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """whole_run(placement, devices that share a batch) -> a run of three seeds, the last of which breaks at step 5."""
    regression = types.SimpleNamespace(
        __name__="regression", __doc__="", Config=Config, State=State, PAPER="ours", make=make
    )

    @functools.cache
    def run(placement, data_parallel=1, store="auto", seeds=3, name="fragile"):
        options = Options(labels="30", replicas=placement, data_parallel=data_parallel, samples=20, quiet=True)
        options = dataclasses.replace(options, seeds=seeds, store=store)
        out = tmp_path_factory.mktemp("runs") / "run"
        options = dataclasses.replace(options, out=out, checkpoint_every=2, evaluate_every=6)
        return load.load(train.train(name, Config(steps=6), options).folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "firm", fragile(regression, "loss", seed=9, step=4))
        patch.setitem(METHODS, "fragile", fragile(regression, "loss", seed=2, step=4))
        patch.setattr(cost.chips, "peak", lambda *_: 1e12)
        yield run


PLACEMENTS = [("vmap", 1), ("pmap", 1), ("loop", 2)]


@pytest.mark.parametrize(
    ("mode", "data_parallel", "store"), [*((*each, "auto") for each in PLACEMENTS), ("vmap", 1, "stream")]
)
def test_a_whole_run_ends_with_the_same_numbers_in_every_placement(mode, data_parallel, store, whole_run):
    one, other = whole_run("loop"), whole_run(mode, data_parallel, store)
    np.testing.assert_allclose(*(run.metrics["nll"]["per_seed"][:2] for run in (one, other)), rtol=1e-4)
    for x, y in zip(numbers(one.states), numbers(other.states), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("mode", "data_parallel"), [("loop", 1), *PLACEMENTS])
def test_a_seed_that_breaks_stays_at_its_last_checkpoint_in_every_placement(mode, data_parallel, whole_run):
    run = whole_run(mode, data_parallel)
    assert run.final.stopped == [Stop(2, 6, "loss", "nan")] and run.metrics["nll"]["per_seed"][2] is None
    kept = open_checkpoints(run.folder / "checkpoints")
    steps = kept.manager.restore(6, args=ocp.args.Composite(state=ocp.args.StandardRestore())).state["step"]
    kept.close()
    assert steps.tolist() == [6, 6, 4]


def test_a_seed_that_breaks_leaves_no_share_of_the_peak(whole_run):
    """It did not train to the end, and counted as if it had."""
    assert whole_run("loop").final.pflop and whole_run("loop").final.share_of_peak is None


@pytest.mark.parametrize(
    ("mode", "seeds", "data_parallel", "devices"),
    [("loop", 4, 1, 1), ("loop", 4, 2, 2), ("vmap", 4, 1, 4), ("vmap", 2, 2, 4), ("pmap", 4, 1, 4), ("pmap", 5, 1, 3)],
)
def test_a_placement_says_how_many_devices_train(mode, seeds, data_parallel, devices):
    program = make_replicas(METHOD, STORE, seeds, mode, data_parallel)
    leaves = jax.tree.leaves(program.init(range(seeds), first_rows(seeds)))
    assert program.devices == devices == len(set.union(*(leaf.sharding.device_set for leaf in leaves)))


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
    assert choose_placement("auto", replicas, data_parallel, [Fake(platform)] * count) == placement


def test_seeds_of_several_processes_are_stacked_over_a_mesh_for_pmap_stays_within_one():
    assert choose_placement("auto", 4, 1, [Fake("gpu")] * 4, several=True) == "vmap"
    with pytest.raises(UserError, match="use vmap or loop"):
        make_replicas(METHOD, STORE, 2, "pmap", several=True)


@pytest.mark.parametrize(("number", "limit", "expected"), [(6, 4, 3), (5, 4, 1), (8, 4, 4), (3, 8, 3)])
def test_the_largest_divisor(number, limit, expected):
    assert largest_divisor(number, limit) == expected


@pytest.mark.parametrize(
    ("number", "limit", "expected"),
    [(6, 4, (3, 2)), (5, 4, (3, 2)), (8, 4, (4, 2)), (3, 8, (3, 1)), (3, 2, (2, 2)), (10, 8, (5, 2)), (7, 4, (4, 2))],
)
def test_seeds_spread_over_devices_with_as_few_as_can_be_on_each(number, limit, expected):
    assert evenly(number, limit) == expected


@pytest.mark.parametrize(
    ("seeds", "data_parallel", "used", "devices", "numbers"),
    [
        (5, 1, 1, 4, "4 or 8"),
        (3, 1, 1, 4, "4"),
        (7, 2, 2, 8, "4 or 8"),
        (2, 1, 2, 4, None),
        (8, 1, 4, 4, None),
        (1, 4, 4, 6, None),
    ],
)
def test_seeds_that_leave_devices_without_work_are_told_how_many_would_not(
    seeds, data_parallel, used, devices, numbers
):
    said = idle(seeds, data_parallel, used, devices)
    assert (said is None) == (numbers is None)
    assert said is None or said.endswith(f": --seeds {numbers} would use all")


def test_five_seeds_on_four_devices_are_told_of_before_they_train(whole_run, capsys):
    final = whole_run("auto", seeds=5, name="firm").final
    said = "warning: 5 seeds train on 3 of 4 devices, for they do not divide over all: --seeds 4 or 8 would use all"
    assert said in capsys.readouterr().out
    three = 5 * final.pflop * 1e15 / 3e12 / final.seconds  # on three devices of 10^12 operations a second each
    assert final.share_of_peak == pytest.approx(three, rel=0.1)


def test_too_many_devices_and_odd_batches_are_refused():
    with pytest.raises(UserError, match=f"this machine has {jax.local_device_count()}"):
        make_replicas(METHOD, STORE, 1, "loop", data_parallel=64)
    with pytest.raises(UserError, match="pmap"):
        make_replicas(METHOD, STORE, 2, "pmap", data_parallel=2)
    with pytest.raises(UserError, match="with --shard-params use vmap or loop"):
        make_replicas(METHOD, STORE, 2, "pmap", shard=True)
    with pytest.raises(UserError, match=r"--shard-params .* give --data-parallel 2 or more"):
        make_replicas(METHOD, STORE, 4, "auto", shard=True)
    with pytest.raises(UserError, match="labelled_batch 4"):
        replicas.check_divisible(METHOD, 3)
