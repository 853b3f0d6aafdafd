"""When something is written, measured or kept: by hand."""

import pytest

from ssl_gen.training.segments import Every, choose_every, segments
from ssl_gen.types import Phase, UserError


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (1, Every(log=1, evaluate=1, checkpoint=1)),
        (5, Every(log=5, evaluate=1, checkpoint=1)),  # a line at the end at the latest
        (12, Every(log=10, evaluate=1, checkpoint=2)),  # 10 apart at least; 12 / 25 and 12 / 10 are rounded up
        (3_000, Every(log=15, evaluate=120, checkpoint=300)),  # 200 lines, 25 evaluations, 10 checkpoints
        (50_000, Every(log=100, evaluate=2_000, checkpoint=5_000)),  # 250 would be too far apart
    ],
)
def test_how_often_where_nobody_asks(steps, expected):
    assert choose_every(steps, None, None, None) == expected
    assert choose_every(steps, 7, None, None) == expected._replace(log=7)
    assert choose_every(steps, None, 8, None) == expected._replace(evaluate=8)
    assert choose_every(steps, None, None, 9) == expected._replace(checkpoint=9)


@pytest.mark.parametrize("given", [(0, None, None, None), (9, 0, None, None), (9, None, 0, None), (9, None, None, 0)])
def test_never_is_refused(given):
    with pytest.raises(UserError, match="are at least 1"):
        choose_every(*given)


def test_segments_end_where_anything_happens_and_where_a_phase_ends():
    """Phases of 5 and 4 steps, something every 3 and every 4: moments 3, 4, 6, 8, ends 5 and 9."""
    phases = [Phase("one", 5, 1, 0, None), Phase("two", 4, 1, 0, None)]
    whole = [(0, 0, 0, 3), (0, 0, 3, 4), (0, 0, 4, 5), (1, 5, 5, 6), (1, 5, 6, 8), (1, 5, 8, 9)]
    assert [tuple(each) for each in segments(phases, [3, 4], 0)] == whole
    for start, left in ((4, whole[2:]), (5, whole[3:]), (8, whole[5:]), (9, [])):
        assert [tuple(each) for each in segments(phases, [3, 4], start)] == left
    assert next(segments(phases, [3, 4], 7)) == (1, 5, 7, 8), "a signal may come anywhere"
