"""Bad GAN: a K-class discriminator that learns from a generator of images beside the data, not of the data.

Dai et al. 2017, "Good Semi-supervised Learning that Requires a Bad GAN", arXiv:1705.09783, sec. 4 and 5. A classifier
gains by generated images where they lie between the classes, in what the data leave empty: there it learns to give
all classes low scores, and its boundaries stay out of the clusters. A generator that draws the data themselves, the aim
elsewhere, teaches it nothing. With l(x) the K logits, Z(x) = sum_k exp l_k(x), D = Z / (Z + 1) as in
`feature_matching`, and f the last hidden layer:

    L_D  = - E_(x,y) log p(y | x) - 1/2 E_u log D(u) - 1/2 E_z log(1 - D(G(z))) + a E_u H(p(. | u))
    L_G  = || E_u f(u) - E_z f(G(z)) || + b L_PT
    L_PT = 1 / (N (N - 1)) sum_(i != j) cos(f(G(z_i)), f(G(z_j)))^2

Feature matching leads the generator to the data; the pull-away term (Zhao et al. 2017, arXiv:1609.03126, sec. 2.4)
raises the entropy of what it draws, so that it spills over their edge; the entropy of guesses, a, keeps boundaries out
of dense regions. This is the paper's recipe for SVHN. Its other ways are left out: the bound on the entropy by an
encoder, its choice for CIFAR-10, and the term that drives images out of high density, its choice for MNIST, which asks
for a PixelCNN++ trained beforehand. Networks are those of `feature_matching`: the dense ones are its MNIST script's,
but for a scale in the generator's batch norm; its convolutional D has noise on the pixels and drops whole channels.
G's update sees the images of D's, which there are drawn anew, and classification is by the EMA of the discriminator,
where the official scripts print the best error on the test set.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen.core.batching import interleave, separate, shard_batch
from ssl_gen.core.ema import update_ema
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import annealed
from ssl_gen.losses.adversarial import matching, unsupervised
from ssl_gen.losses.classification import cross_entropy, entropy
from ssl_gen.networks.feature_matching import Network, generator_and_discriminator
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, NoSettings, Phase, TrainState, Tree

PAPER = "Dai et al. 2017, arXiv:1705.09783"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 1_200_000  # updates; 2000 epochs of 60,000 images, official MNIST script
    labelled_batch: int = 100  # images a step; official MNIST script
    unlabelled_batch: int = 100  # images a step, a multiple, and as many generated; official MNIST script
    network: Network = "mlp"  # official: MNIST dense, SVHN and CIFAR conv
    latent: int = 100  # width of z ~ U(0, 1); official MNIST script
    generator_hidden: tuple[int, ...] = (500, 500)  # units a layer; official MNIST script
    discriminator_hidden: tuple[int, ...] = (1000, 500, 250, 250, 250)  # units a layer; official MNIST script
    input_noise: float = 0.3  # deviation in an mlp discriminator, pixels in [0, 1]; official MNIST script
    noise: float = 0.5  # deviation before the mlp discriminator's other layers; official MNIST script
    width: int = 64  # channels of a conv discriminator's first layers; official SVHN script; CIFAR-10: 96
    generator_width: int = 128  # channels of a conv generator's last maps; official SVHN and CIFAR-10 scripts
    dropout: tuple[float, float, float] = (0.15, 0.5, 0.5)  # of a conv discriminator, see `conv9`; official SVHN script
    learning_rate: float = 3e-3  # Adam, discriminator; official MNIST script; SVHN: 1e-3
    generator_rate: float = 1e-3  # Adam, generator; official scripts
    anneal: float = 1 / 3  # share of the steps, at the end, over which rates fall to 0; official MNIST script
    b1: float = 0.5  # Adam, discriminator, the generator's is 0; official MNIST script
    b2: float = 0.9999  # Adam, both players; official MNIST script; SVHN and CIFAR-10: 0.999
    unlabelled_weight: float = 1.0  # weight of the terms of D; official scripts
    entropy: float = 0.1  # a, of guesses of unlabelled images; official SVHN script; MNIST: 0
    pull_away: float = 0.8  # b; official SVHN script; MNIST: 0, and the term of a density
    distance: Literal["squared", "absolute"] = "absolute"  # of mean features; official: squared for MNIST
    averaging: float = 1 / 18  # time constant of the mean params, in runs; ours, as in `feature_matching`


PHOTOGRAPHS = Config(  # official CIFAR-10 script: widths, rates, b2; 1,200 epochs of 50,000 images; ours: pull_away
    network="conv", steps=600_000, width=96, learning_rate=6e-4, generator_rate=3e-4, b2=0.999, dropout=(0.2, 0.5, 0.5),
    entropy=0.0,
)  # fmt: skip


class State(NamedTuple):
    generator: TrainState
    discriminator: TrainState


def pull_away(features: Array) -> Array:
    """L_PT, the mean squared cosine between two images: features (N, F), N at least 2 -> () of 0 to 1.

    With d_i the direction of image i, sum_(i, j) (d_i^T d_j)^2 = |sum_i d_i d_i^T|^2, a sum over images, which a
    data-parallel run divides over its devices; the pairs would need all images on each.
    """
    count = features.shape[0]
    # the root of 0 has no slope, and rectified features of an image can all be 0
    directions = features / jnp.sqrt(jnp.square(features).sum(-1, keepdims=True) + 1e-12)
    every_pair = jnp.square(directions.T @ directions).sum()
    return (every_pair - jnp.square(jnp.square(directions).sum(-1)).sum()) / (count * (count - 1))


def make(config: Config, spec: ImageSpec) -> Method:
    """Generator and K-class discriminator for images of `spec`; samples are not conditional."""
    check_multiples(config, "labelled_batch", "unlabelled_batch")

    def adam(rate: float, b1: float) -> optax.GradientTransformation:
        return optax.adam(annealed(rate, config.steps, config.anneal), b1, config.b2)

    g_network, d_network = generator_and_discriminator(
        config.network, spec, config.generator_hidden, config.discriminator_hidden,
        (config.input_noise, config.noise), config.generator_width, config.width, config.dropout,
    )  # fmt: skip
    generator = Player("generator", g_network, adam(config.generator_rate, 0.0))
    discriminator = Player("discriminator", d_network, adam(config.learning_rate, config.b1), ema=True)

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(key, 4)
        images = jnp.concatenate([batch.labelled, batch.unlabelled])
        latents = jax.random.uniform(keys[0], (images.shape[0], config.latent))
        return State(
            generator.init(keys[1], latents, None, train=True),
            discriminator.init({"params": keys[2], "noise": keys[3], "dropout": keys[3]}, images, None, train=True),
        )

    def judge(player: TrainState, params: Tree, images: Array, key: Key) -> tuple[tuple[Array, Array], Tree]:
        """Logits and features, and the untrained collections after them."""
        return discriminator.run(player, params, images, None, rngs={"noise": key, "dropout": key})

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 3)
        latents = shard_batch(jax.random.uniform(keys[0], (batch.unlabelled.shape[0], config.latent)))
        fake = generator.forward(state.generator, latents, None)
        images = batch.labelled, batch.unlabelled, fake.outputs
        sizes = tuple(part.shape[0] for part in images)

        def discriminator_loss(params: Tree) -> tuple[Terms, Tree]:
            (logits, _), stats = judge(state.discriminator, params, interleave(*images), keys[1])
            labelled, real, generated = separate(logits, sizes)
            real_loss, fake_loss = unsupervised(real, generated)
            return {
                "supervised": cross_entropy(labelled, batch.labels),
                "real": config.unlabelled_weight * real_loss,
                "fake": config.unlabelled_weight * fake_loss,
                "entropy": config.entropy * entropy(real).mean(),
            }, stats

        d, d_metrics = discriminator.descend(state.discriminator, discriminator_loss)
        d = update_ema(d, 1 / max(config.averaging * config.steps, 1), step)

        def generator_loss(images: Array) -> Terms:
            (_, features), _ = judge(d, d.params, interleave(batch.unlabelled, images), keys[2])
            real, generated = separate(features, sizes[1:])
            return {
                "matching": matching(real, generated, config.distance),
                "pull_away": config.pull_away * pull_away(generated),
            }

        g, g_metrics = generator.descend(state.generator, generator_loss, fake)
        return State(g, d), d_metrics | g_metrics

    def sample(state: State, key: Key, labels: Array, sampler: NoSettings) -> Array:
        latents = jax.random.uniform(key, (labels.shape[0], config.latent))
        return generator.infer(state.generator, latents, None)

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(discriminator.infer(state.discriminator, images, None)[0])

    phase = Phase("main", config.steps, config.labelled_batch, config.unlabelled_batch, step)
    return Method(init, (phase,), sample=sample, classify=classify)
