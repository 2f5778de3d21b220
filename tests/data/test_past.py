"""Which partition's store a request's past is read from, against a search through all of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fullrank.data.history import HistorySource, Spans
from fullrank.data.past import Past, gathered

USERS, KEPT = 4, 3
Log = list[list[tuple[int, int]]]  # partition by partition: (user, time)


def stores(log: Log) -> tuple[list[HistorySource], list[int]]:
    """What preparing makes of partitions whose rows are all events: every user of one begins with the newest three
    before it. Event numbers are unique; `partition` says which store an event is read from."""
    number, known, made, begins = 0, {user: [] for user in range(USERS)}, [], []
    for place, rows in enumerate(log):
        columns = {"item": [], "available": [], "partition": []}
        users, start = [], [0]
        fresh = {user: list(known[user][-KEPT:]) for user in {user for user, _ in rows}}
        for user, time in sorted(rows, key=lambda row: row[1]):
            number += 1
            known[user].append((time, number))
            fresh[user].append((time, number))
        for user, events in sorted(fresh.items()):
            events.sort()
            users.append(user + 1)
            columns["available"] += [time for time, _ in events]
            columns["item"] += [number for _, number in events]
            columns["partition"] += [place] * len(events)
            start.append(len(columns["item"]))
        arrays = {name: np.array(values, np.int64) for name, values in columns.items()}
        made.append(HistorySource(arrays, np.array(users, np.uint64), np.array(start)))
        begins.append(min(time for _, time in rows))
    return made, begins


def read(past: Past, user: np.ndarray, time: np.ndarray) -> list[list[int]]:
    source, spans = past.past(user, time)
    positions, offsets = source.newest(spans, KEPT)
    items = source.columns["item"][positions]
    return [items[a:b].tolist() for a, b in pairwise(offsets.tolist())]


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Partitions one after another in time, each with a few events."""
    now, log = 0, []
    for _ in range(draw(st.integers(1, 4))):
        rows = draw(st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, 5)), min_size=1, max_size=9))
        log.append([(user, now + time) for user, time in rows])
        now += 6
    return log


@given(logs(), st.lists(st.tuples(st.integers(0, USERS), st.integers(-1, 30)), min_size=1, max_size=12))
def test_the_newest_events_before_the_request_whichever_partition_has_them(log: Log, asked: list) -> None:
    made, begins = stores(log)
    user = np.array([user + 1 for user, _ in asked], np.uint64)
    time = np.array([time for _, time in asked])
    everything = {}
    for store in made:
        for number, available in zip(store.columns["item"], store.columns["available"], strict=True):
            everything[int(number)] = int(available)
    owner = {}
    number = 0
    for rows in log:
        for who, _ in sorted(rows, key=lambda row: row[1]):
            number += 1
            owner[number] = who
    expected = []
    for who, when in asked:
        own = [(t, n) for n, t in everything.items() if owner[n] == who and t < when]
        expected.append([n for _, n in sorted(own)[-KEPT:]])
    assert read(Past(made, begins, KEPT), user, time) == expected


def test_of_two_stores_with_the_same_events_the_one_that_had_begun() -> None:
    log = [[(0, 1), (0, 2)], [(0, 10)], [(0, 20)]]
    made, begins = stores(log)
    user, time = np.array([1, 1, 1], np.uint64), np.array([5, 10, 30])
    source, spans = Past(made, begins, KEPT).past(user, time)
    positions, offsets = source.newest(spans, KEPT)
    places = source.columns["partition"][positions]
    assert [set(places[a:b]) for a, b in pairwise(offsets.tolist())] == [{0}, {1}, {2}]


def test_gathered_keeps_the_columns_that_all_have() -> None:
    left = HistorySource({"item": np.arange(5), "more": np.arange(5)})
    right = HistorySource({"item": np.arange(10, 15)})
    source, spans = gathered([left, right], np.array([1, 0, 1]), Spans(np.array([3, 5, 1]), np.array([2, 1, 0])))
    assert list(source.columns) == ["item"]
    found = [source.columns["item"][e - n : e].tolist() for e, n in zip(spans.end_R, spans.length_R, strict=True)]
    assert found == [[11, 12], [4], []]
