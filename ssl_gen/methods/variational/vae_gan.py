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

The labels are ours; the paper has none. The head is the discriminator's: its K logits double as its score, as in
Salimans et al. 2016, arXiv:1606.03498, sec. 5, D = Z / (Z + 1) with Z = sum_k exp l_k. There every image, real,
reconstructed or drawn, trains the features that tell classes apart; a head on the encoder would learn from labelled
images alone, since the class is no part of z. The decoder is told the class, so that z need not hold it: y is the true
one where it is visible, else the head's probabilities, which carry no gradient. Added are

    discriminator   - E_(x,y) log p(y | x)             supervised
    decoder         - E log p(c | p)                   so that samples obey their labels (Odena et al. 2017)
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssl_gen import likelihoods, losses
from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.networks import conv, mlp
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState
from ssl_gen.update import annealed, average, check_multiples, create, descend, forward, interleave, separate, spread

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
    input_noise: float = 0.0  # deviation in the discriminator; Salimans et al. 2016: 0.3
    noise: float = 0.0  # deviation before the mlp discriminator's other layers; Salimans et al. 2016: 0.5
    dropout: float = 0.0  # after the conv discriminator's stages; ours: none
    width: int = 64  # channels of the first layer of conv networks; paper, table 1
    gamma: float = 0.01  # weight of the likelihood in the decoder; ours; official: 1e-5, of a sum over the batch
    classes: float = 1.0  # weight of the decoder's class term; Odena et al. 2017, sec. 3
    learning_rate: float = 3e-4  # Adam, all players; official code: RMSProp
    b1: float = 0.5  # Adam; Radford et al. 2016, sec. 4
    anneal: float = 0.5  # share of the steps, at the end, over which the rate falls to 0; ours
    averaging: float = 0.01  # rate of the discriminator's mean params, which classify, a step; ours
    augmentation: Augmentation = Augmentation()  # of every real image; the paper: none


PHOTOGRAPHS = Config(augmentation=Augmentation(flip=True))  # ours


class State(NamedTuple):
    step: Array  # () int32, updates done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    encoder: TrainState
    decoder: TrainState
    discriminator: TrainState


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
    sizes = config.labelled_batch, config.unlabelled_batch
    encoder, decoder, discriminator = networks(config, spec)
    optimizer = optax.adam(annealed(config.learning_rate, config.steps, config.anneal), config.b1)

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(jax.random.fold_in(key, BEFORE), 6)
        images = jnp.concatenate([batch.labelled, batch.unlabelled])
        latents = jax.random.normal(keys[0], (images.shape[0], config.latent))
        e = encoder.init(keys[1], images, None, train=True)
        g = decoder.init(keys[2], latents, jnp.arange(images.shape[0]) % spec.classes, train=True)
        streams = {"params": keys[3], "noise": keys[4], "dropout": keys[5]}
        d = discriminator.init(streams, images, None, train=True)
        return State(
            jnp.int32(0),
            key,
            create(e.pop("params"), e, optimizer),
            create(g.pop("params"), g, optimizer),
            create(d.pop("params"), d, optimizer, average=True),
        )

    def judge(player: TrainState, params: dict, key: Key, images: Array) -> tuple[Array, dict]:
        """The discriminator's logits (B, K), noise and all, and its untrained collections after them."""
        noise_key, dropout_key = jax.random.split(key)
        rngs = {"noise": noise_key, "dropout": dropout_key}
        variables = {"params": params, **player.stats}
        (logits, _), stats = discriminator.apply(
            variables, images, None, train=True, rngs=rngs, mutable=["batch_stats"]
        )
        return logits, player.stats | stats

    def describe(player: TrainState, params: dict, images: Array) -> tuple[Array, Array]:
        """Logits (B, K) and features (B, F) without noise."""
        return discriminator.apply({"params": params, **player.stats}, images, None, train=False)

    def moments(player: TrainState, params: dict, images: Array, train: bool) -> tuple[tuple[Array, Array], dict]:
        variables = {"params": params, **player.stats}
        outputs, stats = encoder.apply(variables, images, None, train=train, mutable=["batch_stats"])
        return tuple(jnp.split(outputs, 2, -1)), stats

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 6)
        real = augment(config.augmentation, keys[0], interleave(batch.labelled, batch.unlabelled))
        count, critic = real.shape[0], state.discriminator
        noise = spread(jax.random.normal(keys[1], (count, config.latent)))
        drawn = spread(jax.random.normal(keys[2], (count, config.latent)))
        asked = spread(jax.random.randint(keys[3], (count,), 0, spec.classes))
        logits, features = describe(critic, critic.params, real)
        guessed = separate(jax.nn.softmax(logits), sizes)[1]
        labels = interleave(
            interleave(jax.nn.one_hot(batch.labels, spec.classes), guessed), jax.nn.one_hot(asked, spec.classes)
        )

        def generate(encoder_params: dict, decoder_params: dict) -> tuple[tuple, tuple[dict, dict]]:
            """Reconstructions, images of the prior, and q's moments; stats of both players."""
            posterior, e_stats = moments(state.encoder, encoder_params, real, train=True)
            latents = interleave(likelihoods.reparametrised(*posterior, noise), drawn)
            variables = {"params": decoder_params, **state.decoder.stats}
            images, g_stats = decoder.apply(variables, latents, labels, train=True, mutable=["batch_stats"])
            return (*separate(images, (count, count)), *posterior), (e_stats, g_stats)

        coded = forward(lambda params: generate(params, state.decoder.params), state.encoder.params)
        decoded = forward(lambda params: generate(state.encoder.params, params), state.decoder.params)
        rebuilt, prior = decoded.outputs[:2]

        def likelihood(images: Array) -> Array:
            return feature_distance(features, describe(critic, critic.params, images)[1]).mean()

        def encoder_loss(outputs: tuple) -> tuple[dict, dict]:
            images, _, mean, log_variance = outputs
            divergence = likelihoods.divergence(mean, log_variance).mean()
            return {"prior": divergence, "likelihood": likelihood(images)}, coded.stats[0]

        def decoder_loss(outputs: tuple) -> tuple[dict, dict]:
            images = outputs[:2]
            logits, _ = judge(critic, critic.params, keys[4], interleave(*images))
            rebuilt, prior = separate(logits, (count, count))
            return {
                "likelihood": config.gamma * likelihood(images[0]),
                "reconstructed": losses.judged_real(reality(rebuilt)),
                "drawn": losses.judged_real(reality(prior)),
                "class": config.classes * losses.cross_entropy(prior, asked),
            }, decoded.stats[1]

        def discriminator_loss(params: dict) -> tuple[dict, dict]:
            logits, stats = judge(critic, params, keys[5], interleave(real, rebuilt, prior))
            shown, fake, more = separate(logits, (count,) * 3)
            return {
                "supervised": losses.cross_entropy(separate(shown, sizes)[0], batch.labels),
                "real": losses.judged_real(reality(shown)),
                "reconstructed": losses.judged_fake(reality(fake)),
                "drawn": losses.judged_fake(reality(more)),
            }, stats

        e, e_metrics = descend("encoder", state.encoder, optimizer, encoder_loss, coded)
        g, g_metrics = descend("decoder", state.decoder, optimizer, decoder_loss, decoded)
        d, d_metrics = descend("discriminator", critic, optimizer, discriminator_loss)
        d = average(d, config.averaging, state.step)
        return State(state.step + 1, state.key, e, g, d), e_metrics | g_metrics | d_metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(describe(state.discriminator, state.discriminator.ema, images)[0])

    def encode(state: State, images: Array) -> Array:
        """The mean of q(z | x)."""
        return moments(state.encoder, state.encoder.params, images, train=False)[0][0]

    def decode(state: State, latents: Array, labels: Array) -> Array:
        return decoder.apply({"params": state.decoder.params, **state.decoder.stats}, latents, labels, train=False)

    def sample(state: State, key: Key, labels: Array) -> Array:
        return decode(state, jax.random.normal(key, (labels.shape[0], config.latent)), labels)

    phase = Phase("main", config.steps, *sizes, step)
    return Method(init, (phase,), sample=sample, classify=classify, encode=encode, decode=decode, conditional=True)
