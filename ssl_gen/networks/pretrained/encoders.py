"""Other people's networks as encoders of images: a file of weights -> what to do with images, and what to call it.

What a network is (kind, sizes, pooling) and how images are brought to it (side, resize mode, antialias, mean,
deviation) belong to its weights: together they are its `Settings`, which a record keeps, and with the weights they
make its identity. Which network a file holds is seen by the names of its arrays; what these leave open, by what lies
beside the file.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ssl_gen.core.plain import from_plain, to_plain
from ssl_gen.core.trees import digest
from ssl_gen.networks.pretrained import beside, vit_names
from ssl_gen.networks.pretrained.beside import Beside
from ssl_gen.networks.pretrained.families import FAMILIES, Layout, Preprocessing, Untold
from ssl_gen.networks.pretrained.names import Table, placed
from ssl_gen.networks.pretrained.outputs import Outputs
from ssl_gen.networks.pretrained.vit import VisionTransformer, check_side
from ssl_gen.networks.pretrained.weight_files import Weights, counted, read
from ssl_gen.types import Array, Tree, UserError

WHAT = "a pretrained network"
SIDE = 224  # pixels, for shapes alone: a multiple of every patch


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that an encoder is besides its weights."""

    kind: str  # a name of `FAMILIES`
    network: dict[str, Any]  # the fields of its module
    preprocessing: Preprocessing


class Encoder(NamedTuple):
    """A pretrained network, ready to encode."""

    settings: Settings
    variables: Tree

    @property
    def name(self) -> str:
        """Kind, size and 8 hex digits over the weights and all settings: encoders of one name give one result."""
        arrays = {path: np.asarray(leaf) for path, leaf in flatten_dict(self.variables, sep="/").items()}
        said = digest(arrays, to_plain(self.settings))[:8]
        return f"{self.settings.kind}-{self.settings.preprocessing.size}px-{said}"


def network(settings: Settings) -> nn.Module:
    """The module of some settings."""
    return FAMILIES[settings.kind].network(**settings.network)


def prepare(preprocessing: Preprocessing, pixels: Array) -> Array:
    """pixels (B, H, W, C) in 0..255, C 1 (grey, repeated) or 3 (RGB) -> images (B, size, size, 3) float32."""
    side = preprocessing.size
    images = jnp.asarray(pixels, jnp.float32) / 255
    images = jax.image.resize(
        images, (len(images), side, side, images.shape[-1]), preprocessing.resize, preprocessing.antialias
    )
    return (images - jnp.array(preprocessing.mean)) / jnp.array(preprocessing.deviation)


def run(settings: Settings, variables: Tree, pixels: Array) -> Outputs:
    """pixels (B, H, W, C) in 0..255 -> features and, where there is a last layer, logits."""
    outputs: Any = network(settings).apply(variables, prepare(settings.preprocessing, pixels))
    return outputs


def variables_like(settings: Settings) -> Tree:
    """Shapes and dtypes of the weights, which depend on no size of images."""
    return _variables_like(settings.kind, json.dumps(settings.network))


@functools.cache
def _variables_like(kind: str, fields: str) -> Tree:
    images = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return jax.eval_shape(FAMILIES[kind].network(**json.loads(fields)).init, jax.random.key(0), images)


def as_settings(plain: dict[str, Any]) -> Settings:
    """Settings from a record. Raises UserError where this version knows none such."""
    try:
        settings = from_plain(Settings, plain)
        variables_like(settings)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"the record has an encoder that this version of ssl_gen does not know: {plain}") from error
    return settings


def load(path: str | Path, size: int | None = None) -> Encoder:
    """The encoder of a file, for images brought to `size` pixels, by default the network's own.

    Raises UserError as `weight_files.read` and `beside.read`; where the arrays are not those of a network of
    `FAMILIES`; and where neither they nor what lies beside the file say which of two networks they are.
    """
    return recognise(read(path, WHAT), path, size)


def recognise(weights: Weights, path: str | Path, size: int | None = None, said: Beside | None = None) -> Encoder:
    """The encoder that arrays by name, read from `path`, are; `said`: what lies beside it. Errors as of `load`."""
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    candidates = [(kind, layout) for kind, family in FAMILIES.items() for layout in family.layouts]
    tried = [attempt(weights, kind, layout) for kind, layout in candidates]
    nearest = min(range(len(tried)), key=lambda i: tried[i].wrong)
    fitting, (kind, layout) = tried[nearest], candidates[nearest]
    if fitting.faults or fitting.settings is None:
        raise UserError(
            f"{path} holds no network that is known here ({', '.join(FAMILIES)}); beside {kind} of {layout.source} it "
            f"has {fitting.faults or 'arrays of no size'}."
        )
    settings = settled(fitting.settings, layout, beside.read(Path(path)) if said is None else said, path)
    if size is not None:
        settings = dataclasses.replace(settings, preprocessing=dataclasses.replace(settings.preprocessing, size=size))
        if "patch" in settings.network:
            check_side(size, settings.network["patch"])
    return Encoder(settings, unflatten_dict(fitting.arrays, sep="/"))


def settled(settings: Settings, layout: Layout, said: Beside, path: str | Path) -> Settings:
    """The settings with what is said beside a file. Raises UserError where nothing tells what must be known."""
    settings = varied(settings, layout, said, path)
    fields, preprocessing, untold = settings.network, settings.preprocessing, layout.untold(settings.network)
    preprocessing = dataclasses.replace(preprocessing, resize=said.resize or preprocessing.resize)
    if said.mean is not None and said.deviation is not None:
        preprocessing = dataclasses.replace(preprocessing, mean=said.mean, deviation=said.deviation)
    else:
        check_scaled(untold, preprocessing, path)
    if untold == "activation":
        if said.activation is None:
            raise UserError(
                f"{path} may have been trained with quick GELU (OpenAI's CLIP) or with GELU: put its {beside.CONFIG} "
                f"or {beside.OPEN_CLIP} beside it."
            )
        fields = fields | {"activation": said.activation}
    if said.heads is not None and "heads" in fields:
        if fields["width"] % said.heads:
            raise UserError(
                f"{path} has {fields['width']} numbers a token, which {said.heads} heads, as said beside it, cannot "
                "share: mend what lies there, or move it away."
            )
        fields = fields | {"heads": said.heads}
    if settings.kind == "vit" and said.epsilon not in (None, fields.get("epsilon", VisionTransformer.epsilon)):
        fields = fields | {"epsilon": said.epsilon}
    return dataclasses.replace(settings, network=fields, preprocessing=preprocessing)


def varied(settings: Settings, layout: Layout, said: Beside, path: str | Path) -> Settings:
    """The settings of the variant that is named beside a file. Raises UserError where none of several is named."""
    if not layout.variants:
        return settings
    if said.architecture is None or said.architecture not in layout.variants:
        names = list(layout.variants)
        example = json.dumps({"architecture": names[0]})
        raise UserError(
            f"{path} may be timm's {' or '.join(names)}, which differ in padding and in how pixels are scaled: put its "
            f"{beside.CONFIG} beside it, or one that reads {example}."
        )
    fields, preprocessing = layout.variants[said.architecture]
    return dataclasses.replace(settings, network=settings.network | dict(fields), preprocessing=preprocessing)


def check_scaled(untold: Untold | None, preprocessing: Preprocessing, path: str | Path) -> None:
    """Raise UserError where files differ in how pixels are scaled: with ImageNet's mean as the example to write."""
    mean, deviation = (list(values) for values in (preprocessing.mean, preprocessing.deviation))
    if untold == "pixels":
        example = json.dumps({"pretrained_cfg": {"mean": mean, "std": deviation}})
        raise UserError(
            f"{path} may want pixels scaled by ImageNet's mean and deviation (DINO, DeiT) or by 0.5 and 0.5: put its "
            f"{beside.CONFIG} (timm) or {beside.PREPROCESSOR} (Hugging Face) beside it, or a {beside.CONFIG} that "
            f"reads {example}."
        )
    if untold == "satellite":
        example = json.dumps({"image_mean": mean, "image_std": deviation})
        raise UserError(
            f"{path} may have learnt web images (LVD-1689M), scaled by ImageNet's mean and deviation, or satellite "
            f"images (SAT-493M): put its {beside.PREPROCESSOR} beside it, or one that reads {example}."
        )


class Attempt(NamedTuple):
    """A file seen as a network of one family in one layout."""

    settings: Settings | None  # None where not even its sizes can be told
    arrays: dict[str, np.ndarray]  # by path
    faults: str  # "3 missing: ..., ...; 2 unknown: ...", "" for none
    wrong: tuple[int, int]  # how many names, and how many arrays whose names are right


def attempt(weights: Weights, kind: str, layout: Layout) -> Attempt:
    """Bring the arrays of a file to their places, and say which cannot be brought there."""
    table: Table = layout.names(weights)
    weights = {name: array for name, array in weights.items() if not re.fullmatch(layout.ignored, name)}
    missing, unknown = [name for name in table if name not in weights], [name for name in weights if name not in table]
    arrays: dict[str, np.ndarray] = {}
    odd: list[str] = []
    other: list[str] = []
    for name, place in table.items():
        try:
            arrays |= placed(weights[name], place) if name in weights else {}
        except (ValueError, KeyError):  # of another number of axes, or parts that are not even
            (odd if place.values is None else other).append(f"{name} {weights[name].shape}")
    settings = None
    if not missing and not odd:
        settings = settings_of(kind, layout, arrays)
        like = flatten_dict(variables_like(settings), sep="/")
        odd = [f"{name} {weights[name].shape}" for name in misshapen(like, arrays, table)]
        missing = sorted(like.keys() - arrays.keys())  # of one block, where others have them: no name tells of these
    kinds = {"missing": missing, "unknown": unknown, "misshapen": odd, "other than the network has built in": other}
    faults = [counted(names, what) for what, names in kinds.items()]
    return Attempt(settings, arrays, "; ".join(filter(None, faults)), (len(missing + unknown), len(odd + other)))


def settings_of(kind: str, layout: Layout, arrays: dict[str, np.ndarray]) -> Settings:
    """The settings of a network whose arrays are all there."""
    family, preprocessing = FAMILIES[kind], layout.preprocessing
    fields = family.fields(arrays) | dict(layout.fixed)
    if layout.heads is not None:
        fields |= {"heads": vit_names.heads(fields["width"], layout.heads)}
    if family.size is not None and not preprocessing.size:
        preprocessing = dataclasses.replace(preprocessing, size=family.size(fields))
    return Settings(kind, fields, preprocessing)


def misshapen(like: Mapping[str, Any], arrays: dict[str, np.ndarray], table: Table) -> list[str]:
    """The names in a file whose arrays have another shape than the network, `like` by path, has at their place."""
    return [
        name
        for name, place in table.items()
        if any(path not in like or arrays[path].shape != like[path].shape for path in place.paths if path is not None)
    ]
