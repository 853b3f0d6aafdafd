"""Two labels a class on MNIST, 5 masks: what travels along a graph of latents, and how far each of it gets.

`autoencoder` is that of `mnist_systems`, which looks at no label; the others see its latents, with the same graph of 10
neighbours and their own defaults. Nothing was chosen here.

Command: python -m experiments.mnist_graphs --data-dir DIR, the folder of the IDX files; an hour of one core
"""

import dataclasses

from experiments import mnist_systems, table
from experiments.table import Row
from ssl_gen.methods.classical import label_spreading, poisson_learning
from ssl_gen.runs.options import Options

TWENTY = Options(dataset="mnist", labels="20", seeds=5)
LATENTS = dataclasses.replace(TWENTY, encoder="autoencoder")

ROWS = {
    "autoencoder": mnist_systems.ROWS["autoencoder"]._replace(options=TWENTY),
    "label_spreading_latents": Row("label_spreading", label_spreading.Config(), LATENTS),
    "poisson_learning_latents": Row("poisson_learning", poisson_learning.Config(), LATENTS),
}
BASELINE = "label_spreading_latents"
METRICS = ("nll",)

if __name__ == "__main__":
    table.main("mnist_graphs", ROWS, BASELINE, METRICS, "MNIST, 20 visible labels, 5 seeds")
