"""What is each source of dual_pseudo_training worth to its classifier, and its guesses to its flow? Bundled digits.

`labels`, `guesses` (the classifier's own confident ones) and `samples` (images that the flow drew for a class) are what
the last phase learns from, all sets of them, as `digits_sources` has them of `gan_self_training`: 20 visible labels,
the same 5 masks. `first_error` is the classifier's before it saw what the flow drew, `error` after; without guesses the
first phase, which names the images that the flow learns, has none either, so that FID and agreement say what they are
worth to the flow. Settings are those of `digits_flow`, whose dual_pseudo_training@20 is the row `all`. Nothing was
chosen on these data.

Command: python -m experiments.digits_dual_sources (some 26 minutes of one core a row). It was not run yet.
"""

import dataclasses

from experiments import digits_flow, digits_sources, table

WHOLE = digits_flow.METHODS["dual_pseudo_training"]
TWENTY = dataclasses.replace(WHOLE.options, labels="20")
ROWS = digits_sources.of_each_set(WHOLE._replace(options=TWENTY))
BASELINE = "labels"
METRICS = ("first_error", "agreement_svc", "fid")

if __name__ == "__main__":
    title = "Bundled digits, 20 visible labels, 5 seeds: sources of dual_pseudo_training"
    table.main("digits_dual_sources", ROWS, BASELINE, METRICS, title)
