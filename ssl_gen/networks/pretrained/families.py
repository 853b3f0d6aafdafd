"""The pretrained networks that are known: who writes their files in which layout, and how images come to them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import numpy as np

from ssl_gen.networks.pretrained import names, resnet, vit_names
from ssl_gen.networks.pretrained.inverted_residuals import InvertedResiduals
from ssl_gen.networks.pretrained.vit import VisionTransformer

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation of pixels in [0, 1]; torchvision
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # of TensorFlow's networks, from -1 to 1
Untold = Literal["activation", "pixels", "satellite"]  # what no array tells


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How images come to a network. They are squeezed to a square, whole: nothing is cut off."""

    size: int  # side, pixels
    resize: str  # 'cubic' (Keys, a = -1/2) or 'linear'
    antialias: bool  # when made smaller
    mean: tuple[float, float, float]  # of pixels in [0, 1]
    deviation: tuple[float, float, float]


class Variant(NamedTuple):
    """One of several networks whose files have the same names and shapes."""

    fields: Mapping[str, Any]  # that are otherwise
    preprocessing: Preprocessing


class Layout(NamedTuple):
    """One way in which files of a family are written."""

    source: str  # who writes it
    names: names.Maker
    preprocessing: Preprocessing  # size 0: the family says
    ignored: str = "(?!)"  # names of what is no part of the network, a pattern
    fixed: Mapping[str, Any] = MappingProxyType({})  # fields that no array tells
    heads: Mapping[int, int] | None = None  # of transformers: width -> heads, where they are not of 64 numbers
    # the fields -> what files of this layout differ in, and what lies beside a file must tell
    untold: Callable[[dict[str, Any]], Untold | None] = lambda fields: None
    variants: Mapping[str, Variant] = MappingProxyType(
        {}
    )  # by timm's name, which must be told, too, where there are any


class Family(NamedTuple):
    """Networks of one kind."""

    layouts: tuple[Layout, ...]
    network: Callable[..., nn.Module]  # of the fields
    fields: Callable[[dict[str, np.ndarray]], dict[str, Any]]  # arrays by path -> the fields
    size: Callable[[dict[str, Any]], int] | None = None  # the fields -> side of images, pixels, where no layout says it


def classes_of(arrays: dict[str, np.ndarray]) -> int:
    """Logits of the last layer, 0 where there is none."""
    kernel = arrays.get("params/classifier/kernel")
    return 0 if kernel is None else kernel.shape[-1]


def inverted(kind: str) -> Callable[[dict[str, np.ndarray]], dict[str, Any]]:
    """The fields of an `InvertedResiduals` of a kind."""
    return lambda arrays: {"kind": kind, "classes": classes_of(arrays)}


def residual(kind: str) -> Family:
    """The ResNet of a kind."""
    named = {} if kind == resnet.ResNet.kind else {"kind": kind}  # an encoder's name is a hash over what is said here
    return Family(
        (
            Layout("torchvision", names.resnet_torchvision(kind), Preprocessing(224, "linear", True, *IMAGENET)),
            Layout("Hugging Face", names.resnet_hugging_face(kind), Preprocessing(224, "cubic", True, *IMAGENET)),
        ),
        resnet.ResNet,
        lambda arrays: {"classes": classes_of(arrays)} | named,
    )


def transformer(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields of a `VisionTransformer` that its arrays tell, all but its heads."""
    positions, patches = arrays.get("params/positions"), arrays["params/patches/kernel"]
    width, registers = patches.shape[-1], arrays.get("params/registers")
    blocks = {path.split("/")[1] for path in arrays if path.startswith("params/block_")}
    projection = arrays.get("params/projection/kernel")
    fields = {
        "width": width,
        "depth": len(blocks),
        "hidden": arrays["params/block_0/mlp/first/kernel"].shape[-1],
        "patch": patches.shape[0],
        "positions": 0 if positions is None else len(positions),
        "registers": 0 if registers is None else len(registers),
        "class_token": "params/class" in arrays,
        "patch_bias": "params/patches/bias" in arrays,
        "before": "params/before/scale" in arrays,
        "scaled": "params/block_0/scale_1" in arrays,
        "pooling": "attention" if "params/pool/probe" in arrays else "class",
        "projection": 0 if projection is None else projection.shape[-1],
        "classes": classes_of(arrays),
    }
    # an encoder's name is a hash over what is said here: those that came before DINOv3 keep theirs
    gated = "params/block_0/mlp/gate/kernel" in arrays
    if positions is None:
        return fields | without_positions(arrays, gated)
    return fields | ({"activation": "silu", "gated": True} if gated else {})  # DINOv2's giant


def without_positions(arrays: dict[str, np.ndarray], gated: bool) -> dict[str, Any]:
    """The fields of a `VisionTransformer` that DINOv3 always has."""
    return {
        "activation": "silu" if gated else "gelu",
        "gated": gated,
        "query_bias": "params/block_0/attention/query/bias" in arrays,
        "key_bias": "params/block_0/attention/key/bias" in arrays,
    }


def transformer_size(fields: dict[str, Any]) -> int:
    """The side that positions were learnt for; of DINOv2, where that is 518, the 224 of its authors' evaluations.

    It is one of whole patches: where SigLIP so400m/14 was trained on 384 pixels, of which 6 were cut off, it is 378.
    """
    side = math.isqrt(fields["positions"]) * fields["patch"]
    return 224 if fields["scaled"] and side == 518 else side


def pixels_untold(fields: dict[str, Any]) -> Untold | None:
    """Plain transformers are of ImageNet's mean (DINO, DeiT) or of 0.5; those with scales (DINOv2) have the former."""
    return None if fields["scaled"] else "pixels"


def satellite_untold(fields: dict[str, Any]) -> Untold | None:
    """DINOv3 has learnt web images in all sizes, in two (ViT-L and 7B) satellite images too, of a mean of their own."""
    return "satellite" if fields["width"] in (1024, 4096) else None


def activation_untold(fields: dict[str, Any]) -> Untold | None:
    """OpenAI trained with quick GELU, most who came after with GELU."""
    return "activation"


DINO = Preprocessing(0, "cubic", True, *IMAGENET)
DINOV3 = Preprocessing(224, "linear", True, *IMAGENET)
CLIP = Preprocessing(0, "cubic", True, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SIGLIP = Preprocessing(0, "cubic", True, *HALF)
QUICK: Mapping[str, Any] = {"activation": "quick_gelu", "epsilon": 1e-5}
TANH: Mapping[str, Any] = {"activation": "gelu_tanh"}
WIDE_EPSILON: Mapping[str, Any] = {"epsilon": 1e-5}
FINE_EPSILON: Mapping[str, Any] = {"epsilon": 1e-12}  # transformers, configuration_vit.py; MSN's config.json: 1e-6
# Of ViT at Hugging Face, behind its features or beside them.
APART = r"(vit\.)?(pooler\..*|embeddings\.mask_token)|decoder\..*"
UNREAD = r"mask_token|local_cls_norm\..*"  # of DINOv3, in training alone
TEXT = r"text_model\..*|text_projection(\.weight)?|logit_(scale|bias)|vision_model\.embeddings\.position_ids"
OPEN = r"(transformer|token_embedding|ln_final)\..*|positional_embedding|text_projection|logit_(scale|bias)|attn_mask"

FAMILIES: dict[str, Family] = {
    "mobilenet_v2": Family(
        (
            Layout("torchvision", names.mobilenet_torchvision, Preprocessing(224, "linear", True, *IMAGENET)),
            Layout("timm", names.inverted_timm("mobilenet_v2"), Preprocessing(224, "cubic", True, *IMAGENET)),
            Layout(
                "Hugging Face",
                names.mobilenet_hugging_face,
                Preprocessing(224, "linear", True, *HALF),
                fixed={"kind": "mobilenet_v2_tensorflow"},
            ),
        ),
        InvertedResiduals,
        inverted("mobilenet_v2"),
    ),
    "efficientnet_lite0": Family(
        (
            Layout(
                "the authors, converted",
                names.efficientnet_authors,
                # (p - 127) / 128, TensorFlow's; cubic: timm, whose authors trained bilinearly
                Preprocessing(224, "cubic", True, (127 / 255,) * 3, (128 / 255,) * 3),
            ),
            Layout(
                "timm",
                names.inverted_timm("efficientnet_lite0"),
                Preprocessing(224, "cubic", True, *IMAGENET),
                variants={
                    "efficientnet_lite0": Variant(
                        {"kind": "efficientnet_lite0_torch"}, Preprocessing(224, "cubic", True, *IMAGENET)
                    ),
                    "tf_efficientnet_lite0": Variant(
                        {"kind": "efficientnet_lite0"}, Preprocessing(224, "cubic", True, *HALF)
                    ),
                },
            ),
        ),
        InvertedResiduals,
        inverted("efficientnet_lite0"),
    ),
    **{kind: residual(kind) for kind in resnet.PLANS},
    "vit": Family(
        (
            Layout("timm or DINO", vit_names.timm, DINO, "mask_token", heads=vit_names.HUGE, untold=pixels_untold),
            Layout(
                "ViT at Hugging Face",
                vit_names.vit_hugging_face,
                Preprocessing(0, "linear", True, *IMAGENET),
                APART,
                FINE_EPSILON,
                vit_names.HUGE,
                pixels_untold,
            ),
            Layout("DINOv2 at Hugging Face", vit_names.dinov2_hugging_face, DINO, r"embeddings\.mask_token", heads={}),
            Layout(
                "DINOv3's authors",
                vit_names.dinov3_authors,
                DINOV3,
                UNREAD,
                WIDE_EPSILON,
                vit_names.DINOV3,
                satellite_untold,
            ),
            Layout(
                "DINOv3 at Hugging Face",
                vit_names.dinov3_hugging_face,
                DINOV3,
                r"embeddings\.mask_token",
                WIDE_EPSILON,
                vit_names.DINOV3,
                satellite_untold,
            ),
            Layout(
                "CLIP at Hugging Face",
                vit_names.clip_hugging_face,
                CLIP,
                TEXT,
                QUICK,
                vit_names.HUGE,
                activation_untold,
            ),
            Layout("CLIP's authors", vit_names.clip_authors, CLIP, OPEN, QUICK, vit_names.HUGE, activation_untold),
            Layout("CLIP at timm", vit_names.clip_timm, CLIP, "(?!)", QUICK, vit_names.HUGE, activation_untold),
            Layout("SigLIP at Hugging Face", vit_names.siglip_hugging_face, SIGLIP, TEXT, TANH, vit_names.SIGLIP),
            # timm runs some of them with GELU itself: its authors trained with the form of tanh, jax.nn.gelu's default
            Layout("SigLIP at timm", vit_names.siglip_timm, SIGLIP, "(?!)", TANH, vit_names.SIGLIP),
        ),
        VisionTransformer,
        transformer,
        transformer_size,
    ),
}
