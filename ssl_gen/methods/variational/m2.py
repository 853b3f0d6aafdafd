"""M2: a variational autoencoder whose decoder is told the class, and a classifier that guesses it where it is hidden.

Kingma et al. 2014, "Semi-Supervised Learning with Deep Generative Models", arXiv:1406.5298, sec. 2 and 3; constants
from the official MNIST script. With p(y) uniform, p(z) = N(0, I), q(z | x, y) normal and q(y | x) the classifier:

    L(x, y) = - E_q(z|x,y) log p(x | y, z) - log p(y) + KL(q(z | x, y) || p(z))     eq. 6: - log p(x, y) is less
    U(u)    = sum_y q(y | u) (L(u, y) + log q(y | u))                               eq. 7: - log p(u) is less
    J       = l E_(x,y) L(x, y) + (1 - l) E_u U(u) - alpha E_(x,y) log q(y | x)     eq. 9, a mean over all N images
    l       = N_l / N, of the mask: N_l labelled images, N - N_l in the unlabelled pool

The sum over y is made, not sampled: each unlabelled image goes through encoder and decoder K times, each time with its
own noise. The weights' prior N(0, 1) adds |w|^2 / 2 N to J.

The official code, nips14-ssl, learns M2 from few labels on the latents of M1 alone (`stacked_m1_m2`). It differs: its
weights start at N(0, 1e-3^2), those of q's log variance at 0, here each layer's deviation is 1 / sqrt(inputs); its
prior spares the biases of encoder and decoder, not the classifier's, here it spares none; its Adam has neither bias
correction nor epsilon. Its p(y) is uniform too: it has logits of classes, and multiplies them by 0.

Samples are the means of p(x | y, z) for z ~ p(z), or, ours, for z of a Gaussian fitted to the latents of each guessed
class: `--sampler.latents class_density`. The weights of `elbo` and `iwae` leave the class out by summing too:
with z_y ~ q(z | x, y) for every y, w = sum_y p(y) p(x | y, z_y) p(z_y) / q(z_y | x, y), whose mean is p(x) and whose
mean logarithm is no less than - U. Each test image is binarised (or dequantised) once, for all draws of z.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.core.batching import interleave, separate, shard_batch
from ssl_gen.core.counts import labelled_share, prior_decay
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import DensityLatents, LatentDensity
from ssl_gen.losses.likelihood import (
    every_pair,
    kl_to_prior,
    labelled_pairs,
    log_importance,
    mean_over_classes,
    pixel_likelihood,
    semi_supervised_terms,
)
from ssl_gen.networks.variational import autoencoder
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Kingma et al. 2014, arXiv:1406.5298"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 300_000  # updates; 3000 passes of 100 batches, official MNIST script, 100 labels
    labelled_batch: int = 100  # images a step; ours, official: labels / 100
    unlabelled_batch: int = 500  # images a step, a multiple of labelled_batch; official: 499
    labelled_share: float | None = None  # l, None: that of the mask; official: 0.002, 100 of MNIST's 50,000
    alpha: float = 0.1  # weight of the classification term; paper, sec. 4
    network: Literal["mlp", "conv"] = "mlp"  # all three networks; the paper: mlp
    latent: int = 50  # Z; paper, sec. 4
    hidden: tuple[int, ...] = (500,)  # units a layer of each mlp; paper, sec. 4
    width: int = 32  # channels of the first layer of conv networks; ours
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "bernoulli"  # of pixels; photographs: logistic
    binarise: bool = True  # bernoulli: pixels are drawn 0 or 1 at each sight; off, nats are no likelihood
    learning_rate: float = 3e-4  # Adam; official MNIST script
    l2: float | None = None  # weight decay, in the gradient, None: the prior N(0, 1), 1 / N; official: 2e-5, N = 50,000
    augmentation: Augmentation = Augmentation()  # of every image; the paper: none
    latents: Literal["prior", "class_density"] = "prior"  # of samples, unless asked for otherwise; class_density: ours


PHOTOGRAPHS = Config(  # ours
    labelled_batch=20,
    unlabelled_batch=100,
    network="conv",
    latent=128,
    width=64,
    likelihood="logistic",
    augmentation=Augmentation(flip=True),
)


class State(NamedTuple):
    model: TrainState  # encoder, decoder and classifier
    density: LatentDensity | tuple[()] = ()  # of latents, fitted after training where samples are drawn from it


def make(config: Config, spec: ImageSpec) -> Method:
    """Encoder, decoder and classifier for images of `spec`; samples obey their labels."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    classes = spec.classes
    likelihood = pixel_likelihood(config.likelihood, config.binarise)
    network = autoencoder(
        config.network, spec, likelihood.maps, config.latent, config.hidden, config.width, classifier=True
    )
    share, l2 = labelled_share(config.labelled_share, spec), prior_decay(config.l2, spec)
    adam = optax.chain(optax.add_decayed_weights(l2), optax.adam(config.learning_rate))
    model = Player("model", network, adam)

    def init(key: Key, batch: Batch) -> State:
        noise = jnp.zeros((batch.labels.shape[0], config.latent))
        return State(model.init(key, batch.labelled, batch.labels, noise, method="initialise"))

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 3)
        images = augment(config.augmentation, keys[0], interleave(batch.labelled, batch.unlabelled))
        images = likelihood.observe(keys[1], images)
        labelled, unlabelled = separate(images, (batch.labelled.shape[0], batch.unlabelled.shape[0]))
        pairs, labels = labelled_pairs(labelled, batch.labels, unlabelled, classes)
        noise = shard_batch(jax.random.normal(keys[2], (pairs.shape[0], config.latent)))

        def loss(params: Tree) -> tuple[Terms, Tree]:
            logits, stats = model.run(state.model, params, images, method="classify")
            (outputs, *posterior), stats = model.run(state.model._replace(stats=stats), params, pairs, labels, noise)
            costs = jnp.log(classes) + kl_to_prior(*posterior) - likelihood.log_density(pairs, outputs)
            log_q = jax.nn.log_softmax(logits)
            return semi_supervised_terms(costs, log_q, batch.labels, share, config.alpha), stats

        player, metrics = model.descend(state.model, loss)
        return State(player), metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(model.infer(state.model, images, method="classify"))

    def posterior(state: State, images: Array) -> tuple[Array, Array]:
        """Of q(z | x, y) for the most probable y."""
        predicted = classify(state, images).argmax(-1)
        mean, log_variance = model.infer(state.model, images, predicted, method="encode")
        return mean, jnp.exp(log_variance)

    def encode(state: State, images: Array) -> Array:
        return posterior(state, images)[0]

    def decode(state: State, latents: Array, labels: Array) -> Array:
        return likelihood.mean(model.infer(state.model, latents, labels, method="decode"))

    def sample(state: State, key: Key, labels: Array, sampler: DensityLatents) -> Array:
        latents = sampler.draw_by_class(key, labels, state.density, config.latent)
        return decode(state, latents, labels)

    def log_weight(state: State, observed: Key, key: Key, images: Array) -> Array:
        pairs, labels = every_pair(likelihood.observe(observed, images), classes)
        noise = jax.random.normal(key, (pairs.shape[0], config.latent))
        outputs, mean, log_variance = model.infer(state.model, pairs, labels, noise)
        each = log_importance(likelihood.log_density(pairs, outputs), mean, log_variance, noise)
        return mean_over_classes(each, classes)

    phases = (Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step),)
    return Method(
        init, phases, sample, classify, encode, decode, conditional=True, log_weight=log_weight,
        sampler=DensityLatents(latents=config.latents), posterior=posterior, normal_latents=True,
    )  # fmt: skip
