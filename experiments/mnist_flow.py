"""What do guessed labels give a flow? MNIST, 20, 100 and 1,000 visible labels, 3 masks, the same ones in every row.

    fixmatch                the classifier whose guesses are learnt, that of `mnist_systems`; it draws nothing
    autoencoder, label_spreading    another one, a graph of the latents of an autoencoder
    flow_matching           a flow of all images, each with its label or the class that `fixmatch` guesses
    flow_of_graph           the same, with the guesses of `label_spreading`
    null                    unlabelled images are told no class: the warning
    floor                   the labelled images alone
    dual_pseudo_training    FixMatch's classifier guesses what the flow learns, and then learns what the flow draws
    gan_self_training       the GAN to measure them by, of `mnist_label_efficiency`, on the same features
    mean_flow               draws in one look, of the same guesses, with 100 labels
    ceiling                 a flow of all labels
    unconditional           a flow of the same images that is told no class

Samples are drawn without guidance, the network sees 2 x 2 pixels as one. Lengths are what 40 minutes of one core a seed
allow; no setting was tuned. Read agreement beside `copying` (below -3: nearer to the training images than test images
are) and coverage. FID on `trained` features is this table's alone: they come out otherwise on another processor.

Command: python -m experiments.mnist_flow --data-dir DIR, the folder of the IDX files, after `ssl-gen train-features
mnist --data-dir DIR`; before a row that learns guesses the one that guesses, before a graph its autoencoder.
"""

import dataclasses

from experiments import label_efficiency, mnist_label_efficiency, mnist_systems
from experiments.table import Row
from ssl_gen.methods.diffusion import dual_pseudo_training, flow_matching, mean_flow
from ssl_gen.runs.options import Options

COUNTS = (20, 100, 1_000)
DRAWING = Options(dataset="mnist", seeds=3, evaluators=())
CLASSIFIER = mnist_systems.ROWS["fixmatch"]
FLOW = flow_matching.Config(steps=10_000, fold=True)
DUAL = dual_pseudo_training.Config(
    steps=12_400,
    warm_up=1_200 / 12_400,  # the updates of fixmatch
    generation=10_000 / 12_400,  # those of the flow; as many as the warm-up remain
    samples_per_class=500,
    fold=True,
    widths=FLOW.widths,
    labelled_batch=CLASSIFIER.config.labelled_batch,
    generated_batch=64,
    unlabelled_batch=CLASSIFIER.config.unlabelled_batch,
    threshold=CLASSIFIER.config.threshold,
    augmentation=CLASSIFIER.config.augmentation,
    strong=CLASSIFIER.config.strong,
)
FLOWS = Row("flow_matching", FLOW, DRAWING, ("cas",))
GUESSING = FLOWS._replace(options=dataclasses.replace(DRAWING, labeller="fixmatch"))
METHODS = {
    "fixmatch": CLASSIFIER,
    "autoencoder": mnist_systems.ROWS["autoencoder"],
    "label_spreading": mnist_systems.ROWS["label_spreading_latents"],
    "flow_matching": GUESSING,
    "flow_of_graph": GUESSING._replace(options=dataclasses.replace(DRAWING, labeller="label_spreading")),
    "null": FLOWS._replace(config=dataclasses.replace(FLOW, unlabelled="null")),
    "floor": FLOWS._replace(config=dataclasses.replace(FLOW, unlabelled="left_out")),
    "dual_pseudo_training": Row("dual_pseudo_training", DUAL, DRAWING, ("cas",)),
    "gan_self_training": mnist_label_efficiency.SYSTEMS["gan_self_training"],
}
MEAN_FLOW = GUESSING._replace(method="mean_flow", config=mean_flow.Config(steps=FLOW.steps, fold=True))

UNCONDITIONAL = Row("flow_matching", dataclasses.replace(FLOW, unlabelled="null", label_dropout=1.0), DRAWING)
REFERENCES = {"ceiling": FLOWS, "unconditional": UNCONDITIONAL}

ROWS = label_efficiency.spread(METHODS, COUNTS, REFERENCES)
ROWS |= label_efficiency.spread({"mean_flow": MEAN_FLOW}, (100,), {})
BASELINE = "fixmatch"
METRICS = ("fid", "agreement", "cas", "coverage", "copying_labelled", "copying_unlabelled", "first_error")

if __name__ == "__main__":
    title = "MNIST, a flow of guessed labels, 20 to 1,000 visible labels, 3 seeds"
    label_efficiency.main("mnist_flow", ROWS, METRICS, title, {}, BASELINE)
