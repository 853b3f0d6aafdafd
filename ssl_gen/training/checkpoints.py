"""Checkpoints: the stacked states of all replicas and a note in JSON, written beside the training, never half."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import jax
import orbax.checkpoint as ocp

from ssl_gen.types import Tree

KEEP = 3  # newest checkpoints that stay


class Checkpoints(NamedTuple):
    """An open folder of checkpoints; close it before the process ends."""

    manager: ocp.CheckpointManager

    def latest(self) -> int | None:
        """The newest finished checkpoint's step, or None."""
        return self.manager.latest_step()

    def save(self, step: int, states: Tree, note: dict) -> None:
        """Begin to write `states` (its arrays must not be given away later) and `note` as the checkpoint of `step`."""
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(states), note=ocp.args.JsonSave(note))
        self.manager.save(step, args=arguments)

    def note(self, step: int) -> dict:
        """The note of one checkpoint."""
        return self.manager.restore(step, args=ocp.args.Composite(note=ocp.args.JsonRestore())).note

    def restore(self, step: int, like: Tree) -> Tree:
        """The states of one checkpoint on this process's first device; `like` gives tree, shapes and dtypes."""
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like)
        return self.manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))).state

    def wait(self) -> None:
        """Return when everything begun is on disk."""
        self.manager.wait_until_finished()

    def close(self) -> None:
        """Finish what is being written and let go of the folder."""
        self.manager.close()


def open_checkpoints(folder: Path) -> Checkpoints:
    """The checkpoints in `folder`, which is made where it is missing."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every save
    options = ocp.CheckpointManagerOptions(max_to_keep=KEEP, create=True, enable_async_checkpointing=True)
    return Checkpoints(ocp.CheckpointManager(folder.absolute(), options=options))
