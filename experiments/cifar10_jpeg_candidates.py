"""Which method shall `cifar10_jpeg_label_efficiency` show? Six of self-training, by the error on images held out.

250 labels, one mask; 5,000 training images are held out with their labels (`error_validation`), twenty times as many
labels as a run sees, and no row is chosen by a test image. All six have that table's settings, and of their own page
only what makes them differ: which guesses they learn, and how much. `augmented_floor` is the labels alone.

Not run yet: six rows of two to three hours of a core each, or minutes of an accelerator. Until then `fixmatch` and
`free_match` stand in that table unchosen, as its page says.

Command: python -m experiments.cifar10_jpeg_candidates --data-dir DIR, where DIR/cifar10_jpeg holds train/CLASS/*.jpg
and test/CLASS/*.jpg
"""

import dataclasses

from experiments import cifar10_jpeg_label_efficiency, table
from experiments.cifar10_jpeg_label_efficiency import JPEG, LEARNING
from experiments.table import Row
from ssl_gen.methods.self_training import ada_match, fixmatch, flex_match, free_match, soft_match, uda

ONE = dataclasses.replace(JPEG, labels="250", seeds=1, validation=5_000)
CANDIDATES = (fixmatch, free_match, flex_match, soft_match, ada_match, uda)


def candidate(config: type) -> Row:
    """A method with the settings of the table that it has too."""
    settings = table.like(config, fixmatch.Config(**LEARNING), tuple(LEARNING))
    return Row(config.__module__.rpartition(".")[2], settings, ONE)


ROWS = {"augmented_floor": cifar10_jpeg_label_efficiency.METHODS["augmented_floor"]._replace(options=ONE)}
ROWS |= {row.method: row for row in (candidate(module.Config) for module in CANDIDATES)}
BASELINE = "augmented_floor"
METRICS = ("error_validation", "worst_class_error")

if __name__ == "__main__":
    title = "CIFAR-10 as JPEG files, 250 visible labels, one mask: candidates, by images held out"
    table.main("cifar10_jpeg_candidates", ROWS, BASELINE, METRICS, title)
