"""Settings of how samples are drawn, which change without training again."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from ssl_gen.core.options import choose
from ssl_gen.types import Array, Key, UserError

MOST_STEPS = 10_000


@dataclasses.dataclass(frozen=True)
class NormalLatents:
    """Latents z ~ N(0, temperature^2 I): samples nearer to the prior's middle are likelier images, and more alike.

    Source: the trade of variety for quality of Brock et al. 2019, arXiv:1809.11096, sec. 3.1, by a smaller deviation.
    Raises UserError where the temperature is no number above 0.
    """

    temperature: float = 1.0  # times the deviation of the latents; below 1 samples are more alike

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise UserError(f"temperature is {self.temperature}: choose a number above 0; 1 changes nothing")

    def draw(self, key: Key, count: int, latent: int) -> Array:
        """-> (count, latent)."""
        return self.temperature * jax.random.normal(key, (count, latent))


class LatentDensity(NamedTuple):
    """A Gaussian of latents for each class, or, where samples obey none, K Gaussians of a mixture.

    It is fitted to the latents of training images after training, `evaluation.densities`, and is () in a state that
    still learns.
    """

    shares: Array  # (K,) of the images, sum 1
    means: Array  # (K, Z)
    factors: Array  # (K, Z, Z), factor @ factor.T is the covariance


@dataclasses.dataclass(frozen=True)
class FittedLatents(NormalLatents):
    """Latents of Gaussians fitted to those that the encoder gives training images.

    The decoder knows the latents that the encoder gave it. Where nothing held these to a prior there is no other way to
    draw. Source: Ghosh et al. 2020, arXiv:1903.12436, sec. 4; a Gaussian a class: ours.
    """

    @property
    def of_density(self) -> bool:
        """Are latents drawn from a density that is fitted after training?"""
        return True

    def draw_by_class(self, key: Key, labels: Array, density: LatentDensity | tuple[()], latent: int) -> Array:
        """labels (B,), whose Gaussians the latents are drawn from -> (B, latent)."""
        if not self.of_density:
            return self.draw(key, labels.shape[0], latent)
        means, factors = fitted(density).means[labels], fitted(density).factors[labels]
        return means + jnp.einsum("bij,bj->bi", factors, self.draw(key, labels.shape[0], latent))

    def draw_mixed(self, key: Key, count: int, density: LatentDensity | tuple[()], latent: int) -> Array:
        """-> (count, latent), of the mixture of all Gaussians."""
        if not self.of_density:
            return self.draw(key, count, latent)
        part_key, key = jax.random.split(key)
        parts = jax.random.categorical(part_key, jnp.log(fitted(density).shares), shape=(count,))
        return self.draw_by_class(key, parts, density, latent)


@dataclasses.dataclass(frozen=True)
class DensityLatents(FittedLatents):
    """Latents of the prior N(0, I), or of Gaussians fitted to those that the encoder gives training images.

    Those of one class are, all together, seldom N(0, I), and a sample from where the class has none shows another
    class. Raises UserError for settings that make no sense.
    """

    latents: Literal["prior", "class_density"] = "prior"  # class_density: fitted to each class that was guessed

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("latents", self.latents, ("prior", "class_density"))

    @property
    def of_density(self) -> bool:
        return self.latents == "class_density"


def fitted(density: LatentDensity | tuple[()]) -> LatentDensity:
    """The density of a state that has one."""
    assert isinstance(density, LatentDensity), "no density of latents was fitted: see `evaluation.densities`"
    return density


def check_steps(steps: int) -> None:
    """Raise UserError for a number of steps that nobody means."""
    if not 1 <= steps <= MOST_STEPS:
        raise UserError(f"steps is {steps}: choose a number of 1 to {MOST_STEPS:,}")


def check_guidance(guidance: float, low: float, high: float, highest: float) -> None:
    """Raise UserError for a guidance that is none, or an interval of noise levels that is none from 0 to `highest`."""
    if not (guidance >= 0 and math.isfinite(guidance)):
        raise UserError(f"guidance is {guidance}: choose a number of at least 0; 1 is none")
    if not 0 <= low <= high <= highest:
        raise UserError(
            f"guided_from {low} to guided_to {high} is no part of the way: choose two numbers of 0 to {highest:,g}, "
            "the smaller first"
        )


@dataclasses.dataclass(frozen=True)
class FlowSampler:
    """How the way from noise to an image is gone along a flow. Raises UserError for settings that make no sense."""

    steps: int = 20  # equal steps of t from 1 to 0; heun looks at the field twice in each
    solver: Literal["euler", "heun"] = "heun"  # error of order 1, or 2, in the length of a step
    guidance: float = 1.0  # w; 1: none, above 1 samples obey more and vary less, 0: the class is not told
    guided_from: float = 0.0  # guidance is 1 for t below; Kynkaanniemi et al. 2024
    guided_to: float = 1.0  # guidance is 1 for t above; Kynkaanniemi et al. 2024

    def __post_init__(self) -> None:
        check_steps(self.steps)
        choose("solver", self.solver, ("euler", "heun"))
        check_guidance(self.guidance, self.guided_from, self.guided_to, 1)
