"""Checkpoints: the stacked states of all replicas, a note and the log so far, written beside the training, never half.

Each holds a hash over all that is in it. One that was cut, or in which a bit turned, is noticed when it is read, and
the newest that is whole stands for it. Of several processes the first alone reads and writes them and tells the others,
so that they need no shared folder. The note of each says which run it is of, label masks among it.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from ssl_gen.core.files import say
from ssl_gen.core.trees import digest, named
from ssl_gen.training import processes
from ssl_gen.types import Tree, UserError

HALF = ".orbax-checkpoint-tmp"  # of the name of a checkpoint that is being written
KEEP = 3  # newest checkpoints that stay


class Damaged(Exception):
    """A checkpoint is not what was written; says why."""


class Contents(NamedTuple):
    """What the files of one checkpoint hold."""

    step: int
    arrays: dict[str, np.ndarray]  # the stacked states' leaves by path; keys as their words
    note: dict[str, Any]
    log: list[dict[str, Any]]  # the lines of metrics.jsonl up to this step


class Kept(NamedTuple):
    """A checkpoint read back."""

    step: int
    states: Tree  # stacked, on this process's first device
    note: dict[str, Any]


class Checkpoints(NamedTuple):
    """An open folder of checkpoints; close it before the process ends."""

    folder: Path
    manager: ocp.CheckpointManager | None  # None: another process's, or not written to
    group: processes.ProcessGroup
    identity: Mapping[str, Any] = MappingProxyType({})  # of the run and of who trains it, for every note
    note: dict[str, Any] | None = None  # of the newest whole checkpoint, when it was opened; None where there is none
    log: Sequence[dict[str, Any]] = ()  # the lines of the log up to it
    step: int = 0  # its step

    def save(self, step: int, states: Tree, note: dict[str, Any], log: Sequence[dict[str, Any]]) -> None:
        """Begin to write `states`, `note`, the identity and the lines of the log so far as the checkpoint of `step`.

        Raises UserError where this one, or the one before, cannot be written.
        """
        if self.manager is None:
            return
        arrays = jax.tree.map(np.asarray, processes.words(states))  # orbax refuses keys of one process of several
        about = {"note": {**self.identity, **note}, "log": list(log)}
        about["sha256"] = digest(named(arrays), about)
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(arrays), note=ocp.args.JsonSave(about))
        with self.writing():
            if step in self.manager.all_steps():  # a method fitted in one go is fitted again, and has no other step
                self.manager.delete(step)
            self.manager.save(step, args=arguments, force=True)

    def newest(self, like: Callable[[dict[str, Any]], Tree]) -> Kept | None:
        """The newest whole checkpoint, None where there is none.

        like: its note -> the states' tree, shapes and dtypes. Raises UserError where it holds other states.
        """
        here: list[Contents] = []

        def read_here() -> Any:
            here.extend(filter(None, [newest_whole(self.folder)]))
            return [here[0].step, here[0].note] if here else None

        found = self.group.broadcast(read_here)
        if found is None:
            return None
        step, note = found
        expected = like(note)
        states = states_of(self.folder, here[0], expected) if here else None
        if self.group.count > 1:
            self.group.all_gather(None)  # the others wait here while the first reads, not in a collective
            states = processes.broadcast_tree(expected, states)
        return Kept(step, states, note)

    def wait(self) -> None:
        """Return when everything begun is on disk. Raises UserError where it cannot be written."""
        if self.manager:
            with self.writing():
                self.manager.wait_until_finished()

    def close(self) -> None:
        """Finish what is being written and let go of the folder. Raises UserError where it cannot be written."""
        if self.manager:
            with self.writing():
                self.manager.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Within, what keeps a checkpoint from being written is a UserError of one line."""
        try:
            yield
        except Exception as error:  # of orbax, of tensorstore or of the system: a full disk has no one type
            goes_on = max(steps(self.folder), default=0)
            raise UserError(
                f"cannot write {self.folder}: {reason(error)}; the same command goes on from step {goes_on}"
            ) from error


def manager_of(folder: Path, **options: Any) -> ocp.CheckpointManager:
    """Orbax's door to a folder of checkpoints, for this process alone."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax reports every save, and errors that it raises too
    alone = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:  # orbax would wait for the other processes, which do not come
        alone = ocp.options.MultiprocessingOptions(jax.process_index(), {jax.process_index()})
    asked = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=alone, **options)
    return ocp.CheckpointManager(folder.absolute(), options=asked)


def steps(folder: Path) -> list[int]:
    """The steps of which `folder` has a checkpoint, whole or not, ascending."""
    names = (path.name for path in folder.glob("*"))
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def contents(folder: Path, step: int) -> Contents:
    """One checkpoint of `folder`. Raises Damaged where it is not whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of coroutines that orbax leaves behind where it fails
        found = read(folder, step)
    if isinstance(found, str):
        raise Damaged(found)
    return found


def read(folder: Path, step: int) -> Contents | str:
    """One checkpoint of `folder`, or why it is not whole."""
    arguments = ocp.args.Composite(state=ocp.args.StandardRestore(), note=ocp.args.JsonRestore())
    try:
        with manager_of(folder, read_only=True) as manager:
            found = manager.restore(step, args=arguments)
        about, arrays = dict(found.note), named(found.state)
        said = about.pop("sha256")
        if digest(arrays, about) != said:
            return "its SHA-256 differs"
        return Contents(step, arrays, dict(about["note"]), list(about["log"]))
    except MemoryError:
        raise
    except Exception as error:  # of a file that is cut or changed orbax, tensorstore and JSON may raise anything
        return f"it cannot be read: {reason(error)}"


def newest_whole(folder: Path) -> Contents | None:
    """The newest checkpoint that is whole, None where there is none; newer ones that are not are named in one line."""
    damaged: list[str] = []
    for step in reversed(steps(folder)):
        try:
            found = contents(folder, step)
        except Damaged as error:
            damaged.append(f"{step} ({error})")
            continue
        if damaged:
            say(f"in {folder} not whole: {', '.join(damaged)}; the newest that is whole is {step}")
        return found
    if damaged:
        say(f"in {folder} no checkpoint is whole: {', '.join(damaged)}")
    return None


def set_aside(folder: Path) -> Contents | None:
    """`newest_whole`; what is newer becomes STEP.damaged, so that training can write that step again."""
    whole = newest_whole(folder)
    for step in steps(folder):
        if whole is None or step > whole.step:
            number = sum(1 for _ in folder.glob(f"{step}.damaged*"))
            (folder / str(step)).rename(folder / f"{step}.damaged{number or ''}")
    return whole


def states_of(folder: Path, found: Contents, like: Tree) -> Tree:
    """The states of a checkpoint as `like` has them. Raises UserError where it holds others."""
    expected = named(jax.eval_shape(processes.words, like))
    kinds = {name: (leaf.shape, leaf.dtype) for name, leaf in expected.items()}
    if {name: (array.shape, array.dtype) for name, array in found.arrays.items()} != kinds:
        raise UserError(f"{folder / str(found.step)} holds other states than this version of ssl_gen: train again")
    leaves = [jnp.asarray(found.arrays[name]) for name in expected]
    return processes.with_keys(like, jax.tree.unflatten(jax.tree.structure(like), leaves))


def reason(error: BaseException) -> str:
    """An exception in some words of one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    if "No space left on device" in said:
        return "no space left on device"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return said if len(said) <= 120 else f"{said[:120]} ..."


def open_checkpoints(folder: Path, group: processes.ProcessGroup = processes.SINGLE_PROCESS) -> Checkpoints:
    """The checkpoints in `folder`, which is made where it is missing, to go on with: what is damaged is set aside.

    Nobody else may write there, as in a run folder that is `claimed`: what is half written is removed. Of several
    processes all open them together. Raises UserError where the folder cannot be written.
    """
    opened = Checkpoints(folder, None, group)
    if not group.is_main:
        return opened
    with opened.writing():
        folder.mkdir(parents=True, exist_ok=True)
        for half in folder.glob(f"[0-9]*{HALF}*"):  # of a process that was killed while it saved; orbax leaves it
            shutil.rmtree(half, ignore_errors=True)
        whole = set_aside(folder)
        opened = opened._replace(manager=manager_of(folder, max_to_keep=KEEP, enable_async_checkpointing=True))
        return opened._replace(note=whole.note, log=whole.log, step=whole.step) if whole else opened


def read_newest(folder: Path, like: Callable[[dict[str, Any]], Tree]) -> Kept | None:
    """The newest whole checkpoint of a folder that is not written to; `like` and errors as of `Checkpoints.newest`."""
    return Checkpoints(folder, None, processes.SINGLE_PROCESS).newest(like)
