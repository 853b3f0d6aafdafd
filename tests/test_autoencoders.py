"""Vincent et al. 2008, Makhzani et al. 2015, Larsen et al. 2015: the terms by numpy, who learns from whom, and PCA."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import IMAGES, SPEC, first_rows, tiny

from ssl_gen.augmentation import Augmentation
from ssl_gen.core import gradient
from ssl_gen.core.batching import interleave, separate
from ssl_gen.core.keys import INIT, stream
from ssl_gen.methods import METHODS
from ssl_gen.methods.variational import adversarial_autoencoder, autoencoder, vae_gan
from ssl_gen.networks import mlp
from ssl_gen.networks.mlp import Perceptron
from ssl_gen.networks.variational import encoder_and_decoder
from ssl_gen.types import Batch, ImageSpec, UserError

NAMES = ["autoencoder", "adversarial_autoencoder", "vae_gan"]
SCALED = IMAGES.astype(np.float32) / 127.5 - 1
LABELS = jnp.array([0, 2, 1, 1])
BATCH = Batch(SCALED[:4], LABELS, SCALED[4:12])
QUIET = {"input_noise": 0.0, "noise": 0.0, "augmentation": Augmentation()}  # nothing random on what networks see


def started(method):
    labelled, labels, unlabelled, _ = (part[0] for part in first_rows())
    return jax.jit(method.init)(stream(0, INIT), Batch(SCALED[labelled], labels, SCALED[unlabelled]))


def first_step(method):
    """The first step of run 0, (state, batch) -> (state, metrics)."""
    step = jax.jit(method.phases[0].step)
    return lambda state, batch: step(state, stream(0, 0), jnp.int32(0), batch)


def without_updates(monkeypatch, module, name, moving=(), rate=0.0, **changes):
    """The method's step with all players left as they are but `moving`, which descend plainly; values of all terms."""

    def descend(name, player, optimizer, loss, forward=None):
        def total(inputs):
            terms = loss(inputs) if forward else loss(inputs)[0]
            return sum(terms.values()), terms

        gradient, terms = jax.grad(total, has_aux=True)(forward.outputs if forward else player.params)
        if name in moving:
            (gradient,) = forward.pull(gradient) if forward else (gradient,)
            player = player._replace(params=jax.tree.map(lambda p, g: p - rate * g, player.params, gradient))
        return player, {f"{name}/{term}": value for term, value in terms.items()}

    monkeypatch.setattr(gradient, "descend", descend)
    return first_step(module.make(tiny(name, **QUIET, **changes).config, SPEC))


def softmax(logits):
    logits = np.float64(logits)
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-np.float64(logits)))


# Autoencoders


def test_masking_blackens_its_share_of_the_pixels_and_leaves_the_others_as_they_were():
    images = np.random.default_rng(0).uniform(-0.9, 0.9, (50, 10, 10, 1)).astype(np.float32)
    masked = np.asarray(autoencoder.corrupted(jax.random.key(0), images, 0.25, 0.0))
    black = masked == -1
    assert abs(black.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 5000)
    np.testing.assert_array_equal(masked[~black], images[~black])


def test_noise_has_its_deviation_where_pixels_are_in_0_to_1():
    images = np.zeros((50, 10, 10, 1), np.float32)
    noise = np.asarray(autoencoder.corrupted(jax.random.key(0), images, 0.0, 0.3)) / 2
    assert abs(noise.std() - 0.3) < 4 * 0.3 / np.sqrt(2 * 5000) and abs(noise.mean()) < 4 * 0.3 / np.sqrt(5000)


def test_the_losses_are_the_cross_entropy_and_the_squared_distance_of_pixels_in_0_to_1():
    outputs = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
    x, p = (np.float64(SCALED[:5]) + 1) / 2, sigmoid(outputs)
    entropies = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum((1, 2, 3))
    distances = ((x - (np.float64(outputs) + 1) / 2) ** 2).sum((1, 2, 3))
    for loss, expected in (("bernoulli", entropies), ("squared_error", distances)):
        np.testing.assert_allclose(autoencoder.reconstruction(loss, SCALED[:5], outputs), expected, rtol=1e-5)


def test_a_linear_autoencoder_comes_to_the_error_of_principal_components():
    random, latent, steps = np.random.default_rng(0), 2, 1000
    pixels = (random.normal(size=(24, 6)) * [3, 2.5, 0.6, 0.4, 0.3, 0.2]) @ random.normal(size=(6, 64)) / 4 + 0.1
    config = autoencoder.Config(
        steps, latent=latent, hidden=(), masking=0.0, loss="squared_error", learning_rate=1e-2, anneal=0.5
    )
    method = autoencoder.make(config, SPEC)
    images = jnp.asarray(2 * pixels.reshape(24, *SPEC.shape) - 1, jnp.float32)
    batch = Batch(images[:0], jnp.zeros(0, jnp.int32), images)

    @jax.jit
    def trained_error():
        def step(i, state):
            return method.phases[0].step(state, stream(0, i), i, batch)[0]

        state = jax.lax.fori_loop(0, steps, step, method.init(stream(0, INIT), batch))
        return method.phases[0].step(state, stream(0, steps), jnp.int32(steps), batch)[1]["autoencoder/reconstruction"]

    variances = np.linalg.svd(pixels - pixels.mean(0), compute_uv=False) ** 2 / 24
    np.testing.assert_allclose(trained_error(), variances[latent:].sum(), rtol=1e-4)


def test_a_corrupted_image_is_compared_with_the_clean_one(monkeypatch):
    config = tiny("autoencoder", network="mlp").config  # no batch norm: training and inference agree
    monkeypatch.setattr(autoencoder, "corrupted", lambda key, images, masking, noise: -images)
    method = autoencoder.make(config, SPEC)
    state = started(method)
    _, metrics = first_step(method)(state, BATCH)
    rebuilt = np.float64(method.decode(state, method.encode(state, -BATCH.unlabelled), None) + 1) / 2
    x = np.float64(BATCH.unlabelled + 1) / 2
    expected = -(x * np.log(rebuilt) + (1 - x) * np.log(1 - rebuilt)).sum((1, 2, 3)).mean()
    np.testing.assert_allclose(metrics["autoencoder/reconstruction"], expected, rtol=1e-4)


def test_an_unknown_loss_is_refused_by_name():
    with pytest.raises(UserError, match="loss is 'absolute': choose one of bernoulli, squared_error"):
        autoencoder.make(tiny("autoencoder", loss="absolute").config, SPEC)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_each_network_fits_images_of_28_pixels(name, network):
    method, shape = METHODS[name].make(tiny(name, network=network).config, ImageSpec(28, 28, 1, 3)), (28, 28, 1)
    images = jnp.zeros((12, *shape))
    key, batch = jax.random.key(0), Batch(images[:4], LABELS, images[:8])
    state = jax.eval_shape(method.init, key, batch._replace(unlabelled=images))
    after, _ = jax.eval_shape(method.phases[0].step, state, key, jnp.int32(0), batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    latents = jax.eval_shape(method.encode, state, images)
    assert latents.shape == (12, 4)
    assert jax.eval_shape(method.decode, state, latents, jnp.zeros(12, jnp.int32)).shape == images.shape


@pytest.mark.parametrize("name", NAMES)
def test_images_are_rebuilt_from_latents_and_labels_where_the_method_has_any(name):
    method = tiny(name).method
    state = started(method)
    latents, labels = jax.jit(method.encode)(state, SCALED[:5]), jnp.arange(5) % SPEC.classes
    decode = jax.jit(method.decode)
    images = decode(state, latents, labels)
    assert np.abs(images).max() <= 1
    assert bool((images != decode(state, latents, (labels + 1) % SPEC.classes)).any()) == method.conditional


@pytest.mark.parametrize(("name", "player"), [("adversarial_autoencoder", "encoder"), ("vae_gan", "discriminator")])
def test_the_ema_classifies(name, player):
    method = tiny(name).method
    state = started(method)

    def classified(field):
        moved = jax.tree.map(lambda leaf: leaf + 0.5, getattr(getattr(state, player), field))
        return method.classify(state._replace(**{player: getattr(state, player)._replace(**{field: moved})}), SCALED)

    before = method.classify(state, SCALED)
    np.testing.assert_array_equal(classified("params"), before)
    assert (classified("ema") != before).any()


# Adversarial autoencoder

AAE = "adversarial_autoencoder"


@functools.cache
def aae():
    return started(tiny(AAE, **QUIET).method)


def test_the_terms_of_an_adversarial_autoencoder_are_those_of_its_equations(monkeypatch):
    state = aae()
    _, terms = without_updates(monkeypatch, adversarial_autoencoder, AAE)(state, BATCH)
    encoder, decoder = encoder_and_decoder("mlp", SPEC, 3 + 4, 1, (4, 4), 4, adversarial_autoencoder.nn.relu)
    discriminator = Perceptron(1, 3, (4, 4), adversarial_autoencoder.nn.relu)

    def d(player, codes, *told):
        return sigmoid(discriminator.apply({"params": player.params}, jnp.asarray(codes), *told)[:, 0])

    logits, style = np.split(encoder.apply({"params": state.encoder.params}, BATCH.unlabelled), [3], -1)
    y = np.float32(softmax(logits))
    outputs = decoder.apply({"params": state.decoder.params}, style, y, train=False)
    pixels = (np.float64(BATCH.unlabelled) + 1) / 2
    keys = jax.random.split(jax.random.split(stream(0, 0), 4)[2], 7)
    classes, normal = jax.random.randint(keys[1], (8,), 0, 3), jax.random.normal(keys[2], (8, 4))
    d_y, d_z = d(state.category_discriminator, y), d(state.style_discriminator, style, y)
    given = softmax(encoder.apply({"params": state.encoder.params}, BATCH.labelled)[:, :3])
    expected = {
        "reconstruction/squared_error": ((pixels - sigmoid(outputs)) ** 2).sum((1, 2, 3)).mean(),
        "category_discriminator/prior": -np.log(d(state.category_discriminator, np.eye(3)[classes])).mean(),
        "category_discriminator/encoded": -np.log(1 - d_y).mean(),
        "style_discriminator/prior": -np.log(d(state.style_discriminator, normal, y)).mean(),
        "style_discriminator/encoded": -np.log(1 - d_z).mean(),
        "regularisation/category": -np.log(d_y).mean(),
        "regularisation/style": -np.log(d_z).mean(),
        "supervised/cross_entropy": -np.log(given[np.arange(4), LABELS]).mean(),
    }
    expected["decoder/squared_error"] = expected["reconstruction/squared_error"]
    assert set(terms) == set(expected)
    for term, value in expected.items():
        np.testing.assert_allclose(terms[term], value, rtol=1e-4, err_msg=term)


def test_the_encoder_gains_what_the_discriminators_lose(monkeypatch):
    """It moves where they take its codes for the prior's, they to where each of them tells the two apart better."""
    state, discriminators = aae(), ("category_discriminator", "style_discriminator")
    measure = without_updates(monkeypatch, adversarial_autoencoder, AAE)
    before = measure(state, BATCH)[1]

    def terms_after(*moving):
        moved, _ = without_updates(monkeypatch, adversarial_autoencoder, AAE, moving, 1e-2)(state, BATCH)
        return measure(moved, BATCH)[1]

    deceived, judged = terms_after("regularisation"), terms_after(*discriminators)
    assert sum(float(deceived[f"{name}/encoded"] - before[f"{name}/encoded"]) for name in discriminators) > 0
    assert deceived["category_discriminator/prior"] == before["category_discriminator/prior"]
    for name in discriminators:
        after, first = (sum(float(x[f"{name}/{part}"]) for part in ("prior", "encoded")) for x in (judged, before))
        assert after < first


@pytest.mark.parametrize("conditional", [False, True])
def test_the_class_that_the_styles_discriminator_is_told_carries_no_gradient(monkeypatch, conditional):
    def slopes(name, player, optimizer, loss, forward=None):
        """Of the style's term in the encoder's logits and styles."""
        if name != "regularisation":
            return player, {}
        logits, style = jnp.split(jax.grad(lambda outputs: loss(outputs)["style"])(forward.outputs), [3], -1)
        return player, {"logits": logits, "style": style}

    monkeypatch.setattr(gradient, "descend", slopes)
    method = adversarial_autoencoder.make(tiny(AAE, **QUIET, conditional_style=conditional).config, SPEC)
    _, metrics = first_step(method)(jax.jit(method.init)(stream(0, INIT), BATCH), BATCH)
    assert not metrics["logits"].any() and metrics["style"].any()


def test_each_part_of_the_step_has_an_optimiser_of_its_own_and_labels_train_the_class_alone():
    method = tiny(AAE, **QUIET).method
    after, _ = first_step(method)(aae(), BATCH)
    moments = {}
    for part, (adam, *_) in after.encoder.opt.items():
        assert int(adam.count) == 1
        moments[part] = np.split(np.asarray(adam.mu["Perceptron_0"]["Dense_2"]["bias"]), [3])  # of class and style
    assert set(moments) == {"reconstruction", "regularisation", "supervised"}
    assert all(moments[part][0].any() for part in moments)
    assert {part for part in moments if moments[part][1].any()} == {"reconstruction", "regularisation"}


# VAE/GAN


def updated(state=None, **changes):
    """The params of each player before and after one step, flattened."""
    method = tiny("vae_gan", **QUIET, **changes).method
    state = started(method) if state is None else state
    after, _ = first_step(method)(state, BATCH)
    return state, {
        name: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(getattr(after, name).params)])
        for name in ("encoder", "decoder", "discriminator")
    }


def test_the_terms_of_a_vae_gan_are_those_of_its_equations(monkeypatch):
    state = started(tiny("vae_gan", **QUIET).method)
    weights = {"gamma": 0.5, "classes": 2.0}
    _, terms = without_updates(monkeypatch, vae_gan, "vae_gan", **weights)(state, BATCH)
    encoder, decoder = mlp.Encoder(8, 3, (4, 4), vae_gan.nn.relu), mlp.Generator(SPEC.shape, 3, (4, 4))
    discriminator = mlp.Discriminator(3, 3, (4, 4), 0.0, 0.0)

    def judge(images):
        player = state.discriminator
        logits, features = discriminator.apply({"params": player.params, **player.stats}, images, None, train=False)
        z = np.exp(np.float64(logits)).sum(-1)
        return np.float64(logits), np.float64(features), z / (z + 1)

    keys = jax.random.split(stream(0, 0), 6)
    real = interleave(BATCH.labelled, jnp.asarray(BATCH.unlabelled))
    mean, log_variance = np.split(encoder.apply({"params": state.encoder.params}, real), 2, -1)
    latents = mean + np.exp(log_variance / 2) * np.asarray(jax.random.normal(keys[1], (12, 4)))
    asked = jax.random.randint(keys[3], (12,), 0, 3)
    logits, features, d_real = judge(real)
    known = interleave(np.eye(3)[LABELS], jnp.asarray(separate(softmax(logits), (4, 8))[1]))
    inputs = np.concatenate([latents, jax.random.normal(keys[2], (12, 4))])  # batch norm takes them in any order
    variables = {"params": state.decoder.params, **state.decoder.stats}
    images, _ = decoder.apply(
        variables, inputs, np.concatenate([known, np.eye(3)[asked]]), train=True, mutable=["batch_stats"]
    )
    rebuilt, drawn = judge(images[:12]), judge(images[12:])
    distance = ((features - rebuilt[1]) ** 2).sum(-1).mean() / 2
    expected = {
        "encoder/prior": (np.exp(log_variance) + mean**2 - 1 - log_variance).sum(-1).mean() / 2,
        "encoder/likelihood": distance,
        "decoder/likelihood": 0.5 * distance,
        "decoder/reconstructed": -np.log(rebuilt[2]).mean(),
        "decoder/drawn": -np.log(drawn[2]).mean(),
        "decoder/class": -2 * np.log(softmax(drawn[0])[np.arange(12), asked]).mean(),
        "discriminator/supervised": -np.log(
            np.asarray(separate(softmax(logits), (4, 8))[0])[np.arange(4), LABELS]
        ).mean(),
        "discriminator/real": -np.log(d_real).mean(),
        "discriminator/reconstructed": -np.log(1 - rebuilt[2]).mean(),
        "discriminator/drawn": -np.log(1 - drawn[2]).mean(),
    }
    assert set(terms) == set(expected)
    for term, value in expected.items():
        np.testing.assert_allclose(terms[term], value, rtol=1e-3, err_msg=term)


def test_k_logits_are_k_plus_1_classes_whose_last_is_unreal():
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    unreal = softmax(np.concatenate([logits, np.zeros((5, 1))], -1))[:, -1]
    np.testing.assert_allclose(sigmoid(vae_gan.reality(jnp.asarray(logits))), 1 - unreal, rtol=1e-5)


def test_the_likelihood_of_features_is_normal_but_for_a_constant():
    random = np.random.default_rng(0)
    features, others = random.normal(size=(2, 5, 6))
    constant = 3 * np.log(2 * np.pi)  # 6 features
    density = np.log(np.prod(np.exp(-((features - others) ** 2) / 2) / np.sqrt(2 * np.pi), -1))
    found = vae_gan.feature_distance(jnp.asarray(features), jnp.asarray(others))
    np.testing.assert_allclose(found + constant, -density, rtol=1e-5)


def test_what_the_discriminator_takes_for_real_has_no_way_to_the_encoder():
    """A number added to all logits leaves classes and features as they are: L_GAN alone changes."""
    state, before = updated()
    output = max(state.discriminator.params)
    layer = state.discriminator.params[output] | {"bias": state.discriminator.params[output]["bias"] + 3.0}
    surer = state.discriminator._replace(params=state.discriminator.params | {output: layer})
    _, after = updated(state._replace(discriminator=surer))
    np.testing.assert_allclose(after["encoder"], before["encoder"], atol=1e-5)
    assert np.abs(after["decoder"] - before["decoder"]).max() > 1e-5


def test_gamma_weighs_the_decoders_likelihood_alone():
    (_, one), (_, other) = updated(gamma=0.01), updated(gamma=10.0)
    np.testing.assert_array_equal(one["encoder"], other["encoder"])
    np.testing.assert_array_equal(one["discriminator"], other["discriminator"])
    assert (one["decoder"] != other["decoder"]).any()


def test_the_decoder_gains_what_the_discriminator_loses(monkeypatch):
    state = started(tiny("vae_gan", **QUIET).method)
    lone = {"gamma": 0.0, "classes": 0.0}  # L_GAN alone
    measure = without_updates(monkeypatch, vae_gan, "vae_gan", **lone)
    moved, before = without_updates(monkeypatch, vae_gan, "vae_gan", ("decoder",), 1e-3, **lone)(state, BATCH)
    after = measure(moved, BATCH)[1]
    fakes = [f"discriminator/{part}" for part in ("reconstructed", "drawn")]
    assert sum(float(after[term] - before[term]) for term in fakes) > 0
    assert after["discriminator/real"] == before["discriminator/real"]
