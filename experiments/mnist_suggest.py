"""Which handwritten digits are worth labelling? `digits_suggest` on MNIST: by chance, typical, in rounds of ten.

Networks are half as wide as in `mnist_systems` and train a quarter to a third as long, so that a row of 5 masks takes
minutes; all else is that file's. Only errors are the point, so nothing is measured but them. `fixmatch` brings guesses
to the class frequencies of the labels, which are not those of the images where labels are chosen, nor, of few, where
chance draws them: `fixmatch_unaligned`, added when the others were known, does not.

Command: python -m experiments.mnist_suggest --data-dir DIR, the folder of the IDX files (two hours of one core)
"""

import dataclasses
from typing import Any

from experiments import mnist_systems, table
from experiments.digits_suggest import BASELINE, METRICS, compared
from experiments.table import Row
from ssl_gen.runs.options import Options

FIVE = Options(dataset="mnist", seeds=5, features="random", evaluators=())


def small(name: str, steps: int, **changes: Any) -> Row:
    """A row of `mnist_systems`, narrower and shorter."""
    row = mnist_systems.ROWS[name]
    return Row(row.method, dataclasses.replace(row.config, steps=steps, width=16, **changes), FIVE)


LEARNERS = {
    "augmented_floor": small("augmented_floor", 500),
    "fixmatch": small("fixmatch", 400, unlabelled_batch=96),
    "fixmatch_unaligned": small("fixmatch", 400, unlabelled_batch=96, alignment=False),
}
ROWS = compared(LEARNERS)

if __name__ == "__main__":
    table.main("mnist_suggest", ROWS, BASELINE, METRICS, "MNIST, labels by chance, of typical images, in rounds of ten")
