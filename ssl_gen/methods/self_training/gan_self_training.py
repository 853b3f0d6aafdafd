"""Self-training with a conditional GAN: a classifier labels images for the generator, which then draws images for it.

You et al. 2023, "Diffusion Models and Semi-Supervised Learners Benefit Mutually with Few Labels", arXiv:2302.10586: the
three stages of its dual pseudo training, with a projection GAN (Miyato and Koyama 2018, arXiv:1802.05637) in the place
of the diffusion model and FixMatch (Sohn et al. 2020, arXiv:2001.07685, sec. 2) as the semi-supervised learner.

With a(.) a weak and A(.) a strong augmentation, q = p(. | a(u)) and yh = argmax_k p(k | u) of the classifier's mean
params, s(x, y) the discriminator's logit of a pair, G(z, y) the generator,

    1. warm_up      L_C = E_(x,y) CE(p(. | a(x)), y) + w E_u 1[max q > t] CE(p(. | A(u)), argmax q)
    2. generation   L_D = E max(0, 1 - s(x, y)) + E max(0, 1 + s(G(z, y), y))       over pairs (x, y) and (u, yh)
                    L_G = - E s(G(z, y), y)
    3. retraining   L_C of 1 + g E_(z,y) CE(p(. | a(G(z, y))), y)                   y uniform

Ours: the GAN; the mean params as FixMatch's teacher; the classifier goes on from the first phase, where the paper
begins anew; images labelled by hand keep their label and have a share of their own in L_D. Three switches tell what
each source is worth: labels and samples are switched in the third phase, guesses in the first as well. The first phase
always has the labels, for nothing else tells of the classes.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen import adversarial_losses, losses
from ssl_gen.augmentation import STRONG_DIGITS, STRONG_PHOTOGRAPHS, WEAK_PHOTOGRAPHS, Augmentation, augment
from ssl_gen.networks import conv
from ssl_gen.networks.classifiers import Network, classifier
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState, Tree, UserError
from ssl_gen.update import (
    annealed,
    average,
    check_multiples,
    create,
    descend,
    forward,
    interleave,
    kernels,
    partly_cosine,
    separate,
    spread,
)

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
    classifier_network: Network = "conv"  # paper: wide_resnet on CIFAR-10
    classifier_hidden: tuple[int, ...] = (500, 500)  # units a layer of an mlp classifier; ours
    classifier_width: int = 32  # channels of the first layer of the others; Sohn et al. 2020
    dropout: float = 0.0  # of the classifier's hidden units; Sohn et al. 2020: none
    classifier_rate: float = 2e-3  # AdamW at the start, falling along cos(7 pi t / 16 T); ours
    weight_decay: float = 5e-4  # of the classifier's kernels; Sohn et al. 2020
    guesses_weight: float = 1.0  # w; Sohn et al. 2020
    threshold: float = 0.9  # t, of probability; ours; Sohn et al. 2020: 0.95
    samples_weight: float = 1.0  # g; a generated image counts as much as one labelled by hand, as in the paper
    averaging: float = 0.01  # rate of the classifier's mean params, a step; ours
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
    generator_averaging: float = 0.01  # rate of the generator's mean params, which draw, a step; ours
    judged_augmentation: Augmentation = Augmentation()  # of all images judged; few: Zhao et al. 2020, arXiv:2006.10738


PHOTOGRAPHS = Config(  # classifier: Sohn et al. 2020, for CIFAR-10, in fewer steps; GAN: ours
    steps=300_000, labelled_batch=64, unlabelled_batch=448, classifier_network="wide_resnet", threshold=0.95,
    averaging=1e-3, width=64, augmentation=WEAK_PHOTOGRAPHS, strong=STRONG_PHOTOGRAPHS,
)  # fmt: skip


class State(NamedTuple):
    step: Array  # () int32, updates done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    generator: TrainState
    discriminator: TrainState
    classifier: TrainState
    teacher_stats: Tree  # untrained collections of the mean params, which guess as in training; () without guesses


def lengths(config: Config) -> tuple[int, int, int]:
    """Updates of each phase; raises UserError where the shares are none, or the third phase learns nothing."""
    if config.warm_up < 0 or config.generation < 0 or config.warm_up + config.generation > 1:
        raise UserError(
            f"warm_up {config.warm_up} and generation {config.generation} are shares: sum them to 1 or less"
        )
    if not (config.from_labels or config.from_guesses or config.from_samples):
        raise UserError("nothing to learn from: set one of from_labels, from_guesses and from_samples")
    first, end = (round(share * config.steps) for share in (config.warm_up, config.warm_up + config.generation))
    return first, end - first, config.steps - end


def make(config: Config, spec: ImageSpec) -> Method:
    """Generator, pair discriminator and classifier for images of `spec`; samples obey their labels."""
    check_multiples(config, "labelled_batch", "generated_batch", "unlabelled_batch")
    check_multiples(config, "generated_batch", "unlabelled_batch")
    check_multiples(config, "judged_labelled", "judged_unlabelled")
    if config.loss in adversarial_losses.DIFFERENCES:
        raise UserError(f"loss {config.loss} needs a penalty: choose hinge, non_saturating or least_squares")
    generator = conv.Generator(spec.shape, spec.classes, config.width, "conditional_batch_norm")
    shared = {"conditioning": "projection", "normalisation": "spectral"}
    discriminator = conv.Discriminator(1, spec.classes, config.width, **shared)
    hidden, width = config.classifier_hidden, config.classifier_width
    net = classifier(config.classifier_network, spec.classes, hidden, width, config.dropout)
    first, second, third = lengths(config)

    falling = partly_cosine(config.classifier_rate, first + third)
    optimizer = optax.adam(annealed(config.learning_rate, second, config.anneal), config.b1)
    c_optimizer = optax.adamw(falling, weight_decay=config.weight_decay, mask=kernels)

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(jax.random.fold_in(key, BEFORE), 4)
        latents = jax.random.normal(keys[0], (batch.labels.shape[0], config.latent))
        g = generator.init(keys[1], latents, batch.labels, train=True)
        d = discriminator.init(keys[2], batch.labelled, batch.labels, train=True)
        c = net.init(keys[3], batch.unlabelled, train=False)
        return State(
            jnp.int32(0),
            key,
            create(g.pop("params"), g, optimizer, average=True),
            create(d.pop("params"), d, optimizer),
            create(c.pop("params"), c, c_optimizer, average=True),
            c if config.from_guesses else (),
        )

    def classify(state: State, images: Array) -> Array:
        stats = state.teacher_stats if config.from_guesses else state.classifier.stats
        return jax.nn.log_softmax(net.apply({"params": state.classifier.ema, **stats}, images, train=False))

    def predict(params: dict, stats: Tree, images: Array, key: Key) -> tuple[Array, dict]:
        variables = {"params": params, **stats}
        return net.apply(variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"])

    def draw(state: State, key: Key, labels: Array) -> Array:
        latents, player = spread(jax.random.normal(key, (labels.shape[0], config.latent))), state.generator
        return generator.apply({"params": player.ema, **player.stats}, latents, labels, train=False)

    def train_classifier(
        state: State, batch: Batch, key: Key, labelled: bool, generated: tuple[Array, Array] | None
    ) -> tuple[State, Metrics]:
        """One update of the classifier by the sources that are on; generated: images (G, H, W, C), labels (G,)."""
        keys, shown, teacher_stats = jax.random.split(key, 6), {}, state.teacher_stats
        if labelled:
            shown["supervised"] = augment(config.augmentation, keys[0], batch.labelled)
        if generated:
            shown["samples"] = augment(config.augmentation, keys[1], generated[0])
        if config.from_guesses:
            weak = augment(config.augmentation, keys[2], batch.unlabelled)
            guesses, teacher_stats = predict(state.classifier.ema, teacher_stats, weak, keys[5])
            teacher = jax.nn.log_softmax(guesses)
            shown["guesses"] = augment(config.strong, keys[3], batch.unlabelled)

        def loss(params: dict) -> tuple[dict, dict]:
            outputs, stats = predict(params, state.classifier.stats, interleave(*shown.values()), keys[4])
            logits = separate(outputs, tuple(part.shape[0] for part in shown.values()))
            logits, terms = dict(zip(shown, logits, strict=True)), {}
            if labelled:
                terms["supervised"] = losses.cross_entropy(logits["supervised"], batch.labels)
            if generated:
                terms["samples"] = config.samples_weight * losses.cross_entropy(logits["samples"], generated[1])
            if config.from_guesses:
                nats = losses.confident_cross_entropy(logits["guesses"], teacher, config.threshold)
                terms["guesses"] = config.guesses_weight * nats
            return terms, stats

        player, metrics = descend("classifier", state.classifier, c_optimizer, loss)
        if config.from_guesses:
            metrics["classifier/confident"] = losses.confident(teacher, config.threshold).mean()
        player = average(player, config.averaging, state.step)
        return state._replace(step=state.step + 1, classifier=player, teacher_stats=teacher_stats), metrics

    def warm_up(state: State, batch: Batch) -> tuple[State, Metrics]:
        return train_classifier(state, batch, jax.random.fold_in(state.key, state.step), True, None)

    def generation(state: State, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        real = interleave(batch.labelled, batch.unlabelled)
        labels = interleave(batch.labels, classify(state, batch.unlabelled).argmax(-1))
        sizes = labels.shape[0], labels.shape[0]
        latents = spread(jax.random.normal(keys[0], (labels.shape[0], config.latent)))

        def generate(params: dict) -> tuple[Array, dict]:
            variables = {"params": params, **state.generator.stats}
            return generator.apply(variables, latents, labels, train=True, mutable=["batch_stats"])

        def judge(player: TrainState, params: dict, key: Key, images: Array, labels: Array) -> tuple[Array, dict]:
            variables = {"params": params, **player.stats}
            images = augment(config.judged_augmentation, key, images)
            (logits, _), stats = discriminator.apply(variables, images, labels, train=True, mutable=["batch_stats"])
            return logits[:, 0], player.stats | stats

        fake = forward(generate, state.generator.params)

        def discriminator_loss(params: dict) -> tuple[dict, dict]:
            images, pairs = interleave(real, fake.outputs), interleave(labels, labels)
            logits, stats = judge(state.discriminator, params, keys[1], images, pairs)
            return adversarial_losses.discriminator_terms(config.loss, *separate(logits, sizes)), stats

        d, d_metrics = descend("discriminator", state.discriminator, optimizer, discriminator_loss)

        def generator_loss(images: Array) -> tuple[dict, dict]:
            logits, _ = judge(d, d.params, keys[2], images, labels)
            return {"adversarial": adversarial_losses.generator_loss(config.loss, logits)}, fake.stats

        g, g_metrics = descend("generator", state.generator, optimizer, generator_loss, fake)
        g = average(g, config.generator_averaging, state.step - first)
        return state._replace(step=state.step + 1, generator=g, discriminator=d), d_metrics | g_metrics

    def retraining(state: State, batch: Batch) -> tuple[State, Metrics]:
        keys, generated = jax.random.split(jax.random.fold_in(state.key, state.step), 3), None
        if config.from_samples:
            labels = spread(jax.random.randint(keys[0], (config.generated_batch,), 0, spec.classes))
            generated = draw(state, keys[1], labels), labels
        return train_classifier(state, batch, keys[2], config.from_labels, generated)

    unlabelled = config.from_guesses * config.unlabelled_batch
    phases = (
        Phase("warm_up", first, config.labelled_batch, unlabelled, warm_up),
        Phase("generation", second, config.judged_labelled, config.judged_unlabelled, generation),
        Phase("retraining", third, config.from_labels * config.labelled_batch, unlabelled, retraining),
    )
    return Method(init, phases, sample=draw, classify=classify, conditional=True)
