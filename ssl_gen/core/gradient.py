"""The one gradient step that every player takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from ssl_gen.types import Array, Metrics, TrainState, Tree

Terms = dict[str, Array]  # name -> () nats, weight included; the loss is their sum


class Forward(NamedTuple):
    """A forward pass whose way back is kept: the generator's, made once for every player that sees its images."""

    outputs: Any  # array, or a tuple of them
    pull: Callable[[Tree], tuple[Tree]]  # gradient in the outputs -> (gradient in the params,)
    stats: Tree  # the untrained collections after it


def forward(run: Callable[[Tree], tuple[Any, Tree]], params: Tree) -> Forward:
    """run(params) -> (outputs, stats), called once."""
    return Forward(*jax.vjp(run, params, has_aux=True))


def descend(
    name: str,
    player: TrainState,
    optimizer: optax.GradientTransformation,
    loss: Callable[[Any], Any],
    forward: Forward | None = None,
) -> tuple[TrainState, Metrics]:
    """One optimiser step of `player` on the sum of its loss terms.

    `loss(params) -> (terms, stats)`: the weighted terms by name, and the player's untrained collections after the
    forward pass. With `forward`, a pass of this player that others have used already, it is `loss(outputs) -> terms`.
    Metrics are `name/term` and `name/gradient_norm`, so that a NaN is seen before it is in the params; the EMA stays.
    """

    def total(inputs: Any) -> tuple[Array, tuple[Terms, Tree]]:
        terms, stats = (loss(inputs), forward.stats) if forward else loss(inputs)
        return sum(terms.values()), (terms, stats)

    gradient, (terms, stats) = jax.grad(total, has_aux=True)(forward.outputs if forward else player.params)
    if forward:
        (gradient,) = forward.pull(gradient)
    updates, opt = optimizer.update(gradient, player.opt, player.params)
    metrics = {f"{name}/{term}": value for term, value in terms.items()}
    metrics[f"{name}/gradient_norm"] = optax.tree.norm(gradient)
    return player._replace(params=optax.apply_updates(player.params, updates), stats=stats, opt=opt), metrics
