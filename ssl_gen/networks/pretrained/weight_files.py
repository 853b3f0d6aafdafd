"""A file of named arrays, .pth or .safetensors -> the arrays by name, and their identity: what all weights here share.

Nothing is ever unpickled but plain tensors, and PyTorch is not needed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy

from ssl_gen.networks.pretrained import torch_files
from ssl_gen.types import UserError

COUNTER = ".num_batches_tracked"  # PyTorch's batch norms save it in training; it changes no output
AXES = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}  # ndim -> what to transpose: (O, I) to (I, O), OIHW to HWIO
SHOWN = 3  # names in a message
Weights = dict[str, np.ndarray]  # name in the file -> array in PyTorch's layout


def read(path: str | Path, what: str, sha256: str | None = None) -> Weights:
    """The arrays of a file, all finite; `what` says in messages which weights are wanted.

    Hex digits that end the file's name, as in `...-6726825d.pth`, are the start of its SHA-256 (torch.hub's rule) and
    are checked; so is `sha256`, 8 digits of it or more, where given. Raises UserError where the file is missing,
    damaged, another than its hash says, holds anything but named arrays, or a number that is not finite.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"There is no file {str(path)!r}: give the path of {what} or of a .safetensors copy.")
    if file.suffix not in READERS:
        raise UserError(f"{file} ends in {file.suffix!r}: weights come as {', '.join(READERS)}.")
    check_hash(file, sha256)
    weights = {name: array for name, array in READERS[file.suffix](file, what).items() if not name.endswith(COUNTER)}
    broken = [name for name, array in weights.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if broken:
        raise UserError(f"{file} holds NaN or infinity in {listed(broken)}: fetch or convert {what} again.")
    return weights


def identity(weights: Weights) -> str:
    """8 hex digits of a SHA-256 over names, shapes and values, for records: the same for either file format."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name}{weights[name].shape}<f4".encode())  # the same bytes on every machine
        digest.update(np.ascontiguousarray(weights[name], "<f4").data)
    return digest.hexdigest()[:8]


def check_hash(file: Path, sha256: str | None) -> None:
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


def read_torch(file: Path, what: str) -> Weights:
    """A file of `torch.save`."""
    try:
        return torch_files.load(file)
    except Exception as error:  # a damaged pickle raises anything: IndexError, struct.error, AssertionError, ...
        raise UserError(
            f"{file} cannot be read as a dictionary of plain tensors, and nothing else is ever unpickled: "
            f"give {what} unchanged."
        ) from error


def read_safetensors(file: Path, what: str) -> Weights:
    """A file of `safetensors`."""
    try:
        return safetensors.numpy.load_file(file)
    except (OSError, safetensors.SafetensorError, TypeError, AttributeError) as error:  # the last two: bfloat16, float8
        raise UserError(f"{file} cannot be read as float32 .safetensors: copy or convert {what} again.") from error


READERS: dict[str, Callable[[Path, str], Weights]] = {
    ".pth": read_torch,
    ".pt": read_torch,
    ".bin": read_torch,  # Hugging Face's older files
    ".safetensors": read_safetensors,
}


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def counted(names: Sequence[str], what: str) -> str:
    """How many names of a kind there are and the first few, or nothing."""
    return f"{len(names)} {what}: {listed(names)}" if names else ""
