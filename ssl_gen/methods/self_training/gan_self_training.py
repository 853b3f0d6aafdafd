"""Self-training with a conditional GAN: a classifier labels images for the generator, which then draws images for it.

You et al. 2023, "Diffusion Models and Semi-Supervised Learners Benefit Mutually with Few Labels", arXiv:2302.10586: the
three stages of its dual pseudo training, with a projection GAN (Miyato and Koyama 2018, arXiv:1802.05637) in the place
of the diffusion model and FixMatch (Sohn et al. 2020, arXiv:2001.07685, sec. 2) as the semi-supervised learner.

With a(.) a weak and A(.) a strong augmentation, q = p(. | a(u)) and yh = argmax_k p(k | u) of the classifier's EMA,
s(x, y) the discriminator's logit of a pair, G(z, y) the generator,

    1. warm_up      L_C = E_(x,y) CE(p(. | a(x)), y) + w E_u 1[max q > t] CE(p(. | A(u)), argmax q)
    2. generation   L_D = E max(0, 1 - s(x, y)) + E max(0, 1 + s(G(z, y), y))       over pairs (x, y) and (u, yh)
                    L_G = - E s(G(z, y), y)
    3. retraining   L_C of 1 + g E_(z,y) CE(p(. | a(G(z, y))), y)                   y uniform

With alignment q is brought to the class frequencies of the labels (Berthelot et al. 2020, arXiv:1911.09785, sec. 3.1),
see `fixmatch`, also for when to switch it off.

Ours: the GAN; the EMA as FixMatch's teacher; the classifier goes on from the first phase, where the paper begins anew;
images labelled by hand keep their label and have a share of their own in L_D. Three switches tell what each source is
worth: labels and samples are switched in the third phase, guesses in the first as well, which always has the labels.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import optax

from ssl_gen.augmentation import STRONG_DIGITS, STRONG_PHOTOGRAPHS, WEAK_PHOTOGRAPHS, Augmentation, augment
from ssl_gen.core.batching import interleave, separate, shard_batch
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples
from ssl_gen.core.players import Player
from ssl_gen.core.samplers import NormalLatents
from ssl_gen.core.schedules import annealed, kernels, partly_cosine
from ssl_gen.losses import adversarial
from ssl_gen.losses.sources import Taught, learn_sources, lengths
from ssl_gen.losses.thresholds import Marginals, uniform_marginals
from ssl_gen.networks import classifiers, conv
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree, UserError

PAPER = "You et al. 2023, arXiv:2302.10586"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 5_000  # updates in all; ours, for MNIST in ten minutes of one core
    warm_up: float = 0.15  # share of the steps for the first classifier; ours
    generation: float = 0.7  # share of the steps for generator and discriminator; the third phase has the rest; ours
    from_labels: bool = True  # does the third phase learn the labels?
    from_guesses: bool = True  # do the first and the third learn the classifier's own confident guesses?
    from_samples: bool = True  # does the third phase learn generated images?
    labelled_batch: int = 32  # images a step of the classifier; ours
    generated_batch: int = 64  # images a step of the third phase, a multiple of labelled_batch; ours
    unlabelled_batch: int = 192  # images a step of the classifier, a multiple of both; ours
    classifier_network: classifiers.Network = "conv"  # paper: wide_resnet on CIFAR-10
    classifier_hidden: tuple[int, ...] = (500, 500)  # units a layer of an mlp classifier; ours
    classifier_width: int = 32  # channels of the first layer of the others; Sohn et al. 2020
    dropout: float = 0.0  # of the classifier's hidden units; Sohn et al. 2020: none
    classifier_rate: float = 2e-3  # AdamW at the start, falling along cos(7 pi t / 16 T); ours
    weight_decay: float = 5e-4  # of kernels; times the rate 1e-6 a step: inert; Sohn et al. 2020: SGD's
    guesses_weight: float = 1.0  # w; Sohn et al. 2020
    threshold: float = 0.9  # t, of probability; ours; Sohn et al. 2020: 0.95
    alignment: bool = True  # of the guesses' classes to those of the labels; Berthelot et al. 2020; paper: none
    memory: int = 128  # steps that the running means of alignment look back; Berthelot et al. 2020, code
    samples_weight: float = 1.0  # g, of the mean over generated images; ours; paper: each image weighs the same
    averaging: float = 0.01  # rate of the classifier's EMA, a step; ours
    augmentation: Augmentation = Augmentation(translate=2.0)  # the classifier's weak one; ours
    strong: Augmentation = STRONG_DIGITS  # the classifier's strong one
    judged_labelled: int = 4  # hand-labelled images a step of the GAN: few, or it learns them by heart; ours
    judged_unlabelled: int = 60  # other images a step of the GAN, a multiple; 64 in all: Miyato and Koyama 2018, code
    loss: Literal["non_saturating", "least_squares", "hinge"] = "hinge"  # Miyato and Koyama 2018; no penalty needed
    latent: int = 64  # width of z ~ N(0, 1); ours; Miyato and Koyama 2018: 128
    width: int = 32  # channels of the first layer of generator and discriminator; ours; Miyato et al. 2018: 64
    learning_rate: float = 1e-3  # Adam, generator and discriminator; ours, Miyato and Koyama 2018: 2e-4
    anneal: float = 0.5  # share of the GAN's steps, at the end, over which its rates fall to 0; ours
    b1: float = 0.5  # Adam, both; Radford et al. 2016, arXiv:1511.06434
    generator_averaging: float = 0.01  # rate of the generator's EMA, which draws, a step; ours
    judged_augmentation: Augmentation = Augmentation()  # of all images judged; few: Zhao et al. 2020, arXiv:2006.10738


PHOTOGRAPHS = Config(  # classifier: Sohn et al. 2020, for CIFAR-10, in fewer steps; GAN: ours
    steps=300_000, labelled_batch=64, unlabelled_batch=448, classifier_network="wide_resnet", threshold=0.95,
    averaging=1e-3, width=64, augmentation=WEAK_PHOTOGRAPHS, strong=STRONG_PHOTOGRAPHS,
)  # fmt: skip


class State(NamedTuple):
    generator: TrainState
    discriminator: TrainState
    classifier: TrainState
    marginals: Marginals | tuple[()]  # () without guesses or alignment


def optimizers(config: Config) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """The GAN's Adam and the classifier's AdamW."""
    first, second, third = lengths(config)
    rate = partly_cosine(config.classifier_rate, first + third)
    return (
        optax.adam(annealed(config.learning_rate, second, config.anneal), config.b1),
        optax.adamw(rate, weight_decay=config.weight_decay, mask=kernels),
    )


def networks(config: Config, spec: ImageSpec) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Generator, discriminator of pairs, classifier."""
    hidden, width = config.classifier_hidden, config.classifier_width
    return (
        conv.Generator(spec.shape, spec.classes, config.width, "conditional_batch_norm"),
        conv.Discriminator(1, spec.classes, config.width, conditioning="projection", normalisation="spectral"),
        classifiers.classifier(config.classifier_network, spec.classes, hidden, width, config.dropout),
    )


def make(config: Config, spec: ImageSpec) -> Method:
    """Generator, pair discriminator and classifier for images of `spec`; samples obey their labels."""
    check_multiples(config, "labelled_batch", "generated_batch", "unlabelled_batch")
    check_multiples(config, "generated_batch", "unlabelled_batch")
    check_multiples(config, "judged_labelled", "judged_unlabelled")
    if config.loss in adversarial.DIFFERENCES:
        raise UserError(f"loss {config.loss} needs a penalty: choose hinge, non_saturating or least_squares")
    first, second, third = lengths(config)
    adam, adamw = optimizers(config)
    g_network, d_network, c_network = networks(config, spec)
    generator = Player("generator", g_network, adam, ema=True)
    discriminator = Player("discriminator", d_network, adam)
    classifier = Player("classifier", c_network, adamw, ema=True)

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(key, 4)
        latents = jax.random.normal(keys[0], (batch.labels.shape[0], config.latent))
        return State(
            generator.init(keys[1], latents, batch.labels, train=True),
            discriminator.init(keys[2], batch.labelled, batch.labels, train=True),
            classifier.init(keys[3], batch.unlabelled),
            uniform_marginals(spec.classes) if config.from_guesses and config.alignment else (),
        )

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    def sample(state: State, key: Key, labels: Array, sampler: NormalLatents) -> Array:
        latents = shard_batch(sampler.draw(key, labels.shape[0], config.latent))
        return generator.infer(state.generator, latents, labels)

    def train_classifier(state: State, key: Key, step: Array, batch: Batch, taught: Taught) -> tuple[State, Metrics]:
        player, marginals, metrics = learn_sources(
            config, classifier, state.classifier, state.marginals, key, step, batch, taught
        )
        return state._replace(classifier=player, marginals=marginals), metrics

    def warm_up(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        return train_classifier(state, key, step, batch, {"supervised": (batch.labelled, batch.labels)})

    def generation(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 3)
        real = interleave(batch.labelled, batch.unlabelled)
        labels = interleave(batch.labels, classify(state, batch.unlabelled).argmax(-1))
        sizes = labels.shape[0], labels.shape[0]
        latents = shard_batch(jax.random.normal(keys[0], (labels.shape[0], config.latent)))
        fake = generator.forward(state.generator, latents, labels)

        def judge(player: TrainState, params: Tree, key: Key, images: Array, labels: Array) -> tuple[Array, Tree]:
            images = augment(config.judged_augmentation, key, images)
            (logits, _), stats = discriminator.run(player, params, images, labels)
            return logits[:, 0], stats

        def discriminator_loss(params: Tree) -> tuple[Terms, Tree]:
            images, pairs = interleave(real, fake.outputs), interleave(labels, labels)
            logits, stats = judge(state.discriminator, params, keys[1], images, pairs)
            return adversarial.discriminator_terms(config.loss, *separate(logits, sizes)), stats

        d, d_metrics = discriminator.descend(state.discriminator, discriminator_loss)

        def generator_loss(images: Array) -> Terms:
            logits, _ = judge(d, d.params, keys[2], images, labels)
            return {"adversarial": adversarial.generator_loss(config.loss, logits)}

        g, g_metrics = generator.descend(state.generator, generator_loss, fake)
        g = generator.average(g, config.generator_averaging, step - first, latents, labels)
        return state._replace(generator=g, discriminator=d), d_metrics | g_metrics

    def retraining(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 3)
        taught: Taught = {"supervised": (batch.labelled, batch.labels)} if config.from_labels else {}
        if config.from_samples:
            labels = shard_batch(jax.random.randint(keys[0], (config.generated_batch,), 0, spec.classes))
            taught["samples"] = sample(state, keys[1], labels, NormalLatents()), labels
        return train_classifier(state, keys[2], step - second, batch, taught)

    unlabelled = config.from_guesses * config.unlabelled_batch
    phases = (
        Phase("warm_up", first, config.labelled_batch, unlabelled, warm_up),
        Phase("generation", second, config.judged_labelled, config.judged_unlabelled, generation),
        Phase("retraining", third, config.from_labels * config.labelled_batch, unlabelled, retraining),
    )
    return Method(init, phases, sample=sample, classify=classify, conditional=True, sampler=NormalLatents())
