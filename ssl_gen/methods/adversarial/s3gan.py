"""S3GAN: a conditional GAN whose discriminator tells orientations apart and learns from inferred labels.

Lucic et al. 2019, "High-Fidelity Image Generation With Fewer Labels", arXiv:1903.02271, sec. 3; constants from its
code, compare_gan. With f the discriminator's features, x_r an image turned by r of 0, 90, 180 and 270 degrees, c_R and
c_Y linear heads on f and yh the label of x, inferred where it is hidden, the loss is the hinge:

    s(x, y) = psi(f(x)) + y^T V f(x)
    L_D     = E_x max(0, 1 - s(x, yh)) + E_(z,y) max(0, 1 + s(G(z, y), y)) + b E_(x,r) CE(c_R(f(x_r)), r)
    L_G     = - E_(z,y) s(G(z, y), y) + a E_(z,y,r) CE(c_R(f(G(z, y)_r)), r)

Where labels come from:

    co_trained   yh is the guess of c_Y, without gradient, of every image of the pool, though the label of some is
                 visible too (official code: the label, where it is). c_Y learns beside: E_(x,y) CE(c_Y(f(x)), y), of
                 images whose label is visible, is added to L_D
    guessed      yh is what the classifier of an earlier run guesses, `--labeller RUN`, and there is no c_Y. The paper's
                 best, with a linear classifier of features that have learnt to tell orientations apart

An image that no label is inferred for is judged by psi alone. The paper turns a part of the images in all four ways;
here each is turned once, by chance, beside itself. Turned images take no part in the game. Networks are those of
`conditional_gan`, where the paper has BigGAN's; the generator's images of a step are made once, as there.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssl_gen.augmentation import DIFF_AUGMENT, Augmentation, augment
from ssl_gen.core.batching import interleave, separate, shard_batch
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import NormalLatents
from ssl_gen.core.schedules import annealed
from ssl_gen.losses.adversarial import discriminator_terms, generator_loss
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.networks import conv, mlp
from ssl_gen.networks.heads import ORIENTATIONS, Critic, Judgement
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree, UserError, able

PAPER = "Lucic et al. 2019, arXiv:1903.02271"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 250_000  # updates of the generator; official config
    inferred: Literal["co_trained", "guessed"] = "co_trained"  # hidden labels; paper, best: guessed
    labelled_batch: int = 32  # images a discriminator update, of co_trained; ours, official: the share of all images
    unlabelled_batch: int = 64  # images a discriminator update, and as many generated; ours, official: 2048
    discriminator_steps: int = 2  # updates a step; official config
    loss: Literal["hinge", "non_saturating"] = "hinge"  # official config
    rotation: float = 1.0  # b; official code; paper: 0.5
    generator_rotation: float = 0.2  # a; official code
    auxiliary: float = 1.0  # weight of the term of c_Y; official code
    network: Literal["mlp", "conv"] = "conv"  # the paper's: residual
    latent: int = 120  # width of z ~ N(0, 1); official config
    generator_hidden: tuple[int, ...] = (500, 500)  # units a layer of an mlp; Salimans et al. 2016
    discriminator_hidden: tuple[int, ...] = (500, 500)  # units a layer of an mlp; ours
    input_noise: float = 0.0  # deviation in the discriminator, pixels in [0, 1]; ours: none
    noise: float = 0.0  # deviation before the mlp discriminator's other layers; ours: none
    width: int = 64  # channels of the first layer of conv networks; Miyato et al. 2018, table 3
    learning_rate: float = 5e-4  # Adam, discriminator; official config
    generator_rate: float = 1e-4  # Adam, generator; official config
    anneal: float = 0.0  # share of the steps, at the end, over which rates fall to 0; official: none
    b1: float = 0.0  # Adam; official config
    b2: float = 0.999  # Adam; official config
    averaging: float = 1e-4  # rate of the mean params that samples are drawn from, a step; official config; 0: none
    augmentation: Augmentation = Augmentation()  # of every image judged; Zhao et al. 2020: cutout 0.5, shift H / 8


PHOTOGRAPHS = Config(averaging=1e-3, augmentation=DIFF_AUGMENT)  # ours; Zhao et al. 2020, for few images


class State(NamedTuple):
    generator: TrainState
    discriminator: TrainState


def turned(images: Array, turns: Array) -> Array:
    """Images (B, H, H, C) turned by so many quarters of a turn each, turns (B,) int32 of 0..3 -> the same shape."""
    every = jnp.stack([jnp.rot90(images, quarter, (1, 2)) for quarter in range(ORIENTATIONS)], 1)
    return jnp.einsum("bq,bqhwc->bhwc", jax.nn.one_hot(turns, ORIENTATIONS), every)


def score(judgement: Judgement, labels: Array) -> Array:
    """s(x, y): labels (B,) int32, negative for none -> (B,)."""
    return judgement.real + (jax.nn.one_hot(labels, judgement.of_class.shape[-1]) * judgement.of_class).sum(-1)


def parted(judgement: Judgement, sizes: tuple[int, ...]) -> list[Judgement]:
    """What was said of each of some interleaved batches."""
    fields = [(None,) * len(sizes) if field is None else separate(field, sizes) for field in judgement]
    return [Judgement(*each) for each in zip(*fields, strict=True)]


def networks(config: Config, spec: ImageSpec) -> tuple[nn.Module, nn.Module]:
    """Generator, discriminator with its heads."""
    classes, guess = spec.classes, config.inferred == "co_trained"
    if config.network == "mlp":
        noise = config.input_noise, config.noise
        discriminator = mlp.Discriminator(1, classes, config.discriminator_hidden, *noise)
        return mlp.Generator(spec.shape, classes, config.generator_hidden), Critic(
            discriminator, classes, "none", guess
        )
    convolutions = conv.Discriminator(
        1, classes, config.width, normalisation="spectral", input_noise=config.input_noise
    )
    generator = conv.Generator(spec.shape, classes, config.width, "conditional_batch_norm")
    return generator, Critic(convolutions, classes, "spectral", guess)


def make(config: Config, spec: ImageSpec) -> Method:
    """Generator and discriminator for square images of `spec`; samples obey their labels, co-trained it classifies."""
    if spec.height != spec.width:
        raise UserError(f"images of {spec.height} x {spec.width} pixels cannot be turned: give squares, with --size")
    co_trained, count = config.inferred == "co_trained", config.discriminator_steps
    if co_trained:
        check_multiples(config, "labelled_batch", "unlabelled_batch")

    def adam(rate: float, updates: int) -> optax.GradientTransformation:
        return optax.adam(annealed(rate, updates, config.anneal), config.b1, config.b2)

    g_network, d_network = networks(config, spec)
    generator = Player("generator", g_network, adam(config.generator_rate, config.steps), ema=bool(config.averaging))
    discriminator = Player("discriminator", d_network, adam(config.learning_rate, config.steps * count))
    sizes = (config.labelled_batch, config.unlabelled_batch) if co_trained else (config.unlabelled_batch,)

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(key, 4)
        images = batch.unlabelled
        latents = jax.random.normal(keys[0], (images.shape[0], config.latent))
        return State(
            generator.init(keys[1], latents, jnp.arange(images.shape[0]) % spec.classes, train=True),
            discriminator.init({"params": keys[2], "noise": keys[3]}, images, train=True),
        )

    def judge(
        player: TrainState, params: Tree, key: Key, shown: tuple[Array, ...], to_turn: Array
    ) -> tuple[list[Judgement], Array, Tree]:
        """Of each batch, and of the images `to_turn`, turned: what is said, turns (T,), the untrained collections."""
        turn_key, augment_key, noise_key = jax.random.split(key, 3)
        turns = shard_batch(jax.random.randint(turn_key, (to_turn.shape[0],), 0, ORIENTATIONS))
        batches = (*shown, turned(to_turn, turns))
        images = augment(config.augmentation, augment_key, interleave(*batches))
        judgement, stats = discriminator.run(player, params, images, rngs={"noise": noise_key})
        return parted(judgement, tuple(batch.shape[0] for batch in batches)), turns, stats

    def discriminator_loss(
        player: TrainState, key: Key, real: tuple[Array, ...], given: Array, fake: Array, asked: Array, params: Tree
    ) -> tuple[Terms, Tree]:
        """real: labelled and unlabelled images, co_trained, or all in one; given: those of the first; asked: fake's."""
        (*of_real, of_fake, of_turned), turns, stats = judge(player, params, key, (*real, fake), interleave(*real))
        terms: Terms = {}
        labels = [given]
        if co_trained:
            of_labelled, of_unlabelled = (able(each.classes) for each in of_real)
            terms["class"] = config.auxiliary * cross_entropy(of_labelled, given)
            labels.append(of_unlabelled.argmax(-1))
        scores = interleave(*map(score, of_real, labels))
        terms |= discriminator_terms(config.loss, scores, score(of_fake, asked))
        return terms | {"rotation": config.rotation * cross_entropy(of_turned.orientation, turns)}, stats

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 3 + count)
        generated = config.unlabelled_batch * count
        latents = shard_batch(jax.random.normal(keys[0], (generated, config.latent)))
        asked = shard_batch(jax.random.randint(keys[1], (generated,), 0, spec.classes))
        fake, d = generator.forward(state.generator, latents, asked), state.discriminator
        given = jnp.asarray(batch.labels if co_trained else batch.guesses)
        parts = (config.unlabelled_batch,) * count
        shown = (batch.labelled, batch.unlabelled) if co_trained else (batch.unlabelled,)
        real = zip(*(separate(each, (size,) * count) for each, size in zip(shown, sizes, strict=True)), strict=True)
        known = separate(given, (sizes[0],) * count)
        shares = zip(keys[3:], real, known, separate(fake.outputs, parts), separate(asked, parts), strict=True)
        for share in shares:
            d, d_metrics = discriminator.descend(d, functools.partial(discriminator_loss, d, *share))

        def deceive(images: Array) -> Terms:
            (of_fake, of_turned), turns, _ = judge(d, d.params, keys[2], (images,), images)
            return {
                "adversarial": generator_loss(config.loss, score(of_fake, asked)),
                "rotation": config.generator_rotation * cross_entropy(of_turned.orientation, turns),
            }

        g, g_metrics = generator.descend(state.generator, deceive, fake)
        return State(generator.average(g, config.averaging, step, latents, asked), d), d_metrics | g_metrics

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(able(discriminator.infer(state.discriminator, images).classes))

    def sample(state: State, key: Key, labels: Array, sampler: NormalLatents) -> Array:
        return generator.infer(state.generator, sampler.draw(key, labels.shape[0], config.latent), labels)

    labelled = config.labelled_batch * count if co_trained else 0
    phase = Phase("main", config.steps, labelled, config.unlabelled_batch * count, step)
    return Method(
        init, (phase,), sample, classify if co_trained else None, conditional=True,
        told="nothing" if co_trained else "guessed", sampler=NormalLatents(),
    )  # fmt: skip
