"""`--accumulate` and `--remat`: less memory in a step of training, and the same numbers."""

import functools
import re
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from finished import RECIPES
from tiny import SPEC, STORE, batch_at, first_batch, first_rows, numbers, same, some_rows, tiny

from ssl_gen import cli
from ssl_gen.core.memory import Memory, current, saving, traced_with
from ssl_gen.core.players import Player
from ssl_gen.datasets.batches import Rows
from ssl_gen.networks import normalisation, residual
from ssl_gen.networks.airbench import Airbench
from ssl_gen.networks.layers import rematerialised
from ssl_gen.networks.unet import UNet
from ssl_gen.networks.wide_resnet import WideResNet
from ssl_gen.reports import records
from ssl_gen.runs import train
from ssl_gen.training.programs import check_memory
from ssl_gen.training.replicas import make_replicas
from ssl_gen.training.segments import Segment
from ssl_gen.types import Method, Phase, TrainState, UserError

KEY = jax.random.key(0)
OTHERS = ("edm", "mean_flow", "r3gan", "vae", "m1", "m2", "stacked_m1_m2", "adversarial_autoencoder")
BLOCKS = ("flow_matching", "edm", "mean_flow", "r3gan")
WIDE = 64  # units of the layers whose activations are to be saved


class Layer(nn.Module):
    rate: float  # of dropout
    norm: str  # spectral: of weights; batch

    @nn.compact
    def __call__(self, x, train):
        y = jnp.tanh(jnp.sin(normalisation.Dense(WIDE, "spectral" if self.norm == "spectral" else "none")(x, train)))
        y = nn.BatchNorm(not train, momentum=0.9)(y) if self.norm == "batch" else y
        return x + nn.Dropout(self.rate, deterministic=not train)(jnp.tanh(y))


class Net(nn.Module):
    """Images of 8 x 8 each on their own, but under batch norm, by blocks."""

    rate: float = 0.0
    norm: str = "spectral"
    layers: int = 1

    @nn.compact
    def __call__(self, images, labels, train):
        x = normalisation.Dense(WIDE)(images.reshape(len(images), -1), train)
        for _ in range(self.layers):
            x = rematerialised(Layer(self.rate, self.norm), x, train=train)
        return normalisation.Dense(SPEC.classes)(x, train), x


class State(NamedTuple):
    net: TrainState


def coupled(size=8, slopes=True, **settings):
    """A method whose loss is no sum over images, with a penalty on slopes, whose gradient is of the second order."""
    player = Player("net", Net(**settings), optax.sgd(0.1))

    def init(key, batch):
        return State(player.init(key, batch.labelled, None))

    def step(state, key, step, batch):
        def loss(params):
            def run(images):
                return player.run(state.net, params, images, None, rngs={"dropout": key})

            (logits, features), stats = run(batch.unlabelled)
            terms = {"mean": jnp.square(features.mean(0)).sum(), "share": jax.nn.logsumexp(logits, 0).sum()}
            if slopes:
                slope = jax.grad(lambda images: run(images)[0][0].sum())(batch.unlabelled)
                terms["slopes"] = jnp.square(slope).sum((1, 2, 3)).mean()
            return terms, stats

        after, metrics = player.descend(state.net, loss)
        return State(after), metrics

    return Method(init, (Phase("main", 2, 4, size, step),))


COUPLED = coupled()
CHEAP = coupled(slopes=False, norm="none")


def close(a, b, rtol=2e-5, atol=2e-6):
    for one, other in zip(numbers(a), numbers(b), strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


def stepped(method, memory, steps=2):
    """A method after some steps that save memory so, and the metrics of the last."""
    phase = saving(method, memory).phases[0]
    state, step = jax.jit(method.init)(KEY, first_batch()), jax.jit(phase.step)
    for number in range(steps):
        state, metrics = step(state, jax.random.fold_in(KEY, number), jnp.int32(number), batch_at(method, 0, number))
    return state, metrics


# Numbers


def test_the_gradient_of_a_loss_between_images_is_that_of_the_whole_batch():
    whole = stepped(COUPLED, Memory())
    close(whole, stepped(COUPLED, Memory(accumulate=4, remat=True)))
    moved = whole[0].net.stats["batch_stats"]
    first = COUPLED.init(KEY, first_batch()).net.stats["batch_stats"]
    assert not same(moved, first)  # spectral norm's vectors, which are those of one pass


# Noise of these is drawn outside their networks; mean_flow follows derivatives forward.
@pytest.mark.parametrize("name", ["flow_matching", *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)])
def test_a_method_trains_as_it_does_without(name):
    memory = Memory(2, name in BLOCKS)
    whole, saved = (stepped(tiny(name).method, each, 1) for each in (Memory(), memory))
    close(whole[1], saved[1], rtol=1e-4, atol=1e-5)
    close(whole[0], saved[0], rtol=1e-3, atol=1e-4)


def test_outputs_come_in_the_order_of_the_batch_and_noise_is_of_each_part():
    player = Player("net", Net(rate=0.5), optax.sgd(0.1))
    image, images = jnp.ones((8, 4)), jnp.arange(32.0).reshape(8, 4) / 32
    state = player.init(KEY, image, None)
    with traced_with(Memory(accumulate=2)):
        (logits, _), _ = player.run(state, state.params, image, None, rngs={"dropout": KEY})
        steady = Player("net", Net(), optax.sgd(0.1))
        (ordered, _), _ = steady.run(state, state.params, images, None)
    (whole, _), _ = steady.run(state, state.params, images, None)
    np.testing.assert_allclose(ordered, whole, rtol=1e-5, atol=1e-6)
    assert len(np.unique(np.asarray(logits), axis=0)) == 8  # of one image eight times: no two parts have one noise


def placed(mode, data_parallel, memory):
    """CHEAP of two seeds after two steps, its metrics, and its program."""
    program = make_replicas(CHEAP, STORE, 2, mode, data_parallel, longest=2, memory=memory)
    rows, states = some_rows(CHEAP, 0, 0, 2, 2), program.init(range(2), first_rows(2))
    states, metrics = program.advance(states, 0, rows, 2, [True] * 2)
    return program.stack(states), metrics, program


def test_batches_that_are_divided_over_devices_are_cut_to_the_same_numbers_and_none_moves():
    *whole, _ = placed("loop", 1, Memory())
    *cut, _ = placed("loop", 2, Memory(accumulate=4))
    close(whole, cut)
    *cut, program = placed("vmap", 2, Memory(accumulate=4, remat=True))
    close(whole, cut)
    rows = Rows(*(part[0] for part in some_rows(CHEAP, 0, 0, 1, 2)))
    text = program.lower(program.init(range(2), first_rows(2)), 0, rows).compile().as_text()
    assert "all-reduce" in text and not re.search("all-gather|all-to-all|collective-permute", text)


def blocks(kind):
    """A network of blocks and what it is called with."""
    images, labels = jnp.ones((2, 8, 8, 1)), jnp.zeros(2, jnp.int32)
    latents = jnp.ones((2, 4))
    return {
        "unet": (UNet(3, (4, 4), attention=(1,), dropout=0.5), (images, jnp.zeros(2), labels)),
        "wide_resnet": (WideResNet(3, 4, blocks=1, dropout=0.5), (images,)),
        "airbench": (Airbench(3, 4), (images,)),
        "generator": (residual.Generator((8, 8, 1), 3, 4, 1), (latents, labels)),
        "discriminator": (residual.Discriminator(3, 4, 1), (images, labels)),
        "dense generator": (residual.DenseGenerator((8, 8, 1), 3, 4, 1), (latents, labels)),
        "dense discriminator": (residual.DenseDiscriminator(3, 4, 1), (images, labels)),
    }[kind]


KINDS = ("unet", "wide_resnet", "airbench", "generator", "discriminator", "dense generator", "dense discriminator")


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_that_are_computed_again_have_the_same_params(kind):
    network, inputs = blocks(kind)
    memory = Memory(remat=True)

    def started():
        return jax.eval_shape(functools.partial(network.init, train=True), {"params": KEY, "dropout": KEY}, *inputs)

    plain = started()
    with traced_with(memory):
        saved = started()
    assert memory.blocks and saved == plain
    assert jax.tree.structure(saved) == jax.tree.structure(plain)


def test_a_network_with_batch_norm_and_dropout_is_the_same_to_the_bit():
    method = coupled(slopes=False, rate=0.5, norm="batch")
    assert same(stepped(method, Memory()), stepped(method, Memory(remat=True)))


# Memory


def test_a_compiled_step_needs_less_memory():
    """Of 8 layers with several arrays each: one part in 8 of all of them, or all of one and one array of each."""
    method = coupled(4096, slopes=False, norm="none", layers=8)

    def needed(memory):
        program = make_replicas(method, STORE, 1, "loop", longest=1, memory=memory)
        rows = Rows(
            np.zeros((1, 4), np.int32), np.zeros((1, 4), np.int32), np.zeros((1, 4096), np.int32), np.zeros((1, 0))
        )
        compiled = program.lower(program.init([0], first_rows()), 0, rows).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    plain = needed(Memory())
    assert needed(Memory(accumulate=8)) < 0.3 * plain
    assert needed(Memory(remat=True)) < 0.6 * plain


# Refusals


def test_memory_ends_with_its_block_and_a_method_that_saves_none_is_as_it_was():
    with pytest.raises(ValueError, match="within"), traced_with(Memory(2)):
        assert current() == Memory(2)
        raise ValueError("within")
    assert not current() and saving(COUPLED, Memory()) is COUPLED


@pytest.mark.parametrize(
    ("method", "memory", "devices", "said"),
    [
        (coupled(), Memory(3), 1, "--accumulate 3 does not divide a batch of 8 that net sees"),
        (coupled(), Memory(4), 4, "--accumulate 4 cuts a batch of 8 into 2 for --data-parallel 4"),
        (coupled(norm="batch"), Memory(2), 1, "--accumulate 2 cuts batches, and net has batch statistics"),
        (tiny("vae").method, Memory(remat=True), 1, "--remat is for networks of blocks .*; own has none"),
    ],
    ids=["does not divide", "nor over devices", "batch norm", "no blocks"],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_compiled(method, memory, devices, said):
    with pytest.raises(UserError, match=said):
        check_memory("own", method, memory, SPEC.shape, devices)


@pytest.mark.parametrize("memory", [Memory(2), Memory(4), Memory(remat=True)], ids=str)
def test_what_can_be_saved_is_not_refused(memory):
    check_memory("own", COUPLED, memory, SPEC.shape, 2)


# A run


def test_the_command_says_in_one_line_what_does_not_divide(capsys, tmp_path):
    words = "train vae --steps 3 --config.unlabelled-batch 10 --accumulate 4 --out"
    assert cli.main([*words.split(), str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--accumulate 4 does not divide a batch of 10" in said
    assert not (tmp_path / "run").exists()


def test_a_run_may_go_on_in_other_parts(finished):
    """Its record is of the same run, and its steps are cut as it is asked."""
    folder, config, loops = finished("m2"), RECIPES["m2"].config, {}
    for parts in (1, 2):
        job = train.prepare("m2", config, finished.options("m2", folder, accumulate=parts))
        records.agree(folder, job.record)
        assert ("--accumulate 2" in job.record.command) == (parts == 2)
        replicas, states, rows, _ = train.begin(job, 1)
        first = Rows(*(part[0] for part in rows(Segment(0, 0, 0, 1))))
        loops[parts] = replicas.lower(states, 0, first).as_text().count("stablehlo.while")
    assert loops[2] > loops[1]
