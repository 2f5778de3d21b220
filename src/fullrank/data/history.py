"""Reading histories: one store of flat event columns, whichever layout they were logged in.

A request's past is a span of events, `[end - length, end)`. In the `by_user` layout many requests share the events of
a user; in the `inline` layout each request has its own. Nothing here knows which: a batch reads `newest(...)` positions
and gathers columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fullrank.data.columns import span_positions


@dataclass(frozen=True)
class Spans:
    """The past of R requests: events `[end_R - length_R, end_R)` of a `HistorySource`, oldest first."""

    end_R: np.ndarray
    length_R: np.ndarray


class HistorySource:
    """The events of one history, as flat columns of equal length (docs/architecture.md, section 3).

    `columns` may be memory maps. `user` (sorted codes) and `start` (their first event; one more entry at the end) are
    there in the `by_user` layout alone.
    """

    def __init__(self, columns: dict[str, np.ndarray], user: np.ndarray | None = None, start: np.ndarray | None = None):
        self.columns = columns
        self.user = user
        self.start = start

    @staticmethod
    def open(folder: Path) -> HistorySource:
        """The store in `folder`, memory-mapped: one `.npy` a column."""
        arrays = {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(folder.glob("*.npy"))}
        return HistorySource(arrays, arrays.pop("user", None), arrays.pop("start", None))

    @property
    def num_events(self) -> int:
        return len(self.columns["item"])

    def spans(self, user_R: np.ndarray, time_R: np.ndarray) -> Spans:
        """The past of requests that were never prepared: users by code, at a time (by_user only).

        Past means `available < time`, strictly. A user without events gets an empty span.
        """
        if self.user is None or self.start is None:
            raise ValueError("An inline history has no index by user: the record itself must carry its lists.")
        place = np.searchsorted(self.user, user_R)
        place = np.minimum(place, max(len(self.user) - 1, 0))
        found = self.user[place] == user_R if len(self.user) else np.zeros(len(user_R), dtype=bool)
        first = np.where(found, self.start[place], 0)
        last = np.where(found, self.start[place + 1], 0) if len(self.user) else first
        end = first_not_before(self.columns["available"], first, last, time_R)
        return Spans(end, (end - first).astype(np.int32))

    def past(self, user_R: np.ndarray, time_R: np.ndarray) -> tuple[HistorySource, Spans]:
        """The store to read the past of these requests from, and their spans in it (see `past.Past` for several)."""
        return self, self.spans(user_R, time_R)

    def newest(
        self, spans: Spans, last_n: int, *, after_R: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the newest `last_n` events of every span, oldest first, and the offsets between requests.

        `after_R` drops events that became available before it: a window in time beside the one in number.
        """
        start = spans.end_R - np.minimum(spans.length_R, last_n)
        if after_R is not None:
            start = first_not_before(self.columns["available"], start, spans.end_R, after_R)
        return span_positions(start, spans.end_R)


def first_not_before(values: np.ndarray, start: np.ndarray, end: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """For each i the first position p in `[start[i], end[i])` with `values[p] >= bound[i]`, else `end[i]`.

    `values` ascend inside every span. A bisection of all spans at once: log2(longest span) gathers.
    """
    low = np.asarray(start, dtype=np.int64).copy()
    high = np.asarray(end, dtype=np.int64).copy()
    while (open_ := low < high).any():
        middle = (low + high) // 2
        before = np.zeros(len(low), dtype=bool)
        before[open_] = values[middle[open_]] < np.asarray(bound)[open_]
        low = np.where(before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)
    return low
