"""Two updates of each classifier of one matrix: every term of its loss, and what it carries along, by numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear import RATE, STRONG, WEAK, check, dimmed, log_softmax, said, softmax, surprise, taken, together

from ssl_gen.losses.ensembling import Memory
from ssl_gen.losses.thresholds import Gaussian, Marginals, SelfAdaptive
from ssl_gen.methods.self_training import mix_match, re_mix_match

RANDOM = np.random.default_rng(0)
VIEWS = {"augmentation": WEAK, "strong": STRONG, "averaging": RATE, "memory": 4}
PLAIN = {"augmentation": WEAK, "averaging": RATE}


def f32(array):
    return jnp.asarray(array, jnp.float32)


def uneven():
    """Means of labels and guesses that are not each other's."""
    return Marginals(f32([0.5, 0.3, 0.2]), f32([0.25, 0.3, 0.45]))


def norm(values):
    return values / values.sum(-1, keepdims=True)


def moved(mean, now):
    """A running mean over 4 steps."""
    return np.float64(mean) + (now - np.float64(mean)) / 4


def aligned(q, marginals):
    return norm(q * (np.float64(marginals.labels) + 1e-6) / (np.float64(marginals.guesses) + 1e-6))


def of_labels(labels):
    return np.eye(3)[np.asarray(labels)].mean(0)


def same(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)


def weak(images):
    return dimmed(WEAK, None, images)


def strong(images):
    return dimmed(STRONG, None, images)


def some(sure):
    """Some are, some are not."""
    assert 0 < np.mean(sure) < 1
    return sure


def answers(step):
    """Logits of labelled images and of the strong view."""
    params = step.before.classifier.params
    return said(params, weak(step.batch.labelled)), said(params, strong(step.batch.unlabelled))


def guesses(step, teacher="student"):
    """q of the weak view."""
    player = step.before.classifier
    return softmax(said(player.params if teacher == "student" else player.ema.params, weak(step.batch.unlabelled)))


@pytest.mark.parametrize("teacher", ["student", "average"])
def test_fixmatch_learns_aligned_guesses_that_are_sure_and_counts_them_as_they_were(monkeypatch, teacher):
    start = {"marginals": uneven()}
    _, steps = taken(monkeypatch, "fixmatch", start, **VIEWS, teacher=teacher, threshold=0.7, unlabelled_weight=0.3)
    for step in steps:
        (labelled, unlabelled), q = answers(step), guesses(step, teacher)
        learnt = aligned(q, step.before.marginals)
        sure = some(learnt.max(-1) > 0.7)
        pseudo_label = 0.3 * (sure * surprise(unlabelled, learnt.argmax(-1))).mean()
        check(step, {"supervised": surprise(labelled, step.batch.labels).mean(), "pseudo_label": pseudo_label})
        former = step.before.marginals
        expected = moved(former.labels, of_labels(step.batch.labels)), moved(former.guesses, q.mean(0))
        same(step.after.marginals, Marginals(*expected))


def test_free_match_learns_guesses_above_thresholds_that_know_of_them_already(monkeypatch):
    start = {"means": SelfAdaptive(f32(0.6), f32([0.5, 0.3, 0.2]), f32([0.2, 0.35, 0.45]))}
    _, steps = taken(monkeypatch, "free_match", start, **VIEWS, fairness=0.7, unlabelled_weight=0.3)
    for step in steps:
        (labelled, unlabelled), q = answers(step), guesses(step)
        former, now = step.before.means, (q.max(-1).mean(), q.mean(0), of_labels(q.argmax(-1)))
        means = SelfAdaptive(*(moved(*pair) for pair in zip(former, now, strict=True)))
        same(step.after.means, means)
        limits = (means.confidence * means.guesses / means.guesses.max())[q.argmax(-1)]
        believed = some(q.max(-1) > limits)
        shares = np.eye(3)[unlabelled.argmax(-1)][believed].sum(0)
        given = norm(np.divide(softmax(unlabelled)[believed].sum(0), shares, np.zeros(3), where=shares > 0))
        fairness = (norm(means.guesses / means.counts) * np.log(given + 1e-12)).sum()
        terms = {
            "supervised": surprise(labelled, step.batch.labels).mean(),
            "pseudo_label": 0.3 * (believed * surprise(unlabelled, q.argmax(-1))).mean(),
            "fairness": 0.7 * fairness,
        }
        check(step, terms)


def test_soft_match_weighs_guesses_by_how_sure_they_are_once_aligned(monkeypatch):
    start = {"confidence": Gaussian(f32(0.7), f32(0.05)), "marginals": uneven()}
    _, steps = taken(monkeypatch, "soft_match", start, **VIEWS, deviations=0.8, unlabelled_weight=0.3)
    for step in steps:
        (labelled, unlabelled), q = answers(step), guesses(step)
        marginals = Marginals(np.float64(uneven().labels), moved(step.before.marginals.guesses, q.mean(0)))
        sure = aligned(q, marginals).max(-1)
        mean = moved(step.before.confidence.mean, sure.mean())
        variance = moved(step.before.confidence.variance, sure.var(ddof=1))
        same((step.after.marginals, step.after.confidence), (marginals, Gaussian(mean, variance)))
        below = some(sure < mean)
        weights = np.where(below, np.exp(-((sure - mean) ** 2) / (2 * 0.8**2 * variance)), 1)
        pseudo_label = 0.3 * (weights * surprise(unlabelled, q.argmax(-1))).mean()
        check(step, {"supervised": surprise(labelled, step.batch.labels).mean(), "pseudo_label": pseudo_label})


def test_ada_match_aligns_its_guesses_to_what_it_says_of_labelled_images(monkeypatch):
    """A network that judges each image on its own says the same in either pass: there is nothing between them."""
    start = {"marginals": uneven()}
    config, steps = taken(monkeypatch, "ada_match", start, **VIEWS, threshold=0.9, unlabelled_weight=0.3)
    for step in steps:
        (labelled, unlabelled), q = answers(step), guesses(step)
        p, again = softmax(labelled), said(step.before.classifier.params, strong(step.batch.labelled))
        former = step.before.marginals
        marginals = Marginals(moved(former.labels, p.mean(0)), moved(former.guesses, q.mean(0)))
        same(step.after.marginals, marginals)
        learnt = aligned(q, marginals)
        sure = some(learnt.max(-1) > 0.9 * p.max(-1).mean())
        risen = 0.5 - np.cos(min(np.pi, 2 * np.pi * step.number / config.steps)) / 2
        pseudo_label = 0.3 * risen * (sure * surprise(unlabelled, learnt.argmax(-1))).mean()
        both = [surprise(logits, step.batch.labels).mean() for logits in (labelled, again)]
        check(step, {"supervised": np.mean(both), "pseudo_label": pseudo_label})


@pytest.mark.parametrize("teacher", ["student", "average"])
def test_uda_learns_sharpened_guesses_and_labels_under_a_ceiling_that_rises(monkeypatch, teacher):
    changes = {"teacher": teacher, "threshold": 0.6, "temperature": 0.4, "annealing": "exp", "unlabelled_weight": 0.3}
    views = {name: value for name, value in VIEWS.items() if name != "memory"}
    config, steps = taken(monkeypatch, "uda", **views, **changes)
    for step in steps:
        (labelled, unlabelled), q = answers(step), guesses(step, teacher)
        sure, sharp = some(q.max(-1) > 0.6), norm(q ** (1 / 0.4))
        nats = surprise(labelled, step.batch.labels)
        ceiling = np.exp(5 * (step.number / config.steps - 1)) * 2 / 3 + 1 / 3
        taught = some(np.exp(-nats) <= ceiling)
        consistency = 0.3 * (sure * -(sharp * log_softmax(unlabelled)).sum(-1)).mean()
        check(step, {"supervised": nats[taught].mean(), "consistency": consistency})


def both(step):
    """Logits of labelled and of unlabelled images, which are augmented beside each other."""
    count = len(step.batch.labels)
    images = weak(together(step.batch.labelled, step.batch.unlabelled))
    mine = together(np.ones(count), np.zeros(len(step.batch.unlabelled))) > 0
    logits = said(step.before.classifier.params, images)
    return logits[mine], logits[~mine]


def test_pseudo_label_learns_its_own_answers_along_a_ramp(monkeypatch):
    changes = {"threshold": 0.6, "ramp": (0.0, 1.0), "unlabelled_weight": 0.3}
    config, steps = taken(monkeypatch, "pseudo_label", **PLAIN, **changes)
    for step in steps:
        labelled, unlabelled = both(step)
        sure = some(softmax(unlabelled).max(-1) > 0.6)
        own = (sure * surprise(unlabelled, unlabelled.argmax(-1))).mean()
        terms = {"supervised": surprise(labelled, step.batch.labels).mean()}
        check(step, terms | {"pseudo_label": 0.3 * step.number / config.steps * own})


def risen(step, config):
    return np.exp(-5 * (1 - step.number / config.steps) ** 2)


def test_mean_teacher_agrees_with_its_average(monkeypatch):
    changes = {"augmentation": WEAK, "averaging": (RATE, RATE), "ramp_up": 1.0}
    config, steps = taken(monkeypatch, "mean_teacher", **changes)
    for step in steps:
        images = weak(together(step.batch.labelled, step.batch.unlabelled))
        student, teacher = (
            said(each, images) for each in (step.before.classifier.params, step.before.classifier.ema.params)
        )
        consistency = config.consistency * risen(step, config) * ((softmax(student) - softmax(teacher)) ** 2).mean()
        check(step, {"supervised": surprise(both(step)[0], step.batch.labels).mean(), "consistency": consistency})


def test_pi_model_agrees_with_itself_on_another_view(monkeypatch):
    darker = itertools.cycle([0.9, 0.4])  # of one view and the other
    config, steps = taken(
        monkeypatch, "pi_model", augment=lambda config, key, images: images * next(darker), averaging=RATE, ramp_up=1.0
    )
    for step in steps:
        images = together(step.batch.labelled, step.batch.unlabelled)
        first, second = (said(step.before.classifier.params, view * images) for view in (0.9, 0.4))
        labelled = first[together(np.ones(4), np.zeros(8)) > 0]
        consistency = config.consistency * risen(step, config) * ((softmax(first) - softmax(second)) ** 2).mean()
        check(step, {"supervised": surprise(labelled, step.batch.labels).mean(), "consistency": consistency})


def test_temporal_ensembling_agrees_with_what_it_remembers_and_remembers_what_it_says(monkeypatch):
    weights = np.where(np.arange(24) % 2, 0.4, 0.0)  # half were not seen
    start = {"memory": Memory(f32(weights[:, None] * RANDOM.dirichlet(np.ones(3), 24)), f32(weights))}
    config, steps = taken(monkeypatch, "temporal_ensembling", start, **PLAIN, ramp_up=1.0, decay=0.7)
    for step in steps:
        labelled, unlabelled = both(step)
        rows, p, former = np.asarray(step.batch.rows), softmax(unlabelled), step.before.memory
        sums, weights = np.float64(former.sums), np.float64(former.weights)
        seen = some(weights[rows] > 0)
        squares = [((p[i] - sums[row] / weights[row]) ** 2).sum() / 3 for i, row in enumerate(rows) if seen[i]]
        consistency = config.consistency * risen(step, config) * sum(squares) / len(rows)
        check(step, {"supervised": surprise(labelled, step.batch.labels).mean(), "consistency": consistency})
        sums[rows], weights[rows] = 0.7 * sums[rows] + 0.3 * p, 0.7 * weights[rows] + 0.3
        same(step.after.memory, Memory(sums, weights))


def test_vat_says_the_same_a_length_of_epsilon_away_where_that_is_hardest(monkeypatch):
    changes = {"epsilon": 0.8, "adversarial": 0.7, "entropy": 0.3, "power_iterations": 1}
    _, steps = taken(monkeypatch, "vat", **PLAIN, **changes)
    for step in steps:
        params, images = step.before.classifier.params, weak(together(step.batch.labelled, step.batch.unlabelled))
        start = np.float64(jax.random.normal(jax.random.split(step.key, 4)[2], images.shape)).reshape(12, -1)
        logits, weights = said(params, images), np.float64(params["weights"])
        p, change = softmax(logits), start @ weights
        direction = (p * (change - (p * change).sum(-1, keepdims=True))) @ weights.T  # H d = W (diag p - p p^T) W^T d
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        other = log_softmax(logits + 0.8 * direction @ weights)
        labelled, unlabelled = both(step)
        terms = {
            "supervised": surprise(labelled, step.batch.labels).mean(),
            "adversarial": 0.7 * (p * (np.log(p) - other)).sum(-1).mean(),
            "entropy": 0.3 * -(softmax(unlabelled) * log_softmax(unlabelled)).sum(-1).mean(),
        }
        check(step, terms)


def mix(monkeypatch, module, count):
    """Shares and partners that the test knows, in two groups: what mixes values (count, ...)."""
    shares, orders = RANDOM.uniform(0.5, 1, count), np.stack([RANDOM.permutation(count // 2) for _ in range(2)])
    monkeypatch.setattr(module, "own_shares", lambda *_: f32(shares))
    monkeypatch.setattr(module, "shuffles", lambda *_: jnp.asarray(orders))
    partners = np.concatenate([orders[0], count // 2 + orders[1]])

    def mixed(values):
        own = shares.reshape(-1, *[1] * (values.ndim - 1))
        return own * values + (1 - own) * values[partners]

    return mixed


def test_mix_match_mixes_targets_as_it_mixes_images(monkeypatch):
    mixed = mix(monkeypatch, mix_match, 4 + 2 * 8)
    config, steps = taken(monkeypatch, "mix_match", **PLAIN, mixing_groups=2, ramp=1.0, temperature=0.6)
    for step in steps:
        params, batch = step.before.classifier.params, step.batch
        images = weak(together(batch.labelled, np.repeat(batch.unlabelled, 2, 0)))
        mine = together(np.ones(4), np.zeros(16)) > 0
        q = softmax(said(params, images[~mine])).reshape(8, 2, 3).mean(1)
        q = norm(q ** (1 / 0.6))
        targets = mixed(together(np.eye(3)[np.asarray(batch.labels)], np.repeat(q, 2, 0)))
        logits = said(params, mixed(images))
        squares = ((softmax(logits) - targets)[~mine] ** 2).sum(-1).mean() / 3
        terms = {
            "supervised": -(targets * log_softmax(logits))[mine].sum(-1).mean(),
            "consistency": config.consistency * step.number / config.steps * squares,
        }
        check(step, terms)


def test_re_mix_match_learns_mixed_images_an_anchored_view_and_how_it_was_turned(monkeypatch):
    mixed = mix(monkeypatch, re_mix_match, 4 + 8 + 2 * 8)
    changes = {"mixing_groups": 2, "views": 2, "ramp": 1.0, "temperature": 0.6, "consistency": 1.5}
    weights = {"anchor_weight": 0.5, "rotation": 0.7}
    start = {"marginals": uneven()}
    config, steps = taken(monkeypatch, "re_mix_match", start, **VIEWS, **changes, **weights)
    for step in steps:
        params, batch = step.before.classifier.params, step.batch
        images = strong(together(batch.labelled, np.repeat(batch.unlabelled, 2, 0)))
        mine = together(np.ones(4), np.zeros(16)) > 0
        labelled, views, plain = images[mine], images[~mine], weak(batch.unlabelled)
        q = softmax(said(params, plain)[:, :3])
        guess = norm(aligned(q, step.before.marginals) ** (1 / 0.6))
        targets = mixed(together(np.eye(3)[np.asarray(batch.labels)], guess, np.repeat(guess, 2, 0)))
        mine = together(np.ones(4), np.zeros(8), np.zeros(16)) > 0
        nats = -(targets * log_softmax(said(params, mixed(together(labelled, plain, views)))[:, :3])).sum(-1)
        turns = np.asarray(jax.random.randint(jax.random.split(step.key, 8)[4], (8,), 0, 4))
        turned = np.stack([np.rot90(image, turn) for image, turn in zip(views[::2], turns, strict=True)])
        rises = step.number / config.steps
        terms = {
            "supervised": nats[mine].mean(),
            "consistency": 1.5 * rises * nats[~mine].mean(),
            "anchored": 0.5 * rises * -(guess * log_softmax(said(params, views[::2])[:, :3])).sum(-1).mean(),
            "rotation": 0.7 * surprise(said(params, turned)[:, 3:], turns).mean(),
        }
        check(step, terms)
        former = step.before.marginals
        same(
            step.after.marginals,
            Marginals(moved(former.labels, of_labels(batch.labels)), moved(former.guesses, q.mean(0))),
        )
