"""A multilayer perceptron on the visible labels, trained by scikit-learn.

Rumelhart, Hinton and Williams 1986, "Learning Representations by Back-Propagating Errors", Nature 323.

    h_0 = x,  h_(i+1) = relu(W_i^T h_i + b_i),  min E CE(W_n^T h_n + b_n, y) + l2 / (2 B) sum_i |W_i|^2

on batches of B = 200 images, or all where there are fewer or with lbfgs, until the loss stands still or for `epochs`;
early stopping, which would take labels away, is off. With `views` of each labelled image, all but one of them changed
by `augmentation` before an encoder sees them, it learns all: with `--encoder` a head on frozen features that is trained
with changed images. Features are pixels in [-1, 1], or latents, as they come: nothing is standardised. No unlabelled
image is looked at; for the same with dropout, augmentation at every step and an EMA of the params, on pixels alone, see
`supervised`.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from ssl_gen.augmentation import Augmentation, copies
from ssl_gen.core.options import choose
from ssl_gen.types import Array, Images, ImageSpec, Key, Labels, Method, UserError

PAPER = "Rumelhart et al. 1986, Nature 323"
ABSENT = -30.0  # logit of a class that no visible label has; ours
Solver = Literal["adam", "lbfgs"]


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: tuple[int, ...] = (500, 500)  # units a layer; ours, as in `supervised`
    solver: Solver = "adam"  # of scikit-learn; lbfgs sees all labels at once
    learning_rate: float = 1e-3  # of adam; scikit-learn's default
    l2: float = 1e-4  # weight of |W|^2 / 2, divided by the images of a batch; scikit-learn's default
    epochs: int = 500  # at most; ours
    views: int = 1  # of each labelled image: itself and changed copies; ours
    augmentation: Augmentation = Augmentation()  # of the copies


class State(NamedTuple):
    first: np.ndarray  # (F, hidden)
    middle: np.ndarray  # (all other hidden weights,), flattened one after the other
    last: np.ndarray  # (hidden, K)
    biases: np.ndarray  # (hidden + ... + K,)


def forward(state: State, features: Array, hidden: tuple[int, ...]) -> Array:
    """features (B, F) -> logits (B, K)."""
    ends = np.cumsum(hidden)
    *biases, last_bias = jnp.split(state.biases, ends)
    shapes = list(itertools.pairwise(hidden))
    inner = jnp.split(state.middle, np.cumsum([rows * columns for rows, columns in shapes])[:-1]) if shapes else []
    weights: list[Array | np.ndarray] = [
        state.first,
        *(w.reshape(shape) for w, shape in zip(inner, shapes, strict=True)),
    ]
    for weight, bias in zip(weights, biases, strict=True):
        features = jax.nn.relu(features @ weight + bias)
    return features @ state.last + last_bias


def train(config: Config, seed: int, features: np.ndarray, labels: np.ndarray, classes: int) -> State:
    """features (L, F), labels (L,) of two classes or more."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier(
        config.hidden,
        solver=config.solver,
        alpha=config.l2,
        learning_rate_init=config.learning_rate,
        max_iter=config.epochs,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the limit is ours to choose
        net.fit(features, labels)
    columns = net.classes_ if len(net.classes_) > 2 else net.classes_[1:]  # of two classes the first has logit 0
    place = np.eye(classes)[columns]
    absent = np.where(np.isin(np.arange(classes), labels), 0.0, ABSENT)
    first, *inner, last = net.coefs_
    middle = np.concatenate([np.zeros(0), *(weight.ravel() for weight in inner)])
    biases = np.concatenate([*net.intercepts_[:-1], net.intercepts_[-1] @ place + absent])
    return State(*(x.astype(np.float32) for x in (first, middle, last @ place, biases)))


def make(config: Config, spec: ImageSpec) -> Method:
    """A perceptron for images of `spec`, or for latents.

    Raises UserError on an unknown solver, without a layer, and as `copies`.
    """
    choose("solver", config.solver, get_args(Solver))
    if not config.hidden:
        raise UserError("hidden is empty: give the units of a layer or more, or use the method linear")

    def fit(key: Key, labelled: Images, labels: Labels, unlabelled: Images) -> State:
        if len(np.unique(labels)) < 2:
            raise UserError("mlp needs labels of two classes or more: give it more labels")
        seed = int(jax.random.bits(key))
        return train(config, seed, labelled.reshape(len(labelled), -1), labels, spec.classes)

    def classify(state: State, images: Array) -> Array:
        return jax.nn.log_softmax(forward(state, jnp.reshape(images, (len(images), -1)), config.hidden))

    return Method(None, (), classify=classify, fit=fit, copies=copies(config.augmentation, config.views))
