"""A classifier as ONNX, for programs that know no JAX: written by jax2onnx, checked by onnxruntime before it is kept.

classify.onnx    images (B, H, W, C) uint8 -> probabilities (B, K) float32, weights built in
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from ssl_gen.networks import convolution
from ssl_gen.types import Array, UserError

FILE = "classify.onnx"
OPSET = 21  # onnxruntime 1.20 and later run it; ours
CHECKED = 10  # images, of noise, on which both must agree
CLOSE = 1e-4  # largest difference of a probability; ours: float32 leaves 1e-6
PACKAGES = ("jax2onnx", "onnxruntime")


class Written(NamedTuple):
    """A program that was checked."""

    data: bytes
    difference: float  # the largest, of probabilities
    images: int

    @property
    def checked(self) -> str:
        """How it was made and how good it is."""
        return f"opset {OPSET}, on {self.images} images within {self.difference:.1g} of classify.stablehlo"


def check_installed() -> None:
    """Raise UserError where a package is missing."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--onnx needs {package}: pip install 'ssl-gen[onnx]'")


def write(method: str, classify: Callable[[Array], Array], shape: tuple[int, int, int], batch: Any) -> Written:
    """images (B, H, W, C) uint8 -> probabilities (B, K), as ONNX; `batch` is a number, or None for any.

    Raises UserError where jax2onnx knows some part of it not, and where onnxruntime comes to other probabilities.
    """
    import jax2onnx
    import onnxruntime

    images = np.random.default_rng(0).integers(0, 256, (batch or CHECKED, *shape), np.uint8)
    with jax.default_matmul_precision("highest"):  # as onnxruntime's processor; a GPU's TF32 is further than CLOSE
        ours = np.asarray(jax.jit(classify)(images))
    size = batch or jax.export.symbolic_shape("batch")[0]
    try:
        with convolution.with_body("native"):
            model = jax2onnx.to_onnx(
                lambda images: classify(images),  # unknown to jax's caches, which hold the other body
                [jax.ShapeDtypeStruct((size, *shape), jnp.uint8)],
                model_name=method,
                opset=OPSET,
                input_names=["images"],
                output_names=["probabilities"],
            )
        data: bytes = model.SerializeToString()
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        theirs = session.run(None, {"images": images})[0]
    except (
        Exception
    ) as error:  # a converter's own kinds: NotImplementedError, TypeError, ValueError and others were met
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"{method} cannot be written as ONNX: {said or type(error).__name__}; leave --onnx out"
        ) from error
    difference = float(np.abs(theirs - ours).max())
    if not difference <= CLOSE:
        raise UserError(
            f"{method} as ONNX comes to other probabilities, by {difference:.2g}, and is not kept: leave --onnx out"
        )
    return Written(data, difference, len(images))
