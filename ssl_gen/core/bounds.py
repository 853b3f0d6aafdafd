"""What a number that is asked for may be: one table, by the name of its field, of every config, option and command.

The ends are far beyond what papers use: they stop a slip of the finger, a NaN and what no machine can hold, at the door
and not after hours. A name means the same wherever it stands.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from ssl_gen.types import UserError


class Bounds(NamedTuple):
    """From `low` to `high`, both among them unless it is said that one is not."""

    low: float
    high: float
    above: bool = False  # above `low`, which is none
    below: bool = False  # below `high`, which is none

    def admit(self, value: float) -> bool:
        """Is it one? NaN is none."""
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low, high = f"{self.low:,.10g}", f"{self.high:,.10g}"
        return f"{'above' if self.above else 'of at least'} {low} and {'below' if self.below else 'at most'} {high}"


COUNT, FROM_ZERO = Bounds(1, 1e9), Bounds(0, 1e9)
BATCH = Bounds(1, 2**20)  # images a step
UNITS = Bounds(1, 2**20)  # units, channels or latents of a layer
RATE = Bounds(0, 100, above=True)  # of learning
WEIGHT = Bounds(0, 1e9)  # of a term
SHARE, PART = Bounds(0, 1), Bounds(0, 1, below=True)
DEVIATION = Bounds(0, 1e3)
MOVE = Bounds(0, 360)  # pixels or degrees
SEED = Bounds(0, 2**31 - 1)  # a key's seed is an int32 on its way to the device
SAMPLES = Bounds(1, 1_000_000)  # images that are held at once

BOUNDS: dict[str, Bounds] = {
    # how long and how much at a time
    **dict.fromkeys(("steps", "epochs", "iterations", "log_every", "evaluate_every", "checkpoint_every"), COUNT),
    **dict.fromkeys(("labelled_batch", "unlabelled_batch", "generated_batch", "classifier_generated"), BATCH),
    "flow_batch": BATCH,
    **dict.fromkeys(("judged_labelled", "judged_unlabelled"), BATCH),
    **dict.fromkeys(("discriminator_steps", "restarts", "draws", "inner", "outer"), Bounds(1, 10_000)),
    # networks
    **dict.fromkeys(("latent", "features", "width", "classifier_width", "generator_width"), UNITS),
    **dict.fromkeys(("hidden", "generator_hidden", "discriminator_hidden", "classifier_hidden"), UNITS),
    **dict.fromkeys(("encoder_hidden", "decoder_hidden", "m2_hidden", "widths"), UNITS),
    "blocks": Bounds(1, 1_000),
    "attention": Bounds(0, 1_000),  # levels
    **dict.fromkeys(("dropout", "classifier_dropout", "masking", "label_smoothing"), PART),
    "label_dropout": SHARE,
    **dict.fromkeys(("noise", "input_noise", "least_deviation", "logit_deviation"), DEVIATION),
    "log_noise_deviation": DEVIATION,
    "pixel_deviation": Bounds(0, 1e3, above=True),
    **dict.fromkeys(("log_noise_mean", "logit_mean"), Bounds(-100, 100)),
    "instantaneous": SHARE,
    "power": Bounds(0, 10),
    "floor": Bounds(0, 1e3, above=True),
    "trained_guidance": Bounds(0, 100),
    "epsilon": Bounds(0, 1e3, above=True),  # norm of an image's change
    "power_iterations": Bounds(1, 100),
    # optimisers
    **dict.fromkeys(("learning_rate", "classifier_rate", "adversarial_rate", "generator_rate", "final_rate"), RATE),
    **dict.fromkeys(("supervised_rate", "fine_tuning_rate", "warm_up_rate"), RATE),
    **dict.fromkeys(("b1", "b2", "final_b2", "decay"), PART),
    "eps_root": SHARE,
    "lookahead": Bounds(0, 10_000),  # updates; 0: none
    **dict.fromkeys(("clip", "clip_norm"), Bounds(0, 1e9, above=True)),  # of gradients
    **dict.fromkeys(("averaging", "generator_averaging"), SHARE),
    **dict.fromkeys(("l2", "weight_decay"), WEIGHT),
    # shares of a run and of the images
    **dict.fromkeys(("anneal", "first", "warm_up", "ramp", "ramp_up", "ramp_down", "fine_tuning"), SHARE),
    **dict.fromkeys(("generated_from", "generation", "real_labelled", "labelled_share"), SHARE),
    "threshold": SHARE,
    # weights of terms
    **dict.fromkeys(("adversarial", "auxiliary", "balance", "classes", "consistency", "entropy", "gamma"), WEIGHT),
    **dict.fromkeys(("fairness", "generated", "gradient_penalty", "guesses_weight", "meta", "pseudo_label"), WEIGHT),
    **dict.fromkeys(
        ("samples_weight", "unlabelled_weight", "warm_up_balance", "alpha", "beta", "denoising", "fidelity"), WEIGHT
    ),
    **dict.fromkeys(("temperature", "deviations"), Bounds(0, 1_000, above=True)),
    **dict.fromkeys(("anchor_weight", "rotation", "generator_rotation", "pull_away", "final_gamma"), WEIGHT),
    "concentration": Bounds(0.5, 1_000),  # of Beta(a, a)
    "views": Bounds(1, 64),
    "mixing_groups": BATCH,
    "prior": Bounds(0, 1e9, above=True),
    # the classical methods
    "neighbours": Bounds(1, 1_000_000),
    "clusters": Bounds(0, 1_000_000),  # 0: one a class
    "memory": Bounds(0, 2**20, above=True),
    "shrinkage": SHARE,
    "directions": Bounds(0, 1_000_000),  # 0: all
    # augmentation
    **dict.fromkeys(("translate", "rotate", "crop", "shift"), MOVE),
    **dict.fromkeys(("scale", "shear", "cutout"), SHARE),
    **dict.fromkeys(("brightness", "saturation", "contrast"), Bounds(0, 10)),
    "operations": Bounds(0, 100),
    # what a run, or a command, is asked for
    "seeds": Bounds(1, 10_000),
    **dict.fromkeys(("seed", "first_seed"), SEED),
    "replica": Bounds(0, 10_000),
    **dict.fromkeys(("count", "samples", "most", "samples_per_class"), SAMPLES),
    "next": Bounds(0, 1_000_000),
    "validation": FROM_ZERO,
    "missing_pixels": PART,
    **dict.fromkeys(("data_parallel", "accumulate"), Bounds(1, 2**20)),
    "encoder_size": Bounds(32, 4_096),  # pixels; below 32 nothing is left of an image in the last map
    "confident": SHARE,
    # how labels are hidden; `datasets.masking` says more of these
    **dict.fromkeys(("imbalance", "pool_imbalance"), Bounds(1, 1e9)),
    "out_of_distribution": PART,
    "missing": FROM_ZERO,
}
FINITE = Bounds(-1e9, 1e9)  # of a name that is not in the table


def check_value(flag: str, name: str, value: Any) -> None:
    """Raise UserError where a number, or one of several, is out of its bounds; None and what is no number may be."""
    if isinstance(value, list | tuple):
        for each in value:
            check_value(flag, name, each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        bounds = BOUNDS.get(name, FINITE)
        if not bounds.admit(value):
            shown = f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)
            raise UserError(f"{flag} is {shown}: give a number {bounds}")


def check(values: Any, prefix: str = "--") -> None:
    """Raise UserError, naming its flag, for the first number of a dataclass, and of those in it, out of its bounds."""
    for field in dataclasses.fields(values):
        value, flag = getattr(values, field.name), prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            check(value, f"{flag}.")
        else:
            check_value(flag, field.name, value)
