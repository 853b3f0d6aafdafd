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

import jax
import jax.numpy as jnp
import optax

from ssl_gen import losses
from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.networks import conv, mlp
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState
from ssl_gen.update import annealed, average, check_multiples, create, descend, forward, interleave, separate, spread

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
    input_noise: float = 0.0  # deviation in the discriminator; Salimans et al. 2016: 0.3
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
    step: Array  # () int32, updates done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    generator: TrainState
    discriminator: TrainState


def reality(logits: Array) -> Array:
    """log (1 - p(K+1)) / p(K+1), the logit of being real: logits (B, K + 1) -> (B,) nats."""
    return jax.nn.logsumexp(logits[:, :-1], -1) - logits[:, -1]


def make(config: Config, spec: ImageSpec) -> Method:
    """Generator and (K + 1)-class discriminator for images of `spec`; samples are not conditional."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    outputs = spec.classes + 1
    if config.network == "mlp":
        generator = mlp.Generator(spec.shape, spec.classes, config.generator_hidden)
        discriminator = mlp.Discriminator(
            outputs, spec.classes, config.discriminator_hidden, config.input_noise, config.noise
        )
    else:
        generator = conv.Generator(spec.shape, spec.classes, config.width)
        discriminator = conv.Discriminator(
            outputs,
            spec.classes,
            config.width,
            normalisation=config.normalisation,
            input_noise=config.input_noise,
            dropout=config.dropout,
        )
    optimizer = optax.adam(annealed(config.learning_rate, config.steps, config.anneal), config.b1)

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(jax.random.fold_in(key, BEFORE), 5)
        images = jnp.concatenate([batch.labelled, batch.unlabelled])
        latents = jax.random.normal(keys[0], (images.shape[0], config.latent))
        g = generator.init(keys[1], latents, None, train=True)
        streams = {"params": keys[2], "noise": keys[3], "dropout": keys[4]}
        d = discriminator.init(streams, images, None, train=True)
        return State(
            jnp.int32(0),
            key,
            create(g.pop("params"), g, optimizer),
            create(d.pop("params"), d, optimizer, average=True),
        )

    def judge(player: TrainState, params: dict, key: Key, images: Array) -> tuple[Array, dict]:
        """Logits (B, K + 1) of augmented images, and the untrained collections after them."""
        keys = jax.random.split(key, 3)
        (logits, _), stats = discriminator.apply(
            {"params": params, **player.stats},
            augment(config.augmentation, keys[0], images),
            None,
            train=True,
            rngs={"noise": keys[1], "dropout": keys[2]},
            mutable=["batch_stats"],
        )
        return logits, player.stats | stats

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        latents = spread(jax.random.normal(keys[0], (batch.unlabelled.shape[0], config.latent)))

        def generate(params: dict) -> tuple[Array, dict]:
            variables = {"params": params, **state.generator.stats}
            return generator.apply(variables, latents, None, train=True, mutable=["batch_stats"])

        fake = forward(generate, state.generator.params)
        images = batch.labelled, batch.unlabelled, fake.outputs

        def discriminator_loss(params: dict) -> tuple[dict, dict]:
            logits, stats = judge(state.discriminator, params, keys[1], interleave(*images))
            labelled, real, generated = separate(logits, tuple(part.shape[0] for part in images))
            return {
                "supervised": losses.cross_entropy(labelled, batch.labels),
                "real": config.unlabelled_weight * losses.judged_real(reality(real)),
                "fake": config.unlabelled_weight * losses.judged_fake(reality(generated)),
            }, stats

        d, d_metrics = descend("discriminator", state.discriminator, optimizer, discriminator_loss)

        def generator_loss(images: Array) -> tuple[dict, dict]:
            return {"adversarial": losses.judged_real(reality(judge(d, d.params, keys[2], images)[0]))}, fake.stats

        g, g_metrics = descend("generator", state.generator, optimizer, generator_loss, fake)
        return State(state.step + 1, state.key, g, average(d, config.averaging, state.step)), d_metrics | g_metrics

    def sample(state: State, key: Key, labels: Array) -> Array:
        latents, player = jax.random.normal(key, (labels.shape[0], config.latent)), state.generator
        return generator.apply({"params": player.params, **player.stats}, latents, None, train=False)

    def classify(state: State, images: Array) -> Array:
        variables = {"params": state.discriminator.ema, **state.discriminator.stats}
        return jax.nn.log_softmax(discriminator.apply(variables, images, None, train=False)[0][:, :-1])

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), sample=sample, classify=classify)
