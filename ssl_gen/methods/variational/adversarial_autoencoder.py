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
`classify` are those of the encoder's mean params. Samples are g(y, z) for a one-hot y and z ~ N(0, I).

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

from ssl_gen import likelihoods, losses
from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.networks.mlp import Perceptron
from ssl_gen.networks.variational import encoder_and_decoder
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState
from ssl_gen.update import (
    Forward,
    annealed,
    average,
    check_multiples,
    create,
    descend,
    forward,
    interleave,
    separate,
    spread,
)

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
    averaging: float = 0.01  # rate of the encoder's mean params, which classify, a step; ours
    augmentation: Augmentation = Augmentation()  # of every image; the paper: none


PHOTOGRAPHS = Config(  # ours
    network="conv", latent=64, width=64, input_noise=0.1, augmentation=Augmentation(flip=True)
)


class State(NamedTuple):
    step: Array  # () int32, updates done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    encoder: TrainState  # opt: one state for each part of the step, by name
    decoder: TrainState
    category_discriminator: TrainState
    style_discriminator: TrainState


def judged(prior: Array, codes: Array) -> dict[str, Array]:
    """What a discriminator loses by its logits of the prior's draws (U,) and the encoder's (U,): name -> () nats."""
    return {"prior": losses.judged_real(prior), "encoded": losses.judged_fake(codes)}


def make(config: Config, spec: ImageSpec) -> Method:
    """Encoder, decoder and the discriminators of class and style for images of `spec`; samples obey their labels."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    classes, sizes = spec.classes, (config.labelled_batch, config.unlabelled_batch)
    encoder, decoder = encoder_and_decoder(
        config.network, spec, classes + config.latent, 1, config.hidden, config.width, activation=nn.relu
    )
    discriminator = Perceptron(1, classes, config.discriminator_hidden, nn.relu)

    def adam(rate: float, b1: float = 0.9) -> optax.GradientTransformation:
        return optax.adam(annealed(rate, config.steps, config.anneal), b1)

    optimizers = {
        "reconstruction": adam(config.learning_rate),
        "regularisation": adam(config.adversarial_rate, config.b1),
        "supervised": adam(config.supervised_rate),
    }

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(jax.random.fold_in(key, BEFORE), 4)
        images = batch.unlabelled
        labels, style = jnp.zeros((images.shape[0], classes)), jnp.zeros((images.shape[0], config.latent))
        e = encoder.init(keys[0], images, None, train=False)
        d = decoder.init(keys[1], style, labels, train=False)
        category = discriminator.init(keys[2], labels)
        normal = discriminator.init(keys[3], style, labels if config.conditional_style else None)
        player = create(e.pop("params"), e, optimizers["reconstruction"], average=True)
        return State(
            jnp.int32(0),
            key,
            player._replace(opt={name: optimizer.init(player.params) for name, optimizer in optimizers.items()}),
            create(d.pop("params"), d, optimizers["reconstruction"]),
            create(category["params"], {}, optimizers["regularisation"]),
            create(normal["params"], {}, optimizers["regularisation"]),
        )

    def encoded(player: TrainState, key: Key, images: Array) -> Forward:
        """Of noisy images: logits of the class (B, K), style (B, Z)."""
        images = likelihoods.noisy(key, images, config.input_noise)

        def run(params: dict) -> tuple[tuple[Array, Array], dict]:
            variables = {"params": params, **player.stats}
            outputs, stats = encoder.apply(variables, images, None, train=True, mutable=["batch_stats"])
            return (outputs[:, :classes], outputs[:, classes:]), stats

        return forward(run, player.params)

    def train_encoder(part: str, player: TrainState, loss: Callable, codes: Forward) -> tuple[TrainState, Metrics]:
        """One update of the encoder with the optimiser of this part; loss(logits, style) -> terms."""
        moved, metrics = descend(
            part,
            player._replace(opt=player.opt[part]),
            optimizers[part],
            lambda outputs: (loss(*outputs), codes.stats),
            codes,
        )
        return moved._replace(opt={**player.opt, part: moved.opt}), metrics

    def judge(params: dict, key: Key, codes: Array, told: Array | None) -> Array:
        """A discriminator's logits (B,) of codes (B, K) or (B, Z), told (B, K) the class or None."""
        noise = spread(jax.random.normal(key, codes.shape))
        return discriminator.apply({"params": params}, codes + config.noise * noise, told)[:, 0]

    def told(logits: Array) -> Array | None:
        """What the style's discriminator is told of the class (B, K)."""
        return jax.lax.stop_gradient(jax.nn.softmax(logits)) if config.conditional_style else None

    def train_discriminator(
        name: str, player: TrainState, key: Key, prior: Array, codes: Array, told: Array | None
    ) -> tuple[TrainState, Metrics]:
        keys = jax.random.split(key)
        return descend(
            name,
            player,
            optimizers["regularisation"],
            lambda params: (judged(judge(params, keys[0], prior, told), judge(params, keys[1], codes, told)), {}),
        )

    def reconstruct(state: State, key: Key, images: Array) -> tuple[TrainState, TrainState, Metrics]:
        codes = encoded(state.encoder, key, images)

        def errors(params: dict, logits: Array, style: Array) -> tuple[dict, dict]:
            variables, labels = {"params": params, **state.decoder.stats}, jax.nn.softmax(logits)
            outputs, stats = decoder.apply(variables, style, labels, train=True, mutable=["batch_stats"])
            return {"squared_error": likelihoods.squared_error(images, jnp.tanh(outputs / 2)).mean()}, stats

        e, metrics = train_encoder(
            "reconstruction", state.encoder, lambda *outputs: errors(state.decoder.params, *outputs)[0], codes
        )
        d, d_metrics = descend(
            "decoder", state.decoder, optimizers["reconstruction"], lambda params: errors(params, *codes.outputs)
        )
        return e, d, metrics | d_metrics

    def regularise(state: State, key: Key, images: Array) -> tuple[dict[str, TrainState], Metrics]:
        """The two games: both discriminators are updated, then the encoder, which sees the updated ones."""
        keys = jax.random.split(key, 7)
        codes, players, metrics = encoded(state.encoder, keys[0], images), {}, {}
        labels = spread(jax.random.randint(keys[1], (images.shape[0],), 0, classes))
        style = spread(jax.random.normal(keys[2], (images.shape[0], config.latent)))
        category = jax.nn.softmax(codes.outputs[0])
        games = {
            "category_discriminator": (keys[3], jax.nn.one_hot(labels, classes), category, None),
            "style_discriminator": (keys[4], style, codes.outputs[1], told(codes.outputs[0])),
        }
        for name, pair in games.items():
            players[name], more = train_discriminator(name, getattr(state, name), *pair)
            metrics |= more

        def deceive(logits: Array, style: Array) -> dict:
            category = judge(players["category_discriminator"].params, keys[5], jax.nn.softmax(logits), None)
            normal = judge(players["style_discriminator"].params, keys[6], style, told(logits))
            return {"category": losses.judged_real(category), "style": losses.judged_real(normal)}

        players["encoder"], more = train_encoder("regularisation", state.encoder, deceive, codes)
        return players, metrics | more

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 4)
        images = augment(config.augmentation, keys[0], interleave(batch.labelled, batch.unlabelled))
        labelled, unlabelled = separate(images, sizes)
        e, d, metrics = reconstruct(state, keys[1], unlabelled)
        players, more = regularise(state._replace(encoder=e), keys[2], unlabelled)
        e, last = train_encoder(
            "supervised",
            players["encoder"],
            lambda logits, style: {"cross_entropy": losses.cross_entropy(logits, batch.labels)},
            encoded(players["encoder"], keys[3], labelled),
        )
        players |= {"encoder": average(e, config.averaging, state.step), "decoder": d}
        return state._replace(step=state.step + 1, **players), metrics | more | last

    def codes(state: State, params: dict, images: Array) -> tuple[Array, Array]:
        outputs = encoder.apply({"params": params, **state.encoder.stats}, images, None, train=False)
        return outputs[:, :classes], outputs[:, classes:]

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(codes(state, state.encoder.ema, images)[0])

    def encode(state: State, images: Array) -> Array:
        """The style."""
        return codes(state, state.encoder.params, images)[1]

    def decode(state: State, latents: Array, labels: Array) -> Array:
        variables = {"params": state.decoder.params, **state.decoder.stats}
        return jnp.tanh(decoder.apply(variables, latents, labels, train=False) / 2)

    def sample(state: State, key: Key, labels: Array) -> Array:
        return decode(state, jax.random.normal(key, (labels.shape[0], config.latent)), labels)

    phase = Phase("main", config.steps, *sizes, step)
    return Method(init, (phase,), sample=sample, classify=classify, encode=encode, decode=decode, conditional=True)
