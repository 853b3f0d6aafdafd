"""What lies beside a file of weights and says what no array tells: an activation, heads, how images come.

Hugging Face's config.json and preprocessor_config.json, timm's config.json, open_clip's open_clip_config.json. Whoever
has weights without one, and knows, can write one.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from ssl_gen.types import UserError

CONFIG, PREPROCESSOR, OPEN_CLIP = "config.json", "preprocessor_config.json", "open_clip_config.json"
FILES = (CONFIG, PREPROCESSOR, OPEN_CLIP)
RESIZES = {"bilinear": "linear", "bicubic": "cubic", 2: "linear", 3: "cubic"}  # timm's, open_clip's, Pillow's -> ours
ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}  # Hugging Face's -> ours
# timm's names of towers of CLIP that were trained with quick GELU, where the name itself may not say so and timm would
# run them with GELU: "natively QuickGELU" in its vision_transformer.py. What was fine-tuned there has another tag.
QUICK = re.compile(
    r".*_clip_quickgelu_.*|.*_clip_\d+\.(openai|metaclip_(400m|2pt5b)|dfn5b)|vit_large_.*\.dfn2b"
    r"|vit_base_patch32_.*\.laion400m_e32|vit_huge_patch14_clip_224\.metaclip2_worldwide"
)
# What is known of Hugging Face's networks, by their `model_type`: transformers, configuration_*.py
GELU = {"hidden_act": "gelu"}
KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "mobilenet_v2": (
        "MobileNetV2",
        {"tf_padding": True, "layer_norm_eps": 0.001, "output_stride": 32, "hidden_act": "relu6"},  # as TensorFlow's
    ),
    "vit": ("ViT", GELU),
    "vit_mae": ("MAE", GELU),
    "vit_msn": ("MSN", GELU),
    "dinov2": ("DINOv2", GELU),
    "dinov2_with_registers": ("DINOv2", GELU),
    "siglip_vision_model": ("SigLIP", {"hidden_act": "gelu_pytorch_tanh"}),
}
Colour = tuple[float, float, float]


class Beside(NamedTuple):
    """What was said, None for what was not."""

    activation: str | None = None  # of a tower of CLIP
    mean: Colour | None = None  # of pixels in [0, 1]
    deviation: Colour | None = None
    heads: int | None = None  # of a transformer's attention
    epsilon: float | None = None  # of a transformer's norms
    resize: str | None = None  # 'cubic' or 'linear'
    architecture: str | None = None  # what timm calls the network


def read(weights: Path) -> Beside:
    """What lies beside a file of weights. Raises UserError for what is there and makes no sense."""
    said = {name: _settings(weights.parent / name) for name in FILES}
    activation = _activation(weights.parent, said)
    timm, processor = _part(said[CONFIG], "pretrained_cfg"), said[PREPROCESSOR]
    clip = _part(said[OPEN_CLIP], "preprocess_cfg")
    ways = [
        (weights.parent / CONFIG, timm.get("mean"), timm.get("std")),
        (weights.parent / PREPROCESSOR, processor.get("image_mean"), processor.get("image_std")),
        (weights.parent / OPEN_CLIP, clip.get("mean"), clip.get("std")),
    ]
    _check_known(weights.parent / CONFIG, said[CONFIG])
    architecture = said[CONFIG].get("architecture")
    found = Beside(
        activation,
        heads=_heads(weights.parent, said),
        epsilon=_epsilon(weights.parent / CONFIG, _vision(said[CONFIG])),
        resize=_resize(weights.parent, said),
        architecture=architecture if isinstance(architecture, str) else None,
    )
    for path, mean, deviation in ways:
        if mean is not None and deviation is not None:
            return found._replace(mean=_colour(path, mean, -math.inf), deviation=_colour(path, deviation, 0))
    return found


def _settings(path: Path) -> dict[str, Any]:
    """An object of a file, {} where there is none. Raises UserError for anything else."""
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} lies beside the weights and cannot be read: mend it, or move it away.") from error
    return said if isinstance(said, dict) else {}


def _part(said: dict[str, Any], name: str) -> dict[str, Any]:
    part = said.get(name)
    return part if isinstance(part, dict) else {}


def _activation(folder: Path, said: dict[str, dict[str, Any]]) -> str | None:
    """Of a tower of CLIP. What is not said of one is its library's default: quick GELU, but GELU in open_clip."""
    config = said[CONFIG]
    if str(config.get("model_type", "")).startswith("clip"):
        name = _vision(config).get("hidden_act", "quick_gelu")
        if name not in ACTIVATIONS:
            raise UserError(f"{folder / CONFIG} names the activation {name!r}: known are {', '.join(ACTIVATIONS)}.")
        return ACTIVATIONS[name]
    if "model_cfg" in said[OPEN_CLIP]:
        return "quick_gelu" if _part(said[OPEN_CLIP], "model_cfg").get("quick_gelu") else "gelu"
    if "_clip_" in str(config.get("architecture", "")):
        name = f"{config['architecture']}.{_part(config, 'pretrained_cfg').get('tag', '')}"
        return "quick_gelu" if QUICK.fullmatch(name) else None if name.endswith(".") else "gelu"
    return None


def _vision(config: dict[str, Any]) -> dict[str, Any]:
    """What Hugging Face's config.json says of the network of images, alone or beside one of text."""
    return _part(config, "vision_config") or config


def _check_known(path: Path, config: dict[str, Any]) -> None:
    """Raise UserError where a network of Hugging Face is otherwise than is known, which no array tells."""
    about = _vision(config)
    kind, known = KNOWN.get(str(about.get("model_type", "")), ("", {}))
    for name, usual in known.items():
        if (value := about.get(name, usual)) != usual:
            raise UserError(f"{path} has {name} {value!r}: of {kind} at Hugging Face {usual!r} alone is known.")


def _epsilon(path: Path, about: dict[str, Any]) -> float | None:
    """Of a transformer's norms. Raises UserError for what is no number above 0."""
    epsilon = about.get("layer_norm_eps")
    if epsilon is None:
        return None
    if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0 < epsilon < math.inf:
        raise UserError(f"{path} has layer_norm_eps {epsilon!r}: give a number above 0.")
    return float(epsilon)


def _heads(folder: Path, said: dict[str, dict[str, Any]]) -> int | None:
    """Of a transformer's attention. Raises UserError for what is no number of heads."""
    config, clip = said[CONFIG], _part(_part(said[OPEN_CLIP], "model_cfg"), "vision_cfg")
    heads: Any = _vision(config).get("num_attention_heads")
    path = folder / CONFIG
    if heads is None and "width" in clip:
        width, each, path = clip["width"], clip.get("head_width", 64), folder / OPEN_CLIP  # 64: open_clip's default
        whole = _counts(width) and _counts(each) and not width % each
        heads = width // each if whole else f"{width} / {each}"
    if heads is not None and not _counts(heads):
        raise UserError(f"{path} has {heads} heads of attention: give a whole number of at least 1.")
    return heads


def _counts(value: Any) -> bool:
    """A whole number of at least 1?"""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _resize(folder: Path, said: dict[str, dict[str, Any]]) -> str | None:
    """How images were brought to a side. Raises UserError for a way that is not known."""
    ways = [
        (CONFIG, _part(said[CONFIG], "pretrained_cfg").get("interpolation")),
        (PREPROCESSOR, said[PREPROCESSOR].get("resample")),
        (OPEN_CLIP, _part(said[OPEN_CLIP], "preprocess_cfg").get("interpolation")),
    ]
    for name, way in ways:
        if way is not None:
            if not isinstance(way, (str, int)) or way not in RESIZES:
                raise UserError(f"{folder / name} resizes by {way!r}: known are {', '.join(map(str, RESIZES))}.")
            return RESIZES[way]
    return None


def _colour(path: Path, values: Any, above: float) -> Colour:
    """Three numbers, each above another one. Raises UserError for anything else."""
    if not isinstance(values, list) or len(values) != 3:
        raise UserError(f"{path} scales pixels by {values!r}: three numbers are needed, of red, green and blue.")
    if not all(isinstance(value, (int, float)) and above < value < math.inf for value in values):
        raise UserError(f"{path} scales pixels by {values!r}: give finite numbers, and deviations above 0.")
    red, green, blue = map(float, values)
    return red, green, blue
