"""What all pages are made of: the document around them, figures with captions, counts in words."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable
from pathlib import Path

from ssl_gen.reports.charts import pictures
from ssl_gen.reports.charts.style import SHEET

# The browser itself is told to load nothing from anywhere.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, parts: Iterable[str], sheet: str = "", script: str = "") -> str:
    """A title in plain text and pieces of HTML, empty ones left out -> a whole page.

    sheet: style beside that of all pages; script: the one that the page may run, known to the browser by its hash.
    """
    policy, run = POLICY, ""
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
        policy, run = f"{POLICY}; script-src 'sha256-{digest}'", f"<script>{script}</script>\n"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{SHEET}{sheet}</style></head>\n<body>\n"
        + "\n".join(filter(None, parts))
        + f"\n{run}</body></html>\n"
    )


def image(path: Path, described: str, part: int = 1) -> str:
    """A PNG, embedded, at its own size or a whole `part` of it; `described` is what a screen reader says of it.

    It is never fitted to the page, which would blur its pixels and shrink its text: it stands in a box that scrolls.
    """
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    width, height = (side // part for side in pictures.size(path))
    tag = f'<img class="samples" width="{width}" height="{height}" alt="{html.escape(described)}"'
    return f'{tag} src="data:image/png;base64,{data}">'


def figure(path: Path, caption: str, part: int = 1) -> str:
    """An `image` in a box of its own, with a caption in plain text below it."""
    drawn = image(path, caption, part)
    return f'<figure><div class="scroll">{drawn}</div><figcaption>{html.escape(caption)}</figcaption></figure>'
