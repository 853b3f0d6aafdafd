"""A run folder -> report.html, one file that needs nothing else: no network, no script, every picture inside."""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import Path

from ssl_gen.reports import records, sections
from ssl_gen.reports.style import SHEET

# The browser itself is told to load nothing from anywhere.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
PARTS = (
    sections.warnings,
    sections.introduction,
    sections.results,
    sections.evaluations,
    sections.samples,
    sections.latents,
    sections.confusion,
    sections.losses,
    sections.masks,
    sections.settings,
)


def document(title: str, parts: Iterable[str]) -> str:
    """A title in plain text and pieces of HTML, empty ones left out -> a whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{SHEET}</style></head>\n<body>\n"
        + "\n".join(filter(None, parts))
        + "\n</body></html>\n"
    )


def render(run: records.Run) -> str:
    """A run -> the whole page as HTML."""
    return document(sections.title(run.record), (part(run) for part in PARTS))


def write(run_folder: str | Path) -> Path:
    """Write report.html into a run folder, finished or not, and return its path; raises UserError as `records.read`."""
    run = records.read(run_folder)
    path = run.folder / "report.html"
    path.write_text(render(run), encoding="utf-8")
    return path
