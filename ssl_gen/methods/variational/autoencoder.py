"""Autoencoder, plain or denoising: images through a narrow code and back, without labels.

Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising Autoencoders", ICML, sec. 2, and 2010,
JMLR 11. Without corruption it is that of Hinton and Salakhutdinov 2006, Science 313, whose sizes are the defaults, here
trained in one go. With x the image, x' a corrupted copy, z = f(x') and g(z) the decoder's outputs:

    masking         each pixel of x' is black with probability m, else that of x
    noise           x' = x + s noise
    bernoulli       - E sum_i x_i log s(g_i) + (1 - x_i) log(1 - s(g_i)),  s the sigmoid, x in [0, 1]
    squared_error   E |x - g(z)|^2

Its codes follow no known distribution, so that images are reconstructed and none are drawn. Linear networks (`hidden`
empty, squared error, nothing corrupted) come to the projection on the first principal components (Baldi and Hornik
1989).
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssl_gen import likelihoods
from ssl_gen.networks.normalisation import choose
from ssl_gen.networks.variational import encoder_and_decoder
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState
from ssl_gen.update import annealed, create, descend, spread

PAPER = "Vincent et al. 2008, ICML"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 60_000  # updates; 100 epochs of 60,000 images, ours
    unlabelled_batch: int = 100  # images a step; ours
    network: Literal["mlp", "conv"] = "mlp"  # encoder and decoder; the papers: mlp
    latent: int = 30  # Z; Hinton and Salakhutdinov 2006, MNIST
    hidden: tuple[int, ...] = (
        1000,
        500,
        250,
    )  # units a layer of the mlp, ReLU; Hinton and Salakhutdinov: logistic
    width: int = 32  # channels of the first layer of conv networks; ours
    masking: float = 0.25  # share of the pixels that are black; Vincent et al. 2008: 0, 0.1, 0.25 or 0.4; 0: plain
    noise: float = 0.0  # deviation of normal noise, pixels in [0, 1]; Vincent et al. 2010: 0.05 to 0.5
    loss: Literal["bernoulli", "squared_error"] = "bernoulli"  # Vincent et al. 2008, eq. 2; the other: linear outputs
    learning_rate: float = 1e-3  # Adam; ours, the papers: gradient descent layer by layer
    anneal: float = 0.5  # share of the steps, at the end, over which the rate falls to 0; ours


PHOTOGRAPHS = Config(network="conv", latent=128, width=64, loss="squared_error")  # ours


class State(NamedTuple):
    step: Array  # () int32, updates done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    autoencoder: TrainState  # params and stats by "encoder" and "decoder"


def corrupted(key: Key, images: Array, masking: float, noise: float) -> Array:
    """Images (B, H, W, C) in [-1, 1] with normal noise, and then a share `masking` of their pixels black (-1)."""
    noise_key, masking_key = jax.random.split(key)
    images = likelihoods.noisy(noise_key, images, noise)
    if not masking:
        return images
    return jnp.where(spread(jax.random.uniform(masking_key, images.shape)) < masking, -1.0, images)


def reconstruction(loss: str, images: Array, outputs: Array) -> Array:
    """What the decoder's outputs lose by the images, both (B, H, W, C) -> (B,) nats, or squared pixels in [0, 1]."""
    if loss == "bernoulli":
        return -likelihoods.bernoulli((images + 1) / 2, outputs)
    return likelihoods.squared_error(images, outputs)


def make(config: Config, spec: ImageSpec) -> Method:
    """Encoder and decoder for images of `spec`; labels are not looked at. Raises UserError on an unknown loss."""
    bernoulli = choose("loss", config.loss, ("bernoulli", "squared_error")) == "bernoulli"
    encoder, decoder = encoder_and_decoder(
        config.network, spec, config.latent, 1, config.hidden, config.width, activation=nn.relu
    )
    optimizer = optax.adam(annealed(config.learning_rate, config.steps, config.anneal))

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(jax.random.fold_in(key, BEFORE))
        latents = jnp.zeros((batch.unlabelled.shape[0], config.latent))
        e = encoder.init(keys[0], batch.unlabelled, None, train=False)
        d = decoder.init(keys[1], latents, None, train=False)
        params = {"encoder": e.pop("params"), "decoder": d.pop("params")}
        return State(jnp.int32(0), key, create(params, {"encoder": e, "decoder": d}, optimizer))

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        key, stats = jax.random.fold_in(state.key, state.step), state.autoencoder.stats
        seen = corrupted(key, batch.unlabelled, config.masking, config.noise)

        def loss(params: dict) -> tuple[dict, dict]:
            variables = {name: {"params": params[name], **stats[name]} for name in params}
            latents, e = encoder.apply(variables["encoder"], seen, None, train=True, mutable=["batch_stats"])
            outputs, d = decoder.apply(variables["decoder"], latents, None, train=True, mutable=["batch_stats"])
            terms = {"reconstruction": reconstruction(config.loss, batch.unlabelled, outputs).mean()}
            return terms, {"encoder": e, "decoder": d}

        player, metrics = descend("autoencoder", state.autoencoder, optimizer, loss)
        return State(state.step + 1, state.key, player), metrics

    def variables(state: State, name: str) -> dict:
        return {"params": state.autoencoder.params[name], **state.autoencoder.stats[name]}

    def encode(state: State, images: Array) -> Array:
        return encoder.apply(variables(state, "encoder"), images, None, train=False)

    def decode(state: State, latents: Array, labels: Array) -> Array:
        outputs = decoder.apply(variables(state, "decoder"), latents, None, train=False)
        return jnp.tanh(outputs / 2) if bernoulli else jnp.clip(outputs, -1, 1)

    phase = Phase("main", config.steps, 0, config.unlabelled_batch, step)
    return Method(init, (phase,), encode=encode, decode=decode)
