"""A run folder -> report.html, one file that needs nothing else: no network, no script, every picture inside."""

from __future__ import annotations

from pathlib import Path

from ssl_gen.core.files import write_whole
from ssl_gen.reports.document import document
from ssl_gen.reports.run import sections, tested, training
from ssl_gen.reports.run_folder import Run, read

PARTS = (
    sections.warnings,
    sections.introduction,
    sections.results,
    training.evaluations,
    sections.samples,
    sections.latents,
    sections.confusion,
    tested.galleries,
    training.losses,
    sections.masks,
    sections.settings,
)


def render(run: Run) -> str:
    """A run -> the whole page as HTML."""
    return document(sections.title(run.record), (part(run) for part in PARTS), tested.rules(run))


def write(run_folder: str | Path) -> Path:
    """Write report.html into a run folder, finished or not, and return its path; raises UserError as `read`.

    A reader sees the old page or the new one. Raises OSError where it cannot be written.
    """
    run = read(run_folder)
    path = run.folder / "report.html"
    write_whole(path, render(run).encode("utf-8", "backslashreplace"))  # paths may be no UTF-8
    return path
