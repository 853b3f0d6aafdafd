"""Labels in rounds: those that an earlier run saw, and those of the images that `suggest` names by it, seed by seed.

It plays the person who labels what they are asked for, round after round, with as many masks as a run has seeds: each
seed goes on from the labels of the same seed, and is asked by that seed's own classifier.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ssl_gen.core.plain import from_plain
from ssl_gen.datasets import masking, suggesting
from ssl_gen.datasets.dataset import Dataset
from ssl_gen.datasets.masking import Scheme
from ssl_gen.runs.data import Choose, make_masks, recorded
from ssl_gen.runs.load import Run, load
from ssl_gen.runs.options import Options, budget
from ssl_gen.runs.suggestions import features_of
from ssl_gen.types import UserError


def chooser(options: Options) -> Choose | None:
    """Who chooses the labelled images of `--mask.kind suggested`; None for the other kinds.

    Raises UserError where kind and --suggested-by are not given together, or go with other parts of a scheme.
    """
    suggested = options.mask.kind == "suggested"
    if suggested != (options.suggested_by is not None):
        raise UserError("--mask.kind suggested and --suggested-by RUN go together: give both, or neither")
    if not suggested:
        return None
    if options.mask != Scheme("suggested", disjoint=options.mask.disjoint):
        raise UserError("of the --mask settings --mask.kind suggested goes with disjoint alone: leave out the others")
    return lambda dataset, seeds: suggested_rows(load(str(options.suggested_by)), options, dataset, seeds)


def suggested_rows(run: Run, options: Options, dataset: Dataset, seeds: Sequence[int]) -> list[np.ndarray]:
    """Of each seed the rows that run labelled and those that it is least sure of, `--labels` in all, ascending.

    Raises UserError where the run saw other images, other seeds or no fewer labels, or has no classifier.
    """
    record, wanted, known = run.record, budget(options.labels), dataset.train_labels >= 0
    if run.compiled.classify is None:
        raise UserError(f"{record.method} of --suggested-by has no classifier to be unsure")
    if record.data.sha256 != dataset.sha256:
        raise UserError("the run of --suggested-by was trained on other data: use the same --dataset and its options")
    if not set(seeds) <= set(record.seeds):
        raise UserError(f"the run of --suggested-by has the seeds {record.seeds[0]} to {record.seeds[-1]}: use those")
    masks = dict(zip(record.seeds, masks_of(run, dataset), strict=True))
    found = []
    for seed in seeds:
        before = np.flatnonzero(masks[seed].labels >= 0)
        if wanted is None or wanted <= len(before):
            raise UserError(f"the run of --suggested-by has {len(before)} labels: give a number of --labels above it")
        replica = run.trained_replica(record.seeds.index(seed))
        taken = ~known
        taken[before] = True
        probabilities = np.exp(run.log_probabilities(replica, dataset.train_images))
        seen = features_of(None, run, dataset.train_images, replica)
        rows = suggesting.uncertain_rows(probabilities, seen, taken, wanted - len(before), seed)
        found.append(np.sort(np.concatenate([before, rows])))
    return found


def masks_of(run: Run, dataset: Dataset) -> list[masking.Mask]:
    """What each seed of a run on `dataset` saw. Raises UserError where labels were not what they are."""
    options = from_plain(Options, run.record.options)
    if dataclasses.replace(options.mask, noise=0.0) != options.mask:
        raise UserError("the run of --suggested-by saw wrong labels (--mask.noise): its labels cannot be gone on from")
    masks = make_masks(options, dataset, run.record.seeds, recorded(run.record))
    if [mask.sha256 for mask in masks] != [mask.sha256 for mask in run.record.masks]:
        raise UserError(f"{run.folder} saw other labels than its record says: train it again")
    return masks
