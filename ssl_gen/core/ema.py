"""The exponential moving average (EMA) of a player: averaged params, and the statistics of a network that has them."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from ssl_gen.types import Array, Average, TrainState, Tree

MOVING = "batch_stats"  # the collection that a pass in training changes: batch norm's means, spectral norm's vectors


def kept(state: TrainState) -> Average:
    """The EMA of a player that keeps one."""
    assert isinstance(state.ema, Average), "this player keeps no EMA"
    return state.ema


def update_ema(state: TrainState, rate: float | Array, step: Array, stats: Tree = None) -> TrainState:
    """Move the EMA towards the player after update number `step` + 1; without one, nothing.

    The exponential mean with the given rate, corrected for its start (Kingma and Ba 2015, arXiv:1412.6980, sec. 3): the
    weight of the newest is rate / (1 - (1 - rate)^(step + 1)), which is 1 at the first update. The player's batch
    statistics are not those of a network with its averaged params, nor of images as they are at a test where training
    moves them about: `stats` are those of the EMA's own passes (`Player.average`, `Player.run_ema`). A network without
    statistics needs no pass; what else is untrained is copied.
    """
    if not isinstance(state.ema, Average):
        return state
    assert stats is not None or MOVING not in state.stats, "statistics of an EMA are those of its own passes"
    size = rate / -jnp.expm1((step + 1.0) * jnp.log1p(-rate))  # 1 - (1 - rate)^n, exact for slow rates in float32
    params = optax.incremental_update(state.params, state.ema.params, size)
    return state._replace(ema=Average(params, state.stats if stats is None else stats))
