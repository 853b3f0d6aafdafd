"""What can be measured of a trained replica: METRICS, each with what it says and what it needs.

A metric that compares features carries in its full name the extractor, the real images and the number of samples,
`fid_mnist-convnet-3f9a81c0_ref=test_n=10000`: numbers with different names are not comparable.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_gen.evaluation import Reference, Subject, everywhere, log_weights, mapped, probabilities
from ssl_gen.metrics import (
    agreement,
    classification,
    diversity,
    frechet,
    inception_score,
    kernel,
    likelihood,
    manifold,
    memorisation,
    reconstruction,
)
from ssl_gen.types import Array, Method, State, UserError

LATENTS = 5_000  # draws of latents for the importance-weighted bound; Burda et al. 2016, table 1
DRAWS = 10  # draws of latents for the ELBO; ours
HIDDEN = 0.3  # share of the pixels that imputation hides; ours
PASSES = 20  # of encoding and decoding, for imputation; ours: on digits the errors after 5 and 80 are within a tenth
IMPUTED = 1_000  # test images at most that it is measured on, so that convolutional networks take seconds; ours
CELLS = 5  # of the training images, for the C_T statistic; ours


class Metric(NamedTuple):
    """One measurement of a replica, or several made together."""

    meaning: str
    needs: tuple[str, ...]  # abilities of the method; `classes`: an extractor that knows them; `foreign`: such images
    measure: Callable[[Subject], dict[str, float]]  # full name -> value
    usual: bool = True  # made at the end of every run; else by `ssl-gen evaluate --metrics`


def on_features(name: str, subject: Subject, compared: bool = True) -> str:
    """The full name of a number from the features of samples, `compared` with those of real images or not."""
    reference = subject.reference
    return f"{name}_{reference.extractor.name}{f'_ref={reference.split}' if compared else ''}_n={reference.count}"


def classified(measure: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[Subject], float]:
    """A measure of (log-probabilities, labels) on the test images."""
    return lambda s: measure(s.log_probabilities, s.reference.dataset.test_labels)


def calibration_error(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """In 15 bins, or, of fewer images, a bin each."""
    return classification.calibration_error(log_probabilities, labels, min(15, len(labels)))


def named(name: str, measure: Callable[[Subject], float]) -> Callable[[Subject], dict[str, float]]:
    """A measure with a name that needs no more."""
    return lambda s: {name: measure(s)}


def deviation_ratio(subject: Subject) -> float:
    """Within-class deviation of the samples over that of the real training images."""
    dataset = subject.reference.dataset
    real = diversity.within_class_deviation(dataset.train_images, dataset.train_labels, dataset.spec.classes)
    return diversity.within_class_deviation(subject.few, subject.asked, dataset.spec.classes) / real


def auroc(subject: Subject) -> float:
    """Of the highest class probability, test images against foreign ones."""
    foreign = probabilities(subject.tools, subject.state, subject.reference.foreign)
    return classification.auroc(subject.log_probabilities.max(-1), foreign.max(-1))


def seen_agreement(subject: Subject) -> dict[str, float]:
    """Percent of samples in which the extractor sees the class asked for."""
    share = (subject.seen.argmax(-1) == subject.many_asked).mean()
    return {on_features("agreement", subject, compared=False): float(100 * share)}


def fid(subject: Subject) -> dict[str, float]:
    """Against the moments of the real images, which all replicas share."""
    distance = frechet.distance(frechet.gaussian([subject.features]), subject.reference.gaussian)
    return {on_features("fid", subject): distance}


def fid_infinity(subject: Subject) -> dict[str, float]:
    """FID extrapolated to infinitely many samples."""
    value = frechet.fid_infinity(subject.features, subject.reference.gaussian, subject.seed)
    return {on_features("fid_infinity", subject): value}


def intra_fid(subject: Subject) -> dict[str, float]:
    """The mean over classes of each one's FID."""
    real = subject.reference
    value = frechet.intra_fid(
        subject.features, subject.many_asked, real.features, real.labels, real.dataset.spec.classes
    )
    return {on_features("intra_fid", subject): value}


def kid(subject: Subject) -> dict[str, float]:
    """With its standard error over subsets."""
    value, error = kernel.kid(subject.features, subject.reference.features, seed=subject.seed)
    return {on_features("kid", subject): value, on_features("kid_standard_error", subject): error}


def prdc(subject: Subject) -> dict[str, float]:
    """Precision, recall, density, coverage."""
    found = manifold.prdc(subject.reference.features, subject.features)
    return {on_features(name, subject): value for name, value in found._asdict().items()}


def score(subject: Subject) -> dict[str, float]:
    """The inception score's form, on the extractor's own posteriors."""
    return {on_features("inception_score", subject, compared=False): inception_score.inception_score(subject.seen)[0]}


def copying(subject: Subject) -> dict[str, float]:
    """Are samples nearer to training images than new real images are? To the labelled ones, and to the others."""
    real = subject.reference
    found = {}
    for name, rows in (("labelled", subject.visible >= 0), ("unlabelled", subject.visible < 0)):
        if rows.any():
            train = real.train_features[rows]
            cells = CELLS if len(train) >= 100 * CELLS else 1
            found[on_features(f"copying_{name}", subject)] = memorisation.copying(
                train, real.features, subject.features, cells
            )
            found[on_features(f"nearest_ratio_{name}", subject)] = memorisation.nearest_ratio(
                train, real.features, subject.features
            )
    return found


def accuracy_score(subject: Subject) -> dict[str, float]:
    """Test accuracy of a classifier trained on samples alone, and on samples and the labelled images."""
    real, found = subject.reference.dataset, {}
    labelled = np.flatnonzero(subject.visible >= 0)
    both = (
        np.concatenate([subject.many, real.train_images[labelled]]),
        np.concatenate([subject.many_asked, subject.visible[labelled]]),
    )
    for name, (images, labels) in {"cas": (subject.many, subject.many_asked), "cas_and_labelled": both}.items():
        outputs = probabilities(*subject.reference.fit(images, labels), real.test_images)
        found[f"{name}_convnet_n={len(subject.many)}"] = 100 - classification.error(outputs, real.test_labels)
    return found


def bounds(subject: Subject, samples: int) -> tuple[float, float]:
    """Means of ELBO and importance-weighted bound of the test images, nats."""
    images = subject.reference.dataset.test_images
    chunks = log_weights(subject.tools, subject.state, images, samples, subject.seed)
    elbo, weighted = likelihood.accumulate(chunks)
    return float(elbo.mean()), float(weighted.mean())


def elbo(subject: Subject) -> dict[str, float]:
    """In nats and bits per dimension."""
    nats, _ = bounds(subject, DRAWS)
    dimensions = int(np.prod(subject.reference.dataset.spec.shape))
    return {"elbo": nats, "elbo_bits_per_dimension": likelihood.bits_per_dimension(nats, dimensions)}


def importance_weighted(subject: Subject) -> dict[str, float]:
    """In nats and bits per dimension."""
    _, nats = bounds(subject, LATENTS)
    dimensions = int(np.prod(subject.reference.dataset.spec.shape))
    return {
        f"iwae_{LATENTS}": nats,
        f"iwae_{LATENTS}_bits_per_dimension": likelihood.bits_per_dimension(nats, dimensions),
    }


def reconstructed(subject: Subject) -> dict[str, float]:
    """Of the test images, encoded and decoded."""
    real = subject.reference.dataset
    again = mapped(
        functools.partial(subject.tools.reconstruct, everywhere(subject.state)), real.test_images, real.test_labels
    )
    return {
        "reconstruction_mse": reconstruction.mean_squared_error(real.test_images, again),
        "reconstruction_psnr": reconstruction.psnr(real.test_images, again),
        "reconstruction_ssim": reconstruction.ssim(real.test_images, again),
    }


@functools.partial(jax.jit, static_argnums=0)
def guessed_again(method: Method, state: State, images: Array, hidden: Array) -> Array:
    """One pass of imputation over images in [-1, 1]; the class that the decoder is told is the method's own guess."""
    labels = jnp.zeros(len(images), jnp.int32)
    if method.conditional and method.classify:
        labels = method.classify(state, images).argmax(-1)
    decoded = method.decode(state, method.encode(state, images), labels)
    return reconstruction.filled(images, hidden, jnp.clip(decoded, -1, 1))


def imputed(subject: Subject) -> dict[str, float]:
    """The error on hidden pixels of test images, by the method and by the mean training image, where both start.

    The same images and pixels for every replica and every method.
    """
    real, state = subject.reference.dataset, everywhere(subject.state)
    rows = np.random.default_rng(0).permutation(len(real.test_images))[:IMPUTED]
    images = real.test_images[rows].astype(np.float32) / 127.5 - 1
    mean_image = real.train_images.mean(0).astype(np.float32) / 127.5 - 1
    hidden = reconstruction.hidden_pixels(images, HIDDEN, seed=1)

    def passes(images: Array, hidden: Array) -> Array:
        images = reconstruction.filled(images, hidden, mean_image)
        for _ in range(PASSES):
            images = guessed_again(subject.tools.method, state, images, hidden)
        return images

    means = np.broadcast_to(mean_image, images.shape)
    return {
        "imputation": reconstruction.hidden_error(images, mapped(passes, images, hidden), hidden),
        "imputation_mean_image": reconstruction.hidden_error(images, means, hidden),
    }


CONDITIONAL = ("sample", "conditional")
VARIATIONAL = ("log_weight",)
METRICS = {
    "error": Metric("test error, percent", ("classify",), named("error", classified(classification.error))),
    "balanced_error": Metric(
        "test error, percent, mean over classes",
        ("classify",),
        named("balanced_error", classified(classification.balanced_error)),
    ),
    "nll": Metric(
        "negative log-likelihood of the test labels, nats",
        ("classify",),
        named("nll", classified(classification.negative_log_likelihood)),
    ),
    "calibration_error": Metric(
        "expected calibration error of the most probable class, 15 bins of equal counts, percent",
        ("classify",),
        named("calibration_error", classified(calibration_error)),
    ),
    "auroc": Metric(
        "area under the ROC curve for telling test images from foreign ones by the highest probability (0 to 1)",
        ("classify", "foreign"),
        named("auroc", auroc),
    ),
    "agreement_svc": Metric(
        "percent of 100 samples a class in which an SVC trained on all labels sees the class asked for",
        CONDITIONAL,
        named("agreement_svc", lambda s: agreement.agreement(s.reference.judge, s.few, s.asked)),
    ),
    "deviation_ratio": Metric(
        "within-class pixel deviation of 100 samples a class over that of real training images",
        CONDITIONAL,
        named("deviation_ratio", deviation_ratio),
    ),
    "agreement": Metric(
        "percent of samples in which the trained extractor sees the class asked for",
        (*CONDITIONAL, "classes"),
        seen_agreement,
    ),
    "fid": Metric("Fréchet distance of samples to real images", ("sample",), fid),
    "fid_infinity": Metric("FID extrapolated to infinitely many samples", ("sample",), fid_infinity),
    "intra_fid": Metric("mean over classes of each one's FID", CONDITIONAL, intra_fid, usual=False),
    "kid": Metric("squared kernel distance of samples to real images, and its standard error", ("sample",), kid),
    "prdc": Metric(
        "precision, recall, density and coverage of samples, 5 nearest neighbours (0 to 1)", ("sample",), prdc
    ),
    "inception_score": Metric(
        "inception score's form on the trained extractor's posteriors (1 to K)", ("sample", "classes"), score
    ),
    "copying": Metric(
        "C_T: below -3, samples are nearer to training images than new images are; and the ratio of median distances",
        ("sample",),
        copying,
    ),
    "cas": Metric(
        "classification accuracy score: percent of test images right by a convnet trained on samples",
        CONDITIONAL,
        accuracy_score,
        usual=False,
    ),
    "elbo": Metric("evidence lower bound of test images, nats and bits per dimension", VARIATIONAL, elbo),
    "iwae": Metric(
        "importance-weighted bound of test images, 5,000 draws, nats and bits per dimension",
        VARIATIONAL,
        importance_weighted,
        usual=False,
    ),
    "reconstruction": Metric(
        "mean squared error, PSNR (dB) and SSIM of test images, encoded and decoded",
        ("encode", "decode"),
        reconstructed,
    ),
    "imputation": Metric(
        "root mean squared error on 30 % of test pixels, hidden, by encoding and decoding; and that of the mean image",
        ("encode", "decode"),
        imputed,
    ),
}


def applicable(method: Method, reference: Reference, names: tuple[str, ...] = ()) -> list[str]:
    """The metrics a method can be measured by: the usual ones, or those named. Raises UserError for one it cannot."""
    able = {need: bool(getattr(method, need)) for need in method._fields}
    able |= {"classes": reference.extractor.classify is not None, "foreign": reference.foreign is not None}
    possible = [name for name, metric in METRICS.items() if all(able[need] for need in metric.needs)]
    for name in names:
        if name not in METRICS:
            raise UserError(f"there is no metric {name}; these apply: {', '.join(possible)}")
        lacking = [need for need in METRICS[name].needs if not able[need]]
        if lacking:
            raise UserError(f"metric {name} does not apply, for want of {lacking[0]}; these do: {', '.join(possible)}")
    return list(names) or [name for name in possible if METRICS[name].usual]
