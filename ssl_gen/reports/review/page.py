"""A run's guesses of a folder's images -> one page to correct them on, which needs no server and no network.

What it does stands in `page.js`, its looks in `page.css`; here is what they are given.
"""

from __future__ import annotations

import hashlib
import html
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_gen.reports import sprites
from ssl_gen.reports.document import document

BEST = 3  # classes that are shown of an image, the likeliest first
NONE = -1  # no class


class Guessed(NamedTuple):
    """Images in the order in which the page shows them, and what is known of each."""

    files: Sequence[str]  # as labels.csv names them
    thumbnails: Sequence[np.ndarray]  # uint8 (h, w) or (h, w, 3), at most `sprites.CELL` large
    probabilities: np.ndarray  # (N, K)
    given: Sequence[int]  # the class that it is labelled with, NONE where it has no label
    next: int  # so many come first, to be labelled next


def order(probabilities: np.ndarray, following: np.ndarray) -> np.ndarray:
    """probabilities (N, K), rows to label next -> all rows: those, then by favourite class, the least certain first."""
    rows = np.lexsort((probabilities.max(1), probabilities.argmax(1)))
    return np.concatenate([following, rows[~np.isin(rows, following)]]).astype(int)


def render(
    folder: str, run: str, classes: Sequence[str], images: Guessed, elsewhere: Mapping[str, str], calibrated: bool
) -> str:
    """The whole page as HTML.

    folder, run: as the page names them; `elsewhere`: labels of files that the page does not show, kept in the table.
    """
    sprite = sprites.sprite(images.thumbnails)
    best = np.argsort(-images.probabilities, 1, kind="stable")[:, :BEST]
    shares = np.take_along_axis(images.probabilities, best, 1)
    data: dict[str, Any] = {
        "folder": folder,
        "run": run,
        "classes": list(classes),
        "calibrated": calibrated,
        "files": list(images.files),
        "given": [int(label) for label in images.given],
        "best": best.tolist(),
        "shares": [[round(float(share), 4) for share in row] for row in shares],
        "next": images.next,
        "elsewhere": list(elsewhere.items()),
        "cell": sprite.cell,
        "columns": sprite.columns,
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # of the content: what was corrected on another page is not taken up on this one
    data["id"] = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    part = importlib.resources.files(__package__)
    body = (part / "page.html").read_text("utf-8").replace("FOLDER", html.escape(folder))
    held = f'<script type="application/json" id="data">{text}</script>'
    sheet = (part / "page.css").read_text("utf-8") + sprite.rules()
    return document(f"Review {folder}", [body, held], sheet, (part / "page.js").read_text("utf-8"))
