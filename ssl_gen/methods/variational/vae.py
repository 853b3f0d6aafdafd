"""Variational autoencoder: images from latents, without labels.

Kingma and Welling 2014, "Auto-Encoding Variational Bayes", arXiv:1312.6114, sec. 2 and 3; sizes, rates and binarised
pixels as in Burda et al. 2016, "Importance Weighted Autoencoders", arXiv:1509.00519, sec. 5, one layer, k = 1.
Adam has optax's b1 0.9, b2 0.999 and epsilon 1e-8; theirs has epsilon 1e-4, and in their code b1 0.99 and second
moments that start at 1.

With p(z) = N(0, I) and q(z | x) = N(m(x), diag s^2(x)), z = m(x) + s(x) noise:

    log p(x) >= E_q log p(x | z) - KL(q(z | x) || p(z))
    KL        = 1/2 sum_j (m_j^2 + s_j^2 - 1 - log s_j^2)

Samples are the means of p(x | z) for z ~ p(z), as papers show them, not draws from p(x | z), or for z of a mixture of
Gaussians fitted to the latents of training images (Ghosh et al. 2020, arXiv:1903.12436). The weights of `elbo` and
`iwae` see each test image binarised (or dequantised) once, the same for all draws of z.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssl_gen.core.batching import shard_batch
from ssl_gen.core.gradient import Terms
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import DensityLatents, LatentDensity
from ssl_gen.core.schedules import annealed
from ssl_gen.losses.likelihood import elbo_terms, log_importance, pixel_likelihood
from ssl_gen.networks.variational import autoencoder
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Kingma and Welling 2014, arXiv:1312.6114"
STAGES = 8  # of falling rates, each 3 times as long as the one before; Burda et al. 2016, sec. 5


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 9_840_000  # updates; 3280 epochs of 60,000 images, Burda et al. 2016
    unlabelled_batch: int = 20  # images a step; Burda et al. 2016; Kingma and Welling: 100
    network: Literal["mlp", "conv"] = "mlp"  # encoder and decoder; the papers: tanh mlp
    latent: int = 50  # Z; Burda et al. 2016
    hidden: tuple[int, ...] = (200, 200)  # units a layer of each mlp; Burda et al. 2016; Kingma and Welling: 500
    width: int = 32  # channels of the first layer of conv networks; ours
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "bernoulli"  # of pixels; photographs: logistic
    binarise: bool = True  # bernoulli: pixels are drawn 0 or 1 at each sight; off, nats are no likelihood
    learning_rate: float = 1e-3  # Adam at the start, falling to a tenth in 8 stages; Burda et al. 2016
    anneal: float = 0.0  # share of the steps, at the end, over which it falls to 0 instead; ours, paper: the 8 stages
    latents: Literal["prior", "class_density"] = "prior"  # of samples, unless asked for otherwise; Ghosh et al. 2020


PHOTOGRAPHS = Config(  # ours
    steps=500_000, unlabelled_batch=100, network="conv", latent=128, width=64, likelihood="logistic"
)


class State(NamedTuple):
    autoencoder: TrainState
    density: LatentDensity | tuple[()] = ()  # of latents, fitted after training where samples are drawn from it


def falling(rate: float, steps: int, step: Array) -> Array:
    """rate * 10^(-i / 7) in stage i = 0..7, which ends when (3^(i + 1) - 1) / (3^8 - 1) of the steps are done."""
    done = jnp.asarray(step, jnp.float32)  # as int32 the product below would wrap at step 327,361
    stage = jnp.floor(jnp.log1p((3**STAGES - 1) * done / steps) / jnp.log(3.0))
    return rate * 10 ** (-jnp.minimum(stage, STAGES - 1) / (STAGES - 1))


def schedule(config: Config) -> optax.ScalarOrSchedule:
    """The learning rate: in stages, or along a line at the end."""
    if config.anneal:
        return annealed(config.learning_rate, config.steps, config.anneal)
    return lambda step: falling(config.learning_rate, max(config.steps, 1), step)


def make(config: Config, spec: ImageSpec) -> Method:
    """Encoder and decoder for images of `spec`; labels are not looked at."""
    likelihood = pixel_likelihood(config.likelihood, config.binarise)
    network = autoencoder(config.network, spec, likelihood.maps, config.latent, config.hidden, config.width, nn.tanh)
    model = Player("autoencoder", network, optax.adam(schedule(config)))

    def init(key: Key, batch: Batch) -> State:
        return State(model.init(key, batch.unlabelled, None, jnp.zeros((batch.unlabelled.shape[0], config.latent))))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        observe_key, noise_key = jax.random.split(key)
        images = likelihood.observe(observe_key, batch.unlabelled)
        noise = shard_batch(jax.random.normal(noise_key, (images.shape[0], config.latent)))

        def loss(params: Tree) -> tuple[Terms, Tree]:
            (outputs, *posterior), stats = model.run(state.autoencoder, params, images, None, noise)
            return elbo_terms(likelihood.log_density(images, outputs), *posterior), stats

        player, metrics = model.descend(state.autoencoder, loss)
        return State(player), metrics

    def posterior(state: State, images: Array) -> tuple[Array, Array]:
        mean, log_variance = model.infer(state.autoencoder, images, None, method="encode")
        return mean, jnp.exp(log_variance)

    def encode(state: State, images: Array) -> Array:
        return posterior(state, images)[0]

    def decode(state: State, latents: Array, labels: Array) -> Array:
        return likelihood.mean(model.infer(state.autoencoder, latents, None, method="decode"))

    def sample(state: State, key: Key, labels: Array, sampler: DensityLatents) -> Array:
        return decode(state, sampler.draw_mixed(key, labels.shape[0], state.density, config.latent), labels)

    def log_weight(state: State, observed: Key, key: Key, images: Array) -> Array:
        images = likelihood.observe(observed, images)
        noise = jax.random.normal(key, (images.shape[0], config.latent))
        outputs, mean, log_variance = model.infer(state.autoencoder, images, None, noise)
        return log_importance(likelihood.log_density(images, outputs), mean, log_variance, noise)

    phases = (Phase("main", config.steps, 0, config.unlabelled_batch, step),)
    return Method(
        init, phases, sample=sample, encode=encode, decode=decode, log_weight=log_weight,
        sampler=DensityLatents(latents=config.latents), posterior=posterior, normal_latents=True,
    )  # fmt: skip
