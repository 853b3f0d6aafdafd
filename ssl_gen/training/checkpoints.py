"""Checkpoints: the stacked states of all replicas and a note in JSON, written beside the training, never half.

Of several processes the first alone reads and writes them and tells the others, so that they need no shared folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from ssl_gen.training import processes
from ssl_gen.types import Tree, able

KEEP = 3  # newest checkpoints that stay


class Checkpoints(NamedTuple):
    """An open folder of checkpoints; close it before the process ends."""

    manager: ocp.CheckpointManager | None  # None: another process's
    group: processes.ProcessGroup

    def latest(self) -> int | None:
        """The newest finished checkpoint's step, or None."""
        return self.group.broadcast(lambda: able(self.manager).latest_step())

    def save(self, step: int, states: Tree, note: dict[str, Any]) -> None:
        """Begin to write `states` (its arrays must not be given away later) and `note` as the checkpoint of `step`."""
        if self.manager:
            if jax.process_count() > 1:  # orbax refuses arrays of one process of several, but not those of numpy
                states = jax.tree.map(np.asarray, processes.words(states))
            arguments = ocp.args.Composite(state=ocp.args.StandardSave(states), note=ocp.args.JsonSave(note))
            self.manager.save(step, args=arguments)

    def note(self, step: int) -> dict[str, Any]:
        """The note of one checkpoint."""
        note = ocp.args.Composite(note=ocp.args.JsonRestore())
        return self.group.broadcast(lambda: able(self.manager).restore(step, args=note).note)

    def restore(self, step: int, like: Tree) -> Tree:
        """The states of one checkpoint on this process's first device; `like` gives tree, shapes and dtypes."""
        found = None
        if self.manager:
            here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like)
            arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target))
            found = processes.with_keys(like, self.manager.restore(step, args=arguments).state)
        if self.group.count == 1:
            return found
        self.group.all_gather(None)  # the others wait here while the first reads, not in a collective
        return processes.broadcast_tree(like, found)

    def wait(self) -> None:
        """Return when everything begun is on disk."""
        if self.manager:
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Finish what is being written and let go of the folder."""
        if self.manager:
            self.manager.close()


def open_checkpoints(folder: Path, group: processes.ProcessGroup = processes.SINGLE_PROCESS) -> Checkpoints:
    """The checkpoints in `folder`, which is made where it is missing, for a process or for several together."""
    if not group.is_main:
        return Checkpoints(None, group)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax reports every save, and errors that it raises as well
    folder.mkdir(parents=True, exist_ok=True)
    alone = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:  # orbax would wait for the other processes, which do not come
        alone = ocp.options.MultiprocessingOptions(jax.process_index(), {jax.process_index()})
    options = ocp.CheckpointManagerOptions(
        max_to_keep=KEEP, create=False, enable_async_checkpointing=True, multiprocessing_options=alone
    )
    return Checkpoints(ocp.CheckpointManager(folder.absolute(), options=options), group)


def read_newest(folder: Path, like: Callable[[dict[str, Any]], Tree]) -> Tree | None:
    """The states of the newest checkpoint in `folder`, None where there is none yet.

    like: the checkpoint's note -> their tree, shapes and dtypes.
    """
    kept = open_checkpoints(folder)
    try:
        step = kept.latest()
        return None if step is None else kept.restore(step, like(kept.note(step)))
    finally:
        kept.close()
