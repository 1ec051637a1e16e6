from __future__ import annotations

import math

import numpy as np
import pytest

from panini.metrics import bootstrap
from panini.metrics.bootstrap import Interval, mean_interval, paired_interval, ratio_interval


def values(seed=0, count=40):
    return np.random.default_rng(seed).normal(3, 1, count)


def reference(statistic, count, draws=2000, seed=0):
    drawn = np.random.default_rng(seed).integers(0, count, (draws, count))
    return np.percentile([statistic(rows) for rows in drawn], [2.5, 97.5])


def test_the_interval_is_that_of_means_over_faces_drawn_anew():
    x = values()
    found = mean_interval(x)
    assert found.mean == pytest.approx(x.mean())
    assert found.count == 40
    assert [found.low, found.high] == pytest.approx(reference(lambda i: x[i].mean(), 40))


def test_large_sets_are_drawn_in_parts_with_the_same_result(monkeypatch):
    x, y = values(), values(1)
    whole = mean_interval(x), ratio_interval(x, y)
    monkeypatch.setattr(bootstrap, "_FEW", 1000)
    assert (mean_interval(x), ratio_interval(x, y)) == whole


def test_the_interval_is_as_wide_as_the_normal_approximation():
    x = values(count=400)
    found = mean_interval(x, seed=3, draws=4000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * x.std() / 20, rel=0.1)


def test_pairs_say_more_than_two_means():
    truth = 10 * values()
    a, b = truth + 1 + 0.1 * values(1), truth
    paired = paired_interval(a, b)
    assert paired == mean_interval(a - b)
    assert paired.high - paired.low < 0.1 * (mean_interval(a).high - mean_interval(a).low)


def test_a_ratio_is_that_of_the_means():
    a, b = values(1), 2 * values(2)
    found = ratio_interval(a, b)
    assert found.mean == pytest.approx(a.mean() / b.mean())
    expected = reference(lambda i: a[i].mean() / b[i].mean(), 40)
    assert [found.low, found.high] == pytest.approx(expected)


def test_faces_without_a_value_are_left_out_of_both_sides():
    nan = math.nan
    assert mean_interval([1, nan, 3]) == mean_interval([1, 3])
    assert paired_interval([1, nan, 3, 4], [0, 5, nan, 1]) == paired_interval([1, 4], [0, 1])
    assert ratio_interval([1, nan, 4], [2, 5, 1]).count == 2
    assert ratio_interval([1, 2], [0, 0]).count == 0  # nothing is a share of nothing


def test_without_faces_nothing_is_known():
    for found in (mean_interval([]), paired_interval([math.nan], [1.0]), ratio_interval([], [])):
        assert found.count == 0
        assert math.isnan(found.mean)
        assert math.isnan(found.low)


def test_one_face_has_no_spread():
    assert mean_interval([2.5]) == Interval(2.5, 2.5, 2.5, 1)


def test_sides_of_different_length_are_refused():
    with pytest.raises(ValueError, match="the same faces"):
        paired_interval([1.0, 2.0], [1.0])
