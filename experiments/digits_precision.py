"""What do narrow products cost? Bundled digits, 50 labels, 5 masks, each method in float32 and in bfloat16.

bfloat16 keeps 7 bits of a factor's mantissa (`--precision`); all else is float32 in both rows of a method, and the two
see the same masks, batches and noise. The flow learns the guesses of `label_spreading`, the row `guesses`. A method of
each family, with the settings of `digits_label_efficiency`, `digits_flow` (1,000 steps) and `digits_missing` (the
mask's share of labels); nothing was chosen on these data. A processor computes bfloat16 by way of float32, so that
times say nothing here.

    python -m experiments.digits_precision [--record]      three quarters of an hour of one core
    python -m experiments.digits_precision differences     of the tracked record, paired over the masks
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import get_args

from experiments import digits_missing, table, tracked
from experiments.digits_flow import DRAWING, FLOW
from experiments.digits_label_efficiency import METHODS
from experiments.table import HERE, Row
from ssl_gen.core.precision import Asked
from ssl_gen.reports.compare import pairs
from ssl_gen.reports.compare.entries import Entry
from ssl_gen.reports.records import FinalRecord
from ssl_gen.reports.tables import matching
from ssl_gen.types import Precision

FIFTY = {
    "supervised": METHODS["augmented_floor"],
    "fixmatch": METHODS["fixmatch"],
    "triple_gan": METHODS["triple_gan"],
    "conditional_gan": METHODS["generation_floor"],
    "m2": Row("m2", dataclasses.replace(digits_missing.M2, labelled_share=None, l2=None), digits_missing.DIGITS),
    "flow_matching": Row(
        "flow_matching",
        dataclasses.replace(FLOW, steps=1_000),
        dataclasses.replace(DRAWING.options, labeller="guesses"),
    ),
}


def narrowed(row: Row, precision: Asked) -> Row:
    """The row in a precision, with 50 labels and 5 masks of whole images."""
    options = dataclasses.replace(
        row.options, labels="50", seeds=5, features="random", missing_pixels=0.0, precision=precision
    )
    return row._replace(options=options)


ROWS = {"guesses": narrowed(METHODS["label_spreading"], "auto")} | {  # what is fitted in one go has none
    f"{name}_{precision}": narrowed(row, precision) for name, row in FIFTY.items() for precision in get_args(Precision)
}
BASELINE = None  # each bfloat16 row has one of its own, see `differences`
METRICS = ("agreement_svc", "fid")


def differences(rows: Mapping[str, FinalRecord]) -> list[str]:
    """bfloat16 - float32 of the methods that have both rows, paired over the masks, in words."""
    found = []
    entries = {name: Entry(name, final) for name, final in rows.items()}
    for name in FIFTY:
        narrow, wide = entries.get(f"{name}_bfloat16"), entries.get(f"{name}_float32")
        if narrow is not None and wide is not None:
            for metric in (full for short in ("error", *METRICS) for full in matching(short, wide.final.metrics)):
                result = pairs.paired(narrow, wide, metric)
                if result is not None:
                    low, high = result["ci95"] or (float("nan"), float("nan"))
                    interval = f"{round(result['difference'] or 0, 9):+.3g} [{low:+.3g}, {high:+.3g}]"
                    found.append(f"{name}, {metric}: {interval}, {pairs.verdict(result, metric)}")
    return found


def main() -> None:
    if sys.argv[1:] != ["differences"]:
        table.main("digits_precision", ROWS, BASELINE, METRICS, "Bundled digits, 50 labels, two precisions, 5 seeds")
        return
    record = tracked.load(HERE / "digits_precision.json")
    assert isinstance(record, tracked.Tracked)
    print("\n".join(differences(record.rows)))


if __name__ == "__main__":
    main()
