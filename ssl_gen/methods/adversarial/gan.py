"""Generative adversarial network: a generator and a discriminator, no labels; the unconditional line of every table.

Goodfellow et al. 2014, "Generative Adversarial Networks", arXiv:1406.2661; convolutional: Radford et al. 2016,
"Unsupervised Representation Learning with Deep Convolutional GANs", arXiv:1511.06434.

With s(x) the discriminator's logit, D = sigmoid s and z ~ N(0, I), the default loss is

    L_D = - E_x log D(x) - E_z log(1 - D(G(z)))
    L_G = - E_z log D(G(z))                                              non-saturating

Others by name, with their sources, in `adversarial_losses`: least squares, hinge, Wasserstein with gradient penalty
(WGAN-GP), relativistic with R1 + R2 (the loss of R3GAN, here on the networks of the others). The generator's images of
a step are made once: with several discriminator updates a step each sees its share, and the generator learns from all.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen import adversarial_losses
from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.networks import conv, mlp
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState
from ssl_gen.update import annealed, average, create, descend, forward, interleave, separate, spread

PAPER = "Goodfellow et al. 2014, arXiv:1406.2661"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 50_000  # updates of the generator; 100 epochs of 50,000 images, ours
    unlabelled_batch: int = 100  # images a discriminator update, and as many generated; official MNIST script
    discriminator_steps: int = 1  # updates a step; Gulrajani et al. 2017: 5
    loss: adversarial_losses.Loss = "non_saturating"  # Goodfellow et al. 2014, sec. 3
    gradient_penalty: float = 10.0  # its weight in the wasserstein loss; Gulrajani et al. 2017, sec. 4
    gamma: float = 0.05  # weight of R1 and R2, halved, in the relativistic loss; Huang et al. 2024, CIFAR-10
    network: Literal["mlp", "conv"] = "mlp"  # official MNIST script: dense; Radford et al. 2016: conv
    latent: int = 100  # width of z ~ N(0, 1); official MNIST script
    generator_hidden: tuple[int, ...] = (1200, 1200)  # units a layer; official MNIST script
    discriminator_hidden: tuple[int, ...] = (1200, 1200)  # units a layer; official MNIST script: 240 maxouts of 5
    input_noise: float = 0.3  # deviation in the discriminator; Salimans et al. 2016, official: dropout 0.2
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
    step: Array  # () int32, updates of the generator done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    generator: TrainState
    discriminator: TrainState


def make(config: Config, spec: ImageSpec) -> Method:
    """Generator and discriminator for images of `spec`; it needs no label, classifies nothing, samples obey none."""
    shared = {"input_noise": config.input_noise, "use_bias": config.loss not in adversarial_losses.DIFFERENCES}
    if config.network == "mlp":
        generator = mlp.Generator(spec.shape, spec.classes, config.generator_hidden)
        discriminator = mlp.Discriminator(1, spec.classes, config.discriminator_hidden, noise=config.noise, **shared)
    else:
        generator = conv.Generator(spec.shape, spec.classes, config.width)
        discriminator = conv.Discriminator(1, spec.classes, config.width, normalisation=config.normalisation, **shared)

    def adam(updates: int) -> optax.GradientTransformation:
        return optax.adam(annealed(config.learning_rate, updates, config.anneal), config.b1, config.b2)

    g_optimizer, d_optimizer = adam(config.steps), adam(config.steps * config.discriminator_steps)
    sizes = config.unlabelled_batch, config.unlabelled_batch
    shares = (config.unlabelled_batch,) * config.discriminator_steps

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(jax.random.fold_in(key, BEFORE), 4)
        latents = jax.random.normal(keys[0], (batch.unlabelled.shape[0], config.latent))
        g = generator.init(keys[1], latents, None, train=True)
        d = discriminator.init({"params": keys[2], "noise": keys[3]}, batch.unlabelled, None, train=True)
        return State(
            jnp.int32(0),
            key,
            create(g.pop("params"), g, g_optimizer, average=bool(config.averaging)),
            create(d.pop("params"), d, d_optimizer),
        )

    def judge(player: TrainState, params: dict, key: Key, images: Array) -> tuple[Array, dict]:
        """Logits (B,) and the untrained collections after them."""
        variables, rngs = {"params": params, **player.stats}, {"noise": key}
        (logits, _), stats = discriminator.apply(
            variables, images, None, train=True, rngs=rngs, mutable=["batch_stats"]
        )
        return logits[:, 0], player.stats | stats

    def discriminator_loss(player: TrainState, real: Array, fake: Array, key: Key, params: dict) -> tuple[dict, dict]:
        keys = jax.random.split(key, 4)
        images = augment(config.augmentation, keys[0], interleave(real, fake))
        logits, stats = judge(player, params, keys[1], images)
        terms = adversarial_losses.discriminator_terms(config.loss, *separate(logits, sizes))
        terms |= adversarial_losses.penalties(
            config.loss,
            lambda images: judge(player, params, keys[2], images)[0],
            *separate(images, sizes),
            spread(jax.random.uniform(keys[3], (config.unlabelled_batch,))),
            config.gradient_penalty,
            config.gamma,
        )
        return terms, stats

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3 + config.discriminator_steps)
        latents = spread(jax.random.normal(keys[0], (batch.unlabelled.shape[0], config.latent)))

        def generate(params: dict) -> tuple[Array, dict]:
            variables = {"params": params, **state.generator.stats}
            return generator.apply(variables, latents, None, train=True, mutable=["batch_stats"])

        fake, d = forward(generate, state.generator.params), state.discriminator
        pairs = zip(separate(batch.unlabelled, shares), separate(fake.outputs, shares), keys[3:], strict=True)
        for pair in pairs:
            d, d_metrics = descend("discriminator", d, d_optimizer, functools.partial(discriminator_loss, d, *pair))

        def generator_loss(images: Array) -> tuple[dict, dict]:
            shown = (images, batch.unlabelled) if config.loss == "relativistic" else (images,)
            logits, _ = judge(d, d.params, keys[2], augment(config.augmentation, keys[1], interleave(*shown)))
            logits = separate(logits, tuple(part.shape[0] for part in shown))
            return {"adversarial": adversarial_losses.generator_loss(config.loss, *logits)}, fake.stats

        g, g_metrics = descend("generator", state.generator, g_optimizer, generator_loss, fake)
        g = average(g, config.averaging, state.step) if config.averaging else g
        return State(state.step + 1, state.key, g, d), d_metrics | g_metrics

    def sample(state: State, key: Key, labels: Array) -> Array:
        player = state.generator
        latents = jax.random.normal(key, (labels.shape[0], config.latent))
        params = player.ema if config.averaging else player.params
        return generator.apply({"params": params, **player.stats}, latents, None, train=False)

    phase = Phase("main", config.steps, 0, config.unlabelled_batch * config.discriminator_steps, step)
    return Method(init, (phase,), sample=sample)
