"""The past of requests that were never prepared, where their users' events lie in several partitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fullrank.data.columns import span_positions
from fullrank.data.history import HistorySource, Spans

if TYPE_CHECKING:
    from fullrank.data.inputs import Inputs
    from fullrank.data.partitions import PreparedData

_NEVER_YET = np.iinfo(np.int64).min


class Past:
    """The events of one by_user history over all partitions.

    A partition's store begins each of its users with the newest `max_length` events before it, so one store holds all
    that a request can read of a user, but which one depends on user and time. It is the one whose newest event before
    the request is the newest; then the one that has more of them; then the latest that had begun by the request's time
    (it knows most of late outcomes, and is the request's own where the request was prepared).
    """

    def __init__(self, stores: Sequence[HistorySource], begins: Sequence[int], max_length: int) -> None:
        """`begins`: the time of the first row of each store's partition."""
        self.stores = tuple(stores)
        self._begins = tuple(begins)
        self._max_length = max_length

    def past(self, user_R: np.ndarray, time_R: np.ndarray) -> tuple[HistorySource, Spans]:
        """One store with the past of every request, and their spans in it."""
        if len(self.stores) == 1:
            return self.stores[0].past(user_R, time_R)
        n = len(user_R)
        best = [np.full(n, _NEVER_YET), np.zeros(n, np.int64), np.zeros(n, bool)]
        chosen, end, length = (np.zeros(n, np.int64) for _ in range(3))
        for number, (store, begin) in enumerate(zip(self.stores, self._begins, strict=True)):
            spans = store.spans(user_R, time_R)
            there = np.flatnonzero(spans.length_R)
            last = store.columns["available"][spans.end_R[there] - 1]
            mine = [last, np.minimum(spans.length_R[there], self._max_length), begin <= time_R[there]]
            better, tied = np.zeros(len(there), bool), np.ones(len(there), bool)
            for value, held in zip(mine, best, strict=True):
                better |= tied & (value > held[there])
                tied &= value == held[there]
            taken = there[better | tied]
            for value, held in zip(mine, best, strict=True):
                held[taken] = value[better | tied]
            chosen[taken], end[taken], length[taken] = number, spans.end_R[taken], spans.length_R[taken]
        return gathered(self.stores, chosen, Spans(end, length.astype(np.int32)))


def gathered(stores: Sequence[HistorySource], store_R: np.ndarray, spans: Spans) -> tuple[HistorySource, Spans]:
    """The events of requests that point into several stores (request r into `stores[store_R[r]]`) as one store of
    their own, with the columns that all of the stores have that are pointed into."""
    used = np.unique(store_R).tolist() if len(store_R) else [0]
    first, *others = (stores[number].columns for number in used)
    names = [name for name in first if all(name in columns for columns in others)]
    pieces: dict[str, list[np.ndarray]] = {name: [first[name][:0]] for name in names}
    end, begun = np.zeros(len(store_R), np.int64), 0
    for number in used:
        at = np.flatnonzero(store_R == number)
        positions, offsets = span_positions(spans.end_R[at] - spans.length_R[at], spans.end_R[at])
        for name in names:
            pieces[name].append(stores[number].columns[name][positions])
        end[at] = begun + offsets[1:]
        begun += len(positions)
    columns = {name: np.concatenate(parts) for name, parts in pieces.items()}
    return HistorySource(columns), Spans(end, spans.length_R)


def pasts(data: PreparedData, inputs: Inputs) -> dict[str, Past]:
    """The events of every by_user history that `inputs` names, for `Transform.read` and `apply` (with `data.views`)."""
    found = {}
    for wanted in inputs.histories:
        history = data.schema.history(wanted.name)
        if history.layout != "by_user":
            continue
        partitions = [partition for partition in data.partitions if partition.entry.kind == "rows"]
        stores = [partition.history(history.name) for partition in partitions]
        begins = [partition.entry.time_min for partition in partitions]
        found[history.name] = Past(
            stores, [_NEVER_YET if begin is None else begin for begin in begins], history.max_length
        )
    return found
