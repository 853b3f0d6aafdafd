"""npz files and what is done to a whole data set: out-of-distribution images, held-out images, hashing, sizes."""

from pathlib import Path

import numpy as np
import pytest

from ssl_gen.datasets import summary
from ssl_gen.datasets.dataset import HIDDEN, OUT_OF_DISTRIBUTION, Dataset, hold_out, with_out_of_distribution
from ssl_gen.datasets.sources import load
from ssl_gen.types import ImageSpec, UserError

RANDOM = np.random.default_rng(0)


def arrays(**changed) -> dict[str, np.ndarray]:
    made = {
        "train_images": RANDOM.integers(0, 256, (20, 9, 8, 3), np.uint8),
        "train_labels": np.arange(20) % 4,
        "test_images": RANDOM.integers(0, 256, (8, 9, 8, 3), np.uint8),
        "test_labels": np.arange(8) % 4,
    }
    return {key: value for key, value in (made | changed).items() if value is not None}


def saved(folder: Path, **changed) -> str:
    np.savez(folder / "x.npz", **arrays(**changed))
    return f"npz:{folder / 'x.npz'}"


def refusal(name: str) -> str:
    with pytest.raises(UserError) as caught:
        load(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def small(labels: list[int], channels: int = 1, side: int = 8) -> Dataset:
    images = RANDOM.integers(0, 256, (len(labels), side, side, channels), np.uint8)
    return Dataset("small", images, np.array(labels, np.int32), images[:1], np.zeros(1, np.int32), ("a", "b"))


def test_arrays_come_back_as_saved(tmp_path):
    made = arrays()
    data = load(saved(tmp_path, **made))
    for key, value in made.items():
        np.testing.assert_array_equal(getattr(data, key), value)
    assert data.class_names == ("0", "1", "2", "3")


def test_grey_arrays_without_a_channel_axis_and_the_names_of_keras_are_read(tmp_path):
    made = arrays(train_images=np.zeros((20, 9, 8), np.uint8), test_images=np.zeros((8, 9, 8), np.uint8))
    np.savez(tmp_path / "x.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), made.values(), strict=True)))
    assert load(f"npz:{tmp_path / 'x.npz'}").spec == ImageSpec(9, 8, 1, 4)


def test_unlabelled_images_join_the_training_images_as_hidden(tmp_path):
    extra = RANDOM.integers(0, 256, (5, 9, 8, 3), np.uint8)
    data = load(saved(tmp_path, unlabelled_images=extra))
    np.testing.assert_array_equal(data.train_images[data.train_labels == HIDDEN], extra)


def test_a_class_without_a_test_array_is_named_too(tmp_path):
    assert "8 test, none of 2, 3, which no error counts; " in summary.line(
        load(saved(tmp_path, test_labels=np.arange(8) % 2))
    )


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_an_object_array_is_refused_and_never_unpickled(tmp_path):
    name = saved(tmp_path, train_labels=np.array([Trap(tmp_path / "sprung")] * 20, object))
    assert "never unpickled" in refusal(name)
    assert not (tmp_path / "sprung").exists()


WRONG = {
    "no array test_labels": {"test_labels": None},
    "train_images is float64": {"train_images": np.zeros((20, 9, 8, 3))},
    "it must be 20 whole numbers": {"train_labels": np.zeros(19, int)},
    "train_labels is float64": {"train_labels": np.zeros(20)},
    "has a label -2": {"train_labels": np.full(20, -2)},
    "has a label -1": {"test_labels": np.full(8, -1)},
    "has the class 1": {"train_labels": np.arange(20) % 2 * 10**9},
    "test_labels has a class 4": {"test_labels": np.full(8, 4)},
    "test_images are (8, 8, 3)": {"test_images": np.zeros((8, 8, 8, 3), np.uint8)},
    "sides must be 8 to 128": {
        "train_images": np.zeros((20, 4, 4), np.uint8),
        "test_images": np.zeros((8, 4, 4), np.uint8),
    },
    "0 test images": {"test_images": np.zeros((0, 9, 8, 3), np.uint8), "test_labels": np.zeros(0, int)},
}


@pytest.mark.parametrize("said", WRONG)
def test_arrays_that_are_no_data_set_are_refused(tmp_path, said):
    assert said in refusal(saved(tmp_path, **WRONG[said]))


def test_a_missing_npz_file_is_named(tmp_path):
    assert f"There is no file '{tmp_path / 'x.npz'}'" in refusal(f"npz:{tmp_path / 'x.npz'}")


def test_a_damaged_npz_file_is_named(tmp_path):
    path = Path(saved(tmp_path).removeprefix("npz:"))
    path.write_bytes(path.read_bytes()[:900])
    assert f"{path} cannot be read as .npz (it is damaged)" in refusal(f"npz:{path}")


def test_a_single_array_is_no_data_set(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    assert "single array" in refusal(f"npz:{tmp_path / 'x.npy'}")


def test_a_size_brings_every_image_to_it(tmp_path):
    data = load(saved(tmp_path), size=12)
    assert data.train_images.shape == (20, 12, 12, 3) and data.test_images.shape == (8, 12, 12, 3)


def test_out_of_distribution_images_are_appended_resized_and_recoloured():
    data, other = small([0, 1, HIDDEN], channels=1), small([0, 1], channels=3, side=16)
    other = other._replace(train_images=np.full_like(other.train_images, 200))
    both = with_out_of_distribution(data, other)
    assert both.train_labels.tolist() == [0, 1, HIDDEN, OUT_OF_DISTRIBUTION, OUT_OF_DISTRIBUTION]
    assert both.spec == data.spec
    np.testing.assert_array_equal(both.train_images[:3], data.train_images)
    np.testing.assert_array_equal(both.train_images[3:], 200)
    np.testing.assert_array_equal(both.test_images, data.test_images)


def test_grey_out_of_distribution_images_are_repeated_over_the_channels():
    data, other = small([0, 1], channels=3), small([0, 1], channels=1)
    both = with_out_of_distribution(data, other)
    np.testing.assert_array_equal(both.train_images[2:], np.repeat(other.train_images, 3, -1))


def test_held_out_images_are_gone_from_training_and_none_is_lost():
    data = small([0] * 12 + [1] * 8 + [HIDDEN] * 5)
    rest, images, labels = hold_out(data, 9)
    assert np.bincount(labels).tolist() == [6, 3]  # 11 and 7 can be spared: 5.5 and 3.5, and a tie goes to the first
    kept = {image.tobytes() for image in rest.train_images}
    cut = {image.tobytes() for image in images}
    assert not kept & cut and kept | cut == {image.tobytes() for image in data.train_images}
    assert np.sum(rest.train_labels == HIDDEN) == 5


def test_holding_out_depends_on_the_seed_alone():
    data = small([0] * 12 + [1] * 8)
    assert hold_out(data, 9, 1)[0].sha256 == hold_out(data, 9, 1)[0].sha256 != hold_out(data, 9, 2)[0].sha256


def test_every_class_keeps_a_labelled_image():
    rest, _, labels = hold_out(small([0] * 12 + [1]), 11)
    assert np.bincount(rest.train_labels).tolist() == [1, 1] and labels.tolist() == [0] * 11


@pytest.mark.parametrize("count", [0, -1, 12])
def test_holding_out_more_than_can_be_spared_is_refused(count):
    with pytest.raises(UserError, match="give a number from 1 to 11"):
        hold_out(small([0] * 12 + [1]), count)


def test_the_hash_sees_every_image_label_and_class_name_but_not_the_name():
    data = small([0, 1, HIDDEN])
    other = data.train_images.copy()
    other[2, 7, 7, 0] ^= 1
    changes = [
        {"train_images": other},
        {"test_images": other[:1] + 1},
        {"train_labels": np.array([0, 1, 1], np.int32)},
        {"test_labels": np.ones(1, np.int32)},
        {"class_names": ("a", "c")},
    ]
    assert len({data.sha256, *(data._replace(**change).sha256 for change in changes)}) == 6
    assert data._replace(name="other").sha256 == data.sha256
