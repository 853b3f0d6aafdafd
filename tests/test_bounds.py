"""Numbers that no machine or paper has are refused at the door, for every field there is."""

import dataclasses
import inspect
import math
import typing

import pytest

from ssl_gen import cli
from ssl_gen.cli import commands, labelling
from ssl_gen.core import bounds
from ssl_gen.core.samplers import NormalLatents
from ssl_gen.datasets.masking import Scheme
from ssl_gen.methods import METHODS
from ssl_gen.runs import train
from ssl_gen.runs.catalogue import checked, checked_config
from ssl_gen.runs.options import Options
from ssl_gen.types import UserError

ABSURD = (-1, math.nan, math.inf, 2.0**41, -(2.0**41))
SIGNED = ("log_noise_mean", "logit_mean")  # means of logarithms, of which -1 is none of the absurd
COMMANDS = [
    kind
    for module in (commands, labelling)
    for _, kind in inspect.getmembers(module, dataclasses.is_dataclass)
    if kind.__module__ == module.__name__
]


def numbers(values, path=()):
    """(path, name, value, kind) of every number of a dataclass, its defaults, and of those in it."""
    hints = typing.get_type_hints(type(values))
    for field in dataclasses.fields(values):
        value, kinds = getattr(values, field.name), {hints[field.name], *typing.get_args(hints[field.name])}
        if dataclasses.is_dataclass(value):
            yield from numbers(value, (*path, field.name))
        elif {int, float} & (kinds | {inner for kind in kinds for inner in typing.get_args(kind)}):
            yield (*path, field.name), value, int if int in kinds else float


def changed(values, path, value):
    """The dataclass with one number, however deep, in place of another."""
    name, *rest = path
    if rest:
        return dataclasses.replace(values, **{name: changed(getattr(values, name), rest, value)})
    old = getattr(values, name)
    return dataclasses.replace(values, **{name: tuple(value for _ in old or [0]) if isinstance(old, tuple) else value})


CONFIGS = {name: module.Config() for name, module in METHODS.items()}
FIELDS = [(values, path) for values in (*CONFIGS.values(), Options(), Scheme()) for path, _, _ in numbers(values)]

# Shares of which all would leave nothing, or would never move, and those that may be all.
NOT_ALL = {"dropout", "classifier_dropout", "masking", "label_smoothing", "missing_pixels", "out_of_distribution"}
NOT_ALL |= {"b1", "b2", "final_b2", "decay"}
UP_TO_ALL = {
    "warm_up",
    "ramp",
    "ramp_up",
    "ramp_down",
    "anneal",
    "first",
    "fine_tuning",
    "generation",
    "generated_from",
}
UP_TO_ALL |= {"real_labelled", "labelled_share", "threshold", "confident", "averaging", "generator_averaging"}
UP_TO_ALL |= {"scale", "shear", "cutout", "label_dropout", "instantaneous", "eps_root", "shrinkage"}
# What there is at least one of, and what must be more than nothing; of all others there may be none.
ONE_OR_MORE = {"steps", "epochs", "iterations", "log_every", "evaluate_every", "checkpoint_every", "seeds", "samples"}
ONE_OR_MORE |= {"labelled_batch", "unlabelled_batch", "generated_batch", "flow_batch", "classifier_generated"}
ONE_OR_MORE |= {"judged_labelled", "judged_unlabelled", "mixing_groups", "samples_per_class", "data_parallel"}
ONE_OR_MORE |= {"latent", "features", "width", "classifier_width", "generator_width", "widths", "blocks", "hidden"}
ONE_OR_MORE |= {f"{of}_hidden" for of in ("generator", "discriminator", "classifier", "encoder", "decoder", "m2")}
ONE_OR_MORE |= {"views", "restarts", "inner", "outer", "discriminator_steps", "draws", "neighbours", "accumulate"}
ONE_OR_MORE |= {"power_iterations", "imbalance", "pool_imbalance"}
ABOVE_NONE = {"learning_rate", "generator_rate", "warm_up_rate", "classifier_rate", "final_rate", "adversarial_rate"}
ABOVE_NONE |= {"supervised_rate", "fine_tuning_rate", "prior", "clip", "clip_norm", "memory", "epsilon", "temperature"}
ABOVE_NONE |= {"deviations", "pixel_deviation", "floor"}
ELSEWHERE = {"concentration": (0.5, 0.49), "encoder_size": (32, 31)}  # accepted, refused


def ends(name):
    """Numbers at the ends of what a field may be: those that are accepted, those that are refused."""
    if name in ELSEWHERE:
        return [ELSEWHERE[name][0]], [ELSEWHERE[name][1]]
    if name in ONE_OR_MORE:
        return [1], [0]
    if name in ABOVE_NONE:
        return [1e-6], [0]
    if name in NOT_ALL:
        return [0.0, 0.999], [-0.001, 1.0]
    return ([0.0, 1.0], [-0.001, 1.01]) if name in UP_TO_ALL else ([0], [])


def refusal(values, prefix="--"):
    with pytest.raises(UserError) as refused:
        checked(values, prefix)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", METHODS)
def test_every_number_of_a_method_refuses_five_absurd_values(name):
    for path, _, kind in numbers(CONFIGS[name]):
        for value in ABSURD[1:] if path[-1] in SIGNED else ABSURD:
            given = int(value) if kind is int and math.isfinite(value) else value
            said = refusal(changed(CONFIGS[name], path, given), "--config.")
            assert path[-1].replace("_", "-") in said or path[-1] in said


@pytest.mark.parametrize("values", [Options(), Scheme()], ids=["options", "mask"])
def test_every_number_of_a_run_refuses_them_too(values):
    for path, _, kind in numbers(values):
        if path[-1] in ("size", "noise"):  # `datasets` says what these may be
            continue
        for value in ABSURD:
            refusal(changed(values, path, int(value) if kind is int and math.isfinite(value) else value))


def test_every_number_may_be_what_lies_at_its_ends_and_nothing_beyond():
    names = {path[-1] for _, path in FIELDS} & bounds.BOUNDS.keys()
    assert {name for name in names if bounds.BOUNDS[name].high == 1} == NOT_ALL | UP_TO_ALL
    assert ONE_OR_MORE | ABOVE_NONE | ELSEWHERE.keys() <= names
    for values, path in FIELDS:
        accepted, refused = ends(path[-1])
        for value in accepted:
            bounds.check(changed(values, path, value))
        for value in refused:
            with pytest.raises(UserError, match=r": give a number (of at least|above) "):
                bounds.check(changed(values, path, value))


@pytest.mark.parametrize("low", [True, False])
def test_an_end_is_one_of_the_numbers_unless_it_is_said_that_it_is_none(low):
    for each in set(bounds.BOUNDS.values()):
        end, excluded, beyond = (each.low, each.above, -math.inf) if low else (each.high, each.below, math.inf)
        assert each.admit(end) is not excluded, each
        assert not each.admit(math.nextafter(end, beyond)) and each.admit(math.nextafter(end, -beyond)), each


def test_every_default_is_within_its_bounds():
    for name, module in METHODS.items():
        assert checked_config(name) == module.Config()
        for preset in commands.PRESETS[1:]:
            if hasattr(module, preset.upper()):
                assert checked_config(name, getattr(module, preset.upper())) == getattr(module, preset.upper())
    assert checked(Options()) == Options()
    bounds.check(NormalLatents())


def test_every_number_stands_in_the_table():
    names = {path[-1] for config in (*CONFIGS.values(), Options(), Scheme()) for path, _, _ in numbers(config)}
    assert names - {"size"} <= bounds.BOUNDS.keys()


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_is_above_nothing(rate):
    for name, config in CONFIGS.items():
        for path, _, _ in numbers(config):
            if path[-1].endswith("rate"):
                assert "above 0" in refusal(changed(config, path, rate)), name


WORDS = {
    "a billion samples": ["sample", "RUN", "--count", "1000000000"],
    "no samples": ["sample", "RUN", "--count", "0"],
    "a seed beyond an int32": ["sample", "RUN", "--seed", str(2**40)],
    "a negative seed": ["latents", "RUN", "--seed", "-1"],
    "a billion latents": ["latents", "RUN", "--count", "1000000000"],
    "a negative replica": ["sample", "RUN", "--replica", "-1"],
    "a thousandth replica": ["export", "RUN", "--replica", "1000", "--out", "x"],
    "a probability above 1": ["predict", "RUN", ".", "--confident", "1.5"],
    "a probability that is none": ["predict", "RUN", ".", "--confident", "nan"],
    "a billion samples to measure": ["evaluate", "RUN", "--samples", "1000000000"],
    "no samples to measure": ["evaluate", "RUN", "--samples", "0"],
    "a billion samples of a run": ["train", "gan", "--samples", "1000000000"],
    "a rate of nothing": ["train", "gan", "--config.learning-rate", "0"],
    "a rate that is none": ["train", "gan", "--config.learning-rate", "nan"],
    "a million seeds": ["train", "gan", "--seeds", "1000000"],
    "a validation split below nothing": ["train", "gan", "--validation", "-5"],
    "features trained for no step": ["train-features", "digits", "--steps", "0"],
    "features trained for ever": ["train-features", "digits", "--steps", str(10**12)],
    "a temperature that is none": ["sample", "RUN", "--sampler.temperature", "nan"],
}


@pytest.mark.parametrize("wrong", WORDS)
def test_a_number_out_of_any_range_is_one_line_before_any_work(wrong, capsys, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(finished("m2")) if word == "RUN" else word for word in WORDS[wrong]]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("ssl-gen: ") and said.count("\n") == 1 and not list(tmp_path.iterdir())


WRONG_CONFIGS = {
    "a dict": ({"kind": "ridge"}, "dict"),
    "that of another method": (METHODS["fixmatch"].Config(), "fixmatch.Config"),
    "a word for a number": (dataclasses.replace(METHODS["linear"].Config(), l2="much"), "l2"),
    "a choice that there is not": (dataclasses.replace(METHODS["linear"].Config(), kind="cubic"), "cubic"),
}


@pytest.mark.parametrize("wrong", WRONG_CONFIGS)
def test_a_config_that_is_none_is_refused_from_python(wrong, tmp_path):
    config, word = WRONG_CONFIGS[wrong]
    with pytest.raises(UserError, match=word):
        train.train("linear", config, Options(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_options_of_a_wrong_type_are_refused_from_python(tmp_path):
    with pytest.raises(UserError, match="labels is 30"):
        train.train("linear", None, Options(labels=30, out=tmp_path / "run"))  # type: ignore[arg-type]
