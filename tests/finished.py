"""Finished runs that many tests look at: each is trained once a session, by whichever process first asks for it.

Their folders are read, never written to: a test that changes something takes a `copy`.
"""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from ssl_gen.methods.adversarial import gan
from ssl_gen.methods.classical import linear, pca, supervised
from ssl_gen.methods.variational import m2
from ssl_gen.runs.options import Options
from ssl_gen.runs.train import train

SETTINGS = {"dataset": "digits", "labels": "30", "seeds": 2, "replicas": "loop", "quiet": True}
SETTINGS |= {"features": "pixels", "samples": 200}  # what takes least to measure
FITTED = {"replicas": "auto"}


class Recipe(NamedTuple):
    """What a run is made of."""

    method: str
    config: Any
    settings: dict[str, Any]  # where they are not `SETTINGS`; `encoder` names another run of this page


RECIPES = {
    "supervised": Recipe(
        "supervised",
        supervised.Config(steps=12, labelled_batch=4, hidden=(4,)),
        {"log_every": 2, "evaluate_every": 4, "checkpoint_every": 3},
    ),
    "calibrated": Recipe(
        "supervised",
        supervised.Config(steps=30, labelled_batch=8, hidden=(8,)),
        {"labels": "100", "validation": 200},
    ),
    "gan": Recipe(
        "gan",
        gan.Config(steps=10, unlabelled_batch=4, latent=4, generator_hidden=(4,), discriminator_hidden=(4,)),
        {"seeds": 1, "checkpoint_every": 3},
    ),
    "m2": Recipe(
        "m2",
        m2.Config(steps=6, labelled_batch=4, unlabelled_batch=4, latent=4, hidden=(4,), learning_rate=0.03),
        {"validation": 100, "checkpoint_every": 2, "evaluators": ("error", "fid:2", "elbo", "samples:3")},
    ),
    "pca": Recipe("pca", pca.Config(latent=5), FITTED),
    "linear": Recipe("linear", linear.Config(), FITTED),
    "linear_on_pca": Recipe("linear", linear.Config(), FITTED | {"encoder": "pca"}),
}


class Finished(NamedTuple):
    """The runs of `RECIPES`, in a folder that all processes of a session share."""

    base: Path

    def __call__(self, name: str) -> Path:
        """The folder of a run."""
        folder = self.base / name
        if not (folder / "final.json").exists():
            options = self.options(name, folder)  # makes the run of an encoder first
            with open(self.base / f"{name}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                train(RECIPES[name].method, RECIPES[name].config, options)  # reads what another process has made
        return folder

    def copy(self, name: str, target: Path) -> Path:
        """A copy of a run, to be changed."""
        return Path(shutil.copytree(self(name), target))

    def options(self, name: str, out: Path, **changes: Any) -> Options:
        """What a run was asked for, but for where it goes and for some changes."""
        settings = SETTINGS | RECIPES[name].settings
        if "encoder" in settings:
            settings = settings | {"encoder": str(self(settings["encoder"]))}
        return Options(**settings | {"out": out} | changes)
