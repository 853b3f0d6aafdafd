"""How few labels do bundled digits need? Ten to two hundred visible labels, 5 masks, each method on the same masks.

    floor, augmented_floor    the labels alone, plain and with moved images (the baseline)
    fixmatch                  self-training
    triple_gan                a classifier and a conditional generator that learn from each other
    label_spreading           a graph of near images; it draws nothing
    generation_floor          a conditional GAN on the visible labels alone
    ceiling, triple_gan_ceiling, generation_ceiling, unconditional    with all labels; the last looks at none of them

Settings are the demo's, with half of its steps for `triple_gan`; `fixmatch` is that of `digits_robustness` with half of
its steps. The plain GANs have networks of the demo's sizes and a common rate of Adam; nothing was chosen on these data.
Floor and ceiling of generation are one GAN, so they tell what labels are worth to it; `triple_gan` is another one, and
has a ceiling of its own.
CAS is left out, as its two classifiers a mask and row would take longer than all else together: `ssl-gen evaluate
runs/digits_label_efficiency/ROW --metrics cas` adds it to a row that draws images of a class.

Command: python -m experiments.digits_label_efficiency (about a quarter of an hour on two idle cores); rows can be made
side by side with `--only ROW` or `--index I --of N`, on several machines with `experiments.collect`.
"""

import dataclasses
from typing import Any

from experiments import digits_demo, label_efficiency
from experiments.digits_demo import MOVED
from experiments.digits_robustness import FIXMATCH
from experiments.table import Row
from ssl_gen.methods.adversarial import conditional_gan, gan
from ssl_gen.methods.classical import label_spreading
from ssl_gen.reports.records import PublishedNumber
from ssl_gen.runs.options import Options

FIVE = Options(dataset="digits", seeds=5, features="random")
COUNTS = (10, 20, 50, 100, 200)
AUGMENTED = dataclasses.replace(digits_demo.CLASSIFIER, augmentation=MOVED)
PLAYERS: dict[str, Any] = {  # of both plain GANs
    "steps": 1_500,
    "latent": 32,
    "generator_hidden": (256, 256),
    "discriminator_hidden": (256, 256),
    "input_noise": 0.2,
    "noise": 0.2,
    "learning_rate": 1e-3,
    "anneal": 0.5,
    "averaging": 0.01,
    "augmentation": MOVED,
}
GAN = conditional_gan.Config(labelled_batch=50, discriminator_steps=1, network="mlp", b1=0.5, b2=0.999, **PLAYERS)
UNCONDITIONAL = gan.Config(unlabelled_batch=50, loss="hinge", **PLAYERS)
TRIPLE = Row("triple_gan", dataclasses.replace(digits_demo.TRIPLE_GAN, steps=1_000), FIVE)
METHODS = {
    "floor": Row("supervised", digits_demo.CLASSIFIER, FIVE),
    "augmented_floor": Row("supervised", AUGMENTED, FIVE),
    "fixmatch": Row("fixmatch", dataclasses.replace(FIXMATCH, steps=750), FIVE),
    "triple_gan": TRIPLE,
    "label_spreading": Row("label_spreading", label_spreading.Config(), FIVE),
    "generation_floor": Row("conditional_gan", GAN, FIVE),
}
REFERENCES = {
    "ceiling": Row("supervised", AUGMENTED, FIVE),
    "triple_gan_ceiling": TRIPLE,
    "generation_ceiling": Row("conditional_gan", GAN, FIVE),
    "unconditional": Row("gan", UNCONDITIONAL, FIVE),
}

ROWS = label_efficiency.spread(METHODS, COUNTS, REFERENCES)
BASELINE = label_efficiency.BASELINE
METRICS = ("agreement_svc", "fid", "coverage")
PUBLISHED: dict[str, PublishedNumber] = {}  # nobody prints these for 8 x 8 digits

if __name__ == "__main__":
    title = "Bundled digits, 10 to 200 visible labels, 5 seeds"
    label_efficiency.main("digits_label_efficiency", ROWS, METRICS, title, PUBLISHED)
