"""How much is left when labels or images are bad? Three families and the labels alone, on bundled digits, 3 seeds.

clean: 100 visible labels. noise: a fifth of them replaced by another class. foreign: half of the unlabelled images are
drawn shapes. missing: every image, tests too, lost 30 % of its pixels; their means stand in for them. clean_300 and
long_tail: 300 labels, in long_tail a hundred times as many of the first class as of the last, and at least one of each
(which takes 277).

`triple_gan` and the floor have the demo's settings; `fixmatch` has the same network and, as its strong augmentation,
twice the demo's with cutout, and no alignment under `foreign` and `long_tail`. Nothing was chosen on these data.

Command: python -m experiments.digits_robustness (15 minutes on two cores)
"""

from dataclasses import replace
from typing import Any

from experiments import digits_demo, table
from experiments.digits_demo import MOVED
from experiments.table import Row
from ssl_gen.augmentation import Augmentation
from ssl_gen.datasets.masking import Scheme
from ssl_gen.methods.classical import label_spreading
from ssl_gen.methods.self_training import fixmatch
from ssl_gen.runs.options import Options

HUNDRED = Options(dataset="digits", labels="100", seeds=3)
THREE_HUNDRED = replace(HUNDRED, labels="300")
FIXMATCH = fixmatch.Config(
    steps=1_500,
    labelled_batch=25,
    unlabelled_batch=100,
    width=12,
    dropout=0.3,
    threshold=0.9,
    teacher="average",
    augmentation=MOVED,
    strong=Augmentation(translate=1.6, rotate=24.0, scale=0.24, shear=0.2, cutout=0.3),
)
METHODS = {
    "supervised": replace(digits_demo.CLASSIFIER, augmentation=MOVED),
    "triple_gan": digits_demo.TRIPLE_GAN,
    "fixmatch": FIXMATCH,
    "label_spreading": label_spreading.Config(),
}
CONDITIONS = {
    "clean": HUNDRED,
    "noise": replace(HUNDRED, mask=Scheme(noise=0.2)),
    "foreign": replace(HUNDRED, mask=Scheme(out_of_distribution=0.5), out_of_distribution_dataset="shapes:8x8x1"),
    "missing": replace(HUNDRED, missing_pixels=0.3),
    "clean_300": THREE_HUNDRED,
    "long_tail": replace(THREE_HUNDRED, mask=Scheme(kind="long_tailed", imbalance=100.0)),
}


def suited(config: Any, scheme: Scheme) -> Any:
    """Settings with alignment off where the pool is known to have other class frequencies than the labels."""
    return config if scheme.representative or not hasattr(config, "alignment") else replace(config, alignment=False)


ROWS = {
    f"{condition}_{method}": Row(method, suited(config, options.mask), options)
    for condition, options in CONDITIONS.items()
    for method, config in METHODS.items()
}
BASELINE = None
METRICS = ("balanced_error",)

if __name__ == "__main__":
    table.main("digits_robustness", ROWS, BASELINE, METRICS, "Bundled digits: bad labels and bad images, 3 seeds")
