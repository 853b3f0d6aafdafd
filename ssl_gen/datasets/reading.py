"""What a reader met on the way from files, or arrays, to a data set: sizes, modes, what was changed or left out."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_gen.datasets.disk import blocks
from ssl_gen.datasets.image_files import NARROWED, Picture
from ssl_gen.datasets.names import readable

Counts = collections.Counter[str]


@dataclasses.dataclass
class Reading:
    """What a reader met between the files, or arrays, and the data set; filled while it reads."""

    left_out: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # why -> names, relative to the folder
    sizes: Counts = dataclasses.field(default_factory=Counts)  # as the files have them, "640 x 480" (width x height)
    modes: Counts = dataclasses.field(default_factory=Counts)  # as the files have them
    changes: Counts = dataclasses.field(default_factory=Counts)  # what was done -> to how many images
    warnings: list[str] = dataclasses.field(default_factory=list)
    dark: int = 0  # 16-bit pictures that use the lower levels only

    def leave_out(self, why: str, paths: Sequence[Path | str]) -> None:
        """Notes what was not taken."""
        if paths:
            self.left_out.setdefault(why, []).extend(readable(path) for path in paths)

    def take(self, picture: Picture) -> None:
        """Notes one decoded file."""
        height, width = picture.pixels.shape[:2]
        self.sizes[f"{width} x {height}"] += 1
        self.modes[picture.mode] += 1
        self.changes.update(picture.changes)
        self.dark += picture.dark

    def add(self, other: Reading) -> None:
        """Notes what was met by another."""
        for why, names in other.left_out.items():
            self.leave_out(why, names)
        for mine, others in ((self.sizes, other.sizes), (self.modes, other.modes), (self.changes, other.changes)):
            mine.update(others)
        self.warnings += other.warnings
        self.dark += other.dark

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        counted = {name: dict(getattr(self, name)) for name in ("sizes", "modes", "changes")}
        return vars(self) | counted

    @classmethod
    def of_plain(cls, content: Mapping[str, Any]) -> Reading:
        """What `plain` gave. Raises KeyError, TypeError or ValueError where it is not that."""
        sizes, modes, changes = (Counts(content[name]) for name in ("sizes", "modes", "changes"))
        left_out = {why: list(names) for why, names in content["left_out"].items()}
        return cls(left_out, sizes, modes, changes, list(content["warnings"]), int(content["dark"]))

    def conclude(self, images: np.ndarray, grey: int) -> None:
        """Compares what was met with images (N, H, W, C) uint8, of which `grey` had one channel."""
        height, width, channels = images.shape[1:]
        taken = self.sizes.total()
        self.changes[f"resized to {width} x {height}"] = taken - self.sizes[f"{width} x {height}"]
        self.changes["grey repeated as RGB"] = grey if channels == 3 else 0
        self.warn_of_dark()
        self.warn_of_constant(images)

    def warn_of_dark(self) -> None:
        """Notes 16-bit pictures of which 8 bits leave little."""
        if self.dark:
            self.warnings.append(
                f"{self.dark:,} of {self.changes[NARROWED]:,} 16-bit images use no level above a quarter of the range "
                "and come out black or nearly so: data of 8 to 14 bits in 16? Stretch them to 0 .. 65535 first"
            )

    def warn_of_constant(self, *parts: np.ndarray) -> None:
        """Notes images, (N, H, W, C) uint8 each part, that show nothing."""
        flat = (block.reshape(len(block), -1) for images in parts for block in blocks(images))
        constant = sum(int((block == block[:, :1]).all(axis=1).sum()) for block in flat)
        if constant:
            total = sum(map(len, parts))
            self.warnings.append(f"{constant:,} of {total:,} images have one level in every pixel")

    def warn_of_names(self, class_names: Sequence[str]) -> None:
        """Notes classes that differ in nothing but capitals and spaces."""
        groups: dict[str, list[str]] = {}
        for name in class_names:
            groups.setdefault("".join(name.casefold().split()), []).append(name)
        for group in groups.values():
            if len(group) > 1:
                self.warnings.append(f"the classes {', '.join(map(repr, group))} differ in capitals or spaces alone")
