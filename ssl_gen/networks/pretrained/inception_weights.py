"""A file of the FID Inception's weights -> arrays by name -> the variables of `networks.inception.Inception`.

The weights are those of the TensorFlow graph of 2015-12-05, in the form that pytorch-fid and torch-fidelity publish:
one dictionary of named float32 arrays in PyTorch's layouts. Nothing is ever unpickled but plain tensors.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from ssl_gen.networks.inception import SIDE, Inception
from ssl_gen.types import Tree, UserError

PUBLISHED = "pt_inception-2015-12-05-6726825d.pth"  # pytorch-fid; torch-fidelity: weights-inception-... , same hash
COUNTER = ".num_batches_tracked"  # PyTorch's batch norms save it in training; it changes no output
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
AXES = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}  # ndim -> what to transpose: (O, I) to (I, O), OIHW to HWIO
SHOWN = 3  # names in a message


def read_weights(path: str | Path, sha256: str | None = None) -> dict[str, np.ndarray]:
    """A .pth or .safetensors file -> {"Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3) float32, ...}, PyTorch's layouts.

    Hex digits that end the file's name, as in `...-6726825d.pth`, are the start of its SHA-256 (torch.hub's rule) and
    are checked; so is `sha256`, 8 digits of it or more, where given. A .pth file needs PyTorch. Raises UserError where
    the file is missing, damaged, another than its hash says, or holds anything but the parameters of `Inception`.
    """
    file = Path(path).expanduser()
    readers = {".pth": _read_torch, ".safetensors": _read_safetensors}
    if not file.is_file():
        raise UserError(f"There is no file {str(path)!r}: give the path of {PUBLISHED} or of a .safetensors copy.")
    if file.suffix not in readers:
        raise UserError(f"{file} ends in {file.suffix!r}: Inception's weights come as {' or '.join(readers)}.")
    _check_hash(file, sha256)
    weights = {name: array for name, array in readers[file.suffix](file).items() if not name.endswith(COUNTER)}
    _check_parameters(file, weights)
    return weights


def to_variables(weights: dict[str, np.ndarray]) -> dict[str, Tree]:
    """What `read_weights` returns -> {"params", "batch_stats"} for `Inception().apply`, in JAX's layouts."""
    return unflatten_dict(
        {path: jnp.asarray(weights[name].transpose(AXES[weights[name].ndim])) for name, path in _paths().items()}
    )


def identity(weights: dict[str, np.ndarray]) -> str:
    """8 hex digits of a SHA-256 over names, shapes and values, for records: the same for either file format."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name}{weights[name].shape}<f4".encode())  # the same bytes on every machine
        digest.update(np.ascontiguousarray(weights[name], "<f4").data)
    return digest.hexdigest()[:8]


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


def _check_hash(file: Path, sha256: str | None) -> None:
    """Raise UserError unless the file's SHA-256 begins as its name and `sha256` say."""
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{8,64}", sha256):
        raise UserError(f"sha256 {sha256!r} cannot be checked: give 8 to 64 hex digits.")
    named = re.search(r"-([0-9a-f]{8,64})$", file.stem)
    promises = {"its name": named and named[1], "sha256": sha256 and sha256.lower()}
    if not any(promises.values()):
        return
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    for source, promised in promises.items():
        if promised and not digest.startswith(promised):
            raise UserError(
                f"{file} has a SHA-256 that begins {digest[: len(promised)]}, where {source} says {promised}: "
                "fetch the file again, or mend the hash if you made the file."
            )


def _read_torch(file: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{file} needs PyTorch to be read: pip install torch, or convert it once where PyTorch is, with "
            "safetensors.torch.save_file(torch.load(PATH, weights_only=True), 'inception.safetensors')."
        ) from error
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
        return {str(name): tensor.detach().numpy() for name, tensor in tensors.items()}
    except Exception as error:  # a damaged pickle raises anything: IndexError, struct.error, AssertionError, ...
        raise UserError(
            f"{file} cannot be read as a dictionary of plain tensors, and nothing else is ever unpickled: "
            f"give {PUBLISHED} unchanged."
        ) from error


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(file)
    except (OSError, safetensors.SafetensorError, TypeError, AttributeError) as error:  # the last two: bfloat16, float8
        raise UserError(f"{file} cannot be read as float32 .safetensors: copy or convert {PUBLISHED} again.") from error


def _check_parameters(file: Path, weights: dict[str, np.ndarray]) -> None:
    """Raise UserError, naming the first few, unless these are Inception's parameters, all of them, in float32."""
    shapes = _shapes()
    missing = [name for name in shapes if name not in weights]
    extra = [name for name in weights if name not in shapes]
    wrong = [
        f"{name} ({array.dtype} {array.shape}, not float32 {shapes[name]})"
        for name, array in weights.items()
        if name in shapes and (array.shape != shapes[name] or array.dtype != np.float32)
    ]
    faults = [_listed(names, what) for names, what in ((missing, "missing"), (extra, "unknown"), (wrong, "wrong"))]
    if any(faults):
        raise UserError(
            f"{file} does not hold the FID Inception: {'; '.join(filter(None, faults))}. "
            f"Give {PUBLISHED} or a .safetensors copy of it."
        )


def _listed(names: Sequence[str], what: str) -> str:
    """How many names of a kind there are and the first few, or nothing."""
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}" if names else ""
