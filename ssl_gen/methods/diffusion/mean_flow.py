"""Mean flow: a field of mean velocities, told the class, that carries noise to images in one step.

Geng et al. 2025, "Mean Flows for One-step Generative Modeling", arXiv:2505.13447, sec. 4, algorithms 1 and 2; the
predicted tangent: Geng et al. 2025, "Improved Mean Flows", arXiv:2512.02012.

With x an image, y its class or none, z ~ N(0, I), x_t = (1 - t) x + t z and v = z - x its velocity, two times r <= t of
logit-normals, of which a share is made one, sg(.) without gradient and the sum of squares over pixels,

    (t - r) u(x_t, r, t, y) = the integral of v over the way from r to t                          what u is
    u    = v - (t - r) du/dt,   du/dt = v du/dx + du/dt |_x                                       and so, its identity
    D    = u(x_t, r, t, y) - sg(v_w - (t - r) du/dt)                        v_w in du/dt too; y is dropped at times
    L    = E || D ||^2 / sg(|| D ||^2 + c)^p                                with p = 1 it is near 1, whatever is learnt
    v_w  = w v + (1 - w) sg(u(x_t, t, t, none))                             guidance w; 1 is none; v where y is none
    x_r  = x_t - (t - r) u(x_t, r, t, y)                                    from t = 1, noise, to r = 0, an image

du/dt is one `jax.jvp` along (v_w, 0, 1). Guidance is learnt, not added when samples are drawn, so that it costs no
second look. With the predicted tangent v_w in du/dt is the network's own, sg(u(x_t, t, t, y)), which is the same for
all images that cross at x_t.

What images without a label are told is chosen as on the page of `flow_matching`, whose network this is too, told t and
t - r; with r = t throughout it is that method.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.core.batching import shard_batch
from ssl_gen.core.conditioning import (
    TOLD,
    Unlabelled,
    asked_for,
    check_guided,
    knows_classes,
    knows_none,
    or_none,
    phase_of,
    told_classes,
)
from ssl_gen.core.ema import update_ema
from ssl_gen.core.flows import between
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import choose
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import check_steps
from ssl_gen.networks.unet import unet
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, TrainState, Tree

PAPER = "Geng et al. 2025, arXiv:2505.13447"
HIGHEST = 16.0  # radians a unit of t, of the U-Net's last frequency: du/dt grows with it; ours


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 20_000  # updates; ours
    unlabelled: Unlabelled = "guessed"  # what is done with images without a label; ours
    labelled_batch: int = 64  # images a step, of the labelled alone where others are left out; ours
    unlabelled_batch: int = 64  # images a step of all images, else; ours
    label_dropout: float = 0.1  # share dropped, 1: no class is learnt; Ho and Salimans 2022, arXiv:2207.12598, sec. 4.2
    widths: tuple[int, ...] = (32, 64)  # channels of a level of the U-Net, sides halve from one to the next; ours
    blocks: int = 1  # residual blocks a level, down and up; ours
    attention: tuple[int, ...] = ()  # levels, from 0, with attention; ours: none
    fold: bool = False  # does the U-Net see 2 x 2 pixels as one? A third faster at 28 x 28; ours
    dropout: float = 0.0  # of the U-Net's hidden units; ours
    logit_mean: float = 0.0  # of logit t and logit r; ours, so that both ends of the way are met; paper: -0.4
    logit_deviation: float = 2.0  # of logit t and logit r; ours, likewise; paper: 1, and t > 0.95 in a pair of 1,200
    instantaneous: float = 0.75  # share of the pairs with r = t; paper, table 1
    power: float = 0.75  # p; paper, for CIFAR-10, and official script (py-meanflow, cifar10_v0.sh); for ImageNet 1
    floor: float = 1e-3  # c; paper, sec. 4.3
    trained_guidance: float = 1.0  # w; paper: 1 for unconditional CIFAR-10, up to 3 for ImageNet
    tangent: Literal["conditional", "predicted"] = "conditional"  # v in du/dt; Improved Mean Flows: predicted
    learning_rate: float = 1e-3  # Adam at the start, falling along a half cosine to 0; ours
    averaging: float = 1e-3  # rate of the EMA, which draws, a step; ours
    augmentation: Augmentation = Augmentation()  # of every image; ours: none


PHOTOGRAPHS = Config(  # as `flow_matching`; times, share, power: paper, for CIFAR-10, and official script for it
    steps=400_000, labelled_batch=128, unlabelled_batch=128, widths=(128, 256, 256), blocks=2, attention=(1,),
    dropout=0.13, learning_rate=2e-4, averaging=1e-4, augmentation=Augmentation(flip=True),
    logit_mean=-2.0, logit_deviation=2.0, instantaneous=0.25, power=0.75,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class MeanFlowSampler:
    """How the way from noise to an image is gone. Raises UserError for settings that make no sense."""

    steps: int = 1  # equal steps of t from 1 to 0, each a look at the field; paper: 1 or 2

    def __post_init__(self) -> None:
        check_steps(self.steps)


class State(NamedTuple):
    field: TrainState


def intervals(key: Key, count: int, config: Config) -> tuple[Array, Array]:
    """r and t, (B,) each, 0 < r <= t < 1: two logit-normals in their order, r = t for a share of the pairs."""
    keys = jax.random.split(key)
    normals = config.logit_mean + config.logit_deviation * jax.random.normal(keys[0], (count, 2))
    times = jax.nn.sigmoid(normals)
    end = times.max(-1)
    one = jax.random.bernoulli(keys[1], config.instantaneous, (count,))
    return jnp.where(one, end, times.min(-1)), end


def adaptive(squares: Array, power: float, floor: float) -> Array:
    """|| D ||^2 (B,) -> || D ||^2 / (|| D ||^2 + c)^p with a divisor that has no gradient, (B,)."""
    return squares / jax.lax.stop_gradient(squares + floor) ** power


def on_both_sides(
    mean_velocity: Callable[[Array, Array, Array], tuple[Array, Tree]],
    x: Array,
    starts: Array,
    ends: Array,
    velocity: Array,
    tangent: Array,
) -> tuple[Array, Array, Tree]:
    """u and v - (t - r) du/dt, the latter without gradient, and what else `mean_velocity` returns.

    mean_velocity: x, r, t -> u and something; x, v and the direction of du/dt (B, H, W, C), r and t (B,).
    """
    along = tangent, jnp.zeros_like(starts), jnp.ones_like(ends)
    mean, change, other = jax.jvp(mean_velocity, (x, starts, ends), along, has_aux=True)
    return mean, jax.lax.stop_gradient(velocity - (ends - starts)[:, None, None, None] * change), other


def make(config: Config, spec: ImageSpec) -> Method:
    """A field of mean velocities for images of `spec`; samples obey their labels, unless all are dropped."""
    choose("tangent", config.tangent, ("conditional", "predicted"))
    conditional = knows_classes(config)
    check_guided(config.trained_guidance, knows_none(config), conditional)
    rate = optax.cosine_decay_schedule(config.learning_rate, max(config.steps, 1))
    # the native convolution alone has the forward mode that a jvp needs
    field = Player("field", unet(config, spec, "native", HIGHEST), optax.adam(rate), ema=True)

    def init(key: Key, batch: Batch) -> State:
        return State(field.init(key, jnp.zeros((1, *spec.shape)), jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32)))

    def learn(state: State, key: Key, step: Array, images: Array, labels: Array) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 5)
        images = augment(config.augmentation, keys[0], images)
        noise = shard_batch(jax.random.normal(keys[1], images.shape))
        starts, ends = (shard_batch(times) for times in intervals(keys[2], len(labels), config))
        classes = shard_batch(told_classes(keys[3], labels, config.label_dropout, spec.classes))
        x, velocity = between(images, noise, ends), noise - images

        def mean_velocity(params: Tree, x: Array, starts: Array, ends: Array, classes: Array) -> tuple[Array, Tree]:
            told = jnp.stack([ends, ends - starts], -1)
            return field.run(state.field, params, x, told, classes, rngs={"dropout": keys[4]})

        def at_once(classes: Array) -> Array:
            return jax.lax.stop_gradient(mean_velocity(state.field.params, x, ends, ends, classes)[0])

        if config.trained_guidance != 1:
            none = at_once(jnp.full_like(classes, spec.classes))
            guided = none + config.trained_guidance * (velocity - none)
            velocity = jnp.where((classes == spec.classes)[:, None, None, None], velocity, guided)
        tangent = at_once(classes) if config.tangent == "predicted" else velocity

        def loss(params: Tree) -> tuple[Terms, Tree]:
            def on_the_way(x: Array, starts: Array, ends: Array) -> tuple[Array, Tree]:
                return mean_velocity(params, x, starts, ends, classes)

            mean, wanted, stats = on_both_sides(on_the_way, x, starts, ends, velocity, tangent)
            squares = jnp.square(mean - wanted).sum((1, 2, 3))
            return {"identity": adaptive(squares, config.power, config.floor).mean()}, stats

        player, metrics = field.descend(state.field, loss)
        return State(update_ema(player, config.averaging, step)), metrics

    def sample(state: State, key: Key, labels: Array, sampler: MeanFlowSampler) -> Array:
        classes, length = or_none(asked_for(labels, config.label_dropout), spec.classes), 1 / sampler.steps

        def step(i: Array, x: Array) -> Array:
            told = jnp.stack([1 - i * length, jnp.float32(length)])
            return x - length * field.infer(state.field, x, jnp.broadcast_to(told, (*labels.shape, 2)), classes)

        noise = shard_batch(jax.random.normal(key, (labels.shape[0], *spec.shape)))
        return jax.lax.fori_loop(0, sampler.steps, step, noise).clip(-1, 1)

    phase = phase_of(config, learn)
    return Method(
        init, (phase,), sample, conditional=conditional, told=TOLD[config.unlabelled], sampler=MeanFlowSampler()
    )
