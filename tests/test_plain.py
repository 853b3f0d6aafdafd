"""Dataclasses as JSON keeps them, and back."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import pytest

from ssl_gen.cli.commands import PRESETS
from ssl_gen.core.plain import from_plain, to_plain
from ssl_gen.methods import METHODS
from ssl_gen.metrics.statistics import Summary, summary
from ssl_gen.runs.options import Options


@dataclasses.dataclass(frozen=True)
class Inner:
    name: str
    sizes: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    rate: float
    count: int
    place: Path | None
    kind: Literal["a", "b"]
    pair: tuple[int, str]
    many: list[Inner]
    by_name: dict[str, Inner]
    metrics: dict[str, Summary]
    whatever: Any
    either: int | str = "all"
    flag: bool = False


FULL = Outer(
    Inner("x", (3,)), 0.5, 7, Path("a/b"), "b", (4, "four"), [Inner("y")], {"z": Inner("z", ())},
    {"error": summary([1.0, None, 3.0])}, {"deep": [1, None]}, 30, True,
)  # fmt: skip


def changed(**changes):
    return to_plain(FULL) | changes


def test_what_json_keeps_is_read_back_equal():
    assert from_plain(Outer, json.loads(json.dumps(to_plain(FULL)))) == FULL


@pytest.mark.parametrize("name", METHODS)
def test_the_settings_of_every_method_are_read_back_equal(name):
    module = METHODS[name]
    presets = [getattr(module, each.upper()) for each in PRESETS[1:] if hasattr(module, each.upper())]
    for config in (module.Config(), *presets):
        assert from_plain(type(config), json.loads(json.dumps(to_plain(config)))) == config


def test_options_are_read_back_equal():
    options = Options(out=Path("here"), evaluators=("fid:20", "samples"), labels="all")
    assert from_plain(Options, json.loads(json.dumps(to_plain(options)))) == options


def test_what_has_a_default_may_be_absent():
    plain = {name: value for name, value in to_plain(FULL).items() if name not in ("either", "flag")}
    assert from_plain(Outer, plain) == dataclasses.replace(FULL, either="all", flag=False)
    assert from_plain(Inner, {"name": "x"}) == Inner("x")


def test_a_whole_number_stands_for_a_float_and_no_other_way_round():
    read = from_plain(Outer, changed(rate=2))
    assert read.rate == 2 and isinstance(read.rate, float)
    with pytest.raises(ValueError, match=r"count is 2\.0, no int"):
        from_plain(Outer, changed(count=2.0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"depth": 3}, "unknown field depth"),
        ({"inner": {}}, "no field name"),
        ({"inner": {"name": 3}}, "name is 3, no str"),
        ({"inner": {"name": "x", "sizes": 3}}, "sizes is no list"),
        ({"inner": {"name": "x", "sizes": [1, "2"]}}, "sizes is '2', no int"),
        ({"inner": "x"}, "Inner is no JSON object"),
        ({"rate": "fast"}, "rate is 'fast', no float"),
        ({"rate": True}, "rate is True, no float"),
        ({"count": True}, "count is True, no int"),
        ({"flag": 1}, "flag is 1, no bool"),
        ({"place": 3}, "place is 3"),
        ({"kind": "c"}, "kind is 'c', none of 'a', 'b'"),
        ({"pair": [1]}, "pair has 1 entries, not 2"),
        ({"many": [{"name": "x", "size": 3}]}, "unknown field size"),
        ({"by_name": []}, "by_name is no JSON object"),
        ({"by_name": {"z": {"sizes": []}}}, "no field name"),
        ({"either": None}, "either is None"),
        ({"rate": None}, "rate is None"),
    ],
)
def test_what_is_wrong_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        from_plain(Outer, changed(**changes))


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="no field name"):
        from_plain(Inner, {})
    with pytest.raises(ValueError, match="Inner is no JSON object"):
        from_plain(Inner, [])
