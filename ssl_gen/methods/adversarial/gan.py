"""Generative adversarial network: a generator and a discriminator, no labels; the unconditional line of every table.

Goodfellow et al. 2014, "Generative Adversarial Networks", arXiv:1406.2661; convolutional: Radford et al. 2016,
"Unsupervised Representation Learning with Deep Convolutional GANs", arXiv:1511.06434.

With s(x) the discriminator's logit, D = sigmoid s and z ~ N(0, I), the default loss is

    L_D = - E_x log D(x) - E_z log(1 - D(G(z)))
    L_G = - E_z log D(G(z))                                              non-saturating

Others by name, with their sources, in `losses.adversarial`: least squares, hinge, Wasserstein with gradient penalty
(WGAN-GP), relativistic with R1 + R2 (the loss of R3GAN, here on the networks of the others). The generator's images of
a step are made once: with several discriminator updates a step each sees its share, and the generator learns from all.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import optax

from ssl_gen.augmentation import Augmentation
from ssl_gen.core.batching import separate, shard_batch
from ssl_gen.core.gradient import Terms
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import NormalLatents
from ssl_gen.core.schedules import annealed
from ssl_gen.losses.adversarial import DIFFERENCES, Game, Loss
from ssl_gen.networks import conv, mlp
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Goodfellow et al. 2014, arXiv:1406.2661"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 50_000  # updates of the generator; 100 epochs of 50,000 images, ours
    unlabelled_batch: int = 100  # images a discriminator update, and as many generated; official MNIST script
    discriminator_steps: int = 1  # updates a step; Gulrajani et al. 2017: 5
    loss: Loss = "non_saturating"  # Goodfellow et al. 2014, sec. 3
    gradient_penalty: float = 10.0  # its weight in the wasserstein loss; Gulrajani et al. 2017, sec. 4
    gamma: float = 0.05  # weight of R1 and R2, halved, in the relativistic loss; Huang et al. 2024, CIFAR-10
    network: Literal["mlp", "conv"] = "mlp"  # official MNIST script: dense; Radford et al. 2016: conv
    latent: int = 100  # width of z ~ N(0, 1); official MNIST script
    generator_hidden: tuple[int, ...] = (1200, 1200)  # units a layer; official MNIST script
    discriminator_hidden: tuple[int, ...] = (1200, 1200)  # units a layer; official MNIST script: 240 maxouts of 5
    input_noise: float = 0.3  # in the discriminator, pixels in [0, 1]; Salimans et al. 2016, official: dropout 0.2
    noise: float = 0.5  # deviation before the mlp discriminator's other layers; likewise, official: dropout 0.5
    width: int = 64  # channels of the first layer of conv networks; official code of Radford et al. 2016
    normalisation: Literal["none", "spectral", "weight"] = "spectral"  # of a conv discriminator; Miyato et al. 2018
    learning_rate: float = 2e-4  # Adam, both players; Radford et al. 2016, sec. 4; Gulrajani et al. 2017: 1e-4
    anneal: float = 0.0  # share of the steps, at the end, over which the rate falls to 0; Radford et al. 2016: none
    b1: float = 0.5  # Adam; Radford et al. 2016, sec. 4; Huang et al. 2024: 0
    b2: float = 0.999  # Adam; Radford et al. 2016; Gulrajani et al. 2017: 0.9
    averaging: float = 0.0  # rate of the mean params that samples are drawn from, a step; 0: none
    augmentation: Augmentation = Augmentation()  # of every image judged, real or generated; Zhao et al. 2020


PHOTOGRAPHS = Config(  # Miyato et al. 2018, arXiv:1802.05957, CIFAR-10
    network="conv", loss="hinge", latent=128, input_noise=0.0, b1=0.0, b2=0.9, discriminator_steps=5, anneal=1.0
)


class State(NamedTuple):
    generator: TrainState
    discriminator: TrainState


def networks(config: Config, spec: ImageSpec) -> tuple[nn.Module, nn.Module]:
    """Generator, discriminator of one logit."""
    classes, noise, use_bias = spec.classes, config.input_noise, config.loss not in DIFFERENCES
    if config.network == "mlp":
        generator = mlp.Generator(spec.shape, classes, config.generator_hidden)
        hidden = config.discriminator_hidden
        return generator, mlp.Discriminator(1, classes, hidden, noise, config.noise, use_bias=use_bias)
    return conv.Generator(spec.shape, classes, config.width), conv.Discriminator(
        1, classes, config.width, normalisation=config.normalisation, input_noise=noise, use_bias=use_bias
    )


def make(config: Config, spec: ImageSpec) -> Method:
    """Generator and discriminator for images of `spec`; it needs no label, classifies nothing, samples obey none."""
    game = Game(config.loss, config.augmentation, config.gradient_penalty, config.gamma)

    def adam(updates: int) -> optax.GradientTransformation:
        return optax.adam(annealed(config.learning_rate, updates, config.anneal), config.b1, config.b2)

    g_network, d_network = networks(config, spec)
    generator = Player("generator", g_network, adam(config.steps), ema=bool(config.averaging))
    discriminator = Player("discriminator", d_network, adam(config.steps * config.discriminator_steps))
    shares = (config.unlabelled_batch,) * config.discriminator_steps

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(key, 4)
        latents = jax.random.normal(keys[0], (batch.unlabelled.shape[0], config.latent))
        return State(
            generator.init(keys[1], latents, None, train=True),
            discriminator.init({"params": keys[2], "noise": keys[3]}, batch.unlabelled, None, train=True),
        )

    def judge(player: TrainState, params: Tree, images: Array, key: Key) -> tuple[Array, Tree]:
        """Logits (B, 1), and the untrained collections after them."""
        (logits, _), stats = discriminator.run(player, params, images, None, rngs={"noise": key})
        return logits, stats

    def discriminator_loss(player: TrainState, real: Array, fake: Array, key: Key, params: Tree) -> tuple[Terms, Tree]:
        terms, _, stats = game.discriminator_terms(functools.partial(judge, player, params), real, fake, key)
        return terms, stats

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 3 + config.discriminator_steps)
        latents = shard_batch(jax.random.normal(keys[0], (batch.unlabelled.shape[0], config.latent)))
        fake, d = generator.forward(state.generator, latents, None), state.discriminator
        pairs = zip(separate(batch.unlabelled, shares), separate(fake.outputs, shares), keys[3:], strict=True)
        for pair in pairs:
            d, d_metrics = discriminator.descend(d, functools.partial(discriminator_loss, d, *pair))

        def generator_loss(images: Array) -> Terms:
            return game.generator_terms(functools.partial(judge, d, d.params), images, batch.unlabelled, keys[1:3])[0]

        g, g_metrics = generator.descend(state.generator, generator_loss, fake)
        return State(generator.average(g, config.averaging, step, latents, None), d), d_metrics | g_metrics

    def sample(state: State, key: Key, labels: Array, sampler: NormalLatents) -> Array:
        return generator.infer(state.generator, sampler.draw(key, labels.shape[0], config.latent), None)

    phase = Phase("main", config.steps, 0, config.unlabelled_batch * config.discriminator_steps, step)
    return Method(init, (phase,), sample=sample, sampler=NormalLatents())
