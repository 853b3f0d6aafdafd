"""Checkpoints that are damaged, by table: what is read is what was written, or the newest that is whole."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from damage import DAMAGES, files_of
from orbax.checkpoint._src.path.atomicity_types import TMP_DIR_SUFFIX

from ssl_gen.training import checkpoints
from ssl_gen.types import UserError

RANDOM = np.random.default_rng(0)


def states(step):
    """Two replicas of a small network, with keys and a type that numpy does not have."""
    kernel = np.random.default_rng(step).normal(size=(2, 40, 30)).astype(np.float32)
    return {
        "key": jax.random.split(jax.random.key(step), 2),
        "kernel": kernel,
        "mean": jnp.full((2, 3), step, "bfloat16"),
    }


def log(step):
    """The lines of a log up to a step."""
    return [{"step": each, "seed": 0, "loss": each / 3} for each in range(step + 1)]


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of the steps 2, 4 and 6."""
    kept = checkpoints.open_checkpoints(tmp_path / "kept")
    for step in (0, 2, 4, 6):
        kept.save(step, states(step), {"seconds": step / 7, "stopped": {}}, log(step))
    kept.close()
    return tmp_path / "kept"


def agrees(found, step):
    """Is what was read what was written at a step, bit for bit?"""
    wanted = states(step) | {"key": jax.random.key_data(states(step)["key"])}
    same = all(np.asarray(wanted[name]).tobytes() == array.tobytes() for name, array in found.arrays.items())
    whole = found.arrays.keys() == wanted.keys() and found.log == log(step)
    return same and whole and (found.step, found.note) == (step, {"seconds": step / 7, "stopped": {}})


def test_states_come_back_with_their_types_and_keys(folder):
    kept = checkpoints.read_newest(folder, lambda note: jax.eval_shape(lambda: states(6)))
    assert kept.step == 6 and kept.note["seconds"] == 6 / 7
    assert jax.random.key_data(kept.states["key"]).tolist() == jax.random.key_data(states(6)["key"]).tolist()
    assert kept.states["mean"].dtype == jnp.bfloat16 and np.array_equal(kept.states["kernel"], states(6)["kernel"])


def test_states_of_another_kind_are_refused_and_nothing_is_set_aside(folder):
    other = {"kernel": jax.ShapeDtypeStruct((2, 40, 31), jnp.float32)}
    with pytest.raises(UserError, match="6 holds other states than this version"):
        checkpoints.read_newest(folder, lambda note: other)
    assert checkpoints.steps(folder) == [2, 4, 6]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_changes_nothing_or_the_one_before_is_read(damage, folder, capfd):
    """Each file of the newest in turn; where it made a difference one line says so."""
    noticed = 0
    for file in files_of(folder / "6"):
        before = (folder / "6" / file).read_bytes()
        DAMAGES[damage](folder / "6" / file)
        found, said = checkpoints.newest_whole(folder), capfd.readouterr().err
        (folder / "6" / file).write_bytes(before)
        assert agrees(found, 4 if said else 6), file
        assert not said or (said.count("\n") == 1 and "not whole: 6 (" in said and "that is whole is 4" in said), said
        noticed += bool(said)
    assert noticed >= 4


def test_no_single_bit_gives_other_weights(folder):
    """60 bits of the newest, drawn by the sizes of its files."""
    names = files_of(folder / "6")
    sizes = np.array([(folder / "6" / name).stat().st_size for name in names])
    counts = {4: 0, 6: 0}
    for file in RANDOM.choice(names, 60, p=sizes / sizes.sum()):
        data = (folder / "6" / file).read_bytes()
        changed, bit = bytearray(data), RANDOM.integers(8 * len(data))
        changed[bit // 8] ^= 1 << bit % 8
        (folder / "6" / file).write_bytes(changed)
        found = checkpoints.newest_whole(folder)
        (folder / "6" / file).write_bytes(data)
        assert agrees(found, found.step), file
        counts[found.step] += 1
    assert counts[4] > 30, "most bits are those of weights"


def test_what_is_damaged_is_set_aside_and_its_step_written_again(folder, capfd):
    """Also a stray folder, a file and a link that look like newer ones; other names are left alone."""
    DAMAGES["halved"](folder / "6" / "note" / "metadata")
    (folder / "999").mkdir()
    (folder / "77").symlink_to("/nowhere")
    (folder / "88").write_text("")
    (folder / "0123").mkdir()
    kept = checkpoints.open_checkpoints(folder)
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and all(f" {step} (" in said for step in (999, 88, 77, 6)) and "whole is 4" in said
    assert kept.log == log(4)
    kept.save(6, states(6), {"seconds": 6 / 7, "stopped": {}}, log(6))
    kept.close()
    assert agrees(checkpoints.newest_whole(folder), 6) and capfd.readouterr().err == ""
    names = {path.name for path in folder.iterdir()}
    assert names == {"2", "4", "6", "6.damaged", "77.damaged", "88.damaged", "999.damaged", "0123"}


def test_what_a_killed_process_was_saving_is_removed_by_the_next(tmp_path):
    """As orbax leaves it where the last of it, the folder's own name, does not come."""
    folder = tmp_path / "kept"
    kept = checkpoints.open_checkpoints(folder)
    kept.save(2, states(2), {}, [])
    kept.close()
    (folder / "2").rename(folder / f"2{TMP_DIR_SUFFIX}")
    (folder / f"notes{TMP_DIR_SUFFIX}").mkdir()
    checkpoints.open_checkpoints(folder).close()
    assert [path.name for path in folder.iterdir()] == [f"notes{TMP_DIR_SUFFIX}"]


def test_where_none_is_whole_there_is_none(folder, capfd):
    for step in (2, 4, 6):
        DAMAGES["emptied"](folder / str(step) / "note" / "metadata")
    assert checkpoints.newest_whole(folder) is None
    assert capfd.readouterr().err.count("no checkpoint is whole") == 1
    assert checkpoints.newest_whole(Path("/nowhere")) is None


def test_a_folder_that_cannot_be_written_is_named_with_the_step_that_is_safe(folder, monkeypatch):
    kept = checkpoints.open_checkpoints(folder)

    def full(*arguments, **settings):
        raise ValueError("a page of tensorstore: No space left on device [more of it]")

    monkeypatch.setattr(kept.manager, "save", full)
    with pytest.raises(UserError, match=r"kept: no space left on device; the same command goes on from step 6$"):
        kept.save(8, states(8), {}, [])
    kept.close()
