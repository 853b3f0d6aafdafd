"""Methods without steps: each seed is fitted in one go, on pixels or on the latents of an earlier run."""

from __future__ import annotations

import time
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ssl_gen.evaluation import everywhere, mapped, scaled
from ssl_gen.setting import Data, Options
from ssl_gen.training import loop
from ssl_gen.training.checkpoints import Checkpoints
from ssl_gen.training.folder import Log
from ssl_gen.types import Array, Method, State, Tree, UserError

# options of training
STEPLESS = ("log_every", "evaluate_every", "checkpoint_every", "data_parallel", "distributed", "replicas")


class Encoder(NamedTuple):
    """An earlier run whose latents stand for pixels."""

    method: Method
    states: list[State]  # one a seed


class Behind(NamedTuple):
    """The state of a method that sees latents."""

    encoder: State  # of the earlier run, as it was
    inner: State  # of the method itself


def behind(method: Method, encoder: Method) -> Method:
    """`method` on the latents of `encoder` instead of pixels; its states are `Behind`."""

    def latents(state: Behind, images: Array) -> Array:
        return encoder.encode(state.encoder, images)

    def classify(state: Behind, images: Array) -> Array:
        return method.classify(state.inner, latents(state, images))

    def encode(state: Behind, images: Array) -> Array:
        return method.encode(state.inner, latents(state, images))

    def decode(state: Behind, codes: Array, labels: Array) -> Array:
        return encoder.decode(state.encoder, method.decode(state.inner, codes, labels), labels)

    return method._replace(
        classify=method.classify and classify,
        encode=method.encode and encode,
        decode=decode if method.decode and encoder.decode else None,
    )


def check(name: str, method: Method, options: Options) -> None:
    """Raise UserError for an option that has no meaning for a method without steps, or with them."""
    if method.fit is None:
        if options.encoder is not None:
            raise UserError(f"--encoder is for methods that are fitted in one go; {name} is trained on pixels")
        return
    for field in STEPLESS:
        if getattr(options, field) != getattr(Options(), field):
            raise UserError(f"{name} is fitted in one go: leave out --{field.replace('_', '-')}")


def check_encoder(encoder: dict[str, Any], method: Method, data: Data) -> None:
    """Raise UserError where the run `encoder` (run.json) has no latents, other images or other visible labels."""
    if method.encode is None:
        raise UserError(f"{encoder['method']} has no latents: `ssl-gen list methods --json` says which methods encode")
    if encoder["encoder"]:
        raise UserError("the run of --encoder has an --encoder itself: give one that was made on pixels")
    if encoder["data"]["sha256"] != data.dataset.sha256:
        raise UserError("the run of --encoder was trained on other data: use the same --dataset and its options")
    masks = [mask["sha256"] for mask in encoder["masks"]]
    if masks[: len(data.masks)] != [mask.sha256 for mask in data.masks]:
        raise UserError(
            f"the run of --encoder saw other labels: use its --labels {encoder['labels']} and at most its "
            f"--seeds {len(masks)}"
        )


def fit_seed(method: Method, data: Data, seed: int, encoder: Encoder | None) -> State:
    """The state of one seed. The mask alone says which labels `method.fit` is shown."""
    mask, images = data.masks[seed], data.dataset.train_images
    visible = np.flatnonzero(mask.labels >= 0)
    if encoder:
        state = everywhere(encoder.states[seed])
        encode = jax.jit(lambda batch: encoder.method.encode(state, scaled(batch)))
        seen = mapped(encode, images)
    else:
        seen = scaled(images)
    fitted = method.fit(jax.random.key(seed), seen[visible], mask.labels[visible], seen[mask.pool])
    return Behind(encoder.states[seed], fitted) if encoder else fitted


def fit(
    method: Method,
    data: Data,
    log: Log,
    checkpoints: Checkpoints,
    evaluate: Callable[[State], dict[str, float]],
    encoder: Encoder | None,
    quiet: bool,
) -> loop.Outcome:
    """Fit every seed and keep the states, stacked, as the checkpoint of step 0; `states` is a list, one a seed."""
    started, states = time.perf_counter(), []
    for seed in tqdm(range(len(data.masks)), unit="seed", disable=True if quiet else None):
        states.append(jax.tree.map(jnp.asarray, fit_seed(method, data, seed, encoder)))
        log.write(step=0, seed=seed, **evaluate(states[-1]))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    seconds = time.perf_counter() - started
    note = {"seconds": seconds, "stopped": {}, "shapes": shapes(stacked.inner if encoder else stacked)}
    note["encoder_shapes"] = shapes(stacked.encoder) if encoder and encoder.method.fit else None
    checkpoints.save(0, stacked, note)
    checkpoints.wait()
    return loop.Outcome(states, 0, seconds, {}, False)


def shapes(state: State) -> dict[str, Any]:
    """Shape and dtype of every array of a fitted state by name, as JSON can hold them; `like` reads them."""
    return {
        name: shapes(value) if hasattr(value, "_fields") else [list(value.shape), str(value.dtype)]
        for name, value in state._asdict().items()
    }


def like(kind: type, found: dict[str, Any]) -> Tree:
    """A `kind` (a NamedTuple of arrays and of other NamedTuples) of the shapes and dtypes that `shapes` wrote down."""
    hints = typing.get_type_hints(kind)

    def revive(name: str) -> Tree:
        if hasattr(hints[name], "_fields"):
            return like(hints[name], found[name])
        shape, dtype = found[name]
        return jax.ShapeDtypeStruct(tuple(shape), dtype)

    return kind(**{name: revive(name) for name in kind._fields})
