"""--config FILE.toml and --print-config: what is printed is read back, flags win, and what is wrong is one line."""

import os
import tomllib
from pathlib import Path

import pytest

from ssl_gen import cli
from ssl_gen.cli import settings_file
from ssl_gen.cli.labelling import Predict, Suggest
from ssl_gen.core.samplers import NormalLatents
from ssl_gen.runs import load

TRAIN = ["train", "fixmatch"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(capsys, *words):
    with pytest.raises(SystemExit) as end:
        cli.run([*words, "--print-config"])
    assert not end.value.code
    return capsys.readouterr().out


def test_what_is_printed_has_every_setting_and_comes_to_the_same_settings(capsys, folder):
    asked = ["--labels", "20", "--mask.missing", "1", "2", "--config.augmentation.flip", "--config.averaging", "1e-05"]
    text = printed(capsys, *TRAIN, *asked, "--config.hidden", "30", "20", "--out", 'a "quoted" folder')
    values = tomllib.loads(text)
    assert values["labels"] == "20" and values["mask"]["missing"] == [1, 2] and values["out"] == 'a "quoted" folder'
    assert values["config"]["augmentation"]["flip"] is True and values["config"]["hidden"] == [30, 20]
    assert values["config"]["averaging"] == 1e-5 and values["config"]["network"] == "conv" and "size" not in values
    (folder / "settings.toml").write_text(text)
    assert printed(capsys, *TRAIN, "--config", "settings.toml") == text


def test_flags_beside_the_file_win_and_the_file_wins_over_defaults(capsys, folder):
    (folder / "s.toml").write_text('labels = "20"\nseeds = 3\n[config]\nwidth = 8\nthreshold = 1\n')
    values = tomllib.loads(printed(capsys, *TRAIN, "--config=s.toml", "--seeds", "2", "--config.width", "4"))
    assert (values["labels"], values["seeds"], values["config"]["width"]) == ("20", 2, 4)
    assert values["config"]["threshold"] == 1.0 and values["config"]["memory"] == 128


def test_the_preset_of_a_file_is_where_a_method_starts(capsys, folder):
    (folder / "s.toml").write_text('preset = "photographs"\n[config]\nwidth = 8\n')
    config = tomllib.loads(printed(capsys, *TRAIN, "--config", "s.toml"))["config"]
    assert config["network"] == "wide_resnet" and config["width"] == 8
    config = tomllib.loads(printed(capsys, *TRAIN, "--config", "s.toml", "--preset", "paper"))["config"]
    assert config["network"] == "conv" and config["width"] == 8


def test_places_may_stand_in_the_file_or_among_the_words(folder):
    path = folder / "s.toml"
    made = settings_file.default(Predict, {"run": "runs/a", "confident": 1}, path)
    assert (made.run, made.confident, made.out) == (Path("runs/a"), 1.0, Path("predictions.csv"))
    assert settings_file.default(Suggest, {"places": ["a", "b"]}, path).places == (Path("a"), Path("b"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("labels = 20\n", "s.toml: labels is 20, no str"),
        ("label = '20'\n", "s.toml: there is no setting label"),
        ("[config]\nwidht = 3\n", "s.toml: there is no setting config.widht"),
        ("[config.augmentation]\nflips = true\n", "s.toml: there is no setting config.augmentation.flips"),
        ("config = 3\n", "s.toml: config is no table"),
        ("[mask]\nkind = 'other'\n", "s.toml: mask.kind is 'other', none of"),
        ("quiet = 1\n", "s.toml: quiet is 1, no bool"),
        ("labels\n", "s.toml is no TOML file"),
        ("[sampler]\ntemperature = 1.0\n", "s.toml: there is no setting sampler"),
        (None, "s.toml cannot be read: No such file"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(capsys, folder, text, said):
    if text is not None:
        (folder / "s.toml").write_text(text)
    assert cli.main([*TRAIN, "--config", "s.toml"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.fixture
def piped():
    """What can be read once, as the shell's <(...) gives it: a second read finds nothing."""
    opened = []

    def write(text):
        source, sink = os.pipe()
        os.write(sink, text.encode())
        os.close(sink)
        opened.append(source)
        return f"/dev/fd/{source}"

    yield write
    for source in opened:
        os.close(source)


def test_the_file_is_read_once_and_may_be_a_pipe(capsys, piped):
    values = tomllib.loads(printed(capsys, *TRAIN, "--config", piped('preset = "photographs"\n[config]\nwidth = 8\n')))
    assert values["config"]["network"] == "wide_resnet" and values["config"]["width"] == 8


def test_so_it_is_where_the_runs_say_which_settings_a_sampler_has(capsys, piped, monkeypatch):
    monkeypatch.setattr(load, "find_runs", list)
    monkeypatch.setattr(load, "sampler_of", lambda folder: NormalLatents())
    values = tomllib.loads(
        printed(capsys, "sample", "run", "--config", piped("seed = 3\n[sampler]\ntemperature = 0.5\n"))
    )
    assert values["run"] == "run" and values["seed"] == 3 and values["sampler"]["temperature"] == 0.5


@pytest.mark.parametrize("words", [["--config"], ["--config", "a", "--config", "b"], ["--config", "--quiet"]])
def test_one_file_is_needed(capsys, words):
    assert cli.main([*TRAIN, *words]) == 2
    assert "--config takes one file of settings" in capsys.readouterr().err
