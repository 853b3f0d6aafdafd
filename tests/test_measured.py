"""What each metric makes of a replica: the right arrays in the right places, on a stand-in whose arrays all differ."""

from __future__ import annotations

import dataclasses
import functools
import types

import jax.numpy as jnp
import numpy as np
import pytest
import test_evaluation
from scipy.special import log_softmax, logsumexp
from test_evaluation import METHOD, STATE, Sampler, compiled

from ssl_gen.evaluation import inference
from ssl_gen.metrics import (
    classification,
    diversity,
    frechet,
    imputation,
    inception_score,
    kernel,
    manifold,
    memorisation,
    reconstruction,
)
from ssl_gen.metrics.registry import METRICS

RANDOM = np.random.default_rng(0)
CLASSES, SEED = 3, 5
DIMENSIONS = 4 * 4 * 1


def labels(count):
    return RANDOM.permutation(np.arange(count) % CLASSES)


def images(count):
    return RANDOM.integers(0, 256, (count, 4, 4, 1), np.uint8)


def scores(count):
    return log_softmax(RANDOM.normal(0, 2, (count, CLASSES)), -1)


def features(count, scale):
    return RANDOM.normal(0.3 * scale, scale, (count, 5))


class Judge:
    """An image's class is its first pixel, modulo 3."""

    def predict(self, pixels):
        return np.round(255 * pixels[:, 0]).astype(int) % CLASSES


def on_features(name, compared=True, count=None):
    return f"{name} {compared} {count}"


def stand_in():
    """A replica of 60 training images, 12 of which show a label, each another one than is true; and 40 test images."""
    true = labels(60)
    real, calls = features(120, 1.0), []

    def impute(images, hidden, start, passes):
        calls.append(("impute", images, hidden, start, passes))
        return np.where(hidden, start / 2, images)

    def log_weights(draws):
        calls.append(("log_weights", draws))
        return iter(np.split(WEIGHTS, [2]))

    def proxy(images, labels):
        calls.append(("proxy", images, labels))
        return PROXIES[len(images)]

    return types.SimpleNamespace(
        calls=calls,
        seed=SEED,
        classes=CLASSES,
        visible=np.where(np.arange(60) < 12, (true + 1) % CLASSES, -1),
        pool=np.arange(6, 50),
        train_images=images(60),
        train_labels=true,
        test_images=images(40),
        test_labels=labels(40),
        log_probabilities=scores(40),
        first_log_probabilities=scores(40),
        out_of_distribution_log_probabilities=scores(25),
        few=images(15) // 2,
        few_labels=labels(15),
        many=images(90) // 3,
        many_labels=labels(90),
        features=features(90, 1.4),
        extractor_log_probabilities=scores(90),
        split="test",
        reference_features=real,
        reference_labels=labels(120),
        reference_gaussian=frechet.gaussian([real]),
        train_features=features(60, 0.8),
        judge=Judge(),
        judge_accuracy=61.5,
        extractor_accuracy=72.5,
        reconstructions=images(40),
        impute=impute,
        log_weights=log_weights,
        proxy_log_probabilities=proxy,
        on_features=on_features,
    )


WEIGHTS = RANDOM.normal(-20, 4, (7, 40))  # log weights of the 40 test images, in chunks of 2 and 5 draws
PROXIES = {90: scores(40), 102: scores(40)}  # by how many images the proxy classifier was trained on
REPLICA = stand_in()


def expected_prdc(r):
    found = manifold.prdc(real=r.reference_features, fake=r.features, k=5)
    return {on_features(name): value for name, value in found._asdict().items()}


def expected_copying(r):
    found = {}
    rows = {"labelled": np.arange(12), "unlabelled": np.arange(12, 50)}  # those labelled are in the pool no more
    for name, each in rows.items():
        arrays = {"train": r.train_features[each], "held_out": r.reference_features, "samples": r.features}
        found[on_features(f"copying_{name}")] = memorisation.copying(**arrays, cells=1)
        found[on_features(f"nearest_ratio_{name}")] = memorisation.nearest_ratio(**arrays)
    return found


def expected_kid(r):
    value, error = kernel.kid(a=r.features, b=r.reference_features, seed=SEED)
    return {on_features("kid"): value, on_features("kid_standard_error"): error}


def expected_intra_fid(r):
    value = frechet.intra_fid(
        a=r.features, a_labels=r.many_labels, b=r.reference_features, b_labels=r.reference_labels, classes=CLASSES
    )
    return {on_features("intra_fid"): value}


def expected_deviation_ratio(r):
    drawn = diversity.within_class_deviation(images=r.few, labels=r.few_labels, classes=CLASSES)
    real = diversity.within_class_deviation(images=r.train_images, labels=r.train_labels, classes=CLASSES)
    return {"deviation_ratio": drawn / real}


def expected_imputation(r):
    """The stand-in fills in half the mean training image."""
    rows = np.random.default_rng(0).permutation(40)
    pictures, mean = r.test_images[rows] / 127.5 - 1, r.train_images.mean(0) / 127.5 - 1
    hidden = imputation.hidden_pixels(pictures, 0.3, seed=1)[..., 0]
    halves = [
        np.concatenate([(image - guess)[each] / 2 for image, each in zip(pictures, hidden, strict=True)])
        for guess in (mean / 2, mean)
    ]
    by_method, by_mean = (np.sqrt(np.mean(each**2)) for each in halves)
    return {"imputation": by_method, "imputation_mean_image": by_mean}


def in_bits(nats):
    return -nats / DIMENSIONS / np.log(2)


def expected_elbo(r):
    nats = WEIGHTS.mean()
    return {"elbo": nats, "elbo_bits_per_dimension": in_bits(nats)}


def expected_iwae(r):
    nats = (logsumexp(WEIGHTS, 0) - np.log(7)).mean()
    assert nats - WEIGHTS.mean() > 1  # so that one bound does not pass for the other
    return {"iwae_5000": nats, "iwae_5000_bits_per_dimension": in_bits(nats)}


def expected_auroc(r):
    inside, outside = r.log_probabilities.max(1), r.out_of_distribution_log_probabilities.max(1)
    return {"auroc": (inside[:, None] > outside).mean()}


def expected_cas(r):
    right = {count: 100 * (found.argmax(1) == r.test_labels).mean() for count, found in PROXIES.items()}
    assert len({*right.values(), *(100 - each for each in right.values())}) == 4
    return {"cas_convnet_n=90": right[90], "cas_and_labelled_convnet_n=90": right[102]}


def of_classifier(function, name):
    return lambda r: {name: function(log_probabilities=r.log_probabilities, labels=r.test_labels)}


def share(guesses, classes):
    return 100 * np.mean([a == b for a, b in zip(guesses, classes, strict=True)])


EXPECTED = {
    "error": of_classifier(classification.error, "error"),
    "first_error": lambda r: {"first_error": classification.error(r.first_log_probabilities, r.test_labels)},
    "balanced_error": of_classifier(classification.balanced_error, "balanced_error"),
    "worst_class_error": of_classifier(classification.worst_class_error, "worst_class_error"),
    "nll": of_classifier(classification.negative_log_likelihood, "nll"),
    "calibration_error": of_classifier(
        functools.partial(classification.calibration_error, bins=15), "calibration_error"
    ),
    "auroc": expected_auroc,
    "agreement_svc": lambda r: {"agreement_svc": share(r.few[:, 0, 0, 0] % CLASSES, r.few_labels)},
    "judge_accuracy_svc": lambda r: {"judge_accuracy_svc": 61.5},
    "deviation_ratio": expected_deviation_ratio,
    "agreement": lambda r: {
        on_features("agreement", False): share(r.extractor_log_probabilities.argmax(1), r.many_labels)
    },
    "judge_accuracy": lambda r: {on_features("judge_accuracy", False, 40): 72.5},
    "fid": lambda r: {on_features("fid"): frechet.fid(r.features, r.reference_features)},
    "fid_infinity": lambda r: {
        on_features("fid_infinity"): frechet.fid_infinity(
            features=r.features, reference=frechet.gaussian([r.reference_features]), seed=SEED
        )
    },
    "intra_fid": expected_intra_fid,
    "kid": expected_kid,
    "prdc": expected_prdc,
    "inception_score": lambda r: {
        on_features("inception_score", False): inception_score.inception_score(r.extractor_log_probabilities)[0]
    },
    "copying": expected_copying,
    "cas": expected_cas,
    "elbo": expected_elbo,
    "iwae": expected_iwae,
    "reconstruction": lambda r: {
        f"reconstruction_{name}": getattr(reconstruction, function)(r.test_images, r.reconstructions)
        for name, function in {"mse": "mean_squared_error", "psnr": "psnr", "ssim": "ssim"}.items()
    },
    "imputation": expected_imputation,
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_gives_its_function_the_arrays_it_is_of(name):
    found = METRICS[name].measure(REPLICA)
    assert found == pytest.approx(EXPECTED[name](REPLICA), rel=1e-5) and all(
        type(each) is float for each in found.values()
    )


def called(name, what):
    """With what a metric calls its replica's functions."""
    replica = stand_in()
    METRICS[name].measure(replica)
    return replica, [words for kind, *words in replica.calls if kind == what]


def test_the_classification_accuracy_score_learns_from_samples_and_visible_labels_alone():
    """The hidden labels of a replica, `train_labels`, are all others than those it sees."""
    replica, ((samples, asked), (both, of_both)) = called("cas", "proxy")
    np.testing.assert_array_equal(samples, replica.many)
    np.testing.assert_array_equal(asked, replica.many_labels)
    np.testing.assert_array_equal(both, np.concatenate([replica.many, replica.train_images[:12]]))
    np.testing.assert_array_equal(of_both, [*replica.many_labels, *replica.visible[:12]])
    assert not (of_both[90:] == replica.train_labels[:12]).any()


@pytest.mark.parametrize(("name", "draws"), [("elbo", 10), ("iwae", 5_000)])
def test_a_bound_is_of_as_many_draws_as_its_name_says(name, draws):
    assert called(name, "log_weights")[1] == [[draws]]


def test_hidden_pixels_are_filled_in_from_the_mean_training_image_by_twenty_passes():
    replica, ((_, hidden, start, passes),) = called("imputation", "impute")
    assert passes == 20 and hidden.shape == (40, 4, 4, 1)
    np.testing.assert_allclose(start, replica.train_images.mean(0) / 127.5 - 1, rtol=1e-5, atol=1e-6)


# Of a real replica


@pytest.fixture(scope="module")
def real():
    """Its seed and its setting are not the first; samples of class k are 70 k to 70 k + 20 bright."""
    first = test_evaluation.replica(samples=30, sampler=Sampler(20.0))
    knowing = first.reference.extractor._replace(classify=lambda images: test_evaluation.classify(None, images / 64))
    return dataclasses.replace(first, seed=3, reference=dataclasses.replace(first.reference, extractor=knowing))


@pytest.mark.parametrize("which", ["few", "many"])
def test_samples_are_of_the_classes_asked_for_and_of_the_replicas_own_seed_and_setting(real, which):
    images, asked = getattr(real, which), getattr(real, f"{which}_labels")
    assert np.bincount(asked).tolist() == [{"few": 100, "many": 10}[which]] * 3
    drawn = inference.draw_samples(compiled(METHOD), STATE, asked, 3, Sampler(20.0))
    np.testing.assert_array_equal(images, drawn)
    assert (images.mean((1, 2, 3)) // 70 == asked).all() and (images.mean((1, 2, 3)) % 70 < 20).all()


def as_features(images):
    return images.reshape(len(images), -1) / 255


def test_features_are_of_what_their_name_says(real):
    data = real.reference.dataset
    np.testing.assert_allclose(real.features, as_features(real.many), rtol=1e-6)
    np.testing.assert_allclose(real.reference_features, as_features(data.test_images), rtol=1e-6)
    np.testing.assert_allclose(real.train_features, as_features(data.train_images), rtol=1e-6)
    np.testing.assert_allclose(real.reference_gaussian.mean, as_features(data.test_images).mean(0), rtol=1e-6)
    np.testing.assert_array_equal(real.reference_labels, data.test_labels)
    expected = test_evaluation.classify(None, jnp.asarray(real.many, jnp.float32) / 64)
    np.testing.assert_allclose(real.extractor_log_probabilities, expected, rtol=1e-5)


def test_a_proxy_classifier_is_fitted_to_what_it_is_given_and_asked_of_the_test_images(real):
    calls = []

    def fit(images, labels):
        calls.append((images, labels))
        return compiled(METHOD), STATE

    asked = dataclasses.replace(real, reference=dataclasses.replace(real.reference, fit=fit))
    images, labels = real.train_images[:4], real.train_labels[:4]
    found = asked.proxy_log_probabilities(images, labels)
    assert calls[0][0] is images and calls[0][1] is labels
    np.testing.assert_array_equal(found, real.log_probabilities)


def test_weights_are_of_the_replicas_own_seed(real):
    found, expected, other = (
        np.concatenate(list(each))
        for each in (
            real.log_weights(12),
            inference.log_weights(real.compiled, STATE, real.test_images, 12, 3),
            inference.log_weights(real.compiled, STATE, real.test_images, 12, 0),
        )
    )
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (12, len(real.test_images)) and not np.array_equal(found, other)
