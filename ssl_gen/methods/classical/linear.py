"""Linear classifiers on the visible labels: ridge regression of one-hot labels, or logistic regression.

Hoerl and Kennard 1970, Technometrics 12 (ridge); Cox 1958, J. Royal Statistical Society B 20 (logistic).

    ridge      min_(W, b) sum_i |W^T x_i + b - onehot(y_i)|^2 + l2 |W|^2, solved in closed form on centred data:
               W = Xc^T (Xc Xc^T + l2 I)^-1 Yc
    logistic   min_(W, b) sum_i CE(W^T x_i + b, y_i) + l2 / 2 |W|^2, by scikit-learn (L-BFGS)

The bias is not regularised. Of two classes scikit-learn fits one column, the difference: l2 weighs twice as much then.
With `views` of each labelled image, all but one of them changed by `augmentation` before
an encoder sees them, the loss of an image is the mean over its views: with `--encoder`, a head on frozen features that
is trained with changed images. Features are pixels in [-1, 1], or latents, as they come: nothing is standardised. Ridge
outputs sum to 1 over the classes but may be negative: probabilities are in proportion to their positive part, ours. No
unlabelled image is looked at.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from ssl_gen.augmentation import Augmentation, copies
from ssl_gen.core.options import choose
from ssl_gen.losses.classification import log_shares
from ssl_gen.types import Array, Images, ImageSpec, Key, Labels, Method, UserError

PAPER = "Hoerl and Kennard 1970, Technometrics 12"
ABSENT = -30.0  # logit of a class that no visible label has; ours
Kind = Literal["ridge", "logistic"]


@dataclasses.dataclass(frozen=True)
class Config:
    kind: Kind = "logistic"  # the loss
    l2: float = 1.0  # weight of |W|^2 beside sums over images; scikit-learn's default
    iterations: int = 1_000  # of L-BFGS at most; ours
    views: int = 1  # of each labelled image: itself and changed copies; ours
    augmentation: Augmentation = Augmentation()  # of the copies


class State(NamedTuple):
    weights: np.ndarray  # (F, K)
    bias: np.ndarray  # (K,)


def ridge(features: np.ndarray, targets: np.ndarray, l2: float) -> tuple[np.ndarray, np.ndarray]:
    """features (L, F), targets (L, K), l2 > 0 -> weights (F, K), bias (K,) of least squares, in float64.

    The smaller of two systems is solved: L x L in the dual form, F x F otherwise.
    """
    mean, middle = features.mean(0, dtype=np.float64), targets.mean(0, dtype=np.float64)
    x, y = features - mean, targets - middle
    if len(x) < x.shape[1]:
        weights = x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(len(x)), y)
    else:
        weights = np.linalg.solve(x.T @ x + l2 * np.eye(x.shape[1]), x.T @ y)
    return weights, middle - mean @ weights


def logistic(
    features: np.ndarray, labels: np.ndarray, classes: int, l2: float, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """features (L, F), labels (L,) -> weights (F, K), bias (K,). Raises UserError where all labels are the same."""
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels)) < 2:
        raise UserError(
            "logistic regression needs labels of two classes or more: give more, or use --config.kind ridge"
        )
    found = LogisticRegression(C=1 / l2, max_iter=iterations).fit(features, labels)
    columns = found.classes_ if len(found.classes_) > 2 else found.classes_[1:]  # of two classes the first has logit 0
    place = np.eye(classes)[columns]
    absent = np.where(np.isin(np.arange(classes), labels), 0.0, ABSENT)
    return found.coef_.T @ place, found.intercept_ @ place + absent


def make(config: Config, spec: ImageSpec) -> Method:
    """A linear classifier for images of `spec`, or for latents.

    Raises UserError on an unknown kind, on l2 <= 0, and as `copies`.
    """
    choose("kind", config.kind, get_args(Kind))
    if config.l2 <= 0:
        raise UserError(f"l2 is {config.l2}: choose a number above 0, without which the weights are not determined")
    l2 = config.views * config.l2  # beside sums over all views

    def fit(key: Key, labelled: Images, labels: Labels, unlabelled: Images) -> State:
        features = labelled.reshape(len(labelled), -1)
        if config.kind == "ridge":
            weights, bias = ridge(features, np.eye(spec.classes)[labels], l2)
        else:
            weights, bias = logistic(features, labels, spec.classes, l2, config.iterations)
        return State(weights.astype(np.float32), bias.astype(np.float32))

    def classify(state: State, images: Array) -> Array:
        outputs = jnp.reshape(images, (len(images), -1)) @ state.weights + state.bias
        return log_shares(outputs) if config.kind == "ridge" else jax.nn.log_softmax(outputs)

    return Method(None, (), classify=classify, fit=fit, copies=copies(config.augmentation, config.views))
