"""Photographs on an accelerator in ten minutes: two networks, 40, 250 and 4,000 labels, ten masks side by side.

    wide_resnet    WRN-28-2, the network of the papers on few labels
    airbench       Jordan 2024's (arXiv:2404.00498), at full width

Both are trained by `fixmatch` with the settings of `cifar10_jpeg_label_efficiency` but for the network and a third of
the steps; the ten seeds of a row are one program (vmap), products are in bfloat16. The first three masks are those of
that table, where floors and ceiling stand. The files are a lossy copy of CIFAR-10 (quality 75), and nothing was chosen
on them. At this length neither network is at its best: rows tell what a network is worth at equal steps, and what masks
differ by.

How the length was found: on an H200 the step of `fixmatch` on WRN-28-2 ran at 97 TFLOP/s in bfloat16, one seed alone
(`benchmarks/accelerator.json`: 74 steps of 1.31 TFLOP a second). A step of these rows is 0.378 TFLOP a seed with
WRN-28-2 and 0.198 with airbench (`runs.cost.flop`), so that 2,000 steps of ten seeds, three rows each, are 35,000
TFLOP: six minutes at that rate, if seeds side by side are no faster than one after the other and airbench is no slower
a TFLOP. Four are left to read 60,000 files, compile and test. Alone on the chip a row of WRN-28-2
would train in 78 s, one of airbench in 41.

Command: python -m experiments.many experiments/accelerator_ten_masks.txt --seconds 590 --workers 6 --out DIR --
--data-dir DATA, where DATA/cifar10_jpeg holds train/CLASS/*.jpg and test/CLASS/*.jpg; on another machine
python -m experiments.cifar10_jpeg_ten_masks --data-dir DATA. It was not run yet.
"""

import dataclasses

from experiments import label_efficiency, table
from experiments.cifar10_jpeg_label_efficiency import JPEG, LEARNING
from experiments.table import Row
from ssl_gen.methods.self_training import fixmatch

STEPS = 2_000
COUNTS = (40, 250, 4_000)
TEN = dataclasses.replace(JPEG, seeds=10, replicas="vmap", precision="bfloat16")
NETWORKS = {"wide_resnet": 32, "airbench": 64}  # channels of the first layer: WRN-28-2's, and Jordan 2024's
METHODS = {
    network: Row("fixmatch", fixmatch.Config(**LEARNING | {"steps": STEPS, "network": network, "width": width}), TEN)
    for network, width in NETWORKS.items()
}
ROWS = label_efficiency.spread(METHODS, COUNTS, {})
BASELINE = None
METRICS = ("worst_class_error", "nll")


def small(row: Row) -> Row:
    """A row with few channels and images a step, for --tiny."""
    return row._replace(config=dataclasses.replace(row.config, width=4, labelled_batch=4, unlabelled_batch=8))


TINY = {name: small(row) for name, row in label_efficiency.tiny(ROWS).items()}

if __name__ == "__main__":
    title = "CIFAR-10 as JPEG files, 40, 250 and 4,000 visible labels, two networks, 10 seeds in one program"
    table.main("cifar10_jpeg_ten_masks", ROWS, BASELINE, METRICS, title, tiny=TINY)
