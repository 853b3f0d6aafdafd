"""Methods without steps: each seed is fitted in one go, on pixels, on the latents of an earlier run or on features."""

from __future__ import annotations

import functools
import time
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ssl_gen.core import keys
from ssl_gen.core.compiling import jit_inference
from ssl_gen.datasets.store import pixels, scaled
from ssl_gen.evaluation import features
from ssl_gen.evaluation.inference import Compiled, compiled, everywhere, mapped
from ssl_gen.reports.records import EXTRACTOR, EncoderRecord, RunRecord
from ssl_gen.runs.data import Data, matching_replicas
from ssl_gen.runs.options import Options
from ssl_gen.training import loop
from ssl_gen.training.checkpoints import Checkpoints
from ssl_gen.training.log import Log, NullLog
from ssl_gen.types import Array, Method, State, Tree, UserError, able

# options of training in steps
STEPLESS: tuple[str, ...] = ("log_every", "evaluate_every", "checkpoint_every", "evaluators")
STEPLESS += ("data_parallel", "distributed", "replicas", "precision", "accumulate", "remat", "shard_params")


class Encoder(NamedTuple):
    """What stands for pixels: the latents of an earlier run, or the features of an extractor."""

    method: Method
    states: list[State]  # one a seed
    record: EncoderRecord

    def latents(self, replica: int, images: np.ndarray) -> np.ndarray:
        """What one seed's encoder makes of images (N, H, W, C) uint8, (N, Z)."""
        state, encode, kept = everywhere(self.states[replica]), able(self.method.encode), kept_latents(self.record)
        if kept is not None:
            return mapped(functools.partial(kept, state), images)
        return mapped(jit_inference(lambda batch: encode(state, scaled(batch))), images)


def kept_latents(record: EncoderRecord) -> Callable[[State, Array], Array] | None:
    """(state, images uint8) -> latents, computed once for all runs; None where they are not: see `kept_features`."""
    if record.method != EXTRACTOR:
        return None
    return features.kept_features(features.Architecture(**record.config), record.name)


class OnLatents(NamedTuple):
    """The state of a method that sees latents."""

    encoder: State  # of the earlier run, as it was
    inner: State  # of the method itself


def on_latents(method: Method, encoder: Method) -> Method:
    """`method` on the latents of `encoder` instead of pixels; its states are `OnLatents`.

    A conditional decoder must be told a class, which a method that decodes latents does not guess: then it has none.
    """

    def latents(state: OnLatents, images: Array) -> Array:
        return able(encoder.encode)(state.encoder, images)

    def classify(state: OnLatents, images: Array) -> Array:
        return able(method.classify)(state.inner, latents(state, images))

    def encode(state: OnLatents, images: Array) -> Array:
        return able(method.encode)(state.inner, latents(state, images))

    def decode(state: OnLatents, codes: Array, labels: Array) -> Array:
        return able(encoder.decode)(state.encoder, able(method.decode)(state.inner, codes, labels), labels)

    return method._replace(
        classify=classify if method.classify else None,
        encode=encode if method.encode else None,
        decode=decode if method.decode and encoder.decode and not encoder.conditional else None,
    )


def compiled_on(method: Method, encoder: Method, record: EncoderRecord) -> Compiled:
    """The functions of `on_latents`, for uint8 images, which look up the features that are kept."""
    functions, kept = compiled(on_latents(method, encoder)), kept_latents(record)
    if kept is None or functions.classify is None:
        return functions
    head = jit_inference(able(method.classify))

    def classify(state: OnLatents, images: Array) -> Array:
        return head(state.inner, kept(state.encoder, images))

    return functions._replace(classify=classify)


def check_options(name: str, method: Method, options: Options) -> None:
    """Raise UserError for an option that has no meaning for a method without steps, or with them."""
    if method.fit is None and options.encoder is not None:
        raise UserError(f"--encoder is for methods that are fitted in one go; {name} is trained on pixels")
    if options.encoder is None and options.encoder_size is not None:
        raise UserError("--encoder-size needs --encoder, a pretrained network")
    if method.fit is None:
        return
    for field in STEPLESS:
        if getattr(options, field) != getattr(Options(), field):
            raise UserError(f"{name} is fitted in one go: leave out --{field.replace('_', '-')}")


def encoder_replicas(record: RunRecord, method: Method, data: Data) -> list[int]:
    """The replicas of the run of --encoder that saw the labels of each of data's seeds, with the same seed.

    Raises UserError where it has no latents, other images or other visible labels.
    """
    if method.encode is None:
        raise UserError(f"{record.method} has no latents: `ssl-gen list methods --json` says which methods encode")
    if record.encoder:
        raise UserError("the run of --encoder has an --encoder itself: give one that was made on pixels")
    return matching_replicas("--encoder", record, data)


def extracted(name: str, options: Options, data: Data) -> Encoder:
    """A network of features as an encoder, the same for every seed. Raises UserError where it cannot be had."""
    spec, size = data.dataset.spec, options.encoder_size
    extractor = features.find_encoder(name, spec, options.dataset, data.source_sha256, size)
    record = EncoderRecord(EXTRACTOR, extractor.architecture._asdict(), 0, extractor.name)
    return Encoder(features.as_method(extractor.architecture), [extractor.variables] * len(data.masks), record)


def fit_seed(method: Method, data: Data, replica: int, encoder: Encoder | None) -> State:
    """The state of one replica. Its mask alone says which labels `method.fit` is shown.

    An image, a row of the data set, is shown once: of the pool, those whose label is visible are left out. Of labelled
    ones changed copies are shown where the method makes them.
    """

    def seen(images: np.ndarray) -> np.ndarray:
        return encoder.latents(replica, images) if encoder else np.asarray(scaled(images))

    mask, images = data.masks[replica], data.dataset.train_images
    visible = np.flatnonzero(mask.labels >= 0)
    unlabelled = mask.pool[mask.labels[mask.pool] < 0]
    given, seed = seen(images), data.seeds[replica]
    labelled, labels = given[visible], mask.labels[visible]
    if method.copies:
        copies = method.copies(keys.stream(seed, keys.COPIES), scaled(images[visible]))
        shown = [seen(np.asarray(pixels(jnp.clip(copy, -1, 1)))) for copy in copies]
        labelled, labels = np.concatenate([labelled, *shown]), np.tile(labels, 1 + len(shown))
    fitted = able(method.fit)(keys.stream(seed, keys.INIT), labelled, labels, given[unlabelled])
    return OnLatents(encoder.states[replica], fitted) if encoder else fitted


def fit_seeds(
    method: Method,
    data: Data,
    log: Log | NullLog,
    checkpoints: Checkpoints,
    evaluate: Callable[[State], dict[str, float]],
    encoder: Encoder | None,
    quiet: bool,
) -> loop.Outcome:
    """Fit every seed and keep the states, stacked, as the checkpoint of step 0; `states` is a list, one a seed."""
    started, states = time.perf_counter(), []
    for replica, seed in enumerate(tqdm(data.seeds, unit="seed", disable=True if quiet else None)):
        states.append(jax.tree.map(jnp.asarray, fit_seed(method, data, replica, encoder)))
        log.write(step=0, seed=seed, **evaluate(states[-1]))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    seconds = time.perf_counter() - started
    note = {"seconds": seconds, "stopped": {}, "shapes": shapes(stacked.inner if encoder else stacked)}
    note["encoder_shapes"] = shapes(stacked.encoder) if encoder and encoder.method.fit else None
    checkpoints.save(0, stacked, note, log.lines)
    checkpoints.wait()
    return loop.Outcome(states, 0, seconds, {}, False)


def shapes(state: State) -> dict[str, Any]:
    """Shape and dtype of every array of a fitted state by name, as JSON can hold them; `like` reads them."""
    return {
        name: shapes(value) if hasattr(value, "_fields") else [list(value.shape), str(value.dtype)]
        for name, value in state._asdict().items()
    }


def like(kind: Any, found: dict[str, Any]) -> Tree:
    """A `kind` (a NamedTuple of arrays and of other NamedTuples) of the shapes and dtypes that `shapes` wrote down."""
    hints = typing.get_type_hints(kind)

    def revive(name: str) -> Tree:
        if hasattr(hints[name], "_fields"):
            return like(hints[name], found[name])
        shape, dtype = found[name]
        return jax.ShapeDtypeStruct(tuple(shape), dtype)

    return kind(**{name: revive(name) for name in kind._fields})
