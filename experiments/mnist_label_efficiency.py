"""How few labels does MNIST need? 20, 100 and 1,000 visible labels, 3 masks, each method on the same masks.

    floor, augmented_floor    the labels alone, plain and with moved images (the baseline)
    fixmatch                  self-training, the least error of `mnist_systems`
    gan_self_training         self-training with a GAN, the best images of `mnist_systems`
    adversarial_autoencoder   the least error of the autoencoders that draw
    label_spreading           a graph of near images; it draws nothing
    generation_floor          a conditional GAN on the visible labels alone
    ceiling, generation_ceiling, unconditional    with all labels; the last one looks at none of them

Settings are those of `mnist_systems`, chosen there at 100 labels by the error on held-out training images, and are the
same for every number of labels: rows with 100 labels are rows of that table. `unconditional` is a convolutional GAN of
the sizes and rates of `generation_ceiling`. CAS is measured of the GANs that are told the class; it trains two
classifiers a mask.

Published numbers were measured at the full length of their papers, with larger networks.

Command: python -m experiments.mnist_label_efficiency --data-dir DIR, the folder of the IDX files, after `ssl-gen
train-features mnist --data-dir DIR`; about six hours of one core, or three of two with `--index I --of 2`. With
`--missing` it trains what no record holds. On clusters: experiments/slurm.sbatch, jobset.yaml.
"""

import dataclasses

from experiments import label_efficiency, mnist_systems
from experiments.mnist_systems import GAN, HUNDRED
from experiments.table import Row
from ssl_gen.methods.adversarial import gan
from ssl_gen.reports.records import PublishedNumber

COUNTS = (20, 100, 1_000)
SHARED = {field.name: getattr(GAN, field.name) for field in dataclasses.fields(gan.Config) if hasattr(GAN, field.name)}
UNCONDITIONAL = gan.Config(**SHARED | {"unlabelled_batch": GAN.labelled_batch})
SCORED = ("gan_self_training", "generation_floor", "generation_ceiling")
SYSTEMS = mnist_systems.ROWS | {name: mnist_systems.ROWS[name]._replace(metrics=("cas",)) for name in SCORED}
NAMES = ("floor", "augmented_floor", "fixmatch", "gan_self_training", "adversarial_autoencoder", "label_spreading")
METHODS = {name: SYSTEMS[name] for name in (*NAMES, "generation_floor")}
REFERENCES = {name: SYSTEMS[name] for name in ("ceiling", "generation_ceiling")}
REFERENCES["unconditional"] = Row("gan", UNCONDITIONAL, HUNDRED)

ROWS = label_efficiency.spread(METHODS, COUNTS, REFERENCES)
BASELINE = label_efficiency.BASELINE
METRICS = ("agreement", "fid", "cas", "coverage")
MAKHZANI = "Makhzani et al. 2015, arXiv:1511.05644, table 2"
PUBLISHED = {
    "adversarial_autoencoder@100": PublishedNumber("1.90 ± 0.10", MAKHZANI, verified=False),
    "adversarial_autoencoder@1000": PublishedNumber("1.60 ± 0.08", MAKHZANI, verified=False),
}

if __name__ == "__main__":
    title = "MNIST, 20 to 1,000 visible labels, 3 seeds"
    label_efficiency.main("mnist_label_efficiency", ROWS, METRICS, title, PUBLISHED)
