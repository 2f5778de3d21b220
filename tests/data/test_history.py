"""Reading a store of events: spans by user and time, the newest of a span, and the bisection below them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullrank.data.history import HistorySource, Spans, first_not_before

USERS = {3: [1, 1, 4, 4, 9], 8: [], 20: [5], 21: [2, 2, 2]}


def store(events: dict[int, list[int]] | None = None) -> HistorySource:
    """Events of users by code: their times of availability, ascending."""
    events = USERS if events is None else events
    available = np.array([time for times in events.values() for time in times], dtype=np.int64)
    start = np.cumsum([0, *(len(times) for times in events.values())])
    columns = {"item": np.arange(len(available), dtype=np.int32), "available": available}
    return HistorySource(columns, np.array(list(events), dtype=np.uint64), start)


def positions_of(source: HistorySource, spans: Spans, last_n: int, after: list[int] | None = None) -> list[list[int]]:
    after_R = None if after is None else np.array(after)
    positions, offsets = source.newest(spans, last_n, after_R=after_R)
    return [part.tolist() for part in np.split(positions, offsets[1:-1])]


@given(
    lists=st.lists(st.lists(st.integers(-3, 12)).map(sorted), max_size=6),
    bounds=st.lists(st.integers(-5, 14), min_size=6, max_size=6),
)
def test_first_not_before_is_a_walk_from_the_left(lists: list[list[int]], bounds: list[int]) -> None:
    values = np.array([value for one in lists for value in one], dtype=np.int64)
    ends = np.cumsum([len(one) for one in lists]).astype(np.int64)
    starts = ends - np.array([len(one) for one in lists], dtype=np.int64)
    found = first_not_before(values, starts, ends, np.array(bounds[: len(lists)], dtype=np.int64))
    for start, end, bound, place in zip(starts, ends, bounds, found, strict=False):
        assert place == next((p for p in range(start, end) if values[p] >= bound), end)


@given(
    users=st.dictionaries(st.integers(1, 30), st.lists(st.integers(0, 9), max_size=5).map(sorted), max_size=5),
    asked=st.lists(st.tuples(st.integers(0, 31), st.integers(-1, 11)), min_size=1, max_size=8),
    last_n=st.integers(1, 4),
    after=st.integers(-1, 9),
)
def test_spans_and_newest_are_those_of_plain_lists(
    users: dict[int, list[int]], asked: list[tuple[int, int]], last_n: int, after: int
) -> None:
    users = dict(sorted(users.items()))
    source = store(users)
    first = dict(zip(users, np.cumsum([0, *(len(times) for times in users.values())]).tolist(), strict=False))
    spans = source.spans(np.array([u for u, _ in asked], dtype=np.uint64), np.array([t for _, t in asked]))
    found = positions_of(source, spans, last_n)
    window = positions_of(source, spans, last_n, [after] * len(asked))
    for (user, time), past, recent in zip(asked, found, window, strict=True):
        times = users.get(user, [])
        seen = [first[user] + place for place, available in enumerate(times) if available < time]
        assert past == seen[-last_n:]
        assert recent == [p for p in seen[-last_n:] if source.columns["available"][p] >= after]


def test_past_is_strictly_earlier() -> None:
    source = store()
    at = np.array([1, 2, 4, 5, 9, 10])
    spans = source.spans(np.full(6, 3, dtype=np.uint64), at)
    assert spans.length_R.tolist() == [0, 2, 2, 4, 4, 5]


def test_a_user_without_events_and_one_never_seen_have_no_past() -> None:
    source = store()
    spans = source.spans(np.array([8, 0, 99], dtype=np.uint64), np.array([50, 50, 50]))
    assert spans.length_R.tolist() == [0, 0, 0]
    assert positions_of(source, spans, 10) == [[], [], []]


def test_a_store_without_events() -> None:
    source = store({})
    spans = source.spans(np.array([1, 2], dtype=np.uint64), np.array([0, 9]))
    assert positions_of(source, spans, 3) == [[], []] and source.num_events == 0


def test_an_inline_store_has_no_users() -> None:
    with pytest.raises(ValueError, match=r"no index by user: the record itself must carry its lists"):
        HistorySource({"item": np.zeros(2, np.int32)}).spans(np.array([1], np.uint64), np.array([1]))


def test_what_was_written_is_mapped(tmp_path) -> None:
    source = store()
    assert source.user is not None and source.start is not None
    for name, array in {**source.columns, "user": source.user, "start": source.start}.items():
        np.save(tmp_path / f"{name}.npy", array)
    opened = HistorySource.open(tmp_path)
    assert set(opened.columns) == {"item", "available"} and isinstance(opened.columns["item"], np.memmap)
    asked = np.array([3, 21], dtype=np.uint64), np.array([5, 3])
    assert positions_of(opened, opened.spans(*asked), 3) == positions_of(source, source.spans(*asked), 3)
    assert positions_of(opened, opened.spans(*asked), 3) == [[1, 2, 3], [6, 7, 8]]
