"""Splits: exact shares, ties together, the same key on the same side for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_log import SCHEMA

from fullrank.data.columns import DataError
from fullrank.data.keys import splitmix64
from fullrank.data.splits import (
    AllTrain,
    ByHash,
    ByTime,
    GivenFiles,
    PerUserOrder,
    by_hash,
    by_time,
    counts,
    from_json,
    to_json,
)

shares = st.sampled_from([0.0, 0.1, 0.25, 0.3])


@settings(max_examples=200, deadline=None)
@given(times=st.lists(st.integers(-5, 30), min_size=1, max_size=60), valid=shares, test=shares)
def test_time_cuts_are_exact_quantiles_and_part_no_tie(times: list[int], valid: float, test: float) -> None:
    time = np.array(times, dtype=np.int64)
    split = by_time(ByTime(valid=valid, test=test), time.copy)(time)
    ordered = sorted(times)
    n = len(times)
    # The oracle: the first row (in time order) that may leave training, and the first that may test.
    first_valid = ordered[int(np.ceil(round(n * (1 - valid - test), 6))) - 1]
    first_test = ordered[int(np.ceil(round(n * (1 - test), 6))) - 1]
    assert split.tolist() == [2 if t > first_test else 1 if t > first_valid else 0 for t in times]
    assert (split == 0).any()
    assert (split == 2).sum() <= n * test + 1e-6 and (split > 0).sum() <= n * (valid + test) + 1e-6


def test_distinct_times_give_the_asked_shares() -> None:
    time = np.random.default_rng(0).permutation(1000)
    split = by_time(ByTime(valid=0.1, test=0.2), time.copy)(time)
    assert counts(split) == {"train": 700, "valid": 100, "test": 200}
    assert split[time == 999] == 2 and split[time == 0] == 0


def test_moments_are_dates_or_the_datas_own_unit() -> None:
    day = 86_400_000_000
    time = np.arange(5) * day
    for split in (
        ByTime(valid="1970-01-03", test="1970-01-04T00:00:00+00:00"),
        ByTime(valid=2 * day, test=3 * day),
        ByTime(valid="1970-01-03T02:00:00+02:00", test=3 * day),
    ):
        assert by_time(split, time.copy)(time).tolist() == [0, 0, 1, 2, 2]
    assert by_time(ByTime(valid=0, test=2), time.copy)(np.array([-1, 0, 1, 2])).tolist() == [0, 1, 1, 2]


def test_a_hash_split_is_even_and_the_same_for_ever() -> None:
    codes = splitmix64(np.arange(100_000, dtype=np.uint64))
    split = by_hash(ByHash(valid=0.1, test=0.2), codes)
    got = counts(split)
    assert abs(got["test"] - 20_000) < 500 and abs(got["valid"] - 10_000) < 400
    assert by_hash(ByHash(valid=0.1, test=0.2), codes[::-1])[::-1].tolist() == split.tolist()
    assert by_hash(ByHash(valid=0.1, test=0.2), codes[:24]).tolist() == [
        1,
        2,
        0,
        2,
        0,
        0,
        0,
        0,
        1,
        0,
        2,
        0,
        2,
        0,
        0,
        0,
        2,
        0,
        0,
        0,
        0,
        2,
        0,
        2,
    ]
    assert by_hash(ByHash(valid=0.4, test=0.5), np.zeros(3, dtype=np.uint64)).tolist() == [0, 0, 0]
    # A larger test share only adds keys to the test.
    assert set(np.flatnonzero(split == 2)) <= set(
        np.flatnonzero(by_hash(ByHash(valid=0.1, test=0.3), codes) == 2)
    )
    # The split must not follow the bits that buckets and shards are made of.
    assert abs((split[codes >> np.uint64(63) == 1] == 2).mean() - 0.2) < 0.01


def test_a_hash_key_is_a_role_or_a_categorical_feature() -> None:
    assert ByHash(key="request").column(SCHEMA) == "@request"
    assert ByHash(key="campaign").column(SCHEMA) == "campaign"
    with pytest.raises(DataError, match=r"'campain'\. Did you mean 'campaign'"):
        ByHash(key="campain").column(SCHEMA)
    with pytest.raises(DataError, match="Expected a hash split on one of"):
        ByHash(key="genres").column(SCHEMA)


def test_splits_round_trip_through_json() -> None:
    for split in (
        GivenFiles(),
        AllTrain(),
        ByTime(),
        ByTime(valid=3, test="2020-01-01"),
        PerUserOrder(valid=0.2, test=0.0),
        ByHash(key="item", valid=0.3, test=0.1),
    ):
        assert from_json(to_json(split)) == split


def test_what_cannot_be_a_split_says_why() -> None:
    for make in (ByTime, PerUserOrder, ByHash):
        with pytest.raises(DataError, match=r"valid \+ test < 1, got valid=0.5, test=0.5"):
            make(valid=0.5, test=0.5)
    with pytest.raises(DataError, match=r"two shares or two moments, got valid=0.1, test='2020-01-01'"):
        ByTime(valid=0.1, test="2020-01-01")
    with pytest.raises(DataError, match="validation to begin before the test"):
        ByTime(valid="2020-01-02", test="2020-01-01")
    with pytest.raises(DataError, match="ISO date or time such as '2024-05-31', got 'yesterday'"):
        ByTime(valid="yesterday", test="2020-01-01")
