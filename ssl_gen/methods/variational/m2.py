"""M2: a variational autoencoder whose decoder is told the class, and a classifier that guesses it where it is hidden.

Kingma et al. 2014, "Semi-Supervised Learning with Deep Generative Models", arXiv:1406.5298, sec. 2 and 3; constants
from the official MNIST script. With p(y) uniform, p(z) = N(0, I), q(z | x, y) normal and q(y | x) the classifier:

    L(x, y) = - E_q(z|x,y) log p(x | y, z) - log p(y) + KL(q(z | x, y) || p(z))     eq. 6: - log p(x, y) is less
    U(u)    = sum_y q(y | u) (L(u, y) + log q(y | u))                               eq. 7: - log p(u) is less
    J       = l E_(x,y) L(x, y) + (1 - l) E_u U(u) - alpha E_(x,y) log q(y | x)     eq. 9, a mean over all images

with l the share of labelled images among all. The sum over y is made, not sampled: each unlabelled image goes through
encoder and decoder K times, each time with its own noise.

Samples are the means of p(x | y, z) for z ~ p(z). The weights of `elbo` and `iwae` leave the class out by summing too:
with z_y ~ q(z | x, y) for every y, w = sum_y p(y) p(x | y, z_y) p(z_y) / q(z_y | x, y), whose mean is p(x) and whose
mean logarithm is no less than - U. Each test image is binarised (or dequantised) once, for all draws of z.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen import likelihoods, losses
from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.networks.variational import autoencoder
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState
from ssl_gen.update import check_multiples, create, descend, interleave, separate, spread

PAPER = "Kingma et al. 2014, arXiv:1406.5298"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 300_000  # updates; 3000 passes of 100 batches, official MNIST script, 100 labels
    labelled_batch: int = 100  # images a step; ours, official: labels / 100
    unlabelled_batch: int = 500  # images a step, a multiple of labelled_batch; official: 499
    labelled_share: float = 0.002  # l, labelled images among all; 100 of MNIST's 50,000
    alpha: float = 0.1  # weight of the classification term; paper, sec. 4
    network: Literal["mlp", "conv"] = "mlp"  # all three networks; the paper: mlp
    latent: int = 50  # Z; paper, sec. 4
    hidden: tuple[int, ...] = (500,)  # units a layer of each mlp; paper, sec. 4
    width: int = 32  # channels of the first layer of conv networks; ours
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "bernoulli"  # of pixels; photographs: logistic
    binarise: bool = True  # bernoulli: pixels are drawn 0 or 1 at each sight; off, nats are no likelihood
    learning_rate: float = 3e-4  # Adam; official MNIST script
    l2: float = 2e-5  # weight decay, in the gradient: the prior N(0, 1) over 50,000 images; official MNIST script
    augmentation: Augmentation = Augmentation()  # of every image; the paper: none


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
    step: Array  # () int32, updates done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    model: TrainState  # encoder, decoder and classifier


def make(config: Config, spec: ImageSpec) -> Method:
    """Encoder, decoder and classifier for images of `spec`; samples obey their labels."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    classes = spec.classes
    likelihood = likelihoods.choose(config.likelihood, config.binarise)
    model = autoencoder(
        config.network, spec, likelihood.maps, config.latent, config.hidden, config.width, classifier=True
    )
    optimizer = optax.chain(optax.add_decayed_weights(config.l2), optax.adam(config.learning_rate))

    def init(key: Key, batch: Batch) -> State:
        noise = jnp.zeros((batch.labels.shape[0], config.latent))
        variables = model.init(
            jax.random.fold_in(key, BEFORE), batch.labelled, batch.labels, noise, train=False, method="initialise"
        )
        return State(jnp.int32(0), key, create(variables.pop("params"), variables, optimizer))

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        sizes = batch.labelled.shape[0], batch.unlabelled.shape[0]
        seen = augment(config.augmentation, keys[0], interleave(batch.labelled, batch.unlabelled))
        seen = likelihood.observe(keys[1], seen)
        labelled, unlabelled = separate(seen, sizes)
        pairs = sizes[0], sizes[1] * classes  # (image, label): its own, or each in turn
        images = interleave(labelled, jnp.repeat(unlabelled, classes, 0))
        labels = interleave(batch.labels, jnp.tile(jnp.arange(classes), sizes[1]))
        noise = spread(jax.random.normal(keys[2], (sum(pairs), config.latent)))

        def loss(params: dict) -> tuple[dict, dict]:
            variables = {"params": params, **state.model.stats}
            logits, stats = model.apply(variables, seen, train=True, method="classify", mutable=["batch_stats"])
            variables = {"params": params, **stats}
            (outputs, *posterior), stats = model.apply(
                variables, images, labels, noise, train=True, mutable=["batch_stats"]
            )
            costs = jnp.log(classes) + likelihoods.divergence(*posterior) - likelihood.log_density(images, outputs)
            bound, each = separate(costs, pairs)
            given, hidden = separate(jax.nn.log_softmax(logits), sizes)
            return {
                "labelled": config.labelled_share * bound.mean(),
                "unlabelled": (1 - config.labelled_share)
                * likelihoods.over_classes(each.reshape(-1, classes), hidden).mean(),
                "classification": config.alpha * losses.cross_entropy(given, batch.labels),
            }, stats

        player, metrics = descend("model", state.model, optimizer, loss)
        return State(state.step + 1, state.key, player), metrics

    def variables(state: State) -> dict:
        return {"params": state.model.params, **state.model.stats}

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(model.apply(variables(state), images, train=False, method="classify"))

    def encode(state: State, images: Array) -> Array:
        """The mean of q(z | x, y) for the most probable y."""
        predicted = classify(state, images).argmax(-1)
        mean, _ = model.apply(variables(state), images, predicted, train=False, method="encode")
        return mean

    def decode(state: State, latents: Array, labels: Array) -> Array:
        return likelihood.mean(model.apply(variables(state), latents, labels, train=False, method="decode"))

    def sample(state: State, key: Key, labels: Array) -> Array:
        return decode(state, jax.random.normal(key, (labels.shape[0], config.latent)), labels)

    def log_weight(state: State, key: Key, images: Array) -> Array:
        images = likelihood.observe(jax.random.fold_in(state.key, likelihoods.FIXED), images)
        labels = jnp.tile(jnp.arange(classes), images.shape[0])
        images = jnp.repeat(images, classes, 0)
        noise = jax.random.normal(key, (images.shape[0], config.latent))
        outputs, *posterior = model.apply(variables(state), images, labels, noise, train=False)
        each = likelihood.log_density(images, outputs) + likelihoods.log_prior_ratio(*posterior, noise)
        return jax.nn.logsumexp(each.reshape(-1, classes), -1) - jnp.log(classes)

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(
        init,
        (phase,),
        sample=sample,
        classify=classify,
        encode=encode,
        decode=decode,
        conditional=True,
        log_weight=log_weight,
    )
