"""Photographs drawn from few labels: flows of CIFAR-10 as JPEG files, 4,000 visible labels, 3 masks.

    fixmatch         the classifier whose guesses are learnt; it draws nothing
    flow_matching    a flow of all images, each with its label or the class that `fixmatch` guesses
    null             unlabelled images are told no class: the warning
    floor            the labelled images alone
    ceiling          with all labels
    large            32 x 32 pixels and the U-Net of `--preset photographs`, half as wide, of all labels: one seed

All but `large` see 16 x 16 pixels, and a million images. The files are a lossy copy (quality 75): numbers compare with
each other. No setting was tuned. Samples are drawn without guidance.

Command: python -m experiments.cifar10_flow --data-dir DIR, where DIR/cifar10_jpeg holds train/CLASS/*.jpg and
test/CLASS/*.jpg, after `ssl-gen train-features folder:cifar10_jpeg --data-dir DIR` with and without `--size 16`; it is
for an accelerator. `fixmatch` first.
"""

import dataclasses

from experiments import table
from experiments.cifar10_jpeg_label_efficiency import LEARNING
from experiments.table import Row
from ssl_gen.augmentation import Augmentation
from ssl_gen.methods.diffusion import flow_matching
from ssl_gen.methods.self_training import fixmatch
from ssl_gen.runs.options import Options

JPEG = Options(dataset="folder:cifar10_jpeg", labels="4000", seeds=3, size=16, keep_copies=True)
FLOW = flow_matching.Config(
    steps=8_000,
    labelled_batch=128,
    unlabelled_batch=128,
    widths=(64, 128),
    blocks=2,
    augmentation=Augmentation(flip=True),
)
LARGE = dataclasses.replace(
    flow_matching.PHOTOGRAPHS, steps=12_000, widths=(64, 128, 128), learning_rate=5e-4, averaging=1e-3
)
QUIET = dataclasses.replace(JPEG, evaluators=())
GUESSING = Row("flow_matching", FLOW, dataclasses.replace(QUIET, labeller="fixmatch"))
ALL = dataclasses.replace(QUIET, labels="all")
ROWS = {
    "fixmatch": Row("fixmatch", fixmatch.Config(**LEARNING), JPEG),
    "flow_matching": GUESSING,
    "null": Row("flow_matching", dataclasses.replace(FLOW, unlabelled="null"), QUIET),
    "floor": Row("flow_matching", dataclasses.replace(FLOW, unlabelled="left_out"), QUIET),
    "ceiling": Row("flow_matching", FLOW, ALL),
    "large": Row("flow_matching", LARGE, dataclasses.replace(ALL, size=None, seeds=1)),
}
BASELINE = "flow_matching"
METRICS = ("fid", "agreement", "coverage", "copying_labelled", "copying_unlabelled", "deviation_ratio")

if __name__ == "__main__":
    title = "CIFAR-10 as JPEG files, flows of guessed labels, 4,000 visible labels"
    table.main("cifar10_flow", ROWS, BASELINE, METRICS, title)
