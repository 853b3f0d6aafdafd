"""A run as files that outlive it: weights without pickle, a model card, and programs that run without this library.

    model.safetensors    the arrays that classifying and sampling need, by their path in the state
    model.json           the card: what the model is, what it was trained on and how well, how to load it
    classify.onnx        where it is asked for, `runs/onnx.py`
    classify.stablehlo   (weights, images (B, H, W, C) uint8) -> probabilities (B, K), calibrated where they can be
    sample.stablehlo     (weights, seed () uint32, labels (B,) int32) -> images (B, H, W, C) uint8

The programs are StableHLO, made by `jax.export` for CPU, GPU and TPU; `weights` is what `safetensors` reads. Weights
are passed, not built in, so that they are stored once and the programs stay small.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from ssl_gen.core import outputs
from ssl_gen.core.files import SEAL, as_json, check_seal, read_json, sha256
from ssl_gen.core.plain import from_plain, to_plain
from ssl_gen.core.trees import named
from ssl_gen.datasets.store import pixels, scaled
from ssl_gen.evaluation import densities
from ssl_gen.evaluation.inference import compiled, sampling_key
from ssl_gen.metrics.statistics import Summary
from ssl_gen.reports.records import DataRecord, EncoderRecord, FinalRecord, MaskRecord, RunRecord, spec_of
from ssl_gen.runs import onnx
from ssl_gen.runs.blueprint import blueprint
from ssl_gen.runs.fit import shapes
from ssl_gen.runs.load import Run
from ssl_gen.runs.load import load as load_run
from ssl_gen.types import Array, ImageSpec, Method, Precision, State, UserError, able

FORMAT = 2  # of model.json; 1: version 0.1, whose states are others
WEIGHTS, CARD = "model.safetensors", "model.json"
PLATFORMS = ("cpu", "cuda", "tpu")  # that the programs run on
FITTED_BATCH = 100  # images a call of a method fitted in one go: it counts them by len(), so the number is fixed; ours
UNKNOWN = "unknown: fill in"
FREE = ("licence",)  # what a user fills in: the card's hash leaves it out
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


@dataclasses.dataclass(frozen=True)
class Program:
    """One file of StableHLO: how many images a call, what it takes and gives."""

    file: str
    batch: int | str
    takes: str
    gives: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class Card:
    """model.json: what one replica is, without the paths of the machine it was trained on; and how to load it."""

    format: int
    method: str
    family: str
    paper: str
    config: dict[str, Any]
    sampler: dict[str, Any]  # how samples are drawn
    encoder: EncoderRecord | None
    steps: int
    labels: int | str
    mask: dict[str, Any]
    versions: dict[str, str]
    commit: str | None
    device: str
    created: str
    data: DataRecord
    dataset: str
    licence: str
    masks: list[MaskRecord]
    seeds: list[int]
    replica: int
    conditional: bool
    temperature: float | None
    shapes: dict[str, Any]  # of the state of a method fitted in one go, as a checkpoint's note has them
    platforms: list[str]
    how_to_load: list[str]
    metrics: dict[str, Summary]
    programs: dict[str, Program]
    weights: dict[str, str]  # file and SHA-256
    precision: str | None = None  # of matrix products and convolutions in training
    products: Precision = "float32"  # what they are cast to, here as in training

    def __post_init__(self) -> None:
        """Raise ValueError where the card is not of one replica, or its files lie elsewhere."""
        if len(self.masks) != 1 or len(self.seeds) != 1:
            raise ValueError(f"{len(self.masks)} masks and {len(self.seeds)} seeds of one replica")
        if self.weights.keys() != {"file", "sha256"}:
            raise ValueError("weights is no file with its SHA-256")
        for file in self.files:
            if Path(file).name != file:
                raise ValueError(f"{file!r} is no file beside the card")

    @property
    def files(self) -> dict[str, str]:
        """The files beside the card and their SHA-256."""
        programs = {program.file: program.sha256 for program in self.programs.values()}
        return {self.weights["file"]: self.weights["sha256"]} | programs


def save(
    path: str | Path,
    out: str | Path,
    replica: int | None = None,
    overwrite: bool = False,
    with_onnx: bool = False,
    **settings: Any,
) -> Card:
    """Write one replica of a finished run into the folder `out`, and return its card, the last file written.

    By default it is the first that did not stop. `settings` of the method's sampler are built into its program. Raises
    UserError where there is no such replica or setting, it stopped, the run is not finished or can neither classify nor
    sample, where `out` cannot be written, for a file in it that is not as it was exported, unless `overwrite`, and
    `with_onnx` where its classifier cannot be written so.
    """
    if with_onnx:
        onnx.check_installed()
    run, out = load_run(path), Path(out)
    metrics = run.metrics
    replica = run.trained_replica(replica)
    sampler = run.sampler(**settings)
    method, state = run.compiled.method._replace(sampler=sampler), run.drawing(replica, sampler)
    spec = run.record.spec
    functions = programs(method, jax.eval_shape(lambda: state), run.temperatures[replica])
    if not functions:
        raise UserError(f"{run.record.method} neither classifies nor samples: there is nothing to export")
    outputs.check_free(places(out), overwrite)
    arrays = {name: np.asarray(leaf) for name, leaf in named(state).items()}
    fixed = arguments(spec, FITTED_BATCH)
    needed = set().union(*(used(function, arrays, fixed[name]) for name, function in functions.items()))
    weights = {name: array for name, array in arrays.items() if name in needed}
    inputs = fixed if method.fit else arguments(spec, jax.export.symbolic_shape("batch")[0])
    exported = {name: lower(function, weights, inputs[name]) for name, function in functions.items()}
    contents = {program_file(name): bytes(exported[name].serialize()) for name in sorted(exported)}
    contents[WEIGHTS] = safetensors.numpy.save(weights)
    written = as_onnx(run, functions, weights, method) if with_onnx else None
    if written:
        contents[onnx.FILE] = written.data
    hashes = {name: sha256(data) for name, data in contents.items()}
    names = sorted(functions) + (["onnx"] if written else [])
    card = describe(run, replica, method, metrics, names, hashes)
    if written:
        program = card.programs["onnx"]
        card.programs["onnx"] = dataclasses.replace(program, gives=f"{program.gives}; {written.checked}")
    contents[CARD] = as_json(to_plain(card), FREE)
    for file in places(out):
        if file.name not in contents:  # of an earlier export, whose programs these weights are not for
            file.unlink(missing_ok=True)
    for name, data in contents.items():
        with outputs.replacing(out / name) as target:
            target.write_bytes(data)
    return card


def places(out: Path) -> list[Path]:
    """All files that an export may write."""
    return [out / name for name in (WEIGHTS, *map(program_file, ("classify", "sample", "onnx")), CARD)]


def program_file(name: str) -> str:
    """The file of a program."""
    return onnx.FILE if name == "onnx" else f"{name}.stablehlo"


def as_onnx(
    run: Run, functions: dict[str, Callable[..., Array]], weights: dict[str, np.ndarray], method: Method
) -> onnx.Written:
    """The classifier, checked. Raises UserError where there is none or it cannot be written so."""
    if "classify" not in functions:
        raise UserError(f"{run.record.method} does not classify, and --onnx writes a classifier: leave it out")
    held = {name: jnp.asarray(array) for name, array in weights.items()}
    batch = FITTED_BATCH if method.fit else None
    return onnx.write(
        run.record.method, lambda images: functions["classify"](held, images), run.record.spec.shape, batch
    )


def revived(like: State, weights: dict[str, Array]) -> State:
    """A state of the tree, shapes and dtypes of `like`; what is not among `weights`, and thus not needed, is zero."""
    leaves = [
        weights[name] if name in weights else jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in named(like).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def programs(method: Method, like: State, temperature: float | None) -> dict[str, Callable[..., Array]]:
    """What a method can do, as functions of the weights by name and plain arrays; see the top of this page."""

    def classify(weights: dict[str, Array], images: Array) -> Array:
        scores = able(method.classify)(revived(like, weights), scaled(images))
        return jax.nn.softmax(scores if temperature is None else scores / temperature)

    def sample(weights: dict[str, Array], seed: Array, labels: Array) -> Array:
        drawn = able(method.sample)(revived(like, weights), sampling_key(seed, 0), labels, method.sampler)
        return pixels(drawn)

    found = {"classify": classify if method.classify else None, "sample": sample if method.sample else None}
    return {name: function for name, function in found.items() if function}


def arguments(spec: ImageSpec, batch: Any) -> dict[str, tuple[jax.ShapeDtypeStruct, ...]]:
    """Shapes and types of what each program takes besides the weights; `batch` is a number or a symbol."""
    return {
        "classify": (jax.ShapeDtypeStruct((batch, *spec.shape), jnp.uint8),),
        "sample": (jax.ShapeDtypeStruct((), jnp.uint32), jax.ShapeDtypeStruct((batch,), jnp.int32)),
    }


def lower(function: Callable[..., Array], weights: dict[str, Any], inputs: tuple[Any, ...]) -> jax.export.Exported:
    """A function of weights and inputs as StableHLO."""
    kinds = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
    return jax.export.export(jax.jit(function), platforms=PLATFORMS)(kinds, *inputs)


def used(function: Callable[..., Array], weights: dict[str, Any], inputs: tuple[Any, ...]) -> set[str]:
    """The names of the weights that the result depends on; of inputs with a symbolic shape JAX would keep them all."""
    kept = set(lower(function, weights, inputs).module_kept_var_idx)
    return {name for i, name in enumerate(jax.tree.leaves({name: name for name in weights})) if i in kept}


def describe(
    run: Run,
    replica: int,
    method: Method,
    metrics: dict[str, Summary],
    functions: list[str],
    hashes: dict[str, str],
) -> Card:
    """The card of one replica; `hashes` are the SHA-256 of its files."""
    record, made = run.record, run.final or run.record  # in parts, some of them elsewhere, it may have gone on
    kind, colon, place = record.dataset.partition(":")
    return Card(
        format=FORMAT,
        method=record.method,
        family=record.family,
        paper=record.paper,
        config=record.config,
        sampler=to_plain(method.sampler),
        encoder=record.encoder,
        steps=record.steps,
        labels=record.labels,
        mask=record.mask,
        versions=record.versions,
        commit=made.commit,
        device=made.device,
        precision=made.precision,
        products=record.products,
        created=record.created,
        data=dataclasses.replace(record.data, skipped=[]),  # they are names of a user's files
        dataset=kind + colon + (Path(place).name if kind in ("folder", "npz") else place),
        licence=LICENCES[kind] if kind in LICENCES and not record.mask["out_of_distribution"] else UNKNOWN,
        masks=[record.masks[replica]],
        seeds=[record.seeds[replica]],
        replica=replica,
        conditional=method.conditional,
        temperature=run.temperatures[replica],
        shapes=fitted_shapes(run, replica),
        platforms=list(PLATFORMS),
        how_to_load=HOW_TO.splitlines(),
        metrics=metrics,
        programs=manual(method, record.spec, functions, hashes),
        weights={"file": WEIGHTS, "sha256": hashes[WEIGHTS]},
    )


def fitted_shapes(run: Run, replica: int) -> dict[str, Any]:
    """What `Blueprint.states_like` must know of a method fitted in one go, as a checkpoint's note has it."""
    if run.compiled.method.fit is None:
        return {}
    stacked = jax.tree.map(lambda leaf: leaf[None], run.states[replica])
    encoder = run.record.encoder
    if not encoder:
        return {"shapes": shapes(stacked)}
    fitted = blueprint(encoder.method, encoder.config, None, run.record.spec).method.fit
    return {"shapes": shapes(stacked.inner), "encoder_shapes": shapes(stacked.encoder) if fitted else None}


def manual(method: Method, spec: ImageSpec, functions: list[str], hashes: dict[str, str]) -> dict[str, Program]:
    """Of each program: its file, how many images a call, what it takes and gives, its SHA-256."""
    images = f"images (batch, {', '.join(map(str, spec.shape))}) uint8"
    read = f"{images}, upright as their EXIF says, white where transparent, upper 8 of 16 bits, resized whole (bicubic)"
    says = {
        "classify": (f"weights, {read}", f"probabilities (batch, {spec.classes}) float32"),
        "sample": ("weights, seed () uint32, labels (batch,) int32", images),
        "onnx": (read, f"probabilities (batch, {spec.classes}) float32"),
    }
    batch: int | str = FITTED_BATCH if method.fit else "any"
    return {name: Program(program_file(name), batch, *says[name], hashes[program_file(name)]) for name in functions}


def load(path: str | Path) -> Run:
    """An exported model, to sample and classify with; its latents and densities stay with its run.

    Raises UserError where a file is missing, damaged or not the one that the card speaks of.
    """
    path = Path(path)
    if not (path / CARD).is_file():
        raise UserError(f"{path} holds no {CARD}: give the --out of `ssl-gen export`")
    card = read_card(path / CARD)
    files = {name: read_file(path / name, digest) for name, digest in card.files.items()}
    weights = safetensors.numpy.load(files[card.weights["file"]])
    spec = spec_of(card.data, card.masks)
    plan = blueprint(card.method, card.config, card.encoder, spec, card.products)
    try:
        sampler = from_plain(type(plan.method.sampler), card.sampler)
    except ValueError as error:
        raise UserError(f"{path / CARD} has a sampler of another version of ssl_gen ({error}): export again") from error
    stacked = plan.states_like(card.shapes, 1)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), stacked)
    if densities.needed(sampler):
        like = like._replace(density=densities.like(plan.method, like, spec))
    found = {name: leaf for name, leaf in named(like).items() if name in weights}
    if len(found) < len(weights) or any(leaf.shape != weights[name].shape for name, leaf in found.items()):
        raise UserError(f"{path / WEIGHTS} does not fit its {CARD}, or this version of ssl_gen: export the run again")
    method = plan.method._replace(encode=None, decode=None, log_weight=None, posterior=None, sampler=sampler)
    states = [revived(like, {name: jnp.asarray(array) for name, array in weights.items()})]
    return Run(path, run_record(card), compiled(method), states, final_record(card))


def run_record(card: Card) -> RunRecord:
    """The part of run.json that a card keeps."""
    shared = {field.name for field in dataclasses.fields(Card)} & {
        field.name for field in dataclasses.fields(RunRecord)
    }
    kept = {name: getattr(card, name) for name in shared}
    return RunRecord(**kept, options={}, phases=[], every={}, command="")


def final_record(card: Card) -> FinalRecord:
    """The part of final.json that a card keeps."""
    return FinalRecord(
        method=card.method,
        dataset=card.dataset,
        labels=card.labels,
        masks=[mask.sha256 for mask in card.masks],
        seeds=card.seeds,
        steps=card.steps,
        seconds=0.0,
        metrics=card.metrics,
        device=card.device,
        precision=card.precision,
        commit=card.commit,
        temperature=[card.temperature],
    )


def read_card(file: Path) -> Card:
    """model.json. Raises UserError where it is damaged or of another format."""
    values = read_json(file)
    if values.get("format") != FORMAT:
        raise UserError(f"{file} is no card of format {FORMAT}: export the run again with this version of ssl_gen")
    try:
        card = from_plain(Card, {name: value for name, value in values.items() if name != SEAL})
    except ValueError as error:
        said = " ".join(str(error).split())
        raise UserError(f"{file} does not fit this version of ssl_gen ({said}): export the run again") from error
    check_seal(file, values, FREE)
    return card


def read_file(file: Path, digest: str) -> bytes:
    """A file beside the card. Raises UserError where it is missing, or not the one that the card speaks of."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; export the run again") from error
    if sha256(data) != digest:
        raise UserError(f"{file} is not the file that {CARD} speaks of: its SHA-256 differs; export the run again")
    return data
