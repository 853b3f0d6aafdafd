"""Label propagation: labels stay as they are and flow along a graph of near images until nothing changes.

Zhu and Ghahramani 2002, "Learning from Labeled and Unlabeled Data with Label Propagation", CMU-CALD-02-107.

    F <- D^-1 W F, then F_i <- y_i on labelled images, for ever: the limit is harmonic, (L F)_i = 0 where unlabelled

The limit is solved for (Zhu, Ghahramani and Lafferty 2003, ICML). At a few labels a class it is nearly constant
but for spikes at the labels (Calder et al. 2020, arXiv:2006.11184): see `poisson_learning`. The graph joins all
training images to their nearest ones; a new image gets the weighted mean of its nearest training images' F. Distances
are of pixels in [-1, 1], or of latents, as they come: nothing is standardised.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from ssl_gen.graphs.build import Kernel, check_kernel, pose
from ssl_gen.graphs.induce import Nodes, induce, remember
from ssl_gen.graphs.solve import propagate_labels
from ssl_gen.types import Array, Images, ImageSpec, Key, Labels, Method

PAPER = "Zhu and Ghahramani 2002, CMU-CALD-02-107"
State = Nodes


@dataclasses.dataclass(frozen=True)
class Config:
    neighbours: int = 10  # k of each image; Calder et al. 2020
    kernel: Kernel = "gaussian"  # weights by distance, or all 1; Calder et al. 2020


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`, or for latents. Raises UserError on an unknown kernel."""
    check_kernel(config.kernel)

    def fit(key: Key, labelled: Images, labels: Labels, unlabelled: Images) -> State:
        posed = pose(labelled, labels, unlabelled, spec.classes, config.neighbours, config.kernel)
        return remember(posed.features, propagate_labels(posed.graph, posed.targets, posed.where))

    def classify(state: State, images: Array) -> Array:
        features = jnp.reshape(images, (len(images), -1))
        return induce(state, features, config.neighbours, config.kernel)

    return Method(None, (), classify=classify, fit=fit)
