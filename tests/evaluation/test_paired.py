"""Means, spreads and paired differences: against scipy's paired t-test, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from fullrank.evaluation.paired import paired_difference, spread


@given(st.integers(2, 12), st.integers(0, 1000))
def test_the_interval_is_that_of_the_paired_t_test(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random.normal(0.8, 0.01, n), random.normal(0.79, 0.01, n)
    found = paired_difference(list(a), list(b), higher_is_better=True, level=0.9)
    expected = ttest_rel(a, b).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    significant = ttest_rel(a, b).pvalue < 0.1
    assert (found.verdict == "inside the noise") == (not significant)


def test_which_way_is_up() -> None:
    low, high = [0.30, 0.31, 0.30, 0.31], [0.40, 0.41, 0.40, 0.42]
    assert paired_difference(high, low, higher_is_better=True).verdict == "better"
    assert paired_difference(high, low, higher_is_better=False).verdict == "worse"
    assert paired_difference(low, high, higher_is_better=False).verdict == "better"


def test_one_seed_proves_nothing() -> None:
    found = paired_difference([0.9], [0.5], higher_is_better=True)
    assert found.verdict == "too few seeds" and found.n == 1 and np.isnan(found.low)
    assert np.isnan(spread([0.9]).sd) and spread([]).n == 0


def test_equal_values_differ_by_nothing() -> None:
    found = paired_difference([0.8, 0.81, 0.79], [0.8, 0.81, 0.79], higher_is_better=True)
    assert (found.low, found.high, found.verdict) == (0.0, 0.0, "inside the noise")


def test_an_undefined_metric_gives_no_verdict() -> None:
    assert paired_difference([float("nan"), 0.5], [0.4, 0.4], higher_is_better=True).verdict == "not defined"
    assert paired_difference([float("nan")], [0.4], higher_is_better=True).verdict == "not defined"


def test_pairs_are_pairs() -> None:
    with pytest.raises(ValueError, match="Expected pairs, got 2 values and 1"):
        paired_difference([1.0, 2.0], [1.0], higher_is_better=True)
