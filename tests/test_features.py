"""Feature extractors: each has an identity, and the same identity means the same features."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_folders import picture, two_classes

from ssl_gen import cli
from ssl_gen.core import precision
from ssl_gen.datasets import sources
from ssl_gen.evaluation import features, kept_features, proxy_classifier
from ssl_gen.evaluation.features import Architecture
from ssl_gen.networks.pretrained import sources as networks
from ssl_gen.runs import train
from ssl_gen.runs.options import Options
from ssl_gen.types import ImageSpec, UserError

SPEC = ImageSpec(8, 8, 1, 10)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The file of a net that was trained for two steps, and the name of its extractor."""
    path = tmp_path_factory.mktemp("features") / "digits.safetensors"
    _, name, error = proxy_classifier.train_features("digits", steps=2, out=path, quiet=True)
    assert 0 <= error <= 100
    return path, name


def test_features_of_another_backend_or_precision_are_not_taken_for_ours(monkeypatch):
    """TF32 comes to other features than float32; those that a processor has kept so far stay where they are."""

    def place(platform, capability=""):
        device = SimpleNamespace(platform=platform, compute_capability=capability)
        monkeypatch.setattr(jax, "local_devices", lambda: [device])
        monkeypatch.setattr(jax, "default_backend", lambda: platform)
        return kept_features.place("encoder", IMAGES)

    places = [place("cpu"), place("gpu", "7.5"), place("gpu", "9.0"), place("tpu")]
    with jax.default_matmul_precision("highest"):
        places += [place("gpu", "9.0"), place("cpu")]
    assert len(set(places)) == 6 and place("cpu") == places[0]
    assert precision.arithmetic() == "cpu"  # as FORMAT 1 has it


@pytest.mark.parametrize("keep_copies", [False, True])
def test_a_folder_is_read_as_a_run_with_the_same_options_reads_it(keep_copies, tmp_path, monkeypatch):
    """Or the run, which finds the net by the images, would find none."""
    for place in ("train", "test"):
        two_classes(tmp_path / "pictures" / place, size=(8, 8))
    picture(tmp_path / "pictures" / "train" / "cat" / "other.png", 200, size=(8, 8))
    picture(tmp_path / "pictures" / "train" / "dog" / "other.png", 201, size=(8, 8))
    asked = []
    net = proxy_classifier.train_classifier
    monkeypatch.setattr(
        proxy_classifier, "train_classifier", lambda images, *rest: asked.append(len(images)) or net(images, *rest)
    )
    name = f"folder:{tmp_path / 'pictures'}"
    path, _, _ = proxy_classifier.train_features(
        name, steps=1, out=tmp_path / "net", keep_copies=keep_copies, quiet=True
    )
    assert asked == [12 if keep_copies else 2]
    data = sources.load(name, keep_copies=keep_copies)
    assert features.description(path)["sha256"] == data.sha256


@pytest.fixture(scope="module")
def random():
    return features.find_extractor("random", SPEC, "digits", "")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory, random):
    """The file of a net that was trained on other images of the same shape, of three classes."""
    path = tmp_path_factory.mktemp("foreign") / "weights.safetensors"
    variables = jax.tree.map(lambda leaf: leaf, random.variables)
    last = variables["params"]["Dense_1"]
    variables["params"]["Dense_1"] = {name: leaf[..., :3] for name, leaf in last.items()}
    features.save(path, variables, "letters", ImageSpec(8, 8, 1, 3), {"sha256": "ab"})
    return path


def test_pixels_are_the_images_from_0_to_1():
    extractor = features.find_extractor("pixels", SPEC, "digits", "")
    assert extractor.name == "pixels" and extractor.classify is None
    np.testing.assert_allclose(extractor.features(IMAGES), IMAGES.reshape(6, -1) / 255, rtol=1e-6)


def test_random_features_are_the_same_in_every_process_and_for_any_number_of_classes(random):
    first, second = random, features.find_extractor("random", SPEC._replace(classes=3), "digits", "")
    assert first.name == second.name and first.name.startswith("random-convnet-")
    np.testing.assert_array_equal(first.features(IMAGES), second.features(IMAGES))
    assert first.features(IMAGES).shape == (6, 128) and first.classify is None


def test_auto_is_random_until_features_are_trained_for_the_data_set(tmp_path, monkeypatch, trained):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert features.find_extractor("auto", SPEC, "digits", "ab").name.startswith("random-")
    kept = features.trained_path("ab")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(trained[0].read_bytes())
    assert features.find_extractor("auto", SPEC, "digits", "ab").name == trained[1]
    assert features.find_extractor("trained", SPEC, "another name", "ab").name == trained[1]
    assert features.find_extractor("auto", SPEC, "digits", "of other images").name.startswith("random-")


def test_trained_features_are_refused_where_none_were_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match="ssl-gen train-features digits"):
        features.find_extractor("trained", SPEC, "digits", "")


def test_the_name_of_trained_features_says_data_set_and_weights(trained, tmp_path):
    path, name = trained
    extractor = features.find_extractor(str(path), SPEC, "anything", "")
    assert extractor.name == name and name.startswith("digits-convnet-")
    changed = jax.tree.map(np.array, extractor.variables)
    changed["params"]["Dense_0"]["kernel"][0, 0] += 1e-3
    other = features.save(tmp_path / "other.safetensors", changed, "digits", SPEC, {"sha256": "ab"})
    assert other.startswith("digits-convnet-") and other != name


def test_a_net_whose_weights_or_whose_description_changed_is_refused(trained, tmp_path):
    weights, said = load_file(trained[0]), features.description(trained[0])
    changed = weights | {"params/Dense_0/kernel": weights["params/Dense_0/kernel"] + 1e-3}
    for number, (arrays, words) in enumerate([(changed, said), (weights, said | {"dataset": "letters"})]):
        save_file(arrays, tmp_path / f"{number}.safetensors", {"ssl_gen": json.dumps(words)})
        with pytest.raises(UserError, match="is damaged"):
            features.find_extractor(str(tmp_path / f"{number}.safetensors"), SPEC, "digits", "ab")


def test_a_trained_net_knows_the_classes(trained):
    outputs = features.find_extractor(str(trained[0]), SPEC, "digits", "").classify(IMAGES)
    np.testing.assert_allclose(np.exp(outputs).sum(-1), 1, rtol=1e-5)
    assert outputs.shape == (6, 10)


def test_features_are_what_the_last_layer_sees(trained):
    extractor = features.find_extractor(str(trained[0]), SPEC, "digits", "")
    weights = load_file(trained[0])
    logits = extractor.features(IMAGES) @ weights["params/Dense_1/kernel"] + weights["params/Dense_1/bias"]
    np.testing.assert_allclose(extractor.classify(IMAGES), jax.nn.log_softmax(logits), atol=1e-5)


def test_the_same_command_trains_the_same_features(trained, tmp_path, capsys):
    path = tmp_path / "again.safetensors"
    assert cli.main(["train-features", "digits", "--steps", "2", "--out", str(path), "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert trained[1] in printed and str(path) in printed and "test error" in printed


@pytest.mark.parametrize(
    ("arrange", "words"),
    [
        (lambda path: path / "none.pth", "there is no /.*none.pth"),
        (lambda path: (path / "text.safetensors").write_text("no weights") and path / "text.safetensors", "text"),
    ],
)
def test_a_file_without_weights_is_named(tmp_path, arrange, words):
    with pytest.raises(UserError, match=words):
        features.find_extractor(str(arrange(tmp_path)), SPEC, "digits", "")


def test_a_net_for_images_of_another_shape_is_refused(trained):
    with pytest.raises(UserError, match=r"\[8, 8, 1, 10\]"):
        features.find_extractor(str(trained[0]), ImageSpec(9, 8, 1, 10), "digits", "")


def test_weights_that_cannot_be_written_are_named_before_anything_is_trained(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "weights.safetensors")
    assert cli.main(["train-features", "digits", "--steps", "100000000", "--out", out, "--quiet"]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_what_no_features_are_called_is_answered_with_all_that_they_can_be_and_so_says_the_help(capsys):
    """Each by a name that finds it: the packages too, and Hugging Face."""
    known = ["auto", "pixels", "random", "trained", *networks.PACKAGES, "hf:OWNER/NAME", "weights file"]
    with pytest.raises(UserError, match="--features is") as caught:
        features.find_extractor("nowhere", SPEC, "digits", "")
    assert all(name in str(caught.value) for name in known) and "\n" not in str(caught.value)
    for command in (["train", "gan"], ["evaluate"]):
        with pytest.raises(SystemExit):
            cli.main([*command, "--help"])
        words = " ".join(capsys.readouterr().out.replace("│", " ").split())
        lines = words[words.index("--features") :][:400]
        assert all(name in lines for name in known), lines


# As an encoder


def test_an_encoder_gives_the_features_of_the_images_that_a_method_sees(random, foreign):
    for encoder in (random, features.find_encoder(str(foreign), SPEC, "digits", "cd")):
        method = features.as_method(encoder.architecture)
        latents = method.encode(encoder.variables, jnp.asarray(IMAGES, jnp.float32) / 127.5 - 1)
        np.testing.assert_allclose(latents, encoder.features(IMAGES), atol=1e-5)
        assert method.classify is method.sample is method.decode is None


def test_pixels_as_an_encoder_are_the_images_laid_flat():
    images = np.linspace(-1, 1, 2 * 64, dtype=np.float32).reshape(2, 8, 8, 1)
    encoder = features.find_encoder("pixels", SPEC, "digits", "ab")
    latents = features.as_method(encoder.architecture).encode(encoder.variables, jnp.asarray(images))
    np.testing.assert_array_equal(latents, images.reshape(2, 64))


def test_the_architecture_says_which_weights_an_encoder_has(random):
    found = features.variables_like(Architecture(**random.architecture._asdict()), SPEC)
    assert jax.tree.structure(found) == jax.tree.structure(random.variables)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, random.variables)


def test_inception_as_an_encoder_gives_its_2048_features():
    """Shapes alone: test_inception.py has the numbers."""
    architecture, images = Architecture("inception"), jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    encode = features.as_method(architecture).encode
    assert jax.eval_shape(encode, features.variables_like(architecture, SPEC), images).shape == (2, 2048)


def test_a_net_that_was_trained_on_all_labels_of_the_same_data_is_no_encoder(trained, tmp_path):
    """Not even where some of them are held out, so that the rest is another data set by its hash."""
    for changes in ({}, {"validation": 100}, {"missing_pixels": 0.1}):
        options = Options(labels="30", encoder=str(trained[0]), out=tmp_path / "run", quiet=True, **changes)
        with pytest.raises(UserError, match="was trained on all labels of these data"):
            train.train("linear", None, options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["auto", "nowhere.safetensors"])
def test_an_encoder_that_is_none_is_answered_with_those_there_are(name):
    with pytest.raises(UserError, match=rf"--encoder is a run's folder, .* weights file; there is no {name}"):
        features.find_encoder(name, SPEC, "digits", "ab")


def test_an_encoder_of_images_of_another_shape_is_refused(foreign):
    with pytest.raises(UserError, match=r"sees \(H, W, C\) \[8, 8, 1\], not \[9, 8, 1\]"):
        features.find_encoder(str(foreign), ImageSpec(9, 8, 1, 10), "digits", "cd")
