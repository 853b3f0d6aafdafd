"""How well do a few numbers keep an image? Autoencoders beside principal components of the same width, on digits.

Bundled UCI digits (8 x 8 pixels, 1,297 for training without their labels, 500 for testing), Z = 2 to 32 numbers for
the 64 pixels, 3 seeds. `reconstruction_mse` is the mean squared error of test images, pixels in [0, 1]. Principal
components are the best linear code: what is below them is what nonlinear networks are worth. The autoencoders' steps
and rate, the same for all Z, were chosen on 300 validation images (`--validation 300`) among 3 settings at Z = 2, 8
and 32.

    python -m experiments.digits_compress            a minute on two busy cores
    python -m experiments.digits_compress figure     the tracked record as a curve, runs/digits_compress.html
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments import table, tracked
from experiments.table import HERE, Row
from ssl_gen.methods.classical import pca
from ssl_gen.methods.variational import autoencoder
from ssl_gen.reports.charts import curves, style
from ssl_gen.reports.records import FinalRecord
from ssl_gen.runs.options import Options

WIDTHS = (2, 4, 8, 16, 32)  # Z
DIGITS = Options(dataset="digits", seeds=3)


def network(latent: int) -> autoencoder.Config:
    """A plain autoencoder of that width."""
    return autoencoder.Config(
        steps=6_000,
        latent=latent,
        hidden=(128, 64),
        masking=0.0,
        loss="squared_error",
        learning_rate=3e-3,
    )


ROWS = {f"pca_{latent}": Row("pca", pca.Config(latent), DIGITS) for latent in WIDTHS}
ROWS |= {f"autoencoder_{latent}": Row("autoencoder", network(latent), DIGITS) for latent in WIDTHS}
BASELINE = None
METRICS = ("reconstruction_mse", "reconstruction_psnr", "reconstruction_ssim")


def figure(finals: Mapping[str, FinalRecord]) -> str:
    """The error over Z as a page of its own: a line a method, a band from its lowest to its highest seed."""
    lines = []
    for method, css in (("pca", "first"), ("autoencoder", "second")):
        values = [finals[f"{method}_{latent}"].metrics[METRICS[0]]["per_seed"] for latent in WIDTHS]
        line = curves.line(method, css, np.array(WIDTHS), np.array(values, float).T)
        lines += [] if line is None else [line]
    said = f"{METRICS[0]} of test digits over the number of latents; solid: pca, dashed: autoencoder"
    drawn = curves.chart(lines, said, 320, from_zero=True)
    return f"<!DOCTYPE html><title>digits_compress</title><style>{style.SHEET}</style><h1>{said}</h1>{drawn}\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["figure"]:
        path = Path("runs/digits_compress.html")
        path.parent.mkdir(exist_ok=True)
        record = tracked.load(HERE / "digits_compress.json")
        assert isinstance(record, tracked.Tracked)
        path.write_text(figure(record.rows))
        print(path)
    else:
        table.main("digits_compress", ROWS, BASELINE, METRICS, "Bundled digits in Z numbers, 3 seeds")
