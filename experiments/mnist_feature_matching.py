"""Feature matching on MNIST with 100 labels, at a twelfth of the paper's length.

15,000 steps (25 epochs; the paper: 300) with the learning rate annealed over the second half, 3 label masks; beside it
the labels alone with the same hidden layers. Published, at full length: 0.93 ± 0.07 % (Salimans et al. 2016, as quoted
by Li et al. 2017, table 1).

Command: python -m experiments.mnist_feature_matching --data-dir DIR, the folder of the IDX files (40 minutes on two
cores)
"""

from experiments import table
from experiments.table import Row
from ssl_gen.methods.adversarial import feature_matching
from ssl_gen.methods.classical import supervised
from ssl_gen.runs.options import Options

HUNDRED = Options(dataset="mnist", labels="100", seeds=3)
METHOD = feature_matching.Config(steps=15_000)

ROWS = {
    "floor": Row("supervised", supervised.Config(steps=3_000, hidden=METHOD.discriminator_hidden), HUNDRED),
    "feature_matching": Row("feature_matching", METHOD, HUNDRED),
}
BASELINE = "floor"
METRICS = ("nll",)

if __name__ == "__main__":
    table.main("mnist_feature_matching", ROWS, BASELINE, METRICS, "MNIST, 100 visible labels, 3 seeds")
