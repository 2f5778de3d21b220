"""Event columns → the histories of a batch: the newest events of every request, jagged, with what was known of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fullrank.data.columns import Ragged
from fullrank.data.history import HistorySource, Spans
from fullrank.data.id_map import MISSING_ID
from fullrank.data.inputs import Field, HistoryInputs
from fullrank.data.pack import Views, ids_of

if TYPE_CHECKING:
    from fullrank.data.batch import Bag, HistoryBatch

MICROSECONDS = 1_000_000


class ItemAttributes(Protocol):
    """What a batch needs of the item table: encoded attributes by item id (and code, since items of a hashed key space
    share ids), of items seen before some moment."""

    def attributes(
        self,
        name: str,
        item_ids: np.ndarray,
        before_E: np.ndarray | None = None,
        codes_E: np.ndarray | None = None,
    ) -> np.ndarray | Ragged: ...


@dataclass(frozen=True)
class _Piece:
    """The requests of a batch that read from one store: where their events begin there and where in the batch, how
    many they are, and the times they are asked at."""

    store: HistorySource
    start_R: np.ndarray
    to_R: np.ndarray
    length_R: np.ndarray
    time_R: np.ndarray


@dataclass(frozen=True)
class _Events:
    """E events of a batch. `columns` are those that each of the stores has."""

    pieces: list[_Piece]
    columns: dict[str, np.ndarray]
    num: int

    def read(self, name: str, out_E: np.ndarray) -> np.ndarray:
        """The stored column into `out_E`; an outcome not yet known at the request's time is NaN."""
        from fullrank.kernels.spans import copy_spans

        known_at = f"{name}@known_at"
        for piece in self.pieces:
            columns, spans = piece.store.columns, (piece.start_R, piece.to_R, piece.length_R)
            if known_at in columns:
                copy_spans(columns[name], *spans, out_E, known_at=columns[known_at], before_R=piece.time_R)
            else:
                copy_spans(columns[name], *spans, out_E)
        return out_E


def read_history(
    inputs: HistoryInputs,
    stores: tuple[HistorySource, ...],
    store_R: np.ndarray,
    spans: Spans,
    time_R: np.ndarray,
    items: ItemAttributes | None,
    views: Views,
) -> HistoryBatch:
    """The newest `inputs.last_n` events of every request, oldest first; requests may point into several stores.

    What an item is like is looked up by the id that the model sees, as it was known before the request's time.
    """
    import torch

    from fullrank.data.batch import FeatureBlock, HistoryBatch

    events, offsets = _events(stores, store_R, spans, time_R, inputs.last_n)
    categorical = [f for f in inputs.fields if f.kind == "categorical"]
    numeric = [f for f in inputs.fields if f.kind == "numeric"]
    ids_EF = np.empty((events.num, len(categorical)), dtype=np.int64)
    numbers_EF = np.empty((events.num, len(numeric)), dtype=np.float32)
    item = inputs.fields[0]
    before_E = np.repeat(time_R, np.diff(offsets))
    item_E = ids_of(events.read("item", np.empty(events.num, dtype=np.int32)), item, views)
    code_E = None
    if "@item" in events.columns and any(f.name not in events.columns and f.name != "age" for f in inputs.fields):
        code_E = events.read("@item", np.empty(events.num, dtype=np.uint64))

    def attribute(field: Field) -> np.ndarray | Ragged:
        if items is None:  # no row has named an item yet
            return _missing(field, events.num)
        return items.attributes(field.name.removeprefix("item."), item_E, before_E, code_E)

    for place, field in enumerate(categorical):
        if field is item:
            ids_EF[:, place] = item_E
        elif field.name in events.columns:
            events.read(field.name, ids_EF[:, place])
            if field.key_space in views:
                ids_EF[:, place] = views[field.key_space][ids_EF[:, place]]
        else:
            ids_EF[:, place] = ids_of(_flat(attribute(field)), field, views)
    for place, field in enumerate(numeric):
        if field.name == "age":
            age_E = (before_E - events.read("time", np.empty(events.num, dtype=np.int64))) / MICROSECONDS
            np.maximum(age_E, 0.0, out=age_E)  # in place: new pages cost as much as the logarithm
            age_E += 1.0
            numbers_EF[:, place] = np.log10(age_E, out=age_E)
        elif field.name in events.columns:
            events.read(field.name, numbers_EF[:, place])
        else:
            numbers_EF[:, place] = _flat(attribute(field))
    bags = []
    for field in inputs.fields:
        if field.kind == "multi":
            lists = attribute(field)
            assert isinstance(lists, Ragged)
            bags.append(bag_tensors(Ragged(ids_of(lists.values, field, views), lists.offsets)))
    block = FeatureBlock(torch.from_numpy(ids_EF), torch.from_numpy(numbers_EF), tuple(bags))
    return HistoryBatch(block, torch.from_numpy(offsets))


def _events(
    stores: tuple[HistorySource, ...], store_R: np.ndarray, spans: Spans, time_R: np.ndarray, last_n: int
) -> tuple[_Events, np.ndarray]:
    length_R = np.minimum(spans.length_R, last_n).astype(np.int64)
    start_R = spans.end_R - length_R
    offsets = np.zeros(len(length_R) + 1, dtype=np.int64)
    np.cumsum(length_R, out=offsets[1:])
    every = (start_R, offsets[:-1], length_R, time_R)
    used = [int(store_R[0])] if len(store_R) and (store_R == store_R[0]).all() else np.unique(store_R).tolist()
    if len(used) == 1:
        pieces = [_Piece(stores[used[0]], *every)]
    else:
        pieces = [_Piece(stores[store], *(column[store_R == store] for column in every)) for store in used]
    return _Events(pieces, (pieces[0].store if pieces else stores[0]).columns, int(offsets[-1])), offsets


def bag_tensors(ids: Ragged, weights: Ragged | None = None) -> Bag:
    """List columns as a `Bag`. Copies: what is packed may be a map of a file, and the next batch is made of it."""
    import torch

    from fullrank.data.batch import Bag

    def tensor(values: np.ndarray, dtype: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(values, dtype=dtype))

    weights_N = None if weights is None else tensor(weights.values, np.float32)
    return Bag(tensor(ids.values, np.int64), tensor(ids.offsets, np.int64), weights_N)


def _flat(values: np.ndarray | Ragged) -> np.ndarray:
    assert isinstance(values, np.ndarray)
    return values


def _missing(field: Field, n: int) -> np.ndarray | Ragged:
    """What `n` events have of an attribute that no item has: id 1, or an empty bag."""
    if field.kind == "multi":
        return Ragged(np.empty(0, dtype=np.int32), np.zeros(n + 1, dtype=np.int64))
    return np.full(n, MISSING_ID, dtype=np.int32)
