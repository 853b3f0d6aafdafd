"""Feature-matching GAN with a K-class discriminator.

Salimans et al. 2016, "Improved Techniques for Training GANs", arXiv:1606.03498, sec. 3.1 and 5.

The K logits l(x) double as a real/fake score: with the "fake" logit fixed at 0 and Z(x) = sum_k exp l_k(x),

    D(x)   = Z / (Z + 1)
    L_sup  = - E_(x,y) log p(y | x)
    L_uns  = - 1/2 E_u log D(u) - 1/2 E_z log(1 - D(G(z)))
    L_G    = || E_u f(u) - E_z f(G(z)) ||^2 / F

with f the last hidden layer. The official script draws a second batch of unlabelled images for L_G; here both players
see the same one. Classification uses the running mean of the discriminator's params.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen import losses
from ssl_gen.networks import conv, mlp
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState
from ssl_gen.update import average, check_multiples, create, descend, forward, interleave, separate, spread

PAPER = "Salimans et al. 2016, arXiv:1606.03498"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 180_000  # updates; 300 epochs of 60,000 images, official MNIST script
    labelled_batch: int = 100  # images a step; official MNIST script
    unlabelled_batch: int = 100  # images a step, a multiple, and as many generated; official MNIST script
    network: Literal["mlp", "conv"] = "mlp"  # official: MNIST dense, SVHN and CIFAR conv
    latent: int = 100  # width of z ~ U(0, 1); official MNIST script
    generator_hidden: tuple[int, ...] = (500, 500)  # units a layer; official MNIST script
    discriminator_hidden: tuple[int, ...] = (1000, 500, 250, 250, 250)  # units a layer; official MNIST script
    input_noise: float = 0.3  # deviation, pixels in [0, 1]; official MNIST script
    noise: float = 0.5  # deviation before every other layer; official MNIST script
    width: int = 64  # channels of the first layer of conv networks; official SVHN script
    learning_rate: float = 3e-3  # Adam, both players; official MNIST script
    anneal: float = 0.5  # share of the steps, at the end, over which the rate falls to 0; ours, official: 0
    b1: float = 0.5  # Adam; official MNIST script
    eps_root: float = 1e-8  # Adam, under the root: updates shrink once gradients fall below 1e-4; official MNIST script
    unlabelled_weight: float = 1.0  # weight of L_uns; official MNIST script
    distance: Literal["squared", "absolute"] = "squared"  # of mean features; official: absolute for SVHN and CIFAR
    averaging: float = 1 / 18  # time constant of the mean params, in runs; official: 1e-4 a step for 180,000 steps


PHOTOGRAPHS = Config(  # official SVHN and CIFAR-10 scripts
    network="conv", steps=600_000, learning_rate=3e-4, distance="absolute"
)


class State(NamedTuple):
    step: Array  # () int32, updates done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    generator: TrainState
    discriminator: TrainState


def unsupervised(real: Array, fake: Array) -> tuple[Array, Array]:
    """The two halves of L_uns: logits of real (U, K) and generated (U, K) images -> () and () nats.

    log D = log Z - softplus(log Z) and log(1 - D) = - softplus(log Z): the losses of the score log Z.
    """
    return (
        losses.judged_real(jax.nn.logsumexp(real, -1)) / 2,
        losses.judged_fake(jax.nn.logsumexp(fake, -1)) / 2,
    )


def matching(real: Array, fake: Array, distance: str) -> Array:
    """L_G: features of real (U, F) and generated (U, F) images -> ()."""
    difference = real.mean(0) - fake.mean(0)
    return jnp.square(difference).mean() if distance == "squared" else jnp.abs(difference).mean()


def make(config: Config, spec: ImageSpec) -> Method:
    """Generator and K-class discriminator for images of `spec`; samples are not conditional."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    if config.network == "mlp":
        generator = mlp.Generator(spec.shape, spec.classes, config.generator_hidden)
        discriminator = mlp.Discriminator(
            spec.classes, spec.classes, config.discriminator_hidden, config.input_noise, config.noise
        )
    else:
        generator = conv.Generator(spec.shape, spec.classes, config.width)
        discriminator = conv.Discriminator(
            spec.classes, spec.classes, config.width, normalisation="weight", input_noise=config.input_noise
        )
    decay = round(config.anneal * config.steps)
    schedule = optax.linear_schedule(config.learning_rate, 0.0, max(decay, 1), config.steps - decay)
    rate = schedule if decay else config.learning_rate
    optimizer = optax.adam(rate, b1=config.b1, eps=0.0, eps_root=config.eps_root)

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(jax.random.fold_in(key, BEFORE), 4)
        images = jnp.concatenate([batch.labelled, batch.unlabelled])
        latents = jax.random.uniform(keys[0], (images.shape[0], config.latent))
        g = generator.init(keys[1], latents, None, train=True)
        d = discriminator.init({"params": keys[2], "noise": keys[3]}, images, None, train=True)
        return State(
            jnp.int32(0),
            key,
            create(g.pop("params"), g, optimizer),
            create(d.pop("params"), d, optimizer, average=True),
        )

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        latents = spread(jax.random.uniform(keys[0], (batch.unlabelled.shape[0], config.latent)))

        def generate(params: dict) -> tuple[Array, dict]:
            variables = {"params": params, **state.generator.stats}
            return generator.apply(variables, latents, None, train=True, mutable=["batch_stats"])

        def discriminate(player: TrainState, params: dict, images: Array, key: Key) -> tuple[Array, Array]:
            variables = {"params": params, **player.stats}
            return discriminator.apply(variables, images, None, train=True, rngs={"noise": key})

        fake = forward(generate, state.generator.params)
        images = batch.labelled, batch.unlabelled, fake.outputs
        sizes = tuple(part.shape[0] for part in images)

        def discriminator_loss(params: dict) -> tuple[dict, dict]:
            logits, _ = discriminate(state.discriminator, params, interleave(*images), keys[1])
            labelled, real, generated = separate(logits, sizes)
            real_loss, fake_loss = unsupervised(real, generated)
            return {
                "supervised": losses.cross_entropy(labelled, batch.labels),
                "real": config.unlabelled_weight * real_loss,
                "fake": config.unlabelled_weight * fake_loss,
            }, state.discriminator.stats

        new, d_metrics = descend("discriminator", state.discriminator, optimizer, discriminator_loss)
        new = average(new, 1 / max(config.averaging * config.steps, 1), state.step)

        def generator_loss(images: Array) -> tuple[dict, dict]:
            _, features = discriminate(new, new.params, interleave(batch.unlabelled, images), keys[2])
            real, generated = separate(features, sizes[1:])
            return {"matching": matching(real, generated, config.distance)}, fake.stats

        g, g_metrics = descend("generator", state.generator, optimizer, generator_loss, fake)
        return State(state.step + 1, state.key, g, new), d_metrics | g_metrics

    def sample(state: State, key: Key, labels: Array) -> Array:
        latents = jax.random.uniform(key, (labels.shape[0], config.latent))
        return generator.apply({"params": state.generator.params, **state.generator.stats}, latents, None, train=False)

    def classify(state: State, images: Array) -> Array:
        variables = {"params": state.discriminator.ema, **state.discriminator.stats}
        return jax.nn.log_softmax(discriminator.apply(variables, images, None, train=False)[0])

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), sample=sample, classify=classify)
