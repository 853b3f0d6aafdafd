"""The visible labels alone: the floor of every table (plain and augmented), and with all labels its ceiling.

Cross-entropy on the labelled images; no unlabelled image is looked at. Run it with the network, augmentation and steps
of the method it is compared with (Oliver et al. 2018, "Realistic Evaluation of Deep Semi-Supervised Learning
Algorithms", arXiv:1804.09170: an equal baseline).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_gen import losses
from ssl_gen.augmentation import WEAK_PHOTOGRAPHS, Augmentation, augment
from ssl_gen.networks.classifiers import Network, classifier
from ssl_gen.types import BEFORE, Array, Batch, ImageSpec, Key, Method, Metrics, Phase, TrainState
from ssl_gen.update import average, create, descend

PAPER = "Oliver et al. 2018, arXiv:1804.09170"


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 5_000  # updates; ours
    labelled_batch: int = 100  # images a step; ours
    network: Network = "mlp"  # the classifier
    hidden: tuple[int, ...] = (500, 500)  # units a layer of the mlp; ours
    width: int = 32  # channels of the first layer of the others; ours; wide_resnet 32, conv13 128 in their papers
    dropout: float = 0.5  # of hidden units; ours
    learning_rate: float = 1e-3  # Adam at the start, falling to 0 along a half cosine; ours
    l2: float = 1e-4  # weight decay, in the gradient; ours
    averaging: float = 0.01  # rate of the mean params, a step; ours
    augmentation: Augmentation = Augmentation()  # of the images trained on


PHOTOGRAPHS = Config(network="wide_resnet", augmentation=WEAK_PHOTOGRAPHS)  # Oliver et al. 2018, sec. 4


class State(NamedTuple):
    step: Array  # () int32, updates done
    key: Key  # never changes; a step's noise is fold_in(key, step)
    classifier: TrainState


def make(config: Config, spec: ImageSpec) -> Method:
    """A classifier for images of `spec`."""
    net = classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    schedule = optax.cosine_decay_schedule(config.learning_rate, max(config.steps, 1))
    optimizer = optax.chain(optax.add_decayed_weights(config.l2), optax.adam(schedule))

    def init(key: Key, batch: Batch) -> State:
        variables = net.init(jax.random.fold_in(key, BEFORE), batch.labelled, train=False)
        return State(jnp.int32(0), key, create(variables.pop("params"), variables, optimizer, average=True))

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        images = augment(config.augmentation, augment_key, batch.labelled)

        def loss(params: dict) -> tuple[dict, dict]:
            variables = {"params": params, **state.classifier.stats}
            logits, stats = net.apply(
                variables, images, train=True, rngs={"dropout": dropout_key}, mutable=["batch_stats"]
            )
            return {"supervised": losses.cross_entropy(logits, batch.labels)}, stats

        player, metrics = descend("classifier", state.classifier, optimizer, loss)
        return State(state.step + 1, state.key, average(player, config.averaging, state.step)), metrics

    def classify(state: State, images: Array) -> Array:
        variables = {"params": state.classifier.ema, **state.classifier.stats}
        return jax.nn.log_softmax(net.apply(variables, images, train=False))

    return Method(init, (Phase("main", config.steps, config.labelled_batch, 0, step),), classify=classify)
