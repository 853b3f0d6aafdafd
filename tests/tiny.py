"""Any method, shrunk until it compiles in seconds, and a little data for it."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_gen.augmentation import Augmentation
from ssl_gen.core.gradient import descend
from ssl_gen.datasets.batches import Rows, rows
from ssl_gen.datasets.store import Store
from ssl_gen.methods import METHODS
from ssl_gen.types import Batch, ImageSpec, Method

SPEC = ImageSpec(8, 8, 1, 3, 12, 24, 24)
IMAGES = np.random.default_rng(0).integers(0, 256, (24, *SPEC.shape), np.uint8)
LABELS = (np.arange(24) % 3).astype(np.int32)
VISIBLE = np.where(np.arange(24) < 12, LABELS, -1).astype(np.int32)
POOL = np.arange(24, dtype=np.int32)
GUESSES = ((np.arange(24) // 2) % 3).astype(np.int32)  # of an earlier run, for methods that are told guesses
STORE = Store(IMAGES)
STEPS = 4
ROUNDING = 1e-5  # of a term: a gradient below is none, it is what float32 leaves of softmax - softmax

# Of methods whose views are those of fixmatch, which shows them moved: half of their programs is affine changes.
UNMOVED: dict[str, Any] = {"augmentation": Augmentation(), "strong": Augmentation()}

# Terms that the defaults switch off, so that the tests see every term of every method. Networks are dense, as these
# compile in a third of the time, but for a page a family: sgan, supervised, autoencoder, gan_self_training's GAN.
EVERYTHING: dict[str, dict[str, Any]] = {
    "supervised": {"network": "conv"},
    "mean_teacher": {"network": "mlp"},
    "pi_model": {"network": "mlp"},
    "temporal_ensembling": {"network": "mlp"},
    "vat": {"network": "mlp"},
    "mix_match": {"network": "mlp", "mixing_groups": 4},  # of four devices
    "re_mix_match": {"network": "mlp", "mixing_groups": 4, "views": 1},
    "triple_gan": {
        "consistency": 1.0,
        "pseudo_label": 1.0,
        "threshold": 0.0,
        "warm_up": 0.5,
        "generator_averaging": 0.5,
        "classifier_network": "mlp",
        "alignment": True,
    },
    "feature_matching": {"averaging": 0.5},  # of 4 steps: a rate of 1/2
    "bad_gan": {"generator_hidden": (4,), "discriminator_hidden": (4,), "averaging": 0.5},
    "s3gan": {
        "loss": "non_saturating",  # as in gan_self_training
        "network": "mlp",
        "generator_hidden": (4,),
        "discriminator_hidden": (4,),
        "discriminator_steps": 1,
        "averaging": 0.5,
    },
    "linear": {"views": 2},
    "mlp": {"views": 2},
    "r3gan": {"network": "mlp", "blocks": 1, "augmentation": Augmentation()},  # moved images: as in s3gan
    "gan": {"loss": "relativistic", "averaging": 0.5},
    "conditional_gan": {
        "conditioning": "auxiliary",
        "discriminator_steps": 2,
        "network": "mlp",
        "noise": 0.1,
        "averaging": 0.5,
    },
    "m1": {"first": 0.5, "least_deviation": 0.0},
    "stacked_m1_m2": {"first": 0.5, "least_deviation": 0.0, "features": 4},
    "sdgm": {"hidden": (4,), "auxiliary": 3, "samples": 1, "draws": 2},
    "adgm": {"hidden": (4,), "auxiliary": 3, "samples": 1, "draws": 2},
    "autoencoder": {"noise": 0.1, "network": "conv"},
    "adversarial_autoencoder": {"conditional_style": True},
    "vae_gan": {"network": "mlp", "input_noise": 0.1, "noise": 0.1},
    "ladder": {"hidden": (4,)},
    "fixmatch": {"threshold": 0.0, "alignment": True, "network": "mlp"},
    "uda": UNMOVED | {"threshold": 0.0, "annealing": "linear", "network": "mlp"},
    "flex_match": UNMOVED | {"network": "mlp", "threshold": 0.4},  # low: some guesses of so few steps are remembered
    "free_match": UNMOVED | {"network": "mlp"},
    "soft_match": UNMOVED | {"network": "mlp"},
    "ada_match": UNMOVED | {"threshold": 0.0, "network": "mlp"},
    "meta_pseudo_labels": {"threshold": 0.0, "warm_up": 0.25, "fine_tuning": 0.25, "network": "mlp"},
    "noisy_student": {"strong": Augmentation(), "threshold": 0.0, "warm_up": 0.25, "iterations": 2, "network": "mlp"},
    "gan_self_training": {
        "loss": "non_saturating",  # the hinge, flat where nothing is judged yet, leaves the logit's bias as it is
        "threshold": 0.0,
        "warm_up": 0.25,
        "generation": 0.5,
        "judged_unlabelled": 8,
        "classifier_network": "mlp",
    },
    "gaussian_mixture": {"unit_length": False},  # else an image at half its contrast is the same image
    "flow_matching": {"widths": (8,), "learning_rate": 0.01},
    "edm": {"widths": (8,), "learning_rate": 0.01},
    "mean_flow": {"widths": (8,), "learning_rate": 0.01, "instantaneous": 0.25},
    "dual_pseudo_training": UNMOVED
    | {
        "steps": 5,  # and one that draws; of the flow three, for its network starts at 0, layer behind layer
        "warm_up": 0.2,
        "generation": 0.6,
        "samples_per_class": 2,
        "threshold": 0.0,
        "classifier_network": "mlp",
        "flow_batch": 8,
        "widths": (8,),
        "learning_rate": 0.01,
    },
}
SMALL = {
    "steps": STEPS,
    "width": 4,
    "classifier_width": 4,
    "latent": 4,
    "labelled_batch": 4,
    "unlabelled_batch": 8,
    "generated_batch": 8,
    "classifier_generated": 4,
}


class Tiny(NamedTuple):
    """A shrunk method and what it was made from."""

    module: Any
    config: Any
    method: Method


@functools.cache
def tiny(name: str, **changes: Any) -> Tiny:
    """The method `name` at width 4 and batches of 4 to 8, all its terms switched on."""
    module = METHODS[name]
    values = {}
    for field in dataclasses.fields(module.Config):
        if field.name in SMALL:
            values[field.name] = SMALL[field.name]
        elif field.name.endswith("hidden"):
            values[field.name] = (4, 4)
        elif field.name in ("augmentation", "strong"):  # the strong one takes long to compile, and has its own tests
            values[field.name] = Augmentation(translate=1.0)
    config = module.Config(**values | EVERYTHING.get(name, {}) | changes)
    return Tiny(module, config, module.make(config, SPEC))


def some_rows(
    method: Method, phase: int, start: int, steps: int, seeds: int = 1, visible: np.ndarray = VISIBLE
) -> Rows:
    """The rows of some steps for several seeds, (steps, S, ...)."""
    sizes = method.phases[phase].labelled, method.phases[phase].unlabelled
    told = None if method.told == "nothing" else np.where(visible >= 0, visible, GUESSES)
    parts = [rows(visible, POOL, sizes, seed, phase, start, steps, told) for seed in range(seeds)]
    return Rows(*(np.stack(part, 1) for part in zip(*parts, strict=True)))


def first_rows(seeds: int = 1) -> Rows:
    """Rows for the initialisation, (S, 12)."""
    parts = [rows(VISIBLE, POOL, (12, 12), seed, 0, 0, 1) for seed in range(seeds)]
    return Rows(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def batch_of(rows: Rows) -> Batch:
    """The batch of one step's rows."""
    return STORE.fetch(jnp.asarray(IMAGES), rows)


def batch_at(method: Method, phase: int = 0, step: int = 0) -> Batch:
    """The batch of a step of a phase, of the first seed."""
    return batch_of(Rows(*(part[0, 0] for part in some_rows(method, phase, step, 1))))


def first_batch() -> Batch:
    """The batch of the initialisation, of the first seed."""
    return batch_of(Rows(*(part[0] for part in first_rows())))


def flags_of_one_device() -> str:
    """XLA_FLAGS for a process of its own, whose numbers are those of this one: it compiles as `conftest.py` says."""
    return os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=1")


def numbers(tree: Any) -> list[np.ndarray]:
    """The leaves of a tree as arrays; keys as their words."""
    leaves = jax.tree.leaves(tree)
    return [
        np.asarray(jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)
        for leaf in leaves
    ]


def same(a: Any, b: Any) -> bool:
    """Are two trees equal, bit for bit?"""
    return all(np.array_equal(x, y, equal_nan=True) for x, y in zip(numbers(a), numbers(b), strict=True))


def terms_with_gradients(name: str, player: Any, optimizer: Any, loss: Any, forward: Any = None) -> tuple[Any, dict]:
    """`descend`, which also reports the norm of each term's own gradient in the player's params, 0 for rounding.

    One backward pass serves all terms: its cotangents are one-hot in the term.
    """
    after, metrics = descend(name, player, optimizer, loss, forward)

    def terms(inputs: Any) -> dict:
        return loss(inputs) if forward else loss(inputs)[0]

    found, pull = jax.vjp(terms, forward.outputs if forward else player.params)
    one_hot = dict(zip(found, jnp.eye(len(found)), strict=True))
    gradients = jax.vmap(lambda cotangent: pull(cotangent))(one_hot)[0]
    if forward:
        gradients = jax.vmap(forward.pull)(gradients)[0]
    for i, term in enumerate(found):
        norm = optax.tree.norm(jax.tree.map(lambda leaf, i=i: leaf[i], gradients))
        none = norm <= ROUNDING * jnp.abs(metrics[f"{name}/{term}"])
        metrics[f"{name}/{term}/own"] = jnp.where(none, 0.0, norm)
    return after, metrics
