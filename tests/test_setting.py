"""What a run is trained on fits together, or is refused."""

import pytest

from ssl_gen import run
from ssl_gen.datasets.masking import Scheme
from ssl_gen.methods.adversarial import feature_matching
from ssl_gen.methods.classical import supervised
from ssl_gen.setting import Options, check_pool, initial_rows, load_data
from ssl_gen.types import UserError


def test_a_method_that_needs_unlabelled_images_is_refused_a_mask_that_leaves_none(tmp_path):
    options = Options(labels="all", mask=Scheme(disjoint=True), out=tmp_path / "run")
    with pytest.raises(UserError, match="no image is left unlabelled"):
        run.train("feature_matching", feature_matching.Config(steps=1), options)


def test_a_method_of_labels_alone_may_have_them_all():
    data = load_data(Options(labels="all", mask=Scheme(disjoint=True)))
    check_pool(data, supervised.make(supervised.Config(), data.dataset.spec).phases)
    assert initial_rows(data).unlabelled.shape == (1, 500)


def test_foreign_images_need_a_source():
    with pytest.raises(UserError, match="--foreign-dataset"):
        load_data(Options(mask=Scheme(foreign=0.5)))


def test_foreign_images_join_the_pool_and_nothing_else():
    data = load_data(Options(mask=Scheme(foreign=0.5), foreign_dataset="shapes:16:2000", size=16))
    own = len(load_data(Options()).dataset.train_labels)
    pool = data.masks[0].pool
    assert (pool >= own).mean() == pytest.approx(0.5, abs=1e-3)
    assert (data.masks[0].labels[own:] < 0).all()
