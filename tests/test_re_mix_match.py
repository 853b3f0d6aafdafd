"""Berthelot et al. 2020: what ReMixMatch adds to MixMatch; alignment is tested with FixMatch."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SPEC, tiny

from ssl_gen.augmentation.geometry import turned
from ssl_gen.methods.self_training import re_mix_match
from ssl_gen.types import UserError


def test_images_are_turned_by_right_angles():
    images = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype(np.float32)
    turns = [2, 0, 3, 1]
    expected = [np.rot90(image, turn) for image, turn in zip(images, turns, strict=True)]
    np.testing.assert_array_equal(turned(jnp.asarray(images), jnp.array(turns)), expected)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(UserError, match="8 x 6 are not square"):
        re_mix_match.make(tiny("re_mix_match").config, SPEC._replace(width=6))
