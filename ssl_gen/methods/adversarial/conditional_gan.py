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
import jax.numpy as jnp
import optax

from ssl_gen import adversarial_losses, losses
from ssl_gen.augmentation import DIFF_AUGMENT, Augmentation, augment
from ssl_gen.networks import conv, mlp
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState
from ssl_gen.update import annealed, average, create, descend, forward, interleave, separate, spread

PAPER = "Miyato and Koyama 2018, arXiv:1802.05637"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 50_000  # updates of the generator; official CIFAR-10 config
    labelled_batch: int = 64  # images a discriminator update, and as many generated; official CIFAR-10 config
    discriminator_steps: int = 5  # updates a step; official CIFAR-10 config; Odena et al. 2017: 1
    conditioning: Literal["projection", "auxiliary"] = "projection"  # Miyato and Koyama 2018, or Odena et al. 2017
    auxiliary: float = 1.0  # weight of the auxiliary classifier's terms; Odena et al. 2017, sec. 3
    loss: adversarial_losses.Loss = "hinge"  # official CIFAR-10 config; Odena et al. 2017: non_saturating
    gradient_penalty: float = 10.0  # its weight in the wasserstein loss; Gulrajani et al. 2017, sec. 4
    gamma: float = 0.05  # weight of R1 and R2, halved, in the relativistic loss; Huang et al. 2024, CIFAR-10
    network: Literal["mlp", "conv"] = "conv"  # the paper's: residual
    latent: int = 128  # width of z ~ N(0, 1); official CIFAR-10 config
    generator_hidden: tuple[int, ...] = (500, 500)  # units a layer of an mlp; Salimans et al. 2016
    discriminator_hidden: tuple[int, ...] = (500, 500)  # units a layer of an mlp; ours
    input_noise: float = 0.0  # deviation in the discriminator; Odena et al. 2017: noise, dropout
    noise: float = 0.0  # deviation before the mlp discriminator's other layers
    width: int = 64  # channels of the first layer of conv networks; Miyato et al. 2018, table 3
    normalisation: Literal["none", "spectral", "weight"] = "spectral"  # of a conv discriminator; sec. 5
    learning_rate: float = 2e-4  # Adam, both players; sec. 5
    anneal: float = 1.0  # share of the steps, at the end, over which the rate falls to 0; official CIFAR-10 config
    b1: float = 0.0  # Adam; sec. 5; Odena et al. 2017: 0.5
    b2: float = 0.9  # Adam; sec. 5; Odena et al. 2017: 0.999
    averaging: float = 0.0  # rate of the mean params that samples are drawn from, a step; 0: none
    augmentation: Augmentation = Augmentation()  # of every image judged; Zhao et al. 2020: cutout 0.5, translate H / 8


PHOTOGRAPHS = Config(averaging=1e-3, augmentation=DIFF_AUGMENT)  # official CIFAR-10 config; Zhao et al. 2020


class State(NamedTuple):
    step: Array  # () int32, updates of the generator done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    generator: TrainState
    discriminator: TrainState


def networks(config: Config, spec: ImageSpec) -> tuple[nn.Module, nn.Module]:
    """Generator, discriminator: one logit of (image, label), or one of the image and K of its class."""
    projection = config.conditioning == "projection"
    outputs = 1 if projection else 1 + spec.classes
    shared = {
        "conditioning": "projection",
        "input_noise": config.input_noise,
        "use_bias": config.loss not in adversarial_losses.DIFFERENCES,
    }
    if config.network == "mlp":
        generator = mlp.Generator(spec.shape, spec.classes, config.generator_hidden)
        hidden = config.discriminator_hidden
        return generator, mlp.Discriminator(outputs, spec.classes, hidden, noise=config.noise, **shared)
    generator = conv.Generator(spec.shape, spec.classes, config.width, "conditional_batch_norm")
    return generator, conv.Discriminator(
        outputs, spec.classes, config.width, normalisation=config.normalisation, **shared
    )


def make(config: Config, spec: ImageSpec) -> Method:
    """Generator and discriminator for images of `spec`; samples obey their labels, an auxiliary output classifies."""
    generator, discriminator = networks(config, spec)
    auxiliary = config.conditioning == "auxiliary"

    def adam(updates: int) -> optax.GradientTransformation:
        return optax.adam(annealed(config.learning_rate, updates, config.anneal), config.b1, config.b2)

    g_optimizer, d_optimizer = adam(config.steps), adam(config.steps * config.discriminator_steps)
    sizes = config.labelled_batch, config.labelled_batch
    shares = (config.labelled_batch,) * config.discriminator_steps

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(jax.random.fold_in(key, BEFORE), 4)
        latents = jax.random.normal(keys[0], (batch.labels.shape[0], config.latent))
        labels = None if auxiliary else batch.labels
        g = generator.init(keys[1], latents, batch.labels, train=True)
        d = discriminator.init({"params": keys[2], "noise": keys[3]}, batch.labelled, labels, train=True)
        return State(
            jnp.int32(0),
            key,
            create(g.pop("params"), g, g_optimizer, average=bool(config.averaging)),
            create(d.pop("params"), d, d_optimizer),
        )

    def judge(player: TrainState, params: dict, key: Key, images: Array, labels: Array) -> tuple[Array, Array, dict]:
        """Scores (B,), logits of the class (B, K) where it is auxiliary, and the untrained collections after them."""
        variables, given = {"params": params, **player.stats}, None if auxiliary else labels
        (logits, _), stats = discriminator.apply(
            variables, images, given, train=True, rngs={"noise": key}, mutable=["batch_stats"]
        )
        return logits[:, 0], logits[:, 1:], player.stats | stats

    def discriminator_loss(
        player: TrainState, real: Array, labels: Array, fake: Array, key: Key, params: dict
    ) -> tuple[dict, dict]:
        keys = jax.random.split(key, 4)
        images = augment(config.augmentation, keys[0], interleave(real, fake))
        scores, classes, stats = judge(player, params, keys[1], images, interleave(labels, labels))
        terms = adversarial_losses.discriminator_terms(config.loss, *separate(scores, sizes))
        terms |= adversarial_losses.penalties(
            config.loss,
            lambda images: judge(player, params, keys[2], images, labels)[0],
            *separate(images, sizes),
            spread(jax.random.uniform(keys[3], labels.shape)),
            config.gradient_penalty,
            config.gamma,
        )
        if auxiliary:
            for name, logits in zip(("class_of_real", "class_of_fake"), separate(classes, sizes), strict=True):
                terms[name] = config.auxiliary * losses.cross_entropy(logits, labels)
        return terms, stats

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3 + config.discriminator_steps)
        latents = spread(jax.random.normal(keys[0], (batch.labels.shape[0], config.latent)))

        def generate(params: dict) -> tuple[Array, dict]:
            variables = {"params": params, **state.generator.stats}
            return generator.apply(variables, latents, batch.labels, train=True, mutable=["batch_stats"])

        fake, d = forward(generate, state.generator.params), state.discriminator
        parts = (separate(part, shares) for part in (batch.labelled, batch.labels, fake.outputs))
        for part in zip(*parts, keys[3:], strict=True):
            d, d_metrics = descend("discriminator", d, d_optimizer, functools.partial(discriminator_loss, d, *part))

        def generator_loss(images: Array) -> tuple[dict, dict]:
            shown = (images, batch.labelled) if config.loss == "relativistic" else (images,)
            sizes = tuple(part.shape[0] for part in shown)
            shown = augment(config.augmentation, keys[1], interleave(*shown))
            scores, classes, _ = judge(d, d.params, keys[2], shown, interleave(*(batch.labels for _ in sizes)))
            terms = {"adversarial": adversarial_losses.generator_loss(config.loss, *separate(scores, sizes))}
            if auxiliary:
                logits = separate(classes, sizes)[0]
                terms["class"] = config.auxiliary * losses.cross_entropy(logits, batch.labels)
            return terms, fake.stats

        g, g_metrics = descend("generator", state.generator, g_optimizer, generator_loss, fake)
        g = average(g, config.averaging, state.step) if config.averaging else g
        return State(state.step + 1, state.key, g, d), d_metrics | g_metrics

    def sample(state: State, key: Key, labels: Array) -> Array:
        player = state.generator
        latents = jax.random.normal(key, (labels.shape[0], config.latent))
        params = player.ema if config.averaging else player.params
        return generator.apply({"params": params, **player.stats}, latents, labels, train=False)

    def classify(state: State, images: Array) -> Array:
        variables = {"params": state.discriminator.params, **state.discriminator.stats}
        return jax.nn.log_softmax(discriminator.apply(variables, images, None, train=False)[0][:, 1:])

    phase = Phase("main", config.steps, config.labelled_batch * config.discriminator_steps, 0, step)
    return Method(init, (phase,), sample=sample, classify=classify if auxiliary else None, conditional=True)
