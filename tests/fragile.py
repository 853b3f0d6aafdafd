"""A method that breaks at a step of one seed, as a method of the library: put it into METHODS for a test."""

from __future__ import annotations

import types
from typing import Any

import jax
import jax.numpy as jnp

from ssl_gen.types import ImageSpec, Method


def fragile(module: types.ModuleType, metric: str, seed: int, step: int) -> types.ModuleType:
    """The method of `module`, whose first phase logs NaN as `metric` from update `step` on (from 0), for one seed."""

    def make(config: Any, spec: ImageSpec) -> Method:
        method = module.make(config, spec)
        first = method.phases[0]

        def breaking(state: Any, key: Any, number: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
            state, metrics = first.step(state, key, number, batch)
            own = jax.random.key_data(jax.random.fold_in(jax.random.key(seed), number))
            broken = (number >= step) & (jax.random.key_data(key) == own).all()
            return state, metrics | {metric: jnp.where(broken, jnp.nan, metrics[metric])}

        return method._replace(phases=(first._replace(step=breaking), *method.phases[1:]))

    found = types.ModuleType(f"{module.__name__.rpartition('.')[0]}.fragile", module.__doc__)
    found.Config, found.State, found.PAPER, found.make = module.Config, module.State, module.PAPER, make
    return found
