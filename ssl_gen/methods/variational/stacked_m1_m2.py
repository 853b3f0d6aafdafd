"""M1 + M2: a variational autoencoder of all images (M1), then one with classes (M2) of its latents.

Kingma et al. 2014, "Semi-Supervised Learning with Deep Generative Models", arXiv:1406.5298, sec. 2; constants from the
official MNIST script. The model is p(y) p(v) p(z | y, v) p(x | z), with p(y) uniform and p(v) = N(0, I). First M1 is
trained, with p(z) = N(0, I); then, M1 held fixed, M2, with draws of z in the place of images:

    first    E_u [ - E_q(z|u) log p(u | z) + KL(q(z | u) || p(z)) ]
    L(z, y)  = - E_q(v|z,y) log p(z | y, v) - log p(y) + KL(q(v | z, y) || p(v)),       p(z | y, v) normal
    U(z)     = sum_y q(y | z) (L(z, y) + log q(y | z))
    second   l E_(x,y) L(z, y) + (1 - l) E_u U(z) - alpha E_(x,y) log q(y | z),         z ~ q(z | x)

with l = N_l / N the share of labelled images among all N, both counts the mask's. The prior of the weights, N(0, 1),
adds |w|^2 / 2 N to each. What the official code does otherwise, the page of `m2` says. M2 is made of the latents whose
means deviate by more than 0.1 over images; the others stay N(0, I). Images are classified at the mean of q(z | x).

Samples are drawn down to z and are the means of p(x | z); v is of p(v), or, ours, of a Gaussian fitted to the latents
of each guessed class: `--sampler.latents class_density`. The weights of `elbo` and `iwae` sum over the class: with
z ~ q(z | x) and v_y ~ q(v | z, y), w = p(x | z) / q(z | x) sum_y p(y) p(z | y, v_y) p(v_y) / q(v_y | z, y).
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
from ssl_gen.core.schedules import annealed
from ssl_gen.losses.likelihood import (
    elbo_terms,
    every_pair,
    keep_informative,
    kl_to_prior,
    labelled_pairs,
    log_importance,
    mean_over_classes,
    normal,
    pixel_likelihood,
    reparametrised,
    running,
    semi_supervised_terms,
)
from ssl_gen.networks.mlp import Perceptron
from ssl_gen.networks.variational import Autoencoder, autoencoder
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Kingma et al. 2014, arXiv:1406.5298"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 800_000  # updates in all; official MNIST script, 100 labels: 500,000 of M1, 300,000 of M2
    first: float = 0.625  # share of the steps that train M1; official MNIST script
    labelled_batch: int = 100  # images a step of M2; ours, official: labels / 100
    unlabelled_batch: int = 500  # images a step, a multiple of labelled_batch; official: M1 1000, M2 499
    labelled_share: float | None = None  # l, None: that of the mask; official: 0.002, 100 of MNIST's 50,000
    alpha: float = 0.1  # weight of the classification term; paper, sec. 4
    network: Literal["mlp", "conv"] = "mlp"  # M1's encoder and decoder; the paper: mlp
    features: int = 50  # width of z; paper, sec. 4
    latent: int = 50  # width of v; official MNIST script
    hidden: tuple[int, ...] = (500, 500)  # units a layer of M1; official MNIST script, paper: 600
    width: int = 32  # channels of the first layer of conv networks; ours
    m2_hidden: tuple[int, ...] = (300,)  # units a layer of M2; official MNIST script, 100 labels; else 500
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "bernoulli"  # of pixels; photographs: logistic
    binarise: bool = True  # bernoulli: M1 learns from pixels drawn 0 or 1 at each sight; off, nats are no likelihood
    least_deviation: float = 0.1  # of a latent's mean over images, for M2 to model it; official MNIST script
    learning_rate: float = 3e-4  # Adam; official MNIST script
    anneal: float = 0.0  # share of each phase's steps, at its end, over which the rate falls to 0; official: none
    l2: float | None = None  # weight decay, in the gradient, None: the prior N(0, 1), 1 / N; official: 2e-5, N = 50,000
    augmentation: Augmentation = Augmentation()  # of every image, in both phases; the paper: none
    latents: Literal["prior", "class_density"] = "prior"  # of samples, unless asked for otherwise; class_density: ours


PHOTOGRAPHS = Config(unlabelled_batch=500, network="conv", features=128, width=64, likelihood="logistic")  # ours


class State(NamedTuple):
    moments: Array  # (2, F), of M1's means over the unlabelled images of the second phase
    m1: TrainState
    m2: TrainState
    density: LatentDensity | tuple[()] = ()  # of latents, fitted after training where samples are drawn from it


def networks(config: Config, spec: ImageSpec, maps: int) -> tuple[Autoencoder, Autoencoder]:
    """M1, whose decoder has `maps` outputs for each channel, and M2."""
    classes, hidden = spec.classes, config.m2_hidden
    m1 = autoencoder(config.network, spec, maps, config.features, config.hidden, config.width)
    m2 = Autoencoder(
        Perceptron(2 * config.latent, classes, hidden),
        Perceptron(2 * config.features, classes, hidden),
        Perceptron(classes, classes, hidden),
    )
    return m1, m2


def make(config: Config, spec: ImageSpec) -> Method:
    """M1 for images of `spec` and M2 on its latents; samples obey their labels."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    classes = spec.classes
    likelihood = pixel_likelihood(config.likelihood, config.binarise)
    m1_network, m2_network = networks(config, spec, likelihood.maps)
    first = round(config.first * config.steps)
    share, l2 = labelled_share(config.labelled_share, spec), prior_decay(config.l2, spec)

    def adam(updates: int) -> optax.GradientTransformation:
        rate = annealed(config.learning_rate, updates, config.anneal)
        return optax.chain(optax.add_decayed_weights(l2), optax.adam(rate))

    m1 = Player("m1", m1_network, adam(first))
    m2 = Player("m2", m2_network, adam(config.steps - first))

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(key)
        z, v = (jnp.zeros((batch.labels.shape[0], width)) for width in (config.features, config.latent))
        return State(
            jnp.zeros((2, config.features)),
            m1.init(keys[0], batch.labelled, None, z),
            m2.init(keys[1], z, batch.labels, v, method="initialise"),
        )

    def m1_step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        move_key, observe_key, noise_key = jax.random.split(key, 3)
        images = likelihood.observe(observe_key, augment(config.augmentation, move_key, batch.unlabelled))
        noise = shard_batch(jax.random.normal(noise_key, (images.shape[0], config.features)))

        def loss(params: Tree) -> tuple[Terms, Tree]:
            (outputs, *posterior), stats = m1.run(state.m1, params, images, None, noise)
            return elbo_terms(likelihood.log_density(images, outputs), *posterior), stats

        player, metrics = m1.descend(state.m1, loss)
        return state._replace(m1=player), metrics

    def kept(state: State, z: Array) -> Array:
        """z (B, F), or what is as wide, with 0 for the latents that M2 does not model."""
        return keep_informative(z, state.moments, config.least_deviation)

    def p_z(state: State, outputs: Array) -> tuple[Array, Array]:
        """Mean and log variance of p(z | y, v), N(0, 1) for the latents that M2 does not model."""
        mean, log_variance = jnp.split(outputs, 2, -1)
        return kept(state, mean), kept(state, log_variance)

    def m2_step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        move_key, z_key, v_key = jax.random.split(key, 3)
        sizes = batch.labelled.shape[0], batch.unlabelled.shape[0]
        images = augment(config.augmentation, move_key, interleave(batch.labelled, batch.unlabelled))
        mean, log_variance = m1.infer(state.m1, images, None, method="encode")
        state = state._replace(moments=running(state.moments, separate(mean, sizes)[1], step - first))
        z_noise = shard_batch(jax.random.normal(z_key, mean.shape))
        z = kept(state, reparametrised(mean, log_variance, z_noise))
        labelled, unlabelled = separate(z, sizes)
        pairs, labels = labelled_pairs(labelled, batch.labels, unlabelled, classes)
        noise = shard_batch(jax.random.normal(v_key, (pairs.shape[0], config.latent)))

        def loss(params: Tree) -> tuple[Terms, Tree]:
            (outputs, *posterior), stats = m2.run(state.m2, params, pairs, labels, noise)
            costs = -normal(pairs, *p_z(state, outputs)) + jnp.log(classes) + kl_to_prior(*posterior)
            log_q = jax.nn.log_softmax(m2.run(state.m2, params, z, method="classify")[0])
            return semi_supervised_terms(costs, log_q, batch.labels, share, config.alpha), stats

        player, metrics = m2.descend(state.m2, loss)
        return state._replace(m2=player), metrics

    def means(state: State, images: Array) -> tuple[Array, Array]:
        """The mean of q(z | x), as M2 sees it, and log q(y | z) there."""
        z = kept(state, m1.infer(state.m1, images, None, method="encode")[0])
        return z, jax.nn.log_softmax(m2.infer(state.m2, z, method="classify"))

    def classify(state: State, images: Array) -> Array:
        return means(state, images)[1]

    def posterior(state: State, images: Array) -> tuple[Array, Array]:
        """Of q(v | z, y) at the mean of q(z | x) and the most probable y."""
        z, log_q = means(state, images)
        mean, log_variance = m2.infer(state.m2, z, log_q.argmax(-1), method="encode")
        return mean, jnp.exp(log_variance)

    def encode(state: State, images: Array) -> Array:
        return posterior(state, images)[0]

    def draw(state: State, z: Array) -> Array:
        return likelihood.mean(m1.infer(state.m1, z, None, method="decode"))

    def decode(state: State, v: Array, labels: Array) -> Array:
        """At the mean of p(z | y, v)."""
        return draw(state, p_z(state, m2.infer(state.m2, v, labels, method="decode"))[0])

    def sample(state: State, key: Key, labels: Array, sampler: DensityLatents) -> Array:
        v_key, z_key = jax.random.split(key)
        v = sampler.draw_by_class(v_key, labels, state.density, config.latent)
        mean, log_variance = p_z(state, m2.infer(state.m2, v, labels, method="decode"))
        return draw(state, reparametrised(mean, log_variance, jax.random.normal(z_key, mean.shape)))

    def log_weight(state: State, observed: Key, key: Key, images: Array) -> Array:
        z_key, v_key = jax.random.split(key)
        images = likelihood.observe(observed, images)
        noise = jax.random.normal(z_key, (images.shape[0], config.features))
        outputs, mean, log_variance = m1.infer(state.m1, images, None, noise)
        z = reparametrised(mean, log_variance, noise)
        pairs, labels = every_pair(z, classes)
        v_noise = jax.random.normal(v_key, (pairs.shape[0], config.latent))
        m2_outputs, v_mean, v_log_variance = m2.infer(state.m2, kept(state, pairs), labels, v_noise)
        each = log_importance(normal(pairs, *p_z(state, m2_outputs)), v_mean, v_log_variance, v_noise)
        log_p_z, log_q_z = mean_over_classes(each, classes), normal(z, mean, log_variance)
        return likelihood.log_density(images, outputs) + log_p_z - log_q_z

    phases = (
        Phase("m1", first, 0, config.unlabelled_batch, m1_step),
        Phase("m2", config.steps - first, config.labelled_batch, config.unlabelled_batch, m2_step),
    )
    return Method(
        init, phases, sample, classify, encode, decode, conditional=True, log_weight=log_weight,
        sampler=DensityLatents(latents=config.latents), posterior=posterior, normal_latents=True,
    )  # fmt: skip
