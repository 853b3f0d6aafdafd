"""An exported model: back in this library, and run where this library is not."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import SPEC, tiny

from ssl_gen import cli, export, run
from ssl_gen.methods.adversarial import triple_gan
from ssl_gen.methods.classical import linear, pca
from ssl_gen.setting import Options
from ssl_gen.training import folder
from ssl_gen.types import ImageSpec, UserError

PAIR = triple_gan.Config(
    steps=4, labelled_batch=4, unlabelled_batch=4, generated_batch=4, classifier_generated=4, latent=4,
    generator_hidden=(4,), discriminator_hidden=(4, 4), classifier_hidden=(4,),
)  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1), np.uint8)
STRANGER = """
import sys
sys.modules |= dict.fromkeys(["ssl_gen", "flax", "optax"])  # to import one of them is an error
import numpy as np
from jax import export
from safetensors.numpy import load_file
folder, images = sys.argv[1], np.load(sys.argv[2])
weights = load_file(folder + "/model.safetensors")
programs = {n: export.deserialize(bytearray(open(f"{folder}/{n}.stablehlo", "rb").read())) for n in sys.argv[4:]}
found = {}
if "classify" in programs:
    found["classify"] = programs["classify"].call(weights, images)
if "sample" in programs:
    found["sample"] = programs["sample"].call(weights, np.uint32(5), np.array([3, 3, 7], np.int32))
np.savez(sys.argv[3], **found)
"""


def by_a_stranger(tmp_path, out, images, *names):
    """What the programs give in a process that knows jax and safetensors alone, and cannot import ssl_gen."""
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", STRANGER, out, tmp_path / "images.npy", tmp_path / "found.npz", *names]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return dict(np.load(tmp_path / "found.npz"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A run of two seeds with a validation split, and its second seed exported."""
    base = tmp_path_factory.mktemp("pair")
    options = Options(labels="30", seeds=2, validation=100, out=base / "run", quiet=True)
    run.train("triple_gan", PAIR, options)
    assert cli.main(["export", str(base / "run"), "--out", str(base / "out"), "--replica", "1"]) == 0
    return base


def alone(loaded, replica):
    """A run as if it had one of its seeds alone."""
    final = {**loaded.final, "stopped": [], "temperature": [loaded.final["temperature"][replica]]}
    about = {**loaded.about, "seeds": [loaded.about["seeds"][replica]]}
    return loaded._replace(about=about, states=[loaded.states[replica]], final=final)


def test_an_export_holds_weights_card_and_programs_and_no_pickle(pair):
    names = {file.name for file in (pair / "out").iterdir()}
    assert names == {"model.safetensors", "model.json", "classify.stablehlo", "sample.stablehlo"}


def test_an_export_comes_back_equal_to_its_run(pair):
    loaded, back = alone(run.load(pair / "run"), 1), export.load(pair / "out")
    np.testing.assert_allclose(back.classify(IMAGES), loaded.classify(IMAGES), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(back.sample(label=3, count=5, seed=2), loaded.sample(label=3, count=5, seed=2))
    assert back.metrics == loaded.metrics and back.temperatures == loaded.temperatures


def test_programs_give_a_stranger_what_the_run_gives(pair, tmp_path):
    loaded = alone(run.load(pair / "run"), 1)
    found = by_a_stranger(tmp_path, pair / "out", IMAGES, "classify", "sample")
    assert found["classify"].dtype == np.float32 and found["sample"].dtype == np.uint8
    np.testing.assert_allclose(found["classify"], loaded.classify(IMAGES), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found["sample"], run.sample(loaded, np.array([3, 3, 7]), seed=5))


def test_only_what_classifying_and_sampling_need_is_written(pair):
    weights = load_file(pair / "out" / "model.safetensors")
    parts = {tuple(name.split("/")[:2]) for name in weights}
    assert parts == {("generator", "params"), ("generator", "stats"), ("classifier", "ema"), ("classifier", "stats")}


def test_the_card_says_what_the_model_is_and_names_no_path_of_this_machine(pair):
    card = json.loads((pair / "out" / "model.json").read_text())
    about, final = (json.loads((pair / "run" / name).read_text()) for name in ("run.json", "final.json"))
    for key in ("method", "config", "paper", "commit", "versions"):
        assert card[key] == about[key]
    assert card["data"].items() <= about["data"].items() and "sha256" in card["data"]
    assert card["masks"] == about["masks"][1:] and card["seeds"] == [1] and card["metrics"] == final["metrics"]
    assert card["temperature"] == final["temperature"][1]
    assert card["programs"]["classify"]["batch"] == "any"
    assert str(pair) not in json.dumps(card)


def test_a_method_fitted_in_one_go_on_latents_is_exported_with_its_encoder(tmp_path):
    first = Options(labels="30", out=tmp_path / "pca", quiet=True)
    run.train("pca", pca.Config(latent=4), first)
    options = Options(labels="30", out=tmp_path / "run", quiet=True, encoder=tmp_path / "pca")
    loaded = run.load(run.train("linear", linear.Config(), options).folder)
    card = export.save(tmp_path / "run", tmp_path / "out")
    images = np.resize(IMAGES, (card["programs"]["classify"]["batch"], 8, 8, 1))
    expected = loaded.classify(images)
    np.testing.assert_allclose(export.load(tmp_path / "out").classify(images), expected, rtol=0, atol=1e-6)
    found = by_a_stranger(tmp_path, tmp_path / "out", images, "classify")
    np.testing.assert_allclose(found["classify"], expected, rtol=0, atol=1e-6)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {name.split("/")[0] for name in weights} == {"encoder", "inner"}


def test_data_of_unknown_licence_is_to_be_filled_in(pair):
    loaded = run.load(pair / "run")
    own = loaded._replace(about={**loaded.about, "dataset": "folder:/home/someone/cats"})
    card = export.describe(own, 0)
    assert card["licence"] == "unknown: fill in" and card["dataset"] == "folder:cats"


def test_weights_that_are_not_those_of_the_card_are_refused(pair, tmp_path):
    for file in (pair / "out").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: 2 * array for name, array in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="SHA-256 differs"):
        export.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot read"):
        export.load(tmp_path)


def test_what_cannot_be_exported_is_answered_in_one_line(pair, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--replica is one of 0 to 1, not 2"):
        export.save(pair / "run", tmp_path / "out", 2)
    with pytest.raises(UserError, match="holds no model"):
        export.load(pair / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        export.save(pair / "run", tmp_path / "file" / "out")
    final = {**folder.read_json(pair / "run" / "final.json"), "stopped": [{"seed": 0}]}
    monkeypatch.setattr(run, "load", lambda path, load=run.load: load(path)._replace(final=final))
    with pytest.raises(UserError, match="stopped while it trained"):
        export.save(pair / "run", tmp_path / "out", 0)
    monkeypatch.setattr(run, "load", lambda path, load=run.load: load(path)._replace(final=None))
    with pytest.raises(UserError, match="is not finished"):
        export.save(pair / "run", tmp_path / "out", 0)


def test_a_leaf_is_needed_only_where_the_result_depends_on_it():
    arrays = {"a": np.ones(3, np.float32), "b": np.ones(3, np.float32), "c": np.ones(3, np.float32)}
    inputs = (jax.ShapeDtypeStruct((3,), np.float32),)
    assert export.used(lambda w, x: jax.jit(lambda a, b, c: a + 0 * x)(w["a"], w["b"], w["c"]), arrays, inputs) == {"a"}
    assert export.used(lambda w, x: w["c"] * x + w["b"], arrays, inputs) == {"b", "c"}


@pytest.mark.parametrize("name", ["vae_gan", "adversarial_autoencoder", "mean_teacher", "stacked_m1_m2"])
def test_programs_take_any_number_of_images(name):
    method = tiny(name).method
    batch = jax.ShapeDtypeStruct((12, *SPEC.shape), np.float32), jax.ShapeDtypeStruct((12,), np.int32)
    like = jax.eval_shape(lambda x, y: method.init(jax.random.key(0), run.Batch(x, y, x)), *batch)
    arrays = {name: jax.ShapeDtypeStruct(export.raw_shape(leaf), np.float32 if not export.is_key(leaf) else np.uint32)
              for name, leaf in export.named(like).items()}  # fmt: skip
    inputs = export.arguments(ImageSpec(*SPEC), jax.export.symbolic_shape("batch")[0])
    for what, function in export.programs(method, like, None).items():
        (out,) = export.lower(function, arrays, inputs[what]).out_avals
        assert str(out.shape[0]) == "batch"
