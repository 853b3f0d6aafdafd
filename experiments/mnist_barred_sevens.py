"""Do masks err on sevens because they show no barred one? Mask 9 of 100 labels, two of its ten sevens exchanged.

In `mnist_ten_masks` mask 9 errs on 11.7 to 12.9 % of the test sevens with three methods, and none of its ten sevens has
a bar. That is what was seen; here two labels are moved, and three seeds of `fixmatch` are trained on each:

    as_drawn     mask 9
    barred       its first two sevens give their labels to the first two barred sevens of the training images
    plain        to the first two sevens of all, which have no bar: what it does that any labels are moved
    one_barred   to the first barred one and the first of all, added when `as_drawn` and `barred` were known

Which images have a bar was seen by eye, before anything was trained: of the sevens in their order (15, 29, 38, ...) 38
and 148 are the first that have one, and of the mask's own ten none has.

Command: python -m experiments.mnist_barred_sevens --data-dir DIR [--only ROW] [--record], the folder of the IDX files
(a quarter of an hour of one core a row)
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from experiments import mnist_systems, table
from experiments.table import HERE
from experiments.tracked import Numbers, joined, save
from ssl_gen.datasets.masking import Scheme, make_mask
from ssl_gen.reports import tables
from ssl_gen.reports.records import FinalRecord
from ssl_gen.runs.data import Data, load_data
from ssl_gen.runs.options import Options
from ssl_gen.runs.train import train
from ssl_gen.training import cache
from ssl_gen.types import UserError

MASK, SEVEN = 9, 7
MOVED_TO = {  # rows of the training images
    "as_drawn": (),
    "barred": (38, 148),
    "plain": (15, 29),
    "one_barred": (38, 15),
}
FIXMATCH = mnist_systems.ROWS["fixmatch"]
THREE = Options(
    dataset="mnist", labels="100", seeds=3, first_seed=MASK, mask=Scheme(seed=MASK), features="random", samples=1_000
)


def moved(data: Data, to: tuple[int, ...]) -> Data:
    """The data with the labels of the first sevens that its one mask shows on the training images `to`, sevens too."""
    if not to:
        return data
    dataset, visible = data.dataset, data.masks[0].labels
    rows, labels = np.flatnonzero(visible >= 0), dataset.train_labels
    given = rows[visible[rows] == SEVEN][: len(to)]
    assert all(labels[row] == SEVEN and visible[row] < 0 for row in to), "labels go to hidden sevens"
    chosen, scheme = np.sort([*np.setdiff1d(rows, given), *to]), Scheme(kind="suggested", seed=MASK)
    mask = make_mask(
        dataset.name, labels, dataset.class_names, len(chosen), scheme, MASK, dataset.sha256, chosen=chosen
    )
    return data._replace(masks=[mask] * len(data.seeds))


def trained(name: str, folder: Path, data_dir: Path) -> FinalRecord | None:
    """A row's run; None where a signal stopped it."""
    options = dataclasses.replace(THREE, data_dir=data_dir, out=folder / name)
    data = moved(load_data(options), MOVED_TO[name])
    return train(FIXMATCH.method, FIXMATCH.config, options, data).final


def numbers(finals: dict[str, FinalRecord]) -> Numbers:
    """What is recorded of the runs."""
    found = {
        "error (%)": {name: final.metrics["error"] for name, final in finals.items()},
        "error of sevens (%)": {name: (final.per_class_error or {})[str(SEVEN)] for name, final in finals.items()},
    }
    device, commit = (joined(getattr(final, what) for final in finals.values()) for what in ("device", "commit"))
    seeds = list(range(MASK, MASK + THREE.seeds))
    return Numbers("mnist", 60_000, 100, seeds, "mask 9", device, commit, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/mnist_barred_sevens"))
    parser.add_argument("--only", choices=list(MOVED_TO), help="this row alone, without the table")
    parser.add_argument(
        "--record", action="store_true", help="write the results to experiments/mnist_barred_sevens.json"
    )
    asked = parser.parse_args()
    cache.keep_compiled()
    finals = {}
    try:
        for name in [asked.only] if asked.only else MOVED_TO:
            final = trained(name, asked.out, asked.data_dir)
            if final is None:
                print("stopped; the same command goes on")
                raise SystemExit(table.AGAIN)
            finals[name] = final
    except UserError as error:
        raise SystemExit(table.stopped("mnist_barred_sevens", error)) from None
    if asked.only:
        return
    found = numbers(finals)
    for what, summaries in found.metrics.items():
        rows = [[name, tables.measured("", each), each["per_seed"]] for name, each in summaries.items()]
        print(tables.text_table([what, "mean and deviation", "seeds"], rows), end="\n\n")
    if asked.record:
        save(HERE / "mnist_barred_sevens.json", found)


if __name__ == "__main__":
    main()
