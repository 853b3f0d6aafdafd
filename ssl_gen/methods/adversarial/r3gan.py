"""R3GAN: a relativistic GAN that R1 and R2 hold, on residual networks without normalisation or tricks.

Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern GAN Baseline", arXiv:2501.05441, sec. 2 to 4; constants
from its code. A real image x of class y is compared with a generated one of this class, s the discriminator's logit:

    L_D    = E log(1 + e^-(s(x, y) - s(G(z, y), y))) + gamma/2 E |ds/dx|^2 + gamma/2 E |ds/dG|^2          R1, R2
    L_G    = E log(1 + e^-(s(G(z, y), y) - s(x, y)))

Every real image is compared with a generated one, so that a mode left out costs, and with both penalties the game
converges near its end. The learning rate, gamma, b2 and the half-life of the mean params that draw go from their first
value to their last along a half cosine over the run: over its first 20 million images in the paper, which goes on.

All images are one pool, in which each is seen once an epoch. Images whose label is visible have it; what the others are
told decides what is learnt, as on the page of `flow_matching`. The paper has none of this, its labels are all there:

    guessed     the class that the classifier of an earlier run guesses, `--labeller RUN`; with `--labels all` none is
                guessed, and it is the ceiling
    null        no class, in both players' eyes
    left_out    they are not seen: the floor

Without `--labeller`, then, choose null or left_out. An image without a class is judged by a part of the logit that
knows none. The paper's augmentation grows over the run and its penalties are taken through it; here it stays, and they
are on the slopes in the images as they are judged. Both players of a step see the same images and z, drawn once; in the
paper's code G sees others than D.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import DIFF_AUGMENT, Augmentation
from ssl_gen.core.batching import repeated, shard_batch
from ssl_gen.core.conditioning import TOLD, Unlabelled, phase_of
from ssl_gen.core.ema import update_ema
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import choose
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import NormalLatents
from ssl_gen.core.schedules import adam_step, half_cosine
from ssl_gen.losses.adversarial import Game
from ssl_gen.networks import residual
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, TrainState, Tree

PAPER = "Huang et al. 2024, arXiv:2501.05441"
Network = Literal["residual", "mlp"]


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 40_000  # updates of each player; official CIFAR-10 config: 20 million images, 512 a step, and more
    unlabelled: Unlabelled = "guessed"  # what is done with images without a label; ours
    labelled_batch: int = 64  # images a step, of the labelled alone where others are left out; ours
    unlabelled_batch: int = 64  # images a step of all images, else; ours; official CIFAR-10 config: 512
    network: Network = "residual"  # paper: residual; mlp: its dense twin, ours, for digits on a processor
    width: int = 64  # channels of every stage, or units of a dense layer; ours; official CIFAR-10 config: 768
    blocks: int = 2  # residual blocks a stage, or in all of an mlp; official CIFAR-10 config
    latent: int = 64  # width of z ~ N(0, I); official CIFAR-10 config
    gamma: float = 0.05  # weight of R1 and R2, halved, at the start; official CIFAR-10 config; grows with the pixels
    final_gamma: float = 0.005  # the same at the end; official CIFAR-10 config
    learning_rate: float = 2e-4  # Adam at the start, both players, b1 0; official CIFAR-10 config
    final_rate: float = 5e-5  # Adam at the end; official CIFAR-10 config
    b2: float = 0.9  # Adam at the start; official CIFAR-10 config
    final_b2: float = 0.99  # Adam at the end; official CIFAR-10 config
    averaging: float = 0.25  # half-life of the mean params at the end, in runs, from 0; official: 5 of 20 million
    augmentation: Augmentation = Augmentation()  # of every image judged; official: that of StyleGAN2-ADA, growing


PHOTOGRAPHS = Config(steps=400_000, width=256, augmentation=DIFF_AUGMENT)  # ours, smaller than the official CIFAR-10


class State(NamedTuple):
    generator: TrainState
    discriminator: TrainState


def averaging_rate(half_life: Array) -> Array:
    """The rate of a mean whose newest parts weigh a half after so many updates, () -> (); 1 where it is 0."""
    return -jnp.expm1(-jnp.log(2.0) / jnp.maximum(half_life, 1e-8))


def networks(config: Config, spec: ImageSpec) -> tuple[nn.Module, nn.Module]:
    """Generator, discriminator. Raises UserError on an unknown network."""
    sizes = spec.classes, config.width, config.blocks
    if choose("network", config.network, get_args(Network)) == "mlp":
        return residual.DenseGenerator(spec.shape, *sizes), residual.DenseDiscriminator(*sizes)
    return residual.Generator(spec.shape, *sizes), residual.Discriminator(*sizes)


def make(config: Config, spec: ImageSpec) -> Method:
    """Generator and discriminator for images of `spec`; samples obey their labels."""
    gamma = half_cosine(config.gamma, config.final_gamma, config.steps)
    half_life = half_cosine(0.0, config.averaging * config.steps, config.steps)
    adam = optax.inject_hyperparams(adam_step)(
        learning_rate=half_cosine(config.learning_rate, config.final_rate, config.steps),
        b1=0.0,
        b2=half_cosine(config.b2, config.final_b2, config.steps),
    )
    g_network, d_network = networks(config, spec)
    generator = Player("generator", g_network, adam, ema=True)
    discriminator = Player("discriminator", d_network, adam)

    def init(key: Key, batch: Batch) -> State:
        keys, labels = jax.random.split(key), jnp.zeros(1, jnp.int32)
        return State(
            generator.init(keys[0], jnp.zeros((1, config.latent)), labels),
            discriminator.init(keys[1], jnp.zeros((1, *spec.shape)), labels),
        )

    def judge(player: TrainState, params: Tree, labels: Array, images: Array, key: Key) -> tuple[Array, Tree]:
        """Logits (B, 1) of pairs: each of the labels (B / 2,) is that of two neighbours. Nothing is drawn of `key`."""
        return discriminator.run(player, params, images, repeated(labels, 2))

    def learn(state: State, key: Key, step: Array, real: Array, labels: Array) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 4)
        game = Game("relativistic", config.augmentation, 0.0, gamma(step))
        latents = shard_batch(jax.random.normal(keys[0], (real.shape[0], config.latent)))
        fake = generator.forward(state.generator, latents, labels)

        def discriminator_loss(params: Tree) -> tuple[Terms, Tree]:
            judge_pairs = functools.partial(judge, state.discriminator, params, labels)
            terms, _, stats = game.discriminator_terms(judge_pairs, real, fake.outputs, keys[1])
            return terms, stats

        d, d_metrics = discriminator.descend(state.discriminator, discriminator_loss)

        def generator_loss(images: Array) -> Terms:
            return game.generator_terms(functools.partial(judge, d, d.params, labels), images, real, keys[2:])[0]

        g, g_metrics = generator.descend(state.generator, generator_loss, fake)
        return State(update_ema(g, averaging_rate(half_life(step)), step), d), d_metrics | g_metrics

    def sample(state: State, key: Key, labels: Array, sampler: NormalLatents) -> Array:
        latents = sampler.draw(key, labels.shape[0], config.latent)
        return generator.infer(state.generator, latents, labels).clip(-1, 1)

    phase = phase_of(config, learn)
    return Method(init, (phase,), sample, conditional=True, told=TOLD[config.unlabelled], sampler=NormalLatents())
