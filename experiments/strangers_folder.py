"""What ten minutes of a processor make of a stranger's folder: 2,000 photographs of all sizes, ten labels a class.

    poisson_mbo      labels, on features of a small network that learnt ImageNet's classes
    linear           the same from the labelled images alone
    fixmatch         labels, by a small network that learns from nothing
    supervised       the same from the labelled images alone
    flow_matching    samples, from all images with the classes that `poisson_mbo` guesses

Each is `--preset quick` of its method, with steps that were set beforehand: two quiet cores make those of
`flow_matching` in eleven minutes, those of `fixmatch` in four and of `supervised`, as many, in two, where the preset
would go on to ten. One seed: a folder has one set of labels. Nothing was chosen on the test images.

Command: python -m experiments.strangers_folder --data-dir DIR, where DIR/cifar10_jpeg holds train/CLASS/*.jpg and
test/CLASS/*.jpg; the folder is made of them as DIR/strangers. It needs the extra `pretrained` (twenty minutes of two
cores)
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from experiments import table
from experiments.table import Row
from ssl_gen.methods.classical import linear, poisson_mbo, supervised
from ssl_gen.methods.diffusion import flow_matching
from ssl_gen.methods.self_training import fixmatch
from ssl_gen.runs.options import Options

SOURCE, NAME = "cifar10_jpeg", "strangers"
TRAIN, LABELLED, TEST = 200, 10, 100  # images of a class
SIDES = 24, 96  # pixels, the least and the most
LEARNING, DRAWING = 600, 2_000  # steps

SMALL = Options(dataset=f"folder:{NAME}", labels="all", size=32)  # what --preset quick begins with
SEEN = dataclasses.replace(SMALL, size=128, encoder="efficientnet_lite0")
ROWS = {
    "poisson_mbo": Row("poisson_mbo", poisson_mbo.Config(), SEEN),
    "linear": Row("linear", linear.Config(), SEEN),
    "fixmatch": Row("fixmatch", dataclasses.replace(fixmatch.QUICK, steps=LEARNING), SMALL),
    "supervised": Row("supervised", dataclasses.replace(supervised.QUICK, steps=LEARNING), SMALL),
    "flow_matching": Row(
        "flow_matching",
        dataclasses.replace(flow_matching.QUICK, steps=DRAWING),
        dataclasses.replace(SMALL, labeller="poisson_mbo"),
    ),
}
BASELINE = None
METRICS = ("worst_class_error", "fid", "deviation_ratio")


def make(source: Path, folder: Path) -> None:
    """Photographs of every class, brought to sides of their own, ten labelled and the others without a class.

    Which, how large and in which order is the same every time. Nothing is done where the folder is there.
    """
    if folder.exists():
        return
    source_of_chance = np.random.default_rng(0)
    begun = folder.with_name(folder.name + ".part")
    unlabelled = [
        file
        for kind in sorted((source / "train").iterdir())
        for file in sorted(kind.iterdir())[LABELLED:TRAIN]
    ]  # fmt: skip
    order = source_of_chance.permutation(len(unlabelled))
    given = [(unlabelled[at], Path("train", "unlabelled", f"{number:04}.jpg")) for number, at in enumerate(order)]
    for split, count in (("train", LABELLED), ("test", TEST)):
        for kind in sorted((source / split).iterdir()):
            given += [(file, Path(split, kind.name, file.name)) for file in sorted(kind.iterdir())[:count]]
    for file, place in given:
        side = int(source_of_chance.integers(SIDES[0], SIDES[1] + 1))
        path = begun / place
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as picture:
            picture.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)
    begun.rename(folder)


if __name__ == "__main__":
    place = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # of the table's options the one that is needed
    place.add_argument("--data-dir", type=Path)
    data = place.parse_known_args()[0].data_dir
    if data is not None:
        make(data / SOURCE, data / NAME)
    title = "2,000 photographs of mixed sizes, ten labels a class, --preset quick"
    table.main("strangers_folder", ROWS, BASELINE, METRICS, title)
