"""What discriminators and generators lose, by the name of the loss, and penalties on a discriminator's slope.

With s a discriminator's logit, x a real image and g a generated one:

                      discriminator                                  generator
    non_saturating    E log(1 + e^-s(x)) + E log(1 + e^s(g))         E log(1 + e^-s(g))
    least_squares     1/2 E (s(x) - 1)^2 + 1/2 E s(g)^2              1/2 E (s(g) - 1)^2
    hinge             E max(0, 1 - s(x)) + E max(0, 1 + s(g))        - E s(g)
    wasserstein       - E s(x) + E s(g)                              - E s(g)
    relativistic      E log(1 + e^-(s(x) - s(g)))                    E log(1 + e^-(s(g) - s(x)))

Sources, in this order: Goodfellow et al. 2014, arXiv:1406.2661, sec. 3; Mao et al. 2017, arXiv:1611.04076, eq. 9; Lim
and Ye 2017, arXiv:1705.02894; Arjovsky et al. 2017, arXiv:1701.07875; Jolicoeur-Martineau 2019, arXiv:1807.00734. Two
of them need a penalty to train at all, and `Game` adds it: Wasserstein that of Gulrajani et al. 2017, arXiv:1704.00028,
eq. 3, the relativistic R1 and R2 (Huang et al. 2024, "R3GAN", arXiv:2501.05441, sec. 3).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from ssl_gen.augmentation import Augmentation, augment
from ssl_gen.core.batching import interleave, separate, shard_batch
from ssl_gen.core.gradient import Terms
from ssl_gen.core.options import choose
from ssl_gen.types import Array, Key, Tree

Loss = Literal["non_saturating", "least_squares", "hinge", "wasserstein", "relativistic"]
DIFFERENCES = ("wasserstein", "relativistic")  # where one number added to all logits changes nothing
Judge = Callable[[Array], Array]  # images (B, H, W, C) -> logits (B,), each image on its own: no batch norm


def judged_real(logits: Array) -> Array:
    """- E log D with D = sigmoid(logits): logits (B,) -> () nats."""
    return jax.nn.softplus(-logits).mean()


def judged_fake(logits: Array) -> Array:
    """- E log(1 - D) with D = sigmoid(logits): logits (B,) -> () nats."""
    return jax.nn.softplus(logits).mean()


def unsupervised(real: Array, fake: Array) -> tuple[Array, Array]:
    """What a K-class discriminator loses by images without a label: logits real (U, K), fake (U, K) -> () and () nats.

    With the logit of "fake" fixed at 0 and Z = sum_k exp l_k, D = Z / (Z + 1): - 1/2 E log D(u), - 1/2 E log(1 - D(g)),
    the losses of the score log Z. Source: Salimans et al. 2016, arXiv:1606.03498, sec. 5, and code, for the halves.
    """
    return (
        judged_real(jax.nn.logsumexp(real, -1)) / 2,
        judged_fake(jax.nn.logsumexp(fake, -1)) / 2,
    )


def matching(real: Array, fake: Array, distance: str) -> Array:
    """How far mean features are apart, `squared` or `absolute`, a mean over F: real (U, F), fake (V, F) -> ().

    Source: Salimans et al. 2016, arXiv:1606.03498, sec. 3.1, and code, for the mean over features.
    """
    difference = real.mean(0) - fake.mean(0)
    return jnp.square(difference).mean() if distance == "squared" else jnp.abs(difference).mean()


def discriminator_terms(loss: Loss, real: Array, fake: Array) -> Terms:
    """What the discriminator loses by its logits of real (B,) and generated (B,) images: name -> () nats.

    Raises UserError on an unknown loss.
    """
    choose("loss", loss, get_args(Loss))
    if loss == "non_saturating":
        return {"real": judged_real(real), "fake": judged_fake(fake)}
    if loss == "least_squares":
        return {"real": jnp.square(real - 1).mean() / 2, "fake": jnp.square(fake).mean() / 2}
    if loss == "hinge":
        return {"real": jax.nn.relu(1 - real).mean(), "fake": jax.nn.relu(1 + fake).mean()}
    if loss == "wasserstein":
        return {"real": -real.mean(), "fake": fake.mean()}
    return {"relativistic": judged_real(real - fake)}


def generator_loss(loss: Loss, fake: Array, real: Array | None = None) -> Array:
    """What the generator loses by the discriminator's logits of generated (B,) and real (B,) images: () nats.

    Only the relativistic loss looks at the real ones. Raises UserError on an unknown loss.
    """
    choose("loss", loss, get_args(Loss))
    if loss == "non_saturating":
        return judged_real(fake)
    if loss == "least_squares":
        return jnp.square(fake - 1).mean() / 2
    if loss in ("hinge", "wasserstein"):
        return -fake.mean()
    assert real is not None, "the relativistic loss looks at real images too"
    return judged_real(fake - real)


def squared_slopes(judge: Judge, images: Array) -> Array:
    """|d s(x) / d x|^2 of each image: images (B, H, W, C) in [-1, 1] -> (B,)."""
    gradient = jax.grad(lambda images: judge(images).sum())(images)
    return jnp.square(gradient).sum((1, 2, 3))


def gradient_penalty(judge: Judge, real: Array, fake: Array, shares: Array) -> Array:
    """E (|d s(m) / d m| - 1)^2 at m = share x + (1 - share) g: images (B, H, W, C) twice, shares (B,) -> ()."""
    shares = shares[:, None, None, None]
    slopes = jnp.sqrt(squared_slopes(judge, shares * real + (1 - shares) * fake) + 1e-12)  # the root of 0 has no slope
    return jnp.square(slopes - 1).mean()


NoisyJudge = Callable[[Array, Key], tuple[Array, Tree]]  # images (B, H, W, C), key of its noise -> outputs (B, O) whose
# first is the logit s, and the untrained collections after them


def judged_with_slopes(judge: NoisyJudge, images: Array, key: Key) -> tuple[Array, Array, Tree]:
    """Outputs (B, O), |d s / d x|^2 (B,) and the collections after them: one pass over images (B, H, W, C) for all."""
    outputs, pull, stats = jax.vjp(lambda images: judge(images, key), images, has_aux=True)
    (gradient,) = pull(jnp.zeros_like(outputs).at[:, 0].set(1))
    return outputs, jnp.square(gradient).sum((1, 2, 3)), stats


@dataclasses.dataclass(frozen=True)
class Game:
    """A loss as it is played: what both players are shown in an update, and what they lose by it.

    Every judged image, real or generated, is augmented in both players' updates; Zhao et al. 2020, arXiv:2006.10738.
    Penalties are on the slopes in the augmented images, as in their code (ns_r1_DiffAugment, its run_cifar.py); those
    of Karras et al. 2020, arXiv:2006.06676, and Huang et al. 2024 take the slopes in the images before augmentation,
    through it. Real and generated images that stand beside each other are neighbours in what the discriminator judges.
    """

    loss: Loss
    augmentation: Augmentation
    lipschitz: float  # weight of the wasserstein loss's penalty, `gradient_penalty`
    gamma: float | Array  # weight of R1 and R2, E |d s / d x|^2 of real and of generated images, halved: relativistic

    def discriminator_terms(
        self, judge: NoisyJudge, real: Array, fake: Array, key: Key
    ) -> tuple[Terms, tuple[Array, ...], Tree]:
        """Images (B, H, W, C) twice -> the loss with its penalty, outputs (B, O) of real and of generated, stats."""
        augment_key, judge_key, slope_key, share_key = jax.random.split(key, 4)
        sizes = real.shape[0], fake.shape[0]
        images = augment(self.augmentation, augment_key, interleave(real, fake))
        if self.loss == "relativistic":
            outputs, slopes, stats = judged_with_slopes(judge, images, judge_key)
            r1, r2 = (self.gamma / 2 * part.mean() for part in separate(slopes, sizes))
            penalties = {"r1": r1, "r2": r2}
        else:
            outputs, stats = judge(images, judge_key)
            penalties = {}
        terms = discriminator_terms(self.loss, *separate(outputs[:, 0], sizes)) | penalties
        if self.loss == "wasserstein":
            shares = shard_batch(jax.random.uniform(share_key, (real.shape[0],)))
            real, fake = separate(images, sizes)
            penalty = gradient_penalty(lambda images: judge(images, slope_key)[0][:, 0], real, fake, shares)
            terms["gradient_penalty"] = self.lipschitz * penalty
        return terms, separate(outputs, sizes), stats

    def generator_terms(self, judge: NoisyJudge, fake: Array, real: Array, keys: Key) -> tuple[Terms, Array]:
        """Images (B, H, W, C) twice, two keys -> the loss, and outputs (B, O) of the generated images.

        The discriminator sees the generated images alone, but for the loss that compares them with the real ones.
        """
        augment_key, judge_key = keys
        shown = (fake, real) if self.loss == "relativistic" else (fake,)
        sizes = tuple(part.shape[0] for part in shown)
        outputs, _ = judge(augment(self.augmentation, augment_key, interleave(*shown)), judge_key)
        loss = generator_loss(self.loss, *separate(outputs[:, 0], sizes))
        return {"adversarial": loss}, separate(outputs, sizes)[0]


def judged_guess(logits: Array, predicted: Array, judged: Array) -> Array:
    """E p(yh | u) * -log D(u, yh): logits (U, K), predicted (U,), D's logits judged (U,) -> () nats.

    D is a reward here: its logit carries no gradient, the probability does (Li et al. 2017, sec. 3.2).
    """
    confidence = jnp.take_along_axis(jax.nn.softmax(logits), predicted[:, None], -1)[:, 0]
    return (confidence * jax.lax.stop_gradient(jax.nn.softplus(-judged))).mean()
