"""From a state to metrics: batches, devices, what is made once, and what each metric needs."""

import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen import evaluation, features
from ssl_gen.datasets.dataset import Dataset
from ssl_gen.evaluation import BATCH, Reference, Subject, compiled
from ssl_gen.measurements import METRICS, applicable
from ssl_gen.types import Method, TrainState, UserError

CLASSES, TEST, TRAIN = 3, 700, 40


def dataset(test=TEST):
    """Images of three classes, each as bright as its number says."""

    random = np.random.default_rng(0)

    def split(count):
        labels = np.arange(count, dtype=np.int32) % CLASSES
        noise = random.integers(0, 40, (count, 8, 8, 1))
        return (70 * labels[:, None, None, None] + noise).astype(np.uint8), labels

    (train_images, train_labels), (test_images, test_labels) = split(TRAIN), split(test)
    return Dataset("bright", train_images, train_labels, test_images, test_labels, ("a", "b", "c"))


def sample(state, key, labels):
    """Images as bright as the class asked for, with noise of the state's size."""
    noise = jax.random.uniform(key, (labels.shape[0], 8, 8, 1)) * state.noise
    return jnp.clip((70 * labels[:, None, None, None] + 40 * noise) / 127.5 - 1, -1, 1)


def classify(state, images):
    """By brightness."""
    brightness = (images.mean((1, 2, 3)) + 1) * 127.5
    return jax.nn.log_softmax(-jnp.abs(brightness[:, None] - 20 - 70 * jnp.arange(CLASSES)))


def encode(state, images):
    return images.reshape(len(images), -1)


def decode(state, latents, labels):
    return latents.reshape(-1, 8, 8, 1)


def log_weight(state, key, images):
    return images.sum((1, 2, 3)) + jax.random.normal(key, (len(images),))


METHOD = Method(None, (), sample, classify, encode, decode, True, log_weight)
STATE = types.SimpleNamespace(noise=1.0)
jax.tree_util.register_pytree_node(
    types.SimpleNamespace,
    lambda state: ((state.noise,), None),
    lambda _, leaves: types.SimpleNamespace(noise=leaves[0]),
)


def subject(method=METHOD, extractor="pixels", test=TEST, samples=None, foreign=None, fit=None):
    data = dataset(test)
    reference = Reference(data, features.choose(extractor, data.spec, "bright"), fit, foreign, samples)
    visible = np.where(np.arange(TRAIN) < 9, data.train_labels, -1)
    return Subject(compiled(method), STATE, reference, visible, 0)


def measured(name, **settings):
    return METRICS[name].measure(subject(**settings))


def test_a_batch_is_filled_up_and_the_filling_left_out():
    found = evaluation.mapped(lambda rows: rows * 2, np.arange(BATCH + 3))
    np.testing.assert_array_equal(found, 2 * np.arange(BATCH + 3))


def test_the_devices_share_each_batch():
    batch = evaluation.shared(np.zeros((BATCH, 2)))
    assert len(batch.sharding.device_set) == len(jax.local_devices()) == 4
    assert {shard.data.shape for shard in batch.addressable_shards} == {(BATCH // 4, 2)}


def test_samples_do_not_depend_on_how_many_devices_draw_them(monkeypatch):
    asked = np.arange(7) % CLASSES
    many = evaluation.draw(compiled(METHOD), STATE, asked)
    first = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: first)
    np.testing.assert_array_equal(many, evaluation.draw(compiled(METHOD), STATE, asked))


def test_real_features_are_made_once_and_read_from_the_disk_afterwards(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls, extractor = [], features.choose("pixels", dataset().spec, "bright")

    def counted(images):
        calls.append(len(images))
        return extractor.features(images)

    images = dataset().test_images
    first = evaluation.remembered(extractor._replace(features=counted), images)
    made = len(calls)
    np.testing.assert_array_equal(evaluation.remembered(extractor._replace(features=counted), images), first)
    assert len(calls) == made > 0
    evaluation.remembered(extractor._replace(features=counted, name="other"), images)
    evaluation.remembered(extractor._replace(features=counted), images[::-1])
    assert len(calls) == 3 * made


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        evaluation.remembered(features.choose("pixels", dataset().spec, "bright"), dataset().test_images)


@pytest.mark.parametrize(
    ("test", "samples", "expected"), [(700, None, 999), (1202, None, 1200), (0, 100, 99), (6, 2, 3)]
)
def test_each_class_is_drawn_as_often_as_the_others(test, samples, expected):
    asked = subject(test=test, samples=samples).many_asked
    assert len(asked) == expected
    assert len(set(np.bincount(asked))) == 1


def test_the_name_of_a_metric_says_extractor_reference_and_samples():
    assert list(measured("fid", samples=30)) == ["fid_pixels_ref=test_n=30"]
    assert list(measured("fid", samples=30, test=0)) == ["fid_pixels_ref=train_n=30"]
    name = features.choose("random", dataset().spec, "bright").name
    assert list(measured("fid", samples=30, extractor="random")) == [f"fid_{name}_ref=test_n=30"]


def test_samples_like_the_data_are_near_and_others_far():
    name = "fid_pixels_ref=test_n=999"
    same, other = (measured("fid", method=method)[name] for method in (METHOD, METHOD._replace(sample=flat)))
    assert same < other / 10


def flat(state, key, labels):
    """The same image every time."""
    return jnp.zeros((labels.shape[0], 8, 8, 1))


@pytest.mark.parametrize(
    "name", [name for name, metric in METRICS.items() if not {"classes", "foreign"} & {*metric.needs}]
)
def test_every_metric_of_a_method_that_can_do_all_is_a_number_with_its_name(name, monkeypatch):
    monkeypatch.setattr("ssl_gen.measurements.LATENTS", 3)
    tools = compiled(METHOD), STATE
    found = measured(name, fit=lambda images, labels: tools)
    assert found and all(np.isfinite(value) and isinstance(value, float) for value in found.values())
    assert all(full.startswith(("precision", "recall", "density", "coverage", "nearest", name)) for full in found)


def test_metrics_of_the_extractors_classes_need_an_extractor_that_knows_them():
    able = subject()
    knowing = able.reference.extractor._replace(classify=lambda images: classify(None, images / 127.5 - 1))
    assert "agreement" not in applicable(METHOD, able.reference)
    with pytest.raises(UserError, match="classes"):
        applicable(METHOD, able.reference, ("agreement",))
    reference = Reference(able.reference.dataset, knowing, None)
    assert {"agreement", "inception_score"} <= set(applicable(METHOD, reference))
    found = METRICS["agreement"].measure(Subject(able.tools, STATE, reference, able.visible, 0))
    assert found == {"agreement_pixels_n=999": 100.0}


def test_foreign_images_are_told_from_known_ones():
    foreign = np.full((50, 8, 8, 1), 255, np.uint8)
    assert "auroc" in applicable(METHOD, subject(foreign=foreign).reference)
    assert "auroc" not in applicable(METHOD, subject().reference)
    found = measured("auroc", foreign=foreign)["auroc"]
    outside = np.exp(np.asarray(classify(STATE, foreign / 127.5 - 1))).max()
    inside = np.exp(subject().log_probabilities.max(-1))
    assert found == pytest.approx((inside > outside).mean() + (inside == outside).mean() / 2)


def test_what_a_method_cannot_do_is_left_out():
    reference = subject().reference
    silent = Method(None, (), classify=classify)
    assert set(applicable(silent, reference)) == {"error", "balanced_error", "nll", "calibration_error"}
    assert "copying" in applicable(Method(None, (), sample=sample), reference)
    assert not {"agreement_svc", "cas"} & set(applicable(Method(None, (), sample=sample), reference))


def test_copies_of_labelled_images_are_flagged_beside_the_labelled_ones_alone():
    data = dataset()
    labelled = jnp.asarray(data.train_images[:9])

    def copy(state, key, labels):
        rows = jax.random.randint(key, labels.shape, 0, 9)
        return labelled[rows] / 127.5 - 1

    found = measured("copying", method=METHOD._replace(sample=copy))
    assert found["copying_labelled_pixels_ref=test_n=999"] < -3
    assert found["nearest_ratio_labelled_pixels_ref=test_n=999"] < 0.1
    honest = measured("copying")
    assert honest["copying_labelled_pixels_ref=test_n=999"] > -3


def test_the_players_measured_at_their_running_mean_are_named():
    class State(tuple):
        def _asdict(self):
            kept = TrainState({"w": 1.0}, {}, (), {"w": 1.0})
            return {"step": 0, "generator": kept._replace(ema=()), "classifier": kept}

    assert evaluation.averaged(State()) == ["classifier"]


def test_a_seed_that_stopped_has_no_value():
    found = evaluation.measure(["a"], {"a": lambda subject: {"a_n=1": subject}}, {0: 1.5, 2: 2.5}, [0, 1, 2])
    assert found == {"a_n=1": [1.5, None, 2.5]}


def test_seeds_are_measured_side_by_side_after_the_first(monkeypatch):
    monkeypatch.setattr(evaluation, "at_a_time", lambda: 3)
    first, others = threading.Event(), threading.Barrier(3, timeout=60)

    def measure(subject):
        if subject == 0:
            first.set()
        else:
            assert first.is_set()
            others.wait()
        if subject == 2:
            raise UserError("too few")
        return {"a": 1.0 * subject}

    unmeasured = {}
    found = evaluation.measure(["a"], {"a": measure}, {seed: seed for seed in range(4)}, range(4), unmeasured)
    assert found == {"a": [0.0, 1.0, None, 3.0]} and unmeasured == {"a": "seed 2: too few"}
    with pytest.raises(UserError, match="too few"):
        evaluation.measure(["a"], {"a": measure}, {seed: seed for seed in range(4)}, range(4))
