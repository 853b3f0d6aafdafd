"""A classifier that learns from several sources at once: labels, its own confident guesses, generated images.

What the self-training of generators shares (You et al. 2023, arXiv:2302.10586): their classifier is FixMatch (Sohn et
al. 2020, arXiv:2001.07685, sec. 2), whose teacher is the EMA, with generated images beside those labelled by hand. Here
the means over the two weigh 1 and `samples_weight`, however many images there are of each. There images of both are one
set, of which a batch is drawn: with 40 labels and 1,000 generated images a class the labelled ones are 0.4 % of it.
"""

from __future__ import annotations

from typing import Any

import jax

from ssl_gen.augmentation import augment
from ssl_gen.core.batching import interleave, separate
from ssl_gen.core.ema import update_ema
from ssl_gen.core.gradient import Terms
from ssl_gen.core.players import Player
from ssl_gen.losses.classification import cross_entropy
from ssl_gen.losses.thresholds import (
    Marginals,
    confident,
    confident_cross_entropy,
    distribution_alignment,
    update_marginals,
)
from ssl_gen.types import Array, Batch, Key, Metrics, TrainState, UserError

Taught = dict[str, tuple[Array, Array]]  # images and labels of the sources `supervised` and `samples`


def lengths(config: Any) -> tuple[int, int, int]:
    """Updates of the classifier, of the generator and of the classifier again.

    config: has steps, warm_up and generation, the shares of the first two, and the switches of three sources. Raises
    UserError where the shares are none, or where the last classifier learns nothing.
    """
    if config.warm_up < 0 or config.generation < 0 or config.warm_up + config.generation > 1:
        raise UserError(
            f"warm_up {config.warm_up} and generation {config.generation} are shares: sum them to 1 or less"
        )
    if not (config.from_labels or config.from_guesses or config.from_samples):
        raise UserError("nothing to learn from: set one of from_labels, from_guesses and from_samples")
    first, end = (round(share * config.steps) for share in (config.warm_up, config.warm_up + config.generation))
    return first, end - first, config.steps - end


def source_term(config: Any, source: str, logits: Array, targets: Array) -> Array:
    """A source's term: logits (B, K) and labels (B,), or log q (B, K) where the source is guesses -> () nats."""
    if source == "guesses":
        return config.guesses_weight * confident_cross_entropy(logits, targets, config.threshold)
    return (config.samples_weight if source == "samples" else 1.0) * cross_entropy(logits, targets)


def learn_sources(
    config: Any,
    classifier: Player,
    state: TrainState,
    marginals: Marginals | tuple[()],
    key: Key,
    step: Array,
    batch: Batch,
    taught: Taught,
) -> tuple[TrainState, Marginals | tuple[()], Metrics]:
    """One update of the classifier, with its EMA, by guesses, if they are on, and by the images and labels of others.

    config: has from_guesses, guesses_weight, samples_weight, threshold, memory, averaging, augmentation and strong.
    marginals: () without alignment of the guesses.
    """
    keys = jax.random.split(key, 6)
    weak_keys = {"supervised": keys[0], "samples": keys[1]}
    images = {name: augment(config.augmentation, weak_keys[name], pair[0]) for name, pair in taught.items()}
    targets = {name: labels for name, (_, labels) in taught.items()}
    if config.from_guesses:
        weak = augment(config.augmentation, keys[2], batch.unlabelled)
        logits, teacher_stats = classifier.run_ema(state, weak, rngs={"dropout": keys[5]})
        guesses = targets["guesses"] = jax.nn.log_softmax(logits)
        if marginals:
            targets["guesses"] = distribution_alignment(guesses, marginals)
            marginals = update_marginals(marginals, batch.labels, guesses, config.memory)
        images["guesses"] = augment(config.strong, keys[3], batch.unlabelled)
    predicted = classifier.forward(state, interleave(*images.values()), rngs={"dropout": keys[4]})

    def loss(outputs: Array) -> Terms:
        logits = separate(outputs, tuple(part.shape[0] for part in images.values()))
        pairs = zip(images, logits, strict=True)
        return {source: source_term(config, source, part, targets[source]) for source, part in pairs}

    after, metrics = classifier.descend(state, loss, predicted)
    if config.from_guesses:
        metrics["classifier/confident"] = confident(targets["guesses"], config.threshold).mean()
        return update_ema(after, config.averaging, step, teacher_stats), marginals, metrics
    shown = interleave(*(pair[0] for pair in taught.values()))
    return classifier.average(after, config.averaging, step, shown, rngs={"dropout": keys[5]}), marginals, metrics
