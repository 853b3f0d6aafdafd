"""What a network says of two views of the same images, one changed slightly, one strongly.

The methods that learn their own guesses share it: they guess on the one view and learn on the other (Sohn et al. 2020,
"FixMatch", arXiv:2001.07685, fig. 1). Which guesses are learnt, and what each is worth, stands on their pages.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import jax

from ssl_gen.core.batching import interleave, separate
from ssl_gen.core.ema import update_ema
from ssl_gen.core.gradient import Forward
from ssl_gen.core.options import choose
from ssl_gen.core.players import Player
from ssl_gen.types import Array, Key, TrainState, Tree

Teacher = Literal["student", "average"]  # whose guesses are learnt: the network's own, or those of its EMA


class Look(NamedTuple):
    """What was said of a batch."""

    predicted: Forward  # the player's own pass, its way back kept, over all that it was shown
    sizes: tuple[int, ...]  # of the parts of that pass
    guesses: Array  # log q (U, K) of the weak view; without gradient where `descend` follows `predicted`
    teacher_stats: Tree | None  # the EMA's collections after a pass of its own; None where it made none

    def separate(self, logits: Array) -> tuple[Array, Array]:
        """Logits of `predicted` -> those of the labelled images (L, K) and of the strong view (U, K)."""
        labelled, strong, *_ = separate(logits, self.sizes)
        return labelled, strong


def look(player: Player, state: TrainState, views: tuple[Array, Array, Array], teacher: Teacher, keys: Key) -> Look:
    """One pass over labelled images, strong and weak view, as in training; keys (2,) of the dropout of either network.

    With teacher "average" the weak view is the EMA's alone. Raises UserError on another teacher.
    """
    own = choose("teacher", teacher, get_args(Teacher)) == "student"
    shown = views if own else views[:2]
    sizes = tuple(part.shape[0] for part in shown)
    predicted = player.forward(state, interleave(*shown), rngs={"dropout": keys[0]})
    if own:
        logits, teacher_stats = separate(predicted.outputs, sizes)[2], None
    else:
        logits, teacher_stats = player.run_ema(state, views[2], rngs={"dropout": keys[1]})
    return Look(predicted, sizes, jax.nn.log_softmax(logits), teacher_stats)


def follow(
    player: Player, after: TrainState, seen: Look, rate: float, step: Array, plain: Array, keys: Key
) -> TrainState:
    """The EMA moved towards the player after its update number `step` + 1; keys are those of `look`.

    Its statistics are those of its pass as a teacher, or of one over `plain` images where it was none.
    """
    if seen.teacher_stats is None:
        return player.average(after, rate, step, plain, rngs={"dropout": keys[1]})
    return update_ema(after, rate, step, seen.teacher_stats)
