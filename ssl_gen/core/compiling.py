"""What XLA is told of a program when it compiles it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from ssl_gen.core.machine import cores

# XLA on a processor drops the barriers of `jax.checkpoint` (jax 0.10.2) and merges what is computed again with
# what was computed before, so that nothing is saved; it is told to leave them. The numbers are the same.
KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}

# Its library YNN (jax 0.10.2) leaves most of a convolution to one core, Eigen divides it, and is 0.9 times as fast on
# one. Without YNN's convolutions a step of airbench takes 0.7 of the time on two cores, of a flow's U-Net 0.8; to
# classify with airbench or to draw from a flow 0.6, and no longer where two calls run side by side; ours, measured
# (`benchmarks/divided.json`). The numbers are the same but for rounding.
DIVIDED = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
}


@functools.cache
def _is_known(name: str, value: str) -> bool:
    """Does this version of XLA have an option, with this value?"""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def compiler_options(platform: str, remat: bool, at_once: int) -> dict[str, str]:
    """For a step of which `at_once` are taken side by side in this process."""
    if platform != "cpu":
        return {}
    divided = DIVIDED if at_once < cores() and all(_is_known(*each) for each in DIVIDED.items()) else {}
    return (KEEP_BARRIERS if remat else {}) | divided


def jit_inference(function: Callable[..., Any], **given: Any) -> Callable[..., Any]:
    """`jax.jit` of what is no step of training; to be called where the program runs, for it asks for the platform."""
    return jax.jit(function, compiler_options=compiler_options(jax.default_backend(), False, at_once=1), **given)
