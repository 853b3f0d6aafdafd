"""Precision: convolutions and products in bfloat16, all else in float32, and float32 runs as they always were."""

import json
import re
import types
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tiny import batch_of, first_rows, some_rows, tiny

import ssl_gen
from ssl_gen import cli
from ssl_gen.core import precision
from ssl_gen.core.precision import chosen, current, matmul, products_in
from ssl_gen.datasets.batches import Rows
from ssl_gen.methods import METHODS
from ssl_gen.methods.classical import supervised
from ssl_gen.networks import layers
from ssl_gen.networks.classifiers import classifier
from ssl_gen.networks.convolution import BODIES, LAYOUT, convolve
from ssl_gen.networks.unet import UNet
from ssl_gen.runs import load, record, train
from ssl_gen.runs.options import Options
from ssl_gen.types import TrainState, UserError

KEY = jax.random.key(0)
IMAGES = jax.random.uniform(KEY, (4, 8, 8, 1), minval=-1)
FAMILIES = ("feature_matching", "flow_matching")  # compiled: dense with weight norm, convolutions with group norm
OTHERS = ("fixmatch", "m2", "ladder", "conditional_gan")  # traced
HAVE = (
    ("cpu", None, "float32"),
    ("tpu", None, "bfloat16"),
    ("gpu", "9.0", "bfloat16"),
    ("gpu", "12.0", "bfloat16"),
    ("gpu", "7.5", "float32"),
    ("gpu", "gfx942", "float32"),
)


def results(function, *arguments):
    """The types of all convolutions and matrix products that a function is made of."""
    text = str(jax.make_jaxpr(function)(*arguments))
    return re.findall(r":(\w+)\[[\d,]*\] = (?:dot_general|conv_general_dilated)", text)


def dtypes(tree):
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}


@pytest.mark.parametrize(("platform", "capability", "expected"), HAVE)
def test_auto_is_bfloat16_where_the_chip_has_it(platform, capability, expected, monkeypatch):
    device = types.SimpleNamespace(platform=platform, compute_capability=capability)
    monkeypatch.setattr(precision.jax, "local_devices", lambda: [device])
    assert chosen("auto") == expected
    assert (chosen("float32"), chosen("bfloat16")) == ("float32", "bfloat16")


def test_a_product_is_of_rounded_factors_and_comes_out_in_float32():
    """1 + 2^-9 is half way between two numbers of bfloat16 and goes to the even one, 1; 1 + 3/2^8 ... 2^-7 stays."""
    x = jnp.array([[1 + 2.0**-9, 1 + 2.0**-7]])
    with products_in("bfloat16"):
        found = matmul(x, jnp.eye(2))
    assert found.dtype == jnp.float32 and found.tolist() == [[1.0, 1 + 2.0**-7]]
    assert matmul(x, jnp.eye(2)).tolist() == x.tolist()


def test_precision_ends_with_its_block_and_a_player_keeps_that_of_where_it_was_made():
    with pytest.raises(ValueError, match="within"), products_in("bfloat16"):
        assert current() == "bfloat16"
        raise ValueError("within")
    assert current() == "float32"
    with products_in("bfloat16"):
        narrow = tiny.__wrapped__("supervised", network="mlp").method
    state = jax.eval_shape(narrow.init, KEY, batch_of(Rows(*(part[0] for part in first_rows()))))
    assert "bf16" in str(jax.make_jaxpr(narrow.classify)(state, IMAGES)) and current() == "float32"


def test_in_float32_our_layers_are_linens_and_laxs_to_the_letter():
    x, kernel = jnp.ones((2, 3)), jnp.ones((3, 3, 1, 4))

    def dense(kind):
        return str(jax.make_jaxpr(lambda: kind(5).init_with_output(KEY, x))())

    assert dense(layers.Dense) == dense(nn.Dense)
    ours = jax.make_jaxpr(lambda: convolve(IMAGES, kernel, 1, body="native"))()
    pads = ((1, 1), (1, 1))
    assert str(ours) == str(
        jax.make_jaxpr(lambda: lax.conv_general_dilated(IMAGES, kernel, (1, 1), pads, dimension_numbers=LAYOUT))()
    )


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("name", ["mlp", "conv", "conv13", "wide_resnet", "airbench"])
def test_no_product_of_a_classifier_is_left_out(name, body):
    network = classifier(name, 3, (4,), 4, 0.0)
    if name != "mlp":
        network = network.clone(body=body)
    variables = jax.eval_shape(lambda: network.init(KEY, IMAGES, train=False))

    def found(asked):
        with products_in(asked):
            return results(lambda variables: network.apply(variables, IMAGES, train=False), variables)

    assert set(found("bfloat16")) == {"bf16"} and set(found("float32")) == {"f32"}
    assert len(found("bfloat16")) == len(found("float32")) > 1


def test_attention_multiplies_narrow_and_its_softmax_is_wide():
    network = UNet(3, (4,), attention=(0,))
    arguments = IMAGES, jnp.zeros(4), jnp.zeros(4, jnp.int32)
    variables = jax.eval_shape(lambda: network.init(KEY, *arguments, train=False))
    with products_in("bfloat16"):
        program = str(jax.make_jaxpr(lambda variables: network.apply(variables, *arguments, train=False))(variables))
    assert set(re.findall(r":(\w+)\[[\d,]*\] = (?:dot_general|conv_general_dilated)", program)) == {"bf16"}
    assert set(re.findall(r":(\w+)\[[\d,]*\] = exp ", program)) == {"f32"}


def test_no_network_has_a_layer_of_linens_that_multiplies():
    """But for Inception, whose features are those of others, in their precision."""
    folder = Path(ssl_gen.__file__).parent / "networks"
    found = {path.name for path in folder.glob("*.py") if re.search(r"nn\.(Dense\(|Conv|Einsum)", path.read_text())}
    assert found == {"inception.py"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_in_bfloat16_moves_every_player_and_keeps_float32(name):
    with products_in("bfloat16"):
        method = tiny.__wrapped__(name).method
    phase = method.phases[0]
    state = jax.jit(method.init)(KEY, batch_of(Rows(*(part[0] for part in first_rows()))))
    batch = batch_of(Rows(*(part[0, 0] for part in some_rows(method, 0, 0, 1))))
    after, metrics = jax.jit(phase.step)(state, KEY, jnp.int32(0), batch)
    assert all(np.isfinite(value) for value in metrics.values())
    assert dtypes((after, metrics)) == {"float32"}
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for name, before in state._asdict().items():
        if isinstance(before, TrainState):
            moved = jax.tree.map(lambda x, y: bool((x != y).any()), before.params, getattr(after, name).params)
            assert any(jax.tree.leaves(moved)), name


@pytest.mark.parametrize("name", OTHERS)
def test_states_and_losses_of_every_family_are_of_float32_around_narrow_products(name):
    with products_in("bfloat16"):
        method = tiny.__wrapped__(name).method
    phase = method.phases[0]
    state = jax.eval_shape(method.init, KEY, batch_of(Rows(*(part[0] for part in first_rows()))))
    batch = batch_of(Rows(*(part[0, 0] for part in some_rows(method, 0, 0, 1))))
    program, after = jax.make_jaxpr(phase.step, return_shape=True)(state, KEY, jnp.int32(0), batch)
    assert dtypes(after) == {"float32"}
    assert jax.tree.map(lambda leaf: leaf.dtype, after[0]) == jax.tree.map(lambda leaf: leaf.dtype, state)
    assert re.search(r"bf16\[[\d,]*\] = (dot_general|conv_general_dilated)", str(program))


def test_the_start_is_the_same_in_both():
    starts = []
    for asked in ("float32", "bfloat16"):
        with products_in(asked):
            method = tiny.__wrapped__("supervised", network="mlp").method
        starts.append(method.init(KEY, batch_of(Rows(*(part[0] for part in first_rows())))))
    jax.tree.map(np.testing.assert_array_equal, *starts)


# A run

CONFIG = supervised.Config(steps=2, labelled_batch=4, hidden=(4,))
SETTINGS = {"labels": "30", "quiet": True, "features": "pixels", "samples": 100, "evaluators": ()}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A finished run in bfloat16."""
    out = tmp_path_factory.mktemp("precision") / "run"
    return train.train("supervised", CONFIG, Options(out=out, precision="bfloat16", **SETTINGS))


def test_a_record_says_its_precision_and_what_jax_does_with_what_stays_float32(narrow):
    about, final = (json.loads((narrow.folder / name).read_text()) for name in ("run.json", "final.json"))
    assert about["options"]["precision"] == about["products"] == "bfloat16"
    assert about["precision"] == final["precision"] == "bfloat16 (what stays float32: default (float32))"
    assert "--precision bfloat16" in about["command"]
    with jax.default_matmul_precision("highest"):
        assert record.precision("bfloat16") == "bfloat16 (what stays float32: highest)"


def test_a_loaded_run_multiplies_as_it_did_in_training(narrow):
    run = load.load(narrow.folder)
    images = np.zeros((2, 8, 8, 1), np.float32)
    assert "bf16" in str(jax.make_jaxpr(run.compiled.method.classify)(run.states[0], images))


def test_a_run_does_not_go_on_in_another_precision(narrow):
    with pytest.raises(UserError, match="a run with products bfloat16, this one has float32; choose another --out"):
        train.train("supervised", CONFIG, Options(out=narrow.folder, **SETTINGS))


def test_an_unknown_precision_is_one_line(capsys):
    assert cli.main(["train", "supervised", "--precision", "float16"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "float16" in error and "bfloat16" in error
    with pytest.raises(UserError, match="--precision is 'half', none of 'auto', 'float32', 'bfloat16'"):
        train.train("supervised", CONFIG, Options(precision="half"))


def test_what_is_fitted_in_one_go_has_no_precision(tmp_path):
    with pytest.raises(UserError, match="linear is fitted in one go: leave out --precision"):
        train.train("linear", METHODS["linear"].Config(), Options(labels="30", out=tmp_path, precision="bfloat16"))
