"""mkdocs: the pages that are made at build time, and the check of what was built."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from docs.site import check, pages
from docs.site.pages import ROOT

WIDE = ("methods/", "metrics.md")  # pages of tables


def on_config(config: Any) -> Any:
    """The methods' pages enter the navigation."""
    for section in config.nav:
        if "Methods" in section:
            section["Methods"] = [*section["Methods"], *pages.method_nav()]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Front page, contributing and changes from the root's files, the others from the code."""
    here = Path(__file__).parent
    made = {
        **{page: pages.at_root((ROOT / file).read_text()) for file, page in pages.AT_ROOT.items()},
        **{name: (here / name).read_text() for name in ("style.css", "iframe-worker.js")},
    }
    made |= pages.method_pages() | pages.api_pages()
    for address, content in made.items():
        files.append(File.generated(config, address, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Two pages of docs/ end with what the code says. Pages of tables have no list of sections, but its room."""
    if page.file.src_uri.startswith(WIDE):
        page.meta["hide"] = ["toc"]
    added = {"metrics.md": pages.metrics_tables, "troubleshooting.md": pages.messages}
    make = added.get(page.file.src_uri)
    return f"{markdown}\n\n{make()}" if make else markdown


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """The list of sections leaves out messages, which are long."""
    if page.file.src_uri == "troubleshooting.md":
        for section in (section for title in page.toc for section in title.children):
            section.children = []
    return html


def on_post_build(config: Any) -> None:
    """Fail on a link, a picture or an anchor that leads nowhere, and on what would be fetched from elsewhere."""
    problems = check.problems(Path(config.site_dir))
    if problems:
        raise PluginError("\n".join(problems))
