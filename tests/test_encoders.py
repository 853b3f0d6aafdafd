"""Networks of features as `--encoder`: what is fitted on them, comes back, is exported and told apart."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_vit
from safetensors.numpy import load_file, save_file
from tiny import same

from ssl_gen import cli
from ssl_gen.datasets.store import scaled
from ssl_gen.evaluation import features, kept_features
from ssl_gen.evaluation.inference import BATCH
from ssl_gen.methods.classical import linear, pca
from ssl_gen.networks import conv
from ssl_gen.networks.pretrained import encoders
from ssl_gen.reports import records
from ssl_gen.runs import export, load, train
from ssl_gen.runs.data import load_data
from ssl_gen.runs.fit import on_latents
from ssl_gen.types import ImageSpec, UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1), np.uint8)
ENCODERS = ("random", "file")


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """A file as `ssl-gen train-features` writes it, of other data with images of the same shape and 3 classes."""
    spec = ImageSpec(8, 8, 1, 3)
    network = conv.Classifier(spec.classes, features.WIDTH)
    variables = network.init(jax.random.key(1), jnp.zeros((1, *spec.shape)), train=False)
    path = tmp_path_factory.mktemp("net") / "stranger.safetensors"
    features.save(path, variables, "npz:stranger", spec, {"steps": 3, "test_error": None, "sha256": "other"})
    return path


@pytest.fixture(scope="module")
def fitted(net, finished, tmp_path_factory):
    """{encoder: the folder of a run on its features, of two seeds}."""
    base = tmp_path_factory.mktemp("fitted")
    named = {"random": "random", "file": str(net)}
    made = {name: finished.options("linear", base / name, encoder=named[name]) for name in ENCODERS}
    return {name: train.train("linear", None, options).folder for name, options in made.items()}


def test_what_a_method_decodes_to_is_not_decoded_on_where_a_class_must_be_told():
    spec = ImageSpec(8, 8, 1, 10)
    inner = pca.make(pca.Config(latent=2), spec)
    assert on_latents(inner, inner).decode
    assert on_latents(inner, inner._replace(conditional=True)).decode is None


@pytest.mark.parametrize("name", ENCODERS)
def test_a_method_is_fitted_on_the_features_of_a_network(name, fitted, net, finished):
    extractor = features.find_encoder(str(net) if name == "file" else name, ImageSpec(8, 8, 1, 10), "digits", "")
    data, run = load_data(finished.options("linear", fitted[name])), load.load(fitted[name])
    method = linear.make(linear.Config(), data.dataset.spec)
    seen = np.asarray(extractor.features(IMAGES))
    for seed, state in enumerate(run.states):
        assert same(state.encoder, extractor.variables)
        visible = np.flatnonzero(data.masks[seed].labels >= 0)
        shown = np.asarray(extractor.features(data.dataset.train_images[visible]))
        again = method.fit(jax.random.key(0), shown, data.masks[seed].labels[visible], shown[:0])
        found = run.compiled.method.classify(state, scaled(IMAGES))
        np.testing.assert_allclose(found, method.classify(again, seen), atol=1e-2)
        np.testing.assert_allclose(found, method.classify(state.inner, seen), atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_run_on_features_comes_back_and_classifies_the_same(name, fitted):
    run, final = load.load(fitted[name]), records.load_final(fitted[name])
    dataset = load_data(load.data_of(run)[0]).dataset
    for state, error in zip(run.states, final.metrics["error"]["per_seed"], strict=True):
        guesses = np.argmax(run.compiled.method.classify(state, scaled(dataset.test_images)), -1)
        assert error == pytest.approx(100 * np.mean(guesses != dataset.test_labels)) and error < 75  # chance is 90


def test_pixels_as_an_encoder_are_the_images_themselves(finished, tmp_path):
    result = train.train("linear", None, finished.options("linear", tmp_path / "run", encoder="pixels"))
    assert result.final.metrics["error"] == records.load_final(finished("linear")).metrics["error"]
    found, plain = load.load(tmp_path / "run"), load.load(finished("linear"))
    np.testing.assert_allclose(found.classify(IMAGES), plain.classify(IMAGES), atol=1e-3)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_run_on_features_is_exported_with_its_network(name, fitted, tmp_path):
    run = load.load(fitted[name])
    card = export.save(fitted[name], tmp_path, replica=1)
    assert card.encoder == run.record.encoder
    images = np.resize(IMAGES, (card.programs["classify"].batch, 8, 8, 1))
    expected = np.exp(run.compiled.method.classify(run.states[1], scaled(images)))
    np.testing.assert_allclose(export.load(tmp_path).classify(images), expected, atol=1e-5)
    program = jax.export.deserialize(bytearray((tmp_path / "classify.stablehlo").read_bytes()))
    found = program.call(load_file(tmp_path / "model.safetensors"), images)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_record_names_the_network_by_its_weights_and_no_path(fitted, net):
    for name in ENCODERS:
        encoder = json.loads((fitted[name] / "run.json").read_text())["encoder"]
        assert encoder["method"] == "extractor" and encoder["config"]["kind"] == "convnet"
        kind = "random" if name == "random" else "npz-stranger"
        assert encoder["name"].startswith(f"{kind}-convnet-") and str(net) not in json.dumps(encoder)


def test_a_folder_of_one_network_refuses_another_and_knows_its_own(fitted, net, finished):
    folder = fitted["random"]
    again = train.train("linear", None, finished.options("linear", folder, encoder="random"))
    assert again.final == records.load_final(folder)
    for encoder in (str(net), "pixels", None):
        with pytest.raises(UserError, match="encoder") as refused:
            train.train("linear", None, finished.options("linear", folder, encoder=encoder))
        assert "\n" not in str(refused.value) and "--out" in str(refused.value)


def test_a_network_moved_to_another_place_is_the_same_run(fitted, net, finished, tmp_path):
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(net.read_bytes())
    again = train.train("linear", None, finished.options("linear", fitted["file"], encoder=str(moved)))
    assert again.final == records.load_final(fitted["file"])


def complaint(capsys, *arguments):
    """The one line that a mistake is answered with."""
    capsys.readouterr()
    assert cli.main(["train", "linear", "--labels", "30", *(str(argument) for argument in arguments)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("ssl-gen: "), said
    return said


def test_an_encoder_that_cannot_be_is_answered_in_one_line(net, capsys, tmp_path):
    """One of all labels of the same data, one of images of another shape, and what is no encoder."""
    (tmp_path / "notes.txt").write_text("no network")
    out = ("--out", tmp_path / "run")
    own = load_data(train.Options(labels="30")).dataset
    variables = features.trained(net, ImageSpec(8, 8, 1, 3)).variables
    features.save(tmp_path / "own", variables, "digits", ImageSpec(8, 8, 1, 3), {"sha256": own.sha256})
    assert "all labels of these data" in complaint(capsys, "--encoder", tmp_path / "own", *out)
    assert "all labels of these data" in complaint(capsys, "--encoder", tmp_path / "own", "--validation", "50", *out)
    assert "[8, 8, 1], not [10, 10, 1]" in complaint(capsys, "--encoder", net, "--size", "10", *out)
    assert "notes.txt" in complaint(capsys, "--encoder", tmp_path / "notes.txt", *out)
    for learnt in ("trained", "auto"):
        assert f"there is no {learnt}" in complaint(capsys, "--encoder", learnt, *out)
    assert "/no/such/run" in complaint(capsys, "--encoder", "/no/such/run", *out)
    assert not (tmp_path / "run").exists()


def test_a_pretrained_network_is_recorded_kept_and_exported_with_its_weights(finished, tmp_path, monkeypatch):
    """A transformer, digits brought to 36 x 36 pixels; what it says of them is computed once for both seeds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept_features.folder.cache_clear()
    save_file(test_vit.timm(test_vit.network()), tmp_path / "vit.safetensors")
    said = {"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(said))
    asked = {"encoder": str(tmp_path / "vit.safetensors"), "encoder_size": 36}
    folder = train.train("linear", None, finished.options("linear", tmp_path / "run", **asked)).folder
    run = load.load(folder)
    encoder = encoders.load(tmp_path / "vit.safetensors", 36)
    assert run.record.encoder.name == encoder.name and run.record.encoder.name.startswith("vit-36px-")
    assert encoders.as_settings(run.record.encoder.config["settings"]) == encoder.settings
    (kept,) = (tmp_path / "cache" / "ssl_gen" / "encoded").iterdir()
    dataset = load_data(load.data_of(run)[0]).dataset
    batches = [-(-len(images) // BATCH) for images in (dataset.train_images, dataset.test_images)]
    assert kept.name == encoder.name and len(list(kept.glob("*.npy"))) == sum(batches)
    shown = dataset.test_images[:9]
    seen = encoders.run(encoder.settings, encoder.variables, shown).features
    for state in run.states:
        expected = linear.make(linear.Config(), dataset.spec).classify(state.inner, seen)
        np.testing.assert_allclose(run.compiled.classify(state, shown), expected, atol=1e-3)
    exported = export.save(folder, tmp_path / "exported", replica=0)
    images = np.resize(shown, (exported.programs["classify"].batch, 8, 8, 1))
    expected = np.exp(run.compiled.classify(run.states[0], images))
    np.testing.assert_allclose(export.load(tmp_path / "exported").classify(images), expected, atol=1e-4)
    kept_features.folder.cache_clear()


def test_a_size_for_what_has_none_is_answered_in_one_line(net, capsys, tmp_path):
    size = ("--encoder-size", "64", "--out", tmp_path / "run")
    assert "--encoder-size needs --encoder" in complaint(capsys, *size)
    assert "not for random" in complaint(capsys, "--encoder", "random", *size)
    assert "sees images as they come" in complaint(capsys, "--encoder", net, *size)
    assert "give a number" in complaint(capsys, "--encoder", net, "--encoder-size", "5")
