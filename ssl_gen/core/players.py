"""Players: a network with its optimiser, started, run and updated in one line each.

A `Player` is a recipe and holds no array; what it has learnt is its `TrainState`, which every function takes and none
changes. This is the only place that knows of linen's collections.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import optax

from ssl_gen.core import gradient
from ssl_gen.core.batching import gather_variables
from ssl_gen.core.ema import MOVING, kept, update_ema
from ssl_gen.core.gradient import Forward
from ssl_gen.core.memory import in_parts
from ssl_gen.core.precision import current, products_in
from ssl_gen.types import Array, Average, Key, Metrics, Precision, TrainState, Tree


@dataclasses.dataclass(frozen=True)
class Player:
    """One player of a method. Networks are linen modules whose call takes `train`."""

    name: str  # of its metrics: name/term
    network: nn.Module
    optimizer: optax.GradientTransformation
    ema: bool = False  # does it keep an exponential moving average of itself?
    precision: Precision = dataclasses.field(default_factory=current)  # of its products, in training and out of it

    def init(
        self, rngs: Key | dict[str, Key], *inputs: Any, train: bool = False, method: str | None = None
    ) -> TrainState:
        """The player before its first update. `rngs`: a key, or one a stream; `inputs` serve data-dependent starts."""
        with products_in("float32"):  # the same start for all
            variables = self.network.init(rngs, *inputs, train=train, method=method)
        params = variables.pop("params")
        ema = Average(params, variables) if self.ema else ()
        return TrainState(params, variables, self.optimizer.init(params), ema)

    def run(
        self,
        state: TrainState,
        params: Tree,
        *inputs: Any,
        rngs: dict[str, Key] | None = None,
        method: str | None = None,
    ) -> tuple[Any, Tree]:
        """As in training, at `params`: the outputs, and the untrained collections after the pass.

        In parts of a batch where memory is saved so. Raises UserError where it cannot be cut.
        """
        variables = gather_variables({"params": params, **state.stats})

        def apply(inputs: Any, rngs: dict[str, Key] | None) -> tuple[Any, Tree]:
            with products_in(self.precision):
                return self.network.apply(variables, *inputs, train=True, rngs=rngs, method=method, mutable=[MOVING])

        outputs, moved = in_parts(self.name, apply, state.stats, inputs, rngs)
        return outputs, state.stats | moved

    def run_ema(
        self, state: TrainState, *inputs: Any, rngs: dict[str, Key] | None = None, method: str | None = None
    ) -> tuple[Any, Tree]:
        """As in training, at the EMA: the outputs, and its own collections after the pass, for `update_ema`."""
        params, stats = kept(state)
        return self.run(state._replace(stats=stats), params, *inputs, rngs=rngs, method=method)

    def average(
        self, state: TrainState, rate: float | Array, step: Array, *inputs: Any, rngs: dict[str, Key] | None = None
    ) -> TrainState:
        """`update_ema` after update number `step` + 1, with statistics from a pass of the EMA over `inputs`.

        Show it images as they are, not moved about. Without an EMA, nothing; without statistics, no pass.
        """
        if not self.ema or MOVING not in state.stats:
            return update_ema(state, rate, step)
        _, stats = self.run_ema(state, *inputs, rngs=rngs)
        return update_ema(state, rate, step, stats)

    def forward(
        self, state: TrainState, *inputs: Any, rngs: dict[str, Key] | None = None, method: str | None = None
    ) -> Forward:
        """`run` at the player's own params, its way back kept: for outputs that several players see."""
        return gradient.forward(lambda params: self.run(state, params, *inputs, rngs=rngs, method=method), state.params)

    def infer(self, state: TrainState, *inputs: Any, params: Tree | None = None, method: str | None = None) -> Any:
        """The outputs out of training, at the EMA where there is one, else at the player's own params, or as given."""
        stats = state.stats
        if params is None:
            params, stats = kept(state) if self.ema else (state.params, state.stats)
        variables = gather_variables({"params": params, **stats})
        with products_in(self.precision):
            return self.network.apply(variables, *inputs, train=False, method=method)

    def descend(
        self, state: TrainState, loss: Callable[[Any], Any], forward: Forward | None = None
    ) -> tuple[TrainState, Metrics]:
        """One update, see `gradient.descend`."""
        return gradient.descend(self.name, state, self.optimizer, loss, forward)
