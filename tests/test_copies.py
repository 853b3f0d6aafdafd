"""Copies of test images in training: found where they are exact or saved again, and only there."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from ssl_gen.datasets import summary
from ssl_gen.datasets.copies import find_copies
from ssl_gen.datasets.dataset import HIDDEN, Dataset
from ssl_gen.datasets.masking import Scheme
from ssl_gen.datasets.sources import load
from ssl_gen.runs.data import load_data
from ssl_gen.runs.options import Options
from ssl_gen.runs.record import describe_reading

RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 256, (20, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """24 places of two photographs, 32 x 32, that do not overlap."""
    places = [(y, x) for y in (0, 140, 290) for x in (0, 150, 300, 450)]
    parts = [Image.fromarray(p[y : y + 128, x : x + 128]) for p in load_sample_images().images for y, x in places]
    return np.array([np.asarray(part.resize((32, 32))) for part in parts])


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def test_exact_copies_are_those_that_are_equal_in_every_level():
    images = np.concatenate([NOISE[:5], NOISE[:5] ^ 1, NOISE[10:]])
    found = find_copies(images, NOISE[:5])
    np.testing.assert_array_equal(np.flatnonzero(found.exact), range(5))
    np.testing.assert_array_equal(np.flatnonzero(found.near), range(5, 10))


@pytest.mark.parametrize("quality", [95, 75])
def test_an_image_saved_again_as_jpeg_is_a_near_copy(quality, photographs):
    for images in (photographs, NOISE):
        found = find_copies(np.array([as_jpeg(image, quality) for image in images]), images)
        assert (found.near | found.exact).mean() > 0.9


@pytest.mark.parametrize("versions", [2, 4])
def test_near_copies_are_found_where_the_test_set_holds_a_picture_several_times(versions, photographs):
    tests = [np.array([as_jpeg(image, quality) for image in photographs]) for quality in (96, 90, 85, 80)[:versions]]
    found = find_copies(np.array([as_jpeg(image, 75) for image in photographs]), np.concatenate(tests))
    assert found.near.mean() > 0.9


def test_other_parts_of_one_photograph_are_no_copies(photographs):
    found = find_copies(photographs[::2], photographs[1::2])
    assert not found.exact.any() and not found.near.any()


@pytest.mark.parametrize("tests", [20, 500])
def test_two_like_digits_are_no_copies(tests):
    digits = load("digits")
    found = find_copies(digits.train_images, digits.test_images[:tests])
    assert not found.exact.any() and not found.near.any()


def test_images_that_show_nothing_are_copies_only_where_they_are_equal():
    flat = np.full((3, 8, 8, 1), [[[[0]]], [[[1]]], [[[2]]]], np.uint8)
    found = find_copies(flat, flat[:1])
    assert found.exact.tolist() == [True, False, False] and not found.near.any()


def folder_of_copies(root, count: int = 10):
    for k, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        (root / "unlabelled").mkdir(exist_ok=True)
        for i in range(count):
            picture = Image.fromarray(NOISE[(10 * k + i) % 20])
            picture.save(root / name / f"{i}.png")
            picture.save(root / "unlabelled" / f"{name}{i}.bmp")
    return root


def holds(dataset: Dataset, images: np.ndarray) -> int:
    pool = {image.tobytes() for image in dataset.train_images}
    return sum(image.tobytes() in pool for image in images)


def test_copies_of_test_and_validation_images_are_left_out_and_named(tmp_path):
    options = Options(dataset=f"folder:{folder_of_copies(tmp_path)}", labels="all", validation=2)
    data = load_data(options)
    assert holds(data.dataset, data.dataset.test_images) == holds(data.dataset, data.validation[0]) == 0
    assert (data.dataset.train_labels == HIDDEN).sum() == 20 - 4 - 2
    read = describe_reading(data)
    left = read.left_out["equal to a test image"]
    assert len(left) == 4 and all(name.startswith("unlabelled/") for name in left)
    assert len(read.left_out["equal to a validation image"]) == 2 and "6 files left out" in read.line


def test_copies_are_kept_where_that_is_asked_for(tmp_path):
    data = load(f"folder:{folder_of_copies(tmp_path)}", keep_copies=True)
    assert holds(data, data.test_images) == 4


def test_a_class_of_nothing_but_copies_is_kept_with_a_warning(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.fromarray(NOISE[0] if name == "cat" else NOISE[i]).save(tmp_path / name / f"{i}.png")
    data = load(f"folder:{tmp_path}")
    assert (data.train_labels == 0).sum() == 4
    assert any("all 4 training images of class 'cat' are copies" in warning for warning in data.reading.warnings)


def test_arrays_are_looked_through_too(tmp_path):
    labels = np.arange(10) % 2
    arrays = {"train_images": NOISE[:10], "train_labels": labels, "test_images": NOISE[8:18], "test_labels": labels}
    np.savez(tmp_path / "x.npz", **arrays)
    data = load(f"npz:{tmp_path / 'x.npz'}")
    assert len(data.train_labels) == 8
    assert data.reading.left_out["equal to a test image"] == ["train_images[8]", "train_images[9]"]


def arrays_in(path, train, test):
    labels = {"train_labels": np.arange(len(train)) % 2, "test_labels": np.arange(len(test)) % 2}
    np.savez(path, train_images=train, test_images=test, **labels)
    return f"npz:{path}"


def test_images_of_no_class_that_copy_a_held_out_image_are_left_out_too(tmp_path, photographs):
    """The other set's training images hold five tests as they are, and five nearly."""
    known = arrays_in(tmp_path / "known.npz", np.concatenate([NOISE[10:], photographs[:10]]), NOISE[:10])
    other = arrays_in(
        tmp_path / "other.npz", np.concatenate([NOISE[:5], NOISE[5:10] ^ 1, photographs[10:20]]), photographs[22:]
    )
    options = {"labels": "4", "validation": 3, "mask": Scheme(out_of_distribution=0.2)}
    data = load_data(Options(dataset=known, out_of_distribution_dataset=other, **options))
    assert holds(data.dataset, np.concatenate([NOISE[:5], NOISE[5:10] ^ 1])) == 0
    left = describe_reading(data).left_out
    assert len(left["of no class, and equal to a test image"]) == 5
    assert len(left["of no class, and nearly equal to a test image"]) == 5
    kept = load_data(Options(dataset=known, out_of_distribution_dataset=other, keep_copies=True, **options))
    assert holds(kept.dataset, NOISE[:5]) == 5


def test_copies_of_validation_images_are_found_whose_pixels_then_go_missing(tmp_path):
    path = arrays_in(tmp_path / "x.npz", np.concatenate([NOISE[:12]] * 2), NOISE[12:])
    whole, damaged = (
        load_data(Options(dataset=path, labels="4", validation=6, missing_pixels=share)) for share in (0.0, 0.2)
    )
    for data in (whole, damaged):
        assert len(describe_reading(data).left_out["equal to a validation image"]) > 2
    assert len(whole.dataset.train_labels) == len(damaged.dataset.train_labels)
    assert not np.array_equal(whole.validation[0], damaged.validation[0])


def test_published_sets_stay_as_they_are_known():
    digits = load("digits")
    assert len(digits.train_labels) == 1297 and digits.reading is not None and not digits.reading.left_out


def test_the_line_says_what_was_read(tmp_path):
    root = folder_of_copies(tmp_path)
    (root / "cat" / "Thumbs.db").write_bytes(b"x")
    Image.fromarray(np.full((40, 64), 4095, np.uint16)).save(root / "unlabelled" / "wide.png")
    data = load(f"folder:{root}")
    line = summary.line(data, 0, [16])
    for words in (
        "2 classes, labelled: cat (8), dog (8)",
        "33 training images, 16 labelled, 17 unlabelled (each seed sees 16 labels)",
        "0 validation, 4 test",
        "32 x 32 RGB from files of 32 x 32 (40), 64 x 40 (1) in RGB (40), 16-bit grey (1)",
        "resized to 32 x 32 (1)",
        "16 bits made 8 (1)",
        "grey repeated as RGB (1)",
        "5 files left out: 1 hidden or system (cat/Thumbs.db), 4 equal to a test image (unlabelled/",
    ):
        assert words in line
    assert "\n" not in line
    assert any("1 of 1 16-bit images" in warning for warning in data.reading.warnings)
    assert "1 of 41 images have one level in every pixel" in data.reading.warnings
