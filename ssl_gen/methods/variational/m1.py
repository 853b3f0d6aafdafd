"""M1: a variational autoencoder of all images, then a classifier of its latents.

Kingma et al. 2014, "Semi-Supervised Learning with Deep Generative Models", arXiv:1406.5298, sec. 2, "latent-feature
discriminative model"; constants from the official MNIST script. With q(z | x) = N(m(x), diag s^2(x)):

    first    E_u [ - E_q(z|u) log p(u | z) + KL(q(z | u) || N(0, I)) ]
    second   - E_(x,y) E_q(z|x) log p(y | z)

The prior of the weights, N(0, 1), adds |w|^2 / 2 N to each, N the images of the mask, labelled and unlabelled.

p(y | z) is multinomial regression, or a dense network; the table of the paper has a transductive SVM in its place,
which sees the unlabelled images' latents too. It is given draws of z in training and the mean otherwise, and only the
latents whose means deviate by more than 0.1 over images: the others are the prior's noise. Samples are means of
p(x | z) for z ~ p(z).
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen.core.batching import shard_batch
from ssl_gen.core.counts import prior_decay
from ssl_gen.core.gradient import Terms
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import NormalLatents
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.losses.likelihood import (
    elbo_terms,
    keep_informative,
    log_importance,
    pixel_likelihood,
    reparametrised,
    running,
)
from ssl_gen.networks.mlp import Perceptron
from ssl_gen.networks.variational import Autoencoder, autoencoder
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Kingma et al. 2014, arXiv:1406.5298"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 500_000  # updates in all; 10,000 epochs of 50 batches, official MNIST script
    first: float = 0.98  # share of the steps that train the autoencoder; ours
    labelled_batch: int = 100  # images a step of the second phase; ours
    unlabelled_batch: int = 1_000  # images a step of the first phase; official MNIST script
    network: Literal["mlp", "conv"] = "mlp"  # encoder and decoder; the paper: mlp
    latent: int = 50  # Z; paper, sec. 4
    hidden: tuple[int, ...] = (500, 500)  # units a layer of encoder and decoder; official MNIST script, paper: 600
    width: int = 32  # channels of the first layer of conv networks; ours
    classifier_hidden: tuple[int, ...] = ()  # units a layer of the classifier; multinomial regression, paper, sec. 2
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "bernoulli"  # of pixels; photographs: logistic
    binarise: bool = True  # bernoulli: pixels are drawn 0 or 1 at each sight; off, nats are no likelihood
    least_deviation: float = 0.1  # of a latent's mean over images, for the classifier to see it; official MNIST script
    learning_rate: float = 3e-4  # Adam, autoencoder; official MNIST script
    classifier_rate: float = 1e-3  # Adam, classifier; ours
    l2: float | None = None  # weight decay, in the gradient, None: the prior N(0, 1), 1 / N; official: 2e-5, N = 50,000


PHOTOGRAPHS = Config(unlabelled_batch=100, network="conv", latent=128, width=64, likelihood="logistic")  # ours


class State(NamedTuple):
    moments: Array  # (2, Z), of the latents' means over the labelled images of the second phase
    autoencoder: TrainState
    classifier: TrainState


def networks(config: Config, spec: ImageSpec, maps: int) -> tuple[Autoencoder, Perceptron]:
    """Autoencoder, whose decoder has `maps` outputs for each channel, and classifier of latents."""
    return (
        autoencoder(config.network, spec, maps, config.latent, config.hidden, config.width),
        Perceptron(spec.classes, spec.classes, config.classifier_hidden),
    )


def make(config: Config, spec: ImageSpec) -> Method:
    """Encoder, decoder and classifier of latents for images of `spec`; samples are not conditional."""
    likelihood = pixel_likelihood(config.likelihood, config.binarise)
    model_network, classifier_network = networks(config, spec, likelihood.maps)
    first = round(config.first * config.steps)
    l2 = prior_decay(config.l2, spec)

    def adam(rate: float) -> optax.GradientTransformation:
        return optax.chain(optax.add_decayed_weights(l2), optax.adam(rate))

    model = Player("autoencoder", model_network, adam(config.learning_rate))
    classifier = Player("classifier", classifier_network, adam(config.classifier_rate))

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(key)
        noise = jnp.zeros((batch.unlabelled.shape[0], config.latent))
        return State(
            jnp.zeros((2, config.latent)),
            model.init(keys[0], batch.unlabelled, None, noise),
            classifier.init(keys[1], noise),
        )

    def autoencoder_step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        observe_key, noise_key = jax.random.split(key)
        images = likelihood.observe(observe_key, batch.unlabelled)
        noise = shard_batch(jax.random.normal(noise_key, (images.shape[0], config.latent)))

        def loss(params: Tree) -> tuple[Terms, Tree]:
            (outputs, *posterior), stats = model.run(state.autoencoder, params, images, None, noise)
            return elbo_terms(likelihood.log_density(images, outputs), *posterior), stats

        player, metrics = model.descend(state.autoencoder, loss)
        return state._replace(autoencoder=player), metrics

    def classifier_step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        mean, log_variance = model.infer(state.autoencoder, batch.labelled, None, method="encode")
        noise = shard_batch(jax.random.normal(key, mean.shape))
        moments = running(state.moments, mean, step - first)
        latents = keep_informative(reparametrised(mean, log_variance, noise), moments, config.least_deviation)

        def loss(params: Tree) -> tuple[Terms, Tree]:
            logits, stats = classifier.run(state.classifier, params, latents)
            return {"supervised": cross_entropy(logits, batch.labels)}, stats

        player, metrics = classifier.descend(state.classifier, loss)
        return state._replace(moments=moments, classifier=player), metrics

    def encode(state: State, images: Array) -> Array:
        return model.infer(state.autoencoder, images, None, method="encode")[0]

    def classify(state: State, images: Array) -> Array:
        latents = keep_informative(encode(state, images), state.moments, config.least_deviation)
        return jax.nn.log_softmax(classifier.infer(state.classifier, latents))

    def decode(state: State, latents: Array, labels: Array) -> Array:
        return likelihood.mean(model.infer(state.autoencoder, latents, None, method="decode"))

    def sample(state: State, key: Key, labels: Array, sampler: NormalLatents) -> Array:
        return decode(state, sampler.draw(key, labels.shape[0], config.latent), labels)

    def log_weight(state: State, observed: Key, key: Key, images: Array) -> Array:
        images = likelihood.observe(observed, images)
        noise = jax.random.normal(key, (images.shape[0], config.latent))
        outputs, mean, log_variance = model.infer(state.autoencoder, images, None, noise)
        return log_importance(likelihood.log_density(images, outputs), mean, log_variance, noise)

    phases = (
        Phase("autoencoder", first, 0, config.unlabelled_batch, autoencoder_step),
        Phase("classifier", config.steps - first, config.labelled_batch, 0, classifier_step),
    )
    return Method(
        init, phases, sample, classify, encode, decode, log_weight=log_weight, sampler=NormalLatents(),
        normal_latents=True,
    )  # fmt: skip
