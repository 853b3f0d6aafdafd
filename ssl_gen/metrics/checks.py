"""What every metric on features asks of its input."""

from __future__ import annotations

import numpy as np

from ssl_gen.metrics.metric import Evaluated
from ssl_gen.types import UserError


def check_real(replica: Evaluated, least: int) -> None:
    """Raise UserError where there are fewer real images than `least` to compare samples with."""
    count = len(replica.reference_features)
    if count < least:
        raise UserError(f"{count} {replica.split} images are too few: this metric compares with at least {least}")


def check_features(least: int, *features: np.ndarray) -> None:
    """Raise UserError unless all features (N, F) are finite, equally wide, and at least `least` samples each."""
    for each in features:
        if each.ndim != 2:
            raise UserError(f"features must be (samples, width), not of shape {each.shape}")
        if len(each) < least:
            raise UserError(f"{len(each)} samples are too few: this metric needs at least {least}; draw more")
        broken = int((~np.isfinite(each.sum(1, dtype=np.float64))).sum())  # a sum takes no copy and loses no NaN
        if broken:
            raise UserError(f"{broken} of {len(each)} samples have features that are NaN or infinite")
    widths = sorted({each.shape[1] for each in features})
    if len(widths) > 1:
        raise UserError(f"features of widths {widths} cannot be compared: use one extractor for both sides")
