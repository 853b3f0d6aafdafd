"""What do guessed labels give a flow? Bundled digits, 10 to 200 visible labels, 5 masks, the same ones in every row.

    label_spreading    the classifier whose guesses are learnt; it draws nothing
    flow_matching      a flow of all images, each with its label or the class that `label_spreading` guesses
    null               unlabelled images are told no class, as in plain classifier-free guidance: the warning
    floor              the labelled images alone
    ceiling            with all labels

Samples are drawn without guidance. A model can obey every label and score well on agreement by knowing a few images by
heart: read agreement beside `copying` (below -3: nearer to the training images than test images are) and coverage.
Settings were not tuned.

Command: python -m experiments.digits_flow (some 4 minutes of one idle core a mask and row that draws); rows can be
made side by side with `--only ROW` or `--index I --of N`, a row's labeller first.
"""

import dataclasses

from experiments import label_efficiency
from experiments.table import Row
from ssl_gen.methods.classical import label_spreading
from ssl_gen.methods.diffusion import flow_matching
from ssl_gen.runs.options import Options

FIVE = Options(dataset="digits", seeds=5, features="random")
COUNTS = (10, 20, 50, 100, 200)
FLOW = flow_matching.Config(steps=2_500)
DRAWING = Row("flow_matching", FLOW, dataclasses.replace(FIVE, evaluators=()))
METHODS = {
    "label_spreading": Row("label_spreading", label_spreading.Config(), FIVE),
    "flow_matching": DRAWING,
    "null": DRAWING._replace(config=dataclasses.replace(FLOW, unlabelled="null")),
    "floor": DRAWING._replace(config=dataclasses.replace(FLOW, unlabelled="left_out")),
}


def with_labeller(row: Row) -> Row:
    """The row with the guesses of the classifier that saw as many labels, where it learns any."""
    if row.config != FLOW or row.options.labels == "all":
        return row
    return row._replace(options=dataclasses.replace(row.options, labeller=f"label_spreading@{row.options.labels}"))


SPREAD = label_efficiency.spread(METHODS, COUNTS, {"ceiling": DRAWING})
ROWS = {name: with_labeller(row) for name, row in SPREAD.items()}
BASELINE = "floor"
METRICS = ("fid", "agreement_svc", "coverage", "copying_labelled", "copying_unlabelled", "deviation_ratio")

if __name__ == "__main__":
    title = "Bundled digits, a flow of guessed labels, 10 to 200 visible labels, 5 seeds"
    label_efficiency.main("digits_flow", ROWS, METRICS, title, {}, BASELINE)
