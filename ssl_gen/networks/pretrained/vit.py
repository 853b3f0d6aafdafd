"""Vision transformers as they encode: those of ImageNet, DINO, DINOv2 with and without registers, DINOv3, CLIP, SigLIP.

Dosovitskiy et al. 2021, arXiv:2010.11929 (the network); Oquab et al. 2024, arXiv:2304.07193 (DINOv2: scales of what
each layer adds); Darcet et al. 2024, arXiv:2309.16588 (registers); Radford et al. 2021, arXiv:2103.00020 (CLIP: a norm
before the blocks, a projection behind them); Zhai et al. 2023, arXiv:2303.15343 (SigLIP: pooling by attention);
Simeoni et al. 2025, arXiv:2508.10104 (DINOv3: positions turn queries and keys, see `rotary`; keys have no bias);
Shazeer 2020, arXiv:2002.05202 (its large ones, and DINOv2's giant: gates in the MLP).

    z_0 = [class; registers; patches E + positions]
    z <- z + s_1 attention(norm z);  z <- z + s_2 mlp(norm z)

Positions were learnt for a grid of patches; for another one they are interpolated, bicubically with antialiasing, as
timm does. (DINOv2's code, its authors' and Hugging Face's, does so without antialiasing, and the authors' for sides
that are a tenth of a patch longer: at 518 pixels, where it was trained, there is no difference; at the 224 of its
evaluations features are timm's.) Those of DINOv3 are there for any grid.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssl_gen.core.options import choose
from ssl_gen.networks.pretrained import rotary
from ssl_gen.networks.pretrained.outputs import Outputs
from ssl_gen.types import Array, UserError

PRECISION = lax.Precision.HIGHEST  # ours: float32 everywhere, or features would depend on the accelerator
INITIAL = nn.initializers.normal(0.02)  # for shapes alone: weights come from files
ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu", "silu")
POOLINGS = ("class", "attention")


def activate(x: Array, name: str) -> Array:
    """GELU, its form with tanh, CLIP's x sigmoid(1.702 x), or SiLU, x sigmoid(x)."""
    choose("activation", name, ACTIVATIONS)
    if name == "silu":
        return jax.nn.silu(x)
    return x * jax.nn.sigmoid(1.702 * x) if name == "quick_gelu" else jax.nn.gelu(x, approximate=name == "gelu_tanh")


def check_side(side: int, patch: int) -> None:
    """Raise UserError where a side of `side` pixels is no multiple of a patch's."""
    if side % patch:
        raise UserError(f"--encoder-size {side} and patches of {patch} pixels: give a multiple of {patch}")


def resized(positions: Array, sides: tuple[int, int]) -> Array:
    """Positions of a square grid (n n, D) -> of a grid of `sides` (h w, D)."""
    side = round(len(positions) ** 0.5)
    if sides == (side, side):
        return positions
    grid = jax.image.resize(positions.reshape(side, side, -1), (*sides, positions.shape[-1]), "cubic", antialias=True)
    return grid.reshape(sides[0] * sides[1], -1)


class Attention(nn.Module):
    """queries (B, M, D), others (B, N, D) -> (B, M, D): what each query takes from the others.

    angles: of the last tokens of either, by which queries and keys are turned, see `rotary`.
    """

    heads: int
    query_bias: bool = True  # also of the values
    key_bias: bool = True

    @nn.compact
    def __call__(self, queries: Array, others: Array, angles: np.ndarray | None = None) -> Array:
        width = queries.shape[-1]

        def split(x: Array, name: str, bias: bool) -> Array:
            y = nn.Dense(width, bias, precision=PRECISION, name=name)(x)
            return y.reshape(*y.shape[:2], self.heads, width // self.heads)

        q, k = split(queries, "query", self.query_bias), split(others, "key", self.key_bias)
        v = split(others, "value", self.query_bias)
        if angles is not None:
            q, k = rotary.turned(q, angles), rotary.turned(k, angles)
        scores = jnp.einsum("bmhd,bnhd->bhmn", q, k, precision=PRECISION) / (width // self.heads) ** 0.5
        mixed = jnp.einsum("bhmn,bnhd->bmhd", jax.nn.softmax(scores), v, precision=PRECISION)
        return nn.Dense(width, precision=PRECISION, name="out")(mixed.reshape(queries.shape))


class Mlp(nn.Module):
    """x (B, N, D) -> (B, N, D) by way of `hidden` units."""

    hidden: int
    activation: str
    gated: bool = False  # units times activated gates, in place of activated units

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inner = nn.Dense(self.hidden, precision=PRECISION, name="first")(x)
        if self.gated:
            inner = inner * activate(nn.Dense(self.hidden, precision=PRECISION, name="gate")(x), self.activation)
        else:
            inner = activate(inner, self.activation)
        return nn.Dense(x.shape[-1], precision=PRECISION, name="second")(inner)


class Block(nn.Module):
    """x (B, N, D), angles as of `Attention` -> (B, N, D)."""

    heads: int
    hidden: int
    activation: str
    epsilon: float
    scaled: bool  # what each layer adds, by numbers of its own
    gated: bool  # see Mlp
    query_bias: bool
    key_bias: bool

    @nn.compact
    def __call__(self, x: Array, angles: np.ndarray | None) -> Array:
        def scale(y: Array, name: str) -> Array:
            return y * self.param(name, nn.initializers.ones, (x.shape[-1],)) if self.scaled else y

        seen = nn.LayerNorm(self.epsilon, use_fast_variance=False, name="norm_1")(x)
        attention = Attention(self.heads, self.query_bias, self.key_bias, name="attention")
        x = x + scale(attention(seen, seen, angles), "scale_1")
        seen = nn.LayerNorm(self.epsilon, use_fast_variance=False, name="norm_2")(x)
        return x + scale(Mlp(self.hidden, self.activation, self.gated, name="mlp")(seen), "scale_2")


class AttentionPool(nn.Module):
    """x (B, N, D) -> (B, D): one learnt query, then a block's second half (SigLIP)."""

    heads: int
    hidden: int
    activation: str
    epsilon: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        probe = self.param("probe", INITIAL, (x.shape[-1],))[None]
        probes = jnp.broadcast_to(probe, (len(x), *probe.shape))
        pooled = Attention(self.heads, name="attention")(probes, x)
        seen = nn.LayerNorm(self.epsilon, use_fast_variance=False, name="norm")(pooled)
        return (pooled + Mlp(self.hidden, self.activation, name="mlp")(seen))[:, 0]


class VisionTransformer(nn.Module):
    """images (B, H, W, 3), prepared, sides multiples of `patch` -> Outputs: features are (B, width) or (B, projection).

    Raises UserError for other sides, an unknown activation, an unknown pooling and a width that heads cannot share.
    """

    width: int
    depth: int  # blocks
    heads: int
    hidden: int  # units of each block's MLP
    patch: int  # side, pixels
    positions: int  # that the file has, of a square grid and of the class, where it has one; 0: `rotary` ones
    registers: int = 0
    class_token: bool = True
    patch_bias: bool = True
    before: bool = False  # a norm before the blocks
    scaled: bool = False  # see Block
    activation: str = "gelu"
    epsilon: float = 1e-6  # of all norms
    pooling: str = "class"  # features are the class token's or by AttentionPool
    projection: int = 0  # width of a linear layer on the features, 0 for none
    classes: int = 0  # of the logits, 0 for none
    gated: bool = False  # see Mlp
    query_bias: bool = True  # of every block's queries and values
    key_bias: bool = True

    def angles(self, images: Array) -> np.ndarray | None:
        """By which the tokens of patches are turned, where positions are rotary. Raises UserError, see above."""
        height, width = (side // self.patch for side in images.shape[1:3])
        whole = 1 if self.positions else 4  # that a head's numbers are a multiple of
        if self.width % (whole * self.heads):
            raise UserError(f"{self.width} numbers a token and {self.heads} heads: no transformer that is known here")
        return None if self.positions else rotary.angles((height, width), self.width // self.heads)

    def tokens(self, images: Array) -> Array:
        """images -> what the blocks see, (B, N, D)."""
        for side in images.shape[1:3]:
            check_side(side, self.patch)
        patches = nn.Conv(
            self.width,
            (self.patch, self.patch),
            (self.patch, self.patch),
            "VALID",
            use_bias=self.patch_bias,
            precision=PRECISION,
            name="patches",
        )(images)
        height, width = patches.shape[1:3]
        x = patches.reshape(len(images), -1, self.width)
        front, of_class = [], False
        if self.positions:
            learnt = self.param("positions", INITIAL, (self.positions, self.width))
            of_class = self.class_token and round(self.positions**0.5) ** 2 != self.positions
            x = x + resized(learnt[int(of_class) :], (height, width))
        if self.class_token:
            token = self.param("class", INITIAL, (self.width,))[None]
            front.append(token + learnt[:1] if of_class else token)
        if self.registers:
            front.append(self.param("registers", INITIAL, (self.registers, self.width)))
        return jnp.concatenate([*(jnp.broadcast_to(part, (len(x), *part.shape)) for part in front), x], 1)

    @nn.compact
    def __call__(self, images: Array) -> Outputs:
        choose("pooling", self.pooling, POOLINGS)
        angles, x = self.angles(images), self.tokens(images)
        x = nn.LayerNorm(self.epsilon, use_fast_variance=False, name="before")(x) if self.before else x
        sizes = (self.heads, self.hidden, self.activation, self.epsilon, self.scaled)
        for i in range(self.depth):
            x = Block(*sizes, self.gated, self.query_bias, self.key_bias, name=f"block_{i}")(x, angles)
        x = nn.LayerNorm(self.epsilon, use_fast_variance=False, name="norm")(x)
        if self.pooling == "attention":
            pool = AttentionPool(self.heads, self.hidden, self.activation, self.epsilon, name="pool")
            features = pool(x)
        else:
            features = x[:, 0]
        if self.projection:
            features = nn.Dense(self.projection, use_bias=False, precision=PRECISION, name="projection")(features)
        if not self.classes:
            return Outputs(features)
        return Outputs(features, nn.Dense(self.classes, precision=PRECISION, name="classifier")(features))
