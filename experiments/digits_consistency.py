"""Which guesses are worth learning? Seven rules, bundled digits, two labels a class, 5 masks, the same for all rows.

    floor, augmented_floor    the labels alone, plain and with moved images (the baseline)
    fixmatch                  guesses above a fixed threshold, aligned with the labels' class frequencies
    uda                       guesses above a fixed threshold, sharpened
    flex_match                a threshold a class, low for those that are seldom surely guessed
    free_match                a threshold a class, by how sure the network is of all images and of those of the class
    soft_match                all guesses, weighted by how sure the network is of the others
    ada_match                 a threshold relative to how sure the network is of the labelled images; aligned
    noisy_student             guesses above a low threshold of a network that is done learning, by a new one; twice
    label_spreading           a graph of near images, which stays as it is
    noisy_student_of_graph    noisy_student whose first teacher learns what the graph guesses

Network, steps, batches, rate and both augmentations are those of `fixmatch` in `digits_robustness`, as is the EMA that
guesses, but in `ada_match`, which guesses by the network itself, and in `noisy_student`, a fifth of whose steps train
the first teacher. Thresholds and weights are the papers', the running means look back 128 steps.

Command: python -m experiments.digits_consistency (about a quarter of an hour on two idle cores)
"""

import dataclasses
from typing import Any

from experiments import digits_demo, table
from experiments.digits_demo import MOVED
from experiments.digits_robustness import FIXMATCH
from experiments.table import Row
from ssl_gen.methods.classical import label_spreading
from ssl_gen.methods.self_training import ada_match, flex_match, free_match, noisy_student, soft_match, uda
from ssl_gen.runs.options import Options

TWENTY = Options(dataset="digits", labels="20", seeds=5, features="random")
SHARED = ("steps", "labelled_batch", "unlabelled_batch", "width", "dropout", "augmentation", "strong")


def like_fixmatch(config: type, **own: Any) -> Any:
    """A method's settings with those of `fixmatch` that have nothing to do with which guesses it learns."""
    return table.like(config, FIXMATCH, SHARED, **own)


NOISY_STUDENT = like_fixmatch(noisy_student.Config, averaging=FIXMATCH.averaging)
ROWS = {
    "floor": Row("supervised", digits_demo.CLASSIFIER, TWENTY),
    "augmented_floor": Row("supervised", dataclasses.replace(digits_demo.CLASSIFIER, augmentation=MOVED), TWENTY),
    "fixmatch": Row("fixmatch", FIXMATCH, TWENTY),
    "uda": Row("uda", like_fixmatch(uda.Config, teacher="average"), TWENTY),
    "flex_match": Row("flex_match", like_fixmatch(flex_match.Config, teacher="average"), TWENTY),
    "free_match": Row("free_match", like_fixmatch(free_match.Config, teacher="average"), TWENTY),
    "soft_match": Row("soft_match", like_fixmatch(soft_match.Config, teacher="average"), TWENTY),
    "ada_match": Row("ada_match", like_fixmatch(ada_match.Config), TWENTY),
    "noisy_student": Row("noisy_student", NOISY_STUDENT, TWENTY),
    "label_spreading": Row("label_spreading", label_spreading.Config(), TWENTY),
    "noisy_student_of_graph": Row(
        "noisy_student",
        dataclasses.replace(NOISY_STUDENT, first_teacher="guessed"),
        dataclasses.replace(TWENTY, labeller="label_spreading"),
    ),
}
BASELINE = "augmented_floor"
METRICS = ("worst_class_error",)

if __name__ == "__main__":
    table.main("digits_consistency", ROWS, BASELINE, METRICS, "Bundled digits, 20 visible labels, 5 seeds")
