"""Classifiers that are trained in order to measure: the feature net of a data set, that of the accuracy score.

Both are the method `supervised` with its convolutional network, on every label they are given.
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from ssl_gen.core.ema import kept
from ssl_gen.core.files import writing
from ssl_gen.datasets import sources, summary
from ssl_gen.datasets.batches import Rows, rows
from ssl_gen.datasets.store import Store
from ssl_gen.evaluation import features, inference
from ssl_gen.methods.classical import supervised
from ssl_gen.metrics import classification
from ssl_gen.training.replicas import make_replicas
from ssl_gen.types import ImageSpec, State, UserError

SEGMENT = 50  # steps of one call
FEATURES = supervised.Config(steps=4_000, network="conv", width=features.WIDTH)
SCORE = supervised.Config(steps=1_000, network="conv", width=features.WIDTH)


def train_classifier(
    images: np.ndarray, labels: np.ndarray, config: supervised.Config, spec: ImageSpec, quiet: bool = True
) -> tuple[inference.Compiled, State]:
    """A classifier trained on images (N, H, W, C) uint8 and labels (N,) in 0..K-1; the same call gives the same one."""
    method = supervised.make(config, spec)
    (phase,) = method.phases
    program = make_replicas(method, Store(images), 1, "loop", longest=SEGMENT)
    pool = np.arange(len(images))

    def rows_of(start: int, count: int) -> Rows:
        drawn = rows(labels, pool, (phase.labelled, phase.unlabelled), 0, 0, start, count)
        return Rows(*(part[:, None] for part in drawn))

    states = program.init([0], Rows(*(part[0] for part in rows_of(0, 1))))
    with tqdm(total=config.steps, unit="step", disable=True if quiet else None, dynamic_ncols=True) as bar:
        for start in range(0, config.steps, SEGMENT):
            count = min(SEGMENT, config.steps - start)
            states, _ = program.advance(states, 0, rows_of(start, count), count, [True])
            bar.update(count)
    return inference.compiled(method), program.replica(states, 0)


def train_features(
    dataset: str,
    data_dir: Path | None = None,
    size: int | None = None,
    skip_unreadable: bool = False,
    keep_copies: bool = False,
    steps: int = FEATURES.steps,
    out: Path | None = None,
    quiet: bool = False,
) -> tuple[Path, str, float | None]:
    """Train the feature net of a data set, read as a run with the same options reads it, on all its training labels.

    Returns the file, the extractor's name and its test error in percent (None without a test split). The same command
    gives the same weights on the same machine. Raises UserError for wrong data and for a file that cannot be written.
    """
    config = supervised.Config(**{**FEATURES.__dict__, "steps": steps})
    data = sources.load(dataset, data_dir, size, skip_unreadable, keep_copies)
    print(summary.line(data), flush=True)
    path = out or features.trained_path(data.sha256)
    if path is None:
        raise UserError("there is no home folder to keep the net in: give --out, or set XDG_CACHE_HOME")
    with writing(path):  # said now, not after the training
        path.parent.mkdir(parents=True, exist_ok=True)
    known = np.flatnonzero(data.train_labels >= 0)
    compiled, state = train_classifier(data.train_images[known], data.train_labels[known], config, data.spec, quiet)
    # The EMA's params beside the latest statistics: the nets that records name were made so, and a hash names one
    net = kept(state.classifier)._replace(stats=state.classifier.stats)
    state = state._replace(classifier=state.classifier._replace(ema=net))
    error = None
    if len(data.test_labels):
        outputs = inference.probabilities(compiled, state, data.test_images)
        error = classification.error(outputs, data.test_labels)
    variables = jax.tree.map(np.asarray, {"params": net.params, **net.stats})
    training = {"steps": steps, "test_error": error, "sha256": data.sha256}
    return path, features.save(path, variables, dataset, data.spec, training), error
