"""One run from its settings to its record: what the command line, the experiments and `import ssl_gen` all call."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from ssl_gen import evaluation, features, fitting, measurements, record, solving
from ssl_gen.datasets.folders import SUFFIXES
from ssl_gen.datasets.sources import DATASETS
from ssl_gen.methods import METHODS, family
from ssl_gen.metrics import classification
from ssl_gen.reports import page, pictures
from ssl_gen.setting import Data, Options, check_pool, feed, initial_rows, load_data
from ssl_gen.training import checkpoints, devices, folder, hosts, loop
from ssl_gen.types import Batch, ImageSpec, Method, State, UserError

GRID = 10  # rows of samples.png
COLUMNS = 20  # classes in samples.png at most


class Result(NamedTuple):
    """What a call of `train` left behind."""

    folder: Path
    final: dict[str, Any] | None  # None for a run that was interrupted
    command: str  # the same again; it resumes
    first: bool = True  # of several processes the one that wrote it


def default_folder(name: str, options: Options) -> Path:
    """runs/METHOD-DATASET-LABELS."""
    dataset = "".join(c if c.isalnum() or c in "_." else "-" for c in options.dataset).strip("-")
    return Path("runs") / f"{name}-{dataset}-{options.labels}"


def train(name: str, config: Any = None, options: Options | None = None) -> Result:
    """Train a method with every seed, or go on where an earlier call of the same stopped; evaluate; write the record.

    config: the method's own Config (None: its defaults). Raises UserError for wrong settings, for a folder that holds
    another run or that another process writes to. After SIGTERM or Ctrl-C the state is kept and `final` is None.
    With `distributed` every process calls it alike, and the first alone writes; an error of one is one of all.
    """
    options = options or Options()
    team = hosts.join() if options.distributed else hosts.ALONE
    with team.failing_together():
        return train_together(name, config, options, team)


def train_together(name: str, config: Any, options: Options, team: hosts.Team) -> Result:
    """What `train` does, as one of the processes of a team."""
    module = find_method(name)
    config = config if config is not None else module.Config()
    data = load_data(options)
    method = module.make(config, data.dataset.spec)
    solving.check(name, method, options)
    check_pool(data, method.phases)
    encoder, source = None, None
    if options.encoder is not None:
        encoder, source = open_encoder(options.encoder, data)
    every = loop.Every(1, 1, 1)
    if method.fit is None:
        steps = sum(phase.steps for phase in method.phases)
        every = loop.choose_every(steps, options.log_every, options.evaluate_every, options.checkpoint_every)
    target = Path(options.out or default_folder(name, options))
    about = record.describe(name, config, options, data, method, every, team) | {"encoder": source}
    folder.check_alike(team.gather(record.common(about)))
    with folder.claimed(target) if team.first else contextlib.nullcontext():
        final = team.told(lambda: finished(target, about))
        if final is None:
            tools = evaluation.compiled(solving.behind(method, encoder.method) if encoder else method)
            final = train_claimed(target, about, tools, data, options, every, encoder, team)
    return Result(target, final, about["command"], team.first)


def finished(target: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """final.json of a folder that is ours, None where it has none yet. Raises UserError where it holds another run."""
    folder.agree(target, about)
    return folder.read_json(target / "final.json") if (target / "final.json").exists() else None


def open_encoder(path: Path, data: Data) -> tuple[solving.Encoder, dict[str, Any]]:
    """An earlier run for its latents, and what run.json keeps of it. Raises UserError where it does not fit `data`."""
    earlier = load(path)
    solving.check_encoder(earlier.about, earlier.tools.method, data)
    return solving.Encoder(earlier.tools.method, earlier.states), {
        key: earlier.about[key] for key in ("method", "config", "steps", "encoder")
    }


def find_method(name: str) -> types.ModuleType:
    """The module of a method. Raises UserError with the nearest names."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, cutoff=0.4) or list(METHODS)
        raise UserError(f"there is no method {name}; did you mean {' or '.join(near)}?")
    return METHODS[name]


def with_steps(name: str, config: Any, steps: int) -> Any:
    """The settings of a method, trained for `steps` updates in all. Raises UserError where it is trained in none."""
    if not hasattr(config, "steps"):
        raise UserError(f"{name} is fitted in one go: leave out --steps")
    return dataclasses.replace(config, steps=steps)


def train_claimed(
    target: Path,
    about: dict,
    tools: evaluation.Tools,
    data: Data,
    options: Options,
    every: loop.Every,
    encoder: solving.Encoder | None,
    team: hosts.Team,
) -> dict[str, Any] | None:
    """Train in a folder that is ours; final.json's content, or None where a signal stopped it.

    Of several processes the first alone evaluates, on its own devices: no number that another one computes is kept, and
    all that follows from one is told. The others wait for its word, not in a collective.
    """
    splits = {"test": (data.dataset.test_images, data.dataset.test_labels)}
    splits |= {"validation": data.validation} if len(data.validation[1]) else {}

    def evaluate(state: State) -> dict[str, float]:
        if not team.first:
            return {}
        return {
            f"{split}/error": classification.error(evaluation.probabilities(tools, state, images), labels)
            for split, (images, labels) in (splits.items() if tools.classify else ())
        }

    seeds, method = about["seeds"], tools.method
    kept = checkpoints.open_checkpoints(target / "checkpoints", team)
    start = kept.latest() or 0
    log = folder.Log(target, start, options.tensorboard) if team.first else folder.Silence()
    try:
        if method.fit:
            outcome, replica = solving.fit(method, data, log, kept, evaluate, encoder, options.quiet), list.__getitem__
        else:
            images = data.dataset.train_images
            program = devices.make_program(
                method,
                images,
                len(seeds),
                options.replicas,
                options.data_parallel,
                min(every),
                several=team.count > 1,
            )
            initial, rows = program.init(seeds, initial_rows(data)), feed(data, method.phases)
            outcome = loop.train(
                program, method.phases, rows, seeds, every, log, kept, evaluate, initial, options.quiet, team
            )
            replica = program.replica
    finally:
        kept.close()
        log.close()
    ended = [] if outcome.interrupted else [i for i in range(len(seeds)) if i not in outcome.stopped]
    states = {i: replica(outcome.states, i) for i in ended}
    return team.told(lambda: concluded(target, about, tools, data, options, outcome, states, log.lines))


def concluded(
    target: Path,
    about: dict[str, Any],
    tools: evaluation.Tools,
    data: Data,
    options: Options,
    outcome: loop.Outcome,
    states: dict[int, State],
    lines: list[dict],
) -> dict[str, Any] | None:
    """Samples, final.json and the report of the seeds that did not stop; only the report where a signal stopped it."""
    if outcome.interrupted:
        page.write(target)
        return None
    if tools.sample and states:
        draw_grid(target / "samples.png", tools, data, states, about)
    final = record.conclude(about, tools, data, states, outcome, lines, refer(data, options))
    if tools.classify and states and len(data.validation[1]):
        temperatures, reasons = calibrate(tools, states, *data.validation)
        final["temperature"] = [temperatures.get(seed) for seed in about["seeds"]]
        final["unmeasured"] |= reasons
    folder.write_json(target / "final.json", final)
    page.write(target)
    return final


def calibrate(
    tools: evaluation.Tools, states: dict[int, State], images: np.ndarray, labels: np.ndarray
) -> tuple[dict[int, float], dict[str, str]]:
    """The temperature of each seed on validation images (V, H, W, C) uint8 with labels (V,), and why one has none.

    A short run can get every validation image right, or none: then no temperature is best, and that loses no run.
    """
    found, reasons = {}, {}
    for seed, state in states.items():
        try:
            found[seed] = classification.temperature(evaluation.probabilities(tools, state, images), labels)
        except UserError as error:
            reasons["temperature"] = f"seed {seed}: {error}"
    return found, reasons


def refer(data: Data, options: Options) -> evaluation.Reference:
    """What the replicas of a run are measured against. Raises UserError where the features cannot be had."""
    spec = data.dataset.spec
    extractor = features.choose(options.features, spec, options.dataset)
    fit = functools.partial(fitting.fit, config=fitting.SCORE, spec=spec)
    return evaluation.Reference(data.dataset, extractor, fit, data.foreign, options.samples)


def draw_grid(path: Path, tools: evaluation.Tools, data: Data, states: dict[int, State], about: dict) -> None:
    """samples.png: ten rows, a column a class where samples obey labels, from the first seed that did not stop."""
    seed = min(states)
    columns = min(data.dataset.spec.classes, COLUMNS)
    images = evaluation.draw(tools, states[seed], np.tile(np.arange(columns), GRID), seed)
    text = {"method": about["method"], "mask": data.masks[seed].name, "mask_sha256": data.masks[seed].sha256}
    titles = list(data.dataset.class_names[:columns]) if tools.method.conditional else None
    pictures.save_grid(path, images.reshape(GRID, columns, *images.shape[1:]), titles, text=text)


class Loaded(NamedTuple):
    """A run read back from its folder: what `ssl_gen.train` and `ssl_gen.load` give."""

    folder: Path
    about: dict[str, Any]  # run.json
    tools: evaluation.Tools
    states: list[State]  # one a seed, of the newest checkpoint
    final: dict[str, Any] | None  # final.json; None for a run that was stopped and can go on

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """{metric: {"mean", "std", "per_seed", ...}}. Raises UserError for a run that is not finished."""
        if self.final is None:
            raise UserError(f"{self.folder} is not finished; this goes on with it: {self.about['command']}")
        return self.final["metrics"]

    @property
    def temperatures(self) -> dict[int, float | None]:
        """Of the replicas that did not stop: the temperature of each, None where it was not or cannot be fitted."""
        stopped = {entry["seed"] for entry in self.final["stopped"]} if self.final else set()
        fitted = self.final["temperature"] if self.final and "temperature" in self.final else [None] * len(self.states)
        return {i: fitted[i] for i, seed in enumerate(self.about["seeds"]) if seed not in stopped}

    @property
    def calibrated(self) -> bool:
        """Were the probabilities of every seed brought in line with a validation split?"""
        return bool(self.temperatures) and None not in self.temperatures.values()

    def sample(self, label: int | str | None = None, count: int = 25, seed: int = 0, replica: int = 0) -> np.ndarray:
        """Images (count, H, W, C) uint8 of one class by number or name, by default of all classes in turn.

        `seed` is of the noise, `replica` is which of the run's seeds draws. Raises UserError where there is no such
        class or replica, and without a generator, or for a label where samples obey none.
        """
        names = self.about["data"]["class_names"]
        if count < 1 or not 0 <= replica < len(self.states):
            raise UserError(f"count is at least 1 and replica one of 0 to {len(self.states) - 1}")
        if label is None:
            labels = np.arange(count) % len(names)
        else:
            labels = np.full(count, find_class(label, names, self.tools.method.conditional))
        return sample(self, labels, seed, replica)

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (B, K) of images (B, H, W, C) uint8, see `predict`; UserError for another shape or type."""
        shape = tuple(self.about["data"][key] for key in ("height", "width", "channels"))
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise UserError(f"images are uint8 (B, {', '.join(map(str, shape))}), not {images.dtype} {images.shape}")
        return predict(self, images)


def load(path: str | Path) -> Loaded:
    """A trained run: its record, its method and its states. Raises UserError where the folder holds none."""
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"there is no run folder {path}")
    about = folder.read_json(path / "run.json")
    spec = spec_of(about)
    tools = evaluation.compiled(made(about, spec))
    kept = checkpoints.open_checkpoints(path / "checkpoints")
    try:
        latest = kept.latest()
        if latest is None:
            raise UserError(f"{path} holds no checkpoint yet; its run was stopped too early: {about['command']}")
        stacked = kept.restore(latest, stacked_like(about, spec, kept.note(latest), len(about["seeds"])))
    finally:
        kept.close()
    states = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(len(about["seeds"]))]
    final = folder.read_json(path / "final.json") if (path / "final.json").exists() else None
    return Loaded(path, about, tools, states, final)


def spec_of(about: dict[str, Any]) -> ImageSpec:
    """The images of a record."""
    return ImageSpec(*(about["data"][key] for key in ImageSpec._fields))


def made(about: dict[str, Any], spec: ImageSpec) -> Method:
    """The method of a record, on the latents of its encoder where it has one."""
    module = find_method(about["method"])
    method = module.make(from_dict(module.Config, about["config"]), spec)
    return solving.behind(method, made(about["encoder"], spec)) if about["encoder"] else method


def stacked_like(about: dict[str, Any], spec: ImageSpec, note: dict[str, Any], seeds: int) -> State:
    """The tree, shapes and dtypes of the states of a run, from its record and the note of its checkpoint."""
    if about["encoder"]:
        encoder = stacked_like(about["encoder"], spec, {"shapes": note["encoder_shapes"]}, seeds)
        return solving.Behind(encoder, stacked_like({**about, "encoder": None}, spec, note, seeds))
    method = made(about, spec)
    if method.fit:
        return solving.like(find_method(about["method"]).State, note["shapes"])
    images = jnp.zeros((2, *spec.shape))
    batch = Batch(images, jnp.zeros(2, jnp.int32), images)
    return jax.eval_shape(lambda: jax.vmap(lambda _: method.init(jax.random.key(0), batch))(jnp.zeros(seeds)))


def from_dict(kind: type, values: dict[str, Any]) -> Any:
    """A dataclass from what `dataclasses.asdict` and JSON made of it: nested ones and tuples come back."""
    hints = typing.get_type_hints(kind)

    def revive(name: str, value: Any) -> Any:
        if dataclasses.is_dataclass(hints[name]):
            return from_dict(hints[name], value)
        return (
            tuple(value) if isinstance(value, list) else Path(value) if hints[name] == Path | None and value else value
        )

    return kind(**{name: revive(name, value) for name, value in values.items()})


def data_of(run: Loaded, **changes: Any) -> tuple[Options, Data]:
    """The options of a run with some changed, and the data they name. Raises UserError where those are others."""
    options = dataclasses.replace(from_dict(Options, run.about["options"]), **changes)
    data = load_data(options)
    if data.dataset.sha256 != run.about["data"]["sha256"]:
        raise UserError(f"{options.dataset} is not the data that {run.folder} was trained on: its hash differs")
    return options, data


def evaluate(path: str | Path, names: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    """Measure a finished run again, by the usual metrics or those named, and add them to its final.json.

    `changes` to the run's options: `data_dir`, where the data lie now, `features`, `samples`, `foreign_dataset`.
    Returns final.json's content. Raises UserError where the run is not finished, a metric does not apply or the data
    are not those it was trained on.
    """
    run = load(path)
    final = folder.read_json(run.folder / "final.json")
    options, data = data_of(run, **changes)
    stopped = {entry["seed"] for entry in final["stopped"]}
    seeds = zip(run.about["seeds"], run.states, strict=True)
    states = {seed: state for seed, state in seeds if seed not in stopped}
    measured = record.measure(run.about, run.tools, data, states, refer(data, options), names)
    with folder.claimed(run.folder):
        final["metrics"] |= measured
        folder.write_json(run.folder / "final.json", final)
        page.write(run.folder)
    return final


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The run folders that paths name: themselves, or those inside a folder of runs. Raises UserError for none."""
    found = []
    for path in paths:
        inside = [path] if (path / "run.json").exists() else [record.parent for record in path.glob("*/run.json")]
        if not inside:
            raise UserError(f"{path} is no run folder and holds none: give the --out of `ssl-gen train`")
        found += sorted(inside, key=lambda folder_: folder.read_json(folder_ / "run.json")["created"])
    if not found:
        raise UserError("give the folder of a run, or one that holds runs")
    return found


def find_class(label: str | int, names: list[str], conditional: bool) -> int:
    """A class by its name or its number. Raises UserError with the nearest names."""
    if not conditional:
        raise UserError("this method's samples obey no label; leave --label out")
    if label in names:
        return names.index(label)
    if str(label).isdecimal() and int(label) < len(names):
        return int(label)
    near = difflib.get_close_matches(str(label), names) or names[:10]
    raise UserError(f"there is no class {label}; did you mean {' or '.join(near)}?")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within, a file that cannot be written is a UserError that names it."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another file with --out") from error


def save_images(path: Path, images: np.ndarray, names: Sequence[str], text: dict[str, str]) -> list[Path]:
    """images (N, H, W, C) uint8 with the class name of each -> the files NAME_0000.png, ... in the folder `path`.

    What cannot stand in a file's name becomes a dash. Raises UserError where the folder cannot be written, or looks
    like a picture of a kind that is not written.
    """
    if path.suffix.lower() in SUFFIXES:
        raise UserError(f"{path} is neither a .png nor a folder: choose another name with --out")
    plain, counts, saved = [re.sub(r"[^\w.-]+", "-", name) for name in names], collections.Counter(), []
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        for image, name in zip(images, plain, strict=True):
            picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            saved.append(pictures.save(path / f"{name}_{counts[name]:04d}.png", picture, text))
            counts[name] += 1
    return saved


def catalogue(what: str) -> list[dict[str, Any]]:
    """Methods, datasets or metrics, each with name and description; methods with family, paper and what they can do."""
    if what == "datasets":
        return [{"name": name, "description": text} for name, text in DATASETS.items()]
    if what == "metrics":
        return [
            {"name": name, "description": metric.meaning, "needs": list(metric.needs), "usual": metric.usual}
            for name, metric in measurements.METRICS.items()
        ]
    abilities = ("sample", "conditional", "classify", "encode", "decode")
    entries = []
    for name, module in METHODS.items():
        method = module.make(module.Config(), ImageSpec(8, 8, 1, 10))
        entries.append(
            {"name": name, "description": module.__doc__.split("\n")[0], "family": family(name), "paper": module.PAPER}
            | {ability: bool(getattr(method, ability)) for ability in abilities}
        )
    return entries


def sample(run: Loaded, labels: np.ndarray, seed: int = 0, replica: int = 0) -> np.ndarray:
    """One image (H, W, C) uint8 for each of labels (B,), from one seed's generator; UserError where it has none."""
    return evaluation.draw(run.tools, run.states[replica], labels, seed)


def predict(run: Loaded, images: np.ndarray) -> np.ndarray:
    """Probabilities (B, K) of images (B, H, W, C) uint8, mean over the seeds that did not stop; `calibrated` says
    whether each was scaled by its temperature. Raises UserError without a classifier and where all seeds stopped.
    """
    if not run.temperatures:
        raise UserError(f"every seed of {run.folder} stopped: train again with other settings")
    parts = []
    for replica, temperature in run.temperatures.items():
        found = evaluation.probabilities(run.tools, run.states[replica], images)
        parts.append(np.exp(found if temperature is None else classification.scaled(found, temperature)))
    return np.mean(parts, axis=0)
