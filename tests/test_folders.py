"""Folders of pictures: what is read, and one line for each thing that can be wrong with a folder."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_gen.datasets import summary
from ssl_gen.datasets.dataset import HIDDEN, Dataset
from ssl_gen.datasets.image_files import read_picture
from ssl_gen.datasets.sources import load
from ssl_gen.runs.evaluate import evaluate
from ssl_gen.runs.options import Options
from ssl_gen.runs.train import train
from ssl_gen.types import ImageSpec, UserError


def picture(path: Path, level: int = 0, size: tuple[int, int] = (10, 12), mode: str = "RGB", **options) -> np.ndarray:
    """Writes a lossless random picture of (width, height) `size`; returns its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    pixels = np.random.default_rng(level).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def two_classes(root: Path, count: int = 5, **options) -> Path:
    for k, name in enumerate(("cat", "dog")):
        for i in range(count):
            picture(root / name / f"{i}.png", 100 * k + i, **options)
    return root


def read(root: Path, **options) -> Dataset:
    return load(f"folder:{root}", **options)


def refusal(root: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        read(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_fifth_of_every_class_becomes_the_test_set_and_no_image_is_lost(tmp_path):
    data = read(two_classes(tmp_path, count=11))
    assert data.class_names == ("cat", "dog")
    np.testing.assert_array_equal(np.bincount(data.test_labels), [2, 2])
    np.testing.assert_array_equal(np.bincount(data.train_labels), [9, 9])
    found = {image.tobytes() for image in (*data.train_images, *data.test_images)}
    assert found == {np.asarray(Image.open(path)).tobytes() for path in tmp_path.glob("*/*.png")}


def test_training_images_come_in_sorted_order_with_their_own_labels(tmp_path):
    data = read(two_classes(tmp_path))
    expected = {
        np.asarray(Image.open(p)).tobytes(): (i, p.parent.name) for i, p in enumerate(sorted(tmp_path.rglob("*.png")))
    }
    order = [expected[image.tobytes()] for image in data.train_images]
    assert order == sorted(order)
    assert [data.class_names[k] for k in data.train_labels] == [name for _, name in order]


def test_reading_twice_gives_the_same_data_and_so_does_moving_the_folder(tmp_path):
    first = read(two_classes(tmp_path / "here")).sha256
    assert first == read(tmp_path / "here").sha256
    (tmp_path / "here").rename(tmp_path / "there")
    assert first == read(tmp_path / "there").sha256


@pytest.mark.parametrize("name", ["unlabelled", "unlabeled"])
def test_unlabelled_pictures_are_hidden_and_no_class(tmp_path, name):
    pixels = picture(two_classes(tmp_path) / name / "x.png", 999)
    data = read(tmp_path)
    assert data.class_names == ("cat", "dog")
    np.testing.assert_array_equal(data.train_images[data.train_labels == HIDDEN], pixels[None])


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "PNG"])
def test_lossless_formats_come_back_exactly(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    pixels = picture(two_classes(tmp_path) / "unlabelled" / f"x.{suffix}", 999, **options)
    np.testing.assert_array_equal(read(tmp_path).train_images[-1], pixels)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "gif"])
def test_lossy_formats_come_back_as_pillow_reads_them(tmp_path, suffix):
    picture(two_classes(tmp_path) / "unlabelled" / f"x.{suffix}", 999)
    expected = np.asarray(Image.open(tmp_path / "unlabelled" / f"x.{suffix}").convert("RGB"))
    np.testing.assert_array_equal(read(tmp_path).train_images[-1], expected)


def test_train_and_test_folders_are_kept_apart(tmp_path):
    two_classes(tmp_path / "train", count=3)
    pixels = picture(tmp_path / "test" / "dog" / "0.png", 777)
    data = read(tmp_path)
    assert len(data.train_labels) == 6 and data.test_labels.tolist() == [1]
    np.testing.assert_array_equal(data.test_images[0], pixels)


def test_a_class_may_be_called_train(tmp_path):
    for i in range(3):
        picture(tmp_path / "train" / f"{i}.png", i)
        picture(tmp_path / "car" / f"{i}.png", 10 + i)
    assert read(tmp_path).class_names == ("car", "train")


def flat(root: Path, table: str) -> Path:
    for i in range(6):
        picture(root / f"{i}.png", i)
    (root / "labels.csv").write_text(table)
    return root


def test_a_flat_folder_takes_its_labels_from_labels_csv_and_the_rest_is_hidden(tmp_path):
    data = read(flat(tmp_path, "file,label,probability\n0.png,b,1\n1.png,a,1\n2.png,b,1\n3.png,a,1\n4.png,,0\n"))
    assert data.class_names == ("a", "b")
    hidden = data.train_images[data.train_labels == HIDDEN]
    expected = [np.asarray(Image.open(tmp_path / f"{i}.png")) for i in (4, 5)]
    np.testing.assert_array_equal(hidden, expected)
    assert data.test_labels.tolist() in ([0, 1], [1, 0])


def test_all_grey_pictures_keep_one_channel(tmp_path):
    assert read(two_classes(tmp_path, mode="L")).spec == ImageSpec(12, 10, 1, 2)


GREY = np.arange(120, dtype=np.uint8).reshape(12, 10)
HELD = {
    "L.png": Image.fromarray(GREY),
    "LA.png": Image.fromarray(GREY).convert("LA"),
    "palette.png": Image.fromarray(GREY).convert("P"),
    "palette.gif": Image.fromarray(GREY),
    "RGB.png": Image.fromarray(GREY).convert("RGB"),
    "RGBA.png": Image.fromarray(GREY).convert("RGBA"),
    "RGB.webp": Image.fromarray(GREY),
    "16.png": Image.fromarray(GREY.astype(np.uint16) * 256 + 7),
}


@pytest.mark.parametrize("file", HELD)
def test_grey_is_one_channel_however_a_file_holds_it(file, tmp_path):
    HELD[file].save(tmp_path / file, **({"lossless": True} if file.endswith("webp") else {}))
    np.testing.assert_array_equal(read_picture(tmp_path / file).pixels, GREY)


def test_sixteen_bit_grey_with_a_transparent_value_is_white_there_and_not_clipped(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 256 + 7).save(tmp_path / "x.png", transparency=5 * 256 + 7)
    np.testing.assert_array_equal(read_picture(tmp_path / "x.png").pixels, np.where(GREY == 5, 255, GREY))


def test_one_colour_picture_makes_all_three_channels(tmp_path):
    grey = picture(two_classes(tmp_path, mode="L") / "unlabelled" / "a.png", 5, mode="L")
    picture(tmp_path / "unlabelled" / "b.png")
    data = read(tmp_path)
    assert data.spec.channels == 3
    np.testing.assert_array_equal(data.train_images[-2], np.repeat(grey[..., None], 3, -1))


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path):
    two_classes(tmp_path, mode="L")
    (tmp_path / "unlabelled").mkdir()
    wide = np.arange(120, dtype=np.uint16).reshape(12, 10) * 512
    Image.fromarray(wide).save(tmp_path / "unlabelled" / "x.png")
    np.testing.assert_array_equal(read(tmp_path).train_images[-1, ..., 0], wide >> 8)


def test_transparent_parts_become_white(tmp_path):
    pixels = picture(two_classes(tmp_path) / "unlabelled" / "x.png", 5, mode="RGBA")
    pixels[..., 3] = 0
    Image.fromarray(pixels).save(tmp_path / "unlabelled" / "x.png")
    assert np.all(read(tmp_path).train_images[-1] == 255)


def test_a_picture_taken_sideways_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the top row of the scene is the right column of the file
    pixels = picture(two_classes(tmp_path, size=(12, 12)) / "unlabelled" / "x.png", 5, size=(12, 12), exif=exif)
    np.testing.assert_array_equal(read(tmp_path).train_images[-1], np.rot90(pixels, -1))


def test_mixed_sizes_become_32_and_are_antialiased(tmp_path):
    large = picture(two_classes(tmp_path) / "unlabelled" / "x.png", 5, size=(400, 400))
    data = read(tmp_path)
    assert data.spec.shape == (32, 32, 3)
    # Antialiasing averages 12 x 12 independent pixels: the spread shrinks several-fold, where point sampling keeps it.
    assert data.train_images[-1].std() < large.std() / 4


def test_pictures_too_large_for_a_network_become_32(tmp_path):
    assert read(two_classes(tmp_path, size=(200, 200))).spec.shape == (32, 32, 3)


def test_a_size_is_obeyed_whatever_the_pictures_are(tmp_path):
    assert read(two_classes(tmp_path), size=16).spec.shape == (16, 16, 3)


@pytest.mark.parametrize("size", [7, 129, 0, -1])
def test_a_size_outside_8_to_128_is_refused(tmp_path, size):
    assert "sides must be 8 to 128" in refusal(two_classes(tmp_path), size=size)


def test_hidden_files_are_ignored(tmp_path):
    (two_classes(tmp_path) / "cat" / ".DS_Store").write_bytes(b"x")
    assert read(tmp_path).skipped == ()


def test_a_missing_folder_is_named(tmp_path):
    assert f"There is no folder '{tmp_path / 'nowhere'}'" in refusal(tmp_path / "nowhere")


def test_an_empty_folder_is_refused(tmp_path):
    assert f"{tmp_path} is empty" in refusal(tmp_path)


def test_a_class_folder_without_images_is_named(tmp_path):
    (two_classes(tmp_path) / "emu").mkdir()
    assert f"Class folder {tmp_path / 'emu'} has no images" in refusal(tmp_path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp"])
def test_a_truncated_image_is_named(tmp_path, suffix):
    picture(two_classes(tmp_path) / "cat" / f"x.{suffix}", 5)
    truncate(tmp_path / "cat" / f"x.{suffix}")
    assert f"{tmp_path / 'cat' / 'x'}.{suffix} cannot be read as an image" in refusal(tmp_path)


def test_a_file_that_only_calls_itself_an_image_is_named(tmp_path):
    (two_classes(tmp_path) / "cat" / "x.png").write_text("hello")
    assert f"{tmp_path / 'cat' / 'x.png'} cannot be read as an image" in refusal(tmp_path)


def test_a_file_that_is_no_image_is_named(tmp_path):
    (two_classes(tmp_path) / "cat" / "notes.txt").write_text("hello")
    assert f"{tmp_path / 'cat' / 'notes.txt'} is no image" in refusal(tmp_path)


def test_skip_unreadable_leaves_such_files_out_and_lists_them(tmp_path):
    expected = read(two_classes(tmp_path)).sha256
    picture(tmp_path / "cat" / "x.png", 5)
    truncate(tmp_path / "cat" / "x.png")
    (tmp_path / "dog" / "notes.txt").write_text("hello")
    data = read(tmp_path, skip_unreadable=True)
    assert data.skipped == ("cat/x.png", "dog/notes.txt") and data.sha256 == expected


def test_a_class_with_nothing_left_after_skipping_is_named(tmp_path):
    (two_classes(tmp_path) / "emu").mkdir()
    (tmp_path / "emu" / "x.png").write_text("hello")
    assert "Class 'emu'" in refusal(tmp_path, skip_unreadable=True)


def test_a_class_of_one_is_trained_on_and_not_tested_and_the_others_are_split_as_without_it(tmp_path):
    before = read(two_classes(tmp_path))
    only = picture(tmp_path / "emu" / "0.png", 300)
    data = read(tmp_path)
    assert data.class_names == ("cat", "dog", "emu")
    np.testing.assert_array_equal(data.train_images[data.train_labels == 2], only[None])
    np.testing.assert_array_equal(data.test_images, before.test_images)
    np.testing.assert_array_equal(data.train_images[data.train_labels != 2], before.train_images)


def test_where_every_class_has_one_image_nothing_could_be_tested(tmp_path):
    assert "No class in" in refusal(two_classes(tmp_path, count=1)) and "add a test/" in refusal(tmp_path)


def test_the_line_of_what_was_read_names_the_classes_without_a_test_image(tmp_path):
    assert "0 validation, 2 test; " in summary.line(read(two_classes(tmp_path)))
    picture(tmp_path / "emu" / "0.png", 300)
    picture(tmp_path / "yak" / "0.png", 400)
    assert "0 validation, 2 test, none of emu, yak, which no error counts; " in summary.line(read(tmp_path))


def test_a_class_without_a_test_image_has_no_error_and_spoils_none(tmp_path):
    picture(two_classes(tmp_path / "pictures") / "emu" / "0.png", 300)
    options = Options(
        f"folder:{tmp_path / 'pictures'}", labels="all", features="pixels", quiet=True, out=tmp_path / "run"
    )
    final = train("linear", None, options).final
    errors = {name: summary["mean"] for name, summary in final.per_class_error.items()}
    assert errors["emu"] is None and {errors["cat"], errors["dog"]} <= {0.0, 100.0}  # a test image each
    metrics = {name: final.metrics[name]["mean"] for name in ("error", "balanced_error", "worst_class_error")}
    mean, worst = (errors["cat"] + errors["dog"]) / 2, max(errors["cat"], errors["dog"])
    assert metrics == {"error": mean, "balanced_error": mean, "worst_class_error": worst}
    assert final.confusion[2] == [0, 0, 0] and "nll" in final.metrics
    assert not set(final.unmeasured) & {"error", "balanced_error", "worst_class_error", "nll", "calibration_error"}
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_run_goes_on_and_is_measured_where_its_pictures_have_moved_to(tmp_path):
    def options(place, **changes):
        return Options(f"folder:{place}", labels="all", features="pixels", quiet=True, out=tmp_path / "run", **changes)

    two_classes(tmp_path / "old" / "pictures", count=6)
    found = train("linear", None, options(tmp_path / "old" / "pictures"))
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(UserError, match="no folder"):
        evaluate(tmp_path / "run", ("error",))
    again = evaluate(tmp_path / "run", ("error",), data_dir=tmp_path / "new")
    assert again.metrics["error"] == found.final.metrics["error"]
    assert train("linear", None, options(tmp_path / "new" / "pictures")).final.metrics == again.metrics
    picture(tmp_path / "new" / "pictures" / "cat" / "more.png", 123)
    with pytest.raises(UserError, match="holds a run with data"):
        train("linear", None, options(tmp_path / "new" / "pictures"))


def test_labels_csv_naming_an_absent_file_is_refused(tmp_path):
    assert "names '9.png', which is not in" in refusal(flat(tmp_path, "file,label\n0.png,a\n9.png,b\n"))


TABLES = {
    "cat,dog\n0.png,a\n": "naming the columns: file,label",
    "file,label\n0.png,a\n0.png,b\n": "line 3: '0.png' is listed twice",
    "file,label\n0.png\n": "line 2: a file name and a label are needed",
    "file,label\n": "gives no file a label",
}


def test_a_files_name_may_begin_with_a_space_and_one_that_is_typed_with_spaces_is_found(tmp_path):
    flat(tmp_path, "file,label\n lead.png,a\n 0.png ,b\n1.png,a\n2.png,b\n3.png,a\n")
    picture(tmp_path / " lead.png", 77)
    data = read(tmp_path)
    assert data.class_names == ("a", "b") and (data.train_labels >= 0).sum() + len(data.test_labels) == 5
    (tmp_path / "labels.csv").write_text("file,label\n0.png,a\n 0.png,b\n")
    assert "'0.png' is listed twice" in refusal(tmp_path)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_none_is_refused(tmp_path, table):
    assert TABLES[table] in refusal(flat(tmp_path, table))


def test_pictures_outside_a_class_folder_are_refused(tmp_path):
    picture(two_classes(tmp_path) / "stray.png")
    assert "outside a class folder" in refusal(tmp_path)


def test_folders_within_a_class_are_refused(tmp_path):
    picture(two_classes(tmp_path) / "cat" / "more" / "0.png")
    assert f"{tmp_path / 'cat' / 'more'} is a folder inside a class folder" in refusal(tmp_path)


def test_a_class_that_is_only_tested_is_refused(tmp_path):
    two_classes(tmp_path / "train")
    picture(tmp_path / "test" / "emu" / "0.png")
    assert "Class 'emu' is in" in refusal(tmp_path)


def test_test_images_without_a_label_are_refused(tmp_path):
    two_classes(tmp_path / "train")
    picture(two_classes(tmp_path / "test") / "unlabelled" / "0.png")
    assert "is a test image without a label" in refusal(tmp_path)
