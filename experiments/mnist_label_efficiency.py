"""How few labels does MNIST need? 20, 100 and 1,000 visible labels, 3 masks, each method on the same masks.

The rows are those of `digits_label_efficiency`; settings are those of `mnist_systems`, chosen there at 100 labels by
the error on held-out training images, and are the same for every number of labels. `unconditional` is a convolutional
GAN of the sizes and rates of its `generation_ceiling`. CAS is measured where samples obey labels.

Published numbers were measured at the full length of their papers, with other networks.

Command: python -m experiments.mnist_label_efficiency --data-dir DIR, the folder of the IDX files, after `ssl-gen
train-features mnist --data-dir DIR` (its features are asked for by name: without them no run can be concluded); at most
6 hours on two idle cores, two of `--index I --of 2` at a time. On clusters: experiments/slurm.sbatch, jobset.yaml.
"""

import dataclasses

from experiments import label_efficiency, mnist_systems
from experiments.mnist_systems import FEW, GAN, MOVED, PLAIN, TRIPLE
from experiments.table import Published, Row
from ssl_gen.methods.adversarial import gan
from ssl_gen.methods.classical import label_spreading
from ssl_gen.setting import Options

THREE = Options(dataset="mnist", seeds=3, features="trained")
COUNTS = (20, 100, 1_000)
SCORE = ("cas",)
SHARED = {field.name: getattr(GAN, field.name) for field in dataclasses.fields(gan.Config) if hasattr(GAN, field.name)}
UNCONDITIONAL = gan.Config(**SHARED | {"unlabelled_batch": GAN.labelled_batch})
METHODS = {
    "floor": Row("supervised", PLAIN, THREE),
    "augmented_floor": Row("supervised", MOVED, THREE),
    "fixmatch": Row("fixmatch", mnist_systems.ROWS["fixmatch"].config, THREE),
    "triple_gan": Row("triple_gan", TRIPLE, THREE, SCORE),
    "label_spreading": Row("label_spreading", label_spreading.Config(), THREE),
    "generation_floor": Row("conditional_gan", FEW, THREE, SCORE),
}
REFERENCES = {
    "ceiling": Row("supervised", mnist_systems.ROWS["ceiling"].config, THREE),
    "generation_ceiling": Row("conditional_gan", GAN, THREE, SCORE),
    "unconditional": Row("gan", UNCONDITIONAL, THREE),
}

ROWS = label_efficiency.spread(METHODS, COUNTS, REFERENCES)
BASELINE = label_efficiency.BASELINE
METRICS = ("agreement", "fid", "cas", "coverage")
LI = "Li et al. 2017, arXiv:1703.02291, tables 1 and 2"
PUBLISHED = {
    "triple_gan@20": Published("4.81 ± 4.95", LI),
    "triple_gan@100": Published("0.91 ± 0.58", LI),
}

if __name__ == "__main__":
    title = "MNIST, 20 to 1,000 visible labels, 3 seeds"
    label_efficiency.main("mnist_label_efficiency", ROWS, METRICS, title, PUBLISHED)
