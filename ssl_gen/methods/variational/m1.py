"""M1: a variational autoencoder of all images, then a classifier of its latents.

Kingma et al. 2014, "Semi-Supervised Learning with Deep Generative Models", arXiv:1406.5298, sec. 2, "latent-feature
discriminative model"; constants from the official MNIST script. With q(z | x) = N(m(x), diag s^2(x)):

    first    E_u [ - E_q(z|u) log p(u | z) + KL(q(z | u) || N(0, I)) ]
    second   - E_(x,y) E_q(z|x) log p(y | z)

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

from ssl_gen import likelihoods, losses
from ssl_gen.networks.mlp import Perceptron
from ssl_gen.networks.variational import autoencoder
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState
from ssl_gen.update import create, descend, spread

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
    l2: float = 2e-5  # weight decay, in the gradient: the prior N(0, 1) over 50,000 images; official MNIST script


PHOTOGRAPHS = Config(unlabelled_batch=100, network="conv", latent=128, width=64, likelihood="logistic")  # ours


class State(NamedTuple):
    step: Array  # () int32, updates done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    moments: Array  # (2, Z), of the latents' means over the labelled images of the second phase
    autoencoder: TrainState
    classifier: TrainState


def make(config: Config, spec: ImageSpec) -> Method:
    """Encoder, decoder and classifier of latents for images of `spec`; samples are not conditional."""
    likelihood = likelihoods.choose(config.likelihood, config.binarise)
    model = autoencoder(config.network, spec, likelihood.maps, config.latent, config.hidden, config.width)
    classifier = Perceptron(spec.classes, spec.classes, config.classifier_hidden)
    first = round(config.first * config.steps)

    def adam(rate: float) -> optax.GradientTransformation:
        return optax.chain(optax.add_decayed_weights(config.l2), optax.adam(rate))

    optimizer, classifier_optimizer = adam(config.learning_rate), adam(config.classifier_rate)

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(jax.random.fold_in(key, BEFORE))
        noise = jnp.zeros((batch.unlabelled.shape[0], config.latent))
        m = model.init(keys[0], batch.unlabelled, None, noise, train=False)
        c = classifier.init(keys[1], noise)
        return State(
            jnp.int32(0),
            key,
            jnp.zeros((2, config.latent)),
            create(m.pop("params"), m, optimizer),
            create(c.pop("params"), c, classifier_optimizer),
        )

    def autoencoder_step(state: State, batch: Batch) -> tuple[State, Metrics]:
        observe_key, noise_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        images = likelihood.observe(observe_key, batch.unlabelled)
        noise = spread(jax.random.normal(noise_key, (images.shape[0], config.latent)))

        def loss(params: dict) -> tuple[dict, dict]:
            variables = {"params": params, **state.autoencoder.stats}
            (outputs, *posterior), stats = model.apply(
                variables, images, None, noise, train=True, mutable=["batch_stats"]
            )
            return {
                "reconstruction": -likelihood.log_density(images, outputs).mean(),
                "divergence": likelihoods.divergence(*posterior).mean(),
            }, stats

        player, metrics = descend("autoencoder", state.autoencoder, optimizer, loss)
        return state._replace(step=state.step + 1, autoencoder=player), metrics

    def variables(state: State) -> dict:
        return {"params": state.autoencoder.params, **state.autoencoder.stats}

    def posterior(state: State, images: Array) -> tuple[Array, Array]:
        return model.apply(variables(state), images, None, train=False, method="encode")

    def selected(latents: Array, moments: Array) -> Array:
        return jnp.where(likelihoods.informative(moments, config.least_deviation), latents, 0.0)

    def classifier_step(state: State, batch: Batch) -> tuple[State, Metrics]:
        mean, log_variance = posterior(state, batch.labelled)
        noise = spread(jax.random.normal(jax.random.fold_in(state.key, state.step), mean.shape))
        moments = likelihoods.running(state.moments, mean, state.step - first)
        latents = selected(likelihoods.reparametrised(mean, log_variance, noise), moments)

        def loss(params: dict) -> tuple[dict, dict]:
            logits = classifier.apply({"params": params}, latents)
            return {"supervised": losses.cross_entropy(logits, batch.labels)}, {}

        player, metrics = descend("classifier", state.classifier, classifier_optimizer, loss)
        return state._replace(step=state.step + 1, moments=moments, classifier=player), metrics

    def encode(state: State, images: Array) -> Array:
        return posterior(state, images)[0]

    def classify(state: State, images: Array) -> Array:
        latents = selected(encode(state, images), state.moments)
        return jax.nn.log_softmax(classifier.apply({"params": state.classifier.params}, latents))

    def decode(state: State, latents: Array, labels: Array) -> Array:
        return likelihood.mean(model.apply(variables(state), latents, None, train=False, method="decode"))

    def sample(state: State, key: Key, labels: Array) -> Array:
        return decode(state, jax.random.normal(key, (labels.shape[0], config.latent)), labels)

    def log_weight(state: State, key: Key, images: Array) -> Array:
        images = likelihood.observe(jax.random.fold_in(state.key, likelihoods.FIXED), images)
        noise = jax.random.normal(key, (images.shape[0], config.latent))
        outputs, *posterior = model.apply(variables(state), images, None, noise, train=False)
        return likelihood.log_density(images, outputs) + likelihoods.log_prior_ratio(*posterior, noise)

    phases = (
        Phase("autoencoder", first, 0, config.unlabelled_batch, autoencoder_step),
        Phase("classifier", config.steps - first, config.labelled_batch, 0, classifier_step),
    )
    return Method(init, phases, sample=sample, classify=classify, encode=encode, decode=decode, log_weight=log_weight)
