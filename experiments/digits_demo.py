"""The demo: what are 1,247 unlabelled digits worth beside 50 labelled ones?

Bundled UCI digits (8 x 8 pixels, 1,297 for training, 500 for testing), 50 visible labels, 5 seeds each with its own
mask, the same masks for every row but the ceiling:

    floor              the 50 labels alone
    augmented_floor    the same, images moved about
    triple_gan         the same network and augmentation, the unlabelled images, and a generator of digits
    ceiling            the augmented floor with all 1,297 labels

    python -m experiments.digits_demo        about 5 minutes on two cores, nothing is downloaded

Settings were chosen on 300 images held out of the training images with their labels (`--validation 300`), six times as
many as a run sees, never on the test images.
"""

import dataclasses

from experiments import table
from experiments.table import Row
from ssl_gen.augmentation import Augmentation
from ssl_gen.methods.adversarial import triple_gan
from ssl_gen.methods.classical import supervised
from ssl_gen.runs.options import Options

FIFTY = Options(dataset="digits", labels="50", seeds=5)
MOVED = Augmentation(translate=0.8, rotate=12.0, scale=0.12, shear=0.1)  # a person's hand; digits are not flipped

CLASSIFIER = supervised.Config(steps=1000, labelled_batch=50, network="conv", width=12, dropout=0.3)
TRIPLE_GAN = triple_gan.Config(
    steps=2000,
    warm_up=0.1,
    warm_up_balance=None,
    warm_up_rate=None,
    labelled_batch=25,
    unlabelled_batch=100,
    generated_batch=100,
    classifier_generated=25,
    real_labelled=0.02,
    latent=32,
    generator_hidden=(256, 256),
    discriminator_hidden=(256, 256),
    input_noise=0.2,
    noise=0.2,
    classifier_network="conv",
    classifier_width=12,
    dropout=0.3,
    learning_rate=4e-3,
    l2=1e-4,
    decayed="everything",
    adversarial=0.03,
    entropy=0.0,
    balance=1.0,
    generated=0.3,
    pseudo_label=1.0,
    alignment=True,
    threshold=0.95,
    augmentation=MOVED,
)

ROWS = {
    "floor": Row("supervised", CLASSIFIER, FIFTY),
    "augmented_floor": Row("supervised", dataclasses.replace(CLASSIFIER, augmentation=MOVED), FIFTY),
    "triple_gan": Row("triple_gan", TRIPLE_GAN, FIFTY),
    "ceiling": Row(
        "supervised",
        dataclasses.replace(CLASSIFIER, augmentation=MOVED),
        dataclasses.replace(FIFTY, labels="all"),
    ),
}
BASELINE = "augmented_floor"
METRICS = ("agreement_svc", "deviation_ratio")

if __name__ == "__main__":
    table.main("digits_demo", ROWS, BASELINE, METRICS, "Bundled digits, 50 visible labels, 5 seeds")
