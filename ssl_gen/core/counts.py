"""Settings that are made of how many images there are to learn from, unless they are given."""

from __future__ import annotations

from ssl_gen.types import ImageSpec, UserError


def counted(setting: str, spec: ImageSpec) -> tuple[int, int]:
    """N_l images with a visible label, and all N there are.

    N counts a labelled image that is in the unlabelled pool too twice, as a sum over both does. Raises UserError,
    naming the setting that asks, where `spec` does not say.
    """
    if spec.labelled is None or spec.unlabelled is None:
        raise UserError(
            f"{setting} depends on how many images there are: give it, or the ImageSpec's labelled and unlabelled"
        )
    return spec.labelled, spec.labelled + spec.unlabelled


def labelled_share(given: float | None, spec: ImageSpec) -> float:
    """N_l / N, unless given: the weight of labelled images in a mean over all. Raises UserError as `counted`."""
    if given is not None:
        return given
    labelled, images = counted("labelled_share", spec)
    return labelled / images


def prior_decay(given: float | None, spec: ImageSpec) -> float:
    """1 / N, unless given: the weight decay that a prior N(0, 1) of weights is, beside a mean over all images.

    It is the gradient of |w|^2 / 2 N. Raises UserError as `counted`.
    """
    return 1 / counted("l2", spec)[1] if given is None else given
