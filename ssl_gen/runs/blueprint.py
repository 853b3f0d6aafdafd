"""A method as its record describes it, and the shapes of the states that a checkpoint or an export holds of it."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp

from ssl_gen.core.plain import from_plain
from ssl_gen.core.precision import products_in
from ssl_gen.evaluation.features import Architecture, as_method, variables_like
from ssl_gen.evaluation.inference import Compiled, compiled
from ssl_gen.networks.pretrained.encoders import as_settings
from ssl_gen.reports.records import EXTRACTOR, EncoderRecord
from ssl_gen.runs.catalogue import find_method
from ssl_gen.runs.fit import OnLatents, compiled_on, like, on_latents
from ssl_gen.training.programs import Replica
from ssl_gen.types import Batch, ImageSpec, Method, Precision, State, Tree, UserError, able

KINDS = get_args(typing.get_type_hints(Architecture)["kind"])


class Blueprint(NamedTuple):
    """What can be said of a trained method without its weights."""

    method: Method
    states_like: Callable[[dict[str, Any], int], State]  # (note of a checkpoint, seeds) -> its stacked states: tree,
    # shapes and dtypes
    compiled: Compiled  # its functions

    def kept_like(self, note: dict[str, Any], seeds: int) -> Any:
        """What a checkpoint keeps: of methods that are trained in steps, with step and key."""
        states = self.states_like(note, seeds)
        if self.method.fit:
            return states
        key: Any = jax.ShapeDtypeStruct((seeds,), jnp.int32)
        step: Any = jax.ShapeDtypeStruct((seeds,), jnp.int32)
        return Replica(step, jax.eval_shape(jax.vmap(jax.random.key), key), states)


def blueprint(
    name: str, config: dict[str, Any], encoder: EncoderRecord | None, spec: ImageSpec, products: Precision = "float32"
) -> Blueprint:
    """The method of a record, its products in the precision it has, on the latents of its encoder where it has one.

    Raises UserError where the record does not fit this version.
    """
    if name == EXTRACTOR:
        architecture = architecture_of(config)
        encoding = as_method(architecture)
        like = functools.partial(variables_like, architecture, spec)
        return Blueprint(encoding, lambda note, seeds: stacked(like(), seeds), compiled(encoding))
    module = find_method(name)
    try:
        with products_in(products):
            method: Method = module.make(from_plain(module.Config, config), spec)
    except ValueError as error:
        raise UserError(f"the settings of {name} in the record do not fit this version of ssl_gen: {error}") from error

    def own(note: dict[str, Any], seeds: int) -> State:
        return fitted(module.State, note.get("shapes")) if method.fit else stacked(first_state(method, spec), seeds)

    if encoder is None:
        return Blueprint(method, own, compiled(method))
    outer = blueprint(encoder.method, encoder.config, None, spec, encoder.products)

    def both(note: dict[str, Any], seeds: int) -> State:
        return OnLatents(outer.states_like({"shapes": note.get("encoder_shapes")}, seeds), own(note, seeds))

    return Blueprint(on_latents(method, outer.method), both, compiled_on(method, outer.method, encoder))


def architecture_of(config: dict[str, Any]) -> Architecture:
    """The architecture of an extractor in a record. Raises UserError where this version has none such."""
    said = {"settings": None} | config  # older records do not have them
    known = said.keys() == set(Architecture._fields) and said["kind"] in KINDS
    numbers = [said[name] for name in ("classes", "width")] if known else []
    least = 1 if known and said["kind"] == "convnet" else 0
    if not known or any(type(number) is not int or number < least for number in numbers):
        raise UserError(f"the record has an extractor that this version of ssl_gen does not know: {config}")
    if (said["kind"] == "pretrained") != isinstance(said["settings"], dict):
        raise UserError(f"the record has an extractor that this version of ssl_gen does not know: {config}")
    if said["kind"] == "pretrained":
        as_settings(said["settings"])
    return Architecture(**said)


def fitted(kind: Any, shapes: Any) -> State:
    """Shapes and dtypes of a fitted state from what was written down of them. Raises UserError where they are none."""
    try:
        return like(kind, shapes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the shapes of the fitted state in the record are none of {kind.__module__}") from error


def first_state(method: Method, spec: ImageSpec) -> State:
    """Shapes and dtypes of a method's first state."""
    images = jnp.zeros((2, *spec.shape))
    batch = Batch(images, jnp.zeros(2, jnp.int32), images)
    return jax.eval_shape(able(method.init), jax.random.key(0), batch)


def stacked(tree: Tree, seeds: int) -> Tree:
    """Shapes and dtypes with a leading axis of seeds."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((seeds, *leaf.shape), leaf.dtype), tree)
