"""From a state to metrics: batches, devices, what is made once, and what each metric needs."""

import dataclasses
import functools
import pathlib
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from damage import DAMAGES
from safetensors.numpy import save_file
from test_frechet import by_samples
from test_vit import network, scaled, timm

from ssl_gen.core import files
from ssl_gen.datasets.dataset import Dataset
from ssl_gen.datasets.store import Store
from ssl_gen.evaluation import evaluated, features, inference, kept_features
from ssl_gen.evaluation.evaluated import Evaluated, abilities, measure
from ssl_gen.evaluation.inference import BATCH
from ssl_gen.evaluation.reference import Reference, cached_features
from ssl_gen.metrics import likelihood
from ssl_gen.metrics.metric import Metric
from ssl_gen.metrics.registry import METRICS, applicable
from ssl_gen.networks.pretrained import encoders
from ssl_gen.types import Average, Method, TrainState, UserError

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


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How noisy images are drawn."""

    noise: float = 40.0
    passes: int = 1


def sample(state, key, labels, sampler):
    """Images as bright as the class asked for, with noise of the state's size."""
    noise = jax.random.uniform(key, (labels.shape[0], 8, 8, 1)) * state.noise
    return jnp.clip((70 * labels[:, None, None, None] + sampler.noise * noise) / 127.5 - 1, -1, 1)


def classify(state, images):
    """By brightness."""
    brightness = (images.mean((1, 2, 3)) + 1) * 127.5
    return jax.nn.log_softmax(-jnp.abs(brightness[:, None] - 20 - 70 * jnp.arange(CLASSES)))


def encode(state, images):
    return images.reshape(len(images), -1)


def decode(state, latents, labels):
    return latents.reshape(-1, 8, 8, 1)


def log_weight(state, observed, key, images):
    return images.sum((1, 2, 3)) + jax.random.normal(key, (len(images),))


METHOD = Method(None, (), sample, classify, encode, decode, True, log_weight, sampler=Sampler())
STATE = types.SimpleNamespace(noise=1.0)
jax.tree_util.register_pytree_node(
    types.SimpleNamespace,
    lambda state: ((state.noise,), None),
    lambda _, leaves: types.SimpleNamespace(noise=leaves[0]),
)
compiled = functools.cache(inference.compiled)  # of all tests together
find_extractor = functools.cache(features.find_extractor)


def replica(
    method=METHOD, extractor="pixels", test=TEST, samples=None, out_of_distribution=None, fit=None, sampler=None
):
    data = dataset(test)
    reference = Reference(data, find_extractor(extractor, data.spec, "bright", ""), fit, out_of_distribution, samples)
    visible = np.where(np.arange(TRAIN) < 9, data.train_labels, -1)
    return Evaluated(compiled(method), STATE, reference, visible, np.arange(TRAIN), 0, sampler)


def measured(name, **settings):
    return evaluated.measured(METRICS[name], replica(**settings))


def possible(method, reference, names=()):
    return applicable(abilities(method, reference), names)


def test_a_batch_is_filled_up_and_the_filling_left_out():
    found = inference.mapped(lambda rows: rows * 2, np.arange(BATCH + 3))
    np.testing.assert_array_equal(found, 2 * np.arange(BATCH + 3))


def test_the_devices_share_each_batch():
    batch = inference.shared(np.zeros((BATCH, 2)))
    assert len(batch.sharding.device_set) == len(jax.local_devices()) == 4
    assert {shard.data.shape for shard in batch.addressable_shards} == {(BATCH // 4, 2)}


def test_samples_do_not_depend_on_how_many_devices_draw_them(monkeypatch):
    labels = np.arange(7) % CLASSES
    many = inference.draw_samples(compiled(METHOD), STATE, labels)
    first = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: first)
    np.testing.assert_array_equal(many, inference.draw_samples(compiled(METHOD), STATE, labels))


def test_real_features_are_made_once_and_read_from_the_disk_afterwards(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls, extractor = [], find_extractor("pixels", dataset().spec, "bright", "")

    def counted(images):
        calls.append(len(images))
        return extractor.features(images)

    images = dataset().test_images
    first = cached_features(extractor._replace(features=counted), Store(images))
    np.testing.assert_allclose(first, images.reshape(TEST, -1) / 255, rtol=1e-6)
    made = len(calls)
    np.testing.assert_array_equal(cached_features(extractor._replace(features=counted), Store(images)), first)
    assert len(calls) == made > 0
    cached_features(extractor._replace(features=counted, name="other"), Store(images))
    cached_features(extractor._replace(features=counted), Store(images[::-1]))
    assert len(calls) == 3 * made
    with jax.default_matmul_precision("highest"):  # a GPU comes to others by default
        cached_features(extractor._replace(features=counted), Store(images))
    assert len(calls) == 4 * made


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["*.npy", "*.sha256"])
def test_a_broken_cache_costs_time_and_no_result(tmp_path, monkeypatch, file, damage):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    extractor, store = find_extractor("pixels", dataset().spec, "bright", ""), Store(dataset().test_images)
    first = cached_features(extractor, store)
    (kept,) = tmp_path.rglob(file)
    whole = kept.read_bytes()
    DAMAGES[damage](kept)
    np.testing.assert_array_equal(cached_features(extractor, store), first)
    assert kept.read_bytes() == whole


@pytest.mark.parametrize("reason", ["it is a file", "there is no home"])
def test_features_that_cannot_be_kept_on_disk_stay_in_memory(tmp_path, monkeypatch, capsys, reason):
    calls, extractor = [], find_extractor("pixels", dataset().spec, "bright", "")._replace(name=reason)

    def counted(images):
        calls.append(len(images))
        return extractor.features(images)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file") if reason == "it is a file" else "")
    monkeypatch.setattr(pathlib.Path, "home", homeless)
    files.say_once.cache_clear()
    store = Store(dataset().test_images)
    first = cached_features(extractor._replace(features=counted), store)
    made = len(calls)
    np.testing.assert_array_equal(cached_features(extractor._replace(features=counted), store), first)
    assert len(calls) == made > 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "set XDG_CACHE_HOME to a folder of yours" in said


@pytest.mark.parametrize(
    ("test", "samples", "expected"), [(700, None, 999), (1202, None, 1200), (0, 100, 99), (6, 2, 3)]
)
def test_each_class_is_drawn_as_often_as_the_others(test, samples, expected):
    labels = replica(test=test, samples=samples).many_labels
    assert len(labels) == expected
    assert len(set(np.bincount(labels))) == 1


def test_the_name_of_a_metric_says_extractor_reference_and_samples():
    assert list(measured("fid", samples=30)) == ["fid_pixels_ref=test_n=30"]
    assert list(measured("fid", samples=30, test=0)) == ["fid_pixels_ref=train_n=30"]
    name = find_extractor("random", dataset().spec, "bright", "").name
    assert list(measured("fid", samples=30, test=30, extractor="random")) == [f"fid_{name}_ref=test_n=30"]


def test_the_name_of_a_metric_of_samples_says_how_they_were_drawn_where_not_by_default():
    plain = measured("fid", samples=30)
    noisy = measured("fid", samples=30, sampler=Sampler(noise=60.0))
    assert list(noisy) == ["fid_pixels_ref=test_n=30_noise=60"] and list(noisy.values()) != list(plain.values())
    assert list(measured("fid", samples=30, sampler=Sampler(0.5, 3))) == ["fid_pixels_ref=test_n=30_noise=0.5_passes=3"]


def test_the_default_sampler_given_by_hand_is_the_default_bit_for_bit():
    assert measured("fid", samples=30, sampler=Sampler()) == measured("fid", samples=30)


def test_an_fid_is_measured_on_the_features_of_a_pretrained_network(tmp_path, monkeypatch):
    """A small vision transformer with random weights, read from a file; its name is part of the metric's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept_features.folder.cache_clear()
    path = tmp_path / "model.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in timm(scaled(network())).items()}, path)
    encoder, settings = encoders.load(path), {"samples": 30, "test": 40, "extractor": str(path)}
    drawn = replica(**settings)
    seen = [
        encoders.run(encoder.settings, encoder.variables, jnp.asarray(images)).features
        for images in (drawn.many, drawn.test_images)
    ]
    assert seen[0].shape == (30, 128) and seen[1].shape == (40, 128)
    found = measured("fid", **settings)
    assert list(found) == [f"fid_{encoder.name}_ref=test_n=30"]
    assert next(iter(found.values())) == pytest.approx(by_samples(*map(np.float64, seen)), rel=1e-3)
    kept_features.folder.cache_clear()


def test_a_metric_of_no_samples_has_the_same_name_and_value_under_any_sampler():
    assert measured("error", sampler=Sampler(noise=60.0)) == measured("error")


def test_samples_like_the_data_are_near_and_others_far():
    name = "fid_pixels_ref=test_n=999"
    same, other = (measured("fid", method=method)[name] for method in (METHOD, METHOD._replace(sample=flat)))
    assert same < other / 10


def flat(state, key, labels, sampler):
    """The same image every time."""
    return jnp.zeros((labels.shape[0], 8, 8, 1))


@pytest.mark.parametrize(
    "name", [name for name, metric in METRICS.items() if not {"classes", "out_of_distribution"} & {*metric.needs}]
)
def test_every_metric_of_a_method_that_can_do_all_is_a_number_with_its_name(name, monkeypatch):
    monkeypatch.setattr(likelihood, "LATENTS", 3)  # of 5,000 draws, which take their time
    classifier = compiled(METHOD), STATE
    all_can = METHOD._replace(classify_first=classify)
    found = measured(name, method=all_can, test=120, samples=120, fit=lambda images, labels: classifier)
    assert found and all(np.isfinite(value) and isinstance(value, float) for value in found.values())
    assert all(full.startswith(("precision", "recall", "density", "coverage", "nearest", name)) for full in found)


def test_metrics_of_the_extractors_classes_need_an_extractor_that_knows_them():
    able = replica()
    knowing = able.reference.extractor._replace(classify=lambda images: classify(None, images / 127.5 - 1))
    assert "agreement" not in possible(METHOD, able.reference)
    with pytest.raises(UserError, match="classes"):
        possible(METHOD, able.reference, ("agreement",))
    reference = Reference(able.reference.dataset, knowing, None)
    assert {"agreement", "inception_score"} <= set(possible(METHOD, reference))
    found = METRICS["agreement"].measure(Evaluated(able.compiled, STATE, reference, able.visible, able.pool, 0))
    assert found == {"agreement_pixels_n=999": 100.0}


def test_the_judges_own_accuracy_is_told_whatever_the_sampler():
    """Brightness tells the classes of all test images; of 700, the first 175 are told to be of another class."""
    data = dataset()
    wrong = np.where(np.arange(TEST) < 175, (data.test_labels + 1) % CLASSES, data.test_labels)
    data = data._replace(test_labels=wrong)
    knowing = find_extractor("pixels", data.spec, "bright", "")._replace(
        classify=lambda images: classify(None, images / 127.5 - 1)
    )
    able = Evaluated(
        compiled(METHOD), STATE, Reference(data, knowing, None), wrong[:TRAIN], np.arange(TRAIN), 0, Sampler(noise=1.0)
    )
    assert evaluated.measured(METRICS["judge_accuracy"], able) == {"judge_accuracy_pixels_n=700": 75.0}
    assert evaluated.measured(METRICS["judge_accuracy_svc"], able) == {"judge_accuracy_svc": 75.0}
    none = dataclasses.replace(
        able, reference=Reference(data._replace(test_images=data.test_images[:0], test_labels=wrong[:0]), knowing, None)
    )
    assert [METRICS[name].measure(none) for name in ("judge_accuracy", "judge_accuracy_svc")] == [{}, {}]


def test_out_of_distribution_images_are_told_from_known_ones():
    white = np.full((50, 8, 8, 1), 255, np.uint8)
    assert "auroc" in possible(METHOD, replica(out_of_distribution=white).reference)
    assert "auroc" not in possible(METHOD, replica().reference)
    found = measured("auroc", out_of_distribution=white)["auroc"]
    outside = np.exp(np.asarray(classify(STATE, white / 127.5 - 1))).max()
    inside = np.exp(replica().log_probabilities.max(-1))
    assert found == pytest.approx((inside > outside).mean() + (inside == outside).mean() / 2)


def test_the_classifier_before_the_last_phase_has_an_error_of_its_own():
    """Here it says the classes the wrong way round, and is right about those in the middle alone."""
    method = METHOD._replace(classify_first=lambda state, images: classify(state, images)[:, ::-1])
    data = dataset(TEST)
    said = CLASSES - 1 - replica().log_probabilities.argmax(-1)
    expected = 100 * (said != data.test_labels).mean()
    assert measured("first_error", method=method) == {"first_error": pytest.approx(expected)} != measured("error")
    assert "first_error" not in possible(METHOD, replica().reference)


def test_a_decoder_is_told_a_class_where_the_method_guesses_one_and_else_that_nobody_knows():
    def told(method):
        def decode(state, latents, labels):
            return jnp.broadcast_to(labels[:, None, None, None] / 2, (len(latents), 8, 8, 1))

        images = jnp.asarray(dataset(6).test_images, jnp.float32) / 127.5 - 1
        decoded = inference.encoded_and_decoded(method._replace(decode=decode), STATE, images)
        return (2 * decoded[:, 0, 0, 0]).tolist()

    images = jnp.asarray(dataset(6).test_images, jnp.float32) / 127.5 - 1
    assert told(METHOD) == classify(STATE, images).argmax(-1).tolist() != [0] * len(images)
    assert told(METHOD._replace(classify=None)) == [-1] * len(images)
    assert told(METHOD._replace(classify=None, conditional=False)) == [0] * len(images)


def test_what_takes_long_is_measured_where_it_is_asked_for_alone():
    able = abilities(METHOD, replica().reference)
    usual, spared = applicable(able), applicable(able, costly=("encode", "log_weight"))
    assert set(usual) - set(spared) == {"elbo", "reconstruction", "imputation"}
    assert applicable(able, ("elbo",), costly=("log_weight",)) == ["elbo"]


def test_what_a_method_cannot_do_is_left_out():
    reference = replica().reference
    silent = Method(None, (), classify=classify)
    assert set(possible(silent, reference)) == {
        "error",
        "balanced_error",
        "worst_class_error",
        "nll",
        "calibration_error",
    }
    assert "copying" in possible(Method(None, (), sample=sample), reference)
    assert not {"agreement_svc", "cas"} & set(possible(Method(None, (), sample=sample), reference))


def test_a_metric_that_there_is_not_is_answered_with_those_that_apply():
    with pytest.raises(UserError, match=r"there is no metric fjd; these apply: error, .*fid"):
        possible(METHOD, replica().reference, ("fjd",))


def test_copies_of_labelled_images_are_flagged_beside_the_labelled_ones_alone():
    data = dataset()
    labelled = jnp.asarray(data.train_images[:9])

    def copy(state, key, labels, sampler):
        rows = jax.random.randint(key, labels.shape, 0, 9)
        return labelled[rows] / 127.5 - 1

    found = measured("copying", method=METHOD._replace(sample=copy))
    assert found["copying_labelled_pixels_ref=test_n=999"] < -3
    assert found["nearest_ratio_labelled_pixels_ref=test_n=999"] < 0.1
    honest = measured("copying")
    assert honest["copying_labelled_pixels_ref=test_n=999"] > -3


def test_the_players_measured_at_their_ema_are_named():
    class State(tuple):
        def _asdict(self):
            kept = TrainState({"w": 1.0}, {}, (), Average({"w": 1.0}, {}))
            return {"mean": 0.5, "generator": kept._replace(ema=()), "classifier": kept}

    assert evaluated.averaged(State()) == ["classifier"]


def seeds(*numbers):
    """Replicas that are no more than a number, and a metric of theirs."""
    return {number: types.SimpleNamespace(value=number, sampler=None) for number in numbers}


def of_number(function):
    return {"a": Metric("a number", (), lambda replica: {"a_n=1": function(replica.value)}, {})}


def test_a_seed_that_stopped_has_no_value():
    found = measure(["a"], seeds(0, 2), [0, 1, 2], metrics=of_number(lambda value: value + 0.5))
    assert found == {"a_n=1": [0.5, None, 2.5]}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_no_value_and_its_reason_is_told(value):
    unmeasured = {}
    metrics = of_number(lambda number: value if number == 1 else 2.0 * number)
    found = measure(["a"], seeds(0, 1, 2), range(3), unmeasured, metrics)
    assert found == {"a_n=1": [0.0, None, 4.0]} and unmeasured == {"a": f"seed 1: a_n=1 came out as {value}"}
    with pytest.raises(UserError, match=f"a_n=1 came out as {value}"):
        measure(["a"], seeds(0, 1), range(2), metrics=metrics)


def test_seeds_are_measured_side_by_side_after_the_first(monkeypatch):
    monkeypatch.setattr(evaluated, "at_a_time", lambda: 3)
    first, others = threading.Event(), threading.Barrier(3, timeout=60)

    def together(value):
        if value == 0:
            first.set()
        else:
            assert first.is_set()
            others.wait()
        if value == 2:
            raise UserError("too few")
        return 1.0 * value

    unmeasured = {}
    found = measure(["a"], seeds(0, 1, 2, 3), range(4), unmeasured, of_number(together))
    assert found == {"a_n=1": [0.0, 1.0, None, 3.0]} and unmeasured == {"a": "seed 2: too few"}
    with pytest.raises(UserError, match="too few"):
        measure(["a"], seeds(0, 1, 2, 3), range(4), metrics=of_number(together))
