"""The one walk over a user's files: what counts as an image, what is passed over, and why.

Names that begin with a dot and those that systems leave behind are passed over, and so is what this program writes
where it is started in the folder of the pictures: runs, tables and pages. Links are followed, each folder is entered
once, and nothing is opened that is no regular file.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from pathlib import Path
from typing import NamedTuple

from ssl_gen.datasets.names import readable
from ssl_gen.types import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp")  # in any case
SYSTEM = {  # small letters; what file managers, archives and servers leave behind
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "picasa.ini", "__macosx", "@eadir", "#recycle"),
    *("$recycle.bin", "system volume information", "lost+found"),
}
RUN = "run.json"  # in the folder of a run, see `reports.records`
WRITTEN = {"predictions.csv", "suggest.csv", "review.html", "compare.html"}  # by default into the folder one is in
# Why a file was not taken, as it is said: "3 hidden or system".
SYSTEM_FILE = "hidden or system"
IN_HIDDEN = "in a hidden or system folder"
OURS = "written by this program"  # a run counts as one
NO_IMAGE = "not named as an image"
BROKEN_LINK = "behind a broken link"
READ_ALREADY = "behind a link to a folder that is read already"
SPECIAL = "a pipe, socket or device"
CLOSED = "closed to this user"
UNREADABLE = "unreadable"
ALWAYS = (SYSTEM_FILE, IN_HIDDEN, OURS)  # passed over wherever they lie; for the rest, training is to be asked


class Walk(NamedTuple):
    """What lies below a folder, each list sorted by its names as they read."""

    images: list[Path]  # regular files that are images by their names
    folders: list[Path]  # entered, `root` not among them
    passed: dict[str, list[Path]]  # why -> what was not taken


def is_image(path: Path) -> bool:
    """Is it an image by its name?"""
    return path.suffix.lower() in SUFFIXES


def order(path: Path) -> tuple[str, ...]:
    """What paths are sorted by: the same on every system, whatever form its names have."""
    return tuple(readable(part) for part in path.parts)


def walk(root: Path, skip_unreadable: bool = False) -> Walk:
    """Everything below a folder.

    Raises UserError, naming it, for a folder that cannot be opened, unless `skip_unreadable`.
    """
    found = _search(root, passing=False)
    closed = found.passed.get(CLOSED, [])
    if closed and (not skip_unreadable or root in closed):
        raise UserError(
            f"{readable(closed[0])} cannot be opened: ask for its permissions, or leave it out with --skip-unreadable."
        )
    return found


def _search(root: Path, passing: bool) -> Walk:
    """`passing`: only to count the images of a folder that is passed over; its links are left alone."""
    images: list[Path] = []
    folders: list[Path] = []
    passed: dict[str, list[Path]] = {}
    queue, links = deque([root]), deque[Path]()  # a folder is entered by its own name rather than by a link's
    entered = set()
    while queue or links:
        folder = queue.popleft() if queue else links.popleft()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in entered:
                passed.setdefault(READ_ALREADY, []).append(folder)
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scanned:
                entries = list(scanned)
        except OSError:
            passed.setdefault(CLOSED, []).append(folder)
            continue
        if folder != root:
            folders.append(folder)
        for entry in entries:
            path, why = folder / entry.name, _why_not(entry)
            if why == IN_HIDDEN and not passing:
                passed.setdefault(why, []).extend(_search(path, passing=True).images)
            elif why is not None:
                passed.setdefault(why, []).append(path)
            elif entry.is_dir():
                if not entry.is_symlink():
                    queue.append(path)
                elif not passing:
                    links.append(path)
            else:
                images.append(path)
    everything = {why: sorted(paths, key=order) for why, paths in passed.items() if paths}
    theirs = [folder for folder in folders if not _only_runs(folder, images, everything)]
    return Walk(sorted(images, key=order), sorted(theirs, key=order), everything)


def _only_runs(folder: Path, images: list[Path], passed: dict[str, list[Path]]) -> bool:
    """Are runs all that lies below, as in the folder `runs`?"""
    if not any(folder in path.parents for path in passed.get(OURS, [])):
        return False
    others = (path for why, paths in passed.items() if why not in ALWAYS for path in paths)
    return not any(folder in path.parents for path in (*images, *others))


def _why_not(entry: os.DirEntry[str]) -> str | None:
    """Why an entry of a folder is neither an image nor a folder to enter; None where it is one."""
    try:
        mode = entry.stat().st_mode
    except OSError as error:  # also a link to itself
        if _is_system(entry.name):
            return SYSTEM_FILE
        return CLOSED if isinstance(error, PermissionError) else BROKEN_LINK
    if _is_system(entry.name):
        return IN_HIDDEN if stat.S_ISDIR(mode) and not entry.is_symlink() else SYSTEM_FILE
    if stat.S_ISDIR(mode):
        return OURS if os.path.isfile(os.path.join(entry.path, RUN)) else None
    if not stat.S_ISREG(mode):
        return SPECIAL
    if entry.name in WRITTEN:
        return OURS
    return None if is_image(Path(entry.name)) else NO_IMAGE


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM
