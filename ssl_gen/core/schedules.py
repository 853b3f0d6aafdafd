"""Learning rates over a run, what weight decay touches, and optimisers with both."""

from __future__ import annotations

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax

from ssl_gen.core.options import choose
from ssl_gen.types import Array, Tree


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


def triangular(rate: float, updates: int) -> optax.Schedule:
    """A learning rate that rises from a fifth along a line, is whole at 0.23 of its updates, and falls to 0.07 of it.

    Source: Jordan 2024, arXiv:2404.00498, code (airbench94.py).
    """
    moments = jnp.array([0, int(0.23 * updates), max(updates, 1)], jnp.float32)
    return lambda step: rate * jnp.interp(step, moments, jnp.array([0.2, 1.0, 0.07]))


Decaying = Literal["adam", "sgd", "airbench"]


def decaying(optimizer: Decaying, rate: float, updates: int, l2: float) -> optax.GradientTransformation:
    """An optimiser with L2 in its gradient, whose rate falls over a run; raises UserError on others.

    adam: L2 on all params, the rate along a half cosine to 0; ours. sgd: L2 on kernels, Nesterov momentum 0.9, the
    rate of `partly_cosine`; Sohn et al. 2020, arXiv:2001.07685, code, of FixMatch (fixmatch.py) and its baselines.
    airbench: see there.
    """
    if choose("optimizer", optimizer, get_args(Decaying)) == "adam":
        half_cosine = optax.cosine_decay_schedule(rate, max(updates, 1))
        return optax.chain(optax.add_decayed_weights(l2), optax.adam(half_cosine))
    if optimizer == "airbench":
        return airbench(rate, updates, l2)
    sgd = optax.sgd(partly_cosine(rate, updates), momentum=0.9, nesterov=True)
    return optax.chain(optax.add_decayed_weights(l2, kernels), sgd)


NORMS_FASTER = 64.0  # times the rate, for biases of batch norm; Jordan 2024, sec. 3.4
WHITENING_TRAINS = 3 / 9.9  # of a run, its bias; 3 of airbench94's 9.9 epochs; sec. 3.2 and code


def airbench(rate: float, updates: int, l2: float) -> optax.GradientTransformation:
    """Nesterov momentum 0.85, L2 on all params, the rate of `triangular`; biases of batch norm learn 64 times as fast.

    These decay no faster than the others. The bias of a whitening stays where it is after the first 3 / 9.9 of the run.
    Source: Jordan 2024, arXiv:2404.00498, sec. 3 and code (airbench94.py), of sums over a batch, whose rate and decay
    by 1,024 images are here those of means: 11.5 / (1 + 1 / (1 - 0.85)) = 1.5 and 0.0153 / 11.5.
    """
    whole = triangular(rate, updates)

    def sgd(schedule: optax.Schedule, l2: float = l2) -> optax.GradientTransformation:
        return optax.chain(optax.add_decayed_weights(l2), optax.sgd(schedule, momentum=0.85, nesterov=True))

    groups = {
        "norms": sgd(lambda step: NORMS_FASTER * whole(step), l2 / NORMS_FASTER),
        "whitening": sgd(lambda step: jnp.where(step < round(WHITENING_TRAINS * updates), whole(step), 0.0)),
        "others": sgd(whole),
    }
    return optax.partition(groups, _groups)


def _groups(params: Tree) -> Tree:
    """Which of the groups of `airbench` each array belongs to, by the modules that it lies in."""

    def group(path: tuple[jax.tree_util.DictKey, ...], _: Array) -> str:
        modules = [str(part.key) for part in path]
        if any(name.startswith("Whitening_") for name in modules):
            return "whitening"
        norm = modules[-1] == "bias" and any(name.startswith("BatchNorm_") for name in modules)
        return "norms" if norm else "others"

    return jax.tree_util.tree_map_with_path(group, params)


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
