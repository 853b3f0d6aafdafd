"""What is wrong with a built site: links that lead nowhere, and what a browser would fetch from elsewhere."""

from __future__ import annotations

import urllib.parse
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple


class Page(NamedTuple):
    """What a page refers to, and what it can be referred to by."""

    links: list[str]  # of <a>
    loaded: list[str]  # what the browser fetches by itself: pictures, scripts, styles
    names: set[str]  # its anchors


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page([], [], set())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.page.names.update(value for name in ("id", "name") if (value := given.get(name)))
        href = given.get("href")
        if tag == "a" and href:
            self.page.links.append(href)
        fetched = href if tag == "link" and given.get("rel") != "canonical" else given.get("src")
        if fetched and not fetched.startswith("data:"):
            self.page.loaded.append(fetched)


def read(path: Path) -> Page:
    reader = _Reader()
    reader.feed(path.read_text())
    return reader.page


def problems(site: Path) -> list[str]:
    """One line for each link, picture or anchor of the site that is broken or lies elsewhere."""
    pages = {path.resolve(): read(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    found = []
    for path, page in pages.items():
        for target in page.links + page.loaded:
            address = urllib.parse.urlsplit(target)
            where = f"{path.relative_to(site.resolve())}: {target}"
            if address.scheme or address.netloc:
                if target in page.loaded:
                    found.append(f"{where} would be fetched from elsewhere")
                continue
            file = (path.parent / urllib.parse.unquote(address.path)).resolve() if address.path else path
            if not file.is_file():
                found.append(f"{where} is no file of the site")
            elif address.fragment and file in pages and urllib.parse.unquote(address.fragment) not in pages[file].names:
                found.append(f"{where} is no anchor there")
    return found
