"""What XLA is told beside a program: on a processor alone, and nothing that it does not know."""

import jax
import numpy as np
import pytest

from ssl_gen.core import compiling
from ssl_gen.networks.convolution import convolve


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(compiling, "cores", lambda: 4)


def test_a_step_that_has_cores_to_spare_divides_its_convolutions(four_cores):
    assert compiling.compiler_options("cpu", False, 1) == compiling.compiler_options("cpu", False, 3) != {}
    assert compiling.compiler_options("cpu", False, 4) == {}


def test_an_accelerator_is_told_nothing(four_cores):
    assert compiling.compiler_options("gpu", True, 1) == compiling.compiler_options("tpu", True, 1) == {}


def test_remat_keeps_its_barriers_with_and_without_cores_to_spare(four_cores):
    assert compiling.compiler_options("cpu", True, 4) == compiling.KEEP_BARRIERS
    assert compiling.compiler_options("cpu", True, 1) == compiling.KEEP_BARRIERS | compiling.DIVIDED


def test_an_option_that_this_xla_does_not_know_is_left_out(four_cores, monkeypatch):
    monkeypatch.setattr(compiling, "DIVIDED", {"xla_cpu_no_such_option": "1"})
    assert compiling.compiler_options("cpu", False, 1) == {}


def test_divided_convolutions_come_to_the_same():
    """Forward and both gradients, against the program as XLA compiles it by itself."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(32, 15, 15, 16)), rng.normal(size=(3, 3, 16, 32))

    def loss(x, kernel):
        y = convolve(x, kernel, 1)
        return (y**2).sum(), y

    step = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    args = jax.numpy.float32(x), jax.numpy.float32(kernel)
    plain, divided = jax.jit(step)(*args), jax.jit(step, compiler_options=compiling.DIVIDED)(*args)
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(divided), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * abs(np.asarray(one)).max())


def test_what_is_no_step_is_divided_wherever_there_are_two_cores(monkeypatch):
    asked = []
    monkeypatch.setattr(compiling, "cores", lambda: 2)
    monkeypatch.setattr(compiling.jax, "jit", lambda function, **given: asked.append(given) or function)
    monkeypatch.setattr(compiling, "_is_known", lambda name, value: True)
    assert compiling.jit_inference(abs, static_argnums=0)(-1) == 1
    monkeypatch.setattr(compiling, "cores", lambda: 1)
    compiling.jit_inference(abs)
    assert asked == [{"compiler_options": compiling.DIVIDED, "static_argnums": 0}, {"compiler_options": {}}]
