"""Error bars agree with scipy.stats and with sums done by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.stats

from ssl_gen.metrics import statistics

ERRORS = [5.2, 4.8, 6.1, 5.5, 5.0]


def test_the_interval_is_students():
    result = statistics.summary(ERRORS)
    expected = scipy.stats.t.interval(0.95, 4, loc=np.mean(ERRORS), scale=scipy.stats.sem(ERRORS))
    assert result["ci95"] == pytest.approx(list(expected), rel=1e-12)


def test_mean_and_deviation_by_hand():
    result = statistics.summary([1, 2, 6])
    assert result["mean"] == 3
    assert result["std"] == pytest.approx(math.sqrt((4 + 1 + 9) / 2))


def test_a_missing_seed_keeps_its_place_and_counts_for_nothing():
    result = statistics.summary([5.2, None, 4.8, 6.1])
    assert result["per_seed"] == [5.2, None, 4.8, 6.1]
    assert {**result, "per_seed": None} == {**statistics.summary([5.2, 4.8, 6.1]), "per_seed": None}


def test_one_seed_has_a_mean_and_no_spread():
    assert statistics.summary([None, 3]) == {"per_seed": [None, 3.0], "mean": 3.0, "std": None, "ci95": None}


def test_no_seed_has_nothing():
    assert statistics.summary([None]) == {"per_seed": [None], "mean": None, "std": None, "ci95": None}


def test_equal_seeds_have_an_interval_of_no_width():
    assert statistics.summary([2, 2, 2])["ci95"] == [2, 2]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="value 1 is"):
        statistics.summary([1.0, value])
    with pytest.raises(ValueError, match="value 1 is"):
        statistics.paired([1.0, 2.0], [1.0, value])


def test_numbers_of_numpy_become_json():
    result = statistics.summary(np.float32([1, 2, 4]))
    assert json.loads(json.dumps(result)) == result


def test_the_paired_interval_is_that_of_the_paired_t_test():
    other = [5.9, 5.1, 6.0, 6.4, 5.2]
    result = statistics.paired(ERRORS, other)
    interval = scipy.stats.ttest_rel(ERRORS, other).confidence_interval(0.95)
    assert result["ci95"] == pytest.approx([interval.low, interval.high], rel=1e-12)
    assert result["n"] == 5


def test_the_difference_is_the_first_less_the_second():
    result = statistics.paired([3, 5], [1, 2])
    assert result["difference"] == 2.5
    assert result["std"] == pytest.approx(math.sqrt(0.5))


def test_a_pair_with_one_side_missing_is_left_out():
    assert statistics.paired([3, None, 5, 9], [1, 2, None, 8]) == statistics.paired([3, 9], [1, 8])


@pytest.mark.parametrize("comparisons", [1, 4, 20])
def test_of_several_comparisons_each_is_held_to_its_share_of_the_five_percent(comparisons):
    """As multiplying the p-value of the paired t test by their number does."""
    source, said = np.random.default_rng(1), set()
    for shift in (0.0, 0.8, 1.2, 2.5):
        a, b = source.normal(shift, 1, 8), source.normal(0, 1, 8)
        expected = bool(scipy.stats.ttest_rel(a, b).pvalue * comparisons < 0.05)
        assert statistics.excludes_zero(statistics.paired(a, b), comparisons) == expected
        said.add(expected)
    assert said == {True, False}
    assert not statistics.excludes_zero(statistics.paired([1.0], [9.0]))


def test_one_pair_has_no_interval():
    assert statistics.paired([3, None], [1, 2]) == {"difference": 2.0, "std": None, "ci95": None, "n": 1}


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="5 against 2"):
        statistics.paired(ERRORS, [1, 2])
