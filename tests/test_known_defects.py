"""Two defects of well-known code bases, and that the check which every method passes would have caught them.

USB's Mean Teacher compared the teacher's outputs, computed without gradient, where the student's belong; the official
Meta Pseudo Labels train the teacher towards its own softmax. Either way a term stood in the log and trained nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import IMAGES, SPEC, STEPS, first_rows, terms_with_gradients, tiny

from ssl_gen.core import gradient
from ssl_gen.core.keys import INIT
from ssl_gen.losses import sources
from ssl_gen.methods.self_training import meta_pseudo_labels
from ssl_gen.types import Batch

DENSE, DENSE_CLASSIFIER = {"network": "mlp"}, {"classifier_network": "mlp"}  # the least to compile
# method: how to shrink it further, and by term the formula of student and teacher that a defect would go into
CONSISTENT = {
    "mean_teacher": (DENSE, {"classifier/consistency": "softmax_mse"}),
    "fixmatch": (DENSE, {"classifier/pseudo_label": "confident_cross_entropy"}),
    "uda": (DENSE, {"classifier/consistency": "sharpened_cross_entropy"}),
    "soft_match": (DENSE, {"classifier/pseudo_label": "weighted_cross_entropy"}),
    "ada_match": (DENSE, {"classifier/pseudo_label": "confident_cross_entropy"}),
    "pseudo_label": (DENSE, {"classifier/pseudo_label": "confident_cross_entropy"}),
    "meta_pseudo_labels": (DENSE, {"teacher/consistency": "sharpened_cross_entropy"}),
    "gan_self_training": (DENSE_CLASSIFIER, {"classifier/guesses": "confident_cross_entropy"}),
    "triple_gan": (
        DENSE_CLASSIFIER,
        {"classifier/consistency": "softmax_mse", "classifier/pseudo_label": "confident_cross_entropy"},
    ),
}


def own_gradients(name, changes, phase, monkeypatch):
    """The norms that the conformance test wants above 0, by `player/term`."""
    module, config, _ = tiny(name, **changes)
    monkeypatch.setattr(gradient, "descend", terms_with_gradients)
    method = module.make(config, SPEC)
    images, rows = jnp.asarray(IMAGES, jnp.float32) / 127.5 - 1, first_rows()
    batch = Batch(images[rows.labelled[0, :4]], rows.labels[0, :4], images[rows.unlabelled[0, :8]])

    def first_step(key):
        state, at = method.init(jax.random.fold_in(key, INIT), batch), jnp.int32(STEPS)  # ramps are over
        return method.phases[phase].step(state, jax.random.fold_in(key, at), at, batch)[1]

    found = jax.jit(first_step)(jax.random.key(0))
    return {term.removesuffix("/own"): float(value) for term, value in found.items() if term.endswith("/own")}


@pytest.mark.parametrize("name", CONSISTENT)
def test_the_check_passes_terms_of_the_students_outputs_and_catches_terms_of_the_teachers(name, monkeypatch):
    changes, terms = CONSISTENT[name]
    whole = own_gradients(name, changes, 0, monkeypatch)
    assert all(value > 0 for value in whole.values()) and terms.keys() <= whole.keys()
    for formula in terms.values():
        module = next(place for place in (tiny(name).module, sources) if hasattr(place, formula))
        right = getattr(module, formula)

        def broken(student, teacher, *settings, right=right):
            teacher = jax.lax.stop_gradient(teacher)
            return right(teacher, teacher, *settings)

        monkeypatch.setattr(module, formula, broken)
    found = own_gradients(name, changes, 0, monkeypatch)
    assert {term for term, value in found.items() if value == 0} == terms.keys()


LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([1, 0, 3, 3, 2, 1])


def soft_feedback(logits, labels, advantage):
    """The official meta term: its target is the teacher's own softmax."""
    own = jax.lax.stop_gradient(jax.nn.softmax(logits))
    return jax.lax.stop_gradient(advantage) * optax.softmax_cross_entropy(logits, own).mean()


def test_a_meta_term_of_soft_labels_has_no_gradient_and_one_of_drawn_labels_has():
    """d CE(q, softmax l) / d l = softmax l - q: nothing at q = softmax l, softmax l - 1[k = yh] at a drawn label."""
    softmax = np.exp(np.float64(LOGITS))
    softmax /= softmax.sum(-1, keepdims=True)
    expected = 0.5 * (softmax - np.eye(4)[LABELS]) / 6
    assert np.abs(expected).max() > 0.02
    np.testing.assert_allclose(jax.grad(soft_feedback)(LOGITS, LABELS, 0.5), 0, atol=1e-7)
    found = jax.grad(meta_pseudo_labels.feedback)(LOGITS, LABELS, 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_the_check_passes_a_meta_term_of_drawn_labels_and_catches_one_of_soft_labels(monkeypatch):
    assert own_gradients("meta_pseudo_labels", DENSE, 1, monkeypatch)["teacher/meta"] > 0
    monkeypatch.setattr(meta_pseudo_labels, "feedback", soft_feedback)
    found = own_gradients("meta_pseudo_labels", DENSE, 1, monkeypatch)
    assert {term for term, value in found.items() if value == 0} == {"teacher/meta"}
