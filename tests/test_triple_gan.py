"""Li et al. 2017: the classifier's formulas, and which of their parts carry a gradient.

Two well-known code bases shipped a term without one: a consistency whose student side was computed without gradient,
and a cross-entropy against the model's own softmax.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear import Judge, Linear, Pictures, apart, check_average, judged, said, softplus
from tiny import IMAGES, SPEC, STEPS, batch_at, first_batch, first_rows, some_rows, tiny

from ssl_gen.augmentation import Augmentation
from ssl_gen.core import gradient
from ssl_gen.core.keys import INIT, stream
from ssl_gen.core.schedules import last_kernel
from ssl_gen.losses.adversarial import judged_guess
from ssl_gen.losses.classification import balance
from ssl_gen.losses.thresholds import Marginals, confident_cross_entropy, uniform_marginals
from ssl_gen.methods.adversarial import triple_gan
from ssl_gen.methods.adversarial.triple_gan import Drawn, classifier_optimizer, classifier_terms
from ssl_gen.networks import classifiers
from ssl_gen.types import Batch

LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
PREDICTED = np.array([1, 0, 3, 3, 2, 1])
JUDGED = np.array([2.0, -3.0, 0.5, -0.5, 0.0, 4.0], np.float32)  # logits of D


PARTS = [("Dense_0", "kernel"), ("Dense_1", "kernel"), ("Dense_1", "bias")]


def softmax(logits):
    logits = np.float64(logits)
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_balance_is_the_cross_entropy_of_the_uniform_with_the_mean_posterior():
    np.testing.assert_allclose(balance(LOGITS), -np.log(softmax(LOGITS).mean(0)).mean(), rtol=1e-5)


def test_balance_is_least_where_every_class_is_predicted_as_often():
    undecided, decided_evenly = jnp.zeros((8, 4)), 50 * jnp.tile(jnp.eye(4), (2, 1))
    value_and_gradient = jax.jit(jax.value_and_grad(balance))
    np.testing.assert_allclose(value_and_gradient(undecided)[0], np.log(4), rtol=1e-6)
    np.testing.assert_allclose(value_and_gradient(decided_evenly)[0], np.log(4), rtol=1e-6)
    np.testing.assert_allclose(value_and_gradient(undecided)[1], 0, atol=1e-7)
    for seed in range(20):
        uneven = np.random.default_rng(seed).normal(size=(8, 4)).astype(np.float32)
        assert value_and_gradient(uneven)[0] > np.log(4)


def test_balance_stays_finite_where_a_class_is_never_predicted():
    sure = jnp.array([[1e4, 0.0, 0.0], [1e4, 0.0, 0.0]])
    assert np.isfinite(balance(sure)) and np.isfinite(jax.grad(balance)(sure)).all()


def test_the_adversarial_term_weighs_what_d_doubts_by_the_probability():
    d = 1 / (1 + np.exp(-np.float64(JUDGED)))
    expected = np.mean(softmax(LOGITS)[np.arange(6), PREDICTED] * -np.log(d))
    np.testing.assert_allclose(judged_guess(LOGITS, PREDICTED, JUDGED), expected, rtol=1e-5)


def test_the_adversarial_term_has_a_gradient_through_the_probability():
    p, reward = softmax(LOGITS), np.log1p(np.exp(-np.float64(JUDGED)))
    chosen = p[np.arange(6), PREDICTED]
    expected = (reward * chosen / 6)[:, None] * (np.eye(4)[PREDICTED] - p)  # d p_y / d l_k = p_y (1[k = y] - p_k)
    np.testing.assert_allclose(jax.grad(judged_guess)(LOGITS, PREDICTED, JUDGED), expected, rtol=1e-4, atol=1e-6)


def test_the_adversarial_term_has_no_gradient_through_d():
    assert not np.any(jax.grad(judged_guess, argnums=2)(LOGITS, PREDICTED, JUDGED))


TEACHER = np.log([[0.9, 0.1], [0.4, 0.6], [0.05, 0.95], [0.5, 0.5]]).astype(np.float32)
STUDENT = np.array([[0.0, 1.0], [2.0, 0.0], [3.0, 1.0], [-1.0, 0.0]], np.float32)


def test_confident_rows_are_trained_towards_the_teachers_class():
    p = softmax(STUDENT)
    expected = -(np.log(p[0, 0]) + np.log(p[2, 1])) / 4  # a mean over all four images: two are left out
    np.testing.assert_allclose(confident_cross_entropy(STUDENT, TEACHER, 0.8), expected, rtol=1e-5)


def test_rows_below_the_threshold_are_ignored():
    other = STUDENT.copy()
    other[[1, 3]] = [[-5.0, 9.0], [7.0, -7.0]]
    assert confident_cross_entropy(STUDENT, TEACHER, 0.8) == confident_cross_entropy(other, TEACHER, 0.8)
    gradient = jax.grad(confident_cross_entropy)(STUDENT, TEACHER, 0.8)
    assert not gradient[jnp.array([1, 3])].any()
    assert confident_cross_entropy(STUDENT, TEACHER, 0.99) == 0


def test_the_student_of_confident_rows_has_the_gradient_and_the_teacher_none():
    student, teacher = jax.grad(confident_cross_entropy, argnums=(0, 1))(STUDENT, TEACHER, 0.8)
    expected = np.zeros((4, 2))
    expected[[0, 2]] = (softmax(STUDENT)[[0, 2]] - np.eye(2)) / 4
    np.testing.assert_allclose(student, expected, rtol=1e-4, atol=1e-7)
    assert not np.any(teacher)


def test_cross_entropy_against_the_models_own_softmax_trains_nothing_and_against_its_class_does():
    """d CE(q, softmax l) / d l = softmax l - q, which is 0 at q = softmax l: the soft form must never be used."""

    def soft(logits):
        own = jax.lax.stop_gradient(jax.nn.softmax(logits))
        return optax.softmax_cross_entropy(logits, own).mean()

    def hard(logits):
        return confident_cross_entropy(logits, jax.nn.log_softmax(logits), 0.0)

    np.testing.assert_allclose(jax.grad(soft)(LOGITS), 0, atol=1e-7)
    expected = (softmax(LOGITS) - np.eye(4)[LOGITS.argmax(-1)]) / 6
    np.testing.assert_allclose(jax.grad(hard)(LOGITS), expected, rtol=1e-4, atol=1e-6)
    assert (np.abs(expected).max(-1) > 0.05).all()


@pytest.mark.parametrize("network", ["mlp", "conv", "conv13", "wide_resnet", "airbench"])
def test_weight_decay_is_of_the_last_layers_kernel_alone(network):
    classifier = classifiers.classifier(network, 3, (4, 4), 4, 0.0)
    start = functools.partial(classifier.init, jax.random.key(0), train=False)
    params = jax.eval_shape(start, jnp.zeros((1, 16, 16, 1)))["params"]
    marked = [leaf for leaf, decays in zip(*map(jax.tree.leaves, (params, last_kernel(params))), strict=True) if decays]
    assert len(marked) == 1 and marked[0].shape[-1] == 3  # the only one with as many outputs as classes, and no bias


def test_what_decays_and_how_fast_the_classifier_learns_in_the_warm_up():
    """Adam's update for a gradient that is always the same is the rate itself."""
    config = triple_gan.Config(steps=10, anneal=0.0, l2=0.5, warm_up_rate=1e-4, classifier_rate=1e-2)
    params = {"Dense_0": {"kernel": jnp.ones((2, 2))}, "Dense_1": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    for decayed, moved in (("last_layer", [0, 1, 0]), ("everything", [1, 1, 1])):
        optimizer = classifier_optimizer(dataclasses.replace(config, decayed=decayed), warm_up=4)
        state = optimizer.init(params)
        for step in range(8):
            nothing = jax.tree.map(jnp.zeros_like, params)
            updates, state = optimizer.update(nothing, state, params)  # of the decay alone
            rate = 1e-4 if step < 4 else 1e-2
            found = [-float(updates[layer][part].mean()) for layer, part in PARTS]
            np.testing.assert_allclose(found, rate * np.array(moved), rtol=1e-4, err_msg=decayed)
    optimizer = classifier_optimizer(dataclasses.replace(config, warm_up_rate=None), warm_up=4)
    updates, _ = optimizer.update(nothing, optimizer.init(params), params)
    np.testing.assert_allclose(updates["Dense_1"]["kernel"], -1e-2, rtol=1e-4)


def test_the_warm_up_has_a_balance_of_its_own():
    logits = dict.fromkeys(("labelled", "unlabelled", "again", "drawn"), jnp.asarray(LOGITS))
    drawn = Drawn(jnp.zeros((6, 1, 1, 1)), jnp.asarray(PREDICTED), jnp.asarray(JUDGED))
    expected = -np.log(softmax(LOGITS).mean(0)).mean()
    for own, weights in ((0.3, (0.3, 1e-3)), (None, (1e-3, 1e-3))):
        config = triple_gan.Config(warm_up_balance=own)
        for told, weight in zip((None, drawn), weights, strict=True):
            terms = classifier_terms(config, logits, jnp.asarray(PREDICTED), jnp.asarray(LOGITS), told, jnp.int32(0))
            np.testing.assert_allclose(terms["balance"], weight * expected, rtol=1e-4)


def test_photographs_have_the_shares_and_the_length_of_the_official_script():
    config = triple_gan.PHOTOGRAPHS  # x2y_yz2x_xy2p_ssl_cifar10.py: epochs of 50,000 images in batches of 100
    assert config.steps == 1000 * (50_000 // config.unlabelled_batch)
    assert config.generated_from * config.steps == 200 * 500
    assert config.real_labelled == 40 / (40 + 160)
    assert (config.classifier_rate, config.learning_rate, config.averaging) == (3e-3, 3e-4, 0.01)


def test_the_student_is_trained_by_each_term_that_compares_two_views(monkeypatch):
    scaled = IMAGES.astype(np.float32) / 127.5 - 1
    # A dense classifier and two views by dropout alone: the least to compile.
    _, config, method = tiny("triple_gan", classifier_network="mlp", augmentation=Augmentation())
    labelled, labels, unlabelled, _ = (part[0] for part in first_rows())
    batch = Batch(scaled[labelled], labels, scaled[unlabelled])
    state = jax.eval_shape(method.init, stream(0, INIT), batch)
    random = np.random.default_rng(0)
    classifier = jax.tree.map(lambda leaf: random.uniform(0.1, 1, leaf.shape).astype(leaf.dtype), state.classifier)
    state = state._replace(classifier=classifier, generator=None, discriminator=None, marginals=uniform_marginals(3))

    def gradients(name, player, optimizer, loss, forward=None):
        terms, backward, _ = jax.vjp(loss, player.params, has_aux=True)
        none = {term: jnp.float32(0) for term in terms}
        views = {term: backward(none | {term: jnp.float32(1)})[0] for term in ("consistency", "pseudo_label")}
        return player, {term: optax.tree.norm(gradient) for term, gradient in views.items()}

    monkeypatch.setattr(gradient, "descend", gradients)
    warm_up = triple_gan.make(config, SPEC).phases[0]  # a step that no other test compiles
    _, norms = jax.jit(warm_up.step)(state, stream(0, 0), jnp.int32(0), batch)
    assert norms["consistency"] > 0
    assert norms["pseudo_label"] > 0


def test_the_convolutional_form_trains_every_part_and_draws_what_it_is_told():
    """The conformance table has the dense form; here a step of the other: spectral norms, projection, batch norm."""
    _, _, method = tiny("triple_gan", network="conv", classifier_network="mlp", augmentation=Augmentation())
    scaled = IMAGES.astype(np.float32) / 127.5 - 1
    first, batch = (
        Batch(scaled[rows.labelled[0]], rows.labels[0], scaled[rows.unlabelled[0]])
        for rows in (first_rows(), jax.tree.map(lambda part: part[0], some_rows(method, 1, 0, 1)))
    )
    state = jax.jit(method.init)(stream(0, INIT), first)
    after, metrics = jax.jit(method.phases[1].step)(state, stream(0, STEPS), jnp.int32(STEPS), batch)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    for player in ("generator", "discriminator"):
        before, now = getattr(state, player), getattr(after, player)
        moved = jax.tree.map(
            lambda a, b: bool((a != b).any()) or a.size == 1,  # the norm of a single row iterates over a sign
            (before.params, before.stats),
            (now.params, now.stats),
        )
        assert all(jax.tree.leaves(moved)), (player, moved)
    assert all(np.isfinite(value) for value in metrics.values())
    draw = jax.jit(method.sample, static_argnums=3)
    images, others = (draw(after, jax.random.key(0), jnp.full(6, label), method.sampler) for label in (0, 1))
    assert (images != others).any((1, 2, 3)).all()


@pytest.mark.parametrize("phase", [0, 1])
def test_guesses_are_brought_to_the_class_frequencies_of_the_labels(phase, monkeypatch):
    """What is learnt is q times the ratio of the means, in both phases; q itself is counted."""
    config, learnt = tiny("triple_gan").config, []
    monkeypatch.setattr(
        triple_gan, "confident_cross_entropy", lambda logits, teacher, threshold: learnt.append(teacher) or 0.0
    )
    method = triple_gan.make(config, SPEC)
    parts = [part[0] for part in first_rows()], [part[0, 0] for part in some_rows(method, phase, 0, 1)]
    scaled = IMAGES.astype(np.float32) / 127.5 - 1
    first, row = (Batch(scaled[x], jnp.asarray(y), scaled[u]) for x, y, u, _ in parts)
    means = Marginals(jnp.array([0.6, 0.3, 0.1]), jnp.array([0.2, 0.3, 0.5]))
    state = jax.jit(method.init)(stream(0, INIT), first)._replace(marginals=means)
    after, _ = method.phases[phase].step(state, stream(0, 0), jnp.int32(0), row)
    guesses = np.exp(np.float64(method.classify(state, row.unlabelled)))
    expected = guesses * np.array([3.0, 1.0, 0.2])
    np.testing.assert_allclose(np.exp(learnt[0]), expected / expected.sum(1, keepdims=True), rtol=1e-3)
    rate = 1 / config.memory
    counted = (1 - rate) * np.array([0.2, 0.3, 0.5]) + rate * guesses.mean(0)
    np.testing.assert_allclose(after.marginals.guesses, counted, rtol=1e-5)


def test_each_player_loses_what_the_paper_says_of_the_pairs_that_it_is_shown(monkeypatch):
    """Update number 4, the second one after the warm-up, so that the mean of the generator is that of two."""
    weights = {"real_labelled": 0.3, "adversarial": 0.7, "entropy": 0.4, "balance": 0.5, "pseudo_label": 0.6}
    changes = {"generated": 0.2, "generated_from": 0.0, "threshold": 0.6, "averaging": 0.5}
    changes |= {"consistency": 0.0, "decayed": "everything", "learning_rate": 0.1}  # an update is seen in what D says
    config = tiny("triple_gan", augmentation=Augmentation(), **weights, **changes).config
    monkeypatch.setattr(triple_gan, "networks", lambda *_: (Pictures(3), Judge(1), Linear(3)))
    method, batch, key = triple_gan.make(config, SPEC), batch_at(tiny("triple_gan").method, 1), stream(0, 3)
    before = method.init(stream(0, INIT), first_batch())
    means = Marginals(jnp.array([0.5, 0.3, 0.2]), jnp.array([0.25, 0.3, 0.45]))
    before = before._replace(generator=apart(before.generator), classifier=apart(before.classifier), marginals=means)
    after, metrics = jax.jit(method.phases[1].step)(before, key, jnp.int32(3), batch)

    asked = jax.random.randint(jax.random.split(jax.random.split(key, 5)[0])[1], (8,), 0, 3)
    fake = np.asarray(before.generator.params["images"])[np.asarray(asked)]
    q = softmax(said(before.classifier.ema.params, batch.unlabelled)) * np.divide(*means)
    q /= q.sum(-1, keepdims=True)
    guess, sure = q.argmax(-1), q.max(-1) > 0.6
    assert len(set(np.asarray(asked))) > 1 and len(set(guess)) > 1 and 0 < sure.mean() < 1

    def score(state, images, labels):
        return judged(state.discriminator.params, images, labels)[0][:, 0]

    p, of_drawn = (softmax(said(before.classifier.params, images)) for images in (batch.unlabelled, fake[::2]))
    own, reward = p[np.arange(8), guess], softplus(-score(after, batch.unlabelled, guess))
    of_labelled = softmax(said(before.classifier.params, batch.labelled))
    expected = {
        "discriminator/labelled": 0.3 * softplus(-score(before, batch.labelled, batch.labels)).mean(),
        "discriminator/pseudo_labelled": 0.7 * softplus(-score(before, batch.unlabelled, guess)).mean(),
        "discriminator/generated": softplus(score(before, fake, asked)).mean() / 2,
        "discriminator/classified": softplus(score(before, batch.unlabelled, guess)).mean() / 2,
        "generator/adversarial": softplus(-score(after, fake, asked)).mean() / 2,
        "classifier/supervised": -np.log(of_labelled[np.arange(4), batch.labels]).mean(),
        "classifier/entropy": 0.4 * -(p * np.log(p)).sum(-1).mean(),
        "classifier/balance": 0.5 * -np.log(p.mean(0)).mean(),
        "classifier/pseudo_label": 0.6 * (sure * -np.log(own)).mean(),
        "classifier/generated": 0.2 * -np.log(of_drawn[np.arange(4), asked[::2]]).mean(),
        "classifier/adversarial": 0.7 / 2 * (own * reward).mean(),
    }
    assert {name for name in metrics if not name.endswith("gradient_norm")} == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-4, err_msg=name)
    check_average(before.generator, after.generator, 2 / 3)  # the second update of rate 1/2
    check_average(before.classifier, after.classifier, 0.5 / (1 - 0.5**4))  # the fourth


def test_the_warm_up_averages_the_classifier(monkeypatch):
    config = tiny("triple_gan", augmentation=Augmentation(), averaging=0.5, decayed="everything").config
    monkeypatch.setattr(triple_gan, "networks", lambda *_: (Pictures(3), Judge(1), Linear(3)))
    method = triple_gan.make(config, SPEC)
    before = method.init(stream(0, INIT), first_batch())
    before = before._replace(classifier=apart(before.classifier))
    after, _ = jax.jit(method.phases[0].step)(before, stream(0, 1), jnp.int32(1), batch_at(method))
    check_average(before.classifier, after.classifier, 2 / 3)
