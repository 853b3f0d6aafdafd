"""What a run is trained on: its images, one label mask a seed, and the rows of every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_gen.core.names import is_number, numbered
from ssl_gen.datasets import masking, sources
from ssl_gen.datasets.batches import Rows, rows
from ssl_gen.datasets.copies import without_copies, without_held_out
from ssl_gen.datasets.dataset import Dataset, conform, hold_out, with_missing_pixels, with_out_of_distribution
from ssl_gen.datasets.disk import beside
from ssl_gen.datasets.reading import Reading
from ssl_gen.evaluation import densities
from ssl_gen.reports.records import RunRecord
from ssl_gen.runs.options import Options, budget
from ssl_gen.training.segments import Segment
from ssl_gen.types import ImageSpec, Phase, UserError, able

LAST_SEED = 2**31 - 1  # a key's seed is an int32 on its way to the device
INITIAL = 500  # images of a kind for data-dependent initialisation; Salimans et al. 2016, code


class Data(NamedTuple):
    """The images of a run, its masks and its validation split."""

    dataset: Dataset
    seeds: list[int]  # one a replica
    masks: list[masking.Mask]  # one a seed; the same for all with --mask.seed
    validation: tuple[np.ndarray, np.ndarray]  # images (V, H, W, C) uint8, labels (V,)
    out_of_distribution: np.ndarray | None = None  # (M, H, W, C) uint8, test images of another data set
    source_sha256: str = ""  # of the data set as it was read, before images were held out, damaged or added

    @property
    def spec(self) -> ImageSpec:
        """Of the images, and how many there are to learn from."""
        mask = self.masks[0]
        images = len(self.dataset.train_labels)
        return self.dataset.spec._replace(labelled=mask.visible, unlabelled=len(mask.pool), images=images)

    def shown(self, replica: int) -> np.ndarray:
        """The training images that a replica learns from (M, H, W, C) uint8: the labelled ones and its pool."""
        mask = self.masks[replica]
        return self.dataset.train_images[densities.shown_rows(mask.labels, mask.pool)]


# of a data set and its seeds the rows (L,) that are labelled, one a seed: of the masks that a run chooses
Choose = Callable[[Dataset, Sequence[int]], list[np.ndarray]]


def load_data(options: Options, choose: Choose | None = None) -> Data:
    """Images, validation split and one mask a seed; `choose` for `--mask.kind suggested`, see `runs/rounds.py`.

    Raises UserError for all that does not fit together.
    """
    if options.seeds < 1:
        raise UserError(f"--seeds is at least 1, not {options.seeds}")
    if not 0 <= options.first_seed <= LAST_SEED + 1 - options.seeds:
        raise UserError(f"--first-seed {options.first_seed}: seeds are 0 to {LAST_SEED}")
    seeds = list(range(options.first_seed, options.first_seed + options.seeds))
    dataset = sources.load(
        options.dataset, options.data_dir, options.size, options.skip_unreadable, options.keep_copies
    )
    dataset = dataset.hash_known()
    source = dataset.sha256
    held_out = (dataset.train_images[:0], dataset.train_labels[:0])
    if options.validation:
        dataset, *split = hold_out(dataset, options.validation)
        held_out = split[0], split[1]
        if sources.is_own(options.dataset) and not options.keep_copies:
            names = [f"training image {row}" for row in range(len(dataset.train_labels))]
            dataset = without_copies(dataset, names, held_out[0], "validation")
    strangers = joining = None
    if options.out_of_distribution_dataset is not None:
        outside = options.out_of_distribution_dataset
        other = sources.load(outside, options.data_dir, options.size, options.skip_unreadable)
        strangers = conform(other.test_images, *dataset.spec.shape, beside(other.test_images))
        if options.mask.out_of_distribution:
            dataset, joining = strangers_to_join(options, dataset, other, held_out[0])
    elif options.mask.out_of_distribution:
        raise UserError(
            "--mask.out-of-distribution needs --out-of-distribution-dataset, the data set that those images come from"
        )
    if options.missing_pixels:  # afterwards: copies that lost other pixels are not found
        dataset, images = with_missing_pixels(dataset, options.missing_pixels, held_out[0])
        held_out = images, held_out[1]
    if joining is not None:
        dataset = with_out_of_distribution(dataset, joining)
    dataset = dataset.hash_known()
    masks = make_masks(options, dataset, seeds, choose)
    return Data(dataset, seeds, masks, held_out, strangers, source)


def strangers_to_join(
    options: Options, dataset: Dataset, other: Dataset, held_out: np.ndarray
) -> tuple[Dataset, Dataset]:
    """Another data set as it joins the pool, less copies of held-out images; the data set's reading names these."""
    images = conform(other.train_images, *dataset.spec.shape, beside(other.train_images))
    other = other._replace(train_images=images)
    if options.keep_copies:
        return dataset, other
    own = map(sources.is_own, (options.dataset, str(options.out_of_distribution_dataset)))
    splits = {"test": dataset.test_images, "validation": held_out}
    other, found = without_held_out(other, splits, near=any(own))
    if found.left_out:
        reading = dataset.reading or Reading()
        reading.add(found)
        dataset = dataset._replace(reading=reading)
    return dataset, other


def make_masks(options: Options, dataset: Dataset, seeds: Sequence[int], choose: Choose | None) -> list[masking.Mask]:
    """One mask a seed, of a data set as it is trained on."""
    scheme = dataclasses.replace(options.mask, missing=missing_classes(options.mask.missing, dataset.class_names))
    name = dataset.name.split(":")[0].split("+")[0]  # less a path, and the set that images of no class come from
    own = seeds if options.mask.seed is None else seeds[:1]
    chosen = [None] * len(own) if options.mask.kind != "suggested" else able(choose)(dataset, own)
    masks = [
        masking.make_mask(
            name,
            dataset.train_labels,
            dataset.class_names,
            budget(options.labels),
            scheme,
            seed,
            dataset.sha256,
            dataset.train_images,
            rows,
        )
        for seed, rows in zip(own, chosen, strict=True)
    ]
    return masks * (len(seeds) // len(masks))


def recorded(record: RunRecord) -> Choose:
    """The choice that stands in the record of a run, of its seeds."""
    return lambda dataset, seeds: [np.array(mask.rows, np.int64) for mask in record.masks]


def missing_classes(asked: Sequence[int], names: Sequence[str]) -> tuple[int, ...]:
    """The classes that --mask.missing means: a number is a name first. Raises UserError for one that is not there."""
    numbers = [name for name in names if is_number(name)]
    unknown = [number for number in asked if numbers and number not in map(int, numbers)]
    if unknown:
        raise UserError(f"--mask.missing {unknown[0]} is no class: those with numbers are {', '.join(numbers[:10])}")
    return tuple(numbered(number, names) for number in asked)


def matching_replicas(flag: str, record: RunRecord, data: Data) -> list[int]:
    """The replicas of the run of `flag` that saw the labels of each of data's seeds, with the same seed.

    Raises UserError where it saw other images or other visible labels.
    """
    if record.data.sha256 != data.dataset.sha256:
        raise UserError(f"the run of {flag} was trained on other data: use the same --dataset and its options")
    of = {
        (seed, mask.sha256): replica
        for replica, (seed, mask) in enumerate(zip(record.seeds, record.masks, strict=True))
    }
    wanted = [(seed, mask.sha256) for seed, mask in zip(data.seeds, data.masks, strict=True)]
    if not all(each in of for each in wanted):
        raise UserError(
            f"the run of {flag} saw other labels: use its --labels {record.labels}, its --mask settings and at most "
            f"its seeds, {record.seeds[0]} to {record.seeds[-1]} (--first-seed {record.seeds[0]} --seeds {len(of)})"
        )
    return [of[each] for each in wanted]


def feed(data: Data, phases: Sequence[Phase], told: Sequence[np.ndarray] | None = None) -> Callable[[Segment], Rows]:
    """The rows of a segment for every seed, (steps, S, ...); `told` of the unlabelled images, one a seed."""
    each = [None] * len(data.seeds) if told is None else told

    def rows_of(segment: Segment) -> Rows:
        phase, count = phases[segment.phase], segment.stop - segment.start
        parts = [
            rows(
                mask.labels,
                mask.pool,
                (phase.labelled, phase.unlabelled),
                seed,
                segment.phase,
                segment.start - segment.begin,
                count,
                known,
            )
            for seed, mask, known in zip(data.seeds, data.masks, each, strict=True)
        ]
        return Rows(*(np.stack(part, 1) for part in zip(*parts, strict=True)))

    return rows_of


def check_pool(data: Data, phases: Sequence[Phase]) -> None:
    """Raise UserError where a phase wants unlabelled images and a mask leaves none."""
    if any(phase.unlabelled for phase in phases) and not all(len(mask.pool) for mask in data.masks):
        raise UserError("no image is left unlabelled: leave out --mask.disjoint or give fewer --labels")


def check_alignment(config: Any, scheme: masking.Scheme) -> None:
    """Raise UserError where a method brings guesses to the labels' class frequencies, and the pool has others."""
    if getattr(config, "alignment", False) and not scheme.representative:
        raise UserError(
            "alignment takes the classes to be as frequent among all images as among the labels, and this --mask says "
            "they are not: add --config.no-alignment"
        )


def initial_rows(data: Data) -> Rows:
    """500 labelled and 500 unlabelled images a seed (some several times, where there are fewer), (S, 500).

    Where a mask leaves nothing unlabelled, the labelled images serve for both.
    """
    pools = [mask.pool if len(mask.pool) else np.flatnonzero(mask.labels >= 0) for mask in data.masks]
    parts = [
        rows(mask.labels, pool, (INITIAL, INITIAL), seed, 0, 0, 1)
        for seed, mask, pool in zip(data.seeds, data.masks, pools, strict=True)
    ]
    return Rows(*(np.concatenate(part) for part in zip(*parts, strict=True)))
