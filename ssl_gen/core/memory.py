"""What a step of training keeps on its way forward for its way back: less than all, at the price of a second way.

`accumulate` cuts what a network sees into parts and computes each again on the way back, where the activations of one
part are there at a time, and its share of the gradient is added to that of the others (`in_parts`). Losses see the
whole batch, so the gradient is that of any loss, of terms between images too. `remat` keeps the inputs of a network's
blocks and computes their insides again (`networks.layers.rematerialised`; Chen et al. 2016, arXiv:1604.06174).

    method = saving(method, Memory(accumulate=4))     its steps are traced so; what it infers is not
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

from ssl_gen.core.batching import cut, devices_of_a_batch, joined
from ssl_gen.core.ema import has_batch_statistics
from ssl_gen.types import Array, Batch, Key, Method, Metrics, Phase, State, Tree, UserError

Rngs = dict[str, Key] | None  # a key a stream


@dataclasses.dataclass(frozen=True)
class Memory:
    """How memory is saved in training."""

    accumulate: int = 1  # parts of a batch
    remat: bool = False
    blocks: set[str] = dataclasses.field(default_factory=set, compare=False)  # kinds of those that were met in tracing

    def __bool__(self) -> bool:
        """Is there anything to save?"""
        return self.accumulate > 1 or self.remat


_current: ContextVar[Memory | None] = ContextVar("memory", default=None)


def current() -> Memory:
    """That of what is traced here."""
    return _current.get() or Memory()


@contextlib.contextmanager
def traced_with(memory: Memory) -> Iterator[None]:
    """Within, what is traced saves memory so."""
    token = _current.set(memory)
    try:
        yield
    finally:
        _current.reset(token)


def saving(method: Method, memory: Memory) -> Method:
    """A method whose steps save memory; as it is where there is nothing to save."""

    def within(phase: Phase) -> Phase:
        def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
            with traced_with(memory):
                return phase.step(state, key, step, batch)

        return phase._replace(step=step)

    return method._replace(phases=tuple(within(phase) for phase in method.phases)) if memory else method


def in_parts(
    name: str,
    apply: Callable[[tuple[Any, ...], Rngs], tuple[Any, Tree]],
    stats: Tree,
    inputs: tuple[Any, ...],
    rngs: Rngs,
) -> tuple[Any, Tree]:
    """apply(inputs, rngs) -> (outputs, moved) of the player `name`: parts of inputs and outputs (B, ...) at a time.

    Each part has noise of its own. What moved is of weights alone, and the same after each. Raises UserError where the
    batch cannot be cut.
    """
    parts = current().accumulate
    if parts == 1:
        return apply(inputs, rngs)
    check_parts(name, parts, stats, inputs)

    def one(given: tuple[Array, tuple[Any, ...]]) -> tuple[Any, Tree]:
        number, part = given
        return apply(part, {stream: jax.random.fold_in(key, number) for stream, key in (rngs or {}).items()})

    given = jnp.arange(parts), jax.tree.map(lambda x: cut(x, parts), inputs)
    outputs, moved = jax.lax.map(jax.checkpoint(one, prevent_cse=False), given)  # XLA merges nothing across a loop
    return jax.tree.map(joined, outputs), jax.tree.map(lambda each: each[0], moved)


def check_parts(name: str, parts: int, stats: Tree, inputs: tuple[Any, ...]) -> None:
    """Raise UserError where a player with collections `stats` cannot see batches of `inputs` in so many parts."""
    devices = devices_of_a_batch() or 1
    if has_batch_statistics(stats):
        raise UserError(
            f"--accumulate {parts} cuts batches, and {name} has batch statistics, of the whole: leave it out"
        )
    for size in (each.shape[0] for each in jax.tree.leaves(inputs)):
        if size % parts:
            raise UserError(f"--accumulate {parts} does not divide a batch of {size} that {name} sees")
        if size // parts % devices:
            raise UserError(
                f"--accumulate {parts} cuts a batch of {size} into {size // parts} for --data-parallel {devices}"
            )
