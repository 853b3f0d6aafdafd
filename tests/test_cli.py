"""The command line as its users meet it: help, answers, and one line for each mistake."""

import csv
import dataclasses
import html
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_gen import cli
from ssl_gen.core import names
from ssl_gen.datasets import sources
from ssl_gen.methods import METHODS
from ssl_gen.methods.classical import supervised
from ssl_gen.methods.self_training import fixmatch
from ssl_gen.metrics.registry import METRICS
from ssl_gen.reports.charts import pictures as charts
from ssl_gen.runs import load, pictures, train

TINY = ["--steps", "4", "--quiet", "--config.labelled-batch", "4", "--config.hidden", "4"]


def complaint(capsys, *arguments):
    """The one line that a mistake is answered with."""
    assert cli.main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("ssl-gen: "), said.err
    return said.err


@pytest.fixture
def own(tmp_path):
    """A folder of 3 classes with 8 images of 10 x 10 pixels each, and 4 unlabelled ones."""
    source = np.random.default_rng(0)
    for kind, count in (("cat", 8), ("dog", 8), ("owl", 8), ("unlabelled", 4)):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for number in range(count):
            pixels = source.integers(0, 256, (10, 10, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / kind / f"{number}.png")
    return tmp_path / "pictures"


@pytest.fixture
def trained(finished):
    """The folder of a run that samples by class and classifies."""
    return finished("m2")


def test_in_a_folder_of_pictures_nobody_trains_on_other_ones_unasked(own, capsys, monkeypatch):
    monkeypatch.chdir(own)
    said = "this folder holds pictures, in cat, dog, owl and 1 more: --dataset folder:. learns them"
    assert said in complaint(capsys, "train", "supervised", *TINY)
    assert said in complaint(capsys, "train", "supervised", "--labels", "3")
    assert cli.main(["train"]) == 2
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first == "ssl-gen train fixmatch --dataset folder:. --preset quick --out runs/labels"
    assert second.endswith("--labeller runs/labels --out runs/drawn")
    for proposed in (first, second):
        with pytest.raises(SystemExit, match="0"):
            cli.main([*proposed.split()[1:], "--print-config"])


def test_what_was_written_into_the_folder_of_the_pictures_is_passed_over(own, capsys, monkeypatch):
    monkeypatch.chdir(own)
    words = ("train", "supervised", "--dataset", "folder:.", "--labels", "all", *TINY)
    assert cli.main([*words, "--out", "runs/first"]) == 0
    assert cli.main(["suggest", ".", "--count", "2"]) == cli.main(["predict", "runs/first", "."]) == 0
    sha256 = json.loads(Path("runs/first/run.json").read_text())["data"]["sha256"]
    assert cli.main([*words, "--out", "runs/second"]) == cli.main([*words, "--out", "runs/first"]) == 0
    assert json.loads(Path("runs/second/run.json").read_text())["data"]["sha256"] == sha256


def test_a_data_set_that_is_named_is_taken_wherever_one_stands(own, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(own)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["train", "supervised", "--print-config"])
    (tmp_path / "settings.toml").write_text('dataset = "nowhere"')
    assert "nowhere" in complaint(capsys, "train", "supervised", "--config", tmp_path / "settings.toml")
    assert "nowhere" in complaint(capsys, "train", "supervised", "--dataset=nowhere")


def test_help_answers_in_under_a_second_without_jax():
    script = "import sys; from ssl_gen.cli import main; code = main(['--help']); sys.exit('jax' in sys.modules or code)"
    times = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        times.append(time.perf_counter() - started)
        assert done.returncode == 0, done.stderr
    assert "train METHOD" in done.stdout and min(times) < 1


def test_help_of_a_method_shows_its_fields_with_their_comments(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "triple_gan", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code in (0, None)
    assert "--config.pseudo-label FLOAT" in text and "weight of the pseudo-label term" in text
    assert "--labels STR" in text and "visible labels in all" in text


def test_train_prints_its_numbers_and_where_the_report_lies(capsys, tmp_path):
    assert cli.main(["train", "supervised", "--labels", "30", "--out", str(tmp_path / "run"), *TINY]) == 0
    said = capsys.readouterr().out
    error = json.loads((tmp_path / "run" / "final.json").read_text())["metrics"]["error"]["mean"]
    assert f"{error:.2f}" in said and str(tmp_path / "run" / "report.html") in said


def test_the_command_in_the_record_makes_the_same_run(tmp_path):
    arguments = [
        "train",
        "supervised",
        "--labels",
        "30",
        "--mask.missing",
        "1",
        "2",
        "--out",
        str(tmp_path / "a"),
        *TINY,
    ]
    assert cli.main(arguments) == 0
    command = json.loads((tmp_path / "a" / "run.json").read_text())["command"]
    words = command.replace(str(tmp_path / "a"), str(tmp_path / "b")).split()
    assert words[:3] == ["ssl-gen", "train", "supervised"] and cli.main(words[1:]) == 0
    first, second = (json.loads((tmp_path / name / "final.json").read_text()) for name in "ab")
    assert first["metrics"] == second["metrics"] and first["masks"] == second["masks"]


def test_evaluate_adds_metrics_to_a_finished_run(capsys, finished, tmp_path):
    run = finished.copy("m2", tmp_path / "run")
    before = json.loads((run / "final.json").read_text())["metrics"]
    assert cli.main(["evaluate", str(run), "--metrics", "nll", "agreement_svc", "intra_fid"]) == 0
    said, after = capsys.readouterr().out, json.loads((run / "final.json").read_text())["metrics"]
    (added,) = after.keys() - before.keys()
    assert "agreement_svc" in said and added.startswith("intra_fid") and added in said
    assert before == {name: values for name, values in after.items() if name != added}


def test_sample_draws_a_column_a_class_or_one_class_alone(trained, tmp_path):
    assert cli.main(["sample", str(trained), "--count", "2", "--out", str(tmp_path / "all.png")]) == 0
    assert cli.main(["sample", str(trained), "--label", "3", "--count", "9", "--out", str(tmp_path / "3.png")]) == 0
    wide, square = Image.open(tmp_path / "all.png").size, Image.open(tmp_path / "3.png").size
    assert wide[0] > 3 * wide[1] and square[0] == square[1]


@pytest.mark.parametrize("count", [1, 3, 10])
def test_every_image_that_is_drawn_is_in_the_picture(trained, tmp_path, count, monkeypatch):
    drawn = []
    monkeypatch.setattr(charts, "save_grid", lambda path, images, *_, **__: drawn.append(images) or path.touch())
    arguments = ["sample", str(trained), "--label", "3", "--count", str(count), "--out", str(tmp_path / "3.png")]
    assert cli.main(arguments) == 0
    ((images,),) = [drawn]
    tiles = images.reshape(-1, *images.shape[2:])
    expected = load.load(trained).draw(np.full(count, 3))
    np.testing.assert_array_equal(tiles[:count], expected)
    assert (tiles[count:] == charts.PAPER).all() and len(tiles) - count < images.shape[1]


def test_predict_writes_file_label_and_probability(capsys, trained, own, tmp_path):
    (own / "cat" / "broken.png").write_bytes(b"no image")
    out = tmp_path / "labels.csv"
    assert "broken.png" in complaint(capsys, "predict", trained, own, "--out", out)
    assert cli.main(["predict", str(trained), str(own), "--out", str(out), "--skip-unreadable"]) == 0
    assert "28 images" in (said := capsys.readouterr().out) and "1 unreadable" in said
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 28 and all(0 < float(row["probability"]) <= 1 for row in rows)
    assert {row["label"] for row in rows} <= set("0123456789")


@pytest.mark.parametrize("what", ["methods", "datasets", "metrics"])
def test_list_as_json_names_everything(capsys, what):
    assert cli.main(["list", what, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    known = {"methods": METHODS, "datasets": sources.DATASETS, "metrics": METRICS}[what]
    assert [entry["name"] for entry in entries] == list(known)
    if what == "methods":
        abilities = {entry["name"]: (entry["sample"], entry["conditional"], entry["classify"]) for entry in entries}
        assert abilities["supervised"] == (False, False, True)
        assert abilities["feature_matching"] == (True, False, True)
        assert abilities["triple_gan"] == (True, True, True)
        assert all(entry["family"] and entry["paper"] for entry in entries)


def test_own_pictures_train(own, tmp_path):
    arguments = ["train", "supervised", "--dataset", f"folder:{own}", "--labels", "all", *TINY]
    assert cli.main([*arguments, "--out", str(tmp_path / "run")]) == 0
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (
        about["data"]["class_names"] == ["cat", "dog", "owl"] and about["masks"][0]["visible"] < about["data"]["train"]
    )


MISTAKES = {
    "an unknown command": (["trian"], "train"),
    "an unknown method": (["train", "tripel_gan"], "triple_gan"),
    "a missing method": (["train", "--labels", "3"], "METHOD"),
    "an unknown data set": (["train", "supervised", "--dataset", "minst"], "mnist"),
    "a budget of no labels": (["train", "supervised", "--labels", "0"], "0"),
    "a budget that is no number": (["train", "supervised", "--labels", "few"], "few"),
    "a budget above the labels there are": (["train", "supervised", "--labels", "5000"], "5000"),
    "a field of the wrong type": (["train", "supervised", "--seeds", "two"], "--seeds"),
    "a method's field of the wrong type": (["train", "supervised", "--config.l2", "x"], "--config.l2"),
    "an unknown field": (["train", "supervised", "--lables", "3"], "--lables"),
    "a missing data folder": (["train", "supervised", "--data-dir", "/no/such/folder"], "/no/such/folder"),
    "a missing picture folder": (["train", "supervised", "--dataset", "folder:/no/such"], "/no/such"),
    "no seeds": (["train", "supervised", "--seeds", "0"], "--seeds"),
    "no steps": (["train", "supervised", "--steps", "0"], "--steps"),
    "too many devices": (["train", "supervised", "--data-parallel", "64"], "--data-parallel 64"),
    "batches that cannot be divided": (
        ["train", "supervised", "--data-parallel", "4", "--config.labelled-batch", "6"], "labelled_batch 6",
    ),
    "batches that do not go together": (
        ["train", "triple_gan", "--config.labelled-batch", "30", "--quiet"], "unlabelled_batch 400",
    ),
    "no run folder": (["evaluate", "/no/such/run"], "/no/such/run"),
    "an unknown list": (["list", "methos"], "methods"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_in_one_line(mistake, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, word = MISTAKES[mistake]
    assert word in complaint(capsys, *arguments)
    assert not list(tmp_path.glob("runs/*/checkpoints/*")), "nothing was trained"


def test_files_that_are_no_images_are_named(capsys, own):
    (own / "cat" / "notes.txt").write_text("no image")
    assert "notes.txt" in complaint(capsys, "train", "supervised", "--dataset", f"folder:{own}")


def test_a_truncated_image_is_named_and_can_be_skipped(capsys, own, tmp_path):
    broken = own / "dog" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    arguments = ["train", "supervised", "--dataset", f"folder:{own}", "--labels", "all", *TINY]
    assert "3.png" in complaint(capsys, *arguments)
    assert cli.main([*arguments, "--skip-unreadable", "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]["skipped"] == ["dog/3.png"]


def test_arrays_of_objects_are_refused_and_never_unpickled(capsys, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "trap.npz", train_images=np.array([Trap()], dtype=object), allow_pickle=True)
    assert "trap.npz" in complaint(capsys, "train", "supervised", "--dataset", f"npz:{tmp_path / 'trap.npz'}")
    assert not (tmp_path / "sprung").exists()


def test_labels_out_of_range_are_named(capsys, tmp_path):
    images = np.zeros((8, 8, 8), np.uint8)
    labels = np.array([0, 1, -7, 1, 0, 1, 0, 1])
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels % 2)
    assert "-7" in complaint(capsys, "train", "supervised", "--dataset", f"npz:{tmp_path / 'x.npz'}")


def test_a_class_with_too_few_images_is_named(capsys, own):
    for file in list((own / "owl").iterdir())[2:]:
        file.unlink()
    said = complaint(capsys, "train", "supervised", "--dataset", f"folder:{own}", "--labels", "12")
    assert "owl" in said and "has 1 image," in said


def test_an_output_folder_that_cannot_be_written_is_named(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    said = complaint(capsys, "train", "supervised", "--labels", "30", "--out", tmp_path / "file" / "run", *TINY)
    assert "file/run" in said


def test_a_preset_changes_the_settings_that_a_method_starts_from(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        train, "train", lambda name, config, options, data: asked.append(config) or train.Result(tmp_path, None, "")
    )
    stopped = 143  # so says a run without a final record
    assert cli.main(["train", "fixmatch", "--preset", "photographs", "--config.threshold", "0.8"]) == stopped
    assert cli.main(["train", "fixmatch", "--preset=paper"]) == stopped
    assert cli.main(["train", "supervised", "--preset", "fast", "--steps", "9"]) == stopped
    assert asked == [
        dataclasses.replace(fixmatch.PHOTOGRAPHS, threshold=0.8),
        fixmatch.Config(),
        dataclasses.replace(supervised.FAST, steps=9),
    ]


def test_steps_and_presets_of_a_method_that_is_fitted_in_one_go_are_refused(capsys):
    assert "leave out --steps" in complaint(capsys, "train", "linear", "--steps", "5")
    assert "leave out --preset" in complaint(capsys, "train", "linear", "--preset", "photographs")


def test_a_preset_that_a_method_lacks_is_answered_with_those_that_it_has(capsys):
    said = complaint(capsys, "train", "fixmatch", "--preset", "fast")
    assert "fixmatch has no preset fast: leave out --preset, or give photographs or quick" in said


def test_a_class_that_is_not_there_is_answered_with_its_like(capsys, trained):
    assert "did you mean" in complaint(capsys, "sample", trained, "--label", "eleven")


def test_a_metric_that_does_not_apply_is_answered_with_those_that_do(capsys, trained):
    assert "error" in complaint(capsys, "evaluate", trained, "--metrics", "bleu")


def test_latents_are_looked_at_and_shown_in_the_report(capsys, finished, tmp_path):
    out = finished.copy("pca", tmp_path / "run")
    assert cli.main(["latents", str(out), "--count", "100"]) == 0
    said = capsys.readouterr().out
    found, report = json.loads((out / "latents.json").read_text()), html.unescape((out / "report.html").read_text())
    for picture in found["pictures"]:
        assert str(out / picture["file"]) in said and picture["caption"] in report
    error = found["errors"]["logistic regression"]["latents"]
    assert f"{error:.2f} %" in said and found["left_out"][0] in said


def test_a_run_without_latents_is_answered_with_the_methods_that_have_them(capsys, finished):
    said = complaint(capsys, "latents", finished("supervised"))
    assert "supervised has no encoder" in said and "vae" in said


def test_samples_go_one_by_one_into_a_folder_under_the_name_of_their_class(capsys, trained, tmp_path):
    arguments = ["sample", str(trained), "--count", "3", "--out"]
    assert cli.main([*arguments, str(tmp_path / "few"), "--label", "7"]) == 0
    files = sorted((tmp_path / "few").iterdir())
    assert [file.name for file in files] == ["7_0000.png", "7_0001.png", "7_0002.png"]
    assert "3 images" in capsys.readouterr().out
    drawn = [np.asarray(Image.open(file))[..., None] for file in files]
    np.testing.assert_array_equal(drawn, load.load(trained).sample(label=7, count=3))
    assert cli.main([*arguments, str(tmp_path / "all")]) == 0
    assert {file.name for file in (tmp_path / "all").iterdir()} == {
        f"{k}_000{i}.png" for k in range(10) for i in range(3)
    }
    assert "neither a .png nor a folder" in complaint(capsys, *arguments, tmp_path / "x.jpg")
    (tmp_path / "file").write_text("")
    assert "cannot write" in complaint(capsys, *arguments, tmp_path / "file" / "x")


def test_what_cannot_stand_in_a_file_name_becomes_a_dash(tmp_path):
    stems = names.file_names(["T-shirt/top", "../up"])
    files = pictures.image_files(tmp_path, [stems[0], stems[1], stems[0]])
    assert [file.name for file in files] == ["T-shirt-top_0000.png", "..-up_0000.png", "T-shirt-top_0001.png"]


def test_all_labels_of_a_folder_are_those_that_it_has(own, tmp_path):
    """8 images in each of 3 classes: 1 a class is for testing, 6 in all for validation; 4 more have no label."""
    arguments = [
        "train",
        "supervised",
        "--dataset",
        f"folder:{own}",
        "--labels",
        "all",
        "--validation",
        "6",
        *TINY,
    ]
    assert cli.main([*arguments, "--out", str(tmp_path / "run")]) == 0
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["data"]["test"] == 3 and about["data"]["validation"] == 6
    assert about["masks"][0]["visible"] == 24 - 3 - 6 and about["masks"][0]["pool"] == 24 - 3 - 6 + 4


@pytest.mark.parametrize("name", ["supervised", "calibrated"])
def test_predict_says_whether_its_probabilities_are_calibrated(capsys, own, finished, tmp_path, name):
    run, mended = finished(name), name == "calibrated"
    assert cli.main(["predict", str(run), str(own), "--out", str(tmp_path / "labels.csv")]) == 0
    said = capsys.readouterr().out
    assert ("calibrated on 200 validation images" in said) == mended and ("not calibrated" in said) != mended
    rows = list(csv.DictReader((tmp_path / "labels.csv").open()))
    assert {row["calibrated"] for row in rows} == {"yes" if mended else "no"}
    images = np.stack([np.asarray(Image.open(own / row["file"]).convert("L").resize((8, 8), 3)) for row in rows])[
        ..., None
    ]
    expected = load.load(run).classify(images).max(-1)
    np.testing.assert_allclose([float(row["probability"]) for row in rows], expected, atol=1e-4)
