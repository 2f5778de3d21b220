"""Grouping by user in files gives what a plain loop over all rows gives."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.data import by_user
from fullrank.data.by_user import EventKeys, RowKeys, Wanted, group
from fullrank.data.columns import NEVER
from fullrank.data.history import HistorySource
from fullrank.data.keys import splitmix64
from fullrank.data.splits import PerUserOrder

MAX_LENGTH = 3
LAG = 2


def codes(small: np.ndarray) -> np.ndarray:
    """Well spread codes of small numbers; 0 stays missing."""
    return np.where(small == 0, np.uint64(0), splitmix64(small.astype(np.uint64)))


@st.composite
def logs(draw: st.DrawFn) -> dict[str, np.ndarray]:
    n = draw(st.integers(0, 40))
    small = {
        "user": draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)),
        "request": draw(st.lists(st.integers(0, 6), min_size=n, max_size=n)),
        "time": draw(st.lists(st.integers(0, 8), min_size=n, max_size=n)),
        "where": draw(st.lists(st.booleans(), min_size=n, max_size=n)),
    }
    return {name: np.array(values, dtype=np.int64) for name, values in small.items()}


def brute(log: dict[str, np.ndarray]) -> tuple[list[int], list[int], list[list[int]]]:
    """First row, request time and the past (row numbers of the events) of the request of every row."""
    n = len(log["user"])
    same = [
        [
            j
            for j in range(n)
            if j == i
            or (
                log["request"][i]
                and log["request"][i] == log["request"][j]
                and log["user"][i] == log["user"][j]
            )
        ]
        for i in range(n)
    ]
    first = [min(rows) for rows in same]
    time = [min(int(log["time"][j]) for j in rows) for rows in same]
    past = []
    for i in range(n):
        events = []
        for j in range(n):
            available = max(log["time"][j] + LAG, time[j])
            if (
                log["where"][j]
                and log["user"][j]
                and log["user"][j] == log["user"][i]
                and available < time[i]
            ):
                events.append((available, log["time"][j], j))
        past.append([j for _, _, j in sorted(events)[-MAX_LENGTH:]])
    return first, time, past


@settings(max_examples=60, deadline=None)
@given(log=logs(), bucket_rows=st.sampled_from([1, 4, 1 << 16]))
def test_requests_and_pasts_are_those_of_a_plain_loop(log: dict[str, np.ndarray], bucket_rows: int) -> None:
    available = np.where(log["where"], log["time"] + LAG, NEVER)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_user, "BUCKET_ROWS", bucket_rows)
        work = Path(name)
        rows = RowKeys(
            user=codes(log["user"]),
            request=codes(log["request"]),
            time=log["time"],
            events={"h": EventKeys(available, log["time"])},
        )
        result = group(work, rows, [Wanted("h", MAX_LENGTH, work / "h")])
        first, time, past = brute(log)
        assert result.first.tolist() == first
        assert result.request_time.tolist() == time
        places = result.histories["h"]
        row_at = {int(dest): row for row, dest in enumerate(places.dest) if dest >= 0}
        assert sorted(row_at) == list(range(places.num_events))
        for row in range(len(first)):
            end, length = int(places.end[first[row]]), int(places.length[first[row]])
            assert [row_at[place] for place in range(end - length, end)] == past[row]
        users, start = np.load(work / "h" / "user.npy"), np.load(work / "h" / "start.npy")
        assert (np.diff(users.astype(object)) > 0).all() and start[-1] == places.num_events
        for place, row in row_at.items():
            owner = users[np.searchsorted(start, place, side="right") - 1]
            assert owner == rows.user[row]


@settings(max_examples=20, deadline=None)
@given(log=logs(), requests=st.booleans())
def test_without_histories_requests_are_the_same(log: dict[str, np.ndarray], requests: bool) -> None:
    log = log if requests else {**log, "request": np.zeros_like(log["request"])}
    first, time, _ = brute(log)
    told: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        keys = RowKeys(codes(log["user"]), codes(log["request"]), log["time"], {})
        grouped = group(Path(folder), keys, [], done=told.append)
        assert grouped.first.tolist() == first and grouped.request_time.tolist() == time
    assert grouped.split is None and not grouped.histories and sum(told) == len(first)


@settings(max_examples=40, deadline=None)
@given(log=logs(), bucket_rows=st.sampled_from([1, 1 << 16]))
def test_per_user_order_keeps_requests_whole_and_counts_rows(
    log: dict[str, np.ndarray], bucket_rows: int
) -> None:
    log["request"][:] = 0  # one row a request: then the shares are exact
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_user, "BUCKET_ROWS", bucket_rows)
        rows = RowKeys(user=codes(log["user"]), request=codes(log["request"]), time=log["time"], events={})
        result = group(Path(name), rows, [], PerUserOrder(valid=0.25, test=0.25))
        assert result.split is not None
        for user in np.unique(log["user"]):
            mine = np.flatnonzero(log["user"] == user)
            ordered = mine[np.lexsort((mine, log["time"][mine]))]
            quarter = len(mine) // 4 if user else 0
            expected = [0] * (len(mine) - 2 * quarter) + [1] * quarter + [2] * quarter
            assert result.split[ordered].tolist() == expected


def test_a_request_is_in_the_split_of_its_first_row(tmp_path: Path) -> None:
    user = codes(np.ones(10, dtype=np.int64))
    request = codes(np.array([1, 1, 2, 2, 3, 3, 4, 4, 5, 5]))
    time = np.arange(10)
    rows = RowKeys(user=user, request=request, time=time, events={})
    result = group(tmp_path, rows, [], PerUserOrder(valid=0.1, test=0.3))
    assert result.split is not None
    # Test wants the last three rows: row 7 is one of them, but its request's first row (6) is validation's.
    assert result.split.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 2, 2]


def test_an_appended_partition_starts_with_the_newest_events_before_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n, days = 300, 3
    user, time = codes(rng.integers(1, 6, n)), np.sort(rng.integers(0, 100, n))
    day = time * days // 100
    whole = RowKeys(user=user, request=np.zeros(n, np.uint64), time=time, events={"h": EventKeys(time, time)})
    (tmp_path / "whole").mkdir()
    expected = group(tmp_path / "whole", whole, [Wanted("h", MAX_LENGTH, tmp_path / "whole" / "h")])
    item_of_all = np.empty(n, dtype=np.int64)
    item_of_all[expected.histories["h"].dest] = np.arange(n)
    prior: list[tuple[int, HistorySource]] = []
    for number in range(days):
        work = tmp_path / str(number)
        work.mkdir()
        mine = np.flatnonzero(day == number)
        keys = {"h": EventKeys(time[mine], time[mine])}
        rows = RowKeys(user=user[mine], request=np.zeros(len(mine), np.uint64), time=time[mine], events=keys)
        places = group(work, rows, [Wanted("h", MAX_LENGTH, work / "h", prior)]).histories["h"]
        store = {name: np.full(places.num_events, -1) for name in ("item", "time", "available")}
        for name, own in (("item", mine), ("time", time[mine]), ("available", time[mine])):
            store[name][places.dest] = own
            for dest, partition, place in places.carried:
                store[name][dest] = prior[partition][1].columns[name][place]
        assert (store["item"] >= 0).all()
        source = HistorySource(store, np.load(work / "h" / "user.npy"), np.load(work / "h" / "start.npy"))
        for local, row in enumerate(mine):
            end, length = int(places.end[local]), int(places.length[local])
            e, m = int(expected.histories["h"].end[row]), int(expected.histories["h"].length[row])
            assert store["item"][end - length : end].tolist() == item_of_all[e - m : e].tolist()
        prior = [*prior, (number, source)]
