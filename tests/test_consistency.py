"""A look at two views: whose guesses, on which view, and whose statistics, by networks of one number a class."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_gen.augmentation import Augmentation, views
from ssl_gen.core.consistency import follow, look
from ssl_gen.core.players import Player
from ssl_gen.types import Average, Batch

OWN, AVERAGE = np.array([1.0, -2.0, 0.5]), np.array([-3.0, 1.0, 2.0])  # what images' means are multiplied by
LABELLED, STRONG, WEAK = np.array([0.1, 0.7]), np.array([0.2, -0.3, 0.5, 0.9]), np.array([-0.8, 0.4, 0.6, -0.1])
PLAIN = np.array([0.3, 0.35])
KEYS = jax.random.split(jax.random.key(0), 2)


class Mean(nn.Module):
    """Logits: weights times the image's mean. Its statistics are the mean of the batch that it last saw in training."""

    @nn.compact
    def __call__(self, images, train):
        means = images.mean((1, 2, 3))
        weights = self.param("weights", nn.initializers.ones, (3,))
        last = self.variable("batch_stats", "last", jnp.zeros, ())
        if train:
            last.value = means.mean()
        return means[:, None] * weights


PLAYER = Player("classifier", Mean(), optax.sgd(0.1), ema=True)


def painted(greys):
    return jnp.broadcast_to(jnp.float32(greys)[:, None, None, None], (len(greys), 2, 2, 1))


def started():
    state = PLAYER.init(jax.random.key(0), painted(PLAIN))
    params = [{"weights": jnp.float32(weights)} for weights in (OWN, AVERAGE)]
    return state._replace(params=params[0], ema=Average(params[1], {"batch_stats": {"last": jnp.float32(7)}}))


def seen_by(teacher):
    return look(PLAYER, started(), (painted(LABELLED), painted(STRONG), painted(WEAK)), teacher, KEYS)


@pytest.mark.parametrize(("teacher", "weights"), [("student", OWN), ("average", AVERAGE)])
def test_guesses_are_the_teachers_of_the_weak_view(teacher, weights):
    np.testing.assert_allclose(seen_by(teacher).guesses, jax.nn.log_softmax(np.outer(WEAK, weights)), rtol=1e-5)


@pytest.mark.parametrize("teacher", ["student", "average"])
def test_what_is_learnt_is_the_students_of_labelled_images_and_of_the_strong_view(teacher):
    seen = seen_by(teacher)
    labelled, strong = seen.separate(seen.predicted.outputs)
    np.testing.assert_allclose(labelled, np.outer(LABELLED, OWN), rtol=1e-5)
    np.testing.assert_allclose(strong, np.outer(STRONG, OWN), rtol=1e-5)


@pytest.mark.parametrize(("teacher", "mean"), [("student", PLAIN.mean()), ("average", WEAK.mean())])
def test_the_average_has_the_statistics_of_its_guesses_or_of_plain_images_where_it_made_none(teacher, mean):
    after = follow(PLAYER, started(), seen_by(teacher), 0.5, jnp.int32(1), painted(PLAIN), KEYS)
    np.testing.assert_allclose(after.ema.stats["batch_stats"]["last"], mean, rtol=1e-5)
    np.testing.assert_allclose(after.ema.params["weights"], AVERAGE + 2 / 3 * (OWN - AVERAGE), rtol=1e-5)


def test_views_are_labelled_images_weakly_changed_and_the_others_strongly_and_weakly():
    still, grey = Augmentation(), Augmentation(cutout=3.0)  # a square of three times the side greys all of an image
    batch, nothing = Batch(painted(LABELLED), jnp.zeros(2, jnp.int32), painted(STRONG)), np.zeros((4, 2, 2, 1))
    keys = jax.random.split(jax.random.key(1), 3)
    labelled, strong, weak = views(still, grey, (keys[0], keys[1], keys[2]), batch)
    np.testing.assert_array_equal(labelled, batch.labelled)
    np.testing.assert_array_equal(strong, nothing)
    np.testing.assert_array_equal(weak, batch.unlabelled)
    labelled, strong, weak = views(grey, still, (keys[0], keys[1], keys[2]), batch)
    np.testing.assert_array_equal(labelled, nothing[:2])
    np.testing.assert_array_equal(strong, batch.unlabelled)
    np.testing.assert_array_equal(weak, nothing)
