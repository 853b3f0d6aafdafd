"""What a generator draws, as PNG files."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssl_gen.core import failures
from ssl_gen.core.outputs import replacing
from ssl_gen.datasets.walk import SUFFIXES
from ssl_gen.evaluation.densities import prepared
from ssl_gen.evaluation.inference import Compiled, draw_samples
from ssl_gen.reports.charts import pictures
from ssl_gen.runs.data import Data
from ssl_gen.types import State, UserError

SAMPLES = "samples.png"  # of a finished run
GRID = 10  # rows of it
SMALL_GRID = 4  # rows of a picture drawn while training goes on
COLUMNS = 20  # classes in a grid at most


def draw_grid(
    path: Path,
    compiled: Compiled,
    data: Data,
    state: State,
    replica: int,
    method: str,
    rows: int = GRID,
    sampler: Any = None,
) -> None:
    """Write a grid of samples of one replica: `rows` rows, a column a class where samples obey labels."""
    columns = min(data.dataset.spec.classes, COLUMNS)
    state = prepared(compiled, state, sampler, lambda: data.shown(replica))
    images = draw_samples(compiled, state, np.tile(np.arange(columns), rows), data.seeds[replica], sampler)
    mask = data.masks[replica]
    text = {"method": method, "seed": str(data.seeds[replica]), "mask": mask.name, "mask_sha256": mask.sha256}
    titles = list(data.dataset.class_names[:columns]) if compiled.method.conditional else None
    pictures.save_grid(path, images.reshape(rows, columns, *images.shape[1:]), titles, text=text)


def attempt_grid(path: Path, *what: Any) -> str:
    """`draw_grid`, or why there is no picture, "" where there is: of latents or memory, no reason to lose a run.

    What the disk refuses is raised.
    """
    try:
        draw_grid(path, *what)
    except OSError:
        raise
    except Exception as error:
        return failures.reason(error)
    return ""


def image_files(path: Path, stems: Sequence[str]) -> list[Path]:
    """The files STEM_0000.png, ... in the folder `path`, one a stem.

    Raises UserError where the folder is named like a picture of a kind that is not written.
    """
    if path.suffix.lower() in SUFFIXES:
        raise UserError(f"{path} is neither a .png nor a folder: choose another name with --out")
    counts: collections.Counter[str] = collections.Counter()
    files = []
    for stem in stems:
        files.append(path / f"{stem}_{counts[stem]:04d}.png")
        counts[stem] += 1
    return files


def save_images(files: Sequence[Path], images: np.ndarray, texts: Sequence[dict[str, str]]) -> None:
    """images (N, H, W, C) uint8 -> a PNG each, with its text in it. Raises UserError where one cannot be written."""
    for file, image, text in zip(files, images, texts, strict=True):
        with replacing(file) as target:
            pictures.save(target, Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image), text)
