"""The bodies of the convolutions against numpy sums over kernel taps, and the layers made of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_gen.networks.convolution import (
    AT_ONCE,
    Convolution,
    TransposedConvolution,
    convolve,
    convolve_transposed,
    max_pool,
)
from ssl_gen.types import UserError

# sides, kernel size, stride, channels, features: odd and even sides, fewer channels than FEW and more
CASES = [
    ((8, 8), 4, 2, 2, 9),
    ((8, 7), 4, 2, 9, 2),
    ((7, 9), 3, 2, 9, 2),
    ((8, 9), 5, 2, 2, 9),
    ((7, 8), 1, 2, 9, 9),
    ((7, 9), 3, 1, 9, 9),
    ((6, 8), 4, 1, 2, 9),
    ((7, 7), 5, 1, 9, 2),
    ((8, 6), 1, 1, 2, 2),
]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def padded_taps(sides, size, stride):
    """'SAME' by its definition: ceil(side / stride) outputs, the padding split evenly, the odd pixel after."""
    outputs = [-(-side // stride) for side in sides]
    totals = [max((output - 1) * stride + size - side, 0) for output, side in zip(outputs, sides, strict=True)]
    pads = [(total // 2, total - total // 2) for total in totals]

    def window(i, j):
        """Where tap (i, j) of every output pixel lies in the padded input."""
        (rows, columns), (height, width) = (i, j), outputs
        return np.s_[:, rows : rows + height * stride : stride, columns : columns + width * stride : stride]

    # the slices above may end up to stride - 1 pixels beyond the padded image
    room = [(low, high + stride) for low, high in pads]
    return outputs, ((0, 0), *room, (0, 0)), window


def convolution(x, kernel, stride):
    """-> y in float64, and y's cotangent -> cotangents of x and kernel."""
    size = kernel.shape[0]
    (height, width), room, window = padded_taps(x.shape[1:3], size, stride)
    padded, taps = np.pad(x, room), [(i, j) for i in range(size) for j in range(size)]

    def cut(array, i, j):
        return array[window(i, j)][:, :height, :width]

    y = sum(cut(padded, i, j) @ kernel[i, j] for i, j in taps)

    def backward(dy):
        dx, dkernel = np.zeros_like(padded), np.zeros_like(kernel)
        for i, j in taps:
            cut(dx, i, j)[...] += dy @ kernel[i, j].T
            dkernel[i, j] = np.einsum("bhwc,bhwf->cf", cut(padded, i, j), dy)
        (top, _), (left, _) = room[1:3]
        return dx[:, top : top + x.shape[1], left : left + x.shape[2]], dkernel

    return y, backward


def transposed(x, kernel, stride):
    """The input gradient of the convolution with the flipped kernel from (B, stride H, stride W, F); likewise."""
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    large = np.zeros((x.shape[0], x.shape[1] * stride, x.shape[2] * stride, kernel.shape[3]))
    y, _ = convolution(large, flipped, stride)[1](x)

    def backward(dy):
        dx, onto = convolution(dy, flipped, stride)
        return dx, onto(x)[1].swapaxes(2, 3)[::-1, ::-1]

    return y, backward


def close(got, expected, terms):
    """Within the rounding of a float32 sum of `terms` products of standard normal numbers."""
    np.testing.assert_allclose(got, expected, atol=float(np.finfo(np.float32).eps) * max(terms, 16), rtol=1e-5)


@pytest.mark.parametrize(("operation", "expected"), [(convolve, convolution), (convolve_transposed, transposed)])
@pytest.mark.parametrize(
    ("case", "body"),
    [*((case, body) for body in ("cpu", "products") for case in CASES), *((case, "native") for case in CASES[:2])],
    ids=str,
)
def test_outputs_and_gradients_are_the_sums_over_taps(case, operation, expected, body):
    sides, size, stride, channels, features = case
    x, kernel = draw(2, *sides, channels), draw(size, size, channels, features, seed=1)
    y, backward = expected(x, kernel, stride)
    dy = draw(*y.shape, seed=2)

    @jax.jit
    def both(x, kernel, dy):
        y, backward = jax.vjp(lambda x, kernel: operation(x, kernel, stride, body=body), x, kernel)
        return y, *backward(dy)

    got = both(*(jnp.asarray(a, jnp.float32) for a in (x, kernel, dy)))
    for ours, theirs in zip(got, (y, *backward(dy)), strict=True):
        assert ours.shape == theirs.shape
        close(ours, theirs, y.size)


@pytest.mark.parametrize("body", ["cpu", "products"])
def test_padding_in_pixels_and_valid_agree_with_the_native_operation(body):
    x, kernel = jnp.asarray(draw(2, 8, 7, 3), jnp.float32), jnp.asarray(draw(3, 3, 3, 9), jnp.float32)
    for padding in ("VALID", ((0, 2), (1, 0)), ((-1, 2), (0, -2))):
        close(convolve(x, kernel, 2, padding, body), convolve(x, kernel, 2, padding, "native"), 27)
    close(convolve_transposed(x, kernel, 2, "VALID", body), convolve_transposed(x, kernel, 2, "VALID", "native"), 27)


@pytest.mark.parametrize("images", [AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE + 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_gradient_of_weights_sums_over_all_parts_of_a_batch(stride, images):
    x, kernel = draw(images, 6, 5, 4), draw(3, 3, 4, 9, seed=1)
    y, backward = convolution(x, kernel, stride)
    dy = draw(*y.shape, seed=2)

    def gradient(dtype):
        given = [jnp.asarray(each, dtype) for each in (x, kernel, dy)]
        return jax.vjp(lambda kernel: convolve(given[0], kernel, stride, body="cpu"), given[1])[1](given[2])[0]

    (_, expected), got = backward(dy), gradient(jnp.float32)
    close(got, expected, y.size)
    half = gradient(jnp.bfloat16)  # each part is rounded, not what they add up to
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), expected, atol=0.02 * np.abs(expected).max())


def penalty(operation, body):
    """A gradient penalty, whose own gradient passes through the backward pass of the layer."""

    def score(x, kernel):
        return jnp.tanh(operation(x, kernel, 2, body=body)).sum()

    def steepness(x, kernel):
        return sum((gradient**2).sum() for gradient in jax.grad(score, (0, 1))(x, kernel))

    return jax.jit(jax.grad(steepness, (0, 1)))


@pytest.mark.parametrize("operation", [convolve, convolve_transposed])
def test_second_derivatives_agree_with_the_native_operation(operation):
    x, kernel = jnp.asarray(draw(2, 6, 7, 9), jnp.float32), jnp.asarray(0.1 * draw(4, 4, 9, 8), jnp.float32)
    for ours, native in zip(penalty(operation, "cpu")(x, kernel), penalty(operation, "native")(x, kernel), strict=True):
        assert np.abs(native).max() > 0.01
        np.testing.assert_allclose(ours, native, atol=1e-4 * float(np.abs(native).max()))


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)], ids=["both", "inputs", "kernels"])
@pytest.mark.parametrize("operation", [convolve, convolve_transposed])
@pytest.mark.parametrize("body", ["cpu", "products"])
def test_replicas_under_vmap_are_what_each_one_is_alone(operation, axes, body):
    x, kernel = draw(3, 2, 4, 5, 9), draw(3, 3, 3, 9, 8)
    x, kernel = (jnp.asarray(a if axis == 0 else a[0], jnp.float32) for a, axis in zip((x, kernel), axes, strict=True))

    def both(x, kernel):
        return jax.value_and_grad(lambda *a: (operation(*a, 2, body=body) ** 2).sum(), (0, 1))(x, kernel)

    together = jax.jit(jax.vmap(both, axes))(x, kernel)
    alone = jax.jit(both)
    for replica in range(3):
        expected = alone(*(a if axis is None else a[replica] for a, axis in zip((x, kernel), axes, strict=True)))
        for got, one in zip(jax.tree.leaves(together), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(got[replica], one, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("operation", [convolve, convolve_transposed])
def test_replicas_of_products_have_no_grouped_convolution(operation):
    def program(body):
        return jax.make_jaxpr(jax.vmap(lambda x, kernel: operation(x, kernel, 2, body=body)))(x, kernel)

    x, kernel = jnp.zeros((3, 2, 4, 5, 9)), jnp.zeros((3, 3, 3, 9, 8))
    assert "conv_general_dilated" not in str(program("products"))
    assert "feature_group_count=3" in str(program("native")) or "batch_group_count=3" in str(program("native"))


def test_a_step_inside_scan_is_the_step_outside():
    x, kernel = jnp.asarray(draw(2, 6, 6, 3), jnp.float32), jnp.asarray(draw(4, 4, 3, 9), jnp.float32)
    step = jax.grad(lambda kernel: (convolve(x, kernel, 2, body="cpu") ** 2).mean())
    folded = jax.jit(lambda kernel: jax.lax.scan(lambda w, _: (w - 0.01 * step(w), None), kernel, length=2)[0])
    once = jax.jit(lambda w: w - 0.01 * step(w))
    np.testing.assert_allclose(folded(kernel), once(once(kernel)), atol=1e-5)


def test_an_unknown_body_is_named():
    with pytest.raises(UserError, match="body is 'quick'"):
        convolve(jnp.zeros((1, 4, 4, 1)), jnp.zeros((3, 3, 1, 1)), 1, body="quick")


def test_max_pool_takes_the_largest_of_two_by_two_pixels_and_of_what_remains_at_odd_sides():
    x = draw(2, 5, 4, 3)
    rows, columns = [[0, 1], [2, 3], [4]], [[0, 1], [2, 3]]
    expected = [[x[:, r][:, :, c].max((1, 2)) for c in columns] for r in rows]
    np.testing.assert_allclose(max_pool(x), np.moveaxis(np.array(expected), 2, 0), rtol=1e-6)


@pytest.mark.parametrize(
    "layer", [Convolution(5, 3, 2, normalisation="weight"), TransposedConvolution(5, normalisation="weight")]
)
def test_weight_norm_starts_with_mean_0_and_deviation_1_on_the_first_batch(layer):
    x = jnp.asarray(3 + 2 * draw(4, 6, 6, 2), jnp.float32)
    y, _ = jax.jit(lambda x: layer.init_with_output(jax.random.key(0), x, True))(x)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-4)


def test_weight_norm_kernels_have_norm_scale():
    layer, x = Convolution(5, normalisation="weight"), jnp.asarray(draw(2, 6, 6, 2), jnp.float32)
    variables = layer.init(jax.random.key(0), x, True)
    params = variables["params"] | {"scale": jnp.arange(1.0, 6.0)}
    unit = params["direction"] / np.sqrt((params["direction"] ** 2).sum((0, 1, 2)))
    expected, _ = convolution(np.float64(x), np.float64(unit * params["scale"]), 1)
    np.testing.assert_allclose(layer.apply({"params": params}, x, True), expected + params["bias"], atol=1e-4)
