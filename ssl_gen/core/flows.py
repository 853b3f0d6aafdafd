"""A velocity field that carries noise to images along straight lines: its update, and what the field gives.

Lipman et al. 2023, arXiv:2210.02747; the equations stand on the page of `flow_matching`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.scipy.stats

from ssl_gen.core.batching import shard_batch
from ssl_gen.core.conditioning import asked_for, guided_at, told_classes
from ssl_gen.core.ema import update_ema
from ssl_gen.core.gradient import Terms
from ssl_gen.core.odes import integrate
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import FlowSampler
from ssl_gen.types import Array, Key, Metrics, TrainState

QUARTERS = 4  # of t, whose losses are logged
WHOLE = 0.0, 1.0  # all of t
PLAIN = FlowSampler()  # how latents are encoded and decoded
FINE = FlowSampler(steps=100)  # how likelihoods are found; of pixels of deviation 0.1 to 2e-3 bits each, ours
EXACT = 256  # pixels and channels, up to which a divergence is exact; ours: 16 x 16 grey


def between(images: Array, noise: Array, times: Array) -> Array:
    """x_t: images and noise (B, H, W, C), times (B,) -> (B, H, W, C)."""
    times = times[:, None, None, None]
    return (1 - times) * images + times * noise


def by_quarter(losses: Array, times: Array) -> dict[str, Array]:
    """The mean of losses (B,) in each quarter of their times (B,) in [0, 1]; 0 where a quarter has none."""
    quarters = jnp.minimum((QUARTERS * times).astype(jnp.int32), QUARTERS - 1)
    inside = jax.nn.one_hot(quarters, QUARTERS)
    means = (losses @ inside) / jnp.maximum(inside.sum(0), 1)
    return {f"quarter_{i + 1}": means[i] for i in range(QUARTERS)}


def divergence(field: Callable[[Array], Array], x: Array, probes: Array | None) -> tuple[Array, Array]:
    """field(x) of x (B, D), and sum_i d field_i / d x_i, (B,): exact, or with probes (B, D) of -1 and 1 an estimate.

    probe . J probe has the divergence for its mean: Hutchinson 1990; Grathwohl et al. 2019, arXiv:1810.01367, sec. 3.1.
    """
    outputs, pull = jax.vjp(field, x)
    if probes is not None:
        return outputs, (probes * pull(probes)[0]).sum(-1)

    def add(i: Array, total: Array) -> Array:
        one_hot = jnp.broadcast_to(jax.nn.one_hot(i, x.shape[1]), x.shape)
        return total + pull(one_hot)[0][:, i]

    return outputs, jax.lax.fori_loop(0, x.shape[1], add, jnp.zeros(x.shape[0]))


def log_density(
    field: Callable[[Array, Array], Array], x: Array, probes: Array | None, sampler: FlowSampler = FINE
) -> Array:
    """log p(x) of x (B, D) at t = 0, carried by field(x, t) to N(0, I) at t = 1 -> (B,) nats; probes: see `divergence`.

    log p(x_0) = log N(x_1; 0, I) + the integral of the divergence over the way: Chen et al. 2018, arXiv:1806.07366,
    eq. 8. What is gathered of it goes along as one more column.
    """

    def both(columns: Array, time: Array) -> Array:
        velocity, change = divergence(lambda x: field(x, time), columns[:, :-1], probes)
        return jnp.concatenate([velocity, change[:, None]], -1)

    start = jnp.concatenate([x, jnp.zeros((x.shape[0], 1))], -1)
    end = integrate(both, start, jnp.linspace(0.0, 1.0, sampler.steps + 1), sampler.solver)
    return jax.scipy.stats.norm.logpdf(end[:, :-1]).sum(-1) + end[:, -1]


@dataclasses.dataclass(frozen=True)
class Flow:
    """A recipe: the player of a velocity field and what its update is made of."""

    player: Player
    shape: tuple[int, int, int]  # H, W, C
    classes: int  # K
    logit_deviation: float  # of t
    label_dropout: float
    averaging: float  # rate of the EMA, a step

    def init(self, key: Key) -> TrainState:
        """The field before its first update."""
        return self.player.init(key, jnp.zeros((1, *self.shape)), jnp.zeros(1), jnp.zeros(1, jnp.int32))

    def learn(
        self, state: TrainState, keys: Key, step: Array, images: Array, labels: Array
    ) -> tuple[TrainState, Metrics]:
        """One update, the field's number `step` + 1: four keys, images (B, H, W, C), labels (B,), negative for none."""
        noise = shard_batch(jax.random.normal(keys[0], images.shape))
        times = shard_batch(jax.nn.sigmoid(self.logit_deviation * jax.random.normal(keys[1], labels.shape)))
        classes = shard_batch(told_classes(keys[2], labels, self.label_dropout, self.classes))
        x = between(images, noise, times)
        predicted = self.player.forward(state, x, times, classes, rngs={"dropout": keys[3]})

        def losses(velocities: Array) -> Array:
            return jnp.square(velocities - (noise - images)).mean((1, 2, 3))

        def loss(velocities: Array) -> Terms:
            return {"velocity": losses(velocities).mean()}

        after, metrics = self.player.descend(state, loss, predicted)
        quarters = by_quarter(losses(predicted.outputs), times)
        metrics |= {f"{self.player.name}/{name}": value for name, value in quarters.items()}
        return update_ema(after, self.averaging, step), metrics

    def velocity(self, state: TrainState, labels: Array, sampler: FlowSampler) -> Callable[[Array, Array], Array]:
        """(x (B, H, W, C), t ()) -> v_w, for labels (B,), negative for none, with the sampler's guidance."""
        labels = asked_for(labels, self.label_dropout)

        def at(x: Array, time: Array) -> Array:
            def predict(x: Array, classes: Array) -> Array:
                return self.player.infer(state, x, jnp.full(labels.shape, time), classes)

            return guided_at(predict, x, time, labels, self.classes, sampler, WHOLE)

        return at

    def sample(self, state: TrainState, key: Key, labels: Array, sampler: FlowSampler) -> Array:
        """labels (B,), negative for none -> images (B, H, W, C) in [-1, 1]."""
        noise = shard_batch(jax.random.normal(key, (labels.shape[0], *self.shape)))
        return self._solved(state, noise, labels, sampler, 1.0).clip(-1, 1)

    def encode(self, state: TrainState, images: Array, labels: Array) -> Array:
        """The way of `sample` back, without guidance: images, labels (B,), negative for none -> noise (B, H W C)."""
        return self._solved(state, images, labels, PLAIN, 0.0).reshape(images.shape[0], -1)

    def decode(self, state: TrainState, latents: Array, labels: Array) -> Array:
        """Undo `encode` up to the solver's error: noise (B, H W C), labels (B,), negative for none -> images."""
        return self._solved(state, latents.reshape(-1, *self.shape), labels, PLAIN, 1.0).clip(-1, 1)

    def log_density(self, state: TrainState, key: Key, images: Array, labels: Array) -> Array:
        """log p(x | y) of images (B, H, W, C), labels (B,), negative for none -> (B,) nats.

        Of more than `EXACT` pixels and channels an estimate, whose probe `key` draws: right in the mean.
        """
        velocity, size = self.velocity(state, labels, FINE), math.prod(self.shape)
        shape = images.shape[0], size

        def field(x: Array, time: Array) -> Array:
            return velocity(x.reshape(images.shape), time).reshape(shape)

        probes = None if size <= EXACT else shard_batch(jax.random.rademacher(key, shape, jnp.float32))
        return log_density(field, images.reshape(shape), probes)

    def _solved(self, state: TrainState, x: Array, labels: Array, sampler: FlowSampler, start: float) -> Array:
        """x (B, H, W, C) at t = `start`, 0 or 1, carried to the other end."""
        times = jnp.linspace(start, 1 - start, sampler.steps + 1)
        return integrate(self.velocity(state, labels, sampler), x, times, sampler.solver)
