"""What a run is trained on: its options, its images, one label mask a seed, and the rows of every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_gen.datasets import masking, sources
from ssl_gen.datasets.batches import Rows, rows
from ssl_gen.datasets.dataset import Dataset, fit, hold_out, with_foreign, with_missing_pixels
from ssl_gen.training import devices, loop
from ssl_gen.types import Phase, UserError

INITIAL = 500  # images of a kind for data-dependent initialisation; Salimans et al. 2016, code


@dataclasses.dataclass(frozen=True)
class Options:
    """What a run is trained on, with how many labels and seeds, and where it goes."""

    dataset: str = "digits"  # a name of `ssl-gen list datasets`, folder:PATH or npz:PATH
    labels: str = "100"  # visible labels in all, or "all"
    seeds: int = 1  # runs, with seeds 0 to S-1, each with its own mask
    out: Path | None = None  # run folder; by default runs/METHOD-DATASET-LABELS
    data_dir: Path | None = None  # where raw or prepared data lie
    size: int | None = None  # pixels; resize every image to size x size
    skip_unreadable: bool = False  # leave out files that cannot be read, and count them
    validation: int = 0  # labelled training images held out for choosing settings
    foreign_dataset: str | None = None  # where images of no class come from, for --mask.foreign and for auroc
    features: str = "auto"  # what samples are compared by: pixels, random, trained or a weights file
    samples: int | None = None  # drawn for the metrics; by default as many as test images, 1,000 to 10,000
    mask: masking.Scheme = masking.Scheme()  # how labels are chosen
    missing_pixels: float = 0.0  # share lost of every image, tests too; the pixel's mean over training stands in
    encoder: Path | None = None  # a run whose latents a method that is fitted in one go sees instead of pixels
    replicas: devices.Mode = "auto"  # where the seeds train: one after the other, stacked, or spread over devices
    data_parallel: int = 1  # devices that share each batch
    # train together with other processes, started by the same command: jax finds those of Slurm, Open MPI, Kubernetes
    # and TPU pods; elsewhere set JAX_COORDINATOR_ADDRESS (HOST:PORT of process 0), JAX_NUM_PROCESSES, JAX_PROCESS_ID
    distributed: bool = False
    log_every: int | None = None  # steps; by default about 200 lines, at most 100 steps apart
    evaluate_every: int | None = None  # steps; by default 25 evaluations
    checkpoint_every: int | None = None  # steps; by default 10 checkpoints
    tensorboard: bool = False  # also write event files
    quiet: bool = False  # no progress bar


class Data(NamedTuple):
    """The images of a run, its masks and its validation split."""

    dataset: Dataset
    masks: list[masking.Mask]  # one a seed
    validation: tuple[np.ndarray, np.ndarray]  # images (V, H, W, C) uint8, labels (V,)
    foreign: np.ndarray | None = None  # (M, H, W, C) uint8, the test images of the foreign data set


def budget(labels: str) -> int | None:
    """--labels as a number, None for all. Raises UserError."""
    if labels == "all":
        return None
    if not labels.isdecimal():
        raise UserError(f'--labels is a number of visible labels or "all", not {labels!r}')
    return int(labels)


def load_data(options: Options) -> Data:
    """Images, validation split and one mask a seed. Raises UserError for all that does not fit together."""
    if options.seeds < 1:
        raise UserError(f"--seeds is at least 1, not {options.seeds}")
    dataset = sources.load(options.dataset, options.data_dir, options.size, options.skip_unreadable)
    name = dataset.name
    if options.missing_pixels:
        dataset = with_missing_pixels(dataset, options.missing_pixels)
    held_out = (dataset.train_images[:0], dataset.train_labels[:0])
    if options.validation:
        dataset, *held_out = hold_out(dataset, options.validation)
    foreign = None
    if options.foreign_dataset is not None:
        other = sources.load(options.foreign_dataset, options.data_dir, options.size, options.skip_unreadable)
        foreign = fit(other.test_images, *dataset.spec.shape)
        dataset = with_foreign(dataset, other) if options.mask.foreign else dataset
    elif options.mask.foreign:
        raise UserError("--mask.foreign needs --foreign-dataset, the data set that foreign images come from")
    sha256 = dataset.sha256
    masks = [
        masking.make_mask(
            name.split(":")[0],
            dataset.train_labels,
            dataset.class_names,
            budget(options.labels),
            options.mask,
            seed,
            sha256,
        )
        for seed in range(options.seeds)
    ]
    return Data(dataset, masks, tuple(held_out), foreign)


def feed(data: Data, phases: Sequence[Phase]) -> Callable[[loop.Stretch], Rows]:
    """The rows of a stretch for every seed, (steps, S, ...)."""

    def rows_of(stretch: loop.Stretch) -> Rows:
        phase, count = phases[stretch.phase], stretch.stop - stretch.start
        parts = [
            rows(
                mask.labels,
                mask.pool,
                (phase.labelled, phase.unlabelled),
                seed,
                stretch.phase,
                stretch.start - stretch.begin,
                count,
            )
            for seed, mask in enumerate(data.masks)
        ]
        return Rows(*(np.stack(part, 1) for part in zip(*parts, strict=True)))

    return rows_of


def check_pool(data: Data, phases: Sequence[Phase]) -> None:
    """Raise UserError where a phase wants unlabelled images and a mask leaves none."""
    if any(phase.unlabelled for phase in phases) and not all(len(mask.pool) for mask in data.masks):
        raise UserError("no image is left unlabelled: leave out --mask.disjoint or give fewer --labels")


def initial_rows(data: Data) -> Rows:
    """500 labelled and 500 unlabelled images a seed (some several times, where there are fewer), (S, 500).

    Where a mask leaves nothing unlabelled, the labelled images serve for both.
    """
    pools = [mask.pool if len(mask.pool) else np.flatnonzero(mask.labels >= 0) for mask in data.masks]
    parts = [
        rows(mask.labels, pool, (INITIAL, INITIAL), seed, 0, 0, 1)
        for seed, (mask, pool) in enumerate(zip(data.masks, pools, strict=True))
    ]
    return Rows(*(np.concatenate(part) for part in zip(*parts, strict=True)))
