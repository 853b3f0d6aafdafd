"""Do the metrics order what they should? Real MNIST images, corrupted, thinned out and copied, on trained features.

    fid          of test images to training images; then blurred, noisy and nothing but noise, at rising strength
    coverage     of test images by training images from which classes were dropped
    copying      C_T and the ratio of distances for a "generator" that copies the 100 labelled images (moved by noise of
                 1 level), for one that copies unlabelled ones, and for real new images: half of the test images, the
                 other half being what C_T compares with (not training images: the features were trained on those)

Command: python -m experiments.mnist_orderings --data-dir DIR [--record], after `ssl-gen train-features mnist --data-dir
DIR`; 3 minutes on two cores. `--dataset digits` does the same on bundled images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from experiments import table
from experiments.table import HERE
from ssl_gen.datasets import sources
from ssl_gen.datasets.dataset import Dataset
from ssl_gen.datasets.masking import Scheme, make_mask
from ssl_gen.evaluation import features
from ssl_gen.evaluation.inference import mapped
from ssl_gen.metrics import frechet, manifold, memorisation
from ssl_gen.reports import tables
from ssl_gen.runs import record
from ssl_gen.training import cache
from ssl_gen.types import UserError

IMAGES = 10_000  # on each side at most
BLURS = (0.5, 1.0, 1.5, 2.0)  # deviation of the Gaussian, pixels of 28
NOISES = (0.25, 0.5, 0.75, 1.0)  # deviation, pixels in [0, 1]
DROPPED = (0, 2, 4, 6, 8)  # classes
LABELS = 100


def blurred(images: np.ndarray, deviation: float) -> np.ndarray:
    """images (B, H, W, C) uint8, each smoothed by a Gaussian; the deviation is that of images 28 pixels wide."""
    return ndimage.gaussian_filter(images, (0, *[deviation * images.shape[1] / 28] * 2, 0))


def noisy(images: np.ndarray, deviation: float) -> np.ndarray:
    """images (B, H, W, C) uint8 with Gaussian noise on every pixel."""
    noise = np.random.default_rng(0).normal(0, 255 * deviation, images.shape)
    return np.clip(np.round(images + noise), 0, 255).astype(np.uint8)


def measure(dataset: Dataset, extractor: features.Extractor) -> dict[str, dict[str, float]]:
    """{metric: {what was measured: value}}."""
    test = dataset.test_images[:IMAGES]
    train_rows = np.random.default_rng(0).permutation(len(dataset.train_images))[: len(test)]

    def see(images: np.ndarray) -> np.ndarray:
        return mapped(extractor.features, images)

    real = see(dataset.train_images[train_rows])
    reference = frechet.gaussian([real])

    def fid(images: np.ndarray) -> float:
        return frechet.distance(frechet.gaussian([see(images)]), reference)

    found = {"fid": {"test images": fid(test)}}
    found["fid"] |= {f"blurred {strength}": fid(blurred(test, strength)) for strength in BLURS}
    found["fid"] |= {f"noisy {strength}": fid(noisy(test, strength)) for strength in NOISES}
    pure = np.random.default_rng(1).integers(0, 256, test.shape, np.uint8)
    found["fid"]["noise alone"] = fid(pure)
    labels, seen = dataset.train_labels[train_rows], see(test)
    found["coverage"] = {
        f"{dropped} classes dropped": manifold.prdc(seen, real[labels >= dropped]).coverage for dropped in DROPPED
    }
    return found | copying(dataset, see)


def copying(dataset: Dataset, see: Callable[[np.ndarray], np.ndarray]) -> dict[str, dict[str, float]]:
    """C_T and the ratio of median distances, to the labelled images and to others, of three "generators"."""
    names = dataset.class_names
    mask = make_mask(dataset.name, dataset.train_labels, names, LABELS, Scheme(), 0, dataset.sha256)
    labelled, unlabelled = np.flatnonzero(mask.labels >= 0), np.flatnonzero(mask.labels < 0)[:IMAGES]
    random = np.random.default_rng(2)
    test, new = np.array_split(see(dataset.test_images[random.permutation(len(dataset.test_images))[:IMAGES]]), 2)

    def copies(rows: np.ndarray) -> np.ndarray:
        images = dataset.train_images[random.choice(rows, len(new))].astype(int)
        return see(np.clip(images + random.integers(-1, 2, images.shape), 0, 255).astype(np.uint8))

    generators = {
        "copies of labelled images": copies(labelled),
        "copies of unlabelled images": copies(unlabelled),
        "new images": new,
    }
    found = {}
    for name, rows in (("labelled", labelled), ("unlabelled", unlabelled)):
        train = see(dataset.train_images[rows])
        found[f"copying_{name}"] = {
            what: memorisation.copying(train, test, samples) for what, samples in generators.items()
        }
        found[f"nearest_ratio_{name}"] = {
            what: memorisation.nearest_ratio(train, test, samples) for what, samples in generators.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir", type=Path, help="where raw data lie")
    parser.add_argument("--features", default="trained", help="as for ssl-gen evaluate")
    parser.add_argument("--record", action="store_true", help="write the results to experiments/mnist_orderings.json")
    asked = parser.parse_args()
    cache.keep_compiled()
    try:
        dataset = sources.load(asked.dataset, asked.data_dir)
        extractor = features.find_extractor(asked.features, dataset.spec, asked.dataset, dataset.sha256)
    except UserError as error:
        raise SystemExit(table.stopped("mnist_orderings", error)) from None
    found = measure(dataset, extractor)
    print(f"{dataset.name} on {extractor.name}")
    for metric, values in found.items():
        print("\n" + tables.text_table([metric, "value"], [[what, f"{value:.4g}"] for what, value in values.items()]))
    if asked.record:
        about = {"dataset": dataset.name, "extractor": extractor.name, "images": min(len(dataset.test_images), IMAGES)}
        about |= {"device": record.device(), "commit": record.commit()}
        (HERE / "mnist_orderings.json").write_text(json.dumps(about | {"metrics": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
