"""Ten label masks of MNIST with 100 labels, on one GPU, the 10 seeds of a row in one compiled program.

`feature_matching` trains as long as its authors' script does (300 epochs), the others as long as in `mnist_systems`,
where the same settings trained three of these masks (`stacked_m1_m2`: smaller batches, another `alpha`). Nothing was
chosen here.

Command: python -m experiments.mnist_ten_masks --data-dir DIR, the folder of the IDX files
"""

import dataclasses

from experiments import mnist_systems, table
from experiments.table import Row
from ssl_gen.methods.adversarial import feature_matching
from ssl_gen.reports.records import PublishedNumber
from ssl_gen.runs.options import Options

TEN = Options(dataset="mnist", labels="100", seeds=10)


def same(name: str, **changes: object) -> Row:
    """A row of `mnist_systems` with ten masks, and some settings changed."""
    row = mnist_systems.ROWS[name]
    return Row(row.method, dataclasses.replace(row.config, **changes), TEN)


ROWS = {
    "augmented_floor": same("augmented_floor"),
    "feature_matching": Row("feature_matching", feature_matching.Config(), TEN),
    "stacked_m1_m2": same("stacked_m1_m2", unlabelled_batch=100, alpha=2.0),
    "triple_gan": same("triple_gan"),
    "fixmatch": same("fixmatch"),
    "gan_self_training": same("gan_self_training"),
}
BASELINE = "augmented_floor"
METRICS = ()
PUBLISHED = {
    "feature_matching": PublishedNumber("0.93 ± 0.07", "Salimans et al. 2016, as quoted by Li et al. 2017, table 1")
}

if __name__ == "__main__":
    table.main("mnist_ten_masks", ROWS, BASELINE, METRICS, "MNIST, 100 visible labels, 10 seeds", PUBLISHED)
