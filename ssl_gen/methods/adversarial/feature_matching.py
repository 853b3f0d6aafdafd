"""Feature-matching GAN with a K-class discriminator.

Salimans et al. 2016, "Improved Techniques for Training GANs", arXiv:1606.03498, sec. 3.1 and 5.

The K logits l(x) double as a real/fake score: with the "fake" logit fixed at 0 and Z(x) = sum_k exp l_k(x),

    D(x)   = Z / (Z + 1)
    L_sup  = - E_(x,y) log p(y | x)
    L_uns  = - 1/2 E_u log D(u) - 1/2 E_z log(1 - D(G(z)))
    L_G    = || E_u f(u) - E_z f(G(z)) ||^2 / F

with f the last hidden layer. For L_G the official scripts draw a second batch of unlabelled images and other latents z;
here both players see the same images, real and generated, each under noise or dropout of its own. Classification uses
the EMA of the discriminator's params. The conv discriminator is the scripts' for SVHN and CIFAR-10; the generator
beside it is ours: kernels of 4 x 4 pixels, not 5 x 5, batch norm with scales, an output without weight norm.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen.core.batching import interleave, separate, shard_batch
from ssl_gen.core.ema import update_ema
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import annealed
from ssl_gen.losses.adversarial import matching, unsupervised
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.networks.feature_matching import Network, generator_and_discriminator
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, NoSettings, Phase, TrainState, Tree

PAPER = "Salimans et al. 2016, arXiv:1606.03498"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 180_000  # updates; 300 epochs of 60,000 images, official MNIST script
    labelled_batch: int = 100  # images a step; official MNIST script
    unlabelled_batch: int = 100  # images a step, a multiple, and as many generated; official MNIST script
    network: Network = "mlp"  # official: MNIST dense, SVHN and CIFAR conv
    latent: int = 100  # width of z ~ U(0, 1); official MNIST script
    generator_hidden: tuple[int, ...] = (500, 500)  # units a layer; official MNIST script
    discriminator_hidden: tuple[int, ...] = (1000, 500, 250, 250, 250)  # units a layer; official MNIST script
    input_noise: float = 0.3  # deviation in an mlp discriminator, pixels in [0, 1]; official MNIST script
    noise: float = 0.5  # deviation before the mlp discriminator's other layers; official MNIST script
    width: int = 64  # channels of a conv discriminator's first layers; official SVHN script; CIFAR-10: 96
    generator_width: int = 128  # channels of a conv generator's last maps; official SVHN and CIFAR-10 scripts
    dropout: tuple[float, float, float] = (0.2, 0.5, 0.5)  # of a conv discriminator, see `conv9`; official scripts
    learning_rate: float = 3e-3  # Adam, both players; official MNIST script
    anneal: float = 0.5  # share of the steps, at the end, over which the rate falls to 0; ours; MNIST 0, others 1/3
    b1: float = 0.5  # Adam; official MNIST script
    eps_root: float = 1e-8  # Adam, under the root: updates shrink once gradients fall below 1e-4; official MNIST script
    unlabelled_weight: float = 1.0  # weight of L_uns; official MNIST script
    distance: Literal["squared", "absolute"] = "squared"  # of mean features; official: absolute for SVHN and CIFAR
    averaging: float = 1 / 18  # time constant of the mean params, in runs; official: 10,000 steps (of 180,000)


PHOTOGRAPHS = Config(  # official CIFAR-10 script (train_cifar_feature_matching.py), 1,200 epochs of 50,000 images
    network="conv", steps=600_000, width=96, learning_rate=3e-4, anneal=1 / 3, distance="absolute", averaging=1 / 60
)


class State(NamedTuple):
    generator: TrainState
    discriminator: TrainState


def make(config: Config, spec: ImageSpec) -> Method:
    """Generator and K-class discriminator for images of `spec`; samples are not conditional."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    rate = annealed(config.learning_rate, config.steps, config.anneal)
    adam = optax.adam(rate, b1=config.b1, eps=0.0, eps_root=config.eps_root)
    g_network, d_network = generator_and_discriminator(
        config.network, spec, config.generator_hidden, config.discriminator_hidden,
        (config.input_noise, config.noise), config.generator_width, config.width, config.dropout,
    )  # fmt: skip
    generator = Player("generator", g_network, adam)
    discriminator = Player("discriminator", d_network, adam, ema=True)

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(key, 4)
        images = jnp.concatenate([batch.labelled, batch.unlabelled])
        latents = jax.random.uniform(keys[0], (images.shape[0], config.latent))
        return State(
            generator.init(keys[1], latents, None, train=True),
            discriminator.init({"params": keys[2], "noise": keys[3], "dropout": keys[3]}, images, None, train=True),
        )

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 3)
        latents = shard_batch(jax.random.uniform(keys[0], (batch.unlabelled.shape[0], config.latent)))
        fake = generator.forward(state.generator, latents, None)
        images = batch.labelled, batch.unlabelled, fake.outputs
        sizes = tuple(part.shape[0] for part in images)

        def judge(player: TrainState, params: Tree, images: Array, key: Key) -> tuple[tuple[Array, Array], Tree]:
            return discriminator.run(player, params, images, None, rngs={"noise": key, "dropout": key})

        def discriminator_loss(params: Tree) -> tuple[Terms, Tree]:
            (logits, _), stats = judge(state.discriminator, params, interleave(*images), keys[1])
            labelled, real, generated = separate(logits, sizes)
            real_loss, fake_loss = unsupervised(real, generated)
            return {
                "supervised": cross_entropy(labelled, batch.labels),
                "real": config.unlabelled_weight * real_loss,
                "fake": config.unlabelled_weight * fake_loss,
            }, stats

        d, d_metrics = discriminator.descend(state.discriminator, discriminator_loss)
        d = update_ema(d, 1 / max(config.averaging * config.steps, 1), step)

        def generator_loss(images: Array) -> Terms:
            both = interleave(batch.unlabelled, images)
            (_, features), _ = judge(d, d.params, both, keys[2])
            real, generated = separate(features, sizes[1:])
            return {"matching": matching(real, generated, config.distance)}

        g, g_metrics = generator.descend(state.generator, generator_loss, fake)
        return State(g, d), d_metrics | g_metrics

    def sample(state: State, key: Key, labels: Array, sampler: NoSettings) -> Array:
        latents = jax.random.uniform(key, (labels.shape[0], config.latent))
        return generator.infer(state.generator, latents, None)

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(discriminator.infer(state.discriminator, images, None)[0])

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), sample=sample, classify=classify)
