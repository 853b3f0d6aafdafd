"""Samplers: settings of how samples are drawn, changed at every door without training again."""

import json
import math

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from ssl_gen import cli
from ssl_gen.core.samplers import NormalLatents
from ssl_gen.reports import records, tables
from ssl_gen.reports.charts import pictures
from ssl_gen.runs import evaluate, export, load
from ssl_gen.types import UserError

HALF = ["--sampler.temperature", "0.5"]
FID = "fid_pixels_ref=test_n=200"
OUT_OF_RANGE = ["0", "-1", "nan", "inf"]


def complaint(capsys, *arguments):
    """The one line that a mistake is answered with."""
    capsys.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("ssl-gen: "), said.err
    return said.err


def drawn(out):
    """The images in a folder that `ssl-gen sample` wrote, (N, H, W, 1)."""
    return np.stack([np.asarray(Image.open(file))[..., None] for file in sorted(out.iterdir())])


def test_the_temperature_is_the_deviation_of_the_latents():
    key = jax.random.key(3)
    plain = jax.random.normal(key, (2000, 5))
    np.testing.assert_array_equal(NormalLatents().draw(key, 2000, 5), plain)
    np.testing.assert_array_equal(NormalLatents(0.5).draw(key, 2000, 5), 0.5 * plain)
    assert np.std(NormalLatents(3.0).draw(key, 2000, 5)) == pytest.approx(3, rel=0.03)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_no_number_above_0_is_refused(temperature):
    with pytest.raises(UserError, match="choose a number above 0"):
        NormalLatents(temperature)


@pytest.fixture
def trained(finished):
    """A run that draws by class, classifies and has a temperature."""
    return finished("m2")


def test_a_setting_changes_what_is_drawn_at_the_command_line_and_in_python_alike(trained, tmp_path):
    command = ["sample", str(trained), "--label", "3", "--count", "5", "--seed", "2", "--out"]
    assert cli.main([*command, str(tmp_path / "half"), *HALF]) == 0
    assert cli.main([*command, str(tmp_path / "plain")]) == 0
    run = load.load(trained)
    np.testing.assert_array_equal(drawn(tmp_path / "half"), run.sample(label=3, count=5, seed=2, temperature=0.5))
    np.testing.assert_array_equal(drawn(tmp_path / "plain"), run.sample(label=3, count=5, seed=2))
    assert not np.array_equal(drawn(tmp_path / "half"), drawn(tmp_path / "plain"))


def test_settings_of_a_sampler_may_stand_in_a_file(trained, tmp_path, capsys):
    command = ["sample", str(trained), "--label", "3", "--count", "5", "--seed", "2"]
    with pytest.raises(SystemExit):
        cli.run([*command, *HALF, "--print-config"])
    (tmp_path / "settings.toml").write_text(capsys.readouterr().out)
    settings = ["sample", "--config", str(tmp_path / "settings.toml"), "--out", str(tmp_path / "half")]
    assert cli.main(settings) == 0
    half = load.load(trained).sample(label=3, count=5, seed=2, temperature=0.5)
    np.testing.assert_array_equal(drawn(tmp_path / "half"), half)


def test_temperature_1_is_the_default_bit_for_bit(trained, tmp_path):
    run = load.load(trained)
    np.testing.assert_array_equal(run.sample(count=20, temperature=1.0), run.sample(count=20))
    command = ["sample", str(trained), "--count", "2", "--out"]
    assert cli.main([*command, str(tmp_path / "asked.png"), "--sampler.temperature", "1"]) == 0
    assert cli.main([*command, str(tmp_path / "default.png")]) == 0
    np.testing.assert_array_equal(*(np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("asked", "default")))


def test_samples_are_nearer_to_each_other_at_a_lower_temperature(trained):
    run = load.load(trained)
    spread = [run.sample(label=3, count=50, temperature=t).astype(float).std(0).mean() for t in (0.1, 1.0, 10.0)]
    assert spread[0] < spread[1] < spread[2]


def test_a_picture_says_with_which_settings_it_was_drawn(trained, tmp_path):
    out = tmp_path / "grid.png"
    assert cli.main(["sample", str(trained), "--count", "2", "--out", str(out), *HALF]) == 0
    assert pictures.read_text(out)["sampler"] == "temperature 0.5, latents prior"


def test_metrics_of_other_samples_say_so_in_their_names_and_the_others_stay(capsys, finished, tmp_path):
    folder = finished.copy("m2", tmp_path / "run")
    before = records.load_final(folder)
    assert cli.main(["evaluate", str(folder), *HALF]) == 0
    table, after = capsys.readouterr().out, records.load_final(folder)
    added = after.metrics.keys() - before.metrics.keys()
    assert added and all(name.endswith("_temperature=0.5") and name in table for name in added)
    assert {f"{FID}_temperature=0.5", "agreement_svc_temperature=0.5"} <= added
    assert not any(name.startswith(("error", "nll", "elbo", "psnr", "reconstruction")) for name in added)
    assert {name: values for name, values in after.metrics.items() if name not in added} == before.metrics
    for name in (FID, "deviation_ratio"):
        assert after.metrics[f"{name}_temperature=0.5"]["per_seed"] != before.metrics[name]["per_seed"]


def test_metrics_at_the_default_setting_are_those_without_it(finished, tmp_path):
    folder = finished.copy("m2", tmp_path / "run")
    before = records.load_final(folder).metrics
    assert evaluate.evaluate(folder, ("fid", "agreement_svc"), {"temperature": 1.0}).metrics == before


def test_the_record_names_the_sampler_and_help_its_settings(capsys, trained):
    assert json.loads((trained / "run.json").read_text())["sampler"] == {"temperature": 1.0, "latents": "prior"}
    for command in ("sample", "evaluate", "export"):
        with pytest.raises(SystemExit) as end:
            cli.main([command, str(trained), "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert end.value.code in (0, None)
        assert "--sampler.temperature FLOAT" in text and "below 1 samples are more alike" in text


def test_a_setting_is_built_into_an_export(trained, tmp_path):
    assert cli.main(["export", str(trained), "--out", str(tmp_path / "half"), *HALF]) == 0
    card = json.loads((tmp_path / "half" / "model.json").read_text())
    assert card["sampler"] == {"temperature": 0.5, "latents": "prior"}
    run, back = load.load(trained), export.load(tmp_path / "half")
    expected = run.sample(label=3, count=4, seed=5, temperature=0.5)
    np.testing.assert_array_equal(back.sample(label=3, count=4, seed=5), expected)
    program = jax.export.deserialize(bytearray((tmp_path / "half" / "sample.stablehlo").read_bytes()))
    found = program.call(load_file(tmp_path / "half" / "model.safetensors"), np.uint32(5), np.full(4, 3, np.int32))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("command", ["sample", "evaluate", "export"])
def test_a_setting_that_cannot_be_is_answered_in_one_line(command, capsys, finished, tmp_path):
    """Of any door, and nothing is written."""
    run, plain = finished("m2"), finished("linear")
    more = ["--out", tmp_path / "out"] if command != "evaluate" else []
    before = (run / "final.json").read_text()
    assert "--sampler.temprature" in complaint(capsys, command, run, *more, "--sampler.temprature", "0.5")
    assert "--sampler.temperature" in complaint(capsys, command, run, *more, "--sampler.temperature", "warm")
    assert "--sampler.temperature" in complaint(capsys, command, plain, *more, *HALF)
    for number in OUT_OF_RANGE:
        said = complaint(capsys, command, run, *more, f"--sampler.temperature={number}")
        assert "temperature is" in said and "above 0" in said
    assert not (tmp_path / "out").exists() and (run / "final.json").read_text() == before


def test_folders_that_are_no_runs_may_stand_beside_a_setting(capsys, finished, tmp_path):
    """What is written to, and where the data lie, is not asked how it draws; the words come in any order."""
    out = tmp_path / "out"
    out.mkdir()
    run = str(finished("m2"))
    for words in ([*HALF, run, "--out", str(out)], ["--out", str(out), run, "--sampler.temperature=0.5"]):
        assert cli.main(["sample", *words, "--count", "1"]) == 0
    assert len(list(out.iterdir())) == 10
    copy = str(finished.copy("m2", tmp_path / "run"))
    assert cli.main(["evaluate", "--data-dir", str(tmp_path), *HALF, copy, "--metrics", "deviation_ratio"]) == 0
    assert "deviation_ratio_temperature=0.5" in capsys.readouterr().out
    assert "/no/such" in complaint(capsys, "sample", "/no/such/run", *HALF)


def test_a_setting_that_cannot_be_is_a_user_error_in_python(trained, finished):
    run = load.load(trained)
    with pytest.raises(UserError, match="no sampler setting temprature: its sampler has temperature, latents"):
        run.sample(temprature=0.5)
    with pytest.raises(UserError, match="above 0"):
        run.sample(temperature=0.0)
    with pytest.raises(UserError, match="its sampler has no settings"):
        load.load(finished("linear")).sampler(temperature=0.5)
    with pytest.raises(UserError, match="its sampler has temperature"):
        evaluate.evaluate(trained, ("fid",), {"guidance": 2.0})


def test_runs_of_different_samplers_are_given_one_at_a_time(capsys, finished):
    said = complaint(capsys, "evaluate", finished("m2"), finished("linear"), *HALF)
    assert "these runs have samplers of different settings" in said


def test_compare_shows_the_default_samples_unless_it_is_asked_for_others(finished, tmp_path, capsys):
    folder = finished.copy("m2", tmp_path / "run")
    final = evaluate.evaluate(folder, ("fid",), {"temperature": 0.5}).metrics
    for words, name in (([], FID), (["--metrics", "fid_temperature=0.5"], f"{FID}_temperature=0.5")):
        capsys.readouterr()
        assert cli.main(["compare", str(folder), "--out", str(tmp_path / "page.html"), *words]) == 0
        table = capsys.readouterr().out
        assert f" {name} " in table and tables.measured(name, final[name]) in table
        assert ("temperature" in table) == bool(words)


def test_the_list_of_methods_says_how_each_draws(capsys):
    assert cli.main(["list", "methods", "--json"]) == 0
    samplers = {entry["name"]: entry["sampler"] for entry in json.loads(capsys.readouterr().out)}
    assert samplers["gan"] == {"temperature": 1.0} and samplers["linear"] == {}
    assert samplers["m2"] == {"temperature": 1.0, "latents": "prior"}
