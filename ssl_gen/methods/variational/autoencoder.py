"""Autoencoder, plain or denoising: images through a narrow code and back, without labels.

Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising Autoencoders", ICML, sec. 2, and 2010,
JMLR 11. Without corruption it is that of Hinton and Salakhutdinov 2006, Science 313, whose sizes are the defaults, here
trained in one go. With x the image, x' a corrupted copy, z = f(x') and g(z) the decoder's outputs:

    masking         each pixel of x' is black with probability m, else that of x
    noise           x' = x + s noise
    bernoulli       - E sum_i x_i log s(g_i) + (1 - x_i) log(1 - s(g_i)),  s the sigmoid, x in [0, 1]
    squared_error   E |x - g(z)|^2

Nothing holds its codes to a prior: N(0, I) means nothing to the decoder. Samples are g(z) for z of a mixture of ten
Gaussians fitted to the codes of training images as they are, not corrupted, after training (Ghosh et al. 2020,
arXiv:1903.12436, sec. 4). Linear networks (`hidden` empty, squared error, nothing corrupted) come to the projection on
the first principal components (Baldi and Hornik 1989).
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssl_gen.core import gradient
from ssl_gen.core.batching import shard_batch
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import choose
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import FittedLatents, LatentDensity
from ssl_gen.core.schedules import annealed
from ssl_gen.losses.likelihood import bernoulli, noisy, squared_error
from ssl_gen.networks.variational import encoder_and_decoder
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Vincent et al. 2008, ICML"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 60_000  # updates; 100 epochs of 60,000 images, ours
    unlabelled_batch: int = 100  # images a step; ours
    network: Literal["mlp", "conv"] = "mlp"  # encoder and decoder; the papers: mlp
    latent: int = 30  # Z; Hinton and Salakhutdinov 2006, MNIST
    hidden: tuple[int, ...] = (1000, 500, 250)  # units a layer of the mlp, ReLU; Hinton and Salakhutdinov: logistic
    width: int = 32  # channels of the first layer of conv networks; ours
    masking: float = 0.25  # share of the pixels that are black; Vincent et al. 2008: 0, 0.1, 0.25 or 0.4; 0: plain
    noise: float = 0.0  # deviation of normal noise, pixels in [0, 1]; Vincent et al. 2010: 0.05 to 0.5
    loss: Literal["bernoulli", "squared_error"] = "bernoulli"  # Vincent et al. 2008, eq. 2; the other: linear outputs
    learning_rate: float = 1e-3  # Adam; ours, the papers: gradient descent layer by layer
    anneal: float = 0.5  # share of the steps, at the end, over which the rate falls to 0; ours


PHOTOGRAPHS = Config(network="conv", latent=128, width=64, loss="squared_error")  # ours


class State(NamedTuple):
    autoencoder: TrainState  # params and stats by "encoder" and "decoder"
    density: LatentDensity | tuple[()] = ()  # of codes, fitted after training, which samples are drawn from


def corrupted(key: Key, images: Array, masking: float, noise: float) -> Array:
    """Images (B, H, W, C) in [-1, 1] with normal noise, and then a share `masking` of their pixels black (-1)."""
    noise_key, masking_key = jax.random.split(key)
    images = noisy(noise_key, images, noise)
    if not masking:
        return images
    return jnp.where(shard_batch(jax.random.uniform(masking_key, images.shape)) < masking, -1.0, images)


def reconstruction(loss: str, images: Array, outputs: Array) -> Array:
    """What the decoder's outputs lose by the images, both (B, H, W, C) -> (B,) nats, or squared pixels in [0, 1]."""
    if loss == "bernoulli":
        return -bernoulli((images + 1) / 2, outputs)
    return squared_error(images, outputs)


def make(config: Config, spec: ImageSpec) -> Method:
    """Encoder and decoder for images of `spec`; labels are not looked at. Raises UserError on an unknown loss."""
    is_bernoulli = choose("loss", config.loss, ("bernoulli", "squared_error")) == "bernoulli"
    networks = encoder_and_decoder(config.network, spec, config.latent, 1, config.hidden, config.width, nn.relu)
    adam = optax.adam(annealed(config.learning_rate, config.steps, config.anneal))
    # They are one player: each is run on its own part of the params, and the optimiser is that of both together.
    encoder, decoder = Player("encoder", networks[0], adam), Player("decoder", networks[1], adam)

    def init(key: Key, batch: Batch) -> State:
        keys, latents = jax.random.split(key), jnp.zeros((batch.unlabelled.shape[0], config.latent))
        e, d = encoder.init(keys[0], batch.unlabelled, None), decoder.init(keys[1], latents, None)
        params = {"encoder": e.params, "decoder": d.params}
        return State(TrainState(params, {"encoder": e.stats, "decoder": d.stats}, adam.init(params), ()))

    def part(state: State, name: str) -> TrainState:
        return TrainState(state.autoencoder.params[name], state.autoencoder.stats[name], (), ())

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        images = corrupted(key, batch.unlabelled, config.masking, config.noise)

        def loss(params: Tree) -> tuple[Terms, Tree]:
            latents, e_stats = encoder.run(part(state, "encoder"), params["encoder"], images, None)
            outputs, d_stats = decoder.run(part(state, "decoder"), params["decoder"], latents, None)
            terms = {"reconstruction": reconstruction(config.loss, batch.unlabelled, outputs).mean()}
            return terms, {"encoder": e_stats, "decoder": d_stats}

        player, metrics = gradient.descend("autoencoder", state.autoencoder, adam, loss)
        return State(player), metrics

    def encode(state: State, images: Array) -> Array:
        return encoder.infer(part(state, "encoder"), images, None)

    def decode(state: State, latents: Array, labels: Array) -> Array:
        outputs = decoder.infer(part(state, "decoder"), latents, None)
        return jnp.tanh(outputs / 2) if is_bernoulli else jnp.clip(outputs, -1, 1)

    def posterior(state: State, images: Array) -> tuple[Array, Array]:
        """An image has one code, which no noise moves."""
        code = encode(state, images)
        return code, jnp.zeros_like(code)

    def sample(state: State, key: Key, labels: Array, sampler: FittedLatents) -> Array:
        return decode(state, sampler.draw_mixed(key, labels.shape[0], state.density, config.latent), labels)

    phase = Phase("main", config.steps, 0, config.unlabelled_batch, step)
    return Method(
        init, (phase,), sample=sample, encode=encode, decode=decode, sampler=FittedLatents(), posterior=posterior
    )
