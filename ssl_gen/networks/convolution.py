"""Convolution and transposed convolution: one interface, three bodies, of which the platform chooses one.

The `native` body is lax's own operation, for GPU and TPU. The `products` body is matrix products of patches, which stay
products, one for each replica, under `vmap` over weights, where a native convolution becomes a grouped one; it is used
where it is named, as by `benchmarks/accelerator.py`.

XLA on CPU has a fast library for plain forward convolutions, and rewrites the *gradients* into that form only at times:
not that of a transposed convolution's weights (a layer 9 to 20 times slower), none inside `scan` or `while` (16 to 28
times), while `vmap` over weights makes a grouped convolution (2 to 16 times). The `cpu` body writes all of them as
plain convolutions itself, that of a weight's gradient a few images at a time. With x the input, w the kernel and y the
output of a convolution there are three bilinear maps, and each one's gradients are the other two, at every order:

    correlate(x, w) -> y      the convolution
    spread(y, w)    -> x      its input gradient, which is the transposed convolution
    weigh(x, y)     -> w      its weight gradient
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ssl_gen.core.batching import devices_of_a_batch
from ssl_gen.core.options import choose
from ssl_gen.core.precision import product
from ssl_gen.networks.normalisation import HE_NORMAL, linear
from ssl_gen.types import Array

Pads = tuple[tuple[int, int], tuple[int, int]]  # pixels before and after, height and width; negative crops
Sides = tuple[int, ...]  # height and width, pixels
LAYOUT = ("NHWC", "HWIO", "NHWC")  # 1.4 to 3.6 times faster than NCHW on CPU
BODIES = ("native", "products", "cpu")
AT_ONCE = 8  # images that `weigh` sums over; ours, measured: 2 to 8 times faster than a whole batch
FEW = 8  # channels; ours, measured: with 1, spread is 7 times faster as one matrix product, with 11 a third slower


def _pads(pairs: Iterable[tuple[int, int]]) -> Pads:
    rows, columns = pairs
    return rows, columns


def convolve(x: Array, kernel: Array, stride: int, padding: str | Pads = "SAME", body: str | None = None) -> Array:
    """Convolution: x (B, H, W, C), kernel (k, k, C, F) -> (B, H', W', F), where 'SAME' gives H' = ceil(H / stride).

    padding: 'SAME', 'VALID' or pixels ((top, bottom), (left, right)); body: 'native', 'products', 'cpu' or None, the
    platform's. Raises UserError on an unknown body. The cpu body has reverse-mode derivatives of every order, and no
    forward mode.
    """
    sides = x.shape[1:3]
    given = (
        lax.padtype_to_pads(sides, kernel.shape[:2], (stride, stride), padding) if isinstance(padding, str) else padding
    )
    pads = _pads((int(low), int(high)) for low, high in given)
    chosen = _chosen(body)

    def run(x: Array, kernel: Array) -> Array:
        if chosen == "native":
            return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=LAYOUT)
        return (_of_patches if chosen == "products" else _correlate)(stride, pads, x, kernel)

    return product(run, x, kernel)


def convolve_transposed(
    x: Array, kernel: Array, stride: int = 2, padding: str = "SAME", body: str | None = None
) -> Array:
    """Transposed convolution: x (B, H, W, C), kernel (k, k, C, F) -> (B, stride H, stride W, F) for 'SAME'.

    Equal to `jax.lax.conv_transpose`; padding 'SAME' or 'VALID'; body and errors as in `convolve`.
    """
    chosen = _chosen(body)
    if chosen == "native":
        native = functools.partial(
            lax.conv_transpose, strides=(stride, stride), padding=padding, dimension_numbers=LAYOUT
        )
        return product(native, x, kernel)
    growth = [max(k - stride, 0) if padding == "VALID" else 0 for k in kernel.shape[:2]]
    sides = tuple(side * stride + more for side, more in zip(x.shape[1:3], growth, strict=True))
    pads = _pads(lax.padtype_to_pads(sides, kernel.shape[:2], (stride, stride), padding))
    spread = _as_product if chosen == "products" else _spread
    return product(functools.partial(spread, stride, pads, sides), x, kernel[::-1, ::-1].swapaxes(2, 3))


def depthwise(
    x: Array,
    kernel: Array,
    stride: int,
    padding: str | Pads = "SAME",
    body: str | None = None,
    precision: lax.Precision | None = None,
) -> Array:
    """A convolution of each channel alone: x (B, H, W, C), kernel (k, k, 1, C) -> (B, H', W', C).

    padding, body and errors as in `convolve`. The cpu body is a sum of k^2 shifted products: XLA's grouped convolution
    takes one channel after the other there.
    """
    sides = x.shape[1:3]
    given = (
        lax.padtype_to_pads(sides, kernel.shape[:2], (stride, stride), padding) if isinstance(padding, str) else padding
    )
    pads = _pads((int(low), int(high)) for low, high in given)
    if _chosen(body) != "cpu":
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            pads,
            dimension_numbers=LAYOUT,
            feature_group_count=x.shape[-1],
            precision=precision,
        )
    numbers = itertools.product(*map(range, kernel.shape[:2]))
    parts = [part * kernel[i, j] for part, (i, j) in zip(_shifted(x, kernel, stride, pads), numbers, strict=True)]
    return sum(parts[1:], parts[0])


class Convolution(nn.Module):
    """x (B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), features) for padding 'SAME'.

    Weights are normalised (none, spectral, weight) as in `normalisation.linear`; the rest as in `convolve`.
    """

    features: int
    size: int = 3  # k, pixels
    stride: int = 1
    padding: str | Pads = "SAME"
    normalisation: str = "none"
    use_bias: bool = True  # False before a batch norm
    train_scale: bool = True
    kernel_init: Callable = HE_NORMAL  # without weight norm
    body: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        def run(x: Array, kernel: Array) -> Array:
            return convolve(x, kernel, self.stride, self.padding, self.body)

        return linear(self, run, (self.size, self.size, x.shape[-1], self.features), x, train)


class TransposedConvolution(nn.Module):
    """x (B, H, W, C) -> (B, stride H, stride W, features) for padding 'SAME'; the rest as in `Convolution`."""

    features: int
    size: int = 4  # k, pixels
    stride: int = 2
    padding: str = "SAME"
    normalisation: str = "none"
    use_bias: bool = True  # False before a batch norm
    train_scale: bool = True
    kernel_init: Callable = HE_NORMAL  # without weight norm
    body: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        def run(x: Array, kernel: Array) -> Array:
            return convolve_transposed(x, kernel, self.stride, self.padding, self.body)

        return linear(self, run, (self.size, self.size, x.shape[-1], self.features), x, train)


def max_pool(x: Array) -> Array:
    """x (B, H, W, C) -> (B, ceil(H/2), ceil(W/2), C): the largest of every 2 x 2 pixels.

    As a reshape: the gradient of linen's `max_pool` is a select-and-scatter, 10 times slower on CPU.
    """
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), constant_values=-jnp.inf)
    return x.reshape(batch, -(-height // 2), 2, -(-width // 2), 2, channels).max((2, 4))


_TRACED: contextvars.ContextVar[str | None] = contextvars.ContextVar("body", default=None)


@contextlib.contextmanager
def with_body(name: str) -> Iterator[None]:
    """Within, what is traced has this body where none is named: for a program that another machine is to run."""
    token = _TRACED.set(choose("body", name, BODIES))
    try:
        yield
    finally:
        _TRACED.reset(token)


def _chosen(body: str | None) -> str:
    """By the default backend, as `lax.platform_dependent` would trace and lower both bodies of every layer."""
    body = body or _TRACED.get()
    if body is None:
        return "cpu" if jax.default_backend() == "cpu" else "native"
    return choose("body", body, BODIES)


def _plain(x: Array, kernel: Array, pads: Pads, stride: int = 1, dilation: int = 1) -> Array:
    """A forward convolution of materialised arrays: the one form that XLA's CPU library takes as it is, everywhere.

    Under `vmap` over kernels the replicas run one after the other: 2 to 16 times faster than a grouped convolution.
    """
    # The barrier keeps XLA from folding transpositions and flips back into a form its library refuses.
    x, kernel = lax.optimization_barrier((_cropped(x, pads), kernel))
    pads = _pads((max(low, 0), max(high, 0)) for low, high in pads)

    @jax.custom_batching.custom_vmap
    def run(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, rhs_dilation=(dilation, dilation), dimension_numbers=LAYOUT
        )

    @run.def_vmap
    def replicas(size: int, batched: list[bool], x: Array, kernel: Array) -> tuple[Array, bool]:
        if not batched[1]:
            y = run(x.reshape(-1, *x.shape[2:]), kernel)
            return y.reshape(size, -1, *y.shape[1:]), True
        if batched[0]:
            return lax.map(lambda pair: run(*pair), (x, kernel)), True
        return lax.map(lambda kernel: run(x, kernel), kernel), True

    return run(x, kernel)


def _shifted(x: Array, kernel: Array, stride: int, pads: Pads) -> list[Array]:
    """Of every row and column of the kernel the pixels of x (B, H, W, C) that it is laid on: each (B, H', W', C)."""
    x = jnp.pad(_cropped(x, pads), ((0, 0), *((max(low, 0), max(high, 0)) for low, high in pads), (0, 0)))
    high, wide = ((side - k) // stride + 1 for side, k in zip(x.shape[1:3], kernel.shape[:2], strict=True))
    return [
        x[:, i : i + (high - 1) * stride + 1 : stride, j : j + (wide - 1) * stride + 1 : stride]
        for i, j in itertools.product(*map(range, kernel.shape[:2]))
    ]


def _of_patches(stride: int, pads: Pads, x: Array, kernel: Array) -> Array:
    """`correlate` as one product of patches (B, H', W', k k C) and weights (k k C, F)."""
    patches = jnp.concatenate(_shifted(x, kernel, stride, pads), -1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def _cropped(x: Array, pads: Pads) -> Array:
    """x without the pixels that negative padding removes."""
    (top, bottom), (left, right) = pads
    return x[:, max(-top, 0) : x.shape[1] - max(-bottom, 0), max(-left, 0) : x.shape[2] - max(-right, 0)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _correlate(stride: int, pads: Pads, x: Array, kernel: Array) -> Array:
    return _plain(x, kernel, pads, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _spread(stride: int, pads: Pads, sides: tuple[int, int], y: Array, kernel: Array) -> Array:
    """y (B, h, w, F), kernel (k, k, C, F) -> x (B, *sides, C).

    Cut x and the kernel into blocks of stride x stride pixels: each block of x is a sum over blocks of the kernel, so
    all of x is a stride-1 convolution with stride^2 C channels, laid out in space afterwards. (Dilating y instead, as
    lax does, multiplies mostly zeros.)
    """
    if kernel.shape[2] < FEW:
        return _as_product(stride, pads, sides, y, kernel)
    blocks = _blocks(kernel, stride)
    reaches = (_reach(*side) for side in zip(pads, sides, y.shape[1:3], (stride,) * 2, strict=True))
    ends = _pads((n - 1 - first, last) for n, (first, last) in zip(blocks.shape[:2], reaches, strict=True))
    return _laid_out(stride, pads, sides, _plain(y, blocks[::-1, ::-1].swapaxes(2, 3), ends))


def _as_product(stride: int, pads: Pads, sides: Sides, y: Array, kernel: Array) -> Array:
    """`spread` with the stride-1 convolution as one matrix product, whose parts are shifted and summed."""
    reaches = (_reach(*side) for side in zip(pads, sides, y.shape[1:3], (stride,) * 2, strict=True))
    return _laid_out(stride, pads, sides, _summed(y, _blocks(kernel, stride), *reaches))


def _laid_out(stride: int, pads: Pads, sides: Sides, x: Array) -> Array:
    """Blocks of stride x stride pixels (B, h, w, stride^2 C) in their places -> (B, *sides, C)."""
    batch, rows, columns, _ = x.shape
    x = x.reshape(batch, rows, columns, stride, stride, -1).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(batch, rows * stride, columns * stride, -1)
    top, left = (low % stride for low, _ in pads)
    return x[:, top : top + sides[0], left : left + sides[1]]


def _blocks(kernel: Array, stride: int) -> Array:
    """kernel (k, k, C, F) -> (n, n, stride^2 C, F) with n = ceil(k / stride)."""
    high, wide = (-(-k // stride) for k in kernel.shape[:2])
    missing = [(0, n * stride - k) for n, k in zip((high, wide), kernel.shape[:2], strict=True)]
    kernel = jnp.pad(kernel, (*missing, (0, 0), (0, 0))).reshape(high, stride, wide, stride, *kernel.shape[2:])
    return kernel.transpose(0, 2, 1, 3, 4, 5).reshape(high, wide, -1, kernel.shape[-1])


def _reach(pad: tuple[int, int], side: int, given: int, stride: int) -> tuple[int, int]:
    """Along one side, the first block of padded x that is needed, and how many more than `given` up to the last."""
    return pad[0] // stride, -(-(pad[0] + side) // stride) - given


def _summed(y: Array, blocks: Array, above: tuple[int, int], beside: tuple[int, int]) -> Array:
    """The stride-1 convolution of `spread` as one matrix product, its parts shifted and summed."""
    high, wide, channels, features = blocks.shape
    parts = (y.reshape(-1, features) @ blocks.reshape(-1, features).T).reshape(*y.shape[:3], high, wide, channels)
    zero = jnp.zeros((), y.dtype)
    shifted = [
        lax.pad(parts[:, :, :, i, j], zero, ((0, 0, 0), _shift(i, above), _shift(j, beside), (0, 0, 0)))
        for i in range(high)
        for j in range(wide)
    ]
    return sum(shifted[1:], shifted[0])


def _shift(block: int, reach: tuple[int, int]) -> tuple[int, int, int]:
    return block - reach[0], reach[1] - block, 0


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _weigh(stride: int, pads: Pads, sides: tuple[int, int], x: Array, y: Array) -> Array:
    """x (B, H, W, C), y (B, h, w, F) -> kernel (*sides, C, F): the sum over parts of the batch that a cache holds.

    A data-parallel run, whose devices would speak to each other once a part, takes the batch whole.
    """
    if len(y) <= AT_ONCE or (devices_of_a_batch() or 1) > 1:
        return _weigh_part(stride, pads, sides, x, y)
    whole = len(y) - len(y) % AT_ONCE

    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        return total + _weigh_part(stride, pads, sides, *part), None

    def cut(each: Array) -> Array:
        return each[:whole].reshape(-1, AT_ONCE, *each.shape[1:])

    exact = jnp.promote_types(y.dtype, jnp.float32)  # of a sum of many parts
    total, _ = lax.scan(add, jnp.zeros((*sides, x.shape[-1], y.shape[-1]), exact), (cut(x), cut(y)))
    if whole < len(y):
        total, _ = add(total, (x[whole:], y[whole:]))
    return total.astype(y.dtype)


def _weigh_part(stride: int, pads: Pads, sides: Sides, x: Array, y: Array) -> Array:
    """`weigh` as one convolution, in which channels are the batch, the batch is the channels and y is the kernel."""
    ends = _pads(
        (low, k + (given - 1) * stride - side - low)
        for k, (low, _), side, given in zip(sides, pads, x.shape[1:3], y.shape[1:3], strict=True)
    )
    kernel = _plain(x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3), ends, dilation=stride)
    return lax.optimization_barrier(kernel).transpose(1, 2, 0, 3)


def _correlate_backward(stride: int, pads: Pads, saved: tuple[Array, Array], y: Array) -> tuple[Array, Array]:
    x, kernel = saved
    return _spread(stride, pads, x.shape[1:3], y, kernel), _weigh(stride, pads, kernel.shape[:2], x, y)


def _spread_backward(
    stride: int, pads: Pads, sides: Sides, saved: tuple[Array, Array], x: Array
) -> tuple[Array, Array]:
    y, kernel = saved
    return _correlate(stride, pads, x, kernel), _weigh(stride, pads, kernel.shape[:2], x, y)


def _weigh_backward(
    stride: int, pads: Pads, sides: Sides, saved: tuple[Array, Array], kernel: Array
) -> tuple[Array, Array]:
    x, y = saved
    return _spread(stride, pads, x.shape[1:3], y, kernel), _correlate(stride, pads, x, kernel)


_correlate.defvjp(
    lambda stride, pads, x, kernel: (_correlate(stride, pads, x, kernel), (x, kernel)), _correlate_backward
)
_spread.defvjp(
    lambda stride, pads, sides, y, kernel: (_spread(stride, pads, sides, y, kernel), (y, kernel)), _spread_backward
)
_weigh.defvjp(lambda stride, pads, sides, x, y: (_weigh(stride, pads, sides, x, y), (x, y)), _weigh_backward)
