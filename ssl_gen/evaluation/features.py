"""Feature extractors: images -> the numbers that a metric compares. Each has an identity, part of the metric's name.

pixels     the image itself
random     a convolutional net with fixed random weights: nothing is trained, any data set has it
trained    a convolutional net trained on all labels by `ssl-gen train-features DATASET`
FILE       such a net, Inception-v3 with its FID weights, or a pretrained network, from a weights file; the pretrained
           networks of the extra `pretrained` also by their names, and those of Hugging Face as hf:OWNER/NAME
auto       trained where there is one for this data set, else random; the name says which
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from ssl_gen.core.compiling import jit_inference
from ssl_gen.core.files import write_whole, writing
from ssl_gen.core.machine import cache_folder
from ssl_gen.core.plain import to_plain
from ssl_gen.core.trees import digest
from ssl_gen.datasets.store import pixels, scaled
from ssl_gen.evaluation.kept_features import kept
from ssl_gen.networks import conv, inception
from ssl_gen.networks.pretrained import encoders, inception_weights, sources, weight_files
from ssl_gen.types import Array, ImageSpec, Method, Tree, UserError, able

WIDTH = 32  # channels of the first layer of both convolutional nets; ours
KIND = "ssl_gen convnet"  # says of a file that it holds a trained net
DIGEST = "digest"  # of its weights and of all else that the file says of them


class Architecture(NamedTuple):
    """What a network of features is, without its weights: enough to run it again from a record."""

    kind: Literal["pixels", "convnet", "inception", "pretrained"]
    classes: int = 0  # of a convnet
    width: int = 0  # channels of the first layer of a convnet
    settings: dict[str, Any] | None = None  # of a pretrained network, see `pretrained.encoders.Settings`


class Extractor(NamedTuple):
    """One way to see images; images are (B, H, W, C) uint8."""

    name: str  # kind and hash of the weights: extractors of one name give the same features
    features: Callable[[Array], Array]  # -> (B, F) float32
    classify: Callable[[Array], Array] | None = None  # -> log-probabilities (B, K), where it knows the classes
    architecture: Architecture = Architecture("pixels")
    variables: Tree = ()  # its weights


def outputs(architecture: Architecture, variables: Tree, images: Array) -> tuple[Array, Array]:
    """Images (B, H, W, C) in [-1, 1] -> features (B, F) and logits (B, K); without classes, the features twice."""
    if architecture.kind == "convnet":
        net = conv.Classifier(architecture.classes, architecture.width)
        logits, sown = net.apply(variables, images, train=False, mutable=["intermediates"])
        return sown["intermediates"]["features"][0], logits
    if architecture.kind == "inception":
        seen: Any = inception.Inception().apply(variables, inception.prepare(pixels(images)))
        return seen.features, seen.features
    if architecture.kind == "pretrained":
        features = encoders.run(encoders.as_settings(able(architecture.settings)), variables, pixels(images)).features
        return features, features
    flat_images = images.reshape(len(images), -1)
    return flat_images, flat_images


def variables_like(architecture: Architecture, spec: ImageSpec) -> Tree:
    """Shapes and dtypes of an architecture's weights, for images of `spec`."""
    if architecture.kind == "convnet":
        net, images = conv.Classifier(architecture.classes, architecture.width), jnp.zeros((1, *spec.shape))
        return jax.eval_shape(lambda: net.init(jax.random.key(0), images, train=False))
    if architecture.kind == "pretrained":
        return encoders.variables_like(encoders.as_settings(able(architecture.settings)))
    return inception_weights.variables_like() if architecture.kind == "inception" else ()


def as_method(architecture: Architecture) -> Method:
    """An extractor as what `--encoder` takes: a method whose state is its weights and that can only encode."""
    return Method(None, (), encode=lambda variables, images: outputs(architecture, variables, images)[0])


def encoding(architecture: Architecture) -> Callable[[Tree, Array], Array]:
    """(weights, images (B, H, W, C) uint8) -> features (B, F)."""
    return lambda variables, images: outputs(architecture, variables, scaled(images))[0]


def kept_features(architecture: Architecture, name: str) -> Callable[[Tree, Array], Array] | None:
    """(weights, images (B, H, W, C) uint8) -> features (B, F) of a pretrained network, computed once for all runs.

    name: the extractor's; None for the networks that are quick enough.
    """
    if architecture.kind != "pretrained":
        return None
    return kept(name, encoding(architecture))


def find_encoder(name: str, spec: ImageSpec, dataset: str, sha256: str, size: int | None = None) -> Extractor:
    """An extractor for `--encoder`, by a name of this page but `trained` and `auto`, which learnt from all labels.

    size: pixels that a pretrained network sees, by default its own.

    `sha256` is of the data set that is to be learnt, as it was read. Raises UserError where there is none, it sees
    images of another shape, or was trained on all labels of these data.
    """
    if name not in ("pixels", "random"):
        path = sources.find(name)
        if path is None:
            raise UserError(f"--encoder is a run's folder, pixels, random, {sources.KNOWN}; there is no {name}")
        name = str(path)
    elif size is not None:
        raise UserError(f"--encoder-size is for pretrained networks, not for {name}")
    path = Path(name)
    said = description(path) if path.is_file() else None
    if said is None:
        return find_extractor(name, spec, dataset, sha256, size)
    if size is not None:
        raise UserError(f"--encoder-size is for pretrained networks: {path} sees images as they come")
    if said["sha256"] == sha256 or said["dataset"] == dataset:  # of one name: less a few copies, or with a few more
        raise UserError(f"{path} was trained on all labels of these data, which a run with few must not see")
    if tuple(said["spec"][:3]) != spec.shape:
        raise UserError(
            f"{path} sees (H, W, C) {said['spec'][:3]}, not {list(spec.shape)}: give --size, or another file"
        )
    return trained(path, ImageSpec(*said["spec"]))


def find_extractor(name: str, spec: ImageSpec, dataset: str, sha256: str, size: int | None = None) -> Extractor:
    """An extractor, by a name of this page, for images of `spec`. Raises UserError where it cannot be had.

    `sha256` is of the data set as it was read: by it, and not by a name, the net that was trained on it is found.
    """
    if name == "pixels":
        return Extractor(name, jax.jit(lambda images: images.reshape(len(images), -1) / jnp.float32(255)))
    path = trained_path(sha256)
    kept = path if path and path.exists() else None
    if name == "random" or (name == "auto" and kept is None):
        net = conv.Classifier(10, WIDTH)  # its logits are not used
        variables = jax.jit(lambda: net.init(jax.random.key(0), jnp.zeros((1, *spec.shape)), train=False))()
        return convolutional("random", Architecture("convnet", 10, WIDTH), variables)
    if name in ("trained", "auto"):
        if kept is None:
            raise UserError(f"no features were trained for {dataset}: run `ssl-gen train-features {dataset}` first")
        return trained(kept, spec)
    path = sources.find(name)
    if path is None:
        raise UserError(f"--features is auto, pixels, random, trained, {sources.KNOWN}; there is no {name}")
    return trained(path, spec) if description(path) else from_file(path, size)


def flat(variables: Tree) -> dict[str, np.ndarray]:
    """Variables as arrays by path, 'params/Dense_0/kernel'."""
    return {name: np.asarray(leaf) for name, leaf in traverse_util.flatten_dict(variables, sep="/").items()}


def convolutional(what: str, architecture: Architecture, variables: Tree, knows_classes: bool = False) -> Extractor:
    """A convnet without its last layer; `what` is the first word of its name."""

    @jit_inference
    def run(images: Array) -> tuple[Array, Array]:
        seen, logits = outputs(architecture, variables, scaled(images))
        return seen, jax.nn.log_softmax(logits)

    name = f"{what}-convnet-{weight_files.identity(flat(variables))}"
    classify = (lambda images: run(images)[1]) if knows_classes else None
    return Extractor(name, lambda images: run(images)[0], classify, architecture, variables)


def trained_path(sha256: str) -> Path | None:
    """Where `ssl-gen train-features` keeps the net of a data set, by the data's hash; None where nothing is kept."""
    folder = cache_folder()
    return folder and folder / "features" / f"{sha256}.safetensors"


def save(path: Path, variables: Tree, dataset: str, spec: ImageSpec, training: dict[str, Any]) -> str:
    """Write a trained net; returns its extractor's name. Raises UserError where the file cannot be written."""
    said = {"kind": KIND, "dataset": dataset, "spec": [*spec.shape, spec.classes], "width": WIDTH, **training}
    arrays = flat(variables)
    said[DIGEST] = digest(arrays, said)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, safetensors.numpy.save(arrays, {"ssl_gen": json.dumps(said)}))
    return trained(path, spec).name


def description(path: Path) -> dict[str, Any] | None:
    """What a file says of the trained net in it; None for other files. Raises UserError where it cannot be read."""
    try:
        with safe_open(path, "numpy") as file:
            said = json.loads((file.metadata() or {}).get("ssl_gen", "null"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError):
        return None
    return said if isinstance(said, dict) and said.get("kind") == KIND else None


def trained(path: Path, spec: ImageSpec) -> Extractor:
    """The net of a file written by `save`. Raises UserError where it is damaged or sees images of another shape."""
    said = description(path)
    if said is None:
        raise UserError(f"{path} holds no trained net, or is damaged: run `ssl-gen train-features` again")
    arrays = load_file(path)
    if said.pop(DIGEST, None) != digest(arrays, said):
        raise UserError(
            f"{path} is damaged (its SHA-256 differs): run `ssl-gen train-features {said['dataset']}` again"
        )
    wanted = [*spec.shape, spec.classes]
    if said["spec"] != wanted:
        raise UserError(f"{path} sees (H, W, C, K) {said['spec']}, not {wanted}: train features on this data set")
    variables = traverse_util.unflatten_dict(arrays, sep="/")
    plain = re.sub(r"[^\w.]+", "-", said["dataset"]).strip("-")
    return convolutional(plain, Architecture("convnet", spec.classes, said["width"]), variables, knows_classes=True)


def from_file(path: Path, size: int | None) -> Extractor:
    """Inception-v3 or a pretrained network, whichever a file's arrays are. Raises UserError for neither."""
    weights = weight_files.read(path, "a pretrained network's weights")
    if inception_weights.MARK not in weights:
        return pretrained(encoders.recognise(weights, path, size))
    if size is not None:
        raise UserError(f"--encoder-size is not for Inception: {path} sees images of {inception.SIDE} pixels")
    return inception_v3(weights, path)


def pretrained(encoder: encoders.Encoder) -> Extractor:
    """A pretrained network; grey images are repeated to RGB, and resized as its settings say."""
    architecture = Architecture("pretrained", settings=to_plain(encoder.settings))
    features = able(kept_features(architecture, encoder.name))
    variables = jax.tree.map(jnp.asarray, encoder.variables)
    return Extractor(encoder.name, functools.partial(features, variables), None, architecture, variables)


def inception_v3(weights: weight_files.Weights, path: Path) -> Extractor:
    """Inception-v3; grey images are repeated to RGB, all are resized to 299 x 299 as in TF 1."""
    inception_weights.check_parameters(path, weights)
    variables = inception_weights.to_variables(weights)

    @jit_inference
    def run(images: Array) -> Array:
        seen: Any = inception.Inception().apply(variables, inception.prepare(images))
        return seen.features

    name = f"inception-v3-{weight_files.identity(weights)}-tf1-resize"
    return Extractor(name, run, None, Architecture("inception"), variables)
