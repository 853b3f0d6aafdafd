"""A run as files that outlive it: weights without pickle, a model card, and programs that run without this library.

    model.safetensors    the arrays that classifying and sampling need, by their path in the state
    model.json           the card: what the model is, what it was trained on and how well, how to load it
    classify.stablehlo   (weights, images (B, H, W, C) uint8) -> probabilities (B, K), calibrated where they can be
    sample.stablehlo     (weights, seed () uint32, labels (B,) int32) -> images (B, H, W, C) uint8

The programs are StableHLO, made by `jax.export` for CPU, GPU and TPU; `weights` is what `safetensors` reads. Weights
are passed, not built in, so that they are stored once and the programs stay small.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from ssl_gen import evaluation, run, solving
from ssl_gen.training import folder
from ssl_gen.types import Array, ImageSpec, Method, State, Tree, UserError

FORMAT = 1  # of model.json
WEIGHTS, CARD = "model.safetensors", "model.json"
PLATFORMS = ("cpu", "cuda", "tpu")  # that the programs run on
FITTED_BATCH = 100  # images a call of a method fitted in one go: it counts them by len(), so the number is fixed; ours
KEPT = ("method", "family", "paper", "config", "encoder", "steps", "labels", "mask", "versions", "commit")
KEPT += ("device", "created")
UNKNOWN = "unknown: fill in"
LICENCES = {  # data set -> its licence, where its authors give one
    "mnist": "CC BY-SA 3.0 (Yann LeCun and Corinna Cortes)",
    "shapes": "none needed: drawn by formula",
}
HOW_TO = """\
with this library:
    model = ssl_gen.export.load("FOLDER")
    model.classify(images); model.sample(label=0, count=16)
without it (pip install jax safetensors flatbuffers):
    from jax import export
    from safetensors.numpy import load_file
    weights = load_file("FOLDER/model.safetensors")
    program = export.deserialize(bytearray(open("FOLDER/NAME.stablehlo", "rb").read()))
    result = program.call(weights, ...)  # the rest as "programs" says
"""


def save(path: str | Path, out: str | Path, replica: int = 0) -> dict[str, Any]:
    """Write one replica of a finished run into the folder `out`, and return its card, the last file written.

    Raises UserError where there is no such replica, it stopped, the run is not finished or can neither classify nor
    sample, and where `out` cannot be written.
    """
    loaded, out = run.load(path), Path(out)
    metrics = loaded.metrics
    if not 0 <= replica < len(loaded.states):
        raise UserError(f"--replica is one of 0 to {len(loaded.states) - 1}, not {replica}")
    if replica not in loaded.temperatures:
        raise UserError(f"replica {replica} of {path} stopped while it trained: export another one")
    method, state = loaded.tools.method, loaded.states[replica]
    spec = run.spec_of(loaded.about)
    functions = programs(method, jax.eval_shape(lambda: state), loaded.temperatures[replica])
    if not functions:
        raise UserError(f"{loaded.about['method']} neither classifies nor samples: there is nothing to export")
    arrays = {name: raw(leaf) for name, leaf in named(state).items()}
    fixed = arguments(spec, FITTED_BATCH)
    needed = set().union(*(used(function, arrays, fixed[name]) for name, function in functions.items()))
    weights = {name: array for name, array in arrays.items() if name in needed}
    inputs = fixed if method.fit else arguments(spec, jax.export.symbolic_shape("batch")[0])
    exported = {name: lower(function, weights, inputs[name]) for name, function in functions.items()}
    card = describe(loaded, replica) | {"metrics": metrics, "programs": manual(method, spec, sorted(functions))}
    data = safetensors.numpy.save(weights)
    card["weights"] = {"file": WEIGHTS, "sha256": hashlib.sha256(data).hexdigest()}
    with run.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / WEIGHTS).write_bytes(data)
        for name, program in exported.items():
            (out / f"{name}.stablehlo").write_bytes(program.serialize())
        folder.write_json(out / CARD, card)
    return card


def named(tree: Tree) -> dict[str, Any]:
    """The leaves of a tree by path: {"classifier/params/Dense_0/kernel": array}."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in found}


def is_key(leaf: Any) -> bool:
    """Is it a typed random key?"""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def raw(leaf: Array) -> np.ndarray:
    """An array as a file can hold it: a key as its words."""
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def revived(like: State, weights: dict[str, Array]) -> State:
    """A state of the tree, shapes and dtypes of `like`; what is not among `weights`, and thus not needed, is zero."""

    def revive(name: str, leaf: Any) -> Array:
        if name not in weights:
            return jax.random.key(0) if is_key(leaf) else jnp.zeros(leaf.shape, leaf.dtype)
        return jax.random.wrap_key_data(weights[name]) if is_key(leaf) else weights[name]

    leaves = [revive(name, leaf) for name, leaf in named(like).items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def programs(method: Method, like: State, temperature: float | None) -> dict[str, Callable[..., Array]]:
    """What a method can do, as functions of the weights by name and plain arrays; see the top of this page."""

    def classify(weights: dict[str, Array], images: Array) -> Array:
        scores = method.classify(revived(like, weights), evaluation.scaled(images))
        return jax.nn.softmax(scores if temperature is None else scores / temperature)

    def sample(weights: dict[str, Array], seed: Array, labels: Array) -> Array:
        return evaluation.pixels(method.sample(revived(like, weights), evaluation.sampling_key(seed, 0), labels))

    found = {"classify": classify if method.classify else None, "sample": sample if method.sample else None}
    return {name: function for name, function in found.items() if function}


def arguments(spec: ImageSpec, batch: Any) -> dict[str, tuple[jax.ShapeDtypeStruct, ...]]:
    """Shapes and types of what each program takes besides the weights; `batch` is a number or a symbol."""
    return {
        "classify": (jax.ShapeDtypeStruct((batch, *spec.shape), jnp.uint8),),
        "sample": (jax.ShapeDtypeStruct((), jnp.uint32), jax.ShapeDtypeStruct((batch,), jnp.int32)),
    }


def lower(function: Callable[..., Array], weights: dict[str, np.ndarray], inputs: tuple) -> jax.export.Exported:
    """A function of weights and inputs as StableHLO."""
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
    return jax.export.export(jax.jit(function), platforms=PLATFORMS)(shapes, *inputs)


def used(function: Callable[..., Array], weights: dict[str, np.ndarray], inputs: tuple) -> set[str]:
    """The names of the weights that the result depends on; of inputs with a symbolic shape JAX would keep them all."""
    kept = set(lower(function, weights, inputs).module_kept_var_idx)
    return {name for i, name in enumerate(jax.tree.leaves({name: name for name in weights})) if i in kept}


def describe(loaded: run.Loaded, replica: int) -> dict[str, Any]:
    """run.json cut down to one replica, without the paths of the machine it was trained on; and how to load it."""
    about = loaded.about
    kind, colon, place = about["dataset"].partition(":")
    return {
        "format": FORMAT,
        **{key: about[key] for key in KEPT},
        "data": {key: value for key, value in about["data"].items() if key != "skipped"},  # names of a user's files
        "dataset": kind + colon + (Path(place).name if kind in ("folder", "npz") else place),
        "licence": LICENCES[kind] if kind in LICENCES and not about["mask"]["foreign"] else UNKNOWN,
        "masks": [about["masks"][replica]],
        "seeds": [about["seeds"][replica]],
        "replica": replica,
        "conditional": loaded.tools.method.conditional,
        "temperature": loaded.temperatures[replica],
        "shapes": fitted_shapes(loaded, replica),
        "platforms": list(PLATFORMS),
        "how_to_load": HOW_TO.splitlines(),
    }


def fitted_shapes(loaded: run.Loaded, replica: int) -> dict[str, Any]:
    """What `run.stacked_like` must know of the state of a method fitted in one go, as a checkpoint's note has it."""
    if loaded.tools.method.fit is None:
        return {}
    stacked = jax.tree.map(lambda leaf: leaf[None], loaded.states[replica])
    encoder = loaded.about["encoder"]
    if not encoder:
        return {"shapes": solving.shapes(stacked)}
    spec = run.spec_of(loaded.about)
    inner = solving.shapes(stacked.inner)
    return {"shapes": inner, "encoder_shapes": solving.shapes(stacked.encoder) if run.made(encoder, spec).fit else None}


def manual(method: Method, spec: ImageSpec, functions: list[str]) -> dict[str, dict[str, Any]]:
    """Of each program: its file, how many images a call, what it takes and gives."""
    images = f"images (batch, {', '.join(map(str, spec.shape))}) uint8"
    says = {
        "classify": {"takes": f"weights, {images}", "gives": f"probabilities (batch, {spec.classes}) float32"},
        "sample": {"takes": "weights, seed () uint32, labels (batch,) int32", "gives": images},
    }
    batch = FITTED_BATCH if method.fit else "any"
    return {name: {"file": f"{name}.stablehlo", "batch": batch, **says[name]} for name in functions}


def load(path: str | Path) -> run.Loaded:
    """An exported model, to sample and classify with; its latents and densities stay with its run.

    Raises UserError where a file is missing, damaged or not the one that the card speaks of.
    """
    path = Path(path)
    if not (path / CARD).is_file():
        raise UserError(f"{path} holds no {CARD}: give the --out of `ssl-gen export`")
    card = folder.read_json(path / CARD)
    weights = read_weights(path / WEIGHTS, card)
    spec = run.spec_of(card)
    stacked = run.stacked_like(card, spec, card["shapes"], 1)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), stacked)
    found = {name: leaf for name, leaf in named(like).items() if name in weights}
    if len(found) < len(weights) or any(raw_shape(leaf) != weights[name].shape for name, leaf in found.items()):
        raise UserError(f"{path / WEIGHTS} does not fit its {CARD}, or this version of ssl_gen: export the run again")
    method = run.made(card, spec)._replace(encode=None, decode=None, log_weight=None)
    final = {"metrics": card["metrics"], "temperature": [card["temperature"]], "stopped": [], "unmeasured": {}}
    return run.Loaded(path, card, evaluation.compiled(method), [revived(like, weights)], final)


def raw_shape(leaf: Any) -> tuple[int, ...]:
    """The shape that `raw` gives a leaf."""
    return jax.eval_shape(jax.random.key_data, leaf).shape if is_key(leaf) else leaf.shape


def read_weights(file: Path, card: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a file. Raises UserError where it is missing, or not the one that the card speaks of."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; export the run again") from error
    if hashlib.sha256(data).hexdigest() != card["weights"]["sha256"]:
        raise UserError(f"{file} is not the file that {CARD} speaks of: its SHA-256 differs; export the run again")
    return safetensors.numpy.load(data)
