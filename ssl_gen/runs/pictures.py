"""What a generator draws, as PNG files."""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssl_gen.core.files import writing
from ssl_gen.datasets.walk import SUFFIXES
from ssl_gen.evaluation.inference import Compiled, draw_samples
from ssl_gen.reports.charts import pictures
from ssl_gen.runs.data import Data
from ssl_gen.types import State, UserError

GRID = 10  # rows of samples.png
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
    images = draw_samples(compiled, state, np.tile(np.arange(columns), rows), data.seeds[replica], sampler)
    mask = data.masks[replica]
    text = {"method": method, "seed": str(data.seeds[replica]), "mask": mask.name, "mask_sha256": mask.sha256}
    titles = list(data.dataset.class_names[:columns]) if compiled.method.conditional else None
    pictures.save_grid(path, images.reshape(rows, columns, *images.shape[1:]), titles, text=text)


def save_images(path: Path, images: np.ndarray, names: Sequence[str], text: dict[str, str]) -> list[Path]:
    """images (N, H, W, C) uint8 with the class name of each -> the files NAME_0000.png, ... in the folder `path`.

    What cannot stand in a file's name becomes a dash. Raises UserError where the folder cannot be written, or is named
    like a picture of a kind that is not written.
    """
    if path.suffix.lower() in SUFFIXES:
        raise UserError(f"{path} is neither a .png nor a folder: choose another name with --out")
    plain, saved = [re.sub(r"[^\w.-]+", "-", name) for name in names], []
    counts: collections.Counter[str] = collections.Counter()
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        for image, name in zip(images, plain, strict=True):
            picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            saved.append(pictures.save(path / f"{name}_{counts[name]:04d}.png", picture, text))
            counts[name] += 1
    return saved
