"""`--mask.kind suggested --suggested-by RUN`: the labels of an earlier run, and those that it asks for next."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from ssl_gen.core.plain import to_plain
from ssl_gen.datasets import suggesting
from ssl_gen.datasets.masking import Scheme
from ssl_gen.reports import records
from ssl_gen.runs import load, rounds, train
from ssl_gen.runs.data import load_data
from ssl_gen.runs.options import Options
from ssl_gen.types import UserError

FIRST = Options(labels="12", seeds=2, mask=Scheme("uniform"), quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the runs of two rounds lie: twelve labels by chance, then four more."""
    folder = tmp_path_factory.mktemp("rounds")
    train.train("linear", options=dataclasses.replace(FIRST, out=folder / "first"))
    train.train("linear", options=next_round(folder, "16"))
    return folder


def next_round(folder, labels, before="first", **changes):
    asked = {"mask": Scheme("suggested"), "suggested_by": str(folder / before), "out": folder / f"after-{before}"}
    return dataclasses.replace(FIRST, labels=labels, **asked | changes)


def visible(mask):
    return set(np.flatnonzero(mask.labels >= 0))


def test_each_seed_keeps_its_labels_and_gets_those_that_its_own_classifier_asks_for(folder):
    first, (_, after) = load_data(FIRST), load.data_of(load.load(folder / "after-first"))
    run, images = load.load(folder / "first"), first.dataset.train_images
    for replica, seed in enumerate(first.seeds):
        before = visible(first.masks[replica])
        taken = np.isin(np.arange(len(images)), list(before))
        guesses = np.exp(np.asarray(run.compiled.method.classify(run.states[replica], images / 127.5 - 1)))
        asked = suggesting.uncertain_rows(guesses, images.reshape(len(images), -1), taken, 4, seed)
        assert visible(after.masks[replica]) == before | set(asked)
        rows = np.flatnonzero(after.masks[replica].labels >= 0)
        np.testing.assert_array_equal(after.masks[replica].labels[rows], first.dataset.train_labels[rows])
    assert [mask.name for mask in after.masks] == ["digits@16-suggested-s0", "digits@16-suggested-s1"]
    assert visible(after.masks[0]) != visible(after.masks[1])


def test_a_third_round_goes_on_from_what_the_second_recorded(folder):
    second = load.data_of(load.load(folder / "after-first"))[1]
    third = load_data(*choosing(next_round(folder, "20", "after-first")))
    for before, after in zip(second.masks, third.masks, strict=True):
        assert visible(before) < visible(after) and after.visible == 20


def test_a_run_is_evaluated_without_the_run_that_chose_its_labels(folder, tmp_path):
    shutil.copytree(folder / "after-first", tmp_path / "alone")
    options, data = load.data_of(load.load(tmp_path / "alone"), suggested_by=str(tmp_path / "lost"))
    assert options.mask.kind == "suggested"
    assert [mask.sha256 for mask in data.masks] == [mask.sha256 for mask in records.load_run(tmp_path / "alone").masks]


def choosing(options):
    return options, rounds.chooser(options)


@pytest.mark.parametrize(
    ("labels", "changes", "said"),
    [
        ("16", {"suggested_by": None}, "--mask.kind suggested and --suggested-by RUN go together"),
        ("16", {"mask": Scheme("uniform")}, "--mask.kind suggested and --suggested-by RUN go together"),
        ("16", {"mask": Scheme("suggested", noise=0.5)}, "goes with disjoint alone"),
        ("16", {"mask": Scheme("suggested", seed=1)}, "goes with disjoint alone"),
        ("12", {}, "has 12 labels: give a number of --labels above it"),
        ("all", {}, "has 12 labels: give a number of --labels above it"),
        ("1298", {}, "1286 images to label are asked for, and 1285 have no label"),
        ("16", {"seeds": 3}, "has the seeds 0 to 1: use those"),
        ("16", {"validation": 100}, "was trained on other data"),
        ("16", {"suggested_by": "nowhere"}, "there is no run folder nowhere"),
    ],
)
def test_what_does_not_go_on_from_a_run_is_refused(folder, labels, changes, said):
    with pytest.raises(UserError, match=said):
        load_data(*choosing(next_round(folder, labels, **changes)))


def test_labels_that_are_not_those_of_the_record_are_refused(folder, tmp_path, monkeypatch):
    shutil.copytree(folder / "first", tmp_path / "first")
    (tmp_path / "first" / "final.json").unlink()  # which names the masks too
    record = records.load_run(tmp_path / "first")
    changed = [dataclasses.replace(mask, sha256="0" * 64) for mask in record.masks]
    records.write_json(tmp_path / "first" / "run.json", to_plain(dataclasses.replace(record, masks=changed)))
    with pytest.raises(UserError, match=r"another run than the checkpoints beside it, by masks\[0\]\.sha256"):
        load_data(*choosing(next_round(tmp_path, "16")))
    monkeypatch.setattr(load, "check_weights", lambda *_: None)  # of earlier versions: they do not say whose they are
    with pytest.raises(UserError, match="saw other labels than its record says"):
        load_data(*choosing(next_round(tmp_path, "16")))


def test_labels_that_were_made_wrong_are_not_gone_on_from(tmp_path):
    noisy = dataclasses.replace(FIRST, seeds=1, out=tmp_path / "first", mask=Scheme(noise=0.2))
    train.train("linear", options=noisy)
    with pytest.raises(UserError, match="saw wrong labels"):
        load_data(*choosing(next_round(tmp_path, "16", seeds=1)))


def test_only_rows_that_a_run_chose_stand_in_its_record(folder):
    first, second = (
        json.loads((folder / name / "run.json").read_text())["masks"][0] for name in ("first", "after-first")
    )
    assert first.get("rows") is None and len(second["rows"]) == 16
