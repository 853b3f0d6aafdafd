"""A player: started, run, updated and averaged as linen and optax do it, its products in the precision asked for."""

import dataclasses
import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ssl_gen
from ssl_gen.core import gradient
from ssl_gen.core.ema import update_ema
from ssl_gen.core.players import Player
from ssl_gen.networks.layers import Dense
from ssl_gen.types import Average, TrainState, UserError

INPUTS = jax.random.normal(jax.random.key(0), (6, 4))
KEYS = jax.random.split(jax.random.key(1), 3)
PARAMS = {"weight": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.1, -0.4])}


class Net(nn.Module):
    """All that a player has to carry: batch statistics that move, a constant that does not, noise, a second method."""

    def setup(self):
        self.first, self.last = Dense(8), Dense(3)
        self.norm, self.dropout = nn.BatchNorm(momentum=0.9), nn.Dropout(0.5)
        self.shift = self.variable("constants", "shift", lambda: jnp.full(8, 0.5))

    def hidden(self, x, train):
        return nn.relu(self.norm(self.first(x) + self.shift.value, use_running_average=not train))

    def __call__(self, x, train):
        return self.last(self.dropout(self.hidden(x, train), deterministic=not train))


PLAYER = Player("player", Net(), optax.adam(0.1))
STATE = PLAYER.init(KEYS[0], INPUTS)
AVERAGED = STATE._replace(ema=Average(STATE.params, STATE.stats))
RNGS = {"dropout": KEYS[1]}


def assert_close(a, b, rtol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7), a, b)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def applied(state, params=None, **settings):
    """The network as linen applies it."""
    variables = {"params": state.params if params is None else params, **state.stats}
    return PLAYER.network.apply(variables, INPUTS, **settings)


def halved(params):
    return jax.tree.map(lambda leaf: leaf / 2, params)


# Starting


def test_a_player_starts_with_what_linen_and_optax_start_with():
    variables = PLAYER.network.init(KEYS[0], INPUTS, train=False)
    assert_equal(STATE.params, variables["params"])
    assert_equal(STATE.stats, {name: variables[name] for name in ("batch_stats", "constants")})
    assert_equal(STATE.opt, PLAYER.optimizer.init(variables["params"]))


def test_a_player_keeps_an_ema_only_where_it_is_asked_to():
    assert STATE.ema == ()
    assert_equal(dataclasses.replace(PLAYER, ema=True).init(KEYS[0], INPUTS).ema, Average(STATE.params, STATE.stats))


def test_a_player_may_start_in_training_with_a_key_a_stream_and_by_another_method():
    streams = {"params": KEYS[0], "dropout": KEYS[1]}
    assert_equal(PLAYER.init(streams, INPUTS, train=True).params, STATE.params)
    assert set(PLAYER.init(streams, INPUTS, method="hidden").params) == {"first", "norm"}


# Running


def test_a_run_is_the_networks_own_in_training_and_gives_the_collections_after_it():
    outputs, stats = PLAYER.run(STATE, STATE.params, INPUTS, rngs=RNGS)
    expected, moved = applied(STATE, train=True, rngs=RNGS, mutable=["batch_stats"])
    assert_equal(outputs, expected)
    assert_equal(stats, {"constants": STATE.stats["constants"], **moved})
    old, new = STATE.stats["batch_stats"], stats["batch_stats"]
    assert not np.array_equal(old["norm"]["mean"], new["norm"]["mean"])


def test_a_run_takes_the_params_that_it_is_given_and_the_noise_of_its_streams():
    first, *others = (
        PLAYER.run(STATE, params, INPUTS, rngs={"dropout": key})[0]
        for params, key in ((STATE.params, KEYS[1]), (halved(STATE.params), KEYS[1]), (STATE.params, KEYS[2]))
    )
    assert not any(np.array_equal(first, other) for other in others)


def test_a_run_by_another_method_is_that_method():
    outputs, _ = PLAYER.run(STATE, STATE.params, INPUTS, method="hidden")
    assert_equal(outputs, applied(STATE, train=True, method="hidden", mutable=["batch_stats"])[0])


def test_a_forward_pass_is_a_run_at_the_players_own_params_with_its_way_back():
    shared = PLAYER.forward(STATE, INPUTS, rngs=RNGS)
    assert_equal((shared.outputs, shared.stats), PLAYER.run(STATE, STATE.params, INPUTS, rngs=RNGS))
    (found,) = shared.pull(jnp.ones_like(shared.outputs))
    assert_close(found, jax.grad(lambda params: PLAYER.run(STATE, params, INPUTS, rngs=RNGS)[0].sum())(STATE.params))


def test_inference_is_the_networks_own_out_of_training():
    assert_equal(PLAYER.infer(STATE, INPUTS), applied(STATE, train=False))
    assert_equal(PLAYER.infer(STATE, INPUTS, method="hidden"), applied(STATE, train=False, method="hidden"))


def test_inference_is_at_the_ema_where_there_is_one_unless_params_are_given():
    mean = Average(halved(STATE.params), jax.tree.map(lambda leaf: leaf + 1, STATE.stats))
    averaging, state = dataclasses.replace(PLAYER, ema=True), STATE._replace(ema=mean)
    assert_equal(averaging.infer(state, INPUTS), applied(STATE._replace(stats=mean.stats), mean.params, train=False))
    assert_equal(averaging.infer(state, INPUTS, params=state.params), applied(STATE, train=False))
    assert_equal(PLAYER.infer(STATE, INPUTS, params=mean.params), applied(STATE, mean.params, train=False))


# Updating


def loss(player, state, params):
    outputs, stats = player.run(state, params, INPUTS, rngs=RNGS)
    return {"square": jnp.square(outputs).mean(), "sine": 0.3 * jnp.sin(outputs).sum()}, stats


def updated(player, state):
    return player.descend(state, lambda params: loss(player, state, params))


def test_an_update_is_the_gradient_step_under_the_players_name_and_optimizer():
    expected = gradient.descend("player", STATE, PLAYER.optimizer, lambda params: loss(PLAYER, STATE, params))
    assert_equal(updated(PLAYER, STATE), expected)


def test_an_update_on_a_forward_pass_is_the_one_on_a_pass_made_anew():
    shared = PLAYER.forward(STATE, INPUTS, rngs=RNGS)

    def of_outputs(outputs):
        return {"square": jnp.square(outputs).mean(), "sine": 0.3 * jnp.sin(outputs).sum()}

    assert_close(PLAYER.descend(STATE, of_outputs, shared), updated(PLAYER, STATE), rtol=1e-5)


def test_an_update_keeps_the_statistics_of_its_own_pass():
    state, _ = updated(PLAYER, STATE)
    assert_equal(state.stats, PLAYER.run(STATE, STATE.params, INPUTS, rngs=RNGS)[1])


# The EMA


SEEN = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
CONSTANTS = {"constants": jnp.ones(3)}  # untrained, and not moved by a pass
ELSEWHERE = TrainState(None, CONSTANTS, (), Average(jnp.full(3, 100.0), {"constants": jnp.zeros(3)}))


@pytest.mark.parametrize("rate", [1e-4, 0.01, 0.3, 1.0])
def test_the_ema_is_the_weighted_mean_of_the_params_since_the_first_update(rate):
    state = ELSEWHERE
    for step, params in enumerate(SEEN):
        state = update_ema(state._replace(params=jnp.asarray(params)), rate, jnp.int32(step))
        weights = rate * (1 - rate) ** np.arange(step, -1, -1)
        expected = (weights[:, None] * SEEN[: step + 1]).sum(0) / weights.sum()
        np.testing.assert_allclose(state.ema.params, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(state.params, params)
        assert state.ema.stats is state.stats is CONSTANTS


def test_the_ema_takes_the_statistics_of_its_own_pass_where_it_makes_one():
    """A pass at the EMA normalises by the batch, whatever statistics there were, and moves the EMA's alone."""
    averaging = dataclasses.replace(PLAYER, ema=True)
    before = STATE._replace(ema=Average(halved(STATE.params), jax.tree.map(lambda leaf: leaf + 1, STATE.stats)))
    outputs, stats = averaging.run_ema(before, INPUTS, rngs=RNGS)
    expected, moved = applied(
        before._replace(stats=before.ema.stats), before.ema.params, train=True, rngs=RNGS, mutable=["batch_stats"]
    )
    assert_equal(outputs, expected)
    assert_equal(stats, {"constants": before.ema.stats["constants"], **moved})
    after = update_ema(before, 0.1, jnp.int32(3), stats)
    assert_equal(after.ema.stats, stats)
    assert after.stats is before.stats


def test_a_player_averages_itself_with_the_statistics_of_what_it_is_shown():
    averaging, shown = dataclasses.replace(PLAYER, ema=True), INPUTS + 2
    before = STATE._replace(ema=Average(halved(STATE.params), STATE.stats))
    after = averaging.average(before, 0.1, jnp.int32(3), shown, rngs=RNGS)
    _, stats = averaging.run_ema(before, shown, rngs=RNGS)
    assert_equal(after, update_ema(before, 0.1, jnp.int32(3), stats))
    _, moved = averaging.run_ema(before, INPUTS, rngs=RNGS)
    assert not np.array_equal(stats["batch_stats"]["norm"]["mean"], moved["batch_stats"]["norm"]["mean"])
    assert PLAYER.average(STATE, 0.1, jnp.int32(3), shown, rngs=RNGS) is STATE


def test_statistics_without_a_pass_of_the_ema_are_refused():
    with pytest.raises(AssertionError, match="its own passes"):
        update_ema(AVERAGED, 0.1, jnp.int32(3))


def test_a_network_without_statistics_is_averaged_without_a_pass():
    dense = Player("dense", nn.Sequential([nn.Dense(2)]), optax.adam(0.1), ema=True)
    params = {"kernel": jnp.ones((4, 2))}
    state = TrainState(params, {}, (), Average(halved(params), {}))
    assert_equal(dense.average(state, 0.1, jnp.int32(3), None), update_ema(state, 0.1, jnp.int32(3)))


@pytest.mark.parametrize(
    ("name", "changes"), [("supervised", {"averaging": 0.0}), ("mean_teacher", {"averaging": (0.01, 0.0)})]
)
def test_an_ema_that_would_never_move_is_refused_before_the_first_step(name, changes, tmp_path):
    config = dataclasses.replace(ssl_gen.METHODS[name].Config(steps=4, network="mlp", hidden=(8,)), **changes)
    with pytest.raises(UserError, match="averaging is 0: the mean of the params would never move"):
        ssl_gen.train(name, config, dataset="digits", labels=50, out=str(tmp_path / "run"), quiet=True)


def test_a_player_without_an_ema_gets_none():
    before = TrainState(PARAMS, {}, (), ())
    assert update_ema(before, 0.1, jnp.int32(3)) is before


# Precision

NARROW = dataclasses.replace(PLAYER, ema=True, precision="bfloat16")


def types(tree):
    return {leaf.dtype for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}


def test_a_narrow_player_starts_and_stays_in_float32():
    start = NARROW.init(KEYS[0], INPUTS)
    assert_equal(start, AVERAGED)
    state, metrics = updated(NARROW, start)
    state = NARROW.average(state, 0.1, jnp.int32(0), INPUTS, rngs=RNGS)
    assert types((state, metrics)) == {jnp.dtype("float32")}
    assert [leaf.dtype for leaf in jax.tree.leaves(state)] == [leaf.dtype for leaf in jax.tree.leaves(start)]


def test_a_narrow_player_gives_outputs_and_gradients_in_float32():
    shared = NARROW.forward(AVERAGED, INPUTS, rngs=RNGS)
    inferred = NARROW.infer(AVERAGED, INPUTS), NARROW.infer(AVERAGED, INPUTS, method="hidden")
    ways_back = shared.pull(shared.outputs), jax.grad(lambda x: NARROW.infer(AVERAGED, x).sum())(INPUTS)
    assert types((shared.outputs, shared.stats, inferred, ways_back)) == {jnp.dtype("float32")}


def test_a_narrow_players_products_are_narrow_and_a_wide_ones_are_not():
    def products(player):
        text = str(jax.make_jaxpr(lambda params: player.run(AVERAGED, params, INPUTS, rngs=RNGS)[0])(STATE.params))
        return re.findall(r":(\w+)\[[\d,]*\] = dot_general", text)

    assert products(NARROW) == ["bf16", "bf16"] and products(PLAYER) == ["f32", "f32"]


def test_a_narrow_player_is_close_to_a_wide_one():
    """bfloat16 has 8 bits: a relative rounding of 2^-9 a number, some of them in a row."""
    wide, narrow = (player.run(AVERAGED, STATE.params, INPUTS, rngs=RNGS) for player in (PLAYER, NARROW))
    assert not np.array_equal(wide[0], narrow[0])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0.05, atol=0.03), wide, narrow)
    wide, narrow = (updated(player, AVERAGED)[1]["player/gradient_norm"] for player in (PLAYER, NARROW))
    np.testing.assert_allclose(narrow, wide, rtol=0.05)


def test_labels_and_what_is_no_number_pass_a_narrow_player_as_they_are():
    class Asked(nn.Module):
        @nn.compact
        def __call__(self, x, labels, given, train):
            assert labels.dtype == jnp.int32 and given is None
            return Dense(2)(x), labels

    narrow = Player("player", Asked(), optax.sgd(0.1), precision="bfloat16")
    state = narrow.init(KEYS[0], INPUTS, jnp.arange(6), None)
    (_, labels), _ = narrow.run(state, state.params, INPUTS, jnp.arange(6), None)
    assert_equal(labels, jnp.arange(6))


def test_nothing_else_names_a_narrow_type():
    """But for the reader of other people's weights, which refuses them."""
    root = Path(ssl_gen.__file__).parent
    pages = {path for part in ("methods", "networks", "losses", "training") for path in (root / part).rglob("*.py")}
    naming = {path for path in pages if re.search(r"bfloat16|float16", path.read_text())}
    assert len(pages) > 50 and naming <= {root / "networks" / "pretrained" / "weight_files.py"}
