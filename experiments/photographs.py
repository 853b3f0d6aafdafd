"""Every method that is trained in steps, 100 steps on small colour photographs with its own settings for them.

It shows that the networks, losses and augmentations of `--preset photographs` work at 32 x 32 x 3 without a NaN, and
what a step costs; after 100 steps nothing has been learnt yet. Batches are cut so that a CPU gets through them.

Command: python -m experiments.photographs --data-dir DIR, where DIR/photographs holds train/CLASS/*.jpg and
test/CLASS/*.jpg of 32 x 32 pixels; the record was made with the first 200 training and 50 test images of each class of
CIFAR-10, as JPEG files (about an hour of one core)
"""

import dataclasses
from types import ModuleType
from typing import Any

from experiments import table
from experiments.table import Row
from ssl_gen.methods import METHODS
from ssl_gen.runs.options import Options

STEPS = 100
FOLDER = Options(dataset="folder:photographs", labels="200", features="random", log_every=10, evaluate_every=STEPS)
BATCHES = {"labelled_batch": 10, "unlabelled_batch": 20, "generated_batch": 20, "classifier_generated": 10}
# as recorded: those of the paper's 100 labels and 50,000 images; the mask's are 0.0909 and 4.55e-4
RECORDED: dict[str, dict[str, Any]] = {
    name: {"labelled_share": 0.002, "l2": 2e-5} for name in ("m2", "stacked_m1_m2")
} | {"m1": {"l2": 2e-5}}
# a U-Net of a size that a CPU gets through, and no earlier run's guesses
SMALL_NETWORK = {"widths": (32, 64, 64), "attention": ()}
RECORDED |= {name: SMALL_NETWORK | {"unlabelled": "null"} for name in ("flow_matching", "edm", "mean_flow")}
RECORDED |= {"r3gan": {"width": 32, "unlabelled": "null"}}
RECORDED |= {"dual_pseudo_training": SMALL_NETWORK | {"flow_batch": 20, "samples_per_class": 10}}


def shortened(module: ModuleType) -> Row:
    """A method's settings for photographs with 100 steps of small batches."""
    name, config = module.__name__.split(".")[-1], module.PHOTOGRAPHS
    batches = {field.name: BATCHES[field.name] for field in dataclasses.fields(config) if field.name in BATCHES}
    return Row(name, dataclasses.replace(config, steps=STEPS, **batches, **RECORDED.get(name, {})), FOLDER)


ROWS = {name: shortened(module) for name, module in METHODS.items() if hasattr(module, "PHOTOGRAPHS")}
BASELINE = "supervised"
METRICS = ("nll",)

if __name__ == "__main__":
    table.main("photographs", ROWS, BASELINE, METRICS, "32 x 32 colour photographs, 100 steps, 200 visible labels")
