"""Two labels a class on MNIST: which classes are lost? 20 labels, 10 masks, the seeds of a row in one program.

With so few labels a class is swallowed by another one that looks like it, on some masks: its images are guessed, with
confidence, to be of the other, and the guesses are learnt. `fixmatch` and `gan_self_training` are those of
`mnist_systems`, whose guesses are brought to the class frequencies of the labels, the second on the first five masks;
`_unaligned` is the same without.
`free_match`, `ada_match`, `soft_match` and `re_mix_match` have the steps, batches, network and augmentations of
`fixmatch` and, but for `ada_match` and `re_mix_match`, its teacher; rules and weights are their papers'.
Settings were chosen there, at 100 labels; the numbers of labels a class are known to be equal here, because the masks
are stratified. Only errors are the point, so samples are few and compared by random features.

Command: python -m experiments.mnist_twenty_labels --data-dir DIR, the folder of the IDX files
"""

import dataclasses
from typing import Any

from experiments import mnist_systems, table
from experiments.table import Row
from ssl_gen.methods.self_training import ada_match, free_match, re_mix_match, soft_match
from ssl_gen.runs.options import Options

SHARED: tuple[str, ...] = (
    "steps",
    "labelled_batch",
    "unlabelled_batch",
    "network",
    "width",
    "dropout",
    "augmentation",
    "strong",
)
TWENTY = Options(dataset="mnist", labels="20", seeds=10, features="random", samples=1_000)
FIVE = dataclasses.replace(TWENTY, seeds=5)  # the first masks, of what takes a GAN


def same(name: str, options: Options = TWENTY, **changes: object) -> Row:
    """A row of `mnist_systems` with masks of 20 labels, and some settings changed."""
    row = mnist_systems.ROWS[name]
    return Row(row.method, dataclasses.replace(row.config, **changes), options)


def like_fixmatch(config: type, **own: Any) -> Row:
    """A method with the settings of `fixmatch` that it has too, but for which guesses it learns."""
    shared = table.like(config, mnist_systems.ROWS["fixmatch"].config, SHARED, **own)
    return Row(config.__module__.rpartition(".")[2], shared, TWENTY)


ROWS = {
    "augmented_floor": same("augmented_floor"),
    "fixmatch_unaligned": same("fixmatch", alignment=False),
    "fixmatch": same("fixmatch"),
    "gan_self_training_unaligned": same("gan_self_training", FIVE, alignment=False),
    "gan_self_training": same("gan_self_training", FIVE),
    "free_match": like_fixmatch(free_match.Config, teacher="average"),
    "soft_match": like_fixmatch(soft_match.Config, teacher="average"),
    "ada_match": like_fixmatch(ada_match.Config),
    "re_mix_match": like_fixmatch(re_mix_match.Config),
}
BASELINE = "fixmatch"
METRICS = ("worst_class_error",)

if __name__ == "__main__":
    table.main("mnist_twenty_labels", ROWS, BASELINE, METRICS, "MNIST, 20 visible labels, 10 seeds")
