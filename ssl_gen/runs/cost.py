"""What training cost: operations, images a second, and the share of what the chips can do."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
from jax.extend import core as extend

from ssl_gen.core import chips
from ssl_gen.networks.convolution import with_body
from ssl_gen.training.programs import arguments
from ssl_gen.types import Method, Phase


def _on_cpu() -> contextlib.AbstractContextManager[Any]:
    """Where operations are counted: jax counts none for a GPU. The default device where JAX_PLATFORMS has no CPU."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()


def flop(method: Method, phase: Phase, spec: tuple[int, ...]) -> float | None:
    """Operations of one step of a phase, forward and backward, of one replica; None where jax cannot say.

    As XLA counts them before it compiles, where convolutions are its own (`convolution`): the same for every placement
    and device, and no second compilation. A loop counts as often as it turns. `spec` is an image's (H, W, C).
    """

    def step(*given: Any) -> Any:
        return phase.step(*given)  # a function of its own: jax keeps what it traced of one, whatever the body

    with with_body("native"), _on_cpu():
        return _counted(jax.jit(step).trace(*arguments(method, phase, spec)))


def _counted(program: Any) -> float | None:
    """Operations of a traced function: as XLA counts them, a loop's body once, and those of all turns but the first."""
    once: Any = program.lower().cost_analysis()
    return once["flops"] + _turns(program.jaxpr.jaxpr) if once and "flops" in once else None  # jax promises neither


def _turns(program: extend.Jaxpr) -> float:
    """Operations of all turns but the first of the loops in a program (`scan`, which a loop of known length is)."""
    total = 0.0
    for equation in program.eqns:
        if equation.primitive.name == "scan":
            body = equation.params["jaxpr"]
            shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in body.in_avals]
            turn = _counted(jax.jit(extend.jaxpr_as_fun(body)).trace(*shapes))
            total += (equation.params["length"] - 1) * (turn or 0.0)  # said of the whole, it is said of a part
        total += sum(map(_turns, extend.jaxprs_in_params(equation.params)))
    return total


def pflop(method: Method, spec: tuple[int, ...]) -> float | None:
    """What one replica's training costs, all steps, in 10^15 operations (`flop`); None where jax cannot say."""
    operations = 0.0
    for phase in method.phases:
        each = flop(method, phase, spec)
        if each is None:
            return None
        operations += phase.steps * each
    return operations / 1e15


def images_per_second(method: Method, seeds: int, seconds: float) -> float | None:
    """Training images that all seeds together were shown in a second, each as often as it came; None without steps.

    All that training waits for counts: compilation, evaluators, checkpoints.
    """
    images = sum(phase.steps * (phase.labelled + phase.unlabelled) for phase in method.phases)
    return seeds * images / seconds if images and seconds > 0 and not method.fit else None


def share_of_peak(operations: float | None, seeds: int, seconds: float, words: str, devices: int) -> float | None:
    """Operations (10^15 a seed) a second over what the devices in use can do (`core/chips.py`), at a `precision`.

    devices: as many as train. Seconds are those of `images_per_second`. None where the chip is not known, or
    no operations.
    """
    peak = chips.peak(jax.devices()[0].device_kind, words)
    if operations is None or peak is None or seconds <= 0:
        return None
    return seeds * operations * 1e15 / (seconds * peak * devices)
