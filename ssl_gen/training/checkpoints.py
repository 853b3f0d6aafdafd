"""Checkpoints: the stacked states of all replicas and a note in JSON, written beside the training, never half.

Of several processes the first alone reads and writes them and tells the others, so that they need no shared folder.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from ssl_gen.training import hosts
from ssl_gen.types import Tree

KEEP = 3  # newest checkpoints that stay


class Checkpoints(NamedTuple):
    """An open folder of checkpoints; close it before the process ends."""

    manager: ocp.CheckpointManager | None  # None: another process's
    team: hosts.Team

    def latest(self) -> int | None:
        """The newest finished checkpoint's step, or None."""
        return self.team.told(lambda: self.manager.latest_step())

    def save(self, step: int, states: Tree, note: dict) -> None:
        """Begin to write `states` (its arrays must not be given away later) and `note` as the checkpoint of `step`."""
        if self.manager:
            if jax.process_count() > 1:  # orbax refuses arrays of one process of several, but not those of numpy
                states = jax.tree.map(np.asarray, hosts.words(states))
            arguments = ocp.args.Composite(state=ocp.args.StandardSave(states), note=ocp.args.JsonSave(note))
            self.manager.save(step, args=arguments)

    def note(self, step: int) -> dict:
        """The note of one checkpoint."""
        note = ocp.args.Composite(note=ocp.args.JsonRestore())
        return self.team.told(lambda: self.manager.restore(step, args=note).note)

    def restore(self, step: int, like: Tree) -> Tree:
        """The states of one checkpoint on this process's first device; `like` gives tree, shapes and dtypes."""
        found = None
        if self.manager:
            here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like)
            arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target))
            found = hosts.with_keys(like, self.manager.restore(step, args=arguments).state)
        if self.team.count == 1:
            return found
        self.team.gather(None)  # the others wait here while the first reads, not in a collective
        return hosts.share(like, found)

    def wait(self) -> None:
        """Return when everything begun is on disk."""
        if self.manager:
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Finish what is being written and let go of the folder."""
        if self.manager:
            self.manager.close()


def open_checkpoints(folder: Path, team: hosts.Team = hosts.ALONE) -> Checkpoints:
    """The checkpoints in `folder`, which is made where it is missing, for a process or for several together."""
    if not team.first:
        return Checkpoints(None, team)
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every save
    folder.mkdir(parents=True, exist_ok=True)
    alone = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:  # orbax would wait for the other processes, which do not come
        alone = ocp.options.MultiprocessingOptions(jax.process_index(), {jax.process_index()})
    options = ocp.CheckpointManagerOptions(
        max_to_keep=KEEP, create=False, enable_async_checkpointing=True, multiprocessing_options=alone
    )
    return Checkpoints(ocp.CheckpointManager(folder.absolute(), options=options), team)
