"""Inception-v3 of the FID, layer by layer against numpy, and the reading of its weights, all with random weights.

The network is written out here a second time, from the published layout: a table of every convolution with its sides,
strides and pads, and the way through each block. Arrays are (B, C, H, W) here and weights OIHW, as in the files.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ssl_gen.networks.inception import Inception, prepare, resize_tf1
from ssl_gen.networks.pretrained.inception_weights import read_weights, to_variables
from ssl_gen.networks.pretrained.weight_files import identity
from ssl_gen.types import UserError

# name, channels in and out, kernel height and width, stride, pad above and below, pad left and right
STEM = """
Conv2d_1a_3x3    3  32  3 3  2  0 0
Conv2d_2a_3x3   32  32  3 3  1  0 0
Conv2d_2b_3x3   32  64  3 3  1  1 1
Conv2d_3b_1x1   64  80  1 1  1  0 0
Conv2d_4a_3x3   80 192  3 3  1  0 0
"""
A = """
branch1x1       in  64  1 1  1  0 0
branch5x5_1     in  48  1 1  1  0 0
branch5x5_2     48  64  5 5  1  2 2
branch3x3dbl_1  in  64  1 1  1  0 0
branch3x3dbl_2  64  96  3 3  1  1 1
branch3x3dbl_3  96  96  3 3  1  1 1
branch_pool     in   n  1 1  1  0 0
"""
B = """
branch3x3       in 384  3 3  2  0 0
branch3x3dbl_1  in  64  1 1  1  0 0
branch3x3dbl_2  64  96  3 3  1  1 1
branch3x3dbl_3  96  96  3 3  2  0 0
"""
C = """
branch1x1       in 192  1 1  1  0 0
branch7x7_1     in   n  1 1  1  0 0
branch7x7_2      n   n  1 7  1  0 3
branch7x7_3      n 192  7 1  1  3 0
branch7x7dbl_1  in   n  1 1  1  0 0
branch7x7dbl_2   n   n  7 1  1  3 0
branch7x7dbl_3   n   n  1 7  1  0 3
branch7x7dbl_4   n   n  7 1  1  3 0
branch7x7dbl_5   n 192  1 7  1  0 3
branch_pool     in 192  1 1  1  0 0
"""
D = """
branch3x3_1     in 192  1 1  1  0 0
branch3x3_2    192 320  3 3  2  0 0
branch7x7x3_1   in 192  1 1  1  0 0
branch7x7x3_2  192 192  1 7  1  0 3
branch7x7x3_3  192 192  7 1  1  3 0
branch7x7x3_4  192 192  3 3  2  0 0
"""
E = """
branch1x1        in 320  1 1  1  0 0
branch3x3_1      in 384  1 1  1  0 0
branch3x3_2a    384 384  1 3  1  0 1
branch3x3_2b    384 384  3 1  1  1 0
branch3x3dbl_1   in 448  1 1  1  0 0
branch3x3dbl_2  448 384  3 3  1  1 1
branch3x3dbl_3a 384 384  1 3  1  0 1
branch3x3dbl_3b 384 384  3 1  1  1 0
branch_pool      in 192  1 1  1  0 0
"""
MIXED = {  # name: its table, its channels `in`, its width `n`
    "Mixed_5b": (A, 192, 32),
    "Mixed_5c": (A, 256, 64),
    "Mixed_5d": (A, 288, 64),
    "Mixed_6a": (B, 288, None),
    "Mixed_6b": (C, 768, 128),
    "Mixed_6c": (C, 768, 160),
    "Mixed_6d": (C, 768, 160),
    "Mixed_6e": (C, 768, 192),
    "Mixed_7a": (D, 768, None),
    "Mixed_7b": (E, 1280, None),
    "Mixed_7c": (E, 2048, None),
}
IMAGE = (107, 139)  # odd, unlike, and large enough that the last blocks see 2 x 3 pixels


def parsed(table, prefix="", given=None, n=None):
    """A table -> {name: (in, out, kernel height, kernel width, stride, vertical pad, horizontal pad)}."""
    words = [line.split() for line in table.strip().splitlines()]
    variables = {"in": given, "n": n}
    return {
        prefix + name: tuple(variables[word] if word in variables else int(word) for word in numbers)
        for name, *numbers in words
    }


LAYERS = parsed(STEM) | {
    layer: numbers
    for name, (table, given, n) in MIXED.items()
    for layer, numbers in parsed(table, f"{name}.", given, n).items()
}


def shapes():
    """The name and shape of everything in a file of weights."""
    found = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
    for name, (given, features, height, width, *_) in LAYERS.items():
        found[f"{name}.conv.weight"] = (features, given, height, width)
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.bn.{part}"] = (features,)
    return found


@pytest.fixture(scope="module")
def weights():
    """Random weights that keep activations near 1, so that no layer hides behind another."""
    random = np.random.default_rng(0)

    def draw(name, shape):
        if len(shape) > 1:
            return random.standard_normal(shape, np.float32) * np.float32((2 / np.prod(shape[1:])) ** 0.5)
        if name.endswith(("bn.weight", "running_var")):
            return random.uniform(0.5, 1.5, shape).astype(np.float32)
        return (random.standard_normal(shape, np.float32) * np.float32(0.2)).astype(np.float32)

    return {name: draw(name, shape) for name, shape in shapes().items()}


@pytest.fixture
def folder():
    """A folder that is gone after the test: a file of weights has 95 MB."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


# The network in numpy, float64


def windows(x, height, width, stride, vertical, horizontal, value):
    """x (B, C, H, W) padded by `value` -> (B, C, H', W', height, width)."""
    x = np.pad(x, ((0, 0), (0, 0), (vertical, vertical), (horizontal, horizontal)), constant_values=value)
    return np.lib.stride_tricks.sliding_window_view(x, (height, width), (2, 3))[:, :, ::stride, ::stride]


def largest(x, stride, pad):
    return windows(x, 3, 3, stride, pad, pad, -np.inf).max((4, 5))


def mean_of_pixels(x):
    """3 x 3 means over the pixels that there are: those outside the image are no numbers, and do not count."""
    return np.nanmean(windows(x, 3, 3, 1, 1, 1, np.nan), (4, 5))


def layer(weights, name, x):
    *_, height, width, stride, vertical, horizontal = LAYERS[name]
    kernel = weights[f"{name}.conv.weight"].astype(np.float64)
    patches = windows(x, height, width, stride, vertical, horizontal, 0.0)
    x = np.moveaxis(np.tensordot(patches, kernel, ((1, 4, 5), (1, 2, 3))), -1, 1)
    scale, bias, mean, var = (
        weights[f"{name}.bn.{part}"].astype(np.float64)[:, None, None]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return np.maximum((x - mean) / np.sqrt(var + 0.001) * scale + bias, 0)


def mixed(weights, name, x):
    """One block; each branch's layers by the ends of their names, from the input on."""

    def chain(x, branch, *steps):
        for step in steps:
            x = layer(weights, f"{name}.{branch}{step}", x)
        return x

    table = MIXED[name][0]
    if table is A:
        parts = [
            chain(x, "branch1x1", ""),
            chain(x, "branch5x5", "_1", "_2"),
            chain(x, "branch3x3dbl", "_1", "_2", "_3"),
        ]
        parts += [chain(mean_of_pixels(x), "branch_pool", "")]
    elif table is B:
        parts = [chain(x, "branch3x3", ""), chain(x, "branch3x3dbl", "_1", "_2", "_3"), largest(x, 2, 0)]
    elif table is C:
        parts = [chain(x, "branch1x1", ""), chain(x, "branch7x7", "_1", "_2", "_3")]
        parts += [chain(x, "branch7x7dbl", "_1", "_2", "_3", "_4", "_5"), chain(mean_of_pixels(x), "branch_pool", "")]
    elif table is D:
        parts = [chain(x, "branch3x3", "_1", "_2"), chain(x, "branch7x7x3", "_1", "_2", "_3", "_4"), largest(x, 2, 0)]
    else:
        single, double = chain(x, "branch3x3", "_1"), chain(x, "branch3x3dbl", "_1", "_2")
        pooled = largest(x, 1, 1) if name == "Mixed_7c" else mean_of_pixels(x)
        parts = [chain(x, "branch1x1", ""), chain(single, "branch3x3", "_2a"), chain(single, "branch3x3", "_2b")]
        parts += [chain(double, "branch3x3dbl", "_3a"), chain(double, "branch3x3dbl", "_3b")]
        parts += [chain(pooled, "branch_pool", "")]
    return np.concatenate(parts, 1)


def walk(weights, x):
    """images (B, 3, H, W) -> every layer of the stem, every block, features (B, 2048) and logits (B, 1008) by name."""
    seen = {}
    for name in LAYERS:
        if "." in name:
            break
        x = seen[name] = layer(weights, name, x)
        x = largest(x, 2, 0) if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3") else x
    for name in MIXED:
        x = seen[name] = mixed(weights, name, x)
    seen["features"] = x.mean((2, 3))
    seen["logits"] = seen["features"] @ weights["fc.weight"].T.astype(np.float64) + weights["fc.bias"]
    return seen


def test_every_layer_is_that_of_a_second_writing_in_numpy(weights):
    images = np.random.default_rng(1).uniform(-1, 1, (1, *IMAGE, 3)).astype(np.float32)
    expected = walk(weights, images.transpose(0, 3, 1, 2).astype(np.float64))

    @jax.jit
    def run(variables, images):
        def asked(module, _):
            return module.name in expected

        return Inception().apply(variables, images, capture_intermediates=asked, mutable=["intermediates"])

    outputs, captured = run(to_variables(weights), images)
    found = {name: of["__call__"][0].transpose(0, 3, 1, 2) for name, of in captured["intermediates"].items()}
    found |= outputs._asdict()
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape
        error = np.abs(np.asarray(found[name]) - values).max() / np.abs(values).max()
        assert error < 1e-5, f"{name} is off by {error}"


def test_the_second_writing_has_the_published_number_of_parameters():
    ours = sum(int(np.prod(shape)) for name, shape in shapes().items() if "running" not in name)
    torchvision = 27_161_264  # num_params of Inception_V3_Weights.IMAGENET1K_V1 in its documentation
    auxiliary = 768 * 128 + 2 * 128 + 25 * 128 * 768 + 2 * 768 + 769 * 1000  # its second classifier, of training alone
    assert ours == torchvision - auxiliary + 2049 * (1008 - 1000)


def test_images_that_end_before_the_last_block_are_refused():
    for shape in ((1, 74, 75, 3), (1, 75, 74, 3), (1, 75, 75, 1)):
        with pytest.raises(UserError, match="75x75"):
            jax.eval_shape(Inception().init, jax.random.key(0), jnp.zeros(shape))
    outputs, _ = jax.eval_shape(Inception().init_with_output, jax.random.key(0), jnp.zeros((2, 75, 75, 3)))
    assert (outputs.features.shape, outputs.logits.shape) == ((2, 2048), (2, 1008))


# Bringing images to the network

resized, prepared = jax.jit(resize_tf1, static_argnums=1), jax.jit(prepare)


@pytest.mark.parametrize(("height", "width", "side"), [(5, 7, 12), (20, 17, 6), (1, 9, 9)])
def test_resizing_is_that_of_tensorflow_1_pixel_by_pixel(height, width, side):
    images = np.random.default_rng(2).integers(0, 256, (2, height, width, 3), np.uint8)
    expected = np.zeros((2, side, side, 3))
    for row in range(side):
        for column in range(side):
            y, x = row * height / side, column * width / side
            above, left = int(y), int(x)
            below, right = min(above + 1, height - 1), min(left + 1, width - 1)
            corners = images[:, [above, above, below, below], [left, right, left, right]].astype(float)
            down, across = y - above, x - left
            shares = np.array([(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across])
            expected[:, row, column] = shares @ corners
    np.testing.assert_allclose(resized(images, side), expected, atol=1e-3)


def test_images_of_the_side_asked_for_are_left_as_they_are():
    images = np.random.default_rng(3).integers(0, 256, (1, 11, 11, 3), np.uint8)
    np.testing.assert_array_equal(resized(images, 11), images)


def test_a_step_between_two_pixels_lies_where_corners_and_not_centres_are_the_origin():
    images = jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1)
    np.testing.assert_array_equal(resized(images, 4)[0, 0, :, 0], [0, 0.5, 1, 1])  # half-pixel centres: 0 .25 .75 1


def test_pixels_are_centred_on_128_as_in_the_graph():
    levels = np.array([0, 64, 128, 255], np.uint8)
    images = prepared(np.broadcast_to(levels[:, None, None, None], (4, 8, 8, 3)))
    assert images.shape == (4, 299, 299, 3) and images.dtype == jnp.float32
    for image, value in zip(images, [-1, -0.5, 0, 127 / 128], strict=True):
        assert (image == value).all()


def test_a_grey_image_is_seen_as_the_same_grey_in_three_channels():
    grey = np.random.default_rng(4).integers(0, 256, (2, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(prepared(grey), prepared(grey.repeat(3, -1)))


# Files of weights


def named_by_hash(path):
    """The file under a name that ends in the first digits of its SHA-256, as published ones do."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path.rename(path.with_stem(f"{path.stem}-{digest[:8]}"))


def test_a_safetensors_file_is_read_as_it_was_written(folder, weights):
    safetensors.numpy.save_file(weights, folder / "inception.safetensors")
    read = read_weights(named_by_hash(folder / "inception.safetensors"))
    assert set(read) == set(weights)
    assert all(np.array_equal(read[name], weights[name]) for name in weights)
    assert identity(read) == identity(weights)


@pytest.mark.parametrize("zipped", [True, False])  # PyTorch's format since 1.6, and that of older files
def test_a_pytorch_file_is_read_as_it_was_written(folder, weights, zipped):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    tensors["Conv2d_1a_3x3.bn.num_batches_tracked"] = torch.tensor(0)  # in files saved from a module
    torch.save(tensors, folder / "weights-2015-12-05.pth", _use_new_zipfile_serialization=zipped)
    read = read_weights(named_by_hash(folder / "weights-2015-12-05.pth"))
    assert set(read) == set(weights)
    assert all(np.array_equal(read[name], weights[name]) for name in weights)
    assert identity(read) == identity(weights)


def refused(path, sha256=None):
    with pytest.raises(UserError) as caught:
        read_weights(path, sha256)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_not_what_its_name_says_is_refused_before_it_is_opened(tmp_path, suffix):
    file = tmp_path / f"pt_inception-2015-12-05-6726825d{suffix}"
    file.write_bytes(b"another file")
    message = refused(file)
    assert "6726825d" in message and hashlib.sha256(b"another file").hexdigest()[:8] in message


def test_a_hash_may_be_asked_for_where_the_name_has_none(tmp_path):
    file = tmp_path / "inception.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(1, np.float32)}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert "0123456789" in refused(file, "0123456789") and digest[:10] in refused(file, "0123456789")
    assert "does not hold the FID Inception" in refused(file, digest[:12].upper())  # the hash is right: it is opened
    assert "8 to 64 hex digits" in refused(file, "")


def test_missing_unknown_and_wrong_parameters_are_named(tmp_path):
    file = tmp_path / "inception.safetensors"
    right = np.zeros((32, 3, 3, 3), np.float32)
    swapped, half = np.zeros((2048, 1008), np.float32), np.zeros(1008, np.float16)
    safetensors.numpy.save_file(
        {"Conv2d_1a_3x3.conv.weight": right, "fc.weight": swapped, "fc.bias": half, "AuxLogits.fc.bias": right}, file
    )
    message = refused(file)
    absent = [name for name in shapes() if name not in ("Conv2d_1a_3x3.conv.weight", "fc.weight", "fc.bias")]
    assert f"{len(absent)} missing: " in message and "Conv2d_1a_3x3.bn." in message
    assert "1 unknown: AuxLogits.fc.bias" in message
    assert "fc.weight (float32 (2048, 1008), not float32 (1008, 2048))" in message
    assert "fc.bias (float16 (1008,), not float32 (1008,))" in message
    assert "Conv2d_1a_3x3.conv.weight" not in message


def test_files_that_are_absent_damaged_or_of_another_kind_are_named(tmp_path):
    assert "There is no file" in refused(tmp_path / "nowhere.pth")
    for name, reason in [("a.h5", "'.h5'"), ("a.safetensors", "cannot be read as float32 .safetensors")]:
        (tmp_path / name).write_bytes(b"not a tensor")
        assert reason in refused(tmp_path / name)


def test_what_is_no_plain_tensor_is_never_unpickled(tmp_path):
    torch = pytest.importorskip("torch")

    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"fc.bias": Trap()}, tmp_path / "trap.pth")
    assert "nothing else is ever unpickled" in refused(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


def test_a_pytorch_file_of_anything_but_named_arrays_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "damaged.pth").write_bytes(b"not a tensor")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "number.pth")
    torch.save({"fc.bias": torch.zeros(1008, dtype=torch.bfloat16)}, tmp_path / "rounded.pth")
    for file in sorted(tmp_path.glob("*.pth")):
        assert f"{file} cannot be read as a dictionary of plain tensors" in refused(file)


def test_an_identity_tells_values_names_and_shapes_apart_and_no_order():
    a, b = np.arange(6, dtype=np.float32), np.ones(6, np.float32)
    others = [{"a": a, "b": -b}, {"a": b, "b": a}, {"a": a, "c": b}, {"a": a.reshape(2, 3), "b": b}, {"a": a}]
    identities = [identity(each) for each in ({"a": a, "b": b}, *others)]
    assert len(set(identities)) == len(identities)
    assert identity({"b": b, "a": a}) == identities[0]
    assert all(len(each) == 8 and int(each, 16) >= 0 for each in identities)
