"""Ladder network: a classifier whose layers are denoised, each with the help of the one above.

Rasmus et al. 2015, "Semi-Supervised Learning with Ladder Networks", arXiv:1507.02672, sec. 3 and algorithm 1; constants
and what the paper leaves open from the official code.

The encoder is run twice on the same images: clean, and with noise n at the image and after every norm. With
norm(x) = (x - mean) / deviation over the batch, z_0 = x, h the activations, p = p(y | x) of the noisy path and
primes for what is noisy,

    z_l    = norm(W_l h_(l-1)),  h_l  = f(z_l + b_l)                        clean; of the logits c (z_L + b_L)
    z'_l   = norm(W_l h'_(l-1)) + n,  h'_l = f(z'_l + b_l)                  noisy, the same params
    u_L    = norm(p),  u_l = norm(V_(l+1) d_(l+1))                          the signal from above
    d_l    = (z'_l - m(u_l)) v(u_l) + m(u_l)                                denoised, ten weights a unit in m and v
    C_l    = E_u |(d_l - mean_l) / deviation_l - z_l|^2 / F_l               mean, deviation: those of the clean norm
    L      = - E_(x,y) log p(y | x) + sum_l w_l C_l

The variant gamma has the last of the C_l alone, and no decoder below it. Targets z_l, means and deviations carry their
gradient too. Labelled and unlabelled images are normalised apart; the clean path classifies, by running moments of the
labelled ones.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples, choose
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import annealed
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.networks.ladder import Decoder, Encoder, Ladder, Moments, normalise
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree, UserError

PAPER = "Rasmus et al. 2015, arXiv:1507.02672"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 90_000  # updates; 150 passes over MNIST's 60,000 images, paper, sec. 4.1
    labelled_batch: int = 100  # images a step; official script
    unlabelled_batch: int = 100  # images a step, a multiple of labelled_batch; official script
    variant: Literal["full", "gamma"] = "full"  # which layers are denoised: all, or the last one; paper, sec. 4
    network: Literal["mlp", "conv"] = "mlp"  # conv: variant gamma alone; paper: mlp for MNIST, conv for CIFAR-10
    hidden: tuple[int, ...] = (1000, 500, 250, 250, 250)  # units a layer of the mlp; paper, sec. 4.1
    width: int = 96  # channels of the first layer of conv; official CIFAR-10 script
    noise: float = 0.3  # deviation of n, at the image and at every layer; official script, 100 labels
    denoising: tuple[float, ...] = (1000.0, 10.0, 0.1)  # w_0, w_1 ..., the last for all above; official, 100 labels
    gamma: float = 0.5  # w_L of the variant gamma; official script, 100 labels; 1000: 10, all: 2
    scale: bool = True  # c, of the logits; official script; for CIFAR-10: none
    learning_rate: float = 2e-3  # Adam; paper, sec. 4.1
    anneal: float = 1 / 3  # share of the steps, at the end, over which the rate falls to 0; paper: 50 of 150 passes


PHOTOGRAPHS = Config(  # official CIFAR-10 script, 4000 labels; there images are whitened and of one contrast
    steps=35_000, variant="gamma", network="conv", gamma=4.0, scale=False, anneal=0.14
)


class State(NamedTuple):
    model: TrainState  # encoder and decoder


def denoising_cost(clean: Array, denoised: Array, moments: Moments) -> Array:
    """C_l: clean z and denoised z (U, F), moments of the clean path (F,) -> ()."""
    return jnp.square(normalise(denoised, moments) - clean).mean()


def layer_weights(config: Config) -> tuple[float, ...]:
    """w_l of the layers that are denoised, the last one and those below it, from below.

    Raises UserError where there are more weights than layers, or none above 0.
    """
    if choose("variant", config.variant, ("full", "gamma")) == "gamma":
        return (config.gamma,)
    layers, given = len(config.hidden) + 2, config.denoising
    if not any(given) or len(given) > layers:
        raise UserError(f"denoising is {given}: give 1 to {layers} weights, from the image up, and one above 0")
    every = given + given[-1:] * (layers - len(given))
    return every[next(layer for layer, weight in enumerate(every) if weight) :]


def make(config: Config, spec: ImageSpec) -> Method:
    """Encoder and decoder for images of `spec`. Raises UserError on settings that do not fit together."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    weights = layer_weights(config)
    if config.network == "conv" and config.variant == "full":
        raise UserError("network conv has no decoder: take --config.variant gamma, or network mlp")
    if config.labelled_batch < 2:
        raise UserError(f"labelled_batch {config.labelled_batch} has no deviation to divide by: take 2 or more")
    encoder = Encoder(spec.classes, config.network, config.hidden, config.width, config.scale)
    adam = optax.adam(annealed(config.learning_rate, config.steps, config.anneal))
    model = Player("model", Ladder(encoder, Decoder(len(weights)), config.noise), adam)

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(key)
        return State(model.init({"params": keys[0], "noise": keys[1]}, batch.labelled, batch.unlabelled))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        def loss(params: Tree) -> tuple[Terms, Tree]:
            images = batch.labelled, batch.unlabelled
            (logits, clean, denoised), stats = model.run(state.model, params, *images, rngs={"noise": key})
            terms = {"supervised": cross_entropy(logits, batch.labels)}
            lowest = len(clean.z) - len(weights)
            for layer, (weight, each) in enumerate(zip(weights, denoised, strict=True), lowest):
                if weight:
                    cost = denoising_cost(clean.z[layer], each, clean.moments[layer])
                    terms[f"denoising_{layer}"] = weight * cost
            return terms, stats

        player, metrics = model.descend(state.model, loss)
        return State(player), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(model.infer(state.model, images, method="classify"))

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), classify=classify)
