"""Which fifty digits are worth labelling? Typical ones, as `ssl-gen suggest` finds them, beside labels by chance.

Labels are of images drawn by chance, as a person meets them, or of those that `--mask.kind typical` chooses by their
pixels: TypiClust's clusters and densest places, which need no label. 5 masks each; a row of one seed has other labels
than the same seed of another row. Settings are those of `digits_label_efficiency`; nothing was chosen on these data.

Command: python -m experiments.digits_suggest (a quarter of an hour of one core)
"""

import dataclasses

from experiments import table
from experiments.digits_label_efficiency import METHODS
from ssl_gen.datasets.masking import Scheme

LEARNERS = ("augmented_floor", "label_spreading", "fixmatch")
COUNTS = (20, 50)

ROWS = {
    f"{learner}_{kind}@{count}": METHODS[learner]._replace(
        options=dataclasses.replace(METHODS[learner].options, labels=str(count), mask=Scheme(kind))
    )
    for count in COUNTS
    for learner in LEARNERS
    for kind in ("uniform", "typical")
}
BASELINE = None  # rows see other labels: nothing is paired
METRICS = ("worst_class_error",)

if __name__ == "__main__":
    table.main("digits_suggest", ROWS, BASELINE, METRICS, "Bundled digits, labels by chance or of typical images")
