"""What chips can do at most, as their makers say: what a measured rate is a share of."""

from __future__ import annotations

from typing import NamedTuple


class Chip(NamedTuple):
    """Rates of one chip: dense products, sums in float32, without structured sparsity."""

    float32: float | None  # 10^12 operations a second
    tf32: float | None
    bfloat16: float | None
    memory: float  # 10^9 bytes a second
    source: str


_V100 = "NVIDIA V100 datasheet, 2020"
_T4 = "NVIDIA T4 datasheet, 2019"
_A100 = "NVIDIA A100 datasheet, 2022"
_H100 = "NVIDIA H100 architecture whitepaper, 2022, table 2"
_H200 = "NVIDIA H200 datasheet, 2024"
_L4 = "NVIDIA L4 datasheet, 2023"
_L40S = "NVIDIA L40S datasheet, 2023"
_TPU = "Google Cloud, Cloud TPU documentation"

CHIPS = {  # by jax's device_kind
    "Tesla V100-SXM2-16GB": Chip(15.7, None, None, 900, _V100),
    "Tesla V100-SXM2-32GB": Chip(15.7, None, None, 900, _V100),
    "Tesla T4": Chip(8.1, None, None, 320, _T4),
    "NVIDIA A100-SXM4-40GB": Chip(19.5, 156, 312, 1_555, _A100),
    "NVIDIA A100-SXM4-80GB": Chip(19.5, 156, 312, 2_039, _A100),
    "NVIDIA A100 80GB PCIe": Chip(19.5, 156, 312, 1_935, _A100),
    "NVIDIA H100 80GB HBM3": Chip(66.9, 494.7, 989.4, 3_350, _H100),
    "NVIDIA H100 PCIe": Chip(51.2, 378, 756, 2_000, _H100),
    "NVIDIA H200": Chip(66.9, 494.7, 989.4, 4_800, _H200),
    "NVIDIA L4": Chip(30.3, 60, 121, 300, _L4),
    "NVIDIA L40S": Chip(91.6, 183, 362, 864, _L40S),
    "TPU v4": Chip(None, None, 275, 1_228, _TPU),
    "TPU v5 lite": Chip(None, None, 197, 819, _TPU),
    "TPU v5": Chip(None, None, 459, 2_765, _TPU),
    "TPU v6 lite": Chip(None, None, 918, 1_640, _TPU),
}


def peak(kind: str, precision: str) -> float | None:
    """Operations a second of a chip (jax's device_kind) at the precision of a record; None where it is not known.

    `precision` is bfloat16, or what `runs.record.precision` says of float32 products, such as "default (TF32)".
    """
    chip = CHIPS.get(kind)
    if chip is None:
        return None
    if "bfloat16" in precision:
        rate = chip.bfloat16
    elif "TF32" in precision or precision == "tensorfloat32":
        rate = chip.tf32
    else:
        rate = chip.float32 if "float32" in precision or precision == "highest" else None
    return None if rate is None else rate * 1e12
