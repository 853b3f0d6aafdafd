"""What the latents of a trained method hold: pictures for the report, and how well classes are told from them.

styles   one latent a row, that of a test image, decoded with every class (Kingma et al. 2014, arXiv:1406.5298,
         fig. 1): what the latents hold besides the class
paths    the way between the latents of two test images, decoded: are the images between images too?
map      two principal components of the latents of the test images, by class
errors   of two plain classifiers of the latents, cross-validated, beside those of the pixels of the same images:
         10 nearest neighbours, and logistic regression of standardised values

A path is straight where nothing is known of the latents. Where all together are N(0, I), `normal_latents` of a method,
it is an arc: half-way along a line they would have 0.71 of their deviation, and in many dimensions no image has such
latents (White 2016, arXiv:1609.04468, sec. 2.1, of the latents of VAEs and GANs; Agustsson et al. 2019,
arXiv:1711.01970).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_gen.core import bounds, outputs
from ssl_gen.core.compiling import jit_inference
from ssl_gen.core.files import claimed, writing
from ssl_gen.datasets.batches import UNTOLD
from ssl_gen.datasets.store import pixels, scaled
from ssl_gen.evaluation.inference import Compiled, everywhere, mapped, probabilities
from ssl_gen.reports import records
from ssl_gen.reports.charts import pictures, scatter
from ssl_gen.reports.records import LatentsRecord, Picture
from ssl_gen.reports.run import page
from ssl_gen.runs.catalogue import catalogue
from ssl_gen.runs.load import Run, data_of, load
from ssl_gen.types import Array, State, UserError, able

STYLES = 10  # rows of latents_styles.png
PATHS = 6  # rows of latents_paths.png
BETWEEN = 8  # decoded images on each path, its ends among them
COLUMNS = 20  # classes in latents_styles.png at most
FOLDS = 5  # of the cross-validation; ours
NEIGHBOURS = 10  # ours


class Encoded(NamedTuple):
    """Some real images and their latents, by one replica."""

    compiled: Compiled
    state: State
    split: str  # test or train
    images: np.ndarray  # (N, H, W, C) uint8
    labels: np.ndarray  # (N,) int32
    latents: np.ndarray  # (N, Z) float32
    names: list[str]  # of the classes

    def decode(self, latents: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """latents (B, Z), labels (B,) -> images (B, H, W, C) uint8."""

        def decode(state: State, latents: Array, labels: Array) -> Array:
            return pixels(jnp.clip(able(self.compiled.method.decode)(state, latents, labels), -1, 1))

        return mapped(functools.partial(jit_inference(decode), self.state), latents, labels.astype(np.int32))

    def guesses(self, rows: np.ndarray) -> np.ndarray:
        """(B,) the classes that a decoder is told of these images: the method's own guess, UNTOLD where it has none."""
        if self.compiled.classify is None:
            return np.full(len(rows), UNTOLD if self.compiled.method.conditional else 0, np.int32)
        return probabilities(self.compiled, self.state, self.images[rows]).argmax(-1)


def look(
    path: str | Path,
    replica: int | None = None,
    count: int = 2_000,
    seed: int = 0,
    data_dir: Path | None = None,
    overwrite: bool = False,
) -> LatentsRecord:
    """Write the pictures, latents.json and the report of a run; what latents.json says.

    replica: by default the first that did not stop; count: test images encoded, chosen by `seed` (training images,
    where there are no others); data_dir: where the data lie, if not where they were. Raises UserError where the method
    has no encoder, the data are not the run's, and for a file that is not of this command, unless `overwrite`.
    """
    run = load(path)
    bounds.check_value("--seed", "seed", seed)
    outputs.check_free([run.folder / f"latents_{name}.png" for name in PICTURES], overwrite, pictures.is_ours)
    replica = run.trained_replica(replica)
    encoded = encode(run, replica, count, seed, data_dir)
    text = {"method": run.record.method, "seed": str(run.record.seeds[replica]), "mask": run.record.masks[replica].name}
    drawn: list[Picture] = []
    found: dict[str, dict[str, float]] = {}
    left_out: list[str] = []
    with claimed(run.folder), writing(run.folder, "the same command draws again"):
        for name, draw in PICTURES.items():
            file = run.folder / f"latents_{name}.png"
            try:
                drawn.append(Picture(file.name, draw(encoded, file, text)))
            except UserError as reason:
                file.unlink(missing_ok=True)
                left_out.append(f"{name}: {reason}")
        try:
            found = errors(encoded)
        except UserError as reason:
            left_out.append(f"errors: {reason}")
        record = LatentsRecord(
            split=encoded.split,
            images=len(encoded.images),
            latents=encoded.latents.shape[1],
            replica=replica,
            seed=seed,
            pictures=drawn,
            errors=found,
            left_out=left_out,
        )
        records.write(run.folder / "latents.json", record)
        page.write(run.folder)
    return record


def encode(run: Run, replica: int, count: int, seed: int, data_dir: Path | None) -> Encoded:
    """As `look` says."""
    method = run.compiled.method
    if method.encode is None:
        able = ", ".join(entry["name"] for entry in catalogue("methods") if entry["encode"])
        raise UserError(f"{run.record.method} has no encoder, so no latents to look at; these methods have: {able}")
    bounds.check_value("--count", "count", count)
    if count < 2:
        raise UserError("--count is at least 2")
    options, found = data_of(run, **({} if data_dir is None else {"data_dir": data_dir}))
    data = found.dataset
    split = "test" if len(data.test_labels) else "train"
    images, labels = getattr(data, f"{split}_images"), getattr(data, f"{split}_labels")
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(labels >= 0))[:count]
    if len(rows) < 2:
        raise UserError(f"{options.dataset} has {len(rows)} {split} images of a known class: two are needed")
    state, encoder = everywhere(run.states[replica]), method.encode
    latents = mapped(
        functools.partial(jit_inference(lambda state, batch: encoder(state, scaled(batch))), state), images[rows]
    )
    if not np.isfinite(latents).all():
        raise UserError(f"the latents of replica {replica} are not all finite; try another --replica")
    return Encoded(run.compiled, state, split, images[rows], labels[rows], latents, list(data.class_names))


def mixed(labels: np.ndarray) -> np.ndarray:
    """labels (N,) -> rows (N,) in an order that goes through the classes round after round."""
    turn = np.array([(labels[:row] == label).sum() for row, label in enumerate(labels)])
    return np.lexsort((labels, turn))


def on_lines(starts: np.ndarray, ends: np.ndarray, steps: int) -> np.ndarray:
    """starts (B, Z), ends (B, Z) -> (B, steps, Z), evenly spaced on the straight lines, both ends among them."""
    share = np.linspace(0, 1, steps, dtype=starts.dtype)[:, None]
    return (1 - share) * starts[:, None] + share * ends[:, None]


def on_arcs(starts: np.ndarray, ends: np.ndarray, steps: int) -> np.ndarray:
    """starts (B, Z), ends (B, Z) -> (B, steps, Z), cos(a) start + sin(a) end for evenly spaced a, both ends among them.

    Of independent ends of N(0, I) each is N(0, I) too, since cos^2 + sin^2 = 1: they are the points of the straight
    lines, over sqrt((1 - s)^2 + s^2) at the share s. Source: Agustsson et al. 2019, arXiv:1711.01970, whose paths these
    are, evenly spaced. They are White's great circles where ends are as long and at right angles, as independent ones
    nearly are in many dimensions.
    """
    angle = np.linspace(0, np.pi / 2, steps, dtype=starts.dtype)[:, None]
    return np.cos(angle) * starts[:, None] + np.sin(angle) * ends[:, None]


def styles(encoded: Encoded, file: Path, text: dict[str, str]) -> str:
    """Write a picture, return its caption. Raises UserError where the decoder is told no class."""
    method = encoded.compiled.method
    if method.decode is None or not method.conditional:
        raise UserError("left out, for this method has no decoder that is told a class")
    rows = mixed(encoded.labels)[:STYLES]
    columns = min(len(encoded.names), COLUMNS)
    images = encoded.decode(np.repeat(encoded.latents[rows], columns, 0), np.tile(np.arange(columns), len(rows)))
    images = images.reshape(len(rows), columns, *images.shape[1:])
    images = np.concatenate([encoded.images[rows][:, None], images], 1)
    pictures.save_grid(file, images, ["image", *encoded.names[:columns]], text=text)
    return f"Styles. Left: {encoded.split} images; beside each, its latents decoded with every class in turn."


def paths(encoded: Encoded, file: Path, text: dict[str, str]) -> str:
    """Write a picture, return its caption. Raises UserError where the method has no decoder."""
    method = encoded.compiled.method
    if method.decode is None:
        raise UserError("left out, for this method has no decoder")
    pairs = mixed(encoded.labels)[: 2 * min(PATHS, len(encoded.labels) // 2)].reshape(-1, 2)
    starts, ends = pairs.T
    between, way = (on_arcs, "the arc") if method.normal_latents else (on_lines, "the straight line")
    latents = between(encoded.latents[starts], encoded.latents[ends], BETWEEN)
    asked = np.repeat(encoded.guesses(pairs.reshape(-1)), BETWEEN // 2)
    images = encoded.decode(latents.reshape(len(asked), -1), asked)
    images = images.reshape(len(pairs), BETWEEN, *images.shape[1:])
    images = np.concatenate([encoded.images[starts][:, None], images, encoded.images[ends][:, None]], 1)
    shares = [f"{100 * i / (BETWEEN - 1):.0f} %" for i in range(BETWEEN)]
    pictures.save_grid(file, images, ["image", *shares, "image"], text=text)
    caption = f"Paths. Outside: two {encoded.split} images; between them, decoded, latents on {way} from "
    caption += "those of one to those of the other"
    changing = method.conditional and method.classify
    return caption + ("; half-way the class changes from one's guess to the other's." if changing else ".")


def chart(encoded: Encoded, file: Path, text: dict[str, str]) -> str:
    """Write a picture, return its caption. Raises UserError where latents have less than two dimensions."""
    latents, names = encoded.latents, encoded.names
    if latents.shape[1] < 2 or not latents.std(0).any():
        raise UserError("left out, for a map needs two latents that vary")
    points, axes, what = latents, ("first latent", "second latent"), "the two latents"
    if latents.shape[1] > 2:
        components = PCA(2, svd_solver="full").fit(latents)
        points, shares = components.transform(latents), components.explained_variance_ratio_
        words = zip(("first", "second"), shares, strict=True)
        first, second = (f"{word} principal component, {share:.0%} of the variance" for word, share in words)
        axes = (first, second)
        what = f"the first two principal components of the {latents.shape[1]} latents"
    pictures.save(file, scatter.scatter(points, encoded.labels, names, axes), text)
    caption = f"Map: {what} of {len(latents):,} {encoded.split} images, by true class"
    if len(names) > scatter.SYMBOLS:
        return f"{caption}; the symbols repeat after {scatter.SYMBOLS} classes, of which the first are named."
    return f"{caption}; each class's name stands at its median."


PICTURES = {"styles": styles, "paths": paths, "map": chart}


def errors(encoded: Encoded) -> dict[str, dict[str, float]]:
    """{classifier: {"latents" or "pixels": percent of wrong classes}}; UserError where a class has too few images."""
    counts = np.bincount(encoded.labels)
    counts = counts[counts > 0]
    if counts.min() < FOLDS or len(counts) < 2 or len(encoded.labels) < 2 * NEIGHBOURS:
        raise UserError(
            f"left out, for they need {FOLDS} images of each of two classes, {2 * NEIGHBOURS} in all (--count)"
        )
    pixels = encoded.images.reshape(len(encoded.images), -1) / 255.0
    latents = probed(encoded.latents, encoded.labels)
    return {name: {"latents": latents[name], "pixels": error} for name, error in probed(pixels, encoded.labels).items()}


def probed(features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Percent of wrong classes, 5-fold cross-validated: features (N, F), labels (N,), at least 5 of each class."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    probes = {
        f"{NEIGHBOURS} nearest neighbours": KNeighborsClassifier(NEIGHBOURS),
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000)),
    }
    return {
        name: float(100 * (cross_val_predict(probe, features, labels, cv=folds) != labels).mean())
        for name, probe in probes.items()
    }
