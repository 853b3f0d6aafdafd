"""What is each source of gan_self_training worth to its classifier? All sets of its three switches, on bundled digits.

`labels`, `guesses` (the classifier's own confident ones) and `samples` (images that the GAN drew for a class) are what
the last phase learns from. Without guesses the first phase, which names the images that the GAN learns, has none
either, so the GAN is another one. 20 visible labels, 5 masks, the same ones in every row.

Classifier, movements and batches are those of `fixmatch` in `digits_robustness`; the GAN has the networks of the
method's own settings at half their width. Nothing was chosen on these data.

Command: python -m experiments.digits_sources (10 minutes of one core)
"""

import dataclasses

from experiments import table
from experiments.digits_robustness import FIXMATCH
from experiments.table import Row
from ssl_gen.methods.self_training import gan_self_training
from ssl_gen.runs.options import Options

TWENTY = Options(dataset="digits", labels="20", seeds=5, features="random")
SETS: dict[str, tuple[str, ...]] = {
    "labels": ("labels",),
    "samples": ("samples",),
    "guesses": ("guesses",),
    "labels_and_samples": ("labels", "samples"),
    "labels_and_guesses": ("labels", "guesses"),
    "guesses_and_samples": ("guesses", "samples"),
    "all": ("labels", "guesses", "samples"),
}
WHOLE = gan_self_training.Config(
    steps=2_000,
    warm_up=0.2,
    generation=0.5,
    labelled_batch=FIXMATCH.labelled_batch,
    generated_batch=25,
    unlabelled_batch=FIXMATCH.unlabelled_batch,
    classifier_width=FIXMATCH.width,
    dropout=FIXMATCH.dropout,
    threshold=FIXMATCH.threshold,
    augmentation=FIXMATCH.augmentation,
    strong=FIXMATCH.strong,
    latent=32,
    width=16,
)


def learning(whole: Row, *sources: str) -> Row:
    """A method that has the three switches, with these sources alone."""
    config = dataclasses.replace(
        whole.config,
        from_labels="labels" in sources,
        from_guesses="guesses" in sources,
        from_samples="samples" in sources,
    )
    return whole._replace(config=config)


def of_each_set(whole: Row) -> dict[str, Row]:
    """The rows of a method with each set of its sources."""
    return {name: learning(whole, *sources) for name, sources in SETS.items()}


ROWS = of_each_set(Row("gan_self_training", WHOLE, TWENTY))
BASELINE = "labels"
METRICS = ("agreement_svc", "fid")

if __name__ == "__main__":
    table.main("digits_sources", ROWS, BASELINE, METRICS, "Bundled digits, 20 visible labels, 5 seeds: sources")
