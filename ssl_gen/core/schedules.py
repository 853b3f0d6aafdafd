"""Learning rates over a run, what weight decay touches, and optimisers with both."""

from __future__ import annotations

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax

from ssl_gen.core.options import choose
from ssl_gen.types import Tree


def annealed(rate: float, updates: int, share: float) -> optax.ScalarOrSchedule:
    """A learning rate that falls to 0 along a line over the last `share` of its updates."""
    decay = round(share * updates)
    return optax.linear_schedule(rate, 0.0, decay, updates - decay) if decay else rate


def staged(rate: float, updates: int, stages: int, factor: float) -> optax.Schedule:
    """A learning rate that is multiplied by `factor` at the end of each of so many equal parts of its updates."""
    length = max(updates / stages, 1)
    return lambda step: rate * factor ** jnp.floor(step / length)


def preceded(rate: float, updates: int, later: optax.ScalarOrSchedule) -> optax.Schedule:
    """One learning rate for the first updates, then that of `later` at the same number of updates."""
    return lambda step: jnp.where(step < updates, rate, later(step) if callable(later) else later)


def partly_cosine(rate: float, updates: int) -> optax.Schedule:
    """A learning rate that falls along cos(7 pi t / 16 T), to a fifth; Sohn et al. 2020, arXiv:2001.07685, sec. 2.4."""
    return lambda step: rate * jnp.cos(7 * math.pi / 16 * step / max(updates, 1))


Decaying = Literal["adam", "sgd"]


def decaying(optimizer: Decaying, rate: float, updates: int, l2: float) -> optax.GradientTransformation:
    """An optimiser with L2 in its gradient, whose rate falls over a run; raises UserError on others.

    adam: L2 on all params, the rate along a half cosine to 0; ours. sgd: L2 on kernels, Nesterov momentum 0.9, the
    rate of `partly_cosine`; Sohn et al. 2020, arXiv:2001.07685, code, of FixMatch (fixmatch.py) and its baselines.
    """
    if choose("optimizer", optimizer, get_args(Decaying)) == "adam":
        half_cosine = optax.cosine_decay_schedule(rate, max(updates, 1))
        return optax.chain(optax.add_decayed_weights(l2), optax.adam(half_cosine))
    sgd = optax.sgd(partly_cosine(rate, updates), momentum=0.9, nesterov=True)
    return optax.chain(optax.add_decayed_weights(l2, kernels), sgd)


def kernels(params: Tree) -> Tree:
    """True for arrays of two axes and more: a mask for weight decay, which biases and norms are spared."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def last_kernel(params: Tree) -> Tree:
    """True for the kernel of the classifier's last layer: a mask for weight decay."""
    dense = [name for name in params if name.startswith("Dense_")] or [
        name for name in params if "Convolution_" in name
    ]
    last = max(dense, key=lambda name: int(name.split("_")[1]))
    return {name: jax.tree.map(lambda leaf, name=name: name == last and leaf.ndim > 1, params[name]) for name in params}
