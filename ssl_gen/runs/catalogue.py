"""What there is, by name: methods, data sets, metrics."""

from __future__ import annotations

import dataclasses
import difflib
import types
from typing import Any

from ssl_gen.core import bounds
from ssl_gen.core.plain import from_plain, to_plain
from ssl_gen.datasets.sources import DATASETS
from ssl_gen.methods import METHODS, family
from ssl_gen.metrics.registry import METRICS
from ssl_gen.types import ImageSpec, Method, UserError

ABILITIES = ("sample", "conditional", "classify", "encode", "decode")


def find_method(name: str) -> types.ModuleType:
    """The module of a method. Raises UserError with the nearest names."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, cutoff=0.4) or list(METHODS)
        raise UserError(f"there is no method {name}; did you mean {' or '.join(near)}?")
    return METHODS[name]


def example(module: types.ModuleType) -> Method:
    """A method at its defaults, for small images: to ask what it can do."""
    return module.make(module.Config(), ImageSpec(8, 8, 1, 10, 100, 1_000, 1_000))


def has_steps(config: Any) -> bool:
    """Is a method with these settings trained in steps, rather than fitted in one go?"""
    return hasattr(config, "steps")


def with_steps(name: str, config: Any, steps: int) -> Any:
    """The settings of a method, trained for `steps` updates in all. Raises UserError where it is trained in none."""
    config = checked_config(name, config)
    if not has_steps(config):
        raise UserError(f"{name} is fitted in one go: leave out --steps")
    bounds.check_value("--steps", "steps", steps)
    return dataclasses.replace(config, steps=steps)


def checked_config(name: str, config: Any = None) -> Any:
    """The settings of a method, by default its own. Raises UserError for those of another, wrong types and bounds."""
    kind = find_method(name).Config
    if config is None:
        return kind()
    if type(config) is not kind:
        given = f"a {type(config).__module__.rpartition('.')[2]}.{type(config).__name__}"
        raise UserError(f'config is {given}: give {name} its own, ssl_gen.METHODS["{name}"].Config(...)')
    return checked(config, "--config.")


def checked(values: Any, prefix: str = "--") -> Any:
    """A dataclass of settings. Raises UserError where a field is of a wrong type, or a number out of its bounds."""
    try:
        plain = from_plain(type(values), to_plain(values))
    except ValueError as error:
        raise UserError(f"{prefix}{error}") from error
    bounds.check(plain, prefix)
    return plain


def catalogue(what: str) -> list[dict[str, Any]]:
    """Methods, datasets or metrics, each with name and description; methods with family, paper and what they can do."""
    if what == "datasets":
        return [{"name": name, "description": source.meaning} for name, source in DATASETS.items()]
    if what == "metrics":
        return [
            {
                "name": name,
                "description": metric.meaning,
                "needs": list(metric.needs),
                "usual": metric.usual,
                "numbers": {number: fact._asdict() for number, fact in metric.numbers.items()},
            }
            for name, metric in METRICS.items()
        ]
    entries = []
    for name, module in METHODS.items():
        method = example(module)
        entries.append(
            {
                "name": name,
                "description": str(module.__doc__).split("\n")[0],
                "family": family(name),
                "paper": module.PAPER,
            }
            | {ability: bool(getattr(method, ability)) for ability in ABILITIES}
            | {"sampler": dataclasses.asdict(method.sampler)}
        )
    return entries
