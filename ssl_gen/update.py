"""The one gradient step that every method shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen.types import Array, Metrics, TrainState, Tree, UserError

Terms = dict[str, Array]  # name -> () nats, weight included; the loss is their sum


class Forward(NamedTuple):
    """A forward pass whose way back is kept: the generator's, made once for every player that sees its images."""

    outputs: Tree
    pull: Callable[[Tree], tuple[Tree]]  # gradient in the outputs -> (gradient in the params,)
    stats: Tree  # the untrained collections after it


def forward(generate: Callable[[Tree], tuple[Tree, Tree]], params: Tree) -> Forward:
    """generate(params) -> (outputs, stats), run once."""
    return Forward(*jax.vjp(generate, params, has_aux=True))


def create(params: Tree, stats: Tree, optimizer: optax.GradientTransformation, average: bool = False) -> TrainState:
    """A player before its first update; with `average` it also keeps a running mean of its params."""
    return TrainState(params, stats, optimizer.init(params), params if average else ())


def descend(
    name: str,
    player: TrainState,
    optimizer: optax.GradientTransformation,
    loss: Callable[[Tree], tuple[Terms, Tree]],
    forward: Forward | None = None,
) -> tuple[TrainState, Metrics]:
    """One optimiser step of `player` on the sum of its loss terms.

    `loss(params) -> (terms, stats)`: the weighted terms by name, and the player's untrained collections after the
    forward pass. With `forward`, a pass of this player that other players have used already, it is `loss(outputs)`.
    Metrics are `name/term` for every term, and `name/gradient_norm`, so that a logged NaN is seen before it reaches the
    params. The running mean of params is left as it is: see `average`.
    """

    def total(inputs: Tree) -> tuple[Array, tuple[Terms, Tree]]:
        terms, stats = loss(inputs)
        return sum(terms.values()), (terms, stats)

    gradient, (terms, stats) = jax.grad(total, has_aux=True)(forward.outputs if forward else player.params)
    if forward:
        (gradient,) = forward.pull(gradient)
    updates, opt = optimizer.update(gradient, player.opt, player.params)
    metrics = {f"{name}/{term}": value for term, value in terms.items()}
    metrics[f"{name}/gradient_norm"] = optax.tree.norm(gradient)
    return player._replace(params=optax.apply_updates(player.params, updates), stats=stats, opt=opt), metrics


def average(player: TrainState, rate: float, step: Array) -> TrainState:
    """Move the running mean of params towards the current ones after update number `step` + 1.

    The exponential mean with the given rate, corrected for its start (Kingma and Ba 2015, arXiv:1412.6980, sec. 3): the
    weight of the newest params is rate / (1 - (1 - rate)^(step + 1)), which is 1 at the first update.
    """
    size = rate / -jnp.expm1((step + 1.0) * jnp.log1p(-rate))  # 1 - (1 - rate)^n, exact for slow rates in float32
    return player._replace(ema=optax.incremental_update(player.params, player.ema, size))


def annealed(rate: float, updates: int, share: float) -> optax.ScalarOrSchedule:
    """A learning rate that falls to 0 along a line over the last `share` of its updates."""
    decay = round(share * updates)
    return optax.linear_schedule(rate, 0.0, decay, updates - decay) if decay else rate


def partly_cosine(rate: float, updates: int) -> optax.Schedule:
    """A learning rate that falls along cos(7 pi t / 16 T), to a fifth; Sohn et al. 2020, arXiv:2001.07685, sec. 2.4."""
    return lambda step: rate * jnp.cos(7 * math.pi / 16 * step / max(updates, 1))


def kernels(params: Tree) -> Tree:
    """True for arrays of two axes and more: a mask for weight decay, which biases and norms are spared."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def spread(x: Array) -> Array:
    """Mark a batch made inside a step (noise, drawn labels) as one that a data-parallel run divides over its devices.

    x (B, ...) -> x. Batches that come from outside are divided already; outside a data-parallel run this does nothing.
    """
    if "data" not in jax.sharding.get_abstract_mesh().axis_names:
        return x
    return jax.lax.with_sharding_constraint(x, jax.sharding.PartitionSpec("data"))


def check_multiples(config: Any, of: str, *names: str) -> None:
    """Raise UserError where a named batch size of a config is no multiple of another, as `interleave` needs."""
    for name in names:
        size, first = getattr(config, name), getattr(config, of)
        if size % first:
            raise UserError(f"{name} {size} is no multiple of {of} {first}: change one of them")


def interleave(*batches: Array) -> Array:
    """Batches of sizes B, m B, n B, ... -> one of (1 + m + n + ...) B, so that batch norm sees them together.

    Each image of the first brings its share of the others, so a data-parallel run needs to move nothing.
    Raises ValueError where a size is no multiple of the first.
    """
    first = batches[0].shape[0]
    if any(batch.shape[0] % first for batch in batches):
        raise ValueError(f"batch sizes must be multiples of the first: {[batch.shape[0] for batch in batches]}")
    groups = [batch.reshape(first, -1, *batch.shape[1:]) for batch in batches]
    return jnp.concatenate(groups, 1).reshape(-1, *batches[0].shape[1:])


def separate(outputs: Array, sizes: tuple[int, ...]) -> tuple[Array, ...]:
    """Undo `interleave`: outputs (sum of sizes, ...) -> one array for each batch size."""
    groups = outputs.reshape(sizes[0], -1, *outputs.shape[1:])
    ends = [sum(sizes[: i + 1]) // sizes[0] for i in range(len(sizes))]
    return tuple(part.reshape(-1, *outputs.shape[1:]) for part in jnp.split(groups, ends[:-1], axis=1))
