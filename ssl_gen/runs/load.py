"""A run read back from its folder, ready to sample and to classify."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ssl_gen.core import bounds, names
from ssl_gen.core.files import say
from ssl_gen.core.plain import from_plain
from ssl_gen.evaluation.densities import prepared
from ssl_gen.evaluation.inference import Compiled, draw_samples, probabilities
from ssl_gen.metrics import classification
from ssl_gen.metrics.statistics import Summary
from ssl_gen.reports.records import FinalRecord, RunRecord, check_weights, load_both, load_run
from ssl_gen.runs.blueprint import blueprint
from ssl_gen.runs.data import Data, load_data, recorded
from ssl_gen.runs.options import Options
from ssl_gen.training.checkpoints import read_newest
from ssl_gen.training.programs import Replica
from ssl_gen.types import Method, State, UserError


class Run(NamedTuple):
    """A run read back from its folder: what `ssl_gen.train` and `ssl_gen.load` give."""

    folder: Path
    record: RunRecord
    compiled: Compiled
    states: list[State]  # one a seed, of the newest checkpoint
    final: FinalRecord | None  # None for a run that was stopped and can go on
    step: int | None = None  # of the states of a run that can go on; None: the last
    broken: tuple[int, ...] = ()  # replicas of such a run that stopped for a number that is not finite

    @property
    def finished(self) -> FinalRecord:
        """final.json. Raises UserError for a run that is not finished."""
        if self.final is None:
            raise UserError(f"{self.folder} is not finished; this goes on with it: {self.record.command}")
        return self.final

    @property
    def metrics(self) -> dict[str, Summary]:
        """{metric: {"mean", "std", "per_seed", ...}}. Raises UserError for a run that is not finished."""
        return self.finished.metrics

    @property
    def temperatures(self) -> dict[int, float | None]:
        """Of the replicas that did not stop: the temperature of each, None where it was not or cannot be fitted."""
        stopped = {stop.seed for stop in self.final.stopped} if self.final else set()
        fitted = (self.final and self.final.temperature) or [None] * len(self.states)
        stopped |= {self.record.seeds[replica] for replica in self.broken}
        return {i: fitted[i] for i, seed in enumerate(self.record.seeds) if seed not in stopped}

    @property
    def calibrated(self) -> bool:
        """Were the probabilities of every seed brought in line with a validation split?"""
        return bool(self.temperatures) and None not in self.temperatures.values()

    def sampler(self, **settings: Any) -> Any:
        """The sampler of the method, some of its settings changed. Raises UserError for one that it does not have."""
        return changed_sampler(self.compiled.method, settings)

    def check_trained(self) -> None:
        """Raise UserError where no step was trained, and where every seed stopped."""
        if self.step == 0:
            raise UserError(f"{self.folder} is not trained yet; this goes on with it: {self.record.command}")
        if not self.temperatures:
            raise UserError(f"every seed of {self.folder} stopped: train again with other settings")

    def trained_replica(self, replica: int | None = None) -> int:
        """A replica, by default the first that did not stop.

        Raises UserError where there is no such one, it stopped, or nothing was trained.
        """
        self.check_trained()
        if replica is None:
            return next(iter(self.temperatures))
        if isinstance(replica, bool) or not isinstance(replica, int) or not 0 <= replica < len(self.states):
            raise UserError(f"replica {replica} is none: give one of 0 to {len(self.states) - 1}")
        if replica not in self.temperatures:
            others = ", ".join(map(str, self.temperatures))
            raise UserError(f"replica {replica} of {self.folder} stopped while it trained: choose one of {others}")
        return replica

    def sample(
        self,
        label: int | str | None = None,
        count: int = 25,
        seed: int = 0,
        replica: int | None = None,
        **settings: Any,
    ) -> np.ndarray:
        """Images (count, H, W, C) uint8 of one class by number or name, by default of all classes in turn.

        `seed` is of the noise, `replica` is which of the run's seeds draws (by default the first that did not stop),
        `settings` are of the method's sampler.
        Raises UserError where there is no such class, replica or setting, and without a generator, or for a label where
        samples obey none.
        """
        classes = self.record.data.class_names
        bounds.check_value("count", "count", count)
        if label is None:
            labels = np.arange(count) % len(classes)
        else:
            labels = np.full(count, find_class(label, classes, self.compiled.method.conditional))
        return self.draw(labels, seed, replica, self.sampler(**settings))

    def draw(self, labels: np.ndarray, seed: int = 0, replica: int | None = None, sampler: Any = None) -> np.ndarray:
        """One image (H, W, C) uint8 for each of labels (B,), from one seed's generator.

        Raises UserError where there is no such replica, for labels that are no classes, and without a generator.
        """
        replica = self.trained_replica(replica)
        labels, classes = np.asarray(labels), self.record.data.classes
        whole = labels.ndim == 1 and len(labels) and np.issubdtype(labels.dtype, np.integer)
        if not (whole and labels.min() >= 0 and labels.max() < classes):
            raise UserError(f"labels are (B,) whole numbers of 0 to {classes - 1}, one image or more")
        bounds.check_value("the number of labels", "samples", len(labels))
        bounds.check_value("seed", "seed", seed)
        return draw_samples(self.compiled, self.drawing(replica, sampler), labels, seed, sampler)

    def drawing(self, replica: int, sampler: Any = None) -> State:
        """The state of a replica that a sampler can draw from; a density of latents is fitted once, and kept.

        It is fitted to the run's training images. Raises UserError where these are not there any more.
        """

        def shown() -> np.ndarray:
            if not self.record.options:
                raise UserError(
                    f"{self.folder} was exported without its density of latents: export the run again with "
                    "--sampler.latents class_density"
                )
            return data_of(self)[1].shown(replica)

        self.states[replica] = prepared(self.compiled, self.states[replica], sampler, shown)
        return self.states[replica]

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (B, K) of images (B, H, W, C) uint8, mean over the seeds that did not stop.

        `calibrated` says whether each was scaled by its temperature. Raises UserError for images of another shape or
        type, without a classifier and where all seeds stopped.
        """
        shape = self.record.data.spec.shape
        try:
            images = np.asarray(images)
        except ValueError as error:  # a list of images of several shapes
            raise UserError(f"images are one array uint8 (B, {', '.join(map(str, shape))}): {error}") from error
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise UserError(f"images are uint8 (B, {', '.join(map(str, shape))}), not {images.dtype} {images.shape}")
        self.check_trained()
        return np.mean([np.exp(self.log_probabilities(replica, images)) for replica in self.temperatures], axis=0)

    def log_probabilities(self, replica: int, images: np.ndarray) -> np.ndarray:
        """Those (B, K) of one replica that did not stop, scaled by its temperature where it has one.

        Raises UserError for a method without a classifier, and where its scores are NaN.
        """
        found, temperature = probabilities(self.compiled, self.states[replica], images), self.temperatures[replica]
        return found if temperature is None else classification.scaled(found, temperature)


def load(path: str | Path) -> Run:
    """A trained run: its record, its method and its states. Raises UserError where the folder holds none.

    Where its last checkpoint is not whole, its states are those of the newest that is, and it counts as not finished.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"there is no run folder {path}")
    record, final = load_both(path)
    plan = blueprint(record.method, record.config, record.encoder, record.spec, record.products)
    kept = read_newest(path / "checkpoints", lambda note: plan.kept_like(note, len(record.seeds)))
    if kept is None:
        raise UserError(f"{path} holds no whole checkpoint; this makes one: {record.command}")
    check_weights(path, kept.note, record)
    if final is not None and not is_final(kept.step, record, final):
        say(f"{path} is finished, but its weights are of step {kept.step}; this trains the rest: {record.command}")
        final = None  # it speaks of other weights
    stacked = kept.states.state if isinstance(kept.states, Replica) else kept.states
    states = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(len(record.seeds))]
    step = kept.step if isinstance(kept.states, Replica) and final is None else None
    broken = tuple(int(replica) for replica in kept.note["stopped"]) if final is None else ()
    return Run(path, record, plan.compiled, states, final, step, broken)


def is_final(step: int, record: RunRecord, final: FinalRecord) -> bool:
    """Is a checkpoint of this step the one that a finished run ended with?"""
    return step == record.steps or len(final.stopped) == len(final.seeds)


def data_of(run: Run, **changes: Any) -> tuple[Options, Data]:
    """The options of a run with some changed, and the data they name. Raises UserError where those are others."""
    try:
        options = dataclasses.replace(from_plain(Options, run.record.options), **changes)
    except ValueError as error:
        raise UserError(f"the options in {run.folder / 'run.json'} do not fit this version: {error}") from error
    data = load_data(options, recorded(run.record))
    if data.dataset.sha256 != run.record.data.sha256:
        raise UserError(f"{options.dataset} is not the data that {run.folder} was trained on: its hash differs")
    return options, data


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The run folders that paths name: themselves, or those inside a folder of runs. Raises UserError for none."""
    found = []
    for path in paths:
        inside = [path] if (path / "run.json").exists() else [record.parent for record in path.glob("*/run.json")]
        if not inside:
            raise UserError(f"{path} is no run folder and holds none: give the --out of `ssl-gen train`")
        found += sorted(inside, key=lambda folder: load_run(folder).created)
    if not found:
        raise UserError("give the folder of a run, or one that holds runs")
    return found


def find_class(label: str | int, classes: Sequence[str], conditional: bool) -> int:
    """A class by its name, or, where no class has a number for its name, by its number from 0.

    Raises UserError with the nearest names.
    """
    if not conditional:
        raise UserError("this method's samples obey no label; leave --label out")
    asked = str(label)
    if asked in classes:
        return list(classes).index(asked)
    numbered = [name for name in classes if names.is_number(name)]
    if names.is_number(asked) and not numbered and int(asked) < len(classes):
        return int(asked)
    same = [name for name in numbered if names.is_number(asked) and int(name) == int(asked)]
    near = same or difflib.get_close_matches(asked, classes) or classes[:10]
    raise UserError(f"there is no class {asked}; did you mean {' or '.join(near)}?")


def changed_sampler(method: Method, settings: dict[str, Any]) -> Any:
    """The sampler of a method with some settings changed. Raises UserError for one that it does not have."""
    fields = [field.name for field in dataclasses.fields(method.sampler)]
    unknown = [name for name in settings if name not in fields]
    if unknown:
        has = f"its sampler has {', '.join(fields)}" if fields else "its sampler has no settings"
        raise UserError(f"there is no sampler setting {unknown[0]}: {has}")
    return dataclasses.replace(method.sampler, **settings)


def sampler_of(folder: Path) -> Any:
    """How the method of a run draws samples unless asked for otherwise, from its record alone."""
    record = load_run(folder)
    return blueprint(record.method, record.config, record.encoder, record.spec, record.products).method.sampler
