"""Other programs that show the growing log of a run: TensorBoard, Weights & Biases, MLflow; each is optional.

Each seed is a run of its own there. Nothing leaves the machine unless the environment names a server: MLflow writes
into the run's folder without MLFLOW_TRACKING_URI, Weights & Biases without an account (WANDB_MODE, WANDB_API_KEY).
"""

from __future__ import annotations

import importlib.util
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ssl_gen.core.failures import in_words
from ssl_gen.core.files import say, sha256
from ssl_gen.types import UserError

PROJECT = "ssl_gen"  # under which both servers keep the runs
PARAM = 500  # letters of a setting's value in MLflow, whose oldest servers take no more


class About(NamedTuple):
    """What a tracker is told of a run."""

    folder: Path
    seeds: Sequence[int]
    settings: Mapping[str, Any]  # nested, as run.json has them
    created: str  # when the run began, as run.json has it

    def key(self, seed: int) -> str:
        """Hexadecimal digits: those of a seed of this run whenever it goes on, and not of a new one in its folder."""
        return sha256(f"{self.created}#{self.folder.resolve().name}#{seed}".encode())[:32]


class Tracker(Protocol):
    """Where the numbers of a line go."""

    def write(self, step: int, seed: int, values: Mapping[str, float]) -> None:
        """One line of the log; a resumed run comes by its steps again."""

    def close(self) -> None:
        """No line follows."""


class TensorBoard:
    """Event files in `events/seed-N`; a resumed run overwrites from its step on."""

    def __init__(self, about: About) -> None:
        self.folder, self.writers = about.folder / "events", dict[int, Any]()

    def write(self, step: int, seed: int, values: Mapping[str, float]) -> None:
        from tensorboardX import SummaryWriter

        if seed not in self.writers:
            self.writers[seed] = SummaryWriter(str(self.folder / f"seed-{seed}"), purge_step=step)
        for name, value in values.items():
            self.writers[seed].add_scalar(name, value, step)

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()


class WeightsAndBiases:
    """A run a seed, grouped by the run's folder, in which its files lie; offline unless there is an account.

    A resumed run goes on in the same ones on a server. Offline it has new ones: of two with one name the server keeps
    the latter (wandb's issue 3841).
    """

    def __init__(self, about: About) -> None:
        import wandb

        known = "WANDB_MODE" in os.environ or "WANDB_API_KEY" in os.environ
        online = known and os.environ.get("WANDB_MODE", "online") in ("online", "run", "shared")
        self.runs: dict[int, Any] = {}
        for seed in about.seeds:
            run = wandb.init(
                project=PROJECT,
                group=about.folder.name,
                name=f"{about.folder.name}-seed-{seed}",
                dir=about.folder,
                config={**about.settings, "seed": seed},
                mode=None if known else "offline",
                reinit="create_new",  # the seeds' runs are open side by side
                settings=wandb.Settings(silent=True, console="off"),
                **({"id": about.key(seed), "resume": "allow"} if online else {}),
            )
            run.define_metric("step")
            run.define_metric("*", step_metric="step")  # its own count never goes back, as a resumed run does
            self.runs[seed] = run

    def write(self, step: int, seed: int, values: Mapping[str, float]) -> None:
        self.runs[seed].log({"step": step, **values})

    def close(self) -> None:
        for run in self.runs.values():
            run.finish()


class MLflow:
    """A run a seed in the experiment `ssl_gen`; a resumed run goes on in the same ones."""

    def __init__(self, about: About) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer ones write into no folder without it
        from mlflow import MlflowClient

        place = os.environ.get("MLFLOW_TRACKING_URI") or (about.folder / "mlruns").resolve().as_uri()
        self.client = MlflowClient(tracking_uri=place)
        experiment = self.client.get_experiment_by_name(PROJECT)
        number = experiment.experiment_id if experiment else self.client.create_experiment(PROJECT)
        self.runs = {seed: self._run(number, about, seed) for seed in about.seeds}

    def _run(self, experiment: str, about: About, seed: int) -> str:
        """The run of a seed: the one that an earlier part of the training made, or a new one with its settings."""
        key = about.key(seed)
        earlier = self.client.search_runs([experiment], f"tags.`ssl_gen.run` = '{key}'")
        if earlier:
            self.client.update_run(earlier[0].info.run_id, status="RUNNING")
            return str(earlier[0].info.run_id)
        name = f"{about.folder.name}-seed-{seed}"
        run = self.client.create_run(experiment, run_name=name, tags={"ssl_gen.run": key})
        for setting, value in flat({**about.settings, "seed": seed}):
            self.client.log_param(run.info.run_id, allowed(setting), str(value)[:PARAM])
        return str(run.info.run_id)

    def write(self, step: int, seed: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(allowed(name), float(value), now, step) for name, value in values.items()]
        self.client.log_batch(self.runs[seed], metrics=metrics)

    def close(self) -> None:
        for run in self.runs.values():
            self.client.set_terminated(run)


TRACKERS: dict[str, tuple[str, Callable[[About], Tracker]]] = {  # name, which is also the extra's -> package, tracker
    "tensorboard": ("tensorboardX", TensorBoard),
    "wandb": ("wandb", WeightsAndBiases),
    "mlflow": ("mlflow", MLflow),
}


def check(names: Sequence[str], flag: str = "--track") -> None:
    """Raise UserError where a tracker is not known or its package is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"there is no tracker {name}: give {', '.join(TRACKERS)}")
        package, _ = TRACKERS[name]
        if not installed(package):
            asked = "--tensorboard" if flag == "--tensorboard" else f"{flag} {name}"
            raise UserError(f"{asked} needs {package}: pip install 'ssl-gen[{name}]'")


def installed(package: str) -> bool:
    """Can it be imported?"""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a test took it away
        return False


def opened(names: Sequence[str], about: About) -> Iterator[Guarded]:
    """The trackers of a run, opened. Raises UserError for one that cannot be."""
    for name in dict.fromkeys(names):
        try:
            yield Guarded(name, TRACKERS[name][1](about))
        except Exception as error:  # what a stranger's client raises without a server, an account, a place to write
            raise UserError(f"{name} cannot be written to ({_said(error)}): mend it, or leave it out") from error


class Guarded:
    """A tracker, which costs no run: one that fails is told of and left."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name, self.tracker = name, tracker
        self.lost = False

    def write(self, step: int, seed: int, values: Mapping[str, float]) -> None:
        """One line, unless it failed before."""
        self._try(lambda: self.tracker.write(step, seed, values))

    def close(self) -> None:
        """Close it, unless it failed."""
        self._try(self.tracker.close)

    def _try(self, act: Callable[[], None]) -> None:
        if self.lost:
            return
        try:
            act()
        except Exception as error:  # of a stranger's client; the run's own log is whole
            self.lost = True
            say(f"{self.name} takes no more lines ({_said(error)}); metrics.jsonl has them all")


def _said(error: Exception) -> str:
    """An error in a line."""
    return in_words(error) or " ".join(str(error).split())[:300] or type(error).__name__


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings -> (dotted name, value)."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def allowed(name: str) -> str:
    """A name as MLflow takes it: `fid_svc_ref=test` has a sign that it refuses."""
    return re.sub(r"[^\w\-. :/]", "-", name.replace("=", ":"))
