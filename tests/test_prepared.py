"""Sets of tensorflow-datasets: read without TensorFlow, prepared with it, and what is said where neither can be."""

import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ssl_gen.datasets import disk, halfway, prepared
from ssl_gen.datasets.dataset import HIDDEN
from ssl_gen.datasets.prepared import prepare
from ssl_gen.datasets.sources import DATASETS, load
from ssl_gen.types import ImageSpec, UserError

ROOT = Path(__file__).parent.parent
MNIST = ROOT.parent / "shared" / "data" / "mnist"


def refusal(name: str, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        load(name, *arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def no_tensorflow(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find(name))


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """`tiny_pictures`: coloured pictures of varying size, with a validation split and an unlabelled one."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3))
        label = tfds.features.ClassLabel(names=["ant", "bee"])
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, _):
        generate = self._generate_examples
        return {"train": generate(6), "validation": generate(4), "unlabelled": generate(3, -1)}

    def _generate_examples(self, count, label=None):
        for i in range(count):
            file = io.BytesIO()  # encoded already, so that not even preparing it needs TensorFlow
            Image.fromarray(np.full((10 + i, 12, 3), 40 * i, np.uint8)).save(file, "PNG")
            file.seek(0)
            yield i, {"image": file, "label": i % 2 if label is None else label}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder = tfds.builder("tiny_pictures", data_dir=folder)
    builder.download_and_prepare(file_format="array_record", download_config=config)
    return folder


def test_a_prepared_set_is_read_with_validation_as_test_and_all_images_at_one_size(tiny):
    data = load("tiny_pictures", tiny)
    assert data.spec == ImageSpec(32, 32, 3, 2) and data.class_names == ("ant", "bee") and len(data.test_labels) == 4
    assert load("tiny_pictures", tiny, size=16).train_images.shape[1:] == (16, 16, 3)
    labelled = data.train_labels != HIDDEN
    np.testing.assert_array_equal(data.train_images[labelled][:, 0, 0, 0] // 40 % 2, data.train_labels[labelled])


def test_an_unlabelled_split_joins_the_training_images_as_hidden(tiny):
    assert np.sum(load("tiny_pictures", tiny).train_labels == HIDDEN) == 3


def test_where_a_process_was_killed_the_next_goes_on(tiny, tmp_path, monkeypatch, capsys):
    """In the second of three blocks of records, of which labels are kept beside images."""
    whole = load("tiny_pictures", tiny)
    monkeypatch.setattr(halfway, "NOTED", 0)
    monkeypatch.setattr(prepared, "ROWS", 3)
    own, seen = prepared.resize_one, []

    def cut(*arguments):
        seen.append(1)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return own(*arguments)

    def read():
        return prepared.load_prepared(
            "tiny_pictures", tiny, None, (), disk.in_folder(tmp_path / "work.part", again=True)
        )

    monkeypatch.setattr(prepared, "resize_one", cut)
    with pytest.raises(KeyboardInterrupt):
        read()
    found = read()
    assert len(seen) == 5 + 13 - 3 and "3 of 9 images are there already" in capsys.readouterr().err
    for one, other in zip(found.hashed[1:], whole.hashed[1:], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def imported(tiny):
    """What a Python of its own has imported after reading digits and then a prepared set."""
    script = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}];"
        "from ssl_gen.datasets import sources; sources.load('digits');"
        "print('tensorflow_datasets' in sys.modules); import test_prepared as tests;"
        f"assert len(tests.load('tiny_pictures', {str(tiny)!r}).train_labels) == 9; print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return dict(zip(("tensorflow_datasets", "tensorflow"), done.stdout.split(), strict=True))


def test_reading_a_prepared_set_does_not_import_tensorflow(imported):
    assert imported["tensorflow"] == "False"


def test_tensorflow_datasets_are_imported_only_where_a_set_of_theirs_is_asked_for(imported):
    assert imported["tensorflow_datasets"] == "False"


def leave_metadata(folder: Path, file_format: str) -> None:
    """Writes what preparing cifar10 would leave behind, less the records."""
    builder = tfds.builder("cifar10", data_dir=folder)
    template = tfds.core.ShardedFileTemplate(builder.data_path, dataset_name="cifar10", filetype_suffix=file_format)
    splits = [
        tfds.core.SplitInfo(name=name, shard_lengths=[7], num_bytes=0, filename_template=template.replace(split=name))
        for name in ("train", "test")
    ]
    builder.info.set_splits(tfds.core.SplitDict(splits))
    builder.info.set_file_format(file_format, override=True)
    builder.data_path.mkdir(parents=True)
    builder.info.write_to_directory(builder.data_path)


def test_a_set_of_tensorflow_datasets_is_loaded_by_its_name(tmp_path):
    leave_metadata(tmp_path, "array_record")
    with tfds.testing.mock_data(7, policy=tfds.testing.MockPolicy.USE_FILES, data_dir=str(tmp_path)):
        data = load("cifar10", tmp_path)
        records = list(tfds.data_source("cifar10", split="train", data_dir=tmp_path))
    np.testing.assert_array_equal(data.train_images, [record["image"] for record in records])
    assert data.spec == ImageSpec(32, 32, 3, 10) and len(data.test_labels) == 7


def test_a_set_that_is_not_prepared_says_how_to_prepare_it(tmp_path, no_tensorflow):
    said = refusal("cifar10", tmp_path)
    assert "pip install 'ssl-gen[prepare]'" in said and f"put cifar-10-binary.tar.gz into {tmp_path}" in said


def test_mnist_that_is_nowhere_says_that_the_original_files_will_do(tmp_path, no_tensorflow):
    assert "four original files" in refusal("mnist", tmp_path)


def test_a_set_that_is_not_for_classification_is_refused(tmp_path):
    assert "no set for image classification" in refusal("ag_news_subset", tmp_path)


def test_a_set_prepared_in_another_format_says_so(tmp_path):
    leave_metadata(tmp_path, "tfrecord")
    assert "not as array_record" in refusal("cifar10", tmp_path)


def test_every_listed_set_is_a_name_that_load_knows(tmp_path, no_tensorflow):
    for name in DATASETS:
        if name in ("digits", "shapes"):
            load(name)
        else:
            said = refusal(name, tmp_path)
            assert "is not prepared" in said or "There is no f" in said  # no folder PATH, no file PATH


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"the original MNIST files are not in {MNIST}")
@pytest.mark.slow
def test_the_real_mnist_is_prepared_without_a_network(tmp_path):
    pytest.importorskip("tensorflow", reason="preparing needs tensorflow-cpu: pip install 'ssl-gen[prepare]'")
    prepare("mnist", tmp_path, MNIST)
    data, original = load("mnist", tmp_path), load("mnist", MNIST)
    for one, other in ((data.train_images, original.train_images), (data.test_images, original.test_images)):
        assert sorted(image.tobytes() for image in one) == sorted(image.tobytes() for image in other)
    np.testing.assert_array_equal(np.bincount(data.train_labels), np.bincount(original.train_labels))
    script = f"import sys; from ssl_gen.datasets.sources import load; load('mnist', {str(tmp_path)!r});"
    script += "assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
