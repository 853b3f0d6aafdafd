"""Conditional GAN on labelled images alone: the floor of generation, and with all labels its ceiling.

Mirza and Osindero 2014, arXiv:1411.1784, with the discriminator of Miyato and Koyama 2018, "cGANs with Projection
Discriminator", arXiv:1802.05637, or of Odena et al. 2017, "Conditional Image Synthesis with Auxiliary Classifier GANs",
arXiv:1610.09585. No unlabelled image is looked at.

With f the discriminator's features, G(z, y) an image with the label y of the real image that it stands beside, the
default loss is the hinge:

    s(x, y) = psi(f(x)) + y^T V f(x)                                                       projection
    L_D     = E max(0, 1 - s(x, y)) + E max(0, 1 + s(G(z, y), y))
    L_G     = - E s(G(z, y), y)

The auxiliary classifier has a score s(x) without label and class probabilities p(y | x) from one network instead, and

    E CE(p(. | x), y) + E CE(p(. | G(z, y)), y)  is added to L_D,   E CE(p(. | G(z, y)), y)  to L_G.

For few images every judged image, real or generated, is augmented in both players' updates (Zhao et al. 2020,
"Differentiable Augmentation", arXiv:2006.10738). The generator's images of a step are made once: with several
discriminator updates a step each sees its share, and the generator learns from all.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import optax

from ssl_gen.augmentation import DIFF_AUGMENT, Augmentation
from ssl_gen.core.batching import interleave, separate, shard_batch
from ssl_gen.core.gradient import Terms
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import NormalLatents
from ssl_gen.core.schedules import annealed
from ssl_gen.losses.adversarial import DIFFERENCES, Game, Loss
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.networks import conv, mlp
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Miyato and Koyama 2018, arXiv:1802.05637"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 50_000  # updates of the generator; official CIFAR-10 config
    labelled_batch: int = 64  # images a discriminator update, and as many generated; official CIFAR-10 config
    discriminator_steps: int = 5  # updates a step; official CIFAR-10 config; Odena et al. 2017: 1
    conditioning: Literal["projection", "auxiliary"] = "projection"  # Miyato and Koyama 2018, or Odena et al. 2017
    auxiliary: float = 1.0  # weight of the auxiliary classifier's terms; Odena et al. 2017, sec. 3
    loss: Loss = "hinge"  # official CIFAR-10 config; Odena et al. 2017: non_saturating
    gradient_penalty: float = 10.0  # its weight in the wasserstein loss; Gulrajani et al. 2017, sec. 4
    gamma: float = 0.05  # weight of R1 and R2, halved, in the relativistic loss; Huang et al. 2024, CIFAR-10
    network: Literal["mlp", "conv"] = "conv"  # the paper's: residual
    latent: int = 128  # width of z ~ N(0, 1); official CIFAR-10 config
    generator_hidden: tuple[int, ...] = (500, 500)  # units a layer of an mlp; Salimans et al. 2016
    discriminator_hidden: tuple[int, ...] = (500, 500)  # units a layer of an mlp; ours
    input_noise: float = 0.0  # deviation in the discriminator, pixels in [0, 1]; Odena et al. 2017: noise, dropout
    noise: float = 0.0  # deviation before the mlp discriminator's other layers
    width: int = 64  # channels of the first layer of conv networks; Miyato et al. 2018, table 3
    normalisation: Literal["none", "spectral", "weight"] = "spectral"  # of a conv discriminator; sec. 5
    learning_rate: float = 2e-4  # Adam, both players; sec. 5
    anneal: float = 1.0  # share of the steps, at the end, over which the rate falls to 0; official CIFAR-10 config
    b1: float = 0.0  # Adam; sec. 5; Odena et al. 2017: 0.5
    b2: float = 0.9  # Adam; sec. 5; Odena et al. 2017: 0.999
    averaging: float = 0.0  # rate of the mean params that samples are drawn from, a step; 0: none
    augmentation: Augmentation = Augmentation()  # of every image judged; Zhao et al. 2020: cutout 0.5, shift H / 8


# Official CIFAR-10 config; augmentation: Zhao et al. 2020; the mean that draws: ours.
PHOTOGRAPHS = Config(averaging=1e-3, augmentation=DIFF_AUGMENT)


class State(NamedTuple):
    generator: TrainState
    discriminator: TrainState


def networks(config: Config, spec: ImageSpec) -> tuple[nn.Module, nn.Module]:
    """Generator, discriminator: one logit of (image, label), or one of the image and K of its class."""
    classes, noise, use_bias = spec.classes, config.input_noise, config.loss not in DIFFERENCES
    outputs = 1 if config.conditioning == "projection" else 1 + classes
    if config.network == "mlp":
        generator = mlp.Generator(spec.shape, classes, config.generator_hidden)
        hidden = config.discriminator_hidden
        return generator, mlp.Discriminator(outputs, classes, hidden, noise, config.noise, "projection", use_bias)
    return conv.Generator(spec.shape, classes, config.width, "conditional_batch_norm"), conv.Discriminator(
        outputs, classes, config.width, "projection", config.normalisation, noise, use_bias=use_bias
    )


def make(config: Config, spec: ImageSpec) -> Method:
    """Generator and discriminator for images of `spec`; samples obey their labels, an auxiliary output classifies."""
    game = Game(config.loss, config.augmentation, config.gradient_penalty, config.gamma)
    auxiliary = config.conditioning == "auxiliary"

    def adam(updates: int) -> optax.GradientTransformation:
        return optax.adam(annealed(config.learning_rate, updates, config.anneal), config.b1, config.b2)

    g_network, d_network = networks(config, spec)
    generator = Player("generator", g_network, adam(config.steps), ema=bool(config.averaging))
    discriminator = Player("discriminator", d_network, adam(config.steps * config.discriminator_steps))
    shares = (config.labelled_batch,) * config.discriminator_steps

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(key, 4)
        latents = jax.random.normal(keys[0], (batch.labels.shape[0], config.latent))
        streams, labels = {"params": keys[2], "noise": keys[3]}, None if auxiliary else batch.labels
        return State(
            generator.init(keys[1], latents, batch.labels, train=True),
            discriminator.init(streams, batch.labelled, labels, train=True),
        )

    def judge(player: TrainState, params: Tree, labels: Array, images: Array, key: Key) -> tuple[Array, Tree]:
        """Scores and, auxiliary, logits of the class (B, 1 + K), and the untrained collections after them.

        Each of the labels (B / n,) is that of n neighbours: 2 where a generated image stands beside a real one.
        """
        given = None if auxiliary else interleave(*[labels] * (images.shape[0] // labels.shape[0]))
        (outputs, _), stats = discriminator.run(player, params, images, given, rngs={"noise": key})
        return outputs, stats

    def discriminator_loss(
        player: TrainState, real: Array, labels: Array, fake: Array, key: Key, params: Tree
    ) -> tuple[Terms, Tree]:
        judge_pairs = functools.partial(judge, player, params, labels)
        terms, outputs, stats = game.discriminator_terms(judge_pairs, real, fake, key)
        if auxiliary:
            for name, logits in zip(("class_of_real", "class_of_fake"), outputs, strict=True):
                terms[name] = config.auxiliary * cross_entropy(logits[:, 1:], labels)
        return terms, stats

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 3 + config.discriminator_steps)
        latents = shard_batch(jax.random.normal(keys[0], (batch.labels.shape[0], config.latent)))
        fake, d = generator.forward(state.generator, latents, batch.labels), state.discriminator
        parts = (separate(part, shares) for part in (batch.labelled, batch.labels, fake.outputs))
        for part in zip(*parts, keys[3:], strict=True):
            d, d_metrics = discriminator.descend(d, functools.partial(discriminator_loss, d, *part))

        def generator_loss(images: Array) -> Terms:
            judge_pairs = functools.partial(judge, d, d.params, batch.labels)
            terms, outputs = game.generator_terms(judge_pairs, images, batch.labelled, keys[1:3])
            if auxiliary:
                terms["class"] = config.auxiliary * cross_entropy(outputs[:, 1:], batch.labels)
            return terms

        g, g_metrics = generator.descend(state.generator, generator_loss, fake)
        return State(generator.average(g, config.averaging, step, latents, batch.labels), d), d_metrics | g_metrics

    def sample(state: State, key: Key, labels: Array, sampler: NormalLatents) -> Array:
        return generator.infer(state.generator, sampler.draw(key, labels.shape[0], config.latent), labels)

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(discriminator.infer(state.discriminator, images, None)[0][:, 1:])

    phase = Phase("main", config.steps, config.labelled_batch * config.discriminator_steps, 0, step)
    return Method(init, (phase,), sample, classify if auxiliary else None, conditional=True, sampler=NormalLatents())
