"""Huang et al. 2024: what the players lose, by hand, for networks start linear; what moves over a run; any size."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import IMAGES, SPEC, STEPS, batch_at, first_batch, tiny

from ssl_gen.core import gradient
from ssl_gen.methods.adversarial import r3gan
from ssl_gen.methods.adversarial.r3gan import Config
from ssl_gen.networks import residual
from ssl_gen.types import UserError

GUESSES = np.array([0, 1, 2, 2, 1, -1, -1, 0])
REAL = np.float32(IMAGES[:8]) / 127.5 - 1
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def linear_state():
    """A first state with players of any weights, but for those of blocks, which add nothing, as at their start."""
    random = np.random.default_rng(0)

    def drawn(path, leaf):
        still = "Residual" in jax.tree_util.keystr(path)
        return jnp.asarray(np.zeros(leaf.shape) if still else random.normal(0, 0.5, leaf.shape), leaf.dtype)

    return jax.tree.map_with_path(drawn, jax.eval_shape(tiny("r3gan").method.init, KEY, first_batch()))


@pytest.fixture(scope="module")
def seen_at(linear_state):
    """step -> what each player loses at a step, the generated images, and the rate of the mean; nothing is updated."""
    batch = batch_at(tiny("r3gan").method)._replace(unlabelled=jnp.asarray(REAL), guesses=jnp.asarray(GUESSES))

    @jax.jit
    def seen(step):
        found = {}

        def watch(name, player, optimizer, loss, forward=None):
            found[name] = loss(forward.outputs) if forward else loss(player.params)[0]
            found["fake"] = forward.outputs if forward else None
            return player, {}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gradient, "descend", watch)
            patch.setattr(r3gan, "update_ema", lambda player, rate, step: found.update(rate=rate) or player)
            tiny("r3gan").method.phases[0].step(linear_state, KEY, step, batch)
        return found

    return seen


def direction(params, label):
    """The image that a discriminator, whose blocks add nothing yet, multiplies others with: (H W C,)."""
    of_class, of_none = (np.asarray(params["Score_0"][name]["kernel"]) for name in ("Dense_0", "Dense_1"))
    return params["Dense_0"]["kernel"] @ (of_none[:, 0] + (of_class[:, label] if label >= 0 else 0))


@pytest.mark.parametrize(
    ("step", "gamma", "rate"),
    [(0, 0.05, 1), (STEPS // 2, 0.0275, 1 - 0.5**2), (STEPS, 0.005, 1 - 0.5)],  # half-lives of 0, 0.5 and 1 step
)
def test_the_players_lose_what_the_paper_says_at_the_gamma_of_the_step(step, gamma, rate, linear_state, seen_at):
    seen = seen_at(jnp.int32(step))
    directions = np.stack([direction(linear_state.discriminator.params, label) for label in GUESSES])
    real, fake = ((np.asarray(part).reshape(8, -1) * directions).sum(1) for part in (REAL, seen["fake"]))
    slopes = gamma / 2 * (directions**2).sum(1).mean()
    expected = {"relativistic": np.log1p(np.exp(fake - real)).mean(), "r1": slopes, "r2": slopes}
    assert seen["discriminator"].keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(seen["discriminator"][name], value, rtol=1e-4)
    np.testing.assert_allclose(seen["generator"]["adversarial"], np.log1p(np.exp(real - fake)).mean(), rtol=1e-4)
    np.testing.assert_allclose(seen["rate"], rate, rtol=1e-5)


def test_half_of_a_mean_is_younger_than_its_half_life():
    for half_life in (1, 7, 10_000):
        assert (1 - np.float64(r3gan.averaging_rate(jnp.float32(half_life)))) ** half_life == pytest.approx(0.5, 1e-3)


def test_generated_images_are_linear_in_the_latents_and_the_class_at_first(linear_state):
    params, latents = linear_state.generator.params, np.random.default_rng(0).normal(size=(3, 4))
    numbers = {name: np.asarray(layer["kernel"]) for name, layer in params["Numbers_0"].items()}
    classes = np.stack([numbers["Dense_0"][0], numbers["Dense_0"][2], np.zeros(4)])  # of 0, 2 and none
    expected = np.concatenate([latents, classes], 1) @ numbers["Dense_1"] @ params["Dense_0"]["kernel"]
    network = residual.DenseGenerator(SPEC.shape, SPEC.classes, 4, 1)
    found = network.apply({"params": params}, jnp.float32(latents), jnp.array([0, 2, -1]), train=True)
    np.testing.assert_allclose(found.reshape(3, -1), expected, atol=1e-5)


def test_a_block_adds_nothing_at_first_and_its_layers_are_the_smaller_the_more_blocks_there_are():
    maps = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3, 64)), jnp.float32)
    found, variables = jax.jit(lambda x: residual.Residual(16).init_with_output(KEY, x, train=True))(maps)
    np.testing.assert_array_equal(found, maps)
    first, middle, last = (variables["params"][name]["kernel"] for name in ("Dense_0", "Convolution_0", "Dense_1"))
    assert not last.any()
    for kernel, inputs in ((first, 64), (middle, 9 * 64)):
        deviation = math.sqrt(2 / (1 + 0.2**2) / inputs) * 16 ** (-1 / 4)  # He et al. 2015; Fixup of 3 layers
        assert float(kernel.std()) == pytest.approx(deviation, rel=0.05)


def test_sides_halve_until_the_shorter_is_below_8():
    assert residual.sides_of((8, 8)) == [(8, 8), (4, 4)]
    assert residual.sides_of((28, 28, 1)) == [(28, 28), (14, 14), (7, 7)]
    assert residual.sides_of((33, 47)) == [(33, 47), (17, 24), (9, 12), (5, 6)]
    with pytest.raises(UserError, match="7 x 40 pixels are too small"):
        residual.sides_of((7, 40))


@pytest.mark.parametrize("network", ["residual", "mlp"])
@pytest.mark.parametrize("sides", [(8, 8, 1), (33, 47, 3)])
def test_networks_take_images_of_any_size(network, sides):
    spec = SPEC._replace(height=sides[0], width=sides[1], channels=sides[2])
    method = r3gan.make(Config(network=network, width=4, blocks=1), spec)
    state = jax.eval_shape(method.init, KEY, None)
    labels = jax.ShapeDtypeStruct((5,), jnp.int32)
    images = jax.eval_shape(lambda state, labels: method.sample(state, KEY, labels, method.sampler), state, labels)
    assert images.shape == (5, *sides)


@pytest.mark.slow
def test_a_residual_discriminator_is_linear_at_first():
    network, images = residual.Discriminator(3, 4, 1), np.random.default_rng(0).normal(size=(2, 8, 9, 2))
    shown = jnp.asarray([*images, 2 * images[0] - 3 * images[1]], jnp.float32)
    logits, _ = jax.jit(lambda x: network.init_with_output(KEY, x, jnp.ones(3, jnp.int32), train=True))(shown)
    np.testing.assert_allclose(logits[2], 2 * logits[0] - 3 * logits[1], atol=1e-4)


@pytest.mark.parametrize(("unlabelled", "told"), [("guessed", "guessed"), ("null", "visible"), ("left_out", "nothing")])
def test_what_is_told_of_images_without_a_label_decides_which_images_a_step_sees(unlabelled, told):
    method = r3gan.make(Config(unlabelled=unlabelled, labelled_batch=5, unlabelled_batch=7), SPEC)
    sizes = (5, 0) if unlabelled == "left_out" else (0, 7)
    assert method.told == told and (method.phases[0].labelled, method.phases[0].unlabelled) == sizes


@pytest.mark.parametrize("field", ["network", "unlabelled"])
def test_a_choice_that_is_none_is_answered_in_one_line(field):
    with pytest.raises(UserError, match=f"{field} is 'other': choose one of"):
        r3gan.make(Config(**{field: "other"}), SPEC)


@pytest.mark.slow
def test_the_residual_networks_train_to_the_end_of_their_schedules():
    method = tiny("r3gan", network="residual").method
    before = state = jax.jit(method.init)(KEY, first_batch())
    step = jax.jit(method.phases[0].step)
    for number in range(STEPS + 1):
        state, metrics = step(state, jax.random.fold_in(KEY, number), jnp.int32(number), batch_at(method))
    assert np.isfinite(list(metrics.values())).all()
    for player, first in zip(state, before, strict=True):
        moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), player.params, first.params)
        assert all(jax.tree.leaves(moved)), moved
        assert player.opt.hyperparams["learning_rate"] == pytest.approx(5e-5)
        assert player.opt.hyperparams["b2"] == pytest.approx(0.99)
