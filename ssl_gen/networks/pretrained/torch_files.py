"""PyTorch's .pth files of named tensors, read without PyTorch and without running anything that they hold.

Both forms: that of `torch.save` since 1.6, a zip of a pickle and one file a storage, and the older one, five pickles
after each other and the storages behind them. A pickle may name any function and have it called; this reader knows the
few names in `KNOWN`, which make tensors and dictionaries, and refuses every other.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DTYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8"}
DTYPES |= {"IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?"}
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older form


class Storage(NamedTuple):
    """A run of numbers in the file."""

    key: str
    dtype: str
    length: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, data: bytes) -> np.ndarray:
        """Its values, copied. Raises ValueError where it reaches beyond its storage."""
        flat = np.frombuffer(data, self.storage.dtype, self.storage.length)
        ends = [stride * (side - 1) for side, stride in zip(self.shape, self.strides, strict=True)]
        if min(self.offset, *self.shape, *self.strides, 0) < 0 or self.offset + sum(ends) >= max(len(flat), 1):
            raise ValueError(f"a tensor {self.shape} reaches beyond its storage of {len(flat)} numbers")
        strides = [stride * flat.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides).copy()


KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: Tensor(
        storage, offset, shape, strides
    ),
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
} | {("torch", name): name for name in DTYPES}


class Reader(pickle.Unpickler):
    """A pickle of tensors. Raises UnpicklingError for any name that is not in `KNOWN`."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        _, kind, key, _, length, *_ = pid  # ('storage', type, key, device, numbers)
        return Storage(key, DTYPES[kind], length)


def load(path: Path) -> dict[str, np.ndarray]:
    """A file -> its arrays by name; of a checkpoint {"state_dict": ..., ...} those under that name.

    Raises what a damaged pickle raises, which is anything, and ValueError or UnpicklingError for what is no dictionary
    of tensors.
    """
    with path.open("rb") as file:
        found, data = zipped(file) if zipfile.is_zipfile(file) else stacked(file)
    for name in ("state_dict", "model"):
        found = found[name] if isinstance(found, dict) and isinstance(found.get(name), dict) else found
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ValueError("it is no dictionary of tensors")
    return {str(name): tensor.array(data[tensor.storage.key]) for name, tensor in found.items()}


def zipped(file: Any) -> tuple[Any, dict[str, bytes]]:
    """The form since PyTorch 1.6: FOLDER/data.pkl and FOLDER/data/KEY."""
    with zipfile.ZipFile(file) as archive:
        pickled = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl") + "data/"
        found = Reader(io.BytesIO(archive.read(pickled))).load()
        inside = [name for name in archive.namelist() if name.startswith(folder)]
        return found, {name.removeprefix(folder): archive.read(name) for name in inside}


def stacked(file: Any) -> tuple[Any, dict[str, bytes]]:
    """The older form: magic number, version, machine, tensors, keys; then of each key a count and its numbers."""
    file.seek(0)
    if Reader(file).load() != MAGIC:
        raise ValueError("it is no PyTorch file")
    Reader(file).load(), Reader(file).load()
    sizes: dict[str, int] = {}

    class Noting(Reader):
        def persistent_load(self, pid: Any) -> Storage:
            storage = super().persistent_load(pid)
            sizes[storage.key] = np.dtype(storage.dtype).itemsize
            return storage

    found, keys, data = Noting(file).load(), Reader(file).load(), {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        data[key] = file.read(count * sizes[key])
    return found, data
