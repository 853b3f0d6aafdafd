"""An exported model: back in this library, and run where this library is not."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
import types

import jax
import jax.export
import numpy as np
import pytest
from finished import RECIPES
from safetensors.numpy import load_file, save_file
from tiny import SPEC, tiny

from ssl_gen import cli
from ssl_gen.core import files
from ssl_gen.evaluation import densities
from ssl_gen.methods import METHODS
from ssl_gen.reports import records
from ssl_gen.reports.records import Stop
from ssl_gen.runs import export, load, onnx, train
from ssl_gen.types import Batch, ImageSpec, UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1), np.uint8)
STRANGER = """
import sys
import types
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
def pair(finished, tmp_path_factory):
    """The second seed of a run with a validation split, exported."""
    out = tmp_path_factory.mktemp("pair") / "out"
    assert cli.main(["export", str(finished("m2")), "--out", str(out), "--replica", "1"]) == 0
    return out


@pytest.fixture
def run(finished):
    """The run that was exported."""
    return load.load(finished("m2"))


def alone(loaded, replica):
    """A run as if it had one of its seeds alone."""
    final = dataclasses.replace(loaded.final, temperature=[loaded.temperatures[replica]])
    record = dataclasses.replace(loaded.record, seeds=[loaded.record.seeds[replica]])
    return loaded._replace(record=record, states=[loaded.states[replica]], final=final)


def test_an_export_holds_weights_card_and_programs_and_no_pickle(pair):
    names = {file.name for file in pair.iterdir()}
    assert names == {"model.safetensors", "model.json", "classify.stablehlo", "sample.stablehlo"}


def test_an_export_comes_back_equal_to_its_run(pair, run):
    loaded, back = alone(run, 1), export.load(pair)
    np.testing.assert_allclose(back.classify(IMAGES), loaded.classify(IMAGES), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(back.sample(label=3, count=5, seed=2), loaded.sample(label=3, count=5, seed=2))
    assert back.metrics == loaded.metrics and back.temperatures == loaded.temperatures


def test_the_method_of_a_run_and_of_its_export_is_made_for_what_it_was_trained_on(pair, finished, monkeypatch):
    made, module = [], METHODS["m2"]
    make = module.make
    monkeypatch.setattr(module, "make", lambda config, spec: made.append(spec) or make(config, spec))
    train.prepare("m2", RECIPES["m2"].config, finished.options("m2", finished("m2")))
    load.load(finished("m2"))
    load.sampler_of(finished("m2"))
    export.load(pair)
    pool = 1_297 - 100  # digits, without the validation images
    assert made == [ImageSpec(8, 8, 1, 10, 30, pool, pool)] * 4


def test_programs_give_a_stranger_what_the_run_gives(pair, run, tmp_path):
    loaded = alone(run, 1)
    found = by_a_stranger(tmp_path, pair, IMAGES, "classify", "sample")
    assert found["classify"].dtype == np.float32 and found["sample"].dtype == np.uint8
    np.testing.assert_allclose(found["classify"], loaded.classify(IMAGES), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found["sample"], loaded.draw(np.array([3, 3, 7]), seed=5))


def test_an_exported_classifier_is_scaled_by_the_temperature_of_its_own_seed(finished, tmp_path):
    """As its program and as it comes back."""
    loaded = load.load(finished("calibrated"))
    card = export.save(loaded.folder, tmp_path, 1)
    other, own = loaded.final.temperature
    assert card.temperature == own and abs(np.log(own)) > 0.05 and abs(np.log(own / other)) > 0.01  # so that it tells
    expected = alone(loaded, 1).classify(IMAGES)
    program = jax.export.deserialize(bytearray((tmp_path / "classify.stablehlo").read_bytes()))
    found = program.call(load_file(tmp_path / "model.safetensors"), IMAGES)
    for each in (found, export.load(tmp_path).classify(IMAGES)):
        np.testing.assert_allclose(each, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("gan", {"generator/params", "generator/stats"}),
        ("calibrated", {"classifier/ema"}),
        ("m2", {"model/params/classifier", "model/params/decoder"}),
    ],
)
def test_only_what_classifying_and_sampling_need_is_written(name, parts, pair, finished, tmp_path):
    if name != "m2":
        export.save(finished(name), tmp_path)
    weights = load_file((pair if name == "m2" else tmp_path) / "model.safetensors")
    assert {next((part for part in parts if each.startswith(f"{part}/")), each) for each in weights} == parts


def test_the_card_says_what_the_model_is_and_names_no_path_of_this_machine(pair, finished):
    card = json.loads((pair / "model.json").read_text())
    about, final = (json.loads((finished("m2") / name).read_text()) for name in ("run.json", "final.json"))
    for key in ("method", "config", "sampler", "paper", "commit", "versions"):
        assert card[key] == about[key]
    assert card["data"].items() <= about["data"].items() and "sha256" in card["data"]
    assert card["masks"] == about["masks"][1:] and card["seeds"] == [1] and card["metrics"] == final["metrics"]
    assert card["temperature"] == final["temperature"][1]
    assert card["programs"]["classify"]["batch"] == "any"
    assert str(pair) not in json.dumps(card) and str(finished.base) not in json.dumps(card)


def test_a_method_fitted_in_one_go_on_latents_is_exported_with_its_encoder(finished, tmp_path):
    loaded = alone(load.load(finished("linear_on_pca")), 0)
    card = export.save(finished("linear_on_pca"), tmp_path / "out")
    images = np.resize(IMAGES, (card.programs["classify"].batch, 8, 8, 1))
    expected = loaded.classify(images)
    np.testing.assert_allclose(export.load(tmp_path / "out").classify(images), expected, rtol=0, atol=1e-6)
    found = by_a_stranger(tmp_path, tmp_path / "out", images, "classify")
    np.testing.assert_allclose(found["classify"], expected, rtol=0, atol=1e-6)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {name.split("/")[0] for name in weights} == {"encoder", "inner"}


def test_data_of_unknown_licence_is_to_be_filled_in(run):
    own = run._replace(record=dataclasses.replace(run.record, dataset="folder:/home/someone/cats"))
    card = export.describe(own, 0, run.compiled.method, {}, [], {"model.safetensors": ""})
    assert card.licence == "unknown: fill in" and card.dataset == "folder:cats"


def test_weights_that_are_not_those_of_the_card_are_refused(pair, tmp_path):
    for file in pair.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: 2 * array for name, array in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="SHA-256 differs"):
        export.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot read"):
        export.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"format": 1}, "no card of format 2"), ({"config": {"depth": 3}}, "depth"), ({"steps": "six"}, "steps is 'six'")],
)
def test_a_card_of_another_version_is_refused_in_one_line(changes, words, pair, tmp_path):
    for file in pair.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    files.write_json(tmp_path / "model.json", files.read_json(pair / "model.json") | changes, export.FREE)
    with pytest.raises(UserError, match=words) as refused:
        export.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_what_cannot_be_exported_is_answered_in_one_line(finished, tmp_path):
    with pytest.raises(UserError, match="replica 2 is none: give one of 0 to 1"):
        export.save(finished("m2"), tmp_path / "out", 2)
    with pytest.raises(UserError, match="neither classifies nor samples"):
        export.save(finished("pca"), tmp_path / "out")
    with pytest.raises(UserError, match="holds no model"):
        export.load(finished("m2"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        export.save(finished("linear"), tmp_path / "file" / "out")
    folder = finished.copy("linear", tmp_path / "run")
    final = records.load_final(folder)
    records.write(folder / "final.json", dataclasses.replace(final, stopped=[Stop(0, 3, "loss", "nan")]))
    with pytest.raises(UserError, match="stopped while it trained"):
        export.save(folder, tmp_path / "out", 0)
    (folder / "final.json").unlink()
    with pytest.raises(UserError, match="is not finished"):
        export.save(folder, tmp_path / "out", 0)
    assert not (tmp_path / "out").exists()


def test_a_leaf_is_needed_only_where_the_result_depends_on_it():
    arrays = {"a": np.ones(3, np.float32), "b": np.ones(3, np.float32), "c": np.ones(3, np.float32)}
    inputs = (jax.ShapeDtypeStruct((3,), np.float32),)
    assert export.used(lambda w, x: jax.jit(lambda a, b, c: a + 0 * x)(w["a"], w["b"], w["c"]), arrays, inputs) == {"a"}
    assert export.used(lambda w, x: w["c"] * x + w["b"], arrays, inputs) == {"b", "c"}


@pytest.mark.parametrize("name", ["vae_gan", "adversarial_autoencoder", "mean_teacher", "stacked_m1_m2", "autoencoder"])
def test_programs_take_any_number_of_images(name):
    method = tiny(name).method
    batch = jax.ShapeDtypeStruct((12, *SPEC.shape), np.float32), jax.ShapeDtypeStruct((12,), np.int32)
    like = jax.eval_shape(lambda x, y: method.init(jax.random.key(0), Batch(x, y, x)), *batch)
    if densities.needed(method.sampler):
        like = like._replace(density=densities.like(method, like, SPEC))
    inputs = export.arguments(SPEC, jax.export.symbolic_shape("batch")[0])
    for what, function in export.programs(method, like, None).items():
        (out,) = export.lower(function, export.named(like), inputs[what]).out_avals
        assert str(out.shape[0]) == "batch"


# ONNX


@pytest.mark.parametrize("package", ["jax2onnx", "onnxruntime"])
def test_onnx_without_its_packages_is_one_line_and_writes_nothing(finished, tmp_path, monkeypatch, capsys, package):
    for name in ("jax2onnx", "onnxruntime"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.util.spec_from_loader(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["export", str(finished("linear")), "--out", str(tmp_path / "out"), "--onnx"]) == 2
    assert capsys.readouterr().err == f"ssl-gen: --onnx needs {package}: pip install 'ssl-gen[onnx]'\n"
    assert not (tmp_path / "out").exists()


class Converted:
    """What a converter gives, and a runtime that finds given probabilities in it."""

    def __init__(self, found):
        self.found = found

    def SerializeToString(self):
        return b"program"

    def run(self, names, inputs):
        return [self.found(inputs["images"])]


@pytest.fixture
def converter(monkeypatch):
    """Stands in for both packages: `converter(function of images)` is what the program comes to."""

    def stand_in(found):
        one, two = types.ModuleType("jax2onnx"), types.ModuleType("onnxruntime")
        for module in (one, two):
            module.__spec__ = importlib.util.spec_from_loader(module.__name__, None)
            monkeypatch.setitem(sys.modules, module.__name__, module)
        one.to_onnx = lambda function, *given, **settings: Converted(found)
        two.InferenceSession = lambda data, providers: Converted(found)

    return stand_in


def test_onnx_of_other_probabilities_is_refused_and_writes_nothing(finished, tmp_path, converter):
    run = load.load(finished("linear"))
    converter(lambda images: np.full((len(images), 10), 0.1))
    with pytest.raises(UserError, match=r"linear as ONNX comes to other probabilities, by 0\.\d+, and is not kept"):
        export.save(run.folder, tmp_path / "out", with_onnx=True)
    assert not list(tmp_path.glob("out/*.*"))


def test_what_onnx_is_compared_with_is_made_in_float32(converter):
    """A GPU's own way, TF32, is further from a processor than what is taken for the same."""
    precisions = []

    def classify(images):
        precisions.append(jax.config.values["jax_default_matmul_precision"])
        return jax.numpy.full((len(images), 2), 0.5)

    converter(lambda images: np.full((len(images), 2), 0.5, np.float32))
    assert onnx.write("linear", classify, (8, 8, 1), None).difference == 0
    assert precisions == ["highest"] and jax.config.values["jax_default_matmul_precision"] is None


def test_what_the_converter_does_not_know_is_one_line(finished, tmp_path, converter, monkeypatch):
    converter(None)

    def unknown(*given, **settings):
        raise NotImplementedError("No plugins registered for primitive 'eigh'\nand more")

    monkeypatch.setattr(sys.modules["jax2onnx"], "to_onnx", unknown)
    with pytest.raises(
        UserError, match=r"linear cannot be written as ONNX: No plugins .* 'eigh' and more; leave --onnx"
    ):
        export.save(finished("linear"), tmp_path / "out", with_onnx=True)


def test_a_method_that_does_not_classify_has_no_onnx(finished, tmp_path, converter):
    converter(None)
    with pytest.raises(UserError, match="gan does not classify, and --onnx writes a classifier: leave it out"):
        export.save(finished("gan"), tmp_path / "out", with_onnx=True)


def test_onnx_gives_the_probabilities_of_the_run(finished, tmp_path):
    for package in ("jax2onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is an extra: pip install 'ssl-gen[onnx]'")
    import onnxruntime

    card = export.save(finished("supervised"), tmp_path / "out", with_onnx=True)
    assert card.programs["onnx"].gives.startswith("probabilities (batch, 10) float32; opset 21, on 10 images within")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "classify.onnx", providers=["CPUExecutionProvider"])
    found = session.run(["probabilities"], {"images": IMAGES})[0]
    np.testing.assert_allclose(found, export.load(tmp_path / "out").classify(IMAGES), atol=1e-5)
    export.save(finished("supervised"), tmp_path / "out")
    assert not (tmp_path / "out" / "classify.onnx").exists()
