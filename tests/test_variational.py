"""Kingma and Welling 2014, Kingma et al. 2014: bounds and weights of whole models, got another way as well."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import norm
from tiny import IMAGES, SPEC, first_rows, tiny

from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.core.batching import interleave, separate
from ssl_gen.core.keys import INIT, OBSERVED, stream
from ssl_gen.losses.likelihood import semi_supervised_terms
from ssl_gen.methods import METHODS
from ssl_gen.methods.variational import stacked_m1_m2, vae
from ssl_gen.networks.mlp import Perceptron
from ssl_gen.networks.variational import Autoencoder, autoencoder
from ssl_gen.types import Batch, TrainState, UserError

NAMES = ["vae", "m1", "m2", "stacked_m1_m2", "sdgm", "adgm"]
SCALED = IMAGES.astype(np.float32) / 127.5 - 1
LABELS = jnp.array([0, 2, 1, 1])
BATCH = Batch(SCALED[:4], LABELS, SCALED[4:12])
BINARY = jnp.where(SCALED[:3] > 0, 1.0, -1.0)  # where binarising changes nothing
CHANGES = {"stacked_m1_m2": {"features": 3, "least_deviation": 0.1}}  # 3: not to be confused with the 4 of `latent`


def started(name, method):
    labelled, labels, unlabelled, _ = (part[0] for part in first_rows())
    state = jax.jit(method.init)(stream(0, INIT), Batch(SCALED[labelled], labels, SCALED[unlabelled]))
    if "moments" in state._fields:  # the last latent tells nothing
        state = state._replace(moments=state.moments.at[1, :-1].set(1.0))
    if name in ("sdgm", "adgm"):  # those of a, 3 wide, start so near N(0, 1) that nothing could go wrong with them
        state = mapped(state, lambda names, leaf: 300 * leaf if leaf.shape[-1] == 6 and "kernel" in names else leaf)
    return state


def stepped(method, phase, state, step, batch=BATCH):
    """The metrics of one step of run 0."""
    return jax.jit(method.phases[phase].step)(state, stream(0, step), jnp.int32(step), batch)[1]


def mapped(state, change):
    """The state with change(name, leaf) in the place of every leaf of the players' params."""

    def changed(path, leaf):
        return change(jax.tree_util.keystr(path), leaf)

    players = {
        field: player._replace(params=jax.tree.map_with_path(changed, player.params))
        for field, player in state._asdict().items()
        if isinstance(player, TrainState)
    }
    return state._replace(**players)


@functools.cache
def model(name):
    method = tiny(name, **CHANGES.get(name, {})).method
    return method, started(name, method)


def log_mean_exp(values):
    """Over the first axis, and its standard error."""
    largest = values.max(0)
    weights = np.exp(np.float64(values) - largest)
    mean = weights.mean(0)
    return largest + np.log(mean), weights.std(0) / mean / np.sqrt(len(values))


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_weight_of_an_image_is_its_probability_under_the_model(name):
    method, state = model(name)
    # Posteriors near the prior: where one is narrower than the exact one, few of its draws carry the whole mean.
    state = mapped(state, lambda names, leaf: 0.3 * leaf if "encoder" in names else leaf)
    keys = jax.random.split(jax.random.key(1), 10_000)
    log_weights = jax.jit(jax.vmap(method.log_weight, (None, None, 0, None)))(state, stream(0, OBSERVED), keys, BINARY)
    found, error = log_mean_exp(np.asarray(log_weights))
    sample = jax.jit(method.sample, static_argnums=3)
    means = sample(state, jax.random.key(2), jnp.arange(30_000) % SPEC.classes, method.sampler)
    p = np.float64(means + 1) / 2
    densities = [np.where(image > 0, np.log(p), np.log1p(-p)).sum((1, 2, 3)) for image in BINARY]
    expected, other = zip(*map(log_mean_exp, densities), strict=True)
    errors = np.hypot(error, other)
    assert (errors < 0.3).all(), errors
    assert (np.abs(found - expected) < 4 * errors).all(), (found, expected, errors)
    assert np.ptp(found) > 5 * errors.max()  # images are told apart


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_binarised_once_for_all_draws_of_its_latents(name):
    method, state = model(name)

    def forgetful(names, leaf):
        """Only the last bias of the decoder of images is left: it alone makes the images, whatever the latents are."""
        kept = leaf.shape == (SPEC.height * SPEC.width,) and "decoder" in names
        return jnp.linspace(-3.0, 3.0, leaf.size) if kept else jnp.zeros_like(leaf)

    state, grey = mapped(state, forgetful), jnp.zeros((2, *SPEC.shape))
    weigh = jax.jit(method.log_weight)
    weights = [weigh(state, stream(0, OBSERVED), jax.random.key(seed), grey) for seed in (0, 1)]
    np.testing.assert_allclose(*weights, rtol=1e-4)
    assert abs(weights[0][0] - weights[0][1]) > 0.1  # each image on its own


@pytest.mark.parametrize("name", NAMES)
def test_images_are_reconstructed_from_their_latents(name):
    method, state = model(name)
    latents = jax.jit(method.encode)(state, SCALED[:5])
    images = jax.jit(method.decode)(state, latents, jnp.arange(5) % SPEC.classes)
    assert images.shape == (5, *SPEC.shape) and np.abs(images).max() <= 1
    others = jax.jit(method.decode)(state, latents, (jnp.arange(5) + 1) % SPEC.classes)
    assert bool((images != others).any()) == method.conditional


def costs(network, params, log_density, x, labels, noise):
    """L(x, y) in float64: x (B, ...), labels (B,), noise (B, Z) -> (B,) nats."""
    parts = network.apply({"params": params}, x, labels, noise, train=False)
    outputs, mean, log_variance = (np.float64(part) for part in parts)
    divergence = (np.exp(log_variance) + mean**2 - 1 - log_variance).sum(-1) / 2
    return np.log(SPEC.classes) + divergence - log_density(np.float64(x), outputs)


def check_terms(metrics, player, cost, labelled, labels, unlabelled, noise, log_q):
    """The three terms of J at alpha = 3 and a labelled share of 1/4, class by class."""
    own, others = separate(noise, (4, 8 * 3))
    every = others.reshape(8, 3, 4)
    bound = sum(np.exp(log_q[4:, y]) * (cost(unlabelled, jnp.full(8, y), every[:, y]) + log_q[4:, y]) for y in range(3))
    np.testing.assert_allclose(metrics[f"{player}/unlabelled"], 0.75 * bound.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics[f"{player}/labelled"], 0.25 * cost(labelled, labels, own).mean(), rtol=1e-4)
    given = log_q[np.arange(4), labels]
    np.testing.assert_allclose(metrics[f"{player}/classification"], -3.0 * given.mean(), rtol=1e-4)


def test_m2_adds_up_the_bounds_of_every_class():
    method = tiny("m2", binarise=False, alpha=3.0, labelled_share=0.25, augmentation=Augmentation()).method
    state = started("m2", method)
    metrics = stepped(method, 0, state, 0)

    def log_density(images, logits):
        pixels = (images + 1) / 2
        return (pixels * logits - np.logaddexp(0, logits)).sum((1, 2, 3))

    network = autoencoder("mlp", SPEC, 1, 4, (4, 4), 4, classifier=True)
    cost = functools.partial(costs, network, state.model.params, log_density)
    noise = jax.random.normal(jax.random.split(stream(0, 0), 3)[2], (4 + 8 * 3, 4))
    log_q = np.float64(method.classify(state, SCALED[:12]))
    check_terms(metrics, "model", cost, *BATCH[:3], noise, log_q)


def test_the_stacked_model_adds_up_the_bounds_of_every_class_on_draws_of_the_first():
    method = tiny("stacked_m1_m2", alpha=3.0, labelled_share=0.25, augmentation=Augmentation()).method
    state = started("stacked_m1_m2", method)
    metrics = stepped(method, 1, state, 2)
    _, z_key, v_key = jax.random.split(stream(0, 2), 3)
    first = autoencoder("mlp", SPEC, 1, 4, (4, 4), 4)
    images = interleave(BATCH.labelled, BATCH.unlabelled)
    mean, log_variance = first.apply({"params": state.m1.params}, images, None, train=False, method="encode")
    z = mean + jnp.exp(log_variance / 2) * jax.random.normal(z_key, (12, 4))

    def log_density(z, outputs):
        mean, log_variance = np.split(outputs, 2, -1)
        return norm.logpdf(z, mean, np.exp(log_variance / 2)).sum(-1)

    second = Autoencoder(Perceptron(8, 3, (4, 4)), Perceptron(8, 3, (4, 4)), Perceptron(3, 3, (4, 4)))
    cost = functools.partial(costs, second, state.m2.params, log_density)
    noise = jax.random.normal(v_key, (4 + 8 * 3, 4))
    labelled, unlabelled = separate(z, (4, 8))
    logits = second.apply(
        {"params": state.m2.params}, jnp.concatenate([labelled, unlabelled]), train=False, method="classify"
    )
    log_q = np.float64(jax.nn.log_softmax(logits))
    check_terms(metrics, "m2", cost, labelled, LABELS, unlabelled, noise, log_q)


@pytest.mark.parametrize(("name", "player"), [("vae", "autoencoder"), ("m1", "autoencoder"), ("stacked_m1_m2", "m1")])
def test_a_model_of_images_loses_what_it_does_not_give_back_and_what_its_latents_tell(name, player):
    stacked = name == "stacked_m1_m2"
    still = {"augmentation": Augmentation()} if stacked else {}
    method = tiny(name, binarise=False, **CHANGES.get(name, {}), **still).method
    state, key = started(name, method), stream(0, 0)
    metrics = stepped(method, 0, state, 0)
    images, params = BATCH.unlabelled, getattr(state, player).params
    width, pieces = (3, 3) if stacked else (4, 2)
    noise = jax.random.normal(jax.random.split(key, pieces)[-1], (len(images), width))
    activation = {"activation": jnp.tanh} if name == "vae" else {}
    network = autoencoder("mlp", SPEC, 1, width, (4, 4), 4, **activation)
    parts = network.apply({"params": params}, images, None, noise, train=False)
    logits, mean, log_variance = (np.float64(part) for part in parts)
    pixels = (np.float64(images) + 1) / 2
    nats = (np.logaddexp(0, logits) - pixels * logits).sum((1, 2, 3)).mean()
    divergence = (np.exp(log_variance) + mean**2 - 1 - log_variance).sum(-1).mean() / 2
    np.testing.assert_allclose(metrics[f"{player}/reconstruction"], nats, rtol=1e-4)
    np.testing.assert_allclose(metrics[f"{player}/divergence"], divergence, rtol=1e-4)


COUNTS = {  # images with labels, of the pool, l, 1 / N
    "100 of the paper's 50,000, kept out of the pool": (100, 49_900, 0.002, 2e-5),
    "3,000 of them": (3_000, 47_000, 0.06, 2e-5),
    "100 of 1,297, in the pool too": (100, 1_297, 100 / 1_397, 1 / 1_397),
    "all, in the pool too": (1_297, 1_297, 0.5, 1 / 2_594),
}


@pytest.mark.parametrize("case", COUNTS)
@pytest.mark.parametrize("name", ["m1", "m2", "stacked_m1_m2"])
def test_the_share_of_labels_and_the_prior_of_the_weights_are_those_of_the_mask(name, case, monkeypatch):
    labelled, unlabelled, share, l2 = COUNTS[case]
    config, module, shares, decays = tiny(name).config, METHODS[name], [], []
    monkeypatch.setattr(module.optax, "add_decayed_weights", lambda rate: decays.append(rate) or optax.identity())
    if name != "m1":

        def terms(costs, log_q, labels, share, alpha):
            shares.append(share)
            return semi_supervised_terms(costs, log_q, labels, share, alpha)

        monkeypatch.setattr(module, "semi_supervised_terms", terms)
    method = module.make(config, SPEC._replace(labelled=labelled, unlabelled=unlabelled))
    state = jax.eval_shape(method.init, stream(0, INIT), BATCH)
    jax.eval_shape(method.phases[-1].step, state, stream(0, 0), jnp.int32(0), BATCH)
    assert shares == ([] if name == "m1" else [pytest.approx(share)])
    assert decays and all(decay == pytest.approx(l2) for decay in decays)


@pytest.mark.parametrize("name", ["m1", "m2", "stacked_m1_m2"])
def test_where_the_numbers_of_images_are_not_known_the_setting_is_asked_for(name):
    module, unknown, given = METHODS[name], SPEC._replace(unlabelled=None), {"l2": 2e-5}
    with pytest.raises(UserError, match="depends on how many images there are") as error:
        module.make(tiny(name).config, unknown)
    assert "\n" not in str(error.value)
    if name != "m1":
        with pytest.raises(UserError, match="labelled_share depends"):
            module.make(dataclasses.replace(tiny(name).config, **given), unknown)
        given |= {"labelled_share": 0.002}
    assert module.make(dataclasses.replace(tiny(name).config, **given), unknown).phases


@pytest.mark.parametrize("phase", [0, 1])
def test_both_phases_of_the_stacked_model_see_moved_images(phase):
    moving, still = (tiny("stacked_m1_m2", augmentation=Augmentation(translate=move)).method for move in (3.0, 0.0))
    state = started("stacked_m1_m2", still)
    key = jax.random.split(stream(0, 2 * phase), 3)[0]
    move = functools.partial(augment, Augmentation(translate=3.0), key)
    if phase == 0:
        moved = BATCH._replace(unlabelled=move(BATCH.unlabelled))
    else:
        labelled, unlabelled = separate(move(interleave(BATCH.labelled, BATCH.unlabelled)), (4, 8))
        moved = BATCH._replace(labelled=labelled, unlabelled=unlabelled)
    found = stepped(moving, phase, state, 2 * phase)
    expected, other = (stepped(still, phase, state, 2 * phase, batch) for batch in (moved, BATCH))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4)
        assert abs(found[name] - other[name]) > 1e-5, name


@pytest.mark.parametrize("name", ["m1", "stacked_m1_m2"])
def test_latents_that_tell_nothing_are_not_looked_at(name):
    method = tiny(name, least_deviation=0.1).method
    state = started(name, method)
    classify = jax.jit(method.classify)

    def shifted(latent):
        """The state with 1 added to the encoder's mean of one latent."""

        def shift(names, leaf):
            last = "encoder" in names and leaf.shape == (8,)  # the bias of means and log variances of 4 latents
            return leaf.at[:4].set(leaf[:4].at[latent].add(1.0)) if last else leaf

        return mapped(state, shift)

    before = classify(state, SCALED)
    np.testing.assert_array_equal(classify(shifted(-1), SCALED), before)
    assert (classify(shifted(0), SCALED) != before).any()


def test_the_rate_falls_to_a_tenth_in_stages_each_three_times_as_long_as_the_one_before():
    ends = np.cumsum(3 ** np.arange(8))
    steps = int(ends[-1])
    rates = jax.vmap(lambda step: vae.falling(1e-3, steps, step))(jnp.arange(steps) + 0.5)
    stages = np.searchsorted(ends, np.arange(steps), side="right")
    np.testing.assert_allclose(rates, 1e-3 * 10 ** (-stages / 7), rtol=1e-4)
    assert stages[0] == 0 and stages[-1] == 7


def test_the_rates_of_the_stacked_model_fall_to_nothing_at_the_end_of_each_phase(monkeypatch):
    asked = []
    monkeypatch.setattr(stacked_m1_m2.optax, "adam", lambda rate: asked.append(rate) or optax.sgd(rate))
    config = stacked_m1_m2.Config(steps=100, first=0.2, learning_rate=1e-3, anneal=0.5)
    stacked_m1_m2.make(config, SPEC)
    first, second = asked
    np.testing.assert_allclose([first(10), first(15), first(20)], [1e-3, 5e-4, 0], atol=1e-9)
    np.testing.assert_allclose([second(40), second(60), second(80)], [1e-3, 5e-4, 0], atol=1e-9)


def test_the_rate_falls_to_nothing_along_a_line_where_that_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(vae.optax, "adam", lambda rate: asked.append(rate) or optax.sgd(rate))
    for anneal in (0.0, 0.5):
        vae.make(vae.Config(steps=100, learning_rate=1e-3, anneal=anneal), SPEC)
    stages, line = asked
    np.testing.assert_allclose([stages(0), stages(99)], [1e-3, 1e-4], rtol=1e-5)
    np.testing.assert_allclose([line(0), line(50), line(75), line(100)], [1e-3, 1e-3, 5e-4, 0], atol=1e-9)
