"""A file of the FID Inception's weights -> arrays by name -> the variables of `networks.inception.Inception`.

The weights are those of the TensorFlow graph of 2015-12-05, in the form that pytorch-fid and torch-fidelity publish:
one dictionary of named float32 arrays in PyTorch's layouts.
"""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ssl_gen.networks.inception import SIDE, Inception
from ssl_gen.networks.pretrained.weight_files import AXES, counted, read
from ssl_gen.types import Tree, UserError

PUBLISHED = "pt_inception-2015-12-05-6726825d.pth"  # pytorch-fid; torch-fidelity: weights-inception-... , same hash
MARK = "Conv2d_1a_3x3.conv.weight"  # a name that only these files have
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def read_weights(path: str | Path, sha256: str | None = None) -> dict[str, np.ndarray]:
    """A .pth or .safetensors file -> {"Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3) float32, ...}, PyTorch's layouts.

    Hashes and errors as in `weight_files.read`. Raises UserError too where the file holds anything but the parameters
    of `Inception`.
    """
    weights = read(path, PUBLISHED, sha256)
    check_parameters(Path(path), weights)
    return weights


def to_variables(weights: dict[str, np.ndarray]) -> dict[str, Tree]:
    """What `read_weights` returns -> {"params", "batch_stats"} for `Inception().apply`, in JAX's layouts."""
    return unflatten_dict(
        {path: jnp.asarray(weights[name].transpose(AXES[weights[name].ndim])) for name, path in _paths().items()}
    )


@functools.cache
def _variables() -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    images = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return flatten_dict(jax.eval_shape(Inception().init, jax.random.key(0), images))


def variables_like() -> Tree:
    """Shapes and dtypes of `Inception`'s variables."""
    return unflatten_dict(_variables())


def _paths() -> dict[str, tuple[str, ...]]:
    """Name in a file -> path in linen's variables."""
    return {".".join((*path[1:-1], LEAVES[path[-1]])): path for path in _variables()}


def _shapes() -> dict[str, tuple[int, ...]]:
    """Name in a file -> shape there."""
    shapes = {name: _variables()[path].shape for name, path in _paths().items()}
    return {name: tuple(shape[axis] for axis in np.argsort(AXES[len(shape)])) for name, shape in shapes.items()}


def check_parameters(file: Path, weights: dict[str, np.ndarray]) -> None:
    """Raise UserError, naming the first few, unless these are Inception's parameters, all of them, in float32."""
    shapes = _shapes()
    missing = [name for name in shapes if name not in weights]
    extra = [name for name in weights if name not in shapes]
    wrong = [
        f"{name} ({array.dtype} {array.shape}, not float32 {shapes[name]})"
        for name, array in weights.items()
        if name in shapes and (array.shape != shapes[name] or array.dtype != np.float32)
    ]
    faults = [counted(names, what) for names, what in ((missing, "missing"), (extra, "unknown"), (wrong, "wrong"))]
    if any(faults):
        raise UserError(
            f"{file} does not hold the FID Inception: {'; '.join(filter(None, faults))}. "
            f"Give {PUBLISHED} or a .safetensors copy of it."
        )
