"""What every method that is trained in steps promises, by being in METHODS."""

import functools
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import (
    IMAGES,
    SPEC,
    STEPS,
    STORE,
    VISIBLE,
    batch_at,
    first_rows,
    numbers,
    same,
    some_rows,
    terms_with_gradients,
    tiny,
)

from ssl_gen.core import gradient
from ssl_gen.core.ema import MOVING
from ssl_gen.datasets.batches import Rows
from ssl_gen.evaluation import densities, inference
from ssl_gen.losses.ensembling import remember
from ssl_gen.methods import METHODS
from ssl_gen.training import mesh
from ssl_gen.training.replicas import make_replicas
from ssl_gen.types import Batch, ImageSpec, TrainState

KEY_AND_STEP = jax.random.key(0), jnp.int32(0)
TRAINED = [name for name in METHODS if tiny(name).method.fit is None]  # test_solving.py has the others


@pytest.fixture(scope="module", params=TRAINED)
def name(request):
    """All tests of one method stand together; what they compiled is let go of before the next."""
    yield request.param
    for kept in (made, started, finished, finished_alone, initial):
        kept.cache_clear()
    jax.clear_caches()
    gc.collect()


def program(name, mode="loop", replicas=1, data_parallel=1):
    return made(name, mode, replicas, data_parallel)


@functools.cache
def made(name, mode, replicas, data_parallel):
    return make_replicas(tiny(name).method, STORE, replicas, mode, data_parallel, longest=STEPS, fold=False)


@functools.cache
def started(name, replicas):
    """The first states of some replicas, stacked."""
    placed = program(name, "loop", replicas)
    return placed.stack(placed.init(range(replicas), first_rows(replicas)))


def train(name, program, replicas=1, visible=VISIBLE, interrupt=False, alone=None):
    """The program's states after all steps; with `interrupt` they are put away and back at every step.

    alone: the one of the replicas that is trained, by a program of one.
    """
    method, chosen = tiny(name).method, slice(None) if alone is None else slice(alone, alone + 1)
    states = program.place(jax.tree.map(lambda leaf: leaf[chosen], started(name, replicas)))
    begin = 0
    for index, phase in enumerate(method.phases):
        for step in range(begin, begin + phase.steps):
            rows = some_rows(method, index, step - begin, 1, replicas, visible)
            rows = Rows(*(part[:, chosen] for part in rows))
            states, _ = program.advance(states, index, rows, 1, [True] * rows.labels.shape[1])
            states = program.place(program.stack(states)) if interrupt else states
        begin += phase.steps
    return states


def trained(name, mode="loop", replicas=1, data_parallel=1):
    return finished(name, mode, replicas, data_parallel)


@functools.cache
def finished(name, mode, replicas, data_parallel):
    placed = made(name, mode, replicas, data_parallel)
    return placed.stack(train(name, placed, replicas))


@functools.cache
def finished_alone(name, replicas):
    """The states that as many runs of one replica end with, stacked."""
    placed = program(name)
    ended = [placed.stack(train(name, placed, replicas, alone=index)) for index in range(replicas)]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *ended)


def players(state):
    return {name: value for name, value in state._asdict().items() if isinstance(value, TrainState)}


def state_of(stacked):
    """The method's state of the first replica."""
    return jax.tree.map(lambda leaf: leaf[0], stacked.state)


def learning(method):
    """The phases, by number, that update a player; one that is shown no image draws what a later one learns."""
    return [(index, phase) for index, phase in enumerate(method.phases) if phase.labelled or phase.unlabelled]


@functools.cache
def initial(name):
    return state_of(started(name, 1))


def test_a_step_keeps_the_tree_shapes_and_dtypes_of_the_state(name):
    method = tiny(name).method
    state = initial(name)
    for index, phase in enumerate(method.phases):
        after, metrics = jax.eval_shape(phase.step, state, *KEY_AND_STEP, batch_at(method, index))
        assert jax.tree.structure(after) == jax.tree.structure(state)
        assert [(x.shape, x.dtype) for x in jax.tree.leaves(after)] == [
            (x.shape, x.dtype) for x in jax.tree.leaves(state)
        ]
        assert all(value.shape == () for value in metrics.values())


def test_the_settings_for_photographs_fit_photographs(name):
    """Shapes alone: nothing is compiled. `experiments/photographs.py` trains with them."""
    photographs = ImageSpec(32, 32, 3, 10, 100, 1_000, 1_000)
    method = METHODS[name].make(METHODS[name].PHOTOGRAPHS, photographs)

    def batch(labelled, unlabelled):
        images = jax.ShapeDtypeStruct
        return Batch(
            images((labelled, *photographs.shape), jnp.float32),
            images((labelled,), jnp.int32),
            images((unlabelled, *photographs.shape), jnp.float32),
            images((unlabelled,), jnp.int32),
            images((unlabelled,), jnp.int32),
        )

    state = jax.eval_shape(method.init, jax.random.key(0), batch(4, 4))
    for phase in method.phases:
        after, _ = jax.eval_shape(phase.step, state, *KEY_AND_STEP, batch(phase.labelled, phase.unlabelled))
        assert jax.tree.structure(after) == jax.tree.structure(state)
    if method.sample:
        if densities.needed(method.sampler):
            state = state._replace(density=densities.like(method, state, photographs))
        draw = functools.partial(method.sample, sampler=method.sampler)
        samples = jax.eval_shape(draw, state, jax.random.key(0), jnp.zeros(2, jnp.int32))
        assert samples.shape == (2, *photographs.shape)


def test_each_phase_is_compiled_once(name):
    trained(name)
    for index, phase in enumerate(tiny(name).method.phases):
        if phase.steps:
            assert program(name).step(index)._cache_size() == 1


def test_a_run_resumed_at_every_step_is_the_same_run_bit_for_bit(name):
    placed = program(name)
    assert same(placed.stack(train(name, placed, interrupt=True)), trained(name))


def test_a_run_ends_at_its_last_step_with_the_key_it_began_with(name):
    replica = trained(name)
    assert int(replica.step[0]) == sum(phase.steps for phase in tiny(name).method.phases)
    assert same(replica.key[0], jax.random.key(0))


def test_a_replica_alone_determines_the_future(name):
    """Taken out of two half way, and put where nothing is known of where it comes from, it ends as the other does."""
    together, alone, phases = program(name, "loop", 2), program(name), tiny(name).method.phases
    steps = [(index, step) for index, phase in enumerate(phases) for step in range(phase.steps)]
    both, second = together.place(started(name, 2)), None
    for number, (index, step) in enumerate(steps):
        if number == len(steps) // 2:
            second = alone.place(jax.tree.map(lambda leaf: leaf[1:], together.stack(both)))
        rows = some_rows(tiny(name).method, index, step, 1, 2)
        both, _ = together.advance(both, index, rows, 1, [True, True])
        if second is not None:
            second, _ = alone.advance(second, index, Rows(*(part[:, 1:] for part in rows)), 1, [True])
    for one, other in zip(numbers(alone.stack(second)), numbers(together.stack(both)), strict=True):
        np.testing.assert_allclose(one[0], other[1], rtol=2e-3, atol=2e-4)  # programs that round otherwise


@pytest.mark.parametrize("mode", ["vmap", "pmap"])
def test_replicas_are_single_runs(name, mode):
    single, several = finished_alone(name, 4), trained(name, mode, 4)
    for one, other in zip(numbers(single), numbers(several), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


def test_replicas_differ_from_each_other(name):
    for player in players(finished_alone(name, 4).state).values():
        leaves = numbers(player.params)
        assert any(not np.array_equal(leaf[0], leaf[1]) for leaf in leaves)


def test_a_batch_divided_over_four_devices_trains_as_on_one(name):
    whole, divided = trained(name), trained(name, "loop", 1, 4)
    for one, other in zip(numbers(whole), numbers(divided), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


@pytest.mark.slow
def test_a_state_that_four_devices_share_in_parts_trains_as_on_one(name, monkeypatch):
    """Small leaves too. `test_replicas.py` has one network in the fast tests."""
    monkeypatch.setattr(mesh, "WHOLE_BELOW", 8)
    placed = make_replicas(tiny(name).method, STORE, 1, "loop", 4, longest=STEPS, fold=False, shard=True)
    for one, other in zip(numbers(trained(name)), numbers(placed.stack(train(name, placed))), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


def test_a_data_parallel_step_moves_no_activations_between_devices(name):
    method, placed = tiny(name).method, program(name, "loop", 1, 4)
    states = placed.place(started(name, 1))
    for index, phase in learning(method):  # what another one draws goes to every device, for all steps to come
        rows = Rows(*(part[0] for part in some_rows(method, index, 0, 1)))
        compiled = placed.lower(states, index, rows).compile().as_text()
        assert "all-reduce" in compiled
        for movement in ("all-gather", "all-to-all", "collective-permute"):
            assert movement not in compiled, f"{phase.name} has {movement}"


def moved(before, after):
    """A tree of bool: which leaves are not what they were."""
    return jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)


def test_every_param_of_every_player_moves(name):
    before, after = players(initial(name)), players(state_of(trained(name)))
    for player, now in after.items():
        changes = moved(before[player].params, now.params)
        assert all(jax.tree.leaves(changes)), (player, changes)


def test_every_average_of_every_player_moves_and_is_not_the_player(name):
    """But for the average of a single update, which is what that one made: of all players one differs."""
    before, after = players(initial(name)), players(state_of(trained(name)))
    averaging = [player for player, now in after.items() if now.ema != ()]
    for player in averaging:
        first, last = ((ema.params, ema.stats.get(MOVING)) for ema in (before[player].ema, after[player].ema))
        changes = moved(first, last)
        assert all(jax.tree.leaves(changes)), (player, changes)
    apart = [moved(after[player].params, after[player].ema.params) for player in averaging]
    assert any(jax.tree.leaves(apart)) or not averaging


def test_the_labels_matter_where_a_phase_uses_them_and_there_alone(name):
    method, placed = tiny(name).method, program(name)
    uses = any(phase.labelled for phase in method.phases) or method.told != "nothing"
    other = np.where(VISIBLE >= 0, (VISIBLE + 1) % SPEC.classes, -1).astype(np.int32)
    assert same(placed.stack(train(name, placed, visible=other)), trained(name)) != uses


def test_the_unlabelled_images_matter_where_a_phase_uses_them(name):
    method, placed = tiny(name).method, program(name)
    for index, phase in enumerate(method.phases):
        if not phase.unlabelled:
            continue
        rows = some_rows(method, index, 0, 1)
        ends = []
        for shift in (0, 1):
            moved = rows._replace(unlabelled=(rows.unlabelled + shift) % len(IMAGES))
            states, _ = placed.advance(placed.place(started(name, 1)), index, moved, 1, [True])
            ends.append(placed.stack(states))
        assert not same(*ends), phase.name


def one_epoch_on(state):
    """A state whose memory of images, where it has one, holds what a network that knows nothing says of each."""
    if not hasattr(state, "memory"):
        return state
    rows, uniform = jnp.arange(len(IMAGES)), jnp.full((len(IMAGES), SPEC.classes), 1 / SPEC.classes)
    return state._replace(memory=remember(state.memory, rows, uniform, 0.5))


def test_each_term_of_each_loss_has_a_gradient_at_initialisation(name, monkeypatch):
    monkeypatch.setattr(gradient, "descend", terms_with_gradients)
    method, key = tiny(name).method, jax.random.key(0)
    for index, phase in learning(method):  # ramps are over, params are still the first
        step = jax.jit(lambda *given, phase=phase: phase.step(*given))  # a trace of its own, with the patched gradient
        _, metrics = step(one_epoch_on(initial(name)), key, jnp.int32(STEPS), batch_at(method, index))
        norms = {term: float(value) for term, value in metrics.items() if term.endswith("/own")}
        assert norms and all(value > 0 for value in norms.values()), norms


def test_samples_are_images_and_obey_labels_where_it_says_so(name):
    method, state = tiny(name).method, state_of(trained(name))
    if method.sample is None:
        pytest.skip("this method draws no samples")
    state = densities.prepared(inference.compiled(method), state, method.sampler, lambda: IMAGES)
    draw = jax.jit(functools.partial(method.sample, sampler=method.sampler))
    images = draw(state, jax.random.key(0), jnp.zeros(6, jnp.int32))
    assert images.shape == (6, *SPEC.shape)
    assert -1 <= float(images.min()) < float(images.max()) <= 1
    others = draw(state, jax.random.key(0), jnp.ones(6, jnp.int32))
    assert bool((images != others).any()) == method.conditional


def test_class_probabilities_sum_to_one(name):
    method, state = tiny(name).method, state_of(trained(name))
    if method.classify is None:
        pytest.skip("this method does not classify")
    log_probabilities = jax.jit(method.classify)(state, jnp.asarray(IMAGES[:5], jnp.float32) / 127.5 - 1)
    assert log_probabilities.shape == (5, SPEC.classes)
    np.testing.assert_allclose(np.exp(log_probabilities).sum(-1), 1, rtol=1e-5)


def test_a_method_names_its_paper(name):
    module = METHODS[name]
    authors, where = module.PAPER.split(", ", 1)  # where: its arXiv number, or the place of one that has none
    assert authors[-4:].isdecimal()
    assert where in " ".join(module.__doc__.split())


def test_batches_carry_no_label_but_visible_ones_and_guesses():
    """Of which `test_batches.py` and `test_labeller.py` say what they are made of."""
    assert set(Batch._fields) == {"labelled", "labels", "unlabelled", "rows", "guesses"}
    assert set(Rows._fields) == {"labelled", "labels", "unlabelled", "guesses"}
