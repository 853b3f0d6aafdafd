"""Poisson learning: labels are sources and sinks of a potential on a graph of near images.

Calder, Cook, Thorpe and Slepcev 2020, "Poisson Learning: Graph Based Semi-Supervised Learning at Very Low Label Rates",
arXiv:2006.11184.

    L u = sum_j (y_j - ybar) delta_j,  sum_i d_i u_i = 0,  ybar the mean of the labels y_j
    class(x) = argmax_k (b_k / ybar_k) u_k(x),  b the prior frequencies of the classes

Unlike `label_propagation` it does not go flat at one label a class. Distributions over classes, of which the paper does
not speak, are the positive part of (b_k / ybar_k) u_k over its sum, ours; where u is 0, in parts of the graph that no
label reaches, they are b. The paper's experiments classify the images of the graph, test images among them; here a new
image gets the weighted mean of its nearest training images' distributions. Distances are of pixels in [-1, 1], or of
latents, as they come; the paper's are of the latents of a VAE: give `--encoder`.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from ssl_gen.graphs.build import Kernel, check_kernel, pose
from ssl_gen.graphs.induce import Nodes, induce, remember
from ssl_gen.graphs.solve import check_prior, correct, poisson, prior_or, shares
from ssl_gen.types import Array, Images, ImageSpec, Key, Labels, Method

PAPER = "Calder et al. 2020, arXiv:2006.11184"
State = Nodes


@dataclasses.dataclass(frozen=True)
class Config:
    neighbours: int = 10  # k of each image; the paper's experiments
    kernel: Kernel = "gaussian"  # weights by distance, or all 1; the paper's experiments
    prior: tuple[float, ...] = ()  # b, a number for each class; () stands for the frequencies of the labels


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`, or for latents. Raises UserError on an unknown kernel and a wrong prior."""
    check_kernel(config.kernel)
    check_prior(config.prior, spec.classes)

    def fit(key: Key, labelled: Images, labels: Labels, unlabelled: Images) -> State:
        posed = pose(labelled, labels, unlabelled, spec.classes, config.neighbours, config.kernel)
        prior = prior_or(config.prior, posed.frequencies)
        potential = poisson(posed.graph, posed.targets, posed.where)
        return remember(posed.features, shares(correct(potential, posed.frequencies, prior), prior))

    def classify(state: State, images: Array) -> Array:
        features = jnp.reshape(images, (len(images), -1))
        return induce(state, features, config.neighbours, config.kernel)

    return Method(None, (), classify=classify, fit=fit)
