"""SDGM: M2 with an auxiliary latent, from which the image is drawn too.

Maaløe et al. 2016, "Auxiliary Deep Generative Models", arXiv:1602.05473, sec. 2 and 3; constants from the official
MNIST script. With p(y) uniform, p(z) = N(0, I), all else of a and z normal with a diagonal covariance:

    p(x, y, a, z)    = p(y) p(z) p(a | z, y) p(x | a, z, y)
    q(y, a, z | x)   = q(a | x) q(y | a, x) q(z | a, x, y)

    L(x, y, a)       = log q(a | x) - log p(y) + KL(q(z | a, x, y) || p(z))
                       - E_q(z|a,x,y) [ log p(a | z, y) + log p(x | a, z, y) ]
    U(u, a)          = sum_y q(y | a, u) (L(u, y, a) + log q(y | a, u))
    J                = E_(x,y) E_q(a|x) [ L(x, y, a) - beta N / N_l log q(y | a, x) ] + E_u E_q(a|u) U(u, a)

E_q(a|x) L is no less than - log p(x, y), E_q(a|u) U no less than - log p(u). With a integrated out q(z | x, y) is a
mixture of normals, so that these bounds can be tighter than those of `m2`. The sum over y is made, not sampled. N_l
images of the mask are labelled, of N in all; the prior N(0, 1) of the weights adds |w|^2 / 2 N to J.

The paper sums over images; the script, and this page, weigh the mean over labelled images as much as the mean over
unlabelled ones. The script averages q(y | a, x) over draws of a before it takes the logarithm, and lets batch norm see
labelled and unlabelled images apart. Here it sees them together.

An image's class has the mean of q(y | a, x) over draws of a, the same ones for every image. Samples are the means of
p(x | a, z, y) for z ~ p(z), a ~ p(a | z, y). The weights of `elbo` and `iwae` leave the class out by summing: with
a ~ q(a | x) and z_y ~ q(z | a, x, y) for every y, w = sum_y p(x, y, a, z_y) / q(a | x) q(z_y | a, x, y).
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.core.batching import interleave, shard_batch
from ssl_gen.core.counts import labelled_share, prior_decay
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import NormalLatents
from ssl_gen.core.schedules import annealed, clipped, staged
from ssl_gen.losses import auxiliary
from ssl_gen.losses.likelihood import bounds, kl_to_prior, normal, pixel_likelihood, reparametrised
from ssl_gen.networks.variational import AuxiliaryAutoencoder
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Maaløe et al. 2016, arXiv:1602.05473"
SKIP = True  # p(x | a, z, y) and p(a | z, y)


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 600_000  # updates; 1000 passes of 600 batches, official MNIST script
    labelled_batch: int = 100  # images a step; official MNIST script
    unlabelled_batch: int = 100  # images a step, a multiple of labelled_batch; official MNIST script
    samples: int = 5  # draws of a for each image of a step; official MNIST script
    draws: int = 100  # of a, for a class; official MNIST script, at the end
    labelled_share: float | None = None  # N_l / N, None: that of the mask
    beta: float = 0.1  # weight of the classification term, times N / N_l; official MNIST script
    auxiliary: int = 100  # width of a; official MNIST script
    latent: int = 100  # Z; official MNIST script
    hidden: tuple[int, ...] = (500, 500)  # units a layer of all five networks; official MNIST script
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "bernoulli"  # of pixels; photographs: logistic
    binarise: bool = True  # bernoulli: pixels are drawn 0 or 1 at each sight; off, nats are no likelihood
    learning_rate: float = 3e-4  # Adam, three quarters of it after each fifth of the steps; official MNIST script
    anneal: float = 0.0  # share of the steps, at the end, over which it falls to 0 instead; ours, official: the stages
    clip_norm: float = 5.0  # of the gradient, which is scaled down to it; official code
    clip: float = 1.0  # of each entry of the gradient, after that; official code
    l2: float | None = None  # weight decay of kernels, in the gradient, None: the prior N(0, 1), 1 / N; official code
    augmentation: Augmentation = Augmentation()  # of every image; the paper: none


PHOTOGRAPHS = Config(  # ours
    labelled_batch=20,
    unlabelled_batch=100,
    samples=1,
    hidden=(1_000, 1_000),
    likelihood="logistic",
    augmentation=Augmentation(flip=True),
)


class State(NamedTuple):
    model: TrainState  # the five networks


def make(config: Config, spec: ImageSpec) -> Method:
    """Encoders, decoders and classifier for images of `spec`; samples obey their labels."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    classes = spec.classes
    likelihood = pixel_likelihood(config.likelihood, config.binarise)
    shape = (spec.height, spec.width, likelihood.maps * spec.channels)
    network = AuxiliaryAutoencoder(shape, classes, config.auxiliary, config.latent, config.hidden, SKIP)
    weight = config.beta / labelled_share(config.labelled_share, spec)
    stages = staged(config.learning_rate, config.steps, 5, 0.75)
    rate = annealed(config.learning_rate, config.steps, config.anneal) if config.anneal else stages
    optimizer = clipped(optax.adam(rate), prior_decay(config.l2, spec), config.clip_norm, config.clip)
    model = Player("model", network, optimizer)

    def init(key: Key, batch: Batch) -> State:
        a, noise = (jnp.zeros((batch.labels.shape[0], width)) for width in (config.auxiliary, config.latent))
        return State(model.init(key, batch.labelled, batch.labels, a, noise, method="initialise"))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 4)
        images = augment(config.augmentation, keys[0], interleave(batch.labelled, batch.unlabelled))
        images = likelihood.observe(keys[1], images)
        seen = auxiliary.repeated(images, batch.labels, config.samples, classes)
        x, pairs = seen.images, seen.pairs
        a_noise = shard_batch(jax.random.normal(keys[2], (x.shape[0], config.auxiliary)))
        noise = shard_batch(jax.random.normal(keys[3], (pairs.shape[0], config.latent)))

        def loss(params: Tree) -> tuple[Terms, Tree]:
            (mean, log_variance), stats = model.run(state.model, params, x, method="encode_auxiliary")
            a = reparametrised(mean, log_variance, a_noise)
            logits, stats = model.run(state.model._replace(stats=stats), params, x, a, method="classify")
            a_pairs, log_q_a = seen.paired(a), seen.paired(normal(a, mean, log_variance))
            (outputs, p_a, q_z), stats = model.run(
                state.model._replace(stats=stats), params, pairs, a_pairs, seen.labels, noise
            )
            log_p = normal(a_pairs, *p_a) + likelihood.log_density(pairs, outputs)
            costs = log_q_a + jnp.log(classes) + kl_to_prior(*q_z) - log_p
            bound, hidden, classification = bounds(costs, jax.nn.log_softmax(logits), seen.given)
            return {"labelled": bound, "unlabelled": hidden, "classification": weight * classification}, stats

        player, metrics = model.descend(state.model, loss)
        return State(player), metrics

    def classify(state: State, images: Array) -> Array:
        noise = jax.random.normal(jax.random.key(0), (config.draws, config.auxiliary))
        return auxiliary.log_class_probabilities(model, state.model, images, noise)

    def encode(state: State, images: Array) -> Array:
        """The mean of q(z | a, x, y) at the mean of q(a | x) and the most probable y."""
        a = model.infer(state.model, images, method="encode_auxiliary")[0]
        return model.infer(state.model, images, a, classify(state, images).argmax(-1), method="encode")[0]

    def draw(state: State, z: Array, labels: Array, noise: Array) -> Array:
        mean, log_variance = model.infer(state.model, z, labels, None, method="decode_auxiliary")
        a = reparametrised(mean, log_variance, noise)
        return likelihood.mean(model.infer(state.model, z, labels, a, method="decode"))

    def decode(state: State, latents: Array, labels: Array) -> Array:
        """At the mean of p(a | z, y)."""
        return draw(state, latents, labels, jnp.zeros(config.auxiliary))

    def sample(state: State, key: Key, labels: Array, sampler: NormalLatents) -> Array:
        z_key, a_key = jax.random.split(key)
        z = sampler.draw(z_key, labels.shape[0], config.latent)
        return draw(state, z, labels, jax.random.normal(a_key, (labels.shape[0], config.auxiliary)))

    def log_weight(state: State, observed: Key, key: Key, images: Array) -> Array:
        a_key, z_key = jax.random.split(key)
        a_noise = jax.random.normal(a_key, (images.shape[0], config.auxiliary))
        noise = a_noise, jax.random.normal(z_key, (images.shape[0] * classes, config.latent))
        return auxiliary.log_weight(
            model, state.model, likelihood, likelihood.observe(observed, images), noise, classes
        )

    phases = (Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step),)
    return Method(
        init, phases, sample, classify, encode, decode, conditional=True, log_weight=log_weight,
        sampler=NormalLatents(), normal_latents=True,
    )  # fmt: skip
