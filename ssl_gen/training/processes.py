"""Several processes that train one run together, on several hosts or on one: how they meet and what they agree on.

The arrays of a run travel between devices as XLA's collectives; all that is decided in Python (a signal, a NaN, what
the run folder says) goes through the key-value store of jax's coordination service. A process waits there as long as
another works, without a collective that times out; where a process is lost, the service ends the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # the key-value store has no public door; orbax and flax take this one too
from jax.experimental import multihost_utils

from ssl_gen.types import Tree, UserError

COORDINATOR, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
BY_HAND = f"{COORDINATOR}=HOST:PORT, {COUNT} and {INDEX}"
SHUTDOWN_TIMEOUT_S = (
    60  # s that a process which ends waits for the others to end; ours, for one that failed leaves others behind
)
START_TIMEOUT_S = 45  # s that processes wait for each other to begin; ours, for jax's 300 hide one that never came
HEARTBEAT_TIMEOUT_S = 40  # s after which a silent process is lost; ours, jax's are 100
POLL_MS = 2_000  # ms; how long Python, and with it a signal, waits for the key-value store at most


class FailedElsewhere(UserError):
    """Another process of the run failed, and has told all."""


@dataclasses.dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, seen by one of them. All call the methods below in the same order."""

    index: int  # of this process
    count: int  # of all
    rounds: Iterator[int] = dataclasses.field(default_factory=itertools.count)  # of talking, the same everywhere

    @property
    def is_main(self) -> bool:
        """Is this the process that writes the run folder and speaks?"""
        return self.index == 0

    def all_gather(self, value: Any) -> list[Any]:
        """Every process's value (what JSON can hold), in order; returns when all have come here.

        Raises FailedElsewhere where one of them failed on its way.
        """
        if self.count == 1:
            return [value]
        number = next(self.rounds)
        self._post(number, {"value": value})
        said = [json.loads(wait_for(key(number, index))) for index in range(self.count)]
        if number:  # all were here, so all have read the round before
            client().key_value_delete(key(number - 1, self.index))
        for index, each in enumerate(said):
            if "failed" in each:
                raise FailedElsewhere(f"process {index} failed: {each['failed']}")
        return [each["value"] for each in said]

    def broadcast(self, make: Callable[[], Any]) -> Any:
        """What `make` gives on the first process (None, or what JSON can hold), for all; the others wait."""
        return self.all_gather(make() if self.is_main else None)[0]

    @contextlib.contextmanager
    def failing_together(self) -> Iterator[None]:
        """Within, an error of this process is one of the others too, when they next come to `all_gather`."""
        try:
            yield
        except FailedElsewhere:
            raise
        except (Exception, KeyboardInterrupt) as error:
            if self.count > 1:
                kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                self._post(next(self.rounds), {"failed": " ".join(f"{kind}{error}".split())})
            raise

    def _post(self, number: int, what: dict[str, Any]) -> None:
        client().key_value_set(key(number, self.index), json.dumps(what))


SINGLE_PROCESS = ProcessGroup(0, 1)


def client() -> Any:
    """Of jax's coordination service, which `join` has started."""
    assert distributed.global_state.client is not None, "the processes have not met"
    return distributed.global_state.client


def key(number: int, index: int) -> str:
    """Where process `index` says its word of round `number`."""
    return f"ssl_gen/{number}/{index}"


def wait_for(name: str) -> str:
    """What stands, now or later, under a key."""
    while True:
        try:
            return client().blocking_key_value_get(name, POLL_MS)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def join() -> ProcessGroup:
    """Meet the other processes, at the first call; before jax touches a device.

    Raises UserError where there are no others to be found, and where jax is in use already.
    """
    if not jax.distributed.is_initialized():
        # Its handler of SIGTERM would hide ours, and it knows nothing of Ctrl-C.
        jax.config.update("jax_enable_preemption_service", False)
        try:
            jax.distributed.initialize(
                **by_hand(),
                initialization_timeout=START_TIMEOUT_S,
                heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
                shutdown_timeout_seconds=SHUTDOWN_TIMEOUT_S,
            )
        except (ValueError, RuntimeError) as error:  # a cluster that is none, a service that does not answer
            said = " ".join(str(error).split()).removesuffix(".")
            raise UserError(f"--distributed does not find the other processes ({said}); set {BY_HAND}") from error
    return met()


@functools.cache
def met() -> ProcessGroup:
    """The processes that jax knows of; one object, which counts the rounds of all runs of this process."""
    return ProcessGroup(jax.process_index(), jax.process_count())


def by_hand() -> dict[str, Any]:
    """What the environment says of the processes, as jax takes it; {} where jax is to find them.

    Raises UserError where it is incomplete or no number.
    """
    if COUNT not in os.environ and INDEX not in os.environ:
        return {}  # an address alone corrects what jax finds; it reads that itself
    given = {name: os.environ[name] for name in (COORDINATOR, COUNT, INDEX) if name in os.environ}
    missing = [name for name in (COORDINATOR, COUNT, INDEX) if name not in given or not given[name]]
    if missing:
        raise UserError(f"--distributed needs {BY_HAND}, or none of them on a cluster: {missing[0]} is not set")
    if not given[COORDINATOR].rpartition(":")[2].isdecimal() or ":" not in given[COORDINATOR]:
        raise UserError(f"{COORDINATOR} is HOST:PORT of process 0, not {given[COORDINATOR]}")
    if not all(given[name].isdecimal() for name in (COUNT, INDEX)) or int(given[INDEX]) >= int(given[COUNT]):
        raise UserError(f"{COUNT} is a number N and {INDEX} one of 0 to N - 1, not {given[COUNT]} and {given[INDEX]}")
    return {
        "coordinator_address": given[COORDINATOR],
        "num_processes": int(given[COUNT]),
        "process_id": int(given[INDEX]),
        "cluster_detection_method": "deactivate",
    }


def broadcast_tree(like: Tree, tree: Tree | None) -> Tree:
    """The first process's `tree`, bit for bit, on this process's first device; the others may give None.

    like: its shapes and dtypes. As bytes, for the sum that broadcasts would make a negative zero positive.
    """
    plain, structure = jax.tree.flatten(jax.eval_shape(words, like))
    sizes = [leaf.size * leaf.dtype.itemsize for leaf in plain]
    if jax.process_index() == 0:
        sent = np.frombuffer(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(words(tree))), np.uint8)
    else:
        sent = np.zeros(sum(sizes), np.uint8)
    parts = np.split(multihost_utils.broadcast_one_to_all(sent), np.cumsum(sizes)[:-1])
    arrays = [
        jax.numpy.asarray(np.frombuffer(part.tobytes(), leaf.dtype).reshape(leaf.shape))
        for part, leaf in zip(parts, plain, strict=True)
    ]
    return with_keys(like, jax.tree.unflatten(structure, arrays))


def is_key(leaf: Any) -> bool:
    """Is it a key of jax.random?"""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def words(tree: Tree) -> Tree:
    """The tree with the words of its keys, which numpy can hold, in their place."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)


def with_keys(like: Tree, tree: Tree) -> Tree:
    """Undo `words`, where it was done: keys where `like` has them."""

    def wrapped(leaf: Any, value: Any) -> Any:
        undone = is_key(leaf) and not is_key(value)
        return jax.random.wrap_key_data(value) if undone else value

    return jax.tree.map(wrapped, like, tree)
