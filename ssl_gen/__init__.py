"""Semi-supervised image generation in JAX: many images, few labels.

    run = ssl_gen.train("triple_gan", dataset="digits", labels=50, seeds=3, steps=4000, out="runs/mine")
    images = run.sample(label=3, count=16)  # uint8 (16, 8, 8, 1)
    run.metrics["error"]["mean"], run.classify(images)
    run = ssl_gen.load("runs/mine")

is what `ssl-gen train`, `sample` and `predict` do, `ssl_gen.suggest` and `ssl_gen.review` do what their commands do;
`ssl_gen.METHODS["triple_gan"].make(config, spec)` is one method as pure functions. Nothing heavy is imported before
use.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_gen.runs.load import Run
    from ssl_gen.runs.options import Options

DOORS = {  # name -> where it lives
    "METHODS": "ssl_gen.methods",
    "DATASETS": "ssl_gen.datasets.sources",
    "METRICS": "ssl_gen.metrics.registry",
    "Options": "ssl_gen.runs.options",
    "Batch": "ssl_gen.types",
    "ImageSpec": "ssl_gen.types",
    "UserError": "ssl_gen.types",
    "load": "ssl_gen.runs.load",
    "evaluate": "ssl_gen.runs.evaluate",
    "suggest": "ssl_gen.runs.suggestions",
    "review": "ssl_gen.runs.review",
}
__all__ = ["export", "train", *DOORS]


def __getattr__(name: str) -> Any:
    if name == "export":  # the one door that is a module: export.save, export.load
        return importlib.import_module("ssl_gen.runs.export")
    if name not in DOORS:
        raise AttributeError(f"module 'ssl_gen' has no attribute {name!r}")
    return getattr(importlib.import_module(DOORS[name]), name)


def train(
    name: str, config: Any = None, options: Options | None = None, *, steps: int | None = None, **fields: Any
) -> Run:
    """Train a method, or go on where an earlier call of the same stopped, and give the run back, ready for use.

    config: the method's own Config (None: its defaults); `steps`: updates in all, in place of the config's; `fields`:
    those of `Options` by name (`dataset`, `labels`, `seeds`, `out`, ...), in place of those of `options`. Raises
    UserError for wrong settings, as `ssl_gen.runs.train.train` does.
    """
    from ssl_gen.runs import catalogue, load, train
    from ssl_gen.runs.options import Options

    config = config if config is not None else catalogue.find_method(name).Config()
    config = config if steps is None else catalogue.with_steps(name, config, steps)
    return load.load(train.train(name, config, _with_fields(options or Options(), fields)).folder)


def _with_fields(options: Options, fields: dict[str, Any]) -> Options:
    """The options with other values, each of the type that it must have; UserError for an unknown name or a wrong type.

    Paths may be given as str, `labels` as int.
    """
    from ssl_gen.core.plain import revive
    from ssl_gen.types import UserError

    hints = typing.get_type_hints(type(options))
    values = {}
    for name, value in fields.items():
        if name not in hints:
            near = difflib.get_close_matches(name, hints, cutoff=0.4) or list(hints)
            raise UserError(f"there is no option {name}; did you mean {' or '.join(near)}?")
        allowed = typing.get_args(hints[name]) or (hints[name],)
        if (name == "labels" and isinstance(value, int)) or (str in allowed and isinstance(value, Path)):
            value = str(value)
        try:
            values[name] = revive(name, hints[name], value)
        except ValueError:
            literal = typing.get_origin(hints[name]) is typing.Literal
            words = " or ".join(repr(each) if literal else getattr(each, "__name__", "...") for each in allowed)
            raise UserError(f"{name} is {value!r}, and must be {words}") from None
    return dataclasses.replace(options, **values)
