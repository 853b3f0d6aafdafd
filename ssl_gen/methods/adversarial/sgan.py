"""SGAN: a discriminator whose K + 1 outputs are the classes and "generated".

Odena 2016, "Semi-Supervised Learning with Generative Adversarial Networks", arXiv:1606.01583.

With p(k | x), k = 1 .. K + 1, the softmax of the discriminator's outputs, (x, y) a labelled and u an unlabelled image:

    L_D = - E log p(y | x) - E log(1 - p(K+1 | u)) - E log p(K+1 | G(z))
    L_G = - E log(1 - p(K+1 | G(z)))

The classifier is the discriminator given that the image is real: p(k | x) / (1 - p(K+1 | x)). The paper's algorithm
names labelled images alone; that an unlabelled one is any class but "generated" is the reading of its title.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.core.batching import interleave, separate, shard_batch
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import NormalLatents
from ssl_gen.core.schedules import annealed
from ssl_gen.losses.adversarial import judged_fake, judged_real
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.networks import conv, mlp
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Odena 2016, arXiv:1606.01583"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 50_000  # updates; ours
    labelled_batch: int = 64  # images a step; ours, the paper gives none
    unlabelled_batch: int = 64  # images a step, a multiple, and as many generated; ours
    network: Literal["mlp", "conv"] = "conv"  # sec. 3: like Radford et al. 2016
    latent: int = 100  # width of z ~ N(0, 1); Radford et al. 2016
    generator_hidden: tuple[int, ...] = (500, 500)  # units a layer of an mlp; Salimans et al. 2016
    discriminator_hidden: tuple[int, ...] = (1000, 500, 250, 250, 250)  # units a layer of an mlp; Salimans et al. 2016
    input_noise: float = 0.0  # deviation in the discriminator, pixels in [0, 1]; Salimans et al. 2016: 0.3
    noise: float = 0.0  # deviation before the mlp discriminator's other layers; Salimans et al. 2016: 0.5
    width: int = 64  # channels of the first layer of conv networks; Radford et al. 2016
    dropout: float = 0.0  # after every stage of a conv discriminator
    normalisation: Literal["none", "spectral", "weight"] = "weight"  # of a conv discriminator; Salimans et al. 2016
    learning_rate: float = 2e-4  # Adam, both players; Radford et al. 2016, sec. 4
    anneal: float = 0.0  # share of the steps, at the end, over which the rate falls to 0; Radford et al. 2016: none
    b1: float = 0.5  # Adam; Radford et al. 2016, sec. 4
    unlabelled_weight: float = 1.0  # of the terms of unlabelled and generated images in L_D
    averaging: float = 0.01  # rate of the discriminator's mean params, which classify, a step; ours
    augmentation: Augmentation = Augmentation()  # of every image judged, real or generated; Zhao et al. 2020


PHOTOGRAPHS = Config(dropout=0.2, augmentation=Augmentation(flip=True))  # dropout: Salimans et al. 2016, CIFAR-10


class State(NamedTuple):
    generator: TrainState
    discriminator: TrainState


def reality(logits: Array) -> Array:
    """log (1 - p(K+1)) / p(K+1), the logit of being real: logits (B, K + 1) -> (B,) nats."""
    return jax.nn.logsumexp(logits[:, :-1], -1) - logits[:, -1]


def networks(config: Config, spec: ImageSpec) -> tuple[nn.Module, nn.Module]:
    """Generator, discriminator with K + 1 outputs."""
    classes, outputs, noise = spec.classes, spec.classes + 1, config.input_noise
    if config.network == "mlp":
        generator = mlp.Generator(spec.shape, classes, config.generator_hidden)
        return generator, mlp.Discriminator(outputs, classes, config.discriminator_hidden, noise, config.noise)
    return conv.Generator(spec.shape, classes, config.width), conv.Discriminator(
        outputs,
        classes,
        config.width,
        normalisation=config.normalisation,
        input_noise=noise,
        dropout=config.dropout,
    )


def make(config: Config, spec: ImageSpec) -> Method:
    """Generator and (K + 1)-class discriminator for images of `spec`; samples are not conditional."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    optimizer = optax.adam(annealed(config.learning_rate, config.steps, config.anneal), config.b1)
    g_network, d_network = networks(config, spec)
    generator = Player("generator", g_network, optimizer)
    discriminator = Player("discriminator", d_network, optimizer, ema=True)

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(key, 5)
        images = jnp.concatenate([batch.labelled, batch.unlabelled])
        latents = jax.random.normal(keys[0], (images.shape[0], config.latent))
        streams = {"params": keys[2], "noise": keys[3], "dropout": keys[4]}
        return State(
            generator.init(keys[1], latents, None, train=True), discriminator.init(streams, images, None, train=True)
        )

    def judge(player: TrainState, params: Tree, key: Key, images: Array) -> tuple[Array, Tree]:
        """Logits (B, K + 1) of augmented images, and the untrained collections after them."""
        augment_key, noise_key, dropout_key = jax.random.split(key, 3)
        images = augment(config.augmentation, augment_key, images)
        rngs = {"noise": noise_key, "dropout": dropout_key}
        (logits, _), stats = discriminator.run(player, params, images, None, rngs=rngs)
        return logits, stats

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 5)
        latents = shard_batch(jax.random.normal(keys[0], (batch.unlabelled.shape[0], config.latent)))
        fake = generator.forward(state.generator, latents, None)
        images = batch.labelled, batch.unlabelled, fake.outputs

        def discriminator_loss(params: Tree) -> tuple[Terms, Tree]:
            logits, stats = judge(state.discriminator, params, keys[1], interleave(*images))
            labelled, real, generated = separate(logits, tuple(part.shape[0] for part in images))
            return {
                "supervised": cross_entropy(labelled, batch.labels),
                "real": config.unlabelled_weight * judged_real(reality(real)),
                "fake": config.unlabelled_weight * judged_fake(reality(generated)),
            }, stats

        d, d_metrics = discriminator.descend(state.discriminator, discriminator_loss)

        def generator_loss(images: Array) -> Terms:
            return {"adversarial": judged_real(reality(judge(d, d.params, keys[2], images)[0]))}

        g, g_metrics = generator.descend(state.generator, generator_loss, fake)
        streams = {"noise": keys[3], "dropout": keys[4]}
        d = discriminator.average(d, config.averaging, step, batch.unlabelled, None, rngs=streams)
        return State(g, d), d_metrics | g_metrics

    def sample(state: State, key: Key, labels: Array, sampler: NormalLatents) -> Array:
        return generator.infer(state.generator, sampler.draw(key, labels.shape[0], config.latent), None)

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(discriminator.infer(state.discriminator, images, None)[0][:, :-1])

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), sample=sample, classify=classify, sampler=NormalLatents())
