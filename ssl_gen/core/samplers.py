"""Settings of how samples are drawn, which change without training again."""

from __future__ import annotations

import dataclasses
import math

import jax

from ssl_gen.types import Array, Key, UserError


@dataclasses.dataclass(frozen=True)
class NormalLatents:
    """Latents z ~ N(0, temperature^2 I): samples nearer to the prior's middle are likelier images, and more alike.

    Source: the trade of variety for quality of Brock et al. 2019, arXiv:1809.11096, sec. 3.1, by a smaller deviation.
    Raises UserError where the temperature is no number above 0.
    """

    temperature: float = 1.0  # deviation of the latents; the prior's is 1, below it samples are more alike

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise UserError(f"temperature is {self.temperature}: choose a number above 0; the prior's is 1")

    def draw(self, key: Key, count: int, latent: int) -> Array:
        """-> (count, latent)."""
        return self.temperature * jax.random.normal(key, (count, latent))
