"""Triple-GAN: a conditional generator, a classifier, and a discriminator that judges (image, label) pairs of both.

Li et al. 2017, "Triple Generative Adversarial Nets", arXiv:1703.02291, sec. 3; weights from the official MNIST script.

With G(z, y) the generator, p(y | x) the classifier C, yh = argmax_y p(y | x), D(x, y) the discriminator:

    L_D = - E log D(x, y) [pairs labelled by hand, and (u, yh)] - 1/2 E log(1 - D(G(z, y), y)) - 1/2 E log(1 - D(u, yh))
    L_G = - 1/2 E log D(G(z, y), y)
    L_C = E_(x,y) CE(p(. | x), y) - a/2 E_u p(yh | u) log D(u, yh)                    supervised, adversarial
          + e E_u H(p(. | u)) + b CE(uniform, E_u p(. | u))                            entropy, balance (MNIST)
          + c E_u |p(. | u') - p(. | u'')|^2 / K                                       consistency (SVHN, CIFAR)
          + g E_(z,y) CE(p(. | G(z, y)), y)                                            generated, in the last steps

and, ours, a pseudo-label term: E_u 1[max q > t] CE(p(. | u'), argmax q), with q the averaged classifier's posterior of
the image as it is (Lee 2013; Sohn et al. 2020, arXiv:2001.07685). u', u'' are two draws of the augmentation. A first
phase trains the classifier alone, as the paper does with few labels.

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

from ssl_gen import losses
from ssl_gen.augmentation import WEAK_PHOTOGRAPHS, Augmentation, augment
from ssl_gen.networks import conv, mlp
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState
from ssl_gen.update import annealed, average, check_multiples, create, descend, forward, interleave, separate, spread

PAPER = "Li et al. 2017, arXiv:1703.02291"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 150_000  # updates in all; 1000 epochs of 60,000 images, official MNIST script
    warm_up: float = 0.03  # share of the steps that train the classifier alone; official MNIST script
    labelled_batch: int = 100  # images a step; official MNIST script
    unlabelled_batch: int = 400  # images a step, a multiple of labelled_batch; official MNIST script
    generated_batch: int = 200  # images a step, a multiple of labelled_batch; official MNIST script
    classifier_generated: int = 200  # generated images that the classifier sees a step; official MNIST script
    real_labelled: float = 1 / 401  # weight of hand-labelled pairs among the real; official MNIST script, 100 labels
    network: Literal["mlp", "conv"] = "mlp"  # generator and discriminator; official: MNIST dense, SVHN and CIFAR conv
    latent: int = 100  # width of z; official MNIST script, there and in our dense form z ~ U(0, 1)
    generator_hidden: tuple[int, ...] = (500, 500)  # units a layer; official MNIST script
    discriminator_hidden: tuple[int, ...] = (1000, 500, 250, 250, 250)  # units a layer; official MNIST script
    input_noise: float = 0.3  # deviation in the discriminator, pixels in [0, 1]; official MNIST script
    noise: float = 0.5  # deviation before the discriminator's other layers; official MNIST script
    width: int = 64  # channels of the first layer of a conv generator and discriminator; ours
    classifier_network: Literal["mlp", "conv"] = "conv"  # official MNIST script: conv
    classifier_hidden: tuple[int, ...] = (500, 500)  # units a layer of an mlp classifier; ours
    classifier_width: int = 32  # channels of the first layer of a conv classifier; official MNIST script
    dropout: float = 0.5  # of the classifier's hidden units; official MNIST script
    learning_rate: float = 1e-3  # Adam, generator and discriminator; official MNIST script
    classifier_rate: float = 1e-3  # Adam; official MNIST script
    anneal: float = 0.7  # share of the steps, at the end, over which the rates fall to 0; official: x 0.995 an epoch
    b1: float = 0.5  # Adam; official MNIST script
    l2: float = 1e-4  # weight decay of the classifier, in the gradient; official MNIST script
    adversarial: float = 1.0  # a; official: MNIST 1, SVHN and CIFAR 0.01
    entropy: float = 0.3  # e; official MNIST script
    balance: float = 1e-3  # b; official MNIST script
    consistency: float = 0.0  # c; official: MNIST 0, SVHN and CIFAR 100
    generated: float = 0.1  # g; official MNIST script
    generated_from: float = 0.3  # share of the steps before the classifier sees generated images; official MNIST script
    pseudo_label: float = 0.0  # weight of the pseudo-label term; ours, not in the paper
    threshold: float = 0.95  # t; Sohn et al. 2020
    averaging: float = 0.01  # rate of the classifier's mean params, a step; official MNIST script
    generator_averaging: float = 0.0  # rate of the generator's mean params, which draw samples, a step; 0: none, paper
    augmentation: Augmentation = Augmentation()  # of every image that the classifier trains on; official MNIST: none


PHOTOGRAPHS = Config(  # official CIFAR-10 script, without its mean-only batch norm, ZCA and ramp of consistency
    network="conv", input_noise=0.0, noise=0.0, classifier_width=64, learning_rate=3e-4, classifier_rate=3e-4,
    adversarial=0.01, entropy=0.0, balance=0.0, consistency=100.0, augmentation=WEAK_PHOTOGRAPHS,
)  # fmt: skip


class State(NamedTuple):
    step: Array  # () int32, updates done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    generator: TrainState
    discriminator: TrainState
    classifier: TrainState


def balance(logits: Array) -> Array:
    """CE(uniform, mean posterior): logits (U, K) -> () nats; least, log K, where every class is predicted as often."""
    return -jnp.log(jax.nn.softmax(logits).mean(0) + 1e-8).mean()


def adversarial(logits: Array, predicted: Array, judged: Array) -> Array:
    """E p(yh | u) * -log D(u, yh): logits (U, K), predicted (U,), D's logits judged (U,) -> () nats.

    D is a reward here: its logit carries no gradient, the probability does (Li et al. 2017, sec. 3.2).
    """
    confidence = jnp.take_along_axis(jax.nn.softmax(logits), predicted[:, None], -1)[:, 0]
    return (confidence * jax.lax.stop_gradient(jax.nn.softplus(-judged))).mean()


def networks(config: Config, spec: ImageSpec) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Generator, discriminator of pairs, classifier."""
    classes, noise = spec.classes, config.input_noise
    if config.network == "mlp":
        generator = mlp.Generator(spec.shape, classes, config.generator_hidden, data_dependent=True)  # ours
        discriminator = mlp.Discriminator(1, classes, config.discriminator_hidden, noise, config.noise)
    else:
        generator = conv.Generator(spec.shape, classes, config.width, "conditional_batch_norm")
        discriminator = conv.Discriminator(1, classes, config.width, "projection", "spectral", input_noise=noise)
    if config.classifier_network == "mlp":
        return generator, discriminator, mlp.Classifier(classes, config.classifier_hidden, config.dropout)
    return generator, discriminator, conv.Classifier(classes, config.classifier_width, dropout=config.dropout)


def make(config: Config, spec: ImageSpec) -> Method:
    """Generator, pair discriminator and classifier for images of `spec`; samples obey their labels."""
    check_multiples(config, "labelled_batch", "unlabelled_batch", "generated_batch", "classifier_generated")
    check_multiples(config, "classifier_generated", "generated_batch")
    generator, discriminator, classifier = networks(config, spec)

    def adam(rate: float) -> optax.GradientTransformation:
        return optax.adam(annealed(rate, config.steps, config.anneal), b1=config.b1)

    optimizer = adam(config.learning_rate)
    classifier_optimizer = optax.chain(optax.add_decayed_weights(config.l2), adam(config.classifier_rate))
    warm_up = round(config.warm_up * config.steps)
    latents_of = jax.random.uniform if config.network == "mlp" else jax.random.normal

    def init(key: Key, batch: Batch) -> State:
        keys = jax.random.split(jax.random.fold_in(key, BEFORE), 5)
        latents = latents_of(keys[0], (batch.labels.shape[0], config.latent))
        g = generator.init(keys[1], latents, batch.labels, train=True)
        streams = {"params": keys[2], "noise": keys[3]}
        d = discriminator.init(streams, batch.labelled, batch.labels, train=True)
        c = classifier.init(keys[4], batch.unlabelled, train=False)
        return State(
            jnp.int32(0),
            key,
            create(g.pop("params"), g, optimizer, average=bool(config.generator_averaging)),
            create(d.pop("params"), d, optimizer),
            create(c.pop("params"), c, classifier_optimizer, average=True),
        )

    def draw(key: Key) -> tuple[Array, Array]:
        latent_key, label_key = jax.random.split(key)
        latents = latents_of(latent_key, (config.generated_batch, config.latent))
        return spread(latents), spread(jax.random.randint(label_key, (config.generated_batch,), 0, spec.classes))

    def judge(player: TrainState, params: dict, images: Array, labels: Array, key: Key) -> tuple[Array, dict]:
        variables, options = {"params": params, **player.stats}, {"train": True, "mutable": ["batch_stats"]}
        (logits, _), stats = discriminator.apply(variables, images, labels, rngs={"noise": key}, **options)
        return logits[:, 0], player.stats | stats

    def classify(state: State, images: Array) -> Array:
        variables = {"params": state.classifier.ema, **state.classifier.stats}
        return jax.nn.log_softmax(classifier.apply(variables, images, train=False))

    def train_classifier(
        state: State, batch: Batch, teacher: Array, key: Key, generated: tuple[Array, Array, Array] | None
    ) -> tuple[TrainState, Metrics]:
        """One update of the classifier; generated: (images, labels, D's logits of (u, yh)), None in the warm-up."""
        keys = jax.random.split(key, 3)
        images = [batch.labelled, batch.unlabelled]
        images += [batch.unlabelled] if config.consistency else []
        images += [generated[0]] if generated and config.generated else []
        sizes = tuple(part.shape[0] for part in images)
        inputs = augment(config.augmentation, keys[0], interleave(*images))
        ramp = jnp.where(state.step >= config.generated_from * config.steps, 1.0, 0.0)

        def loss(params: dict) -> tuple[dict, dict]:
            variables, streams = {"params": params, **state.classifier.stats}, {"dropout": keys[1]}
            outputs, stats = classifier.apply(variables, inputs, train=True, rngs=streams, mutable=["batch_stats"])
            labelled, unlabelled, *others = separate(outputs, sizes)
            terms = {"supervised": losses.cross_entropy(labelled, batch.labels)}
            if config.entropy:
                terms["entropy"] = config.entropy * losses.entropy(unlabelled).mean()
            if config.balance:
                terms["balance"] = config.balance * balance(unlabelled)
            if config.pseudo_label:
                confident = losses.confident_cross_entropy(unlabelled, teacher, config.threshold)
                terms["pseudo_label"] = config.pseudo_label * confident
            if config.consistency:
                terms["consistency"] = config.consistency * losses.inconsistency(unlabelled, others[0])
            if generated and config.generated:
                terms["generated"] = config.generated * ramp * losses.cross_entropy(others[-1], generated[1])
            if generated and config.adversarial:
                doubted = adversarial(unlabelled, teacher.argmax(-1), generated[2])
                terms["adversarial"] = config.adversarial / 2 * doubted
            return terms, stats

        player, metrics = descend("classifier", state.classifier, classifier_optimizer, loss)
        return average(player, config.averaging, state.step), metrics

    def warm_up_step(state: State, batch: Batch) -> tuple[State, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        teacher = classify(state, batch.unlabelled)
        classifier, metrics = train_classifier(state, batch, teacher, key, None)
        return state._replace(step=state.step + 1, classifier=classifier), metrics

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 5)
        teacher = classify(state, batch.unlabelled)
        predicted = teacher.argmax(-1)
        latents, labels = draw(keys[0])

        def generate(params: dict) -> tuple[Array, dict]:
            variables = {"params": params, **state.generator.stats}
            return generator.apply(variables, latents, labels, train=True, mutable=["batch_stats"])

        fake = forward(generate, state.generator.params)
        images = (batch.labelled, batch.unlabelled, fake.outputs)
        sizes = tuple(part.shape[0] for part in images)
        pairs = interleave(*images), interleave(batch.labels, predicted, labels)

        def discriminator_loss(params: dict) -> tuple[dict, dict]:
            judged, stats = judge(state.discriminator, params, *pairs, keys[1])
            labelled, classified, generated = separate(judged, sizes)
            return {
                "labelled": config.real_labelled * losses.judged_real(labelled),
                "pseudo_labelled": (1 - config.real_labelled) * losses.judged_real(classified),
                "generated": losses.judged_fake(generated) / 2,
                "classified": losses.judged_fake(classified) / 2,
            }, stats

        d, d_metrics = descend("discriminator", state.discriminator, optimizer, discriminator_loss)

        def generator_loss(images: Array) -> tuple[dict, dict]:
            return {"adversarial": losses.judged_real(judge(d, d.params, images, labels, keys[2])[0]) / 2}, fake.stats

        g, g_metrics = descend("generator", state.generator, optimizer, generator_loss, fake)
        g = average(g, config.generator_averaging, state.step - warm_up) if config.generator_averaging else g
        reward, _ = judge(d, d.params, batch.unlabelled, predicted, keys[3])
        seen = [part.reshape(config.classifier_generated, -1, *part.shape[1:])[:, 0] for part in (fake.outputs, labels)]
        c, c_metrics = train_classifier(state, batch, teacher, keys[4], (*seen, reward))
        return State(state.step + 1, state.key, g, d, c), d_metrics | g_metrics | c_metrics

    def sample(state: State, key: Key, labels: Array) -> Array:
        latents, player = latents_of(key, (labels.shape[0], config.latent)), state.generator
        params = player.ema if config.generator_averaging else player.params
        return generator.apply({"params": params, **player.stats}, latents, labels, train=False)

    sizes = config.labelled_batch, config.unlabelled_batch
    phases = (Phase("warm_up", warm_up, *sizes, warm_up_step), Phase("main", config.steps - warm_up, *sizes, step))
    return Method(init, phases, sample=sample, classify=classify, conditional=True)
