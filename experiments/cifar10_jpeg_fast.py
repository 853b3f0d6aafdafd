"""The supervised ceiling on small photographs: `--preset fast` with all labels of CIFAR-10 as JPEG files.

The files are a lossy copy (quality 75), so numbers compare with each other and not with CIFAR-10's, on which the paper
has an error of 6 % at full width (Jordan 2024, arXiv:2404.00498; six views at the test, where here there is one). At
half width every block has half the channels, and a run 0.3 of the products.

Command: python -m experiments.cifar10_jpeg_fast --data-dir DIR, where DIR/cifar10_jpeg holds train/CLASS/*.jpg and
test/CLASS/*.jpg. Half width took 18 minutes on two quiet cores (with the large pages of docs/own_images.md), full width
has 3.5 times its operations.
"""

import dataclasses

from experiments import table
from experiments.table import Row
from ssl_gen.methods.classical import supervised
from ssl_gen.runs.options import Options

EPOCHS_2 = 96  # updates, two epochs; an evaluation costs as much as three of them
# Copies of test images stay, as they do in the published set
JPEG = Options(dataset="folder:cifar10_jpeg", labels="all", keep_copies=True, evaluate_every=EPOCHS_2, log_every=12)


def of(width: int) -> Row:
    """The fast preset with so many channels in the first block."""
    return Row("supervised", dataclasses.replace(supervised.FAST, width=width), JPEG)


ROWS = {"full_width": of(64), "half_width": of(32)}
FEW = dataclasses.replace(supervised.FAST, width=8, steps=table.TINY_STEPS, labelled_batch=32)
TINY = {name: row._replace(config=FEW) for name, row in ROWS.items()}
BASELINE = None
METRICS = ("nll",)

if __name__ == "__main__":
    title = "CIFAR-10 as JPEG files, all labels, the fast preset"
    table.main("cifar10_jpeg_fast", ROWS, BASELINE, METRICS, title, tiny=TINY)
