"""Photographs drawn from few labels on two cores: flows of CIFAR-10 as JPEG files, 16 x 16 pixels, 4,000 labels.

    linear           the classifier whose guesses are learnt, on features of EfficientNet-Lite0, which learnt ImageNet's
                     classes, at 160 x 160 pixels; it draws nothing
    flow_matching    a flow of all images, each with its label or the class that `linear` guesses
    floor            the labelled images alone
    ceiling          with all labels

Each flow sees 614,400 images, its network 2 x 2 pixels as one. One mask. The files are a lossy copy (quality 75):
numbers compare with each other, and FID is on features of a convnet trained on these files at 16 x 16. No setting was
tuned. Samples are drawn without guidance. `cifar10_flow` is the same for an accelerator, longer and wider.

Command: python -m experiments.photographs_flow --data-dir DIR, where DIR/cifar10_jpeg holds train/CLASS/*.jpg and
test/CLASS/*.jpg, after `ssl-gen train-features folder:cifar10_jpeg --data-dir DIR --keep-copies --size 16`; it needs
the extra `pretrained`. Half an hour of one core a row, `linear` first.
"""

import dataclasses

from experiments import table
from experiments.table import Row
from ssl_gen.augmentation import Augmentation
from ssl_gen.methods.classical import linear
from ssl_gen.methods.diffusion import flow_matching
from ssl_gen.runs.options import Options

JPEG = Options(dataset="folder:cifar10_jpeg", labels="4000", seeds=1, keep_copies=True)
SEEN = dataclasses.replace(JPEG, encoder="efficientnet_lite0", encoder_size=160)
SMALL = dataclasses.replace(JPEG, size=16, evaluators=())
FLOW = flow_matching.Config(
    steps=4_800,
    labelled_batch=128,
    unlabelled_batch=128,
    widths=(48, 96),
    fold=True,
    augmentation=Augmentation(flip=True),
)
LEFT_OUT = dataclasses.replace(FLOW, unlabelled="left_out")
ROWS = {
    "linear": Row("linear", linear.Config(), SEEN),
    "flow_matching": Row("flow_matching", FLOW, dataclasses.replace(SMALL, labeller="linear")),
    "floor": Row("flow_matching", LEFT_OUT, SMALL),
    "ceiling": Row("flow_matching", FLOW, dataclasses.replace(SMALL, labels="all")),
}
BASELINE = None  # `linear` sees larger images, whose masks have other hashes
METRICS = ("fid", "agreement", "coverage", "copying_labelled", "copying_unlabelled", "deviation_ratio")

if __name__ == "__main__":
    title = "CIFAR-10 as JPEG files at 16 x 16, flows of guessed labels, 4,000 visible labels"
    table.main("photographs_flow", ROWS, BASELINE, METRICS, title)
