"""The whole table of damage: every file of a run, an export and the cache x what can happen to it x every command.

Below the outermost handler of exceptions: whatever is no UserError of one line counts as a traceback.
"""

import collections
import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from damage import DAMAGES, answer, files_of
from PIL import Image
from tiny import same

from ssl_gen.core.machine import cache_folder
from ssl_gen.reports import records
from ssl_gen.runs import export, load

EVERY = int(os.environ.get("EVERY", "1"))  # one cell of the table in so many, in turn
COMMANDS = ("sample", "predict", "export", "compare", "evaluate", "train")


@pytest.fixture
def place(tmp_path):
    """A folder with two pictures to label."""
    (tmp_path / "pictures").mkdir()
    for number in range(2):
        image = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(image).save(tmp_path / "pictures" / f"{number}.png")
    return tmp_path


def words_of(command, folder, other):
    """A command on a run folder, and what it writes besides."""
    beside = folder.parent
    made = shlex.split(records.load_run(other).command)[1:]
    made[made.index("--out") + 1] = str(folder)
    return {
        "sample": ["sample", folder, "--count", "2", "--out", beside / "grid.png"],
        "predict": ["predict", folder, beside / "pictures", "--out", beside / "predicted.csv"],
        "export": ["export", folder, "--out", beside / "out"],
        "compare": ["compare", folder, other, "--out", beside / "compare.html"],
        "evaluate": ["evaluate", folder, "--metrics", "error"],
        "train": made,
    }[command]


def cells(names):
    """The cells of the table that are looked at: (file, damage, command)."""
    found = [(file, damage, command) for file in names for damage in DAMAGES for command in COMMANDS]
    return found[::EVERY]


def results(folder):
    """What a command on a run gave: the tables, pictures and weights that it wrote beside it."""
    kept = {}
    for name in ("grid.png", "predicted.csv"):
        if (folder.parent / name).exists():
            kept[name] = (folder.parent / name).read_bytes()
    out = folder.parent / "out"
    if out.exists():
        card = json.loads((out / "model.json").read_text())
        named = {name: value for name, value in card.items() if name not in ("programs", "sha256")}
        kept |= {"weights": (out / "model.safetensors").read_bytes(), "card": named}  # StableHLO has no one form
    return kept


def cleared(place):
    """The place without what commands wrote there."""
    for name in ("run", "out"):
        shutil.rmtree(place / name, ignore_errors=True)
    for name in ("grid.png", "predicted.csv", "compare.html"):
        (place / name).unlink(missing_ok=True)
    return place


@pytest.mark.slow
def test_every_file_of_a_run_damaged_under_every_command(finished, place):
    run, counts, bad = finished("m2"), collections.Counter(), []
    final, states = records.load_final(run), load.load(run).states
    usual = {}
    for command in COMMANDS:
        folder = Path(shutil.copytree(run, cleared(place) / "run"))
        assert answer(words_of(command, folder, run)).kind == "done"
        usual[command] = results(folder)
    for file, damage, command in cells(files_of(run)):
        folder = Path(shutil.copytree(run, cleared(place) / "run"))
        DAMAGES[damage](folder / file)
        got = answer(words_of(command, folder, run))
        silent = got.kind == "done" and not got.said
        counts[command, got.kind if not silent else "done, no word"] += 1
        if got.kind not in ("done", "refused"):
            bad.append((file, damage, command, "traceback", got.said[:300]))
        elif silent and results(folder) != usual[command]:
            bad.append((file, damage, command, "another result without a word"))
        if got.kind == "refused" and "\n" in got.said:
            bad.append((file, damage, command, "more than a line", got.said))
        if command == "train" and got.kind == "done":
            after = records.load_final(folder)
            whole = all(map(same, load.load(folder).states, states)) and after.metrics == final.metrics
            whole = whole and (folder / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
            whole = whole and (folder / "report.html").read_text().endswith("</html>\n")
            counts["train", "bit-identical afterwards"] += whole
            bad += [] if whole else [(file, damage, command, "another end")]
    for key, number in sorted(counts.items()):
        print(*key, number)
    assert not bad, bad


@pytest.mark.slow
def test_every_file_of_an_export_damaged(finished, tmp_path):
    export.save(finished("m2"), tmp_path / "out")
    refused = 0
    for file in files_of(tmp_path / "out"):
        for damage in DAMAGES:
            folder = Path(shutil.copytree(tmp_path / "out", tmp_path / "copy"))
            DAMAGES[damage](folder / file)
            with pytest.raises(export.UserError) as raised:
                export.load(folder)
            assert "\n" not in str(raised.value)
            refused += 1
            shutil.rmtree(folder)
    print("an export:", refused, "of", refused, "refused in one line")


@pytest.mark.slow
def test_every_file_of_the_cache_damaged_costs_no_metric(finished, place, monkeypatch):
    """The features of real images; the measured numbers are the same, and the file is whole again afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    words = ["--metrics", "fid", "copying"]
    run = Path(shutil.copytree(finished("m2"), place / "run"))
    assert answer(["evaluate", run, *words]).kind == "done"
    before = {name: (cache_folder() / name).read_bytes() for name in files_of(cache_folder())}
    metrics = records.load_final(run).metrics
    assert len(before) >= 4
    for file in before:
        for damage in DAMAGES:
            DAMAGES[damage](cache_folder() / file)
            got = answer(["evaluate", run, *words])
            assert got == ("done", "") and records.load_final(run).metrics == metrics, (file, damage, got)
            assert (cache_folder() / file).read_bytes() == before[file]
    print("the cache:", 4 * len(before), "recovered")


@pytest.mark.slow
def test_single_bits_of_a_checkpoint_never_export_other_weights(finished, tmp_path):
    """300 bits of the last checkpoint's files, drawn: the weights are the same, or what is read says so."""
    run = finished("m2")
    states, noticed = load.load(run).states, 0
    random = np.random.default_rng(0)
    names = [name for name in files_of(run) if name.startswith("checkpoints/6/")]
    sizes = np.array([(run / name).stat().st_size for name in names])
    for number in range(300 // EVERY):
        folder = Path(shutil.copytree(run, tmp_path / "run"))
        file = folder / names[random.choice(len(names), p=sizes / sizes.sum())]
        data = bytearray(file.read_bytes())
        data[random.integers(len(data))] ^= 1 << random.integers(8)
        file.write_bytes(data)
        loaded = load.load(folder)
        if loaded.final is None:
            noticed += 1
        else:
            assert all(map(same, loaded.states, states)), (number, file)
        shutil.rmtree(folder)
    print(f"{300 // EVERY} bits: {noticed} noticed, the others changed nothing")
