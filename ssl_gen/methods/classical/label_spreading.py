"""Label spreading: labels flow along a graph of near images, and every image keeps a part of its own.

Zhou, Bousquet, Lal, Weston and Schoelkopf 2004, "Learning with Local and Global Consistency", NIPS 16.

    F <- alpha S F + (1 - alpha) Y,  S = D^-1/2 W D^-1/2;  the limit is (1 - alpha) (I - alpha S)^-1 Y

Rows of F over their sum are the distributions over classes; images in parts of the graph that no label reaches get the
frequencies of the labels. The graph joins all training images to their nearest ones (the paper's joins all pairs); a
new image gets the weighted mean of its nearest training images' distributions. Distances are of pixels in [-1, 1], or
of latents, as they come: nothing is standardised.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from ssl_gen.graphs.build import Kernel, check_kernel, pose
from ssl_gen.graphs.induce import Nodes, induce, remember
from ssl_gen.graphs.solve import shares, spread_labels
from ssl_gen.types import Array, Images, ImageSpec, Key, Labels, Method, UserError

PAPER = "Zhou et al. 2004, NIPS 16"
State = Nodes


@dataclasses.dataclass(frozen=True)
class Config:
    alpha: float = 0.99  # part of F that comes from neighbours, 0 < alpha < 1; the paper's experiments
    neighbours: int = 10  # k of each image; Calder et al. 2020, arXiv:2006.11184
    kernel: Kernel = "gaussian"  # weights by distance, or all 1; Calder et al. 2020


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`, or for latents. Raises UserError on an unknown kernel and a wrong alpha."""
    check_kernel(config.kernel)
    if not 0 < config.alpha < 1:
        raise UserError(f"alpha is {config.alpha}: choose a number between 0 and 1")

    def fit(key: Key, labelled: Images, labels: Labels, unlabelled: Images) -> State:
        posed = pose(labelled, labels, unlabelled, spec.classes, config.neighbours, config.kernel)
        spread = spread_labels(posed.graph, posed.targets, config.alpha)
        return remember(posed.features, shares(spread, posed.frequencies))

    def classify(state: State, images: Array) -> Array:
        features = jnp.reshape(images, (len(images), -1))
        return induce(state, features, config.neighbours, config.kernel)

    return Method(None, (), classify=classify, fit=fit)
