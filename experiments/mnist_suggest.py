"""Which handwritten digits are worth labelling? `digits_suggest` on MNIST: by chance, typical, in rounds of ten.

Networks are half as wide as in `mnist_systems` and train a quarter to a third as long, so that a row of 5 masks takes
minutes; all else is that file's. Only errors are the point, so nothing is measured but them.

Command: python -m experiments.mnist_suggest --data-dir DIR, the folder of the IDX files (two hours of one core)
"""

import dataclasses

from experiments import mnist_systems, table
from experiments.digits_suggest import BASELINE, METRICS, compared
from experiments.table import Row
from ssl_gen.runs.options import Options

FIVE = Options(dataset="mnist", seeds=5, features="random", evaluators=())


def small(name: str, steps: int, **changes: int) -> Row:
    """A row of `mnist_systems`, narrower and shorter."""
    row = mnist_systems.ROWS[name]
    return Row(row.method, dataclasses.replace(row.config, steps=steps, width=16, **changes), FIVE)


ROWS = compared(
    {"augmented_floor": small("augmented_floor", 500), "fixmatch": small("fixmatch", 400, unlabelled_batch=96)}
)

if __name__ == "__main__":
    table.main("mnist_suggest", ROWS, BASELINE, METRICS, "MNIST, labels by chance, of typical images, in rounds of ten")
