"""Does a classifier learn more from a generator that draws badly? Bundled digits, 50 visible labels, 5 masks.

    augmented_floor      the labels alone, moved about: the baseline, of `digits_label_efficiency`
    dense_floor          the labels alone, not moved, in the layers of the discriminators below, dropout for noise
    sgan                 its generator wants what it draws taken for real: the aim elsewhere
    feature_matching     its generator wants the mean features of images alone
    bad_gan              the same, and a pull-away term that drives its images apart, and sure guesses
    without_pull_away    `bad_gan` but for that term
    triple_gan           a good generator beside a classifier of its own, convolutional, which sees moved images

Dai et al. 2017 (arXiv:1705.09783) say that a discriminator which tells classes apart gains by generated images beside
the data and not by good ones: then error and FID should go against each other. The four in the middle share networks,
batches, noise, rate and number of updates (300 epochs), so that their generators' aims are what differs, and what is
said of each method on its page: `sgan` has a score for "generated" where the others have 0, normal latents, and a mean
whose batch statistics are its own. Sizes and the rate are those of the plain GANs of `digits_label_efficiency`, weights
and the distance of `bad_gan` those of its script for SVHN. Nothing was chosen on these data. No sample obeys a label
but `triple_gan`'s.

Command: python -m experiments.digits_bad_gan (three minutes of one idle core a row); with --missing two of its rows
come from the record of `digits_label_efficiency`
"""

import dataclasses
from typing import Any

from experiments import digits_label_efficiency, table
from experiments.digits_label_efficiency import PLAYERS
from experiments.table import Row
from ssl_gen.methods.adversarial import bad_gan, feature_matching, sgan
from ssl_gen.methods.classical import supervised
from ssl_gen.runs.options import Options

FIFTY = dataclasses.replace(digits_label_efficiency.FIVE, labels="50")
STEPS = 3_900  # 300 epochs of 1,297 images, as in the script of feature matching for MNIST
SHARED: dict[str, Any] = {key: value for key, value in PLAYERS.items() if key not in ("averaging", "augmentation")}
SHARED |= {"steps": STEPS, "labelled_batch": 50, "unlabelled_batch": 100}
BAD = bad_gan.Config(**SHARED, network="mlp", generator_rate=SHARED["learning_rate"])
MEMORY = BAD.averaging * STEPS  # updates that the mean parameters look back


def of(name: str, options: Options = FIFTY) -> Row:
    """A row of `digits_label_efficiency` with 50 labels."""
    return digits_label_efficiency.METHODS[name]._replace(options=options)


ROWS = {
    "augmented_floor": of("augmented_floor"),
    "dense_floor": Row(
        "supervised",
        supervised.Config(steps=1_000, labelled_batch=50, network="mlp", hidden=BAD.discriminator_hidden),
        FIFTY,
    ),
    "sgan": Row("sgan", sgan.Config(**SHARED, network="mlp", averaging=1 / MEMORY), FIFTY),
    "feature_matching": Row("feature_matching", feature_matching.Config(**SHARED, network="mlp"), FIFTY),
    "bad_gan": Row("bad_gan", BAD, FIFTY),
    "without_pull_away": Row("bad_gan", dataclasses.replace(BAD, pull_away=0.0), FIFTY),
    "triple_gan": of("triple_gan"),
}
BASELINE = "augmented_floor"
METRICS = ("fid", "coverage")

if __name__ == "__main__":
    table.main("digits_bad_gan", ROWS, BASELINE, METRICS, "Bundled digits, 50 visible labels, 5 seeds: generators")
