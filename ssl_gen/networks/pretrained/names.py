"""What files call the arrays of a network, by layout: tables of names, and how an array comes to its place.

A table is made for the very file, from the plan of a network or from the number of blocks that the file has, so that
what is missing can be called by the name it should have there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ssl_gen.networks.pretrained import resnet
from ssl_gen.networks.pretrained.inverted_residuals import PLANS, blocks
from ssl_gen.networks.pretrained.weight_files import AXES, Weights

NORM = {"weight": "params/{}/scale", "bias": "params/{}/bias"}
MOMENTS = {"running_mean": "batch_stats/{}/mean", "running_var": "batch_stats/{}/var"}


class Place(NamedTuple):
    """Where an array of a file goes in linen's variables, 'params/stem/conv/kernel'."""

    paths: tuple[str | None, ...]  # of several each gets an even part, cut along the first axis; None: nothing reads it
    rank: int | None = (
        None  # None: axes are turned from PyTorch's order; else they stay, but for first ones of length 1
    )
    values: np.ndarray | None = None  # what the network has built in; an array that is another has no place


BUILT_IN = 0.01  # relative difference of an array from values that are built in: a file may keep 8 bits of them

Table = dict[str, Place]  # name in the file -> its place
Maker = Callable[[Weights], Table]  # of the names for a file


def placed(array: np.ndarray, place: Place) -> dict[str, np.ndarray]:
    """An array of a file -> its parts by path, in JAX's layouts. ValueError or KeyError where it does not fit."""
    if place.values is not None:
        if array.shape != place.values.shape or not np.allclose(array, place.values, rtol=BUILT_IN, atol=0):
            raise ValueError
        return {}
    if place.rank is None:
        parts = [part.transpose(AXES[part.ndim]) for part in np.split(array, len(place.paths))]
    else:
        parts = [array.squeeze(tuple(range(array.ndim - place.rank)))]
    return {path: part for path, part in zip(place.paths, parts, strict=True) if path is not None}


def dense(name: str, path: str, bias: bool = True) -> Table:
    """A linear layer or a convolution."""
    kernel = {f"{name}.weight": Place((f"params/{path}/kernel",))}
    return kernel | ({f"{name}.bias": Place((f"params/{path}/bias",))} if bias else {})


def norm(name: str, path: str, moments: bool = False) -> Table:
    """A layer norm, or a batch norm with its moments."""
    parts = NORM | MOMENTS if moments else NORM
    return {f"{name}.{end}": Place((place.format(path),)) for end, place in parts.items()}


def unit(convolution: str, normalisation: str, path: str) -> Table:
    """A convolution without bias and its batch norm."""
    return dense(convolution, f"{path}/conv", bias=False) | norm(normalisation, f"{path}/norm", moments=True)


def unit_hugging_face(name: str, path: str) -> Table:
    """Both, as Hugging Face calls them inside a layer."""
    return unit(f"{name}.convolution", f"{name}.normalization", path)


def kept(name: str, path: str, rank: int) -> Table:
    """An array that has no axes to turn: tokens (D,), positions (N, D), scales (D,)."""
    return {name: Place((f"params/{path}",), rank)}


def built_in(name: str, values: np.ndarray) -> Table:
    """An array that the network has by itself: it must be the one in the file."""
    return {name: Place((), values=values)}


def where(weights: Weights, table: Table) -> Table:
    """The names of a table that the file has: parts that some networks of a layout lack."""
    return {name: place for name, place in table.items() if name in weights}


def of_classes(weights: Weights, name: str) -> Table:
    """The last layer, where the file has it."""
    return dense(name, "classifier") if f"{name}.weight" in weights else {}


def resnet_torchvision(kind: str) -> Maker:
    """A ResNet of torchvision, timm and the authors of DINO, by a name of `resnet.PLANS`."""

    def table(weights: Weights) -> Table:
        found = unit("conv1", "bn1", "stem") | of_classes(weights, "fc")
        for stage, block, layer in resnet.PLANS[kind].layers():
            parts = ("downsample.0", "downsample.1") if layer == "short" else (f"conv{layer}", f"bn{layer}")
            convolution, normalisation = (f"layer{stage + 1}.{block}.{part}" for part in parts)
            found |= unit(convolution, normalisation, f"block_{stage}_{block}_{layer}")
        return found

    return table


def resnet_hugging_face(kind: str) -> Maker:
    """A ResNet of Hugging Face, by a name of `resnet.PLANS`."""

    def table(weights: Weights) -> Table:
        found = unit_hugging_face("resnet.embedder.embedder", "stem") | of_classes(weights, "classifier.1")
        for stage, block, layer in resnet.PLANS[kind].layers():
            part = "shortcut" if layer == "short" else f"layer.{int(layer) - 1}"
            name = f"resnet.encoder.stages.{stage}.layers.{block}.{part}"
            found |= unit_hugging_face(name, f"block_{stage}_{block}_{layer}")
        return found

    return table


def efficientnet_authors(weights: Weights) -> Table:
    """EfficientNet-Lite0 as converted from TensorFlow (packages after lukemelas/EfficientNet-PyTorch)."""
    table = unit("_conv_stem", "_bn0", "stem") | unit("_conv_head", "_bn1", "head") | of_classes(weights, "_fc")
    for block in blocks(PLANS["efficientnet_lite0"]):
        name, path = f"_blocks.{block.number}", f"block_{block.number}"
        if block.expansion > 1:
            table |= unit(f"{name}._expand_conv", f"{name}._bn0", f"{path}_expand")
        table |= unit(f"{name}._depthwise_conv", f"{name}._bn1", f"{path}_depthwise")
        table |= unit(f"{name}._project_conv", f"{name}._bn2", f"{path}_project")
    return table


def mobilenet_torchvision(weights: Weights) -> Table:
    """MobileNetV2 of torchvision."""
    plan = blocks(PLANS["mobilenet_v2"])
    table = unit("features.0.0", "features.0.1", "stem") | of_classes(weights, "classifier.1")
    for block in plan:
        name, path = f"features.{block.number + 1}.conv", f"block_{block.number}"
        wide = int(block.expansion > 1)  # the layers are numbered
        if wide:
            table |= unit(f"{name}.0.0", f"{name}.0.1", f"{path}_expand")
        table |= unit(f"{name}.{wide}.0", f"{name}.{wide}.1", f"{path}_depthwise")
        table |= unit(f"{name}.{wide + 1}", f"{name}.{wide + 2}", f"{path}_project")
    last = f"features.{len(plan) + 1}"
    return table | unit(f"{last}.0", f"{last}.1", "head")


def inverted_timm(plan: str) -> Maker:
    """MobileNetV2 of timm, `mobilenetv2_100`, or its EfficientNet-Lite0, by a name of `PLANS`."""

    def table(weights: Weights) -> Table:
        found = unit("conv_stem", "bn1", "stem") | unit("conv_head", "bn2", "head") | of_classes(weights, "classifier")
        for block in blocks(PLANS[plan]):
            name, path = f"blocks.{block.stage}.{block.place}", f"block_{block.number}"
            if block.expansion > 1:
                found |= unit(f"{name}.conv_pw", f"{name}.bn1", f"{path}_expand")
                found |= unit(f"{name}.conv_dw", f"{name}.bn2", f"{path}_depthwise")
                found |= unit(f"{name}.conv_pwl", f"{name}.bn3", f"{path}_project")
            else:
                found |= unit(f"{name}.conv_dw", f"{name}.bn1", f"{path}_depthwise")
                found |= unit(f"{name}.conv_pw", f"{name}.bn2", f"{path}_project")
        return found

    return table


def mobilenet_hugging_face(weights: Weights) -> Table:
    """MobileNetV2 of Hugging Face, `google/mobilenet_v2_1.0_224`."""

    def layer(name: str, path: str) -> Table:
        return unit_hugging_face(f"mobilenet_v2.{name}", path)

    table = layer("conv_stem.first_conv", "stem") | layer("conv_1x1", "head") | of_classes(weights, "classifier")
    for block in blocks(PLANS["mobilenet_v2"]):
        name = f"layer.{block.number - 1}" if block.number else "conv_stem"
        path = f"block_{block.number}"
        if block.expansion > 1:
            table |= layer(f"{name}.expand_1x1", f"{path}_expand")
        table |= layer(f"{name}.conv_3x3", f"{path}_depthwise") | layer(f"{name}.reduce_1x1", f"{path}_project")
    return table
