"""Learning rates over a run, and what weight decay touches."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_gen.core import schedules
from ssl_gen.core.ema import update_ema
from ssl_gen.core.schedules import (
    airbench,
    annealed,
    clipped,
    decaying,
    half_cosine,
    kernels,
    linear_ramp,
    partly_cosine,
    partly_cosine_optimizer,
    preceded,
    ramp_down,
    ramp_up,
    ramped_adam,
    staged,
    triangular,
)
from ssl_gen.losses.likelihood import running
from ssl_gen.losses.thresholds import signal_ceiling
from ssl_gen.methods.adversarial import triple_gan
from ssl_gen.methods.classical import supervised
from ssl_gen.methods.self_training import ada_match, fixmatch, meta_pseudo_labels, pseudo_label, vat
from ssl_gen.methods.variational import vae
from ssl_gen.types import Average, TrainState


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_an_annealed_rate_is_constant_until_its_last_share_and_0_at_the_end(share):
    rate, updates = annealed(0.1, 8, share), np.arange(9)
    found = [rate(update) if callable(rate) else rate for update in updates]
    left = 1 - updates / 8
    np.testing.assert_allclose(found, 0.1 * np.minimum(1, left / share) if share else np.full(9, 0.1), atol=1e-8)


def test_a_staged_rate_is_multiplied_at_the_end_of_each_of_equal_parts():
    schedule = staged(0.4, 10, 5, 0.75)
    np.testing.assert_allclose([schedule(step) for step in range(10)], 0.4 * 0.75 ** (np.arange(10) // 2), rtol=1e-6)


def test_a_partly_cosine_rate_begins_whole_and_ends_at_a_fifth():
    schedule = partly_cosine(0.5, 100)
    assert schedule(0) == 0.5
    assert schedule(100) == pytest.approx(0.5 * math.sin(math.pi / 16))  # cos(7 pi / 16)
    assert schedule(50) == pytest.approx(0.5 * math.cos(7 * math.pi / 32))


def test_a_number_goes_from_one_value_to_another_along_half_a_cosine_and_stays():
    schedule = half_cosine(0.9, 0.99, 100)
    found = [float(schedule(jnp.int32(step))) for step in (0, 25, 50, 100, 1_000)]
    np.testing.assert_allclose(found, [0.9, 0.99 - 0.09 * (1 + math.sqrt(0.5)) / 2, 0.945, 0.99, 0.99], rtol=1e-6)


def test_kernels_are_what_has_two_axes_or_more():
    params = {"dense": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}, "norm": {"scale": jnp.zeros(3)}}
    assert kernels(params) == {"dense": {"kernel": True, "bias": False}, "norm": {"scale": False}}


def updates_of(optimizer, params, gradients):
    state, found = optimizer.init(params), []
    for gradient in gradients:
        change, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, change)
        found.append(params)
    return found


def test_sgd_has_nesterovs_momentum_and_decays_kernels_in_its_gradient():
    """tf.train.MomentumOptimizer with use_nesterov: a <- 0.9 a + g, w <- w - rate (g + 0.9 a)."""
    random = np.random.default_rng(0)
    kernel, bias = random.normal(size=(2, 3)), random.normal(size=3)
    gradients = [{"kernel": random.normal(size=(2, 3)), "bias": random.normal(size=3)} for _ in range(5)]
    params = jax.tree.map(jnp.float32, {"kernel": kernel, "bias": bias})
    found = updates_of(decaying("sgd", 0.03, 5, 0.1), params, [jax.tree.map(jnp.float32, each) for each in gradients])
    memory = {"kernel": 0.0, "bias": 0.0}
    weights, decay = {"kernel": kernel, "bias": bias}, {"kernel": 0.1, "bias": 0.0}
    for step, (gradient, after) in enumerate(zip(gradients, found, strict=True)):
        rate = 0.03 * math.cos(7 * math.pi * step / (16 * 5))
        for name in weights:
            slope = gradient[name] + decay[name] * weights[name]
            memory[name] = 0.9 * memory[name] + slope
            weights[name] = weights[name] - rate * (slope + 0.9 * memory[name])
            np.testing.assert_allclose(after[name], weights[name], rtol=1e-5)


def test_the_floor_on_photographs_has_the_network_the_optimiser_and_the_length_of_fixmatch():
    rivals = [module.PHOTOGRAPHS for module in (fixmatch, supervised, pseudo_label)]
    shared = ("steps", "labelled_batch", "network", "width", "dropout", "optimizer", "learning_rate", "averaging")
    for name in (*shared, "augmentation"):
        assert len({getattr(config, name) for config in rivals}) == 1, name
    assert {fixmatch.PHOTOGRAPHS.weight_decay, supervised.PHOTOGRAPHS.l2, pseudo_label.PHOTOGRAPHS.l2} == {5e-4}
    rival = fixmatch.PHOTOGRAPHS
    theirs = partly_cosine_optimizer(rival.optimizer, rival.learning_rate, rival.steps, rival.weight_decay)
    ours = decaying("sgd", 0.03, 2**20, 5e-4)
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    jax.tree.map(np.testing.assert_array_equal, *(updates_of(each, params, [params] * 2) for each in (ours, theirs)))


LONG = 9_840_000  # updates; the longest default, of vae
STEPS = (0, 1, 327_361, LONG // 2, LONG - 1, 2**31 - 1)  # at 327,361 an int32 product with 3^8 - 1 wraps


def stage(step):
    """Of the paper's eight, the first as long as (3 - 1) / (3^8 - 1) of all updates."""
    ends = (3.0 ** np.arange(1, 9) - 1) / (3.0**8 - 1) * LONG
    return min(int((step >= ends).sum()), 7)


def test_a_clipped_gradient_has_the_decay_of_kernels_in_it_and_is_scaled_down_before_its_entries_are_held():
    params = {"kernel": jnp.array([[2.0, 4.0]]), "bias": jnp.array([1.0])}
    gradients = {"kernel": jnp.array([[2.0, 2.0]]), "bias": jnp.array([6.0])}
    optimizer = clipped(optax.sgd(1.0), l2=0.5, norm=3.5, most=2.5)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    # with the decay 3, 4 and 6, of norm sqrt(61); the last one is still above 2.5 when that is 3.5
    assert 6 * 3.5 / math.sqrt(61) > 2.5
    np.testing.assert_allclose(updates["kernel"], -np.array([[3.0, 4.0]]) * 3.5 / math.sqrt(61), rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], [-2.5], rtol=1e-6)


@pytest.mark.parametrize("step", STEPS[:-1])
def test_the_stages_of_a_vae_are_the_papers_for_int32_steps(step):
    rate = vae.falling(1e-3, LONG, jnp.int32(step))
    np.testing.assert_allclose(rate, 1e-3 * 10 ** (-stage(step) / 7), rtol=1e-5)


def started(optimizer, weights, step):
    """An optimiser's state that has counted so many updates, wherever it counts them."""
    state = optimizer.init(weights)
    return jax.tree.map(lambda leaf: step if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf, state)


def update_of(optimizer, module="Dense_0"):
    """step -> what a gradient of 1 then does to a weight of `module` that is 0."""

    def at(step):
        weights = {module: {"bias": jnp.zeros(())}}
        updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, weights), started(optimizer, weights, step), weights)
        return updates[module]["bias"]

    return at


def hyperparameter(optimizer, name):
    """step -> what an optimiser whose settings change has for `name` then."""

    def at(step):
        weights = jnp.zeros(())
        return optimizer.update(jnp.ones(()), started(optimizer, weights, step), weights)[1].hyperparams[name]

    return at


def moved_by(step):
    """How far the EMA goes to a player, of which it is 1 away."""
    player = TrainState(jnp.ones(()), {}, (), Average(jnp.zeros(()), {}))
    return update_ema(player, 1e-4, step).ema.params


def generated(step):
    """The weight of generated images in Triple GAN's classifier, whose cross entropy is log 2."""
    config = triple_gan.Config(steps=LONG, generated_from=0.4, entropy=0.0, balance=0.0, adversarial=0.0)
    logits, labels = jnp.zeros((1, 2)), jnp.zeros(1, int)
    drawn = triple_gan.Drawn(jnp.zeros((1, 1, 1, 1)), labels, jnp.zeros(1))
    shown = {"labelled": logits, "unlabelled": logits, "drawn": logits}
    return triple_gan.classifier_terms(config, shown, labels, logits, drawn, step)["generated"]


RAMPED = ramped_adam(3e-3, LONG, LONG / 3, LONG / 6, (0.9, 0.5), (0.99, 0.999))
VAT = vat.adam(vat.Config(steps=LONG, anneal=0.4))
TEACHER, STUDENT = meta_pseudo_labels.optimizers(meta_pseudo_labels.Config(steps=LONG))
AIRBENCH = airbench(1.5, LONG, 0.0)
SCHEDULES = {
    "vae": lambda step: vae.falling(1e-3, LONG, step),
    "partly_cosine": partly_cosine(1e-3, LONG),
    "annealed": annealed(1e-3, LONG, 0.5),
    "staged": staged(3e-4, LONG, 5, 0.75),  # sdgm and adgm
    "preceded": preceded(3e-4, 0.03 * LONG, annealed(1e-3, LONG, 1.0)),  # triple_gan's classifier
    "preceded, numbers": preceded(0.99, LONG / 3, 0.999),  # mean_teacher's averaging
    "half_cosine": half_cosine(0.9, 0.99, LONG),  # r3gan
    "half_cosine, from 0": half_cosine(0.0, 0.1 * LONG, LONG),  # r3gan's half-life
    "triangular": triangular(1.5, LONG),
    "ramp_up": lambda step: ramp_up(step, LONG / 3),
    "ramp_down": lambda step: ramp_down(step, LONG / 6, LONG),
    "linear_ramp": lambda step: linear_ramp(step, 0.1 * LONG, 0.6 * LONG),
    "linear_ramp, from 0": lambda step: linear_ramp(step, 0, 0.6 * LONG),
    "slow_rate": lambda step: supervised.slow_rate(step, supervised.Config(steps=LONG, lookahead=5)),
    "due": lambda step: supervised.due(step, supervised.Config(steps=LONG, lookahead=7)),
    "rise": lambda step: ada_match.rise(step / LONG),
    "ceiling, linear": lambda step: signal_ceiling("linear", step / LONG, 10),  # uda
    "ceiling, log": lambda step: signal_ceiling("log", step / LONG, 10),
    "ceiling, exp": lambda step: signal_ceiling("exp", jnp.minimum(step / LONG, 1), 10),  # past the end it overflows
    "generated": generated,
    "average": moved_by,
    "running": lambda step: LONG * running(jnp.zeros((2, 1)), jnp.ones((1, 1)), step)[0, 0],  # m1's moments
    "decaying, adam": update_of(decaying("adam", 1e-3, LONG, 0.0)),
    "decaying, sgd": update_of(decaying("sgd", 1e-3, LONG, 0.0)),
    "partly_cosine_optimizer": update_of(partly_cosine_optimizer("adamw", 2e-3, LONG, 5e-4)),
    "airbench, norms": update_of(AIRBENCH, "BatchNorm_0"),
    "airbench, whitening": update_of(AIRBENCH, "Whitening_0"),
    "airbench, others": update_of(AIRBENCH),
    "ramped_adam": update_of(RAMPED),  # mean_teacher, pi_model, temporal_ensembling
    "ramped_adam, b1": hyperparameter(RAMPED, "b1"),
    "ramped_adam, b2": hyperparameter(RAMPED, "b2"),
    "vat": update_of(VAT),
    "vat, b1": hyperparameter(VAT, "b1"),
    "meta_pseudo_labels, teacher": update_of(TEACHER),
    "meta_pseudo_labels, student": update_of(STUDENT),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_what_it_is_in_float64_however_large_an_int32_step_is(name):
    schedule = SCHEDULES[name]
    given = [float(value) for value in jax.jit(jax.vmap(schedule))(jnp.array(STEPS, jnp.int32))]
    with jax.enable_x64(True):
        expected = [float(schedule(jnp.float64(step))) for step in STEPS]
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-7)
    assert len(set(expected)) > 1  # it is no constant


def test_every_schedule_that_methods_share_is_tested_with_large_steps():
    """`core.schedules`: what takes a step, or the number of updates that it is for."""
    functions = [value for value in vars(schedules).values() if inspect.isfunction(value)]
    own = [function for function in functions if function.__module__ == schedules.__name__]
    shared = {each.__name__ for each in own if {"step", "steps", "updates"} & inspect.signature(each).parameters.keys()}
    tested = {name.partition(",")[0] for name in SCHEDULES}
    assert "staged" in shared and shared <= tested, shared - tested
