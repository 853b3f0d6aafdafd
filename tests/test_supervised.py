"""Jordan 2024: the recipe that `supervised` trains airbench by."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import IMAGES, SPEC, VISIBLE, batch_of, first_rows, same, some_rows, tiny

from ssl_gen.augmentation import Augmentation
from ssl_gen.augmentation.geometry import alternately_mirrored
from ssl_gen.core.batching import passes
from ssl_gen.core.ema import look_ahead
from ssl_gen.core.keys import INIT, stream
from ssl_gen.core.schedules import airbench, triangular
from ssl_gen.datasets.batches import rows
from ssl_gen.datasets.store import scaled
from ssl_gen.methods.classical import supervised
from ssl_gen.types import Average, Batch, ImageSpec, TrainState, UserError

CIFAR = (32, 32, 3)
RANDOM = np.random.default_rng(0)
KEY = jax.random.key(0)
MIRRORED = jax.jit(alternately_mirrored)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("step, expected", [(0, 0.3), (109, 1.5), (476, 0.105), (2**31 - 1, 0.105)])
def test_a_triangular_rate_at_its_start_its_peak_and_its_end_for_int32_steps(step, expected):
    """Code: 0.2 of the rate at step 0, whole at int(0.23 * 476) = 109, 0.07 at the end."""
    assert jax.jit(triangular(1.5, 476))(jnp.int32(step)) == pytest.approx(expected, rel=1e-6)


def test_a_triangular_rate_rises_and_falls_along_lines():
    schedule = triangular(2.0, 100)
    assert schedule(jnp.int32(10)) == pytest.approx(2 * (0.2 + 0.8 * 10 / 23))
    assert schedule(jnp.int32(61)) == pytest.approx(2 * (1 - 0.93 * 38 / 77))
    assert triangular(2.0, 1)(jnp.int32(0)) == pytest.approx(2.0)  # too short to rise


def test_biases_of_norms_learn_64_times_as_fast_and_that_of_the_whitening_stops():
    """v <- 0.85 v + g + d w, w <- w - rate (g + d w + 0.85 v); d is a 64th where the rate is 64 times."""
    updates, l2 = 10, 0.1
    shapes = {
        "Block_0": {"BatchNorm_0": {"bias": 2}, "first": (3, 3, 2, 2)},
        "Dense_0": {"bias": 3, "kernel": (2, 3)},
        "Whitening_0": {"bias": 2},
    }
    sizes, tree = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple))
    faster = [64, 1, 1, 1, 1]
    weights = [draw(*np.atleast_1d(size), seed=i) for i, size in enumerate(sizes)]
    speeds = [np.zeros_like(each) for each in weights]
    optimizer, found = airbench(0.01, updates, l2), tree.unflatten(map(jnp.float32, weights))
    state = optimizer.init(found)
    for step in range(updates):
        gradients = [draw(*each.shape, seed=100 + 10 * step + i) for i, each in enumerate(weights)]
        changes, state = optimizer.update(tree.unflatten(map(jnp.float32, gradients)), state, found)
        found = optax.apply_updates(found, changes)
        rate = 0.01 * np.interp(step, [0, 2, 10], [0.2, 1, 0.07])
        for i, (times, gradient) in enumerate(zip(faster, gradients, strict=True)):
            slope = gradient + l2 / times * weights[i]
            speeds[i] = 0.85 * speeds[i] + slope
            if i < 4 or step < 3:  # 3 of 9.9 epochs
                weights[i] = weights[i] - times * rate * (slope + 0.85 * speeds[i])
        for leaf, expected in zip(jax.tree.leaves(found), weights, strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-6)


def test_the_rate_and_the_decay_of_the_fast_preset_are_those_of_the_paper_for_means_over_a_batch():
    """Code, for sums: rate 11.5 / (1024 (1 + 1 / (1 - 0.85))), decay in the gradient 0.0153 * 1024 / that / rate."""
    fast = supervised.FAST
    scale = 1024 * (1 + 1 / (1 - 0.85))
    rate, decay = 11.5 / scale, 0.0153 * fast.labelled_batch / scale
    assert fast.learning_rate == pytest.approx(rate * fast.labelled_batch)
    assert fast.l2 == pytest.approx(decay / (rate * fast.labelled_batch), rel=1e-3)
    assert fast.steps == np.ceil(9.9 * (50_000 // 1024))


@functools.cache
def views(seed=0):
    """All epochs' views of each image, by row: mirrored or not; batches of 5 of 12 images, so they cross epochs."""
    seen = {}
    for step in range(12):
        drawn = rows(VISIBLE, np.arange(24), (5, 0), seed, 0, step, 1).labelled[0]
        images = scaled(IMAGES[drawn])
        shown = MIRRORED(images, passes(jnp.int32(step), 5, 12))
        for row, image, view in zip(drawn, images, np.asarray(shown), strict=True):
            straight, mirrored = np.array_equal(view, image), np.array_equal(view, image[:, ::-1])
            assert straight != mirrored
            seen.setdefault(int(row), []).append(mirrored)
    return seen


def test_every_image_is_mirrored_in_every_other_epoch_also_where_a_batch_crosses_two():
    assert sorted(len(each) for each in views().values()) == [5] * 12
    for each in views().values():
        assert each == [each[0] ^ (epoch % 2 == 1) for epoch in range(5)]


def test_about_half_of_the_images_are_mirrored_at_first():
    images = scaled(RANDOM.integers(0, 256, (400, 4, 4, 3), np.uint8))
    shown = MIRRORED(images, jnp.zeros(400, jnp.int32))
    assert (
        150 < sum(not np.array_equal(a, b) for a, b in zip(images, np.asarray(shown), strict=True)) < 250
    )  # 5 deviations


def test_lookahead_meets_the_player_on_its_way_when_it_is_due():
    fast, slow = ({"w": jnp.float32(draw(3, seed=seed))} for seed in (0, 1))
    moving, former = ({"mean": jnp.float32(draw(2, seed=seed))} for seed in (2, 3))
    constants = {"kernel": jnp.float32([0.1, 0.7])}
    state = TrainState(
        fast, {"batch_stats": moving, "constants": constants}, (),
        Average(slow, {"batch_stats": former, "constants": constants}),
    )  # fmt: skip
    assert same(look_ahead(state, 0.3, jnp.bool(False)), state)
    after = look_ahead(state, 0.3, jnp.bool(True))
    np.testing.assert_allclose(after.params["w"], 0.7 * slow["w"] + 0.3 * fast["w"], rtol=1e-5)
    expected = 0.7 * former["mean"] + 0.3 * moving["mean"]
    np.testing.assert_allclose(after.stats["batch_stats"]["mean"], expected, rtol=1e-5)
    assert same(after.ema, Average(after.params, after.stats))
    assert same(after.stats["constants"], constants)


def test_the_slow_weights_go_all_the_way_at_first_and_a_fifth_of_it_at_the_end():
    """Code: what they keep is 0.95^5 (t / T)^3."""
    config = supervised.Config(steps=476, lookahead=5)
    found = [float(supervised.slow_rate(jnp.int32(t - 1), config)) for t in (5, 238, 476)]
    np.testing.assert_allclose(found, [1 - 0.95**5 * (t / 476) ** 3 for t in (5, 238, 476)], rtol=1e-6)


@pytest.fixture(scope="module")
def trained():
    """`supervised` by its fast preset, tiny, and its states after 0 to 4 updates with lookahead 2."""
    changes = {
        field.name: getattr(supervised.FAST, field.name)
        for field in dataclasses.fields(supervised.Config)
        if field.name in ("optimizer", "label_smoothing", "alternating_flip", "network")
    }
    method = tiny("supervised", **changes, lookahead=2, learning_rate=0.1, augmentation=Augmentation(crop=1)).method
    batch = batch_of(jax.tree.map(lambda part: part[0], first_rows()))
    step = jax.jit(method.phases[0].step)
    states = [jax.jit(method.init)(stream(0, INIT), batch)]
    for i in range(4):
        rows_of = some_rows(method, 0, i, 1)
        taken = batch_of(jax.tree.map(lambda part: part[0, 0], rows_of))
        states.append(step(states[-1], stream(0, i), jnp.int32(i), taken)[0])
    return method, states


def test_training_moves_every_parameter_and_leaves_the_whitening(trained):
    _, (first, *_, last) = trained
    assert same(first.classifier.stats["constants"], last.classifier.stats["constants"])
    assert same(first.classifier.stats["constants"], last.classifier.ema.stats["constants"])
    for path, before in jax.tree.leaves_with_path(first.classifier.params):
        after = functools.reduce(lambda tree, part: tree[part.key], path, last.classifier.params)
        assert not np.array_equal(before, after), jax.tree_util.keystr(path)


def test_the_player_is_back_at_its_slow_weights_every_other_update(trained):
    _, states = trained
    together = [same(s.classifier.params, s.classifier.ema.params) for s in states]
    assert together == [True, False, True, False, True]


def test_the_fast_preset_fits_photographs():
    spec = ImageSpec(*CIFAR, 10, 50_000, 50_000)
    method = supervised.make(supervised.FAST, spec)
    image, label = (functools.partial(jax.ShapeDtypeStruct, dtype=kind) for kind in (jnp.float32, jnp.int32))
    batch = Batch(image((1024, *CIFAR)), label((1024,)), image((0, *CIFAR)))
    state = jax.eval_shape(method.init, KEY, batch)
    after, metrics = jax.eval_shape(method.phases[0].step, state, KEY, jnp.int32(0), batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert metrics.keys() == {"classifier/supervised", "classifier/gradient_norm"}


@pytest.mark.parametrize(
    "changes, labelled, words",
    [
        ({"augmentation": Augmentation(flip=True)}, 12, "leave out one of them"),
        ({}, None, "give the ImageSpec's labelled"),
        ({"steps": 2**25, "labelled_batch": 64}, 12, "give fewer steps"),
    ],
    ids=["flip", "count", "long"],
)
def test_an_alternating_flip_that_cannot_be_had_is_refused(changes, labelled, words):
    config = supervised.Config(alternating_flip=True, **changes)
    with pytest.raises(UserError, match=words):
        supervised.make(config, SPEC._replace(labelled=labelled))
