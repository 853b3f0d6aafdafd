"""Which digits are worth labelling? Typical ones and those a run is unsure of, as `ssl-gen suggest` finds them.

Labels are of images drawn by chance (`uniform`), as a person meets them; of those that `--mask.kind typical` chooses by
their pixels: TypiClust's clusters and densest places, which need no label (`typical`); or given in rounds of ten
(`rounds`): ten typical images, then as often as need be ten that `augmented_floor`, trained on what is labelled so far,
is unsure of and that differ among themselves (`--mask.kind suggested`). All learners are given these. 5 masks each, the
seeds of a row in one program; the same seed of another kind has other labels, but the same start and test images.
Settings are those of `digits_label_efficiency`; nothing was chosen on these data.

Command: python -m experiments.digits_suggest (half an hour of one core)
"""

import dataclasses
from collections.abc import Mapping

from experiments import table
from experiments.digits_label_efficiency import METHODS
from experiments.table import Row
from ssl_gen.datasets.masking import Kind, Scheme

LEARNERS = ("augmented_floor", "label_spreading", "fixmatch")
COUNTS = (20, 50, 100)
A_ROUND = 10  # labels
METRICS = ("worst_class_error",)


def given(row: Row, labels: int, kind: Kind, before: str | None = None) -> Row:
    """The row with so many labels, given in a way; of later rounds after the row `before`."""
    scheme = Scheme("suggested") if before else Scheme(kind)
    return row._replace(options=dataclasses.replace(row.options, labels=str(labels), mask=scheme, suggested_by=before))


def compared(learners: Mapping[str, Row]) -> dict[str, Row]:
    """Rows LEARNER_KIND@LABELS, after each number of rounds that of the learner that asks for the next labels."""
    asks = next(iter(learners))
    drawn: tuple[Kind, Kind] = ("uniform", "typical")
    once = {
        f"{name}_{kind}@{count}": given(row, count, kind)
        for count in COUNTS
        for name, row in learners.items()
        for kind in drawn
    }
    rounds = {
        f"{name}_rounds@{count}": given(row, count, "typical", f"{asks}_rounds@{count - A_ROUND}" if done else None)
        for done, count in enumerate(range(A_ROUND, max(COUNTS) + 1, A_ROUND))
        for name, row in learners.items()
        if name == asks or count in COUNTS
    }
    return once | rounds


ROWS = compared({name: METHODS[name] for name in LEARNERS})
BASELINE = None  # rows see other labels: nothing is paired

if __name__ == "__main__":
    table.main(
        "digits_suggest", ROWS, BASELINE, METRICS, "Bundled digits, labels by chance, of typical images, in rounds"
    )
