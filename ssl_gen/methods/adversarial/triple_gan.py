"""Triple-GAN: a conditional generator, a classifier, and a discriminator that judges (image, label) pairs of both.

Li et al. 2017, "Triple Generative Adversarial Nets", arXiv:1703.02291, sec. 3; weights from the official MNIST script.

With G(z, y) the generator, p(y | x) the classifier C, yh the class that C guesses, D(x, y) the discriminator:

    L_D = - E log D(x, y) [pairs labelled by hand, and (u, yh)] - 1/2 E log(1 - D(G(z, y), y)) - 1/2 E log(1 - D(u, yh))
    L_G = - 1/2 E log D(G(z, y), y)
    L_C = E_(x,y) CE(p(. | x), y) - a/2 E_u p(yh | u) log D(u, yh)                    supervised, adversarial
          + e E_u H(p(. | u)) + b CE(uniform, E_u p(. | u))                            entropy, balance (MNIST)
          + c E_u |p(. | u') - p(. | u'')|^2 / K                                       consistency (SVHN, CIFAR)
          + g E_(z,y) CE(p(. | G(z, y)), y)                                            generated, in the last steps

and, ours, a pseudo-label term: E_u 1[max q > t] CE(p(. | u'), argmax q), with q the averaged classifier's posterior of
the image as it is (Lee 2013; Sohn et al. 2020, arXiv:2001.07685), aligned on request as in `fixmatch`. yh is its argmax
too; the script's C guesses as it trains. u', u'' are two draws of the augmentation. A first phase trains C alone, as in
the official MNIST script with 100 labels or fewer, with a balance (b) and a rate of its own; the script's Adam begins
anew after it, b1 is 0.9 in it, ours goes on. The rates of G and D count from its end: to warm_up / anneal of the start.

The convolutional generator and discriminator are ours: conditional batch norm and z ~ N(0, I), projection and spectral
norm (Miyato and Koyama 2018, arXiv:1802.05637). With weight norm, or z from the unit cube, they drew one image a class.
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
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import check_multiples, choose
from ssl_gen.core.players import Player
from ssl_gen.core.schedules import annealed, last_kernel, preceded
from ssl_gen.losses.adversarial import judged_fake, judged_guess, judged_real
from ssl_gen.losses.classification import balance, cross_entropy, entropy, softmax_mse
from ssl_gen.losses.thresholds import (
    Marginals,
    confident_cross_entropy,
    distribution_alignment,
    uniform_marginals,
    update_marginals,
)
from ssl_gen.networks import classifiers, conv, mlp
from ssl_gen.types import Array, Batch, ImageSpec, Key, Method, Metrics, NoSettings, Phase, TrainState, Tree

PAPER = "Li et al. 2017, arXiv:1703.02291"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 150_000  # updates in all; 60,000,000 images for C, as official MNIST script, whose 600,000 show it 100
    warm_up: float = 0.03  # share of the steps that train the classifier alone; official MNIST script: 3,600 updates
    warm_up_balance: float | None = 0.3  # b in the warm-up; official MNIST script; None: as afterwards
    warm_up_rate: float | None = 3e-4  # of the classifier in the warm-up; official MNIST script; None: as afterwards
    labelled_batch: int = 100  # images a step; official MNIST script
    unlabelled_batch: int = 400  # images a step, a multiple of labelled_batch; official MNIST script, of D; of C 100
    generated_batch: int = 200  # images a step, a multiple of labelled_batch; official MNIST script
    classifier_generated: int = 200  # generated images that the classifier sees a step; official MNIST script
    real_labelled: float = 1 / 401  # weight of hand-labelled pairs among the real; official MNIST script, 100 labels
    network: Literal["mlp", "conv"] = "mlp"  # generator and discriminator; official: MNIST dense, SVHN and CIFAR conv
    latent: int = 100  # width of z; official MNIST script, there and in our dense form z ~ U(0, 1)
    generator_hidden: tuple[int, ...] = (500, 500)  # units a layer; official MNIST script
    discriminator_hidden: tuple[int, ...] = (1000, 500, 250, 250, 250)  # units a layer; official MNIST script
    input_noise: float = 0.3  # deviation in the discriminator, pixels in [0, 1]; official MNIST script
    noise: float = 0.5  # deviation before a dense discriminator's other layers; official MNIST script
    width: int = 64  # channels of the first layer of a conv generator and discriminator; ours
    classifier_network: classifiers.Network = "conv"  # official: MNIST a small conv, CIFAR-10 conv13
    classifier_hidden: tuple[int, ...] = (500, 500)  # units a layer of an mlp classifier; ours
    classifier_width: int = 32  # channels of the first layer of the others; official MNIST script; CIFAR-10: 128
    dropout: float = 0.5  # of the classifier's hidden units; official MNIST script
    learning_rate: float = 1e-3  # Adam, generator and discriminator; official MNIST script
    classifier_rate: float = 1e-3  # Adam; official MNIST script
    anneal: float = 0.7  # share of the steps, at the end, over which rates fall, C's to 0; official: x 0.995 an epoch
    b1: float = 0.5  # Adam; official MNIST script
    l2: float = 2e-4  # weight decay of the classifier, in the gradient; official MNIST and SVHN: 1e-4 |w|^2
    decayed: Literal["last_layer", "everything"] = "last_layer"  # by l2: the kernel of the last layer, official; or all
    adversarial: float = 1.0  # a; official: MNIST 1, SVHN and CIFAR 0.01
    entropy: float = 0.3  # e; official MNIST script
    balance: float = 1e-3  # b; official MNIST script
    consistency: float = 0.0  # c; official: MNIST 0, SVHN and CIFAR 100
    generated: float = 0.1  # g; official MNIST script
    generated_from: float = 0.3  # share of the steps before the classifier sees generated images; official MNIST script
    pseudo_label: float = 0.0  # weight of the pseudo-label term; ours, not in the paper
    threshold: float = 0.95  # t; Sohn et al. 2020
    alignment: bool = False  # of q, and so of yh, to the classes of the labels; Berthelot et al. 2020; paper: none
    memory: int = 128  # steps that the running means of alignment look back; Berthelot et al. 2020, code
    averaging: float = 0.01  # rate of the classifier's mean params, a step; official MNIST script
    generator_averaging: float = 0.0  # rate of the generator's mean params, which draw samples, a step; 0: none, paper
    augmentation: Augmentation = Augmentation()  # of every image that the classifier trains on; official MNIST: none


PHOTOGRAPHS = Config(  # official CIFAR-10 script (x2y_yz2x_xy2p_ssl_cifar10.py), no ZCA, no ramps of c and C's b1
    steps=500_000, warm_up=0.0, unlabelled_batch=100, real_labelled=0.2, network="conv", input_noise=0.0, noise=0.0,
    classifier_network="conv13", classifier_width=128, learning_rate=3e-4, classifier_rate=3e-3, l2=0.0,
    adversarial=0.01, entropy=0.0, balance=0.0, consistency=100.0, generated_from=0.2,
    augmentation=Augmentation(noise=0.15),
)  # fmt: skip


class State(NamedTuple):
    generator: TrainState
    discriminator: TrainState
    classifier: TrainState
    marginals: Marginals | tuple[()]  # () without alignment


class Drawn(NamedTuple):
    """What the classifier is told by the two others."""

    images: Array  # (G, H, W, C), generated
    labels: Array  # (G,), what they were generated from
    judged: Array  # (U,), D's logits of (u, yh)


def classifier_terms(
    config: Config, logits: dict[str, Array], labels: Array, teacher: Array, drawn: Drawn | None, step: Array
) -> Terms:
    """L_C and the pseudo-label term, of logits (B, K) by what was shown: labelled, unlabelled, again (u''), drawn.

    labels (L,); teacher (U, K), log-probabilities; drawn None in the warm-up. A term that is off needs no logits.
    """
    unlabelled = logits["unlabelled"]
    own = drawn is None and config.warm_up_balance is not None
    weight_of_balance = config.warm_up_balance if own else config.balance
    terms = {"supervised": cross_entropy(logits["labelled"], labels)}
    if config.entropy:
        terms["entropy"] = config.entropy * entropy(unlabelled).mean()
    if weight_of_balance:
        terms["balance"] = weight_of_balance * balance(unlabelled)
    if config.pseudo_label:
        terms["pseudo_label"] = config.pseudo_label * confident_cross_entropy(unlabelled, teacher, config.threshold)
    if config.consistency:
        terms["consistency"] = config.consistency * softmax_mse(unlabelled, logits["again"])
    if drawn and config.generated:
        late = jnp.where(step >= config.generated_from * config.steps, 1.0, 0.0)
        terms["generated"] = config.generated * late * cross_entropy(logits["drawn"], drawn.labels)
    if drawn and config.adversarial:
        terms["adversarial"] = config.adversarial / 2 * judged_guess(unlabelled, teacher.argmax(-1), drawn.judged)
    return terms


def networks(config: Config, spec: ImageSpec) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Generator, discriminator of pairs, classifier."""
    classes, noise = spec.classes, config.input_noise
    if config.network == "mlp":
        generator: nn.Module = mlp.Generator(spec.shape, classes, config.generator_hidden, data_dependent=True)  # ours
        discriminator: nn.Module = mlp.Discriminator(1, classes, config.discriminator_hidden, noise, config.noise)
    else:
        generator = conv.Generator(spec.shape, classes, config.width, "conditional_batch_norm")
        discriminator = conv.Discriminator(1, classes, config.width, "projection", "spectral", input_noise=noise)
    sizes = config.classifier_hidden, config.classifier_width
    return generator, discriminator, classifiers.classifier(config.classifier_network, classes, *sizes, config.dropout)


def classifier_optimizer(config: Config, warm_up: int) -> optax.GradientTransformation:
    """Adam with L2 in its gradient and, in the warm-up of so many updates, a rate of its own; UserError on others."""
    everything = choose("decayed", config.decayed, ("last_layer", "everything")) == "everything"
    rate = annealed(config.classifier_rate, config.steps, config.anneal)
    if config.warm_up_rate is not None:
        rate = preceded(config.warm_up_rate, warm_up, rate)
    decay = optax.add_decayed_weights(config.l2, None if everything else last_kernel)
    return optax.chain(decay, optax.adam(rate, b1=config.b1))


def make(config: Config, spec: ImageSpec) -> Method:
    """Generator, pair discriminator and classifier for images of `spec`; samples obey their labels."""
    check_multiples(config, "labelled_batch", "unlabelled_batch", "generated_batch", "classifier_generated")
    check_multiples(config, "classifier_generated", "generated_batch")

    warm_up = round(config.warm_up * config.steps)
    optimizer = optax.adam(annealed(config.learning_rate, config.steps, config.anneal), b1=config.b1)
    g_network, d_network, c_network = networks(config, spec)
    generator = Player("generator", g_network, optimizer, ema=bool(config.generator_averaging))
    discriminator = Player("discriminator", d_network, optimizer)
    classifier = Player("classifier", c_network, classifier_optimizer(config, warm_up), ema=True)
    draw_latents = jax.random.uniform if config.network == "mlp" else jax.random.normal

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(key, 5)
        latents = draw_latents(keys[0], (batch.labels.shape[0], config.latent))
        return State(
            generator.init(keys[1], latents, batch.labels, train=True),
            discriminator.init({"params": keys[2], "noise": keys[3]}, batch.labelled, batch.labels, train=True),
            classifier.init(keys[4], batch.unlabelled),
            uniform_marginals(spec.classes) if config.alignment else (),
        )

    def judge(player: TrainState, params: Tree, images: Array, labels: Array, key: Key) -> tuple[Array, Tree]:
        (logits, _), stats = discriminator.run(player, params, images, labels, rngs={"noise": key})
        return logits[:, 0], stats

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(classifier.infer(state.classifier, images))

    def guesses(state: State, batch: Batch) -> tuple[Array, Marginals | tuple[()]]:
        """log q of the unlabelled images (U, K), aligned if that is on, and the running means after them."""
        teacher, marginals = classify(state, batch.unlabelled), state.marginals
        if not marginals:
            return teacher, ()
        aligned = distribution_alignment(teacher, marginals)
        return aligned, update_marginals(marginals, batch.labels, teacher, config.memory)

    def train_classifier(
        player: TrainState, key: Key, step: Array, batch: Batch, teacher: Array, drawn: Drawn | None
    ) -> tuple[TrainState, Metrics]:
        augment_key, dropout_key, ema_key = jax.random.split(key, 3)
        images = {"labelled": batch.labelled, "unlabelled": batch.unlabelled}
        images |= {"again": batch.unlabelled} if config.consistency else {}
        images |= {"drawn": drawn.images} if drawn and config.generated else {}
        inputs = augment(config.augmentation, augment_key, interleave(*images.values()))

        def loss(params: Tree) -> tuple[Terms, Tree]:
            outputs, stats = classifier.run(player, params, inputs, rngs={"dropout": dropout_key})
            parts = separate(outputs, tuple(part.shape[0] for part in images.values()))
            logits = dict(zip(images, parts, strict=True))
            return classifier_terms(config, logits, batch.labels, teacher, drawn, step), stats

        c, metrics = classifier.descend(player, loss)
        return classifier.average(c, config.averaging, step, batch.unlabelled, rngs={"dropout": ema_key}), metrics

    def warm_up_step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        teacher, marginals = guesses(state, batch)
        c, metrics = train_classifier(state.classifier, key, step, batch, teacher, None)
        return state._replace(classifier=c, marginals=marginals), metrics

    def step(state: State, key: Key, step: Array, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(key, 5)
        teacher, marginals = guesses(state, batch)
        predicted = teacher.argmax(-1)
        latent_key, label_key = jax.random.split(keys[0])
        latents = shard_batch(draw_latents(latent_key, (config.generated_batch, config.latent)))
        labels = shard_batch(jax.random.randint(label_key, (config.generated_batch,), 0, spec.classes))
        fake = generator.forward(state.generator, latents, labels)
        images = batch.labelled, batch.unlabelled, fake.outputs
        pairs = interleave(*images), interleave(batch.labels, predicted, labels)

        def discriminator_loss(params: Tree) -> tuple[Terms, Tree]:
            judged, stats = judge(state.discriminator, params, *pairs, keys[1])
            labelled, classified, generated = separate(judged, tuple(part.shape[0] for part in images))
            return {
                "labelled": config.real_labelled * judged_real(labelled),
                "pseudo_labelled": (1 - config.real_labelled) * judged_real(classified),
                "generated": judged_fake(generated) / 2,
                "classified": judged_fake(classified) / 2,
            }, stats

        d, d_metrics = discriminator.descend(state.discriminator, discriminator_loss)

        def generator_loss(images: Array) -> Terms:
            return {"adversarial": judged_real(judge(d, d.params, images, labels, keys[2])[0]) / 2}

        g, g_metrics = generator.descend(state.generator, generator_loss, fake)
        reward, _ = judge(d, d.params, batch.unlabelled, predicted, keys[3])
        x, y = (part.reshape(config.classifier_generated, -1, *part.shape[1:])[:, 0] for part in (fake.outputs, labels))
        c, c_metrics = train_classifier(state.classifier, keys[4], step, batch, teacher, Drawn(x, y, reward))
        g = generator.average(g, config.generator_averaging, step - warm_up, latents, labels)
        return State(g, d, c, marginals), d_metrics | g_metrics | c_metrics

    def sample(state: State, key: Key, labels: Array, sampler: NoSettings) -> Array:
        return generator.infer(state.generator, draw_latents(key, (labels.shape[0], config.latent)), labels)

    sizes = config.labelled_batch, config.unlabelled_batch
    phases = (Phase("warm_up", warm_up, *sizes, warm_up_step), Phase("main", config.steps - warm_up, *sizes, step))
    return Method(init, phases, sample=sample, classify=classify, conditional=True)
