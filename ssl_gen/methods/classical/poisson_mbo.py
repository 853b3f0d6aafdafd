"""Poisson MBO: Poisson learning, then short cuts between classes whose sizes are known.

Calder, Cook, Thorpe and Slepcev 2020, "Poisson Learning: Graph Based Semi-Supervised Learning at Very Low Label Rates",
arXiv:2006.11184, algorithm 2.

    u <- mu (b / ybar) u of Poisson learning, b the sizes of the classes, ybar the mean of the labels y_j, then in turns
    heat    u <- u - dt (L u - mu sum_j (y_j - ybar) delta_j), dt = 1 / max_i d_i, N_inner times
    cut     u_i <- e_k, k = argmax_k s_k u_k(x_i), weights s such that classes come to their sizes

The sizes are those of the labels, or given, or of the classes that Poisson learning finds ("potential", ours: for
labels that do not come in proportion). They are met about: weights stay within 1/2 and 2, and come to rest where the
paper's may swing, see `graphs/solve.py`. A class without labels stays empty, and parts of the graph without labels are
not counted. Distributions over classes, of which the paper does not speak, are the positive part of s u before the
last cut over its sum, ours; where no label reaches they are b. The paper's experiments classify the images of the
graph, test images among them, and give the true sizes; here a new image gets the weighted mean of its nearest training
images' distributions. Distances are of pixels in [-1, 1], or of latents, as they come; the paper's are of the latents
of a VAE: give `--encoder`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from ssl_gen.core.options import choose
from ssl_gen.graphs.build import Kernel, check_kernel, pose
from ssl_gen.graphs.induce import Nodes, induce, remember
from ssl_gen.graphs.solve import check_prior, correct, poisson, poisson_mbo, positive, prior_or, shares
from ssl_gen.types import Array, Images, ImageSpec, Key, Labels, Method, UserError

PAPER = "Calder et al. 2020, arXiv:2006.11184"
State = Nodes
Sizes = Literal["labels", "potential"]


@dataclasses.dataclass(frozen=True)
class Config:
    neighbours: int = 10  # k of each image; the paper's experiments
    kernel: Kernel = "gaussian"  # weights by distance, or all 1; the paper's experiments
    sizes: Sizes = "labels"  # of the classes: as among the labels, or as Poisson learning finds them
    prior: tuple[float, ...] = ()  # b, a number for each class, instead of `sizes`; the paper's are the true ones
    fidelity: float = 1.0  # mu, of the sources beside the graph; the authors' code
    inner: int = 40  # steps of heat before each cut; the authors' code
    outer: int = 20  # cuts; the authors' code


def found_sizes(potential: Array) -> Array:
    """Potential (N, K) -> (K,) parts of the nodes in which a class is largest; nodes that are 0 are left out."""
    known = jnp.any(potential != 0, -1)
    return known @ jax.nn.one_hot(potential.argmax(-1), potential.shape[-1]) / positive(known.sum())


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`, or for latents. Raises UserError on settings that make no sense."""
    check_kernel(config.kernel)
    choose("sizes", config.sizes, get_args(Sizes))
    check_prior(config.prior, spec.classes)
    if config.prior and config.sizes != "labels":
        raise UserError(f"sizes is {config.sizes} and there is a prior: leave out one of them")
    if config.fidelity <= 0 or min(config.inner, config.outer) < 1:
        raise UserError(
            f"fidelity is {config.fidelity}, inner {config.inner} and outer {config.outer}: "
            "choose a fidelity above 0 and 1 or more of the others"
        )

    def fit(key: Key, labelled: Images, labels: Labels, unlabelled: Images) -> State:
        posed = pose(labelled, labels, unlabelled, spec.classes, config.neighbours, config.kernel)
        potential = poisson(posed.graph, posed.targets, posed.where)
        sizes = prior_or(config.prior, posed.frequencies)
        sizes = found_sizes(potential) if config.sizes == "potential" else sizes
        sizes = jnp.where(posed.frequencies > 0, sizes, 0.0)
        sizes = sizes / sizes.sum()
        begun = correct(potential, posed.frequencies, sizes)
        cut = poisson_mbo(
            posed.graph, begun, posed.targets, posed.where, sizes, config.fidelity, config.inner, config.outer
        )
        return remember(posed.features, shares(cut, sizes))

    def classify(state: State, images: Array) -> Array:
        features = jnp.reshape(images, (len(images), -1))
        return induce(state, features, config.neighbours, config.kernel)

    return Method(None, (), classify=classify, fit=fit)
