"""Every system on MNIST with 100 labels: 3 masks, at most 10 minutes a run on one core.

`ladder`, `sdgm` and `adgm` have 30 to 40 minutes.

The floors see the labels alone, `augmented_floor` with the strong augmentation of `fixmatch`, `hand_floor` with the
mild one of the models that draw what they are shown; the ceiling sees all labels.
`generation_floor` and `generation_ceiling` are one conditional GAN, with the networks, rates and steps of the second
phase of `gan_self_training`, on the visible labels alone and on all of them. `triple_gan_dense` has the paper's dense
generator and discriminator, `triple_gan` convolutions. `linear`, `mlp`, `k_means`, `label_propagation` and
`label_spreading` see pixels; rows that end in `_latents` see those of the row `autoencoder`. `feature_matching` has its
own, longer record (`mnist_feature_matching`). Rows that end in `_class_density` are those above them, whose samples are
drawn from a Gaussian of the latents of each guessed class, not from N(0, I): read `agreement` beside `deviation_ratio`,
for samples that are all alike obey too. `adversarial_autoencoder_conditional_style` holds the styles of each class to
N(0, I).

Lengths and sizes are what these minutes allow; what was chosen was chosen by the error on 1,000 held-out training
images with their labels (`--validation 1000`), ten times as many as a run sees; the GAN's rates and length by how often
samples of a seed with all labels agreed with theirs, the rate of `vae` and how it falls by its bound on training
images; never by the error on the test images. For three nothing was chosen: `ladder` has the settings of its paper but
for its length, 30 passes over the images, not 150; `sdgm` and `adgm` have widths, batches and steps that fit into half
an hour (the script has 600,000 steps), rate and augmentation of `m2`.

Command: python -m experiments.mnist_systems --data-dir DIR, the folder of the IDX files, after `ssl-gen train-features
mnist --data-dir DIR` (some ten hours of one core); `--only ROW` in several processes, then once without, makes the rows
side by side.
"""

import dataclasses

from experiments import table
from experiments.table import Row
from ssl_gen.augmentation import STRONG_DIGITS, Augmentation
from ssl_gen.methods.adversarial import conditional_gan, sgan, triple_gan
from ssl_gen.methods.classical import (
    k_means,
    label_propagation,
    label_spreading,
    linear,
    mlp,
    poisson_learning,
    poisson_mbo,
    supervised,
)
from ssl_gen.methods.self_training import fixmatch, gan_self_training, mean_teacher, meta_pseudo_labels, pseudo_label
from ssl_gen.methods.variational import (
    adgm,
    adversarial_autoencoder,
    autoencoder,
    ladder,
    m2,
    sdgm,
    stacked_m1_m2,
    vae,
    vae_gan,
)
from ssl_gen.runs.options import Options

HUNDRED = Options(dataset="mnist", labels="100", seeds=3)
ALL = dataclasses.replace(HUNDRED, labels="all")
HAND = Augmentation(translate=2.0, rotate=15.0, scale=0.15, shear=0.15)  # of models that draw what they are shown
LATENTS = dataclasses.replace(HUNDRED, encoder="autoencoder")
PLAIN = supervised.Config(steps=2_000, network="conv", labelled_batch=32)
MOVED = dataclasses.replace(PLAIN, augmentation=STRONG_DIGITS)
GAN = conditional_gan.Config(
    steps=3_500,
    discriminator_steps=1,
    latent=64,
    width=32,
    learning_rate=1e-3,
    anneal=0.5,
    b1=0.5,
    b2=0.999,
    averaging=0.01,
)
FEW = dataclasses.replace(GAN, augmentation=Augmentation(shift=28 // 8, cutout=0.5))  # Zhao et al. 2020, code
TRIPLE = triple_gan.Config(
    steps=1_800,
    warm_up=0.1,
    warm_up_balance=None,
    warm_up_rate=None,
    labelled_batch=32,
    unlabelled_batch=96,
    generated_batch=96,
    classifier_generated=32,
    real_labelled=0.02,
    learning_rate=1e-3,
    l2=1e-4,
    decayed="everything",
    adversarial=0.03,
    entropy=0.0,
    balance=1.0,
    generated=0.3,
    pseudo_label=1.0,
    threshold=0.9,
    generator_averaging=0.01,
    augmentation=STRONG_DIGITS,
)

CONVOLUTIONAL = dataclasses.replace(
    TRIPLE,
    steps=3_300,
    network="conv",
    width=32,
    latent=64,
    input_noise=0.0,
    unlabelled_batch=64,
    generated_batch=64,
)

SHARE, L2 = 0.002, 2e-5  # N_l / N and 1 / N of the paper's 50,000 images, as recorded; the mask's: 0.00166, 1.66e-5
M2 = m2.Config(
    steps=3_000,
    labelled_batch=50,
    unlabelled_batch=100,
    alpha=10.0,
    learning_rate=1e-3,
    augmentation=HAND,
    labelled_share=SHARE,
    l2=L2,
)
STACKED = stacked_m1_m2.Config(
    steps=48_000,
    first=0.25,
    labelled_batch=20,
    unlabelled_batch=60,
    alpha=10.0,
    learning_rate=1e-3,
    anneal=0.5,
    augmentation=HAND,
    labelled_share=SHARE,
    l2=L2,
)
ADVERSARIAL = adversarial_autoencoder.Config(
    steps=4_000, hidden=(500, 500), discriminator_hidden=(500, 500), augmentation=HAND
)
SKIP = sdgm.Config(
    steps=20_000,
    labelled_batch=50,
    unlabelled_batch=50,
    samples=1,
    draws=10,
    auxiliary=50,
    latent=50,
    hidden=(300, 300),
    learning_rate=1e-3,
    anneal=0.5,
    augmentation=HAND,
)

ROWS = {
    "floor": Row("supervised", PLAIN, HUNDRED),
    "augmented_floor": Row("supervised", MOVED, HUNDRED),
    "hand_floor": Row("supervised", dataclasses.replace(PLAIN, augmentation=HAND), HUNDRED),
    "linear": Row("linear", linear.Config(), HUNDRED),
    "mlp": Row("mlp", mlp.Config(), HUNDRED),
    "k_means": Row("k_means", k_means.Config(clusters=50, restarts=1), HUNDRED),
    "label_propagation": Row("label_propagation", label_propagation.Config(), HUNDRED),
    "label_spreading": Row("label_spreading", label_spreading.Config(), HUNDRED),
    "autoencoder": Row("autoencoder", autoencoder.Config(steps=6_000), HUNDRED),
    "label_spreading_latents": Row("label_spreading", label_spreading.Config(), LATENTS),
    "poisson_learning_latents": Row("poisson_learning", poisson_learning.Config(), LATENTS),
    "poisson_mbo_latents": Row("poisson_mbo", poisson_mbo.Config(), LATENTS),
    "vae": Row(
        "vae", vae.Config(steps=90_000, unlabelled_batch=100, learning_rate=2e-3, anneal=0.7), HUNDRED, ("iwae",)
    ),
    "m2": Row("m2", M2, HUNDRED),
    "m2_class_density": Row("m2", dataclasses.replace(M2, latents="class_density"), HUNDRED),
    "stacked_m1_m2": Row("stacked_m1_m2", STACKED, HUNDRED),
    "stacked_m1_m2_class_density": Row("stacked_m1_m2", dataclasses.replace(STACKED, latents="class_density"), HUNDRED),
    "sdgm": Row("sdgm", SKIP, HUNDRED),
    "adgm": Row("adgm", adgm.Config(**vars(SKIP)), HUNDRED),
    "adversarial_autoencoder": Row("adversarial_autoencoder", ADVERSARIAL, HUNDRED),
    "adversarial_autoencoder_class_density": Row(
        "adversarial_autoencoder", dataclasses.replace(ADVERSARIAL, latents="class_density"), HUNDRED
    ),
    "adversarial_autoencoder_conditional_style": Row(
        "adversarial_autoencoder", dataclasses.replace(ADVERSARIAL, conditional_style=True), HUNDRED
    ),
    "vae_gan": Row(
        "vae_gan",
        vae_gan.Config(
            steps=3_000, labelled_batch=16, unlabelled_batch=48, width=32, learning_rate=1e-3, augmentation=HAND
        ),
        HUNDRED,
    ),
    "ladder": Row("ladder", ladder.Config(steps=18_000), HUNDRED),
    "sgan": Row(
        "sgan",
        sgan.Config(steps=2_000, width=32, learning_rate=1e-3, anneal=0.5, augmentation=STRONG_DIGITS),
        HUNDRED,
    ),
    "triple_gan": Row("triple_gan", CONVOLUTIONAL, HUNDRED),
    "triple_gan_dense": Row("triple_gan", TRIPLE, HUNDRED),
    "pseudo_label": Row(
        "pseudo_label",
        pseudo_label.Config(steps=800, network="conv", unlabelled_batch=192, augmentation=STRONG_DIGITS),
        HUNDRED,
    ),
    "mean_teacher": Row("mean_teacher", mean_teacher.Config(steps=4_000), HUNDRED),
    "fixmatch": Row("fixmatch", fixmatch.Config(steps=1_200, threshold=0.9, teacher="average"), HUNDRED),
    "meta_pseudo_labels": Row("meta_pseudo_labels", meta_pseudo_labels.Config(steps=800), HUNDRED),
    "gan_self_training": Row("gan_self_training", gan_self_training.Config(steps=5_000), HUNDRED),
    "generation_floor": Row("conditional_gan", FEW, HUNDRED),
    "generation_ceiling": Row("conditional_gan", GAN, ALL),
    "ceiling": Row("supervised", dataclasses.replace(MOVED, labelled_batch=64), ALL),
}
BASELINE = "augmented_floor"
METRICS = ("nll", "agreement", "deviation_ratio", "fid", "iwae_5000")

if __name__ == "__main__":
    table.main("mnist_systems", ROWS, BASELINE, METRICS, "MNIST, 100 visible labels, 3 seeds")
