"""Learning rates and weights over a run, what weight decay touches, and optimisers with both."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

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


def preceded(first: optax.ScalarOrSchedule, updates: float, later: optax.ScalarOrSchedule) -> optax.Schedule:
    """A number, or the one that a schedule has, for the first updates; then `later` at the same number of updates."""

    def at(step: Array) -> Array:
        before, after = (value(step) if callable(value) else value for value in (first, later))
        return jnp.where(step < updates, before, after)

    return at


def partly_cosine(rate: float, updates: int) -> optax.Schedule:
    """A learning rate that falls along cos(7 pi t / 16 T), to a fifth; Sohn et al. 2020, arXiv:2001.07685, sec. 2.4."""
    return lambda step: rate * jnp.cos(7 * math.pi / 16 * step / max(updates, 1))


def half_cosine(first: float, last: float, updates: int) -> Callable[[Any], Array]:
    """A number that goes from one value to another along half a cosine, and stays there after so many updates."""
    share = optax.cosine_decay_schedule(1.0, max(updates, 1))
    return lambda step: last + (first - last) * share(step)


def triangular(rate: float, updates: int) -> optax.Schedule:
    """A learning rate that rises from a fifth along a line, is whole at 0.23 of its updates, and falls to 0.07 of it.

    Source: Jordan 2024, arXiv:2404.00498, code (airbench94.py).
    """
    moments = jnp.array([0, int(0.23 * updates), max(updates, 1)], jnp.float32)
    return lambda step: rate * jnp.interp(step, moments, jnp.array([0.2, 1.0, 0.07]))


def linear_ramp(step: Array, begin: float, end: float) -> Array:
    """A weight: 0 until step `begin`, 1 from `end` on, a line between them; Lee 2013, eq. 16."""
    return jnp.clip((step - begin) / jnp.maximum(end - begin, 1), 0, 1)


def ramp_up(step: Array, length: float) -> Array:
    """A weight: exp(-5) at step 0, 1 from step `length` on; Laine and Aila 2017, arXiv:1610.02242, sec. 2."""
    return jnp.exp(-5 * jnp.square(1 - jnp.minimum(step / length, 1)))


def ramp_down(step: Array, length: float, steps: int) -> Array:
    """A weight: 1 until `length` steps before the last of `steps`, exp(-12.5) at the end; Laine and Aila, app. A."""
    return jnp.exp(-12.5 * jnp.square(1 - jnp.minimum((steps - step) / length, 1)))


def clipped(
    optimizer: optax.GradientTransformation, l2: float, norm: float, most: float
) -> optax.GradientTransformation:
    """An optimiser that sees gradients with L2 of kernels, scaled down to a norm, then each entry within +- `most`.

    Source: Maaløe et al. 2016, arXiv:1602.05473, code.
    """
    decay = optax.add_decayed_weights(l2, kernels)
    return optax.chain(decay, optax.clip_by_global_norm(norm), optax.clip(most), optimizer)


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
        "whitening": sgd(preceded(whole, round(WHITENING_TRAINS * updates), 0.0)),
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


class Moments(NamedTuple):
    """What Adam keeps when b1 and b2 change from step to step."""

    mean: Tree  # of gradients
    square: Tree  # of their squares
    missing: tuple[Array, Array]  # the products of all b1 and of all b2 so far: the weight of what came before step 0


def adam_step(learning_rate: Array, b1: Array, b2: Array, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam with the b1 and b2 of this step, the earlier steps' having been others.

    The moments are divided by the weights that they hold, 1 - b_1 b_2 ... b_t. optax's adam divides by 1 - b^t with
    the b of now, so that a b2 that grows at step t shrinks that update by the root of (1 - b^t) of new over old b2.
    Source: Kingma and Ba 2015, arXiv:1412.6980, sec. 3; TensorFlow's AdamOptimizer, which Mean Teacher's script uses.
    """

    def init(params: Tree) -> Moments:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Moments(zeros, zeros, (jnp.ones(()), jnp.ones(())))

    def update(gradient: Tree, state: Moments, params: Tree | None = None) -> tuple[Tree, Moments]:
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mean, gradient)
        square = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.square, gradient)
        missing = state.missing[0] * b1, state.missing[1] * b2

        def change(m: Array, v: Array) -> Array:
            return -learning_rate * m / (1 - missing[0]) / (jnp.sqrt(v / (1 - missing[1])) + eps)

        return jax.tree.map(change, mean, square), Moments(mean, square, missing)

    return optax.GradientTransformation(init, update)


def ramped_adam(
    rate: float, steps: int, up: float, down: float, b1: tuple[float, float], b2: tuple[float, float]
) -> optax.GradientTransformation:
    """Adam whose rate rises over the first `up` steps and falls over the last `down`, along `ramp_up` and `ramp_down`.

    b1: until the fall and at its end, to which it goes with the rate; b2: during the rise and after.
    Source: Laine and Aila 2017, arXiv:1610.02242, app. A; b2: Tarvainen and Valpola 2017, arXiv:1703.01780, code.
    """

    def falling(step: Array) -> Array:
        return ramp_down(step, down, steps)

    return optax.inject_hyperparams(adam_step)(
        learning_rate=lambda step: rate * ramp_up(step, up) * falling(step),
        b1=lambda step: b1[1] + (b1[0] - b1[1]) * falling(step),
        b2=preceded(b2[0], up, b2[1]),
    )


PartlyCosine = Literal["adamw", "sgd"]


def partly_cosine_optimizer(
    optimizer: PartlyCosine, rate: float, updates: int, weight_decay: float
) -> optax.GradientTransformation:
    """An optimiser at the rate of `partly_cosine`, under which kernels decay; raises UserError on others.

    adamw: decay apart from the gradient, times the rate; ours. sgd: that of `decaying`, decay in the gradient.
    """
    if choose("optimizer", optimizer, get_args(PartlyCosine)) == "sgd":
        return decaying("sgd", rate, updates, weight_decay)
    return optax.adamw(partly_cosine(rate, updates), weight_decay=weight_decay, mask=kernels)


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
