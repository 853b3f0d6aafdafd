"""VAE/GAN: a variational autoencoder that measures images by the features of a discriminator, with a label head.

Larsen et al. 2015, "Autoencoding beyond pixels using a learned similarity metric", arXiv:1512.09300, sec. 2 and
algorithm 1. With q(z | x) = N(m(x), diag s^2(x)), x~ = g(z, y) the reconstruction of x, p = g(e, c) an image of the
prior, e ~ N(0, I) and c uniform, f(x) the discriminator's last hidden layer and D(x) what it gives to x being real:

    prior        KL(q(z | x) || N(0, I))
    likelihood   - log N(f(x); f(x~), I) = 1/2 |f(x) - f(x~)|^2, but for a constant
    L_GAN        - E log D(x) - E log(1 - D(x~)) - E log(1 - D(p))

    encoder         prior + likelihood
    decoder         gamma likelihood - L_GAN, in its form - E log D(x~) - E log D(p)
    discriminator   L_GAN

All three learn from one pass, before any is updated. L_GAN has no way to the encoder, nor the likelihood to the
discriminator.

The released scripts do otherwise: the discriminator judges no reconstruction, so that L_GAN is of x and p alone; the
decoder descends - (1 - gamma) L_GAN as it stands, which saturates; while a cost of the discriminator, of x or of p, is
below 0.33 it is not updated, and while one is above 1.03 the decoder is not, unless that would hold up both; and f(x)
is what an inner convolution gives, before its batch norm.

The labels are ours; the paper has none. The head is the discriminator's: its K logits double as its score, as in
Salimans et al. 2016, arXiv:1606.03498, sec. 5, D = Z / (Z + 1) with Z = sum_k exp l_k. There every image, real,
reconstructed or drawn, trains the features that tell classes apart; a head on the encoder would learn from labelled
images alone, since the class is no part of z. The decoder is told the class, so that z need not hold it: y is the true
one where it is visible, else the head's probabilities, which carry no gradient. Added are

    discriminator   - E_(x,y) log p(y | x)             supervised
    decoder         - E log p(c | p)                   so that samples obey their labels (Odena et al. 2017)

Samples are g(e, c), or, ours, with e of a Gaussian fitted to the latents of each guessed class.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.core.batching import interleave, separate, shard_batch
from ssl_gen.core.ema import update_ema
from ssl_gen.core.gradient import Terms, forward
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import DensityLatents, LatentDensity
from ssl_gen.core.schedules import annealed
from ssl_gen.losses.adversarial import judged_fake, judged_real
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.losses.likelihood import kl_to_prior, reparametrised
from ssl_gen.networks import conv, mlp
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree

PAPER = "Larsen et al. 2015, arXiv:1512.09300"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 60_000  # updates; ours
    labelled_batch: int = 32  # images a step; ours, paper: none
    unlabelled_batch: int = 64  # images a step, a multiple; official CelebA script
    network: Literal["mlp", "conv"] = "conv"  # all three; paper: conv
    latent: int = 128  # Z; official CelebA script
    encoder_hidden: tuple[int, ...] = (500, 500)  # units a layer of an mlp; ours
    decoder_hidden: tuple[int, ...] = (500, 500)  # units a layer of an mlp; Salimans et al. 2016, MNIST
    discriminator_hidden: tuple[int, ...] = (1000, 500, 250, 250, 250)  # units a layer; Salimans et al. 2016, MNIST
    input_noise: float = 0.0  # deviation in the discriminator, pixels in [0, 1]; Salimans et al. 2016: 0.3
    noise: float = 0.0  # deviation before the mlp discriminator's other layers; Salimans et al. 2016: 0.5
    dropout: float = 0.0  # after the conv discriminator's stages; ours: none
    width: int = 64  # channels of the first layer of conv networks; paper, table 1
    gamma: float = 0.01  # weight of the likelihood in the decoder; ours; official scripts: 1e-6, CIFAR-10: 1e-5
    classes: float = 1.0  # weight of the decoder's class term; Odena et al. 2017, sec. 3
    learning_rate: float = 3e-4  # Adam, all players; official code: RMSProp
    b1: float = 0.5  # Adam; Radford et al. 2016, sec. 4
    anneal: float = 0.5  # share of the steps, at the end, over which the rate falls to 0; ours
    averaging: float = 0.01  # rate of the discriminator's EMA, which classifies, a step; ours
    augmentation: Augmentation = Augmentation()  # of every real image; the paper: none
    latents: Literal["prior", "class_density"] = "prior"  # of samples, unless asked for otherwise; class_density: ours


PHOTOGRAPHS = Config(augmentation=Augmentation(flip=True))  # ours


class State(NamedTuple):
    encoder: TrainState
    decoder: TrainState
    discriminator: TrainState
    density: LatentDensity | tuple[()] = ()  # of latents, fitted after training where samples are drawn from it


def feature_distance(features: Array, others: Array) -> Array:
    """- log N(f; f~, I) but for a constant: features (B, F) of images and of others (B, F) -> (B,) nats."""
    return jnp.square(features - others).sum(-1) / 2


def reality(logits: Array) -> Array:
    """log Z, the logit of being real: logits (B, K) -> (B,) nats."""
    return jax.nn.logsumexp(logits, -1)


def networks(config: Config, spec: ImageSpec) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Encoder of means and log variances, decoder of images, discriminator with K logits."""
    classes, outputs = spec.classes, 2 * config.latent
    if config.network == "mlp":
        return (
            mlp.Encoder(outputs, classes, config.encoder_hidden, nn.relu),
            mlp.Generator(spec.shape, classes, config.decoder_hidden),
            mlp.Discriminator(classes, classes, config.discriminator_hidden, config.input_noise, config.noise),
        )
    return (
        conv.Encoder(outputs, classes, config.width),
        conv.Generator(spec.shape, classes, config.width),
        conv.Discriminator(
            classes,
            classes,
            config.width,
            normalisation="weight",
            input_noise=config.input_noise,
            dropout=config.dropout,
        ),
    )


def make(config: Config, spec: ImageSpec) -> Method:
    """Encoder, decoder and discriminator for images of `spec`; samples obey their labels."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")
    classes, sizes = spec.classes, (config.labelled_batch, config.unlabelled_batch)
    adam = optax.adam(annealed(config.learning_rate, config.steps, config.anneal), config.b1)
    e_network, g_network, d_network = networks(config, spec)
    encoder, decoder = Player("encoder", e_network, adam), Player("decoder", g_network, adam)
    discriminator = Player("discriminator", d_network, adam, ema=True)

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(key, 6)
        images = jnp.concatenate([batch.labelled, batch.unlabelled])
        latents = jax.random.normal(keys[0], (images.shape[0], config.latent))
        streams = {"params": keys[3], "noise": keys[4], "dropout": keys[5]}
        return State(
            encoder.init(keys[1], images, None, train=True),
            decoder.init(keys[2], latents, jnp.arange(images.shape[0]) % classes, train=True),
            discriminator.init(streams, images, None, train=True),
        )

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 6)
        real = augment(config.augmentation, keys[0], interleave(batch.labelled, batch.unlabelled))
        count, critic = real.shape[0], state.discriminator
        noise = shard_batch(jax.random.normal(keys[1], (count, config.latent)))
        prior_latents = shard_batch(jax.random.normal(keys[2], (count, config.latent)))
        prior_labels = shard_batch(jax.random.randint(keys[3], (count,), 0, classes))
        logits, features = discriminator.infer(critic, real, None, params=critic.params)
        given, guessed = jax.nn.one_hot(batch.labels, classes), separate(jax.nn.softmax(logits), sizes)[1]
        labels = interleave(interleave(given, guessed), jax.nn.one_hot(prior_labels, classes))

        def generate(encoder_params: Tree, decoder_params: Tree) -> tuple[tuple[Array, ...], tuple[Tree, Tree]]:
            """Reconstructions, images of the prior, and q's moments; stats of both players."""
            outputs, e_stats = encoder.run(state.encoder, encoder_params, real, None)
            mean, log_variance = jnp.split(outputs, 2, -1)
            latents = interleave(reparametrised(mean, log_variance, noise), prior_latents)
            images, g_stats = decoder.run(state.decoder, decoder_params, latents, labels)
            return (*separate(images, (count, count)), mean, log_variance), (e_stats, g_stats)

        encoded = forward(lambda params: generate(params, state.decoder.params), state.encoder.params)
        decoded = forward(lambda params: generate(state.encoder.params, params), state.decoder.params)
        rebuilt, drawn = decoded.outputs[:2]

        def likelihood(images: Array) -> Array:
            others = discriminator.infer(critic, images, None, params=critic.params)[1]
            return feature_distance(features, others).mean()

        def judge(params: Tree, key: Key, images: Array) -> tuple[Array, Tree]:
            """The discriminator's logits (B, K), noise and all, and its untrained collections after them."""
            noise_key, dropout_key = jax.random.split(key)
            rngs = {"noise": noise_key, "dropout": dropout_key}
            (logits, _), stats = discriminator.run(critic, params, images, None, rngs=rngs)
            return logits, stats

        def encoder_loss(outputs: tuple[Array, ...]) -> Terms:
            images, _, mean, log_variance = outputs
            return {"prior": kl_to_prior(mean, log_variance).mean(), "likelihood": likelihood(images)}

        def decoder_loss(outputs: tuple[Array, ...]) -> Terms:
            logits, _ = judge(critic.params, keys[4], interleave(*outputs[:2]))
            rebuilt, drawn = separate(logits, (count, count))
            return {
                "likelihood": config.gamma * likelihood(outputs[0]),
                "reconstructed": judged_real(reality(rebuilt)),
                "drawn": judged_real(reality(drawn)),
                "class": config.classes * cross_entropy(drawn, prior_labels),
            }

        def discriminator_loss(params: Tree) -> tuple[Terms, Tree]:
            logits, stats = judge(params, keys[5], interleave(real, rebuilt, drawn))
            of_real, of_rebuilt, of_drawn = separate(logits, (count,) * 3)
            return {
                "supervised": cross_entropy(separate(of_real, sizes)[0], batch.labels),
                "real": judged_real(reality(of_real)),
                "reconstructed": judged_fake(reality(of_rebuilt)),
                "drawn": judged_fake(reality(of_drawn)),
            }, stats

        # Each pass carries the stats of both networks; a player keeps its own.
        e, e_metrics = encoder.descend(state.encoder, encoder_loss, encoded._replace(stats=encoded.stats[0]))
        g, g_metrics = decoder.descend(state.decoder, decoder_loss, decoded._replace(stats=decoded.stats[1]))
        d, d_metrics = discriminator.descend(critic, discriminator_loss)
        return State(e, g, update_ema(d, config.averaging, step)), e_metrics | g_metrics | d_metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(discriminator.infer(state.discriminator, images, None)[0])

    def posterior(state: State, images: Array) -> tuple[Array, Array]:
        mean, log_variance = jnp.split(encoder.infer(state.encoder, images, None), 2, -1)
        return mean, jnp.exp(log_variance)

    def encode(state: State, images: Array) -> Array:
        return posterior(state, images)[0]

    def decode(state: State, latents: Array, labels: Array) -> Array:
        return decoder.infer(state.decoder, latents, labels)

    def sample(state: State, key: Key, labels: Array, sampler: DensityLatents) -> Array:
        latents = sampler.draw_by_class(key, labels, state.density, config.latent)
        return decode(state, latents, labels)

    phases = (Phase("main", config.steps, *sizes, step),)
    return Method(
        init, phases, sample, classify, encode, decode, conditional=True,
        sampler=DensityLatents(latents=config.latents), posterior=posterior, normal_latents=True,
    )  # fmt: skip
