"""What an earlier run's classifier guesses of the images whose label is hidden, for methods that learn such guesses.

Guesses are made once, before the first step, of each seed by the replica with the same seed and the same mask: a
labeller that saw other labels would let hidden ones in. A label that is visible stands as it is. The labeller may have
seen the same images at another `--size`, and guesses on those: it tells classes best by all pixels that there are, and
what is learnt may draw smaller ones.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from ssl_gen.core.trees import digest, named
from ssl_gen.datasets.batches import UNTOLD
from ssl_gen.reports.records import LabellerRecord, RunRecord
from ssl_gen.runs.data import Data, load_data, matching_replicas
from ssl_gen.runs.load import Run, load
from ssl_gen.runs.options import Options
from ssl_gen.types import Method, UserError


class Labeller(NamedTuple):
    """An earlier run that classifies."""

    run: Run
    replicas: list[int]  # one a seed
    record: LabellerRecord
    images: np.ndarray  # (N, h, w, C) uint8, the training images as it sees them

    def told(self) -> list[np.ndarray]:
        """Of each seed the favourite classes (N,) int32 of the training images, UNTOLD where it is not confident.

        Where they are drawn: probabilities (N, K), zeros where it is not confident. Raises UserError for scores that
        are NaN.
        """
        found = []
        for replica in self.replicas:
            guesses = np.exp(self.run.log_probabilities(replica, self.images))
            unsure = guesses.max(-1) < self.record.confident
            if self.record.guesses == "drawn":
                found.append(np.where(unsure[:, None], 0, guesses).astype(np.float32))
            else:
                found.append(np.where(unsure, UNTOLD, guesses.argmax(-1)).astype(np.int32))
        return found


def check_labeller(name: str, method: Method, options: Options, data: Data) -> None:
    """Raise UserError where a method and --labeller do not go together, and where its labelled images are not seen."""
    given = options.labeller is not None
    if given and method.told != "guessed":
        raise UserError(f"--labeller is for methods that learn guessed labels; {name} with these settings takes none")
    if not given and (options.guesses, options.confident) != (Options().guesses, Options().confident):
        raise UserError("--guesses and --confident are of the guesses of --labeller RUN: give it, or leave them out")
    if method.told == "nothing":
        return
    if not all(np.isin(np.flatnonzero(mask.labels >= 0), mask.pool).all() for mask in data.masks):
        raise UserError(f"{name} draws labelled images from the pool too: leave out --mask.disjoint")
    hidden = any((mask.labels[mask.pool] < 0).any() for mask in data.masks)
    if method.told == "guessed" and hidden and not given:
        raise UserError(
            f"{name} learns labels that an earlier run guessed: give --labeller RUN, a classifier's with the same "
            "--dataset, --labels and --seeds"
        )


def open_labeller(options: Options, data: Data) -> Labeller | None:
    """The run of --labeller, None without. Raises UserError where it does not classify, or does not fit `data`."""
    if options.labeller is None:
        return None
    run = load(options.labeller)
    if run.compiled.classify is None:
        raise UserError(f"{run.record.method} of --labeller has no classifier: `ssl-gen list methods` says which have")
    seen = seen_by(run.record, options, data)
    replicas = [run.trained_replica(replica) for replica in matching_replicas("--labeller", run.record, seen)]
    states = [run.states[replica] for replica in replicas]
    weights = {name: np.asarray(leaf) for name, leaf in named(states).items()}
    height = seen.spec.height
    record = LabellerRecord(
        run.record.method,
        run.record.config,
        run.record.steps,
        digest(weights, {}),
        options.guesses,
        options.confident,
        None if height == data.spec.height else height,
    )
    return Labeller(run, replicas, record, seen.dataset.train_images)


def seen_by(record: RunRecord, options: Options, data: Data) -> Data:
    """`data` as the run of a labeller saw it: itself, or the same rows and masks at the `--size` of that run.

    Raises UserError where at that size other images are there, or other labels visible.
    """
    size = record.options.get("size")
    if size == options.size or record.data.sha256 == data.dataset.sha256:
        return data
    chosen = [np.flatnonzero(mask.labels >= 0) for mask in data.masks]  # of --mask.kind suggested
    theirs = load_data(dataclasses.replace(options, size=size), lambda dataset, seeds: chosen)
    if left_out(theirs) != left_out(data):
        raise UserError(
            f"the run of --labeller, of --size {size or 'none'}, leaves out other images: at one size more of them are "
            "copies of test images; give both runs --keep-copies, or one --size"
        )
    for own, other in zip(data.masks, theirs.masks, strict=True):
        if not (np.array_equal(own.labels, other.labels) and np.array_equal(own.pool, other.pool)):
            raise UserError(f"at the --size of the run of --labeller, {size or 'none'}, other labels are visible")
    return theirs


def left_out(data: Data) -> dict[str, list[str]]:
    """Why -> the names of files that the reader of a data set did not take."""
    return data.dataset.reading.left_out if data.dataset.reading else {}


def told(method: Method, data: Data, labeller: Labeller | None) -> list[np.ndarray] | None:
    """What each seed's steps are told of unlabelled images, see `batches.rows`; None where that is nothing."""
    if method.told == "nothing":
        return None
    tables = labeller.told() if labeller else [np.full(len(mask.labels), UNTOLD, np.int32) for mask in data.masks]
    for table, mask in zip(tables, data.masks, strict=True):
        visible = np.flatnonzero(mask.labels >= 0)
        labels = mask.labels[visible]
        table[visible] = labels if table.ndim == 1 else np.eye(data.dataset.spec.classes, dtype=np.float32)[labels]
    return tables
