"""Lee 2013: the ramp, and a term that grows with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import IMAGES, first_rows, tiny

from ssl_gen.core.keys import INIT, stream
from ssl_gen.core.schedules import linear_ramp
from ssl_gen.types import Batch


@pytest.mark.parametrize("step", [0, 99, 100, 101, 350, 599, 600, 10_000])
def test_the_weight_is_that_of_the_paper(step):
    """Lee 2013, eq. 16: 0 before epoch 100, (t - 100) / (600 - 100) a, then a."""
    expected = [0, (step - 100) / (600 - 100), 1][(step >= 100) + (step >= 600)]
    np.testing.assert_allclose(linear_ramp(jnp.int32(step), 100, 600), expected, rtol=1e-6)


def test_a_ramp_of_no_length_is_a_step():
    assert [float(linear_ramp(jnp.int32(step), 3, 3)) for step in (2, 3, 4)] == [0, 0, 1]


def test_at_the_first_step_only_the_labels_teach():
    """Under the ramp other unlabelled images change the loss by batch norm alone: their own term is 0."""
    method = tiny("pseudo_label").method
    rows = first_rows()
    images = jnp.asarray(IMAGES, jnp.float32) / 127.5 - 1
    batch = Batch(images[rows.labelled[0, :4]], rows.labels[0, :4], images[rows.unlabelled[0, :8]])
    state = jax.jit(method.init)(stream(0, INIT), batch)
    step = jax.jit(lambda at: method.phases[0].step(state, stream(0, at), at, batch)[1])
    terms = [float(step(jnp.int32(at))["classifier/pseudo_label"]) for at in (0, 2, 4)]
    assert terms[0] == 0 < terms[1] < terms[2]
