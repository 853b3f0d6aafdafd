"""Every source but folders: exact images out, and one line for each thing that can be wrong."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ssl_gen.datasets import dataset, idx, shapes
from ssl_gen.datasets.sources import load
from ssl_gen.types import ImageSpec, UserError

ROOT = Path(__file__).parent.parent
MNIST = ROOT.parent / "shared" / "data" / "mnist"
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason=f"the original MNIST files are not in {MNIST}")
RANDOM = np.random.default_rng(0)


def refusal(name: str, *arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        load(name, *arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rows(images: np.ndarray) -> list[bytes]:
    return sorted(image.tobytes() for image in images)


# digits


def test_digits_are_the_bundled_ones_split_1297_to_500():
    data, bundle = load("digits"), load_digits()
    assert data.spec == ImageSpec(8, 8, 1, 10) and len(data.train_labels) == 1297 and len(data.test_labels) == 500
    every = np.rint(bundle.images * 255 / 16).astype(np.uint8)
    assert rows(np.concatenate([data.train_images, data.test_images])) == rows(every)


def test_the_digits_split_is_stratified():
    data, sizes = load("digits"), np.bincount(load_digits().target)
    assert np.all(np.abs(np.bincount(data.test_labels) - sizes * 500 / 1797) < 1.1)


# IDX files


def write_idx(folder: Path, count: int = 12, zipped: bool = True) -> dict[str, np.ndarray]:
    """Four small IDX files; returns the arrays by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for file in idx.FILES:
        shape = (count, 28, 28) if "images" in file else (count,)
        arrays[file] = RANDOM.integers(0, 10, shape, np.uint8)
        header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
        content = header + arrays[file].tobytes()
        (folder / (file + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    return arrays


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inside", ["", "fashion_mnist"])
def test_idx_files_come_back_as_written(tmp_path, zipped, inside):
    arrays, data = write_idx(tmp_path / inside, zipped=zipped), load("fashion_mnist", tmp_path)
    np.testing.assert_array_equal(data.train_images[..., 0], arrays[idx.FILES[0]])
    np.testing.assert_array_equal(data.train_labels, arrays[idx.FILES[1]])
    np.testing.assert_array_equal(data.test_images[..., 0], arrays[idx.FILES[2]])
    np.testing.assert_array_equal(data.test_labels, arrays[idx.FILES[3]])


@pytest.mark.parametrize("keep", [2, 6, 500])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_idx_file_is_named(tmp_path, keep, zipped):
    write_idx(tmp_path, zipped=zipped)
    path = tmp_path / (idx.FILES[2] + ".gz" * zipped)
    path.write_bytes(path.read_bytes()[:keep])
    assert refusal("mnist", tmp_path).startswith(str(path))


def test_a_wrong_magic_number_is_shown(tmp_path):
    write_idx(tmp_path, zipped=False)
    path = tmp_path / idx.FILES[0]
    path.write_bytes(b"\x00\x00\x08\x04" + path.read_bytes()[4:])
    assert "magic number 00000804" in refusal("mnist", tmp_path)


def test_wrong_dimensions_are_shown(tmp_path):
    write_idx(tmp_path, zipped=False)
    path = tmp_path / idx.FILES[0]
    path.write_bytes(path.read_bytes()[:8] + struct.pack(">2I", 14, 56) + path.read_bytes()[16:])
    assert "(14, 56) where (28, 28) is expected" in refusal("mnist", tmp_path)


def test_images_and_labels_of_different_number_are_refused(tmp_path):
    write_idx(tmp_path / "more", count=13)
    write_idx(tmp_path)
    (tmp_path / "more" / f"{idx.FILES[1]}.gz").replace(tmp_path / f"{idx.FILES[1]}.gz")
    assert "12 images" in refusal("mnist", tmp_path) and "13 labels" in refusal("mnist", tmp_path)


def test_a_missing_idx_file_is_named(tmp_path):
    write_idx(tmp_path)
    (tmp_path / f"{idx.FILES[3]}.gz").unlink()
    assert f"not {idx.FILES[3]}" in refusal("mnist", tmp_path)


@needs_mnist
def test_the_real_mnist_is_read():
    data = load("mnist", MNIST.parent)
    assert data.train_images.shape == (60000, 28, 28, 1) and data.test_images.shape == (10000, 28, 28, 1)
    content = gzip.decompress((MNIST / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert data.test_images.tobytes() == content[16:]


@needs_mnist
def test_mnist_files_are_not_taken_for_fashion_mnist():
    assert "those of mnist" in refusal("fashion_mnist", MNIST)


# names


def test_an_unknown_name_is_answered_with_the_nearest():
    assert "fashion_mnist" in refusal("fashion-mnist")
    assert "digits" in refusal("digit")
    assert "kmnist" in refusal("kmnst")


def test_an_unknown_variant_is_answered_with_the_nearest():
    assert "imagenet_resized/64x64" in refusal("imagenet_resized/65x64")


def test_a_data_dir_that_is_not_there_is_named(tmp_path):
    assert f"There is no folder {tmp_path / 'x'}" in refusal("mnist", tmp_path / "x")


# shapes


def test_shapes_are_made_as_their_name_says():
    assert load("shapes:64x48x1:60").train_images.shape == (60, 64, 48, 1)
    assert load("shapes:16:60").spec == ImageSpec(16, 16, 3, 10)
    assert load("shapes:60").spec.height == 60
    assert load("shapes", size=8).train_images.shape == (5000, 8, 8, 3)


def test_shapes_are_the_same_every_time_and_training_and_test_are_different():
    data = load("shapes:32x32x3:500")
    assert data.sha256 == load("shapes:32x32x3:500").sha256
    assert not set(rows(data.train_images)) & set(rows(data.test_images))
    np.testing.assert_array_equal(np.bincount(data.train_labels), [50] * 10)


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_a_shape_lies_within_its_image_and_stands_out(shape):
    images = shapes.render(shape, 50, 40, 24, 3, np.random.default_rng(0)).astype(int)
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    background = np.median(border, axis=1)
    contrast = np.abs(images - background[:, None, None]).max((1, 2))
    assert contrast.min() >= 96
    assert np.mean(np.all(border == background[:, None], -1)) > 0.9


def test_a_disc_has_the_area_of_its_radius():
    image = shapes.render("disc", 1, 128, 128, 1, np.random.default_rng(3))[0, ..., 0].astype(float)
    coverage = (image - image[0, 0]) / (image.reshape(-1)[np.abs(image - image[0, 0]).argmax()] - image[0, 0])
    diameter = coverage.sum(0).max()
    assert coverage.sum() == pytest.approx(np.pi / 4 * diameter**2, rel=0.02)


@pytest.mark.parametrize(
    "name", ["shapes:7", "shapes:129x64", "shapes:32x32x2", "shapes:32:49", "shapes:x", "shapes:-8"]
)
def test_shapes_that_cannot_be_drawn_are_refused(name):
    assert name in refusal(name)


def test_missing_pixels_give_way_to_the_mean_of_the_images_that_kept_them():
    digits = load("digits")
    damaged, none = dataset.with_missing_pixels(digits, 0.3)
    assert none.shape == (0, 8, 8, 1)
    for name in ("train_images", "test_images"):
        whole, left = getattr(digits, name), getattr(damaged, name)
        changed = (whole != left).mean()
        assert 0.15 < changed < 0.31  # a pixel that equals its stand-in (an empty corner) has not changed
    assert damaged.sha256 != digits.sha256
    again, held_out = dataset.with_missing_pixels(digits, 0.3, digits.test_images[:50])
    assert 0.15 < (held_out != digits.test_images[:50]).mean() < 0.31
    assert (held_out != again.test_images[:50]).any()  # other pixels of the same images
    assert again.sha256 == damaged.sha256
    row, column = 4, 4  # a pixel that varies: its stand-in is one number, the mean of what was kept
    whole, left = digits.train_images[:, row, column, 0], damaged.train_images[:, row, column, 0]
    gone = whole != left
    (stand_in,) = set(left[gone].tolist())
    assert abs(stand_in - whole[~gone].mean()) < 0.1 * whole.std()


def test_a_share_of_missing_pixels_outside_0_to_1_is_refused():
    with pytest.raises(UserError, match="share of 0 up to"):
        dataset.with_missing_pixels(load("digits"), 1.0)
