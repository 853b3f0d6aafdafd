"""Adversarial autoencoder: an image is a class and a style, and two discriminators hold them to their priors.

Makhzani et al. 2015, "Adversarial Autoencoders", arXiv:1511.05644, sec. 5. The encoder gives class probabilities
y = q(. | x) and a style z = f(x), the decoder an image g(y, z). Three parts, each with its own optimisers, follow each
other in a step; u has noise on its pixels wherever the encoder sees it:

    reconstruction   E_u |u - g(y, z)|^2                                                          encoder, decoder
    regularisation   - E log D_y(one-hot of a uniform class) - E_u log(1 - D_y(y))                D_y
                     - E log D_z(noise) - E_u log(1 - D_z(z)),  noise ~ N(0, I)                   D_z
                     - E_u log D_y(y) - E_u log D_z(z)                                            encoder
    supervised       - E_(x,y) log q(y | x)                                                       encoder

Where the paper descends with momentum, with rates of its own for each part, Adam stands here. What the discriminators
judge has noise on it, or D_y could tell probabilities from one-hot vectors by their last digit; the probabilities of
`classify` are those of the encoder's EMA. Samples are g(y, z) for a one-hot y and z ~ N(0, I), or, ours, for z of a
Gaussian fitted to the styles of each guessed class: `--sampler.latents class_density`.

D_z holds all styles together to N(0, I), and those of one class can still lie in a corner of their own, which a sample
of another class then comes from. With `conditional_style`, ours, it is D_z(z, y), which is told q(. | u), without
gradient, beside z and beside noise: the styles of each class are held to N(0, I).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.core.batching import interleave, separate, shard_batch
from ssl_gen.core.gradient import Forward, Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import DensityLatents, LatentDensity
from ssl_gen.core.schedules import annealed
from ssl_gen.losses.adversarial import judged_fake, judged_real
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.losses.likelihood import noisy, squared_error
from ssl_gen.networks.mlp import Perceptron
from ssl_gen.networks.variational import encoder_and_decoder
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Makhzani et al. 2015, arXiv:1511.05644"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 60_000  # updates; 100 epochs of 60,000 images, ours; the paper: up to 5000
    labelled_batch: int = 100  # images a step; paper
    unlabelled_batch: int = 100  # images a step, a multiple; paper
    network: Literal["mlp", "conv"] = "mlp"  # encoder and decoder; the paper's MNIST: mlp
    latent: int = 10  # width of the style z; paper
    hidden: tuple[int, ...] = (1000, 1000)  # units a layer of encoder and decoder, ReLU; paper
    discriminator_hidden: tuple[int, ...] = (1000, 1000)  # units a layer of each, ReLU; paper
    width: int = 32  # channels of the first layer of conv networks; ours
    input_noise: float = 0.3  # deviation in the encoder, pixels in [0, 1]; paper
    noise: float = 0.3  # deviation of what the discriminators judge; musyoku/adversarial-autoencoder; paper: none
    learning_rate: float = 1e-3  # Adam, reconstruction; ours; paper: 0.01, momentum 0.9
    adversarial_rate: float = 5e-4  # Adam, regularisation, all three players; ours; paper: 0.1, momentum 0.1
    supervised_rate: float = 1e-3  # Adam, supervised; ours; paper: 0.1, momentum 0.9
    b1: float = 0.5  # Adam, regularisation; ours, as in GANs; musyoku: 0.1
    anneal: float = 0.5  # share of the steps, at the end, over which rates fall to 0; ours; paper: a tenth at epoch 50
    conditional_style: bool = False  # D_z is told the class; ours, paper: no
    averaging: float = 0.01  # rate of the encoder's EMA, which classifies, a step; ours
    augmentation: Augmentation = Augmentation()  # of every image; the paper: none
    latents: Literal["prior", "class_density"] = "prior"  # of samples, unless asked for otherwise; class_density: ours


PHOTOGRAPHS = Config(  # ours
    network="conv", latent=64, width=64, input_noise=0.1, augmentation=Augmentation(flip=True)
)


class State(NamedTuple):
    encoder: TrainState  # opt: one state for each part of the step, by name
    decoder: TrainState
    category_discriminator: TrainState
    style_discriminator: TrainState
    density: LatentDensity | tuple[()] = ()  # of latents, fitted after training where samples are drawn from it


def parts(outputs: Array, classes: int) -> tuple[Array, Array]:
    """The encoder's outputs (B, K + Z) -> logits of the class (B, K), style (B, Z)."""
    return outputs[:, :classes], outputs[:, classes:]


def optimizers(config: Config) -> dict[str, optax.GradientTransformation]:
    """One for each part of the step."""

    def adam(rate: float, b1: float = 0.9) -> optax.GradientTransformation:
        return optax.adam(annealed(rate, config.steps, config.anneal), b1)

    return {
        "reconstruction": adam(config.learning_rate),
        "regularisation": adam(config.adversarial_rate, config.b1),
        "supervised": adam(config.supervised_rate),
    }


def networks(config: Config, spec: ImageSpec) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Encoder, decoder, and the network of either discriminator."""
    outputs = spec.classes + config.latent
    return (
        *encoder_and_decoder(config.network, spec, outputs, 1, config.hidden, config.width, nn.relu),
        Perceptron(1, spec.classes, config.discriminator_hidden, nn.relu),
    )


def make(config: Config, spec: ImageSpec) -> Method:
    """Encoder, decoder and the discriminators of class and style for images of `spec`; samples obey their labels."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    classes, sizes = spec.classes, (config.labelled_batch, config.unlabelled_batch)
    adams = optimizers(config)
    e_network, g_network, d_network = networks(config, spec)
    encoders = {part: Player(part, e_network, adam, ema=True) for part, adam in adams.items()}  # they differ in adam
    encoder = encoders["reconstruction"]
    decoder = Player("decoder", g_network, adams["reconstruction"])
    category_discriminator = Player("category_discriminator", d_network, adams["regularisation"])
    style_discriminator = Player("style_discriminator", d_network, adams["regularisation"])

    def init(key: Key, batch: Batch) -> State:
        keys, count = jax.random.split(key, 4), batch.unlabelled.shape[0]
        labels, style = jnp.zeros((count, classes)), jnp.zeros((count, config.latent))
        e = encoder.init(keys[0], batch.unlabelled, None)
        return State(
            e._replace(opt={part: adam.init(e.params) for part, adam in adams.items()}),
            decoder.init(keys[1], style, labels),
            category_discriminator.init(keys[2], labels, None),
            style_discriminator.init(keys[3], style, labels if config.conditional_style else None),
        )

    def encoded(state: TrainState, key: Key, images: Array) -> Forward:
        return encoder.forward(state, noisy(key, images, config.input_noise), None)

    def train_encoder(
        part: str, state: TrainState, loss: Callable[[Array], Terms], codes: Forward
    ) -> tuple[TrainState, Metrics]:
        """One update of the encoder with the optimiser of this part."""
        after, metrics = encoders[part].descend(state._replace(opt=state.opt[part]), loss, codes)
        return after._replace(opt=state.opt | {part: after.opt}), metrics

    def judge(player: Player, state: TrainState, key: Key, codes: Array, labels: Array | None) -> Array:
        """A discriminator's logits (B,) of codes (B, K) or (B, Z), told the class (B, K) or None."""
        noise = shard_batch(jax.random.normal(key, codes.shape))
        return player.run(state, state.params, codes + config.noise * noise, labels)[0][:, 0]

    def condition(logits: Array) -> Array | None:
        """What the style's discriminator is told of the class (B, K)."""
        return jax.lax.stop_gradient(jax.nn.softmax(logits)) if config.conditional_style else None

    def train_discriminator(
        player: Player, state: TrainState, key: Key, prior: Array, codes: Array, labels: Array | None
    ) -> tuple[TrainState, Metrics]:
        keys = jax.random.split(key)

        def loss(params: Tree) -> tuple[Terms, Tree]:
            moved = state._replace(params=params)
            real, fake = (judge(player, moved, *pair, labels) for pair in ((keys[0], prior), (keys[1], codes)))
            return {"prior": judged_real(real), "encoded": judged_fake(fake)}, state.stats

        return player.descend(state, loss)

    def reconstruct(state: State, key: Key, images: Array) -> tuple[State, Metrics]:
        codes = encoded(state.encoder, key, images)

        def errors(params: Tree, outputs: Array) -> tuple[Terms, Tree]:
            logits, style = parts(outputs, classes)
            pixels, stats = decoder.run(state.decoder, params, style, jax.nn.softmax(logits))
            return {"squared_error": squared_error(images, jnp.tanh(pixels / 2)).mean()}, stats

        e, e_metrics = train_encoder(
            "reconstruction", state.encoder, lambda outputs: errors(state.decoder.params, outputs)[0], codes
        )
        d, d_metrics = decoder.descend(state.decoder, lambda params: errors(params, codes.outputs))
        return state._replace(encoder=e, decoder=d), e_metrics | d_metrics

    def regularise(state: State, key: Key, images: Array) -> tuple[State, Metrics]:
        """The two games: both discriminators are updated, then the encoder, which sees the updated ones."""
        keys, count = jax.random.split(key, 7), images.shape[0]
        codes = encoded(state.encoder, keys[0], images)
        labels = jax.nn.one_hot(shard_batch(jax.random.randint(keys[1], (count,), 0, classes)), classes)
        styles = shard_batch(jax.random.normal(keys[2], (count, config.latent)))
        logits, style = parts(codes.outputs, classes)
        c, c_metrics = train_discriminator(
            category_discriminator, state.category_discriminator, keys[3], labels, jax.nn.softmax(logits), None
        )
        s, s_metrics = train_discriminator(
            style_discriminator, state.style_discriminator, keys[4], styles, style, condition(logits)
        )

        def deceive(outputs: Array) -> Terms:
            logits, style = parts(outputs, classes)
            category = judge(category_discriminator, c, keys[5], jax.nn.softmax(logits), None)
            normal = judge(style_discriminator, s, keys[6], style, condition(logits))
            return {"category": judged_real(category), "style": judged_real(normal)}

        e, e_metrics = train_encoder("regularisation", state.encoder, deceive, codes)
        state = state._replace(encoder=e, category_discriminator=c, style_discriminator=s)
        return state, c_metrics | s_metrics | e_metrics

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 4)
        images = augment(config.augmentation, keys[0], interleave(batch.labelled, batch.unlabelled))
        labelled, unlabelled = separate(images, sizes)
        state, metrics = reconstruct(state, keys[1], unlabelled)
        state, more = regularise(state, keys[2], unlabelled)

        def supervised(outputs: Array) -> Terms:
            return {"cross_entropy": cross_entropy(parts(outputs, classes)[0], batch.labels)}

        codes = encoded(state.encoder, keys[3], labelled)
        e, last = train_encoder("supervised", state.encoder, supervised, codes)
        e = encoder.average(e, config.averaging, step, batch.unlabelled, None)
        return state._replace(encoder=e), metrics | more | last

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(parts(encoder.infer(state.encoder, images, None), classes)[0])

    def encode(state: State, images: Array) -> Array:
        """The style, at the params that the decoder learns with."""
        return parts(encoder.infer(state.encoder, images, None, params=state.encoder.params), classes)[1]

    def posterior(state: State, images: Array) -> tuple[Array, Array]:
        """The style has no variance."""
        style = encode(state, images)
        return style, jnp.zeros_like(style)

    def decode(state: State, latents: Array, labels: Array) -> Array:
        return jnp.tanh(decoder.infer(state.decoder, latents, labels) / 2)

    def sample(state: State, key: Key, labels: Array, sampler: DensityLatents) -> Array:
        latents = sampler.draw_by_class(key, labels, state.density, config.latent)
        return decode(state, latents, labels)

    phases = (Phase("main", config.steps, *sizes, step),)
    return Method(
        init, phases, sample, classify, encode, decode, conditional=True,
        sampler=DensityLatents(latents=config.latents), posterior=posterior, normal_latents=True,
    )  # fmt: skip
