"""Label propagation: labels stay as they are and flow along a graph of near images until nothing changes.

Zhu and Ghahramani 2002, "Learning from Labeled and Unlabeled Data with Label Propagation", CMU-CALD-02-107.

    F <- D^-1 W F, then F_i <- y_i on labelled images, for ever: the limit is harmonic, (L F)_i = 0 where unlabelled

The limit is solved for (Zhu, Ghahramani and Lafferty 2003, ICML). At a few labels a class it is nearly constant
but for spikes at the labels (Calder et al. 2020, arXiv:2006.11184): see `poisson_learning`, or correct it:

    mean_shift    F_i - mean_j F_j, its positive part over its sum; the code of Calder et al. 2020
    class_mass    q_k F_ik / sum_j F_jk over its sum, j unlabelled, q the prior; Zhu et al. 2003, sec. 4

The graph joins all training images to their nearest ones; a new image gets the weighted mean of its nearest training
images' F. Distances are of pixels in [-1, 1], or of latents, as they come: nothing is standardised.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import jax.numpy as jnp

from ssl_gen.core.options import choose
from ssl_gen.graphs.build import Kernel, check_kernel, pose
from ssl_gen.graphs.induce import Nodes, induce, remember
from ssl_gen.graphs.solve import check_prior, normalized_mass, prior_or, propagate_labels, shares, shifted
from ssl_gen.types import Array, Images, ImageSpec, Key, Labels, Method, UserError

PAPER = "Zhu and Ghahramani 2002, CMU-CALD-02-107"
State = Nodes
Correction = Literal["none", "mean_shift", "class_mass"]


@dataclasses.dataclass(frozen=True)
class Config:
    neighbours: int = 10  # k of each image; Calder et al. 2020
    kernel: Kernel = "gaussian"  # weights by distance, or all 1; Calder et al. 2020
    correction: Correction = "none"  # of F where labels are few, see above
    prior: tuple[float, ...] = ()  # q of class_mass, a number for each class; () stands for the labels' frequencies


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`, or for latents. Raises UserError on settings that do not go together."""
    check_kernel(config.kernel)
    choose("correction", config.correction, get_args(Correction))
    check_prior(config.prior, spec.classes)
    if config.prior and config.correction != "class_mass":
        raise UserError("prior is of the correction class_mass: choose that one, or leave the prior out")

    def fit(key: Key, labelled: Images, labels: Labels, unlabelled: Images) -> State:
        posed = pose(labelled, labels, unlabelled, spec.classes, config.neighbours, config.kernel)
        values = propagate_labels(posed.graph, posed.targets, posed.where)
        if config.correction == "mean_shift":
            values = shares(shifted(values), posed.frequencies)
        if config.correction == "class_mass":
            prior = prior_or(config.prior, posed.frequencies)
            values = shares(normalized_mass(values, posed.where, prior), prior)
        return remember(posed.features, values)

    def classify(state: State, images: Array) -> Array:
        features = jnp.reshape(images, (len(images), -1))
        return induce(state, features, config.neighbours, config.kernel)

    return Method(None, (), classify=classify, fit=fit)
