"""Two labels a class on MNIST, 5 masks: what travels along a graph of latents, and how far each of it gets.

`autoencoder` is that of `mnist_systems`, which looks at no label; the others see its latents, with the same graph of 10
neighbours and their own defaults; classes of `poisson_mbo` are as large as among the labels, a tenth each. Nothing was
chosen here. Published numbers are of the authors' runs on the test images too, as nodes of the graph, on latents of a
VAE, with the true sizes of the classes.

Command: python -m experiments.mnist_graphs --data-dir DIR, the folder of the IDX files; an hour of one core
"""

import dataclasses

from experiments import mnist_systems, table
from experiments.table import Row
from ssl_gen.methods.classical import label_propagation, label_spreading, poisson_learning, poisson_mbo
from ssl_gen.reports.records import PublishedNumber
from ssl_gen.runs.options import Options

TWENTY = Options(dataset="mnist", labels="20", seeds=5)
LATENTS = dataclasses.replace(TWENTY, encoder="autoencoder")

ROWS = {
    "autoencoder": mnist_systems.ROWS["autoencoder"]._replace(options=TWENTY),
    "label_propagation_latents": Row("label_propagation", label_propagation.Config(), LATENTS),
    "label_propagation_shifted_latents": Row(
        "label_propagation", label_propagation.Config(correction="mean_shift"), LATENTS
    ),
    "label_spreading_latents": Row("label_spreading", label_spreading.Config(), LATENTS),
    "poisson_learning_latents": Row("poisson_learning", poisson_learning.Config(), LATENTS),
    "poisson_mbo_latents": Row("poisson_mbo", poisson_mbo.Config(), LATENTS),
}
BASELINE = "poisson_mbo_latents"
METRICS = ("nll",)
CALDER = "Calder et al. 2020, arXiv:2006.11184, ResultsFromPaper in the authors' code 280141b, 100 trials"
PUBLISHED = {
    "label_propagation_latents": PublishedNumber("71.80 ± 10.30", CALDER),
    "poisson_learning_latents": PublishedNumber("6.41 ± 1.57", CALDER),
    "poisson_mbo_latents": PublishedNumber("2.76 ± 0.07", CALDER),
}

if __name__ == "__main__":
    table.main("mnist_graphs", ROWS, BASELINE, METRICS, "MNIST, 20 visible labels, 5 seeds", PUBLISHED)
