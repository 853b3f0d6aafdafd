"""Twenty labels of bundled digits and six ways to learn from the unlabelled rest, 5 masks.

    floor                  the 20 labels alone
    augmented_floor        the same, images moved about
    fixmatch               sure guesses of weakly moved images, learnt on strongly moved ones
    pi_model               two views of an image must agree
    temporal_ensembling    a view must agree with what was said in earlier epochs
    vat                    predictions must stay under the change that would move them most
    mix_match              sharpened guesses of two views, images mixed
    re_mix_match           guesses of a weak view, aligned with the labels, for strong ones, images mixed and turned

Network, movements and batches of all are those of `fixmatch` in `digits_robustness`, but that `mix_match` and
`re_mix_match`, which see several views of an image a step, have 50 unlabelled ones. The rest is the methods' defaults
but for `ramp`, `epsilon` and the rate of `vat`, set before anything was measured.

Command: python -m experiments.digits_mixing
"""

import dataclasses

from experiments import digits_demo, table
from experiments.digits_demo import MOVED
from experiments.digits_robustness import FIXMATCH
from experiments.table import Row
from ssl_gen.methods.self_training import mix_match, pi_model, re_mix_match, temporal_ensembling, vat
from ssl_gen.runs.options import Options

TWENTY = Options(dataset="digits", labels="20", seeds=5)
FLOOR = digits_demo.CLASSIFIER
PI_MODEL = pi_model.Config(
    steps=1_500, labelled_batch=25, unlabelled_batch=100, width=12, dropout=0.3, augmentation=MOVED
)
TEMPORAL_ENSEMBLING = temporal_ensembling.Config(
    steps=1_500, labelled_batch=25, unlabelled_batch=100, width=12, dropout=0.3, augmentation=MOVED
)
VAT = vat.Config(
    steps=1_500,
    labelled_batch=25,
    unlabelled_batch=100,
    width=12,
    dropout=0.3,
    learning_rate=2e-3,
    anneal=0.5,
    epsilon=1.0,
    augmentation=MOVED,
)
MIX_MATCH = mix_match.Config(
    steps=1_500, labelled_batch=25, unlabelled_batch=50, width=12, dropout=0.3, ramp=0.25, augmentation=MOVED
)
RE_MIX_MATCH = re_mix_match.Config(
    steps=1_500,
    labelled_batch=25,
    unlabelled_batch=50,
    width=12,
    dropout=0.3,
    augmentation=MOVED,
    strong=FIXMATCH.strong,
)

ROWS = {
    "floor": Row("supervised", FLOOR, TWENTY),
    "augmented_floor": Row("supervised", dataclasses.replace(FLOOR, augmentation=MOVED), TWENTY),
    "fixmatch": Row("fixmatch", FIXMATCH, TWENTY),
    "pi_model": Row("pi_model", PI_MODEL, TWENTY),
    "temporal_ensembling": Row("temporal_ensembling", TEMPORAL_ENSEMBLING, TWENTY),
    "vat": Row("vat", VAT, TWENTY),
    "mix_match": Row("mix_match", MIX_MATCH, TWENTY),
    "re_mix_match": Row("re_mix_match", RE_MIX_MATCH, TWENTY),
}
BASELINE = "augmented_floor"
METRICS = ("worst_class_error",)

if __name__ == "__main__":
    table.main("digits_mixing", ROWS, BASELINE, METRICS, "Bundled digits, 20 visible labels, 5 masks")
