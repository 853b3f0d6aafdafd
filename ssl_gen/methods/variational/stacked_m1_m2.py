"""M1 + M2: a variational autoencoder of all images (M1), then one with classes (M2) of its latents.

Kingma et al. 2014, "Semi-Supervised Learning with Deep Generative Models", arXiv:1406.5298, sec. 2; constants from the
official MNIST script. The model is p(y) p(v) p(z | y, v) p(x | z), with p(y) uniform and p(v) = N(0, I). First M1 is
trained, with p(z) = N(0, I); then, M1 held fixed, M2, with draws of z in the place of images:

    first    E_u [ - E_q(z|u) log p(u | z) + KL(q(z | u) || p(z)) ]
    L(z, y)  = - E_q(v|z,y) log p(z | y, v) - log p(y) + KL(q(v | z, y) || p(v)),       p(z | y, v) normal
    U(z)     = sum_y q(y | z) (L(z, y) + log q(y | z))
    second   l E_(x,y) L(z, y) + (1 - l) E_u U(z) - alpha E_(x,y) log q(y | z),         z ~ q(z | x)

with l the share of labelled images among all. M2 is made of the latents whose means deviate by more than 0.1 over
images; the others stay N(0, I). Images are classified at the mean of q(z | x).

Samples are drawn down to z and are the means of p(x | z). The weights of `elbo` and `iwae` sum over the class: with
z ~ q(z | x) and v_y ~ q(v | z, y), w = p(x | z) / q(z | x) sum_y p(y) p(z | y, v_y) p(v_y) / q(v_y | z, y).
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen import likelihoods, losses
from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.networks.mlp import Perceptron
from ssl_gen.networks.variational import Autoencoder, autoencoder
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState
from ssl_gen.update import annealed, check_multiples, create, descend, interleave, separate, spread

PAPER = "Kingma et al. 2014, arXiv:1406.5298"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 800_000  # updates in all; official MNIST script, 100 labels: 500,000 of M1, 300,000 of M2
    first: float = 0.625  # share of the steps that train M1; official MNIST script
    labelled_batch: int = 100  # images a step of M2; ours, official: labels / 100
    unlabelled_batch: int = 500  # images a step, a multiple of labelled_batch; official: M1 1000, M2 499
    labelled_share: float = 0.002  # l, labelled images among all; 100 of MNIST's 50,000
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
    l2: float = 2e-5  # weight decay, in the gradient: the prior N(0, 1) over 50,000 images; official MNIST script
    augmentation: Augmentation = Augmentation()  # of every image, in both phases; the paper: none


PHOTOGRAPHS = Config(unlabelled_batch=500, network="conv", features=128, width=64, likelihood="logistic")  # ours


class State(NamedTuple):
    step: Array  # () int32, updates done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    moments: Array  # (2, F), of M1's means over the unlabelled images of the second phase
    m1: TrainState
    m2: TrainState


def make(config: Config, spec: ImageSpec) -> Method:
    """M1 for images of `spec` and M2 on its latents; samples obey their labels."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    classes, features, hidden = spec.classes, config.features, config.m2_hidden
    likelihood = likelihoods.choose(config.likelihood, config.binarise)
    m1 = autoencoder(config.network, spec, likelihood.maps, features, config.hidden, config.width)
    m2 = Autoencoder(
        Perceptron(2 * config.latent, classes, hidden),
        Perceptron(2 * features, classes, hidden),
        Perceptron(classes, classes, hidden),
    )
    first = round(config.first * config.steps)

    def adam(updates: int) -> optax.GradientTransformation:
        rate = annealed(config.learning_rate, updates, config.anneal)
        return optax.chain(optax.add_decayed_weights(config.l2), optax.adam(rate))

    m1_optimizer, m2_optimizer = adam(first), adam(config.steps - first)

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(jax.random.fold_in(key, BEFORE))
        z, v = (jnp.zeros((batch.labels.shape[0], width)) for width in (features, config.latent))
        one = m1.init(keys[0], batch.labelled, None, z, train=False)
        two = m2.init(keys[1], z, batch.labels, v, train=False, method="initialise")
        return State(
            jnp.int32(0),
            key,
            jnp.zeros((2, features)),
            create(one.pop("params"), one, m1_optimizer),
            create(two.pop("params"), two, m2_optimizer),
        )

    def m1_step(state: State, batch: Batch) -> tuple[State, Metrics]:
        move_key, observe_key, noise_key = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        images = likelihood.observe(observe_key, augment(config.augmentation, move_key, batch.unlabelled))
        noise = spread(jax.random.normal(noise_key, (images.shape[0], features)))

        def loss(params: dict) -> tuple[dict, dict]:
            variables = {"params": params, **state.m1.stats}
            (outputs, *posterior), stats = m1.apply(variables, images, None, noise, train=True, mutable=["batch_stats"])
            return {
                "reconstruction": -likelihood.log_density(images, outputs).mean(),
                "divergence": likelihoods.divergence(*posterior).mean(),
            }, stats

        player, metrics = descend("m1", state.m1, m1_optimizer, loss)
        return state._replace(step=state.step + 1, m1=player), metrics

    def m1_variables(state: State) -> dict:
        return {"params": state.m1.params, **state.m1.stats}

    def posterior(state: State, images: Array) -> tuple[Array, Array]:
        """Mean and log variance of q(z | x)."""
        return m1.apply(m1_variables(state), images, None, train=False, method="encode")

    def kept(state: State) -> Array:
        return likelihoods.informative(state.moments, config.least_deviation)

    def every_pair(z: Array) -> tuple[Array, Array]:
        """z (B, F) -> each with each class, (B K, F) and (B K,)."""
        return jnp.repeat(z, classes, 0), jnp.tile(jnp.arange(classes), z.shape[0])

    def normal(state: State, outputs: Array) -> tuple[Array, Array]:
        """Mean and log variance of p(z | y, v), N(0, 1) for the latents that M2 does not model."""
        mean, log_variance = (jnp.where(kept(state), part, 0.0) for part in jnp.split(outputs, 2, -1))
        return mean, log_variance

    def m2_step(state: State, batch: Batch) -> tuple[State, Metrics]:
        move_key, z_key, v_key = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        images = augment(config.augmentation, move_key, interleave(batch.labelled, batch.unlabelled))
        sizes = batch.labelled.shape[0], batch.unlabelled.shape[0]
        mean, log_variance = posterior(state, images)
        moments = likelihoods.running(state.moments, separate(mean, sizes)[1], state.step - first)
        state = state._replace(moments=moments)
        z = likelihoods.reparametrised(mean, log_variance, spread(jax.random.normal(z_key, mean.shape)))
        z = jnp.where(kept(state), z, 0.0)
        labelled, unlabelled = separate(z, sizes)
        every, labels = every_pair(unlabelled)
        pairs = sizes[0], every.shape[0]
        latents, labels = interleave(labelled, every), interleave(batch.labels, labels)
        noise = spread(jax.random.normal(v_key, (sum(pairs), config.latent)))

        def loss(params: dict) -> tuple[dict, dict]:
            outputs, *q = m2.apply({"params": params}, latents, labels, noise, train=True)
            surprise = -likelihoods.normal(latents, *normal(state, outputs))
            bound, each = separate(surprise + jnp.log(classes) + likelihoods.divergence(*q), pairs)
            log_q = jax.nn.log_softmax(m2.apply({"params": params}, z, train=True, method="classify"))
            given, guessed = separate(log_q, sizes)
            unlabelled = likelihoods.over_classes(each.reshape(-1, classes), guessed).mean()
            return {
                "labelled": config.labelled_share * bound.mean(),
                "unlabelled": (1 - config.labelled_share) * unlabelled,
                "classification": config.alpha * losses.cross_entropy(given, batch.labels),
            }, {}

        player, metrics = descend("m2", state.m2, m2_optimizer, loss)
        return state._replace(step=state.step + 1, m2=player), metrics

    def guess(state: State, z: Array) -> Array:
        return jax.nn.log_softmax(m2.apply({"params": state.m2.params}, z, train=False, method="classify"))

    def classify(state: State, images: Array) -> Array:
        return guess(state, jnp.where(kept(state), posterior(state, images)[0], 0.0))

    def encode(state: State, images: Array) -> Array:
        """The mean of q(v | z, y) at the mean of q(z | x) and the most probable y."""
        z = jnp.where(kept(state), posterior(state, images)[0], 0.0)
        predicted = guess(state, z).argmax(-1)
        return m2.apply({"params": state.m2.params}, z, predicted, train=False, method="encode")[0]

    def latents_of(state: State, v: Array, labels: Array) -> tuple[Array, Array]:
        return normal(state, m2.apply({"params": state.m2.params}, v, labels, train=False, method="decode"))

    def decode(state: State, v: Array, labels: Array) -> Array:
        """At the mean of p(z | y, v)."""
        return draw(state, latents_of(state, v, labels)[0])

    def draw(state: State, z: Array) -> Array:
        return likelihood.mean(m1.apply(m1_variables(state), z, None, train=False, method="decode"))

    def sample(state: State, key: Key, labels: Array) -> Array:
        v_key, z_key = jax.random.split(key)
        z = latents_of(state, jax.random.normal(v_key, (labels.shape[0], config.latent)), labels)
        return draw(state, likelihoods.reparametrised(*z, jax.random.normal(z_key, z[0].shape)))

    def log_weight(state: State, key: Key, images: Array) -> Array:
        z_key, v_key = jax.random.split(key)
        images = likelihood.observe(jax.random.fold_in(state.key, likelihoods.FIXED), images)
        noise = jax.random.normal(z_key, (images.shape[0], features))
        outputs, *q = m1.apply(m1_variables(state), images, None, noise, train=False)
        z = likelihoods.reparametrised(*q, noise)
        every, labels = every_pair(z)
        v_noise = jax.random.normal(v_key, (every.shape[0], config.latent))
        seen = jnp.where(kept(state), every, 0.0)
        inner, *r = m2.apply({"params": state.m2.params}, seen, labels, v_noise, train=False)
        each = likelihoods.normal(every, *normal(state, inner)) + likelihoods.log_prior_ratio(*r, v_noise)
        log_p_z = jax.nn.logsumexp(each.reshape(-1, classes), -1) - jnp.log(classes)
        return likelihood.log_density(images, outputs) + log_p_z - likelihoods.normal(z, *q)

    phases = (
        Phase("m1", first, 0, config.unlabelled_batch, m1_step),
        Phase("m2", config.steps - first, config.labelled_batch, config.unlabelled_batch, m2_step),
    )
    return Method(init, phases, sample, classify, encode, decode, conditional=True, log_weight=log_weight)
