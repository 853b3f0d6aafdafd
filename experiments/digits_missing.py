"""What fills in missing pixels best? Four autoencoders beside principal components and the mean image, on digits.

Bundled UCI digits (8 x 8 pixels), 100 visible labels, 3 seeds. Of the 500 test images 30 % of the pixels are hidden at
random; each method starts from the mean training image and encodes and decodes 20 times, the seen pixels staying.
`imputation` is the root mean squared error on the hidden pixels, pixels in [0, 1], `imputation_mean_image` that of the
mean image; `reconstruction_mse` of whole images, beside them, says how much a method's latents keep.

All have 16 latents, chosen for principal components among 8, 16 and 32 on 300 validation images (`--validation 300`);
`adversarial_autoencoder` has 10 classes beside its 6. `denoising_autoencoder` learned with 30 % of the pixels black.
Steps and layers are the same for all networks, and were tuned for none.

Command: python -m experiments.digits_missing (5 minutes on two busy cores)
"""

import dataclasses

from experiments import table
from experiments.table import Row
from ssl_gen.methods.classical import pca
from ssl_gen.methods.variational import adversarial_autoencoder, autoencoder, m2, vae
from ssl_gen.runs.options import Options

DIGITS = Options(dataset="digits", labels="100", seeds=3)
LATENT, HIDDEN, STEPS, RATE = 16, (128, 64), 2_000, 3e-3

PLAIN = autoencoder.Config(
    steps=STEPS,
    latent=LATENT,
    hidden=HIDDEN,
    masking=0.0,
    loss="squared_error",
    learning_rate=RATE,
)
VAE = vae.Config(steps=STEPS, unlabelled_batch=100, latent=LATENT, hidden=HIDDEN, binarise=False, learning_rate=RATE)
M2 = m2.Config(
    steps=STEPS,
    labelled_batch=20,
    unlabelled_batch=100,
    alpha=5.0,
    labelled_share=0.002,  # as recorded, and l2; the mask's: 0.0716 and 7.16e-4
    l2=2e-5,
    latent=LATENT,
    hidden=HIDDEN,
    binarise=False,
    learning_rate=RATE,
)
ADVERSARIAL = adversarial_autoencoder.Config(
    steps=STEPS,
    labelled_batch=20,
    latent=LATENT - 10,
    hidden=HIDDEN,
    discriminator_hidden=HIDDEN,
)

ROWS = {
    "pca": Row("pca", pca.Config(LATENT), DIGITS),
    "autoencoder": Row("autoencoder", PLAIN, DIGITS),
    "denoising_autoencoder": Row("autoencoder", dataclasses.replace(PLAIN, masking=0.3), DIGITS),
    "vae": Row("vae", VAE, DIGITS),
    "m2": Row("m2", M2, DIGITS),
    "adversarial_autoencoder": Row("adversarial_autoencoder", ADVERSARIAL, DIGITS),
}
BASELINE = None
METRICS = ("imputation", "imputation_mean_image", "reconstruction_mse")

if __name__ == "__main__":
    table.main("digits_missing", ROWS, BASELINE, METRICS, "Bundled digits, 30 % of test pixels missing, 3 seeds")
