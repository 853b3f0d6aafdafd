"""What do guessed labels give a flow? Bundled digits, 10 to 200 visible labels, 5 masks, the same ones in every row.

    label_spreading         the classifier whose guesses are learnt; it draws nothing
    triple_gan              another one, of `digits_label_efficiency`, which draws too
    flow_matching           a flow of all images, each with its label or the class that `label_spreading` guesses
    flow_of_gan             the same, with the guesses of `triple_gan`
    null                    unlabelled images are told no class, as in plain classifier-free guidance: the warning
    floor                   the labelled images alone
    ceiling                 with all labels
    unconditional           a flow of the same images that is told no class: what labels are worth to it is the rest
    dual_pseudo_training    FixMatch's classifier guesses what the flow learns, and then learns what the flow draws
    edm, mean_flow          other ways to learn the same images and guesses, with 50 labels; mean_flow draws in one look
    r3gan, s3gan            GANs that learn the same images and guesses, with 50 labels

`first_error` of dual_pseudo_training is its classifier's before it saw what the flow draws: what that adds is the
difference to `error`, and what its guesses add to the flow stands beside `flow_matching`, which has another's. Its
classifier has the settings of `fixmatch` in `digits_robustness`, its flow those of the row `flow_matching`.

Samples are drawn without guidance. A model can obey every label and score well on agreement by knowing a few images by
heart: read agreement beside `copying` (below -3: nearer to the training images than test images are) and coverage.
Settings were not tuned, but for the noise of `edm`, by one run of the first mask: with the paper's levels, for 32 x 32
pixels, 78.7 % of its samples obeyed, with a mean of 0 and the deviation that these pixels have, 92.3 % (FID 0.240 and
0.247), and for the GANs, which have dense networks: rate and penalty of `r3gan`, augmentation of `s3gan`, by FID to 300
training images held out of the first mask.

Command: python -m experiments.digits_flow (some 4 minutes of one idle core a mask and row that draws, 6 of
dual_pseudo_training); rows can be made side by side with `--only ROW` or `--index I --of N`, a row's labeller first.
"""

import dataclasses

from experiments import digits_label_efficiency, label_efficiency
from experiments.digits_robustness import FIXMATCH
from experiments.table import Row
from ssl_gen.methods.adversarial import r3gan, s3gan
from ssl_gen.methods.classical import label_spreading
from ssl_gen.methods.diffusion import dual_pseudo_training, edm, flow_matching, mean_flow
from ssl_gen.runs.options import Options

FIVE = Options(dataset="digits", seeds=5, features="random")
COUNTS = (10, 20, 50, 100, 200)
FLOW = flow_matching.Config(steps=2_500)
DUAL = dual_pseudo_training.Config(
    steps=5_000,
    warm_up=0.3,  # 1,500 updates, those of fixmatch
    generation=0.5,  # 2,500, those of the flow
    samples_per_class=100,
    labelled_batch=FIXMATCH.labelled_batch,
    generated_batch=25,
    unlabelled_batch=FIXMATCH.unlabelled_batch,
    classifier_width=FIXMATCH.width,
    classifier_dropout=FIXMATCH.dropout,
    threshold=FIXMATCH.threshold,
    augmentation=FIXMATCH.augmentation,
    strong=FIXMATCH.strong,
)
DRAWING = Row("flow_matching", FLOW, dataclasses.replace(FIVE, evaluators=()))
GUESSING = DRAWING._replace(options=dataclasses.replace(DRAWING.options, labeller="label_spreading"))
METHODS = {
    "label_spreading": Row("label_spreading", label_spreading.Config(), FIVE),
    "triple_gan": digits_label_efficiency.TRIPLE,
    "flow_matching": GUESSING,
    "flow_of_gan": GUESSING._replace(options=dataclasses.replace(DRAWING.options, labeller="triple_gan")),
    "null": DRAWING._replace(config=dataclasses.replace(FLOW, unlabelled="null")),
    "floor": DRAWING._replace(config=dataclasses.replace(FLOW, unlabelled="left_out")),
    "dual_pseudo_training": DRAWING._replace(method="dual_pseudo_training", config=DUAL),
}
S3GAN = s3gan.Config(  # sizes and rates of the plain GANs of digits_label_efficiency
    steps=3_000,
    inferred="guessed",
    discriminator_steps=1,
    network="mlp",
    latent=32,
    generator_hidden=(256, 256),
    discriminator_hidden=(256, 256),
    input_noise=0.2,
    noise=0.2,
    learning_rate=1e-3,
    generator_rate=1e-3,
    anneal=0.5,
    b1=0.5,
    averaging=0.01,
)
OTHERS = {
    "edm": GUESSING._replace(
        method="edm", config=edm.Config(steps=FLOW.steps, log_noise_mean=0.0, pixel_deviation=0.75)
    ),
    "mean_flow": GUESSING._replace(method="mean_flow", config=mean_flow.Config(steps=FLOW.steps)),
    "r3gan": GUESSING._replace(
        method="r3gan",
        config=r3gan.Config(
            steps=8_000,
            network="mlp",
            width=128,
            gamma=0.5,
            final_gamma=0.05,
            learning_rate=1e-3,
            final_rate=2.5e-4,
        ),
    ),
    "s3gan": GUESSING._replace(method="s3gan", config=S3GAN),
}

UNCONDITIONAL = DRAWING._replace(config=dataclasses.replace(FLOW, unlabelled="null", label_dropout=1.0))
REFERENCES = {"ceiling": DRAWING, "unconditional": UNCONDITIONAL}
ROWS = label_efficiency.spread(METHODS, COUNTS, REFERENCES) | label_efficiency.spread(OTHERS, (50,), {})
BASELINE = "floor"
COPYING = ("copying_labelled", "copying_unlabelled")
METRICS = ("fid", "agreement_svc", "coverage", *COPYING, "deviation_ratio", "first_error")

if __name__ == "__main__":
    title = "Bundled digits, a flow of guessed labels, 10 to 200 visible labels, 5 seeds"
    label_efficiency.main("digits_flow", ROWS, METRICS, title, {}, BASELINE)
