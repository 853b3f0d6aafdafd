"""Hidden pixels are filled in by encoding and decoding: what is hidden, what one pass does, where passes lead."""

import jax.numpy as jnp
import numpy as np
import pytest
from test_evaluation import STATE, dataset

from ssl_gen.evaluation import features
from ssl_gen.evaluation.evaluated import Evaluated, decoding_again
from ssl_gen.evaluation.inference import compiled
from ssl_gen.evaluation.reference import Reference
from ssl_gen.metrics import imputation, reconstruction
from ssl_gen.types import Method, UserError

BASIS = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 5)))[0].astype(np.float32)  # (F, Z), orthonormal
CENTRE = np.linspace(-0.2, 0.2, 64, dtype=np.float32)


def encode(state, images):
    return (images.reshape(len(images), -1) - CENTRE) @ BASIS


def decode(state, latents, labels):
    return (CENTRE + latents @ BASIS.T).reshape(-1, 8, 8, 1)


LINEAR = Method(None, (), encode=encode, decode=decode)


def in_the_plane(count):
    """Images (count, 8, 8, 1) float32 that LINEAR decodes from small latents, so that nothing is cut off."""
    latents = np.random.default_rng(1).normal(0, 0.6, (count, 5)).astype(np.float32)
    return np.asarray(decode(None, latents, None))


def replica(method, data, seed=0):
    reference = Reference(data, features.find_extractor("pixels", data.spec, "bright", ""), None)
    return Evaluated(compiled(method), STATE, reference, data.train_labels, np.arange(0), seed)


def passed(images, hidden, passes, method=LINEAR):
    for _ in range(passes):
        images = decoding_again(method)(STATE, images, hidden)
    return np.asarray(images)


def test_each_pixel_is_hidden_with_the_same_probability_and_all_its_channels_together():
    hidden = imputation.hidden_pixels(np.zeros((4_000, 8, 8, 3)), 0.3, seed=0)
    assert hidden.shape == (4_000, 8, 8, 1)
    deviation = np.sqrt(0.3 * 0.7 / 4_000)
    assert np.abs(hidden.mean(0) - 0.3).max() < 5 * deviation


def test_the_seed_alone_says_which_pixels_are_hidden():
    images = np.zeros((3, 8, 8, 1))
    first, again, other = (imputation.hidden_pixels(images, 0.5, seed) for seed in (7, 7, 8))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_error_counts_hidden_pixels_alone():
    images, guesses = np.zeros((1, 2, 2, 3), np.float32), np.zeros((1, 2, 2, 3), np.float32)
    guesses[0, 0, 0] = 1.0, 0.0, 0.0  # of [-1, 1]: half the range
    guesses[0, 1, 1] = 9.0
    hidden = np.array([True, True, False, False]).reshape(1, 2, 2, 1)
    assert imputation.hidden_error(images, guesses, hidden) == pytest.approx(np.sqrt(0.5**2 / 6))


def test_an_error_of_nothing_is_refused():
    nothing = np.zeros((0, 2, 2, 1), np.float32)
    with pytest.raises(UserError, match="test images"):
        imputation.hidden_error(nothing, nothing, nothing.astype(bool))


def test_a_pass_changes_no_pixel_that_is_seen():
    images = np.random.default_rng(0).uniform(-1, 1, (6, 8, 8, 1)).astype(np.float32)
    hidden = imputation.hidden_pixels(images, 0.3, seed=0)
    again = passed(images, hidden, 1)
    seen = ~hidden
    np.testing.assert_array_equal(again[seen], images[seen])
    assert (again[hidden] != images[hidden]).all()


def test_the_passes_of_a_linear_code_lead_to_the_least_squares_fit_of_the_seen_pixels():
    images = in_the_plane(4) + np.random.default_rng(2).normal(0, 0.05, (4, 8, 8, 1)).astype(np.float32)
    hidden = imputation.hidden_pixels(images, 0.3, seed=0)
    found = passed(np.where(hidden, 0, images), hidden, 200).reshape(4, -1)
    for image, mask, filled in zip(images.reshape(4, -1), hidden.reshape(4, -1), found, strict=True):
        latents = np.linalg.lstsq(BASIS[~mask], (image - CENTRE)[~mask], rcond=None)[0]
        np.testing.assert_allclose(filled[mask], (CENTRE + BASIS @ latents)[mask], atol=1e-4)


def test_the_decoder_is_told_the_class_that_the_method_guesses():
    def by_brightness(state, images):
        dark = images.mean((1, 2, 3)) < 0
        return jnp.log(jnp.stack([0.9 * dark + 0.05, 0.95 - 0.9 * dark], -1))

    def flat(state, latents, labels):
        return jnp.broadcast_to(labels[:, None, None, None] - 0.5, (len(labels), 8, 8, 1))

    method = Method(None, (), classify=by_brightness, encode=encode, decode=flat, conditional=True)
    images = np.stack([np.full((8, 8, 1), -0.9), np.full((8, 8, 1), 0.9)]).astype(np.float32)
    again = passed(images, np.ones((2, 8, 8, 1), bool), 1, method)
    assert (again[0] == -0.5).all() and (again[1] == 0.5).all()


def test_a_test_image_is_reconstructed_with_the_class_that_the_method_guesses():
    """The images are 0, 1, 2 levels bright by their class; the method takes all for class 2, and decodes the class."""

    def always_two(state, images):
        return jnp.tile(jnp.array([-9.0, -9.0, 0.0]), (len(images), 1))

    def as_bright_as(state, latents, labels):
        return jnp.tile(labels[:, None, None, None] / 127.5 - 1, (1, 8, 8, 1))

    method = Method(None, (), classify=always_two, encode=encode, decode=as_bright_as, conditional=True)
    data = dataset(test=30)
    images = np.tile(data.test_labels[:, None, None, None], (1, 8, 8, 1)).astype(np.uint8)
    found = reconstruction.measure(replica(method, data._replace(test_images=images)))
    assert found["reconstruction_mse"] == pytest.approx((2**2 + 1**2 + 0) / 3 / 255**2)


def test_images_that_a_code_knows_are_filled_in_and_the_mean_image_knows_less():
    data = dataset(test=60)
    known = np.round((in_the_plane(60) + 1) * 127.5).astype(np.uint8)
    found = imputation.measure(replica(LINEAR, data._replace(train_images=known, test_images=known)))
    assert found["imputation"] < 0.01 < 0.05 < found["imputation_mean_image"]


def test_the_mean_image_is_that_of_the_training_images():
    data = dataset(test=30)
    bright = data._replace(test_images=np.full((30, 8, 8, 1), 255, np.uint8), train_images=data.train_images // 2)
    unknowing = LINEAR._replace(decode=lambda state, latents, labels: jnp.ones((len(latents), 8, 8, 1)))
    found = imputation.measure(replica(unknowing, bright))
    mean = (bright.train_images / 255).mean(0)
    assert found["imputation"] == 0
    # every pixel is as likely to be hidden as any other, so that the expectation is the error of whole images
    assert found["imputation_mean_image"] == pytest.approx(np.sqrt(((1 - mean) ** 2).mean()), rel=0.02)


def test_replicas_fill_in_the_same_pixels_of_the_same_images_by_one_compiled_pass():
    before = decoding_again(LINEAR)._cache_size()
    first, second = (imputation.measure(replica(LINEAR, dataset(), seed)) for seed in (0, 1))
    assert first == second
    assert decoding_again(LINEAR)._cache_size() - before <= 1


def test_of_many_images_some_of_all_kinds_are_taken(monkeypatch):
    data = dataset()
    order = np.argsort(data.test_labels, kind="stable")
    ordered = data._replace(test_images=data.test_images[order], test_labels=data.test_labels[order])
    whole = imputation.measure(replica(LINEAR, ordered))["imputation_mean_image"]
    monkeypatch.setattr(imputation, "IMPUTED", 120)
    assert imputation.measure(replica(LINEAR, ordered))["imputation_mean_image"] == pytest.approx(whole, rel=0.15)


def test_a_decoder_that_leaves_the_range_of_pixels_is_cut_off():
    wild = LINEAR._replace(decode=lambda state, latents, labels: jnp.full((len(latents), 8, 8, 1), 7.0))
    again = passed(np.zeros((1, 8, 8, 1), np.float32), np.ones((1, 8, 8, 1), bool), 1, wild)
    assert again.max() == 1
