"""The command that reads a data set before it is trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from ssl_gen.cli.arguments import parse


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Read a data set as training would, and keep a large one in the user's cache, from where each start maps it."""

    dataset: Annotated[str, tyro.conf.Positional]  # a name of `ssl-gen list datasets`, folder:PATH or npz:PATH
    data_dir: Path | None = None  # where raw or prepared data lie
    size: int | None = None  # pixels; resize every image to size x size
    skip_unreadable: bool = False  # leave out files that cannot be read, and count them
    keep_copies: bool = False  # of a folder or npz: train also on images that equal a test image
    verify: bool = False  # read all that is kept of it, where a start looks at a few blocks


def prepare(arguments: Sequence[str]) -> int:
    """`ssl-gen prepare DATASET ...`"""
    asked = parse(Prepare, arguments, "ssl-gen prepare")
    from ssl_gen.core.wording import size
    from ssl_gen.datasets import kept, sources, summary

    how = asked.data_dir, asked.size, asked.skip_unreadable, asked.keep_copies
    origin = sources.origin(sources.ask(asked.dataset, *how))
    whole = kept.read(origin, every=True) if asked.verify and origin is not None else None
    dataset = sources.load(asked.dataset, *how)
    print(summary.line(dataset))
    for warning in dataset.reading.warnings if dataset.reading else ():
        print(f"warning: {warning}")
    account = None if origin is None else kept.where(origin)
    if account is None:
        print("nothing is kept of it: it is read at each start")
        return 0
    said = "as it was written, all of it: " if whole is not None else ""
    nbytes = dataset.train_images.nbytes + dataset.test_images.nbytes
    print(f"{said}{size(nbytes)} of images by {account}, SHA-256 {dataset.sha256}")
    return 0
