"""Learning rates over a run, and what weight decay touches."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import optax

from ssl_gen.types import Tree


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
