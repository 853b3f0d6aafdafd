"""The parts of a transformer, written a second time: in numpy and, where it is installed, PyTorch; both float64."""

import jax
import numpy as np
import pytest
import scipy.special

from ssl_gen.networks.pretrained import encoders

ACTIVATIONS = {
    "gelu": lambda x: x * scipy.special.ndtr(x),
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "tanh": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


class Numpy:
    """x (..., N, D); q, k, v (B, heads, N, d)."""

    def affine(self, x, part):
        return x @ part["weight"].T + part.get("bias", 0)

    def norm(self, x, part, epsilon):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return x * part["weight"] + part["bias"]

    def mixed(self, q, k, v):
        return scipy.special.softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), -1) @ v

    def activated(self, x, name):
        return ACTIVATIONS[name](x)


class Torch:
    """The same by PyTorch's own layers."""

    def __init__(self):
        self.torch = pytest.importorskip("torch", reason="PyTorch is not installed")
        self.layers = self.torch.nn.functional

    def tensor(self, array):
        return None if array is None else self.torch.from_numpy(np.array(array, np.float64))

    def affine(self, x, part):
        return self.layers.linear(*map(self.tensor, (x, part["weight"], part.get("bias")))).numpy()

    def norm(self, x, part, epsilon):
        weight, bias = self.tensor(part["weight"]), self.tensor(part["bias"])
        return self.layers.layer_norm(self.tensor(x), weight.shape, weight, bias, epsilon).numpy()

    def mixed(self, q, k, v):
        return self.layers.scaled_dot_product_attention(*map(self.tensor, (q, k, v))).numpy()

    def activated(self, x, name):
        x = self.tensor(x)
        if name == "quick_gelu":
            return (x * self.torch.sigmoid(1.702 * x)).numpy()
        if name == "silu":
            return self.layers.silu(x).numpy()
        return self.layers.gelu(x, approximate="tanh" if name == "tanh" else "none").numpy()


LIBRARIES = [Numpy, Torch]


def attention(part, queries, others, heads, library, turned=lambda x: x):
    """queries (B, M, D), others (B, N, D) -> (B, M, D); `turned` is what becomes of queries and keys."""
    shapes = {"query": queries, "key": others, "value": others}
    q, k, v = (
        library.affine(x, part[third]).reshape(*x.shape[:2], heads, -1).swapaxes(1, 2) for third, x in shapes.items()
    )
    mixed = library.mixed(turned(q), turned(k), v).swapaxes(1, 2)
    return library.affine(mixed.reshape(queries.shape), part["out"])


def feed(x, part, activation, library):
    """x (B, N, D) -> (B, N, D): an MLP, whose units are times their activated gates where it has some."""
    inner = library.affine(x, part["first"])
    if "gate" in part:
        inner = inner * library.activated(library.affine(x, part["gate"]), activation)
    else:
        inner = library.activated(inner, activation)
    return library.affine(inner, part["second"])


def blocks(net, x, heads, activation, epsilon, library, turned=lambda x: x):
    """x (B, N, D) -> what comes out of each block, and of the last norm."""
    seen = []
    for part in net["blocks"]:
        scales, normed = part.get("scales", (1, 1)), library.norm(x, part["norm1"], epsilon)
        x = x + scales[0] * attention(part, normed, normed, heads, library, turned)
        x = x + scales[1] * feed(library.norm(x, part["norm2"], epsilon), part, activation, library)
        seen.append(x)
    return [*seen, library.norm(x, net["norm"], epsilon)]


def run(encoder, images):
    """What an encoder makes of images: its outputs, and what comes out of each block and of the last norm."""

    @jax.jit
    def apply(variables, images):
        def asked(module, _):
            return type(module).__name__ == "Block" or module.path == ("norm",)

        net = encoders.network(encoder.settings)
        return net.apply(variables, images, capture_intermediates=asked, mutable=["intermediates"])

    outputs, captured = apply(encoder.variables, images)
    names = [*(f"block_{i}" for i in range(encoder.settings.network["depth"])), "norm"]
    return outputs, [captured["intermediates"][name]["__call__"][0] for name in names]


def agree(found, expected):
    """Layer by layer, to 1e-4."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
