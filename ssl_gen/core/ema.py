"""The exponential moving average (EMA) of a player: averaged params, and the statistics of a network that has them.

Lookahead is one that the player goes back to: its slow weights are the EMA here.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from ssl_gen.types import Array, Average, TrainState, Tree, UserError

MOVING = "batch_stats"  # the collection that a pass in training changes: batch norm's means, spectral norm's vectors
OF_WEIGHTS = "spectral"  # modules in it whose vectors follow from weights alone, whatever the batch


def kept(state: TrainState) -> Average:
    """The EMA of a player that keeps one."""
    assert isinstance(state.ema, Average), "this player keeps no EMA"
    return state.ema


def check_rate(rate: float | Array) -> None:
    """Raise UserError for a rate of 0, where it is known before the program runs: the mean would have no value."""
    if isinstance(rate, int | float) and rate == 0:
        raise UserError("averaging is 0: the mean of the params would never move; 1 follows the latest ones")


def has_batch_statistics(stats: Tree) -> bool:
    """Does a network with these collections judge an image by the others of its batch?"""
    paths = jax.tree_util.tree_flatten_with_path(stats.get(MOVING, {}))[0]
    return any(jax.tree_util.DictKey(OF_WEIGHTS) not in path for path, _ in paths)


def update_ema(state: TrainState, rate: float | Array, step: Array, stats: Tree = None) -> TrainState:
    """Move the EMA towards the player after update number `step` + 1; without one, nothing.

    The exponential mean with the given rate, corrected for its start (Kingma and Ba 2015, arXiv:1412.6980, sec. 3): the
    weight of the newest is rate / (1 - (1 - rate)^(step + 1)), which is 1 at the first update. The player's batch
    statistics are not those of a network with its averaged params, nor of images as they are at a test where training
    moves them about: `stats` are those of the EMA's own passes (`Player.average`, `Player.run_ema`). A network without
    statistics needs no pass; what else is untrained is copied. Raises UserError for a rate of 0.
    """
    if not isinstance(state.ema, Average):
        return state
    check_rate(rate)
    assert stats is not None or MOVING not in state.stats, "statistics of an EMA are those of its own passes"
    size = rate / -jnp.expm1((step + 1.0) * jnp.log1p(-rate))  # 1 - (1 - rate)^n, exact for slow rates in float32
    params = optax.incremental_update(state.params, state.ema.params, size)
    return state._replace(ema=Average(params, state.stats if stats is None else stats))


def look_ahead(state: TrainState, rate: float | Array, due: Array) -> TrainState:
    """Where it is `due`, () bool, move the EMA by `rate` towards the player, and the player onto it.

    The running statistics go with the params and cost no pass: the two are never far apart, for the player starts from
    the EMA every few updates. What else is untrained stays.
    Source: Zhang et al. 2019, arXiv:1907.08610, algorithm 1; the statistics: Jordan 2024, arXiv:2404.00498, code.
    """
    former = kept(state)
    fast = Average(state.params, {name: part for name, part in state.stats.items() if name == MOVING})
    slow = former._replace(stats={name: former.stats[name] for name in fast.stats})
    met = optax.incremental_update(fast, slow, rate)
    slow, fast = (jax.tree.map(lambda new, old: jnp.where(due, new, old), met, each) for each in (slow, fast))
    average = Average(slow.params, former.stats | slow.stats)
    return state._replace(params=fast.params, stats=state.stats | fast.stats, ema=average)
