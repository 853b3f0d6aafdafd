"""The precision of convolutions and matrix products, the only place that casts: bfloat16 in them, float32 all around.

bfloat16 keeps 7 bits of mantissa and the range of float32, so that no loss has to be scaled; sums inside a product are
float32. Params, optimiser states, averages, statistics, norms, softmaxes and losses stay float32. So params are kept as
Micikevicius et al. 2018, arXiv:1710.03740, sec. 3.1, keep them; bfloat16: Kalamkar et al. 2019, arXiv:1905.12322.

    with products_in("bfloat16"):
        method = METHODS["fixmatch"].make(config, spec)     its players' products are narrow wherever it is called
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from ssl_gen.types import Array, Precision

Asked = Literal["auto", "float32", "bfloat16"]
HAS_BFLOAT16 = 8.0  # compute capability of NVIDIA's chips from which their tensor cores have it; CUDA guide, table 21

_current: ContextVar[Precision] = ContextVar("precision", default="float32")


def chosen(asked: Asked) -> Precision:
    """For `auto` bfloat16 on an accelerator that has it, float32 on a processor and elsewhere."""
    if asked != "auto":
        return asked
    first = jax.local_devices()[0]
    capability = str(getattr(first, "compute_capability", ""))
    number = float(capability) if capability.replace(".", "", 1).isdigit() else 0.0  # other makers' have names
    has = first.platform == "tpu" or (first.platform == "gpu" and number >= HAS_BFLOAT16)
    return "bfloat16" if has else "float32"


def of_float32() -> str:
    """How this process multiplies float32 matrices: jax's setting, and what its default means here, in words.

    TF32 has 10 bits of mantissa, bfloat16 7, float32 23; sums are float32. Source: jax's documentation, "Matmul
    precision".
    """
    asked, first = jax.config.values["jax_default_matmul_precision"], jax.local_devices()[0]
    if asked not in (None, "default"):
        return str(asked)
    capability = str(getattr(first, "compute_capability", ""))
    if first.platform == "tpu":
        return "default (bfloat16)"
    if first.platform == "gpu" and re.fullmatch(r"\d+\.\d+", capability):  # NVIDIA's; others have names
        tf32 = float(capability) >= 8 and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"
        return "default (TF32)" if tf32 else "default (float32)"
    return "default (float32)" if first.platform == "cpu" else "default"


def arithmetic() -> str:
    """What features depend on besides weights and images, in words that are one kind of processor's."""
    words = of_float32()
    backend = jax.default_backend()
    return backend if (backend, words) == ("cpu", "default (float32)") else f"{backend} {words}"


def current() -> Precision:
    """That of products here; of players that are made here."""
    return _current.get()


@contextlib.contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Within, products are traced, and players made, in this precision."""
    token = _current.set(precision)
    try:
        yield
    finally:
        _current.reset(token)


def product(function: Callable[..., Array], *factors: Array) -> Array:
    """function(*factors), a convolution or product of float32 arrays, in the current precision; float32 comes out."""
    if current() == "float32":
        return function(*factors)
    return function(*(factor.astype(jnp.bfloat16) for factor in factors)).astype(jnp.float32)


def matmul(x: Array, y: Array) -> Array:
    """x @ y in the current precision."""
    return product(jnp.matmul, x, y)


def dot_general(x: Array, y: Array, dimensions: Any, **settings: Any) -> Array:
    """`lax.dot_general` in the current precision, for linen's layers."""
    return product(lambda x, y: lax.dot_general(x, y, dimensions, **settings), x, y)
