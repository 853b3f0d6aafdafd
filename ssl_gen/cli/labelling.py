"""The commands of the loop of labelling: what a run guesses, what to label next, where a person corrects it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from ssl_gen.cli.arguments import RunFolder, parse
from ssl_gen.core.wording import count


@dataclasses.dataclass(frozen=True)
class Predict:
    """Label images with a run's classifier (the mean over its seeds): file, label, probability."""

    run: RunFolder  # the run's folder
    path: RunFolder  # an image or a folder of images, searched through
    out: Path = Path("predictions.csv")  # the table; as PATH/labels.csv it labels the folder for training
    confident: float = 0.0  # below this probability the label is left blank: unlabelled
    overwrite: bool = False  # also a table that is there and not as it was written
    skip_unreadable: bool = False  # leave out files that cannot be read, and count them


@dataclasses.dataclass(frozen=True)
class Suggest:
    """Which images to label next: typical ones, or with a run those it is least sure of; a table to label them in."""

    places: Annotated[tuple[Path, ...], tyro.conf.Positional]  # [RUN] PATH: perhaps a run's folder, then the images'
    count: int = 50  # images to label
    out: Path = Path("suggest.csv")  # the table; as PATH/labels.csv, its blanks filled in, it labels the folder
    # pixels, random, a weights file, efficientnet_lite0 (extra pretrained), mobilenet_v2, hf:OWNER/NAME; by default the
    # run's latents, or pixels
    features: str | None = None
    size: int | None = None  # without a run: pixels; every image is seen as size x size, by default 32 x 32
    seed: int = 0  # of clusters, or of the draw
    overwrite: bool = False  # also a table that is there and not as it was written
    skip_unreadable: bool = False  # leave out files that cannot be read, and count them


@dataclasses.dataclass(frozen=True)
class Review:
    """Look at a run's guesses of a folder's images and correct them: one page, no server; it saves labels.csv."""

    run: RunFolder  # the run's folder
    path: RunFolder  # the folder of images; the labels.csv that the page saves goes into it
    out: Path = Path("review.html")  # the page, one file that needs no network
    next: int = 50  # images to label next, as `suggest` names them, on top
    most: int = 5_000  # images on the page: of more, those to label next and the least certain
    # pixels, random, a weights file, efficientnet_lite0 (extra pretrained), mobilenet_v2, hf:OWNER/NAME; by default the
    # run's latents, or pixels
    features: str | None = None
    seed: int = 0  # of the draw of those to label next
    overwrite: bool = False  # also a page that is there and not as it was written
    skip_unreadable: bool = False  # leave out files that cannot be read, and count them


def predict(arguments: Sequence[str]) -> int:
    """`ssl-gen predict RUN PATH ...`"""
    asked = parse(Predict, arguments, "ssl-gen predict")
    from ssl_gen.core import bounds, outputs
    from ssl_gen.datasets import folders, summary
    from ssl_gen.runs.load import load
    from ssl_gen.runs.predictions import relative, write_table

    bounds.check(asked)
    outputs.check_free([asked.out], asked.overwrite)
    run = load(asked.run)
    data = run.record.data
    files, images, reading = folders.read_to_fit(asked.path, data.spec.shape, asked.skip_unreadable)
    probabilities = run.classify(images)
    named = relative(files, asked.path)
    with outputs.replacing(asked.out) as target:
        labelled = write_table(target, named, data.class_names, probabilities, run.calibrated, asked.confident)
    unsure = f", {len(files) - labelled} below {asked.confident:g} left unlabelled" if asked.confident else ""
    print(f"{count(labelled, 'image')} labelled in {asked.out}{unsure}; {summary.said_of_left_out(reading.left_out)}")
    for warning in reading.warnings:
        print(f"warning: {warning}")
    print(calibration(run))
    return 0


def suggest(arguments: Sequence[str]) -> int:
    """`ssl-gen suggest [RUN] PATH ...`"""
    asked = parse(Suggest, arguments, "ssl-gen suggest")
    from ssl_gen.core import bounds, outputs
    from ssl_gen.datasets import summary
    from ssl_gen.runs import suggestions
    from ssl_gen.types import UserError

    bounds.check(asked)
    if not 1 <= len(asked.places) <= 2:
        raise UserError("give the folder of images, perhaps the folder of a run before it")
    outputs.check_free([asked.out], asked.overwrite)
    *runs, path = asked.places
    run = runs[0] if runs else None
    found = suggestions.suggest(path, asked.count, run, asked.features, asked.seed, asked.size, asked.skip_unreadable)
    found.save(asked.out, asked.overwrite)
    kind = "the least certain and most diverse" if runs else "the most typical"
    print(f"{count(len(found.files), 'image')} to label in {asked.out}, {kind}: fill in the column label")
    print(f"{count(len(found.labelled), 'label')} there already; {summary.said_of_left_out(found.reading.left_out)}")
    for warning in found.reading.warnings:
        print(f"warning: {warning}")
    return 0


def review(arguments: Sequence[str]) -> int:
    """`ssl-gen review RUN PATH ...`"""
    asked = parse(Review, arguments, "ssl-gen review")
    from ssl_gen.core import bounds
    from ssl_gen.datasets import summary
    from ssl_gen.runs.review import review

    bounds.check(asked)
    found = review(**dataclasses.asdict(asked))
    some = "" if found.shown == found.images else f"the {found.shown:,} least certain of "
    print(f"{some}{count(found.images, 'image')} to review in {found.page}")
    print(f"{count(found.labelled, 'label')} there already; {summary.said_of_left_out(found.reading.left_out)}")
    for warning in found.reading.warnings:
        print(f"warning: {warning}")
    print(f"open it in a browser; the labels.csv that it saves goes into {asked.path}")
    return 0


def calibration(run: Any) -> str:
    """Whether the probabilities of a run can be believed, and why not."""
    if run.calibrated:
        return f"probabilities are calibrated on {run.record.data.validation} validation images"
    if run.final is None:
        return "probabilities are not calibrated: the run is not finished"
    if "temperature" in run.final.unmeasured:
        return f"probabilities are not calibrated: {run.final.unmeasured['temperature']}"
    return "probabilities are not calibrated: train with --validation N to hold out N labelled images for that"
