"""A network with averaged params needs other batch statistics than the latest network: which ones, and what it costs.

Two networks of `mnist_systems` whose EMA is what is measured: the classifier of `fixmatch`, its own teacher, trained
for 500 steps on 100 labels, where the params still move, and the generator of `generation_ceiling`. After training each
is measured in four ways, on the same seeds:

    latest                     the latest params with their own statistics: nothing is averaged
    averaged_latest            averaged params with the latest network's statistics, as EMAs are often used
    averaged                   the EMA as the method keeps it: with statistics of passes of its own
    averaged_recomputed        averaged params with statistics from a pass over 20,000 training images, or latents

Test error in percent, and FID of 10,000 samples on the features of a convnet trained on MNIST.

Command: python -m experiments.mnist_averaging --data-dir DIR [--record], the folder of the IDX files, after `ssl-gen
train-features mnist --data-dir DIR`; half an hour of one core, a minute of a GPU
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import mnist_systems, table
from experiments.table import HERE, Place, Row
from experiments.tracked import Numbers, save
from ssl_gen.core.ema import MOVING
from ssl_gen.core.plain import from_plain
from ssl_gen.core.players import Player
from ssl_gen.datasets import sources
from ssl_gen.datasets.store import scaled
from ssl_gen.evaluation import features
from ssl_gen.evaluation.inference import draw_samples, mapped, probabilities
from ssl_gen.methods.adversarial import conditional_gan
from ssl_gen.methods.self_training import fixmatch
from ssl_gen.metrics import classification, frechet, statistics
from ssl_gen.networks import classifiers
from ssl_gen.reports import tables
from ssl_gen.runs import record
from ssl_gen.runs.load import Run, load
from ssl_gen.training import cache
from ssl_gen.types import Average, TrainState, Tree, UserError

STUDENT = fixmatch.Config(steps=500, threshold=0.9, teacher="student")
ROWS = {
    "error": Row("fixmatch", STUDENT, mnist_systems.HUNDRED),
    "fid": mnist_systems.ROWS["generation_ceiling"]._replace(metrics=()),
}
BATCHES, SIZE = 200, 100  # of the pass that recomputes statistics
KEPT = 0.9  # momentum of batch norm in both networks


def recomputed(player: Player, state: TrainState, inputs: Callable[[int], tuple[Any, ...]]) -> Tree:
    """Statistics at the EMA: the mean of those of each batch, which a pass from statistics of 0 holds, scaled."""
    ema = state.ema
    assert isinstance(ema, Average)
    none = state._replace(stats=ema.stats | {MOVING: jax.tree.map(jnp.zeros_like, ema.stats[MOVING])})
    run = jax.jit(lambda *given: player.run(none, ema.params, *given)[1][MOVING])
    found = [jax.tree.map(lambda leaf: leaf / (1 - KEPT), run(*inputs(batch))) for batch in range(BATCHES)]
    return ema.stats | {MOVING: jax.tree.map(lambda *leaves: jnp.stack(leaves).mean(0), *found)}


def ways(state: TrainState, fresh: Tree) -> dict[str, Average]:
    """The four networks that are measured."""
    assert isinstance(state.ema, Average)
    return {
        "latest": Average(state.params, state.stats),
        "averaged_latest": Average(state.ema.params, state.stats),
        "averaged": state.ema,
        "averaged_recomputed": Average(state.ema.params, fresh),
    }


def errors(run: Run, data: sources.Dataset) -> list[dict[str, float]]:
    """Test errors of each seed's classifier."""
    config = from_plain(fixmatch.Config, run.record.config)
    spec = data.spec
    network = classifiers.classifier(config.network, spec.classes, config.hidden, config.width, config.dropout)
    player = Player("classifier", network, optax.identity(), ema=True)
    rows = np.random.default_rng(0).permutation(len(data.train_images))[: BATCHES * SIZE].reshape(BATCHES, SIZE)

    def inputs(batch: int) -> tuple[Any, ...]:
        return (scaled(data.train_images[rows[batch]]),)

    found = []
    for state in run.states:
        fresh = recomputed(player, state.classifier, inputs)
        found.append(
            {
                name: classification.error(
                    probabilities(
                        run.compiled, state._replace(classifier=state.classifier._replace(ema=each)), data.test_images
                    ),
                    data.test_labels,
                )
                for name, each in ways(state.classifier, fresh).items()
            }
        )
    return found


def distances(run: Run, data: sources.Dataset) -> list[dict[str, float]]:
    """FID of each seed's generator."""
    config = from_plain(conditional_gan.Config, run.record.config)
    generator = conditional_gan.networks(config, data.spec)[0]
    player = Player("generator", generator, optax.identity(), ema=True)
    extractor = features.find_extractor("trained", data.spec, "mnist", data.sha256)
    real = mapped(extractor.features, data.test_images)
    labels = np.arange(10_000) % data.spec.classes

    def inputs(batch: int) -> tuple[Any, ...]:
        key = jax.random.fold_in(jax.random.key(1), batch)
        return jax.random.normal(key, (SIZE, config.latent)), jnp.arange(SIZE) % data.spec.classes

    found = []
    for seed, state in zip(run.record.seeds, run.states, strict=True):
        values = {}
        for name, each in ways(state.generator, recomputed(player, state.generator, inputs)).items():
            drawing = state._replace(generator=state.generator._replace(ema=each))
            samples = draw_samples(run.compiled, drawing, labels, seed)
            values[name] = frechet.fid(mapped(extractor.features, samples), real)
        found.append(values)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/mnist_averaging"))
    parser.add_argument("--record", action="store_true", help="write the results to experiments/mnist_averaging.json")
    asked = parser.parse_args()
    cache.keep_compiled()
    try:
        data = sources.load("mnist", asked.data_dir)
    except UserError as error:
        raise SystemExit(table.stopped("mnist_averaging", error)) from None
    table.train(ROWS, asked.out, Place(asked.data_dir))
    each = {"error (%)": errors(load(asked.out / "error"), data), "FID": distances(load(asked.out / "fid"), data)}
    found = {
        what: {way: statistics.summary([values[way] for values in seeds]) for way in seeds[0]}
        for what, seeds in each.items()
    }
    for what, summaries in found.items():
        rows = [[way, tables.measured("", summary)] for way, summary in summaries.items()]
        print(tables.text_table([what, "mean and deviation"], rows), end="\n\n")
    made = (record.device(), record.commit())
    seeds = list(range(mnist_systems.HUNDRED.seeds))
    numbers = Numbers("mnist", len(data.train_images), 100, seeds, "measured with", *made, metrics=found)
    save(asked.out / "numbers.json", numbers)
    if asked.record:
        save(HERE / "mnist_averaging.json", numbers)


if __name__ == "__main__":
    main()
