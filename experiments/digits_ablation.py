"""What are the parts of the demo's triple_gan worth? Each row leaves one out; same masks as the demo.

without_generated: the classifier never sees a generated image (`generated` 0).
without_pseudo_labels: no pseudo-label term in the classifier's loss (`pseudo_label` 0); the discriminator's pairs of
unlabelled images and predicted labels stay, they are Triple-GAN itself.

Command: python -m experiments.digits_ablation (about 12 minutes on two cores)
"""

import dataclasses

from experiments import digits_demo, table
from experiments.digits_demo import METRICS
from experiments.table import Row

WHOLE = digits_demo.ROWS["triple_gan"]


def without(**terms: float) -> Row:
    """The demo's row with some weights set to 0."""
    return WHOLE._replace(config=dataclasses.replace(WHOLE.config, **terms))


ROWS = {
    "triple_gan": WHOLE,
    "without_generated": without(generated=0.0),
    "without_pseudo_labels": without(pseudo_label=0.0),
}
BASELINE = "triple_gan"

if __name__ == "__main__":
    table.main("digits_ablation", ROWS, BASELINE, METRICS, "Bundled digits, 50 visible labels, 5 seeds: ablations")
