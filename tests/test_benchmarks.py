"""The benchmark of training steps: its lines, and that PyTorch's steps are JAX's."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import step
from ssl_gen.methods.adversarial import feature_matching
from ssl_gen.types import Batch

TINY = step.QUICK._replace(images=200, seconds=0.001, repeats=2, side=8)
MACHINE = {"device", "cpu", "cores", "load", "jax"}


@pytest.fixture
def twins():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from benchmarks import twins

    twins.torch.set_num_threads(1)  # several threads of so small a step wait for each other on a busy machine
    return twins


def through_json(line):
    return json.loads(json.dumps(line, allow_nan=False))


def test_contenders_take_turns_after_one_call_of_each():
    calls = []
    times = step.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3)
    assert calls == ["a", "b"] * 4
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}


def test_a_method_line_names_what_was_measured_and_where():
    line = through_json(step.method_line("supervised", 2, TINY))
    assert line["name"] == "supervised" and line["seeds"] == 2 and line["placement"] in ("loop", "vmap", "pmap")
    assert line["preset"] == {"hidden": [16], "width": 4, "labelled_batch": 8} and line["images_a_step"] == 8
    assert line["images_per_second"] == pytest.approx(8 * line["steps_per_second"], rel=1e-3)
    assert line["steps_per_second"] == pytest.approx(2 / line["running_seconds"], rel=1e-3)
    assert {"compile_seconds", "init_seconds", "peak_device_mib", *MACHINE} <= set(line) and line["peak_host_mib"] > 0


def test_every_method_is_measured_at_its_default_config_with_1_and_8_seeds():
    assert step.FULL.methods == tuple(step.METHODS) and step.FULL.seeds == (1, 8)
    assert all(step.preset(module, step.FULL) == {} for module in step.METHODS.values())


def test_a_fold_line_compares_the_seconds_of_a_step():
    config = step.METHODS["supervised"].Config(**step.preset(step.METHODS["supervised"], TINY))
    method = step.METHODS["supervised"].make(config, step.SPEC)  # dense, the least to compile
    line = through_json(step.fold_line("supervised", method, TINY))
    seconds = line["seconds_per_step"]
    assert line["ratio"] == pytest.approx(seconds["fold"] / seconds["loop"], rel=1e-3)
    assert line["limit"] == step.LIMIT and set(line) >= MACHINE


def test_a_stream_line_compares_the_seconds_of_a_step_whose_images_are_read():
    line = through_json(step.stream_line("supervised", step.SPEC, TINY))
    seconds = line["seconds_per_step"]
    assert line["ratio"] == pytest.approx(seconds["stream"] / seconds["device"], rel=1e-3)
    assert line["kind"] == "stream" and line["name"] == "supervised, mlp" and line["limit"] == step.STREAMED


def test_the_convolutional_gan_has_a_step_that_trains_both_players():
    method, batch = step.conditional_gan(TINY), some_batch(0)
    state = jax.eval_shape(method.init, jax.random.key(0), batch)
    after, metrics = jax.eval_shape(method.phases[0].step, state, jax.random.key(0), jnp.int32(0), batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert {"discriminator/real", "discriminator/fake", "generator/adversarial"} < set(metrics)


def test_twin_lines_bear_ratios_and_rates_of_matrix_products(twins):
    dense, convolutional = map(through_json, step.twin_lines(TINY))
    assert (dense["name"], convolutional["name"]) == ("dense", "convolutional")
    for line in dense, convolutional:
        assert set(line["steps_per_second"]) == set(line["product_gflops"]) == {"jax", "torch"}
        assert {"ratio_of_fastest", "target", "torch", *MACHINE} <= set(line)


def test_a_ratio_is_of_medians_and_is_corrected_for_the_rate_of_matrix_products():
    line = step.compared({"jax": [1.0, 2.0, 9.0], "torch": [6.0, 8.0, 7.0]}, 4, {"jax": 400.0, "torch": 100.0})
    assert line["steps_per_second"] == {"jax": 4 / 2, "torch": round(4 / 7, 4)}
    assert line["ratio"] == 7 / 2 and line["ratio_of_fastest"] == 6 / 1
    assert line["ratio_at_equal_products"] == 7 / 2 * 100 / 400


def test_without_pytorch_the_twins_are_skipped_in_one_line(monkeypatch):
    monkeypatch.setattr(step.importlib.util, "find_spec", lambda name: None)
    for kind in ("fold", "stream"):
        monkeypatch.setattr(step, f"{kind}_line", lambda *_, kind=kind, **__: {"kind": kind})
    lines = list(step.lines(TINY._replace(methods=())))
    assert [line["kind"] for line in lines] == ["twin", "fold", "stream", "stream"]
    assert "pip install" in lines[0]["skipped"]


def some_batch(unlabelled):
    random = np.random.default_rng(1)
    images = random.uniform(-1, 1, (8 + unlabelled, *step.SPEC.shape)).astype(np.float32)
    return Batch(jnp.asarray(images[:8]), jnp.arange(8) % step.SPEC.classes, jnp.asarray(images[8:]))


def assert_same_losses(twins, method, twin, latents_of, batch, steps, tolerance):
    """latents_of(key of a step) -> the latents that the method draws in it."""
    state, update = jax.jit(method.init)(jax.random.key(0), batch), jax.jit(method.phases[0].step)
    tensors = Batch(twins.tensor(batch.labelled), twins.tensor(batch.labels).long(), twins.tensor(batch.unlabelled))
    twin = twin(state)
    for number in range(steps):
        key = jax.random.key(number)
        losses = twin(tensors, twins.tensor(latents_of(key)))
        state, metrics = update(state, key, jnp.int32(number), batch)
        expected = {name: float(metrics[name]) for name in metrics if not name.endswith("gradient_norm")}
        assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=tolerance, abs=1e-6)


def test_the_dense_twin_has_the_losses_of_the_method_before_and_after_updates(twins):
    changes = {"input_noise": 0, "noise": 0, "learning_rate": 1e-3, "steps": 4, "anneal": 0.75}  # rates 1, 1, 2/3, 1/3
    config = feature_matching.Config(**step.preset(feature_matching, TINY) | changes)
    config = dataclasses.replace(config, eps_root=1e-16)  # as good as PyTorch's 1e-8 beside the root

    def latents(key):
        return jax.random.uniform(jax.random.split(key, 3)[0], (8, config.latent))

    method, twin = feature_matching.make(config, step.SPEC), functools.partial(twins.feature_matching, config)
    assert_same_losses(twins, method, twin, latents, some_batch(8), 4, 1e-4)


def test_the_convolutional_twin_has_the_losses_of_the_jax_step_before_and_after_updates(twins):
    method = step.conditional_gan(TINY)
    twin = functools.partial(twins.conditional_gan, step.RATE, step.SPEC.classes)
    assert_same_losses(twins, method, twin, lambda key: step.noise_of(key, 8), some_batch(0), 3, 1e-4)
