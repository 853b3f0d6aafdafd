"""You et al. 2023, with a flow: who trains in which phase, on which images, with whose labels."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import IMAGES, SPEC, first_rows, same, some_rows, tiny

from ssl_gen.core.flows import Flow
from ssl_gen.core.keys import INIT, stream
from ssl_gen.methods.diffusion import dual_pseudo_training
from ssl_gen.methods.diffusion.dual_pseudo_training import Config, draws, make
from ssl_gen.types import Batch, UserError

SCALED = jnp.asarray(IMAGES, jnp.float32) / 127.5 - 1
NAME = "dual_pseudo_training"
FIRST = stream(0, 0), jnp.int32(0)  # key and number of a run's first step


def gathered(labelled, labels, unlabelled, guesses=None):
    return Batch(SCALED[labelled], jnp.asarray(labels), SCALED[unlabelled], None, () if guesses is None else guesses)


def batch_of(method, phase):
    return gathered(*(part[0, 0] for part in some_rows(method, phase, 0, 1)))


@functools.cache
def started():
    method = tiny(NAME).method
    return jax.jit(method.init)(stream(0, INIT), gathered(*(part[0] for part in first_rows())))


def paint(labels):
    """An image of each label that says it: 0, 0.5 or 1 everywhere."""
    return jnp.broadcast_to(jnp.asarray(labels)[:, None, None, None] / 2.0, (len(labels), *SPEC.shape))


@pytest.fixture
def painting(monkeypatch):
    """The flow draws `paint`, and learns nothing; what it was shown."""
    shown = []

    def learn(self, state, keys, step, images, labels):
        shown.append((images, labels, int(step)))
        return state, {}

    monkeypatch.setattr(Flow, "learn", learn)
    monkeypatch.setattr(Flow, "sample", lambda self, state, key, labels, sampler: paint(labels))
    return shown


def moved(before, after):
    return {name for name in after._fields if not same(getattr(after, name), getattr(before, name))}


def test_each_phase_changes_its_own_part_of_the_state(painting, monkeypatch):
    monkeypatch.setattr(dual_pseudo_training, "learn_sources", raised)
    method, found = tiny(NAME).method, []
    for index, phase in enumerate(method.phases):
        after, _ = phase.step(started(), *FIRST, batch_of(method, index))
        found.append(moved(started(), after))
    assert found == [{"first", "classifier"}, set(), {"samples"}, {"classifier"}]


def raised(config, player, state, marginals, key, step, batch, taught):
    """In the place of an update of the classifier: its params, all raised by 1."""
    return state._replace(params=jax.tree.map(lambda leaf: leaf + 1, state.params)), marginals, {}


def test_the_first_classifier_is_the_last_one_until_that_goes_on(painting, monkeypatch):
    monkeypatch.setattr(dual_pseudo_training, "learn_sources", raised)
    method, state, equal = tiny(NAME).method, started(), [same(started().first, started().classifier)]
    for index, phase in enumerate(method.phases):
        state, _ = phase.step(state, *FIRST, batch_of(method, index))
        equal.append(same(state.first, state.classifier))
    assert equal == [True, True, True, True, False]


def test_the_flow_learns_visible_labels_and_of_other_images_what_the_classifier_guesses(painting):
    method = tiny(NAME).method
    told = jnp.array([2, -1, -1, 0, -1, 1, -1, -1])
    batch = gathered(np.arange(0), np.zeros(0, np.int32), np.arange(8, 16), told)
    method.phases[1].step(started(), stream(0, 1), jnp.int32(1), batch)
    guesses = np.asarray(method.classify(started(), batch.unlabelled)).argmax(-1)
    ((images, labels, step),) = painting
    np.testing.assert_array_equal(images, batch.unlabelled)
    np.testing.assert_array_equal(labels, np.where(told < 0, guesses, told))
    assert step == 0  # the flow's own first


def filled(method):
    """The state after all steps of the third phase."""
    state, before = started(), sum(phase.steps for phase in method.phases[:2])
    state = state._replace(samples=jnp.full_like(method_samples(method), -1))
    for step in range(before, before + method.phases[2].steps):
        state, _ = method.phases[2].step(state, stream(0, step), jnp.int32(step), batch_of(method, 2))
    return state


def method_samples(method):
    return jax.eval_shape(method.init, stream(0, INIT), gathered(*(part[0] for part in first_rows()))).samples


@pytest.mark.parametrize("wanted", [2, 7])
def test_all_classes_are_drawn_and_each_often_enough(painting, wanted):
    """Of 3 classes, 8 at a time: in one step 2 of each and more, in three 7 of each and more."""
    config = tiny(NAME, samples_per_class=wanted).config
    method = make(config, SPEC)
    samples = filled(method).samples
    assert method.phases[2].steps == draws(config, 3) == {2: 1, 7: 3}[wanted]
    counts = [int((samples[:, 0, 0, 0] == label / 2).sum()) for label in range(3)]
    assert min(counts) >= wanted and sum(counts) == len(samples) == 8 * method.phases[2].steps


def test_drawn_images_teach_the_label_that_they_were_drawn_for(painting, monkeypatch):
    shown = []

    def seen(*arguments):
        shown.append(arguments[-1])
        return raised(*arguments)

    monkeypatch.setattr(dual_pseudo_training, "learn_sources", seen)
    method = make(tiny(NAME, samples_per_class=7).config, SPEC)
    batch = batch_of(method, 3)
    method.phases[3].step(filled(method), *FIRST, batch)
    images, labels = shown[0]["samples"]
    np.testing.assert_array_equal(images, paint(labels))
    assert len(labels) == 8 and len(set(labels.tolist())) > 1
    np.testing.assert_array_equal(shown[0]["supervised"][1], batch.labels)


@pytest.mark.parametrize("on", [on for on in itertools.product([False, True], repeat=3) if any(on)])
def test_each_switch_takes_its_source_from_the_last_phase(on, monkeypatch):
    switches = dict(zip(["from_labels", "from_guesses", "from_samples"], on, strict=True))
    shown = []
    monkeypatch.setattr(
        dual_pseudo_training, "learn_sources", lambda *arguments: shown.append(arguments[-1]) or raised(*arguments)
    )
    method = make(tiny(NAME, **switches).config, SPEC)
    state = started()._replace(samples=paint(jnp.arange(8) % 3))
    method.phases[3].step(state, *FIRST, batch_of(method, 3))
    assert shown[0].keys() == {name for name, is_on in (("supervised", on[0]), ("samples", on[2])) if is_on}
    sizes = [(bool(phase.labelled), bool(phase.unlabelled)) for phase in method.phases]
    assert sizes == [(True, on[1]), (False, True), (False, False), (on[0], on[1])]
    assert bool(method.phases[2].steps) == on[2]


def test_an_image_is_encoded_with_the_classifiers_guess(monkeypatch):
    monkeypatch.setattr(Flow, "encode", lambda self, state, images, labels: labels)
    method = tiny(NAME).method
    np.testing.assert_array_equal(
        method.encode(started(), SCALED), np.asarray(method.classify(started(), SCALED)).argmax(-1)
    )


@pytest.mark.parametrize("steps", [0, 1, 7, 20_000])
def test_drawing_comes_on_top_of_the_steps_of_the_other_phases(steps):
    method = make(Config(steps=steps), SPEC)
    trained = [phase.steps for phase in method.phases if phase.name != "drawing"]
    assert sum(trained) == steps and method.phases[2].steps == 6  # 3 x 128 images, 64 at a time


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"warm_up": 0.6, "generation": 0.5}, "shares"),
        ({"from_labels": False, "from_guesses": False, "from_samples": False}, "nothing to learn"),
        ({"generated_batch": 48}, "multiple"),
        ({"unlabelled_batch": 96}, "multiple"),
        ({"label_dropout": 1.0}, "draws none for the classifier"),
        ({"widths": ()}, "widths is empty"),
        ({"attention": (2,)}, "levels are 0 to 1"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(changes, what):
    with pytest.raises(UserError, match=what):
        make(Config(**changes), SPEC)
